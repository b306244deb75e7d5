"""What was served by the kernels, and what was left to PyTorch."""

from __future__ import annotations

import os
import sys
from collections import Counter
from typing import NamedTuple

import torch

_VERBOSE = os.environ.get("RNNFAST_VERBOSE") == "1"
_served: Counter[str] = Counter()
_left: Counter[tuple[str, str]] = Counter()
_shapes: set[tuple[str, tuple[int, ...], str]] = set()


class Report(NamedTuple):
    """Calls since the program began or since the last `enable()`, of accelerated models too.

    Each process counts for itself; graphs of `compile` are not counted.

    Attributes
    ----------
    served : dict of str to int
        Calls that the kernels served, by operator; those of `Recurrent` by its cell.
    left : dict of (str, str) to int
        Calls that PyTorch served itself, by operator and reason.

    Examples
    --------
    >>> import torch, rnnfast.torch
    >>> with rnnfast.torch.enable():
    ...     _ = torch.nn.GRU(3, 4)(torch.zeros(5, 2, 3))
    >>> rnnfast.torch.report().served
    {'gru': 1}
    """

    served: dict[str, int]
    left: dict[tuple[str, str], int]

    def __str__(self) -> str:
        served = ", ".join(f"{count} {name}" for name, count in sorted(self.served.items())) or "none"
        left = ", ".join(f"{count} {name} ({why})" for (name, why), count in sorted(self.left.items()))
        return f"rnnfast.torch: calls served: {served}; left to PyTorch: {left or 'none'}"


def report() -> Report:
    """Which calls were served, and which were left to PyTorch and why.

    Examples
    --------
    >>> import torch, rnnfast.torch
    >>> with rnnfast.torch.enable():
    ...     _ = torch.nn.GRU(3, 4)(torch.zeros(5, 2, 3))
    ...     print(rnnfast.torch.report())
    rnnfast.torch: calls served: 1 gru; left to PyTorch: none
    """
    return Report(dict(_served), dict(_left))


def clear() -> None:
    """Begin to count anew."""
    _served.clear()
    _left.clear()
    _shapes.clear()


def note(name: str, x: torch.Tensor, why: str) -> None:
    """Count a call; with RNNFAST_VERBOSE=1 each new shape is told on stderr."""
    if why:
        _left[name, why] += 1
    else:
        _served[name] += 1
    if _VERBOSE:
        key = name, tuple(x.shape), why
        if key not in _shapes:
            _shapes.add(key)
            done = f"left to PyTorch: {why}" if why else "served"
            print(f"rnnfast.torch: {name} {tuple(x.shape)} {done}", file=sys.stderr)
