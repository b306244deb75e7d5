"""Checks of conversions: what another library cannot represent, and files that are not what they claim."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from rnnfast._check.errors import CheckpointError

_WHY = {
    "gru": 'resets the state before the product; make the layer with reset="after", or use ONNX or Keras',
    "peephole_lstm": "lets its gates read the cell state",
}


def not_representable(owner: str, library: str, cell: str) -> ValueError:
    """The error for a cell that none of a library's layers computes."""
    why = _WHY.get(cell, "is another function than its layers compute")
    return ValueError(f"{owner}: {library} has no layer for the cell {cell}, which {why}.")


def disagrees(owner: str, what: str, difference: float, limit: float) -> ValueError:
    """The error for a conversion whose two sides give different numbers."""
    return ValueError(
        f"{owner}: rnnfast and {what} differ by {difference:.1e} on random input, more than {limit:.0e}; the "
        f"weights do not belong to this kind of layer."
    )


def damaged(path: Any, problem: str) -> CheckpointError:
    """The error for a file that cannot be read as what it claims to be."""
    return CheckpointError(f"{path}: {problem}.")


def missing_package(owner: str, package: str, extra: str) -> ModuleNotFoundError:
    """The error for an optional package that is not installed."""
    return ModuleNotFoundError(f"{owner} needs {package}: pip install 'rnnfast[{extra}]'.")


def not_exported(owner: str, model: Any, kinds: Sequence[type]) -> TypeError:
    """The error for a model of a kind that has no form in another format."""
    *others, last = (kind.__name__ for kind in kinds)
    return TypeError(f"{owner}: model must be {', '.join(others)} or {last}, got {type(model).__name__}.")


def unique_in_graph(owner: str, name: str, taken: Collection[str]) -> None:
    """A name of one input, output or parameter only."""
    if name in taken:
        raise ValueError(f"{owner}: two values have the name {name}; rename one in the step of the cell.")


def fits_protobuf(owner: str, nbytes: int, most: int) -> None:
    """Parameters that fit a file of ONNX."""
    if nbytes > most:
        raise ValueError(
            f"{owner}: the parameters take {nbytes:,} bytes, and a file of ONNX ends at {most:,}."
        )
