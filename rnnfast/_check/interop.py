"""Checks of conversions: what another library cannot represent, and files that are not what they claim."""

from __future__ import annotations

from collections.abc import Iterable
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


def graph_inputs(owner: str, given: Iterable[str], expected: Iterable[str]) -> None:
    """Every input of a graph, and no other."""
    given, expected = set(given), set(expected)
    named = ", ".join(sorted(expected))
    for name in sorted(expected - given):
        raise ValueError(f"{owner}: the input {name} is missing; inputs are {named}.")
    for name in sorted(given - expected):
        raise ValueError(f"{owner}: there is no input {name}; inputs are {named}.")


def graph_input_dtype(owner: str, name: str, given: Any, expected: Any) -> None:
    """An input of a graph has the dtype that the file says."""
    if given != expected:
        raise TypeError(f"{owner}: {name} must be {expected}, got {given}.")


def no_model(owner: str, node: str, op: str) -> ValueError:
    """The error for a graph that is more than layers, or has none."""
    what = f"the node {node!r} ({op}) is not part of one" if op else "the graph has no RNN, LSTM or GRU"
    return ValueError(
        f"{owner}: models are recurrent layers, with an embedding before and an affine layer after them or "
        f"neither; {what}."
    )


def no_language_model(owner: str) -> ValueError:
    """The error for a graph whose parts do not make the model that they look like."""
    return ValueError(
        f"{owner}: the graph has layers, but computes another function than a Stack, or than an RNNLM with "
        f"layers of one cell and size; use graph.layers."
    )


def not_runnable(owner: str, why: str) -> ValueError:
    """The error for a graph of which only the layers were read."""
    return ValueError(f"{owner}: {why}.")
