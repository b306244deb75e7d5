"""The contenders. Each is a module with these functions:

* ``start(threads) -> str``: import the library, limit it to that many threads, return its version.
* ``layer(problem) -> Runs | None``: the passes of a `LayerProblem` that it has; None for a cell that it does
  not have.
* ``language_model(problem) -> Runs | None``: likewise for a `ModelProblem`: ``gradients`` (the
  loss and all gradients) and ``step`` (which also clips them and updates the weights).

To add a library, write such a module and add a line to `PEERS`.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType

import numpy as np


@dataclass(frozen=True)
class Peer:
    """Another library.

    Parameters
    ----------
    title : str
        Its name.
    module : str
        The module that implements the contender.
    needs : tuple of str
        The required packages, by their import names.
    """

    title: str
    module: str
    needs: tuple[str, ...]

    @property
    def missing(self) -> list[str]:
        """The required packages that are not installed."""
        return [name for name in self.needs if importlib.util.find_spec(name) is None]


OWN = Peer("rnnfast", "rnnfast.bench.own", ())
PEERS = {
    "torch": Peer("PyTorch", "rnnfast.bench.torch_peer", ("torch",)),
    "jax": Peer("JAX", "rnnfast.bench.jax_peer", ("jax",)),
    "onnxruntime": Peer("ONNX Runtime", "rnnfast.bench.onnx_peer", ("onnxruntime", "onnx")),
}


@dataclass(frozen=True)
class Runs:
    """A problem prepared for a contender.

    Parameters
    ----------
    calls : dict of str to callable
        The timed call of each pass (``forward``, ``both``; ``gradients``, ``step``); it keeps its results.
    results : callable
        Runs a pass once, untimed, and returns its results in rnnfast's layout. ``forward``: ``hs (N, T, H)``;
        ``both`` adds ``dxs`` and ``dWx``, ``dWh``, ``db`` and so on, one for each parameter of the cell. For
        a language model: ``loss`` and the gradients of all parameters before clipping, by number.
    keeps : object
        What the calls need while they are used, such as an open context.
    """

    calls: dict[str, Callable[[], object]]
    results: Callable[[str], dict[str, np.ndarray]]
    keeps: object = None


class WrongResult(ValueError):
    """A contender's result differs from rnnfast's."""


def load(module: str) -> ModuleType:
    """A contender's module."""
    return importlib.import_module(module)


def chosen(names: Sequence[str] | None) -> list[str]:
    """The peers to measure: the named ones, or all that are installed.

    Raises
    ------
    ValueError
        A named peer is unknown or not installed.
    """
    if names is None:
        return [name for name, peer in PEERS.items() if not peer.missing]
    for name in names:
        if name not in PEERS:
            raise ValueError(f"bench: peers must be among {', '.join(PEERS)}, or none, got {name!r}.")
        if PEERS[name].missing:
            missing = " ".join(PEERS[name].missing)
            raise ValueError(f"bench: {PEERS[name].title} is not installed here: pip install {missing}")
    return list(names)


def assert_agree(
    title: str,
    what: str,
    actual: dict[str, np.ndarray],
    expected: dict[str, np.ndarray],
    tolerance: float = 1e-4,
) -> float:
    """Compare a peer's results with rnnfast's, each array by the norm of the difference.

    Returns
    -------
    difference : float
        The largest difference, relative to the norm of the expected array. The terms of a sum such as `db`
        may cancel; a difference of the size of rounding errors of all results together is allowed.

    Raises
    ------
    WrongResult
        A result is missing, has another shape, or differs by more than `tolerance`.
    """
    norms = {name: float(np.linalg.norm(np.asarray(array, float))) for name, array in expected.items()}
    rounding = 10 * float(np.finfo(np.float32).eps) * max(norms.values(), default=0.0)
    largest = 0.0
    for name, value in expected.items():
        if name not in actual:
            raise WrongResult(f"{title} has no {name} for {what}, so it does not do the same work.")
        other = np.asarray(actual[name], np.float64)
        if other.shape != value.shape:
            raise WrongResult(
                f"{title} returns {name} of shape {other.shape} for {what}, expected {value.shape}."
            )
        error = float(np.linalg.norm(other - value))
        difference = error / (norms[name] or 1.0)
        if not (difference <= tolerance or error <= rounding):  # true for NaN, too
            raise WrongResult(
                f"{title} computes another {name} for {what}: it differs by {difference:.1e} of its norm, "
                f"more than the {tolerance:.0e} allowed, so its time is meaningless."
            )
        largest = max(largest, difference)
    return largest
