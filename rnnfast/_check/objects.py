"""Checks of layers, models and states: required attributes, and sizes that fit each other."""

from __future__ import annotations

from typing import Any


def a_cell(owner: str, cell: Any, kind: type) -> None:
    """An instance of the class `Cell`, not the name of a cell."""
    if not isinstance(cell, kind):
        raise TypeError(
            f"{owner}: cell must be a Cell, such as rnnfast.cells.gru or one made by rnnfast.cell, "
            f"got {cell!r:.60}."
        )


def instances(owner: str, layers: Any, kinds: tuple[type, ...]) -> None:
    """A list of at least one layer, each an instance of one of these classes."""
    if not isinstance(layers, list | tuple):
        raise TypeError(
            f"{owner}: layers must be a list, as in {owner}([lower, upper]), got {type(layers).__name__}."
        )
    if not layers:
        raise ValueError(f"{owner}: at least one layer is needed, got none.")
    for layer in layers:
        if not isinstance(layer, kinds):
            names = " or ".join(kind.__name__ for kind in kinds)
            raise TypeError(f"{owner}: layers must be {names}, got {type(layer).__name__}.")


def distinct(owner: str, layers: Any) -> None:
    """No layer appears twice, since each caches values for its backward; layers may share arrays."""
    if len({id(layer) for layer in layers}) != len(layers):
        raise ValueError(f"{owner}: each layer may be used only once; make another on the same params.")


def offers(owner: str, name: str, value: Any, attributes: tuple[str, ...], like: str) -> None:
    """An object, not a class, that has these attributes."""
    if isinstance(value, type) or not all(hasattr(value, attribute) for attribute in attributes):
        text = repr(value)
        if len(text) > 60 or "\n" in text:
            text = f"{type(value).__module__}.{type(value).__qualname__}"
        raise TypeError(f"{owner}: {name} must be an object like {like}, got {text}.")


def works_in_parts(owner: str, model: Any, kind: type) -> None:
    """A model that can process a sequence in parts: its body is of this kind."""
    if not isinstance(getattr(model, "body", None), kind):
        raise TypeError(
            f"{owner}: the model must be an RNNLM or a SequenceRegressor, got {type(model).__name__}; "
            f"TruncatedBPTT(k1) takes any model."
        )


def equal(owner: str, what: str, first: Any, second: Any) -> None:
    """Two values that must be equal."""
    if first != second:
        raise ValueError(f"{owner}: {what} must be equal, got {first} and {second}.")


def batch(owner: str, carried: int, received: int) -> None:
    """A carried state must have as many rows as the input."""
    if carried != received:
        raise ValueError(
            f"{owner}: the carried state has {carried} rows but the input has {received}; "
            f"call reset_state() or set_state() before changing the batch size."
        )


def entries(owner: str, name: str, value: Any, count: int, what: str) -> tuple:
    """A tuple or list of `count` entries, a part of the value of `get_state`."""
    start = f"{owner}: {name}, as get_state() returns it, must be a tuple of {count} ({what}), got"
    if not isinstance(value, tuple | list):
        raise TypeError(f"{start} {type(value).__name__}.")
    if len(value) != count:
        raise ValueError(f"{start} {len(value)}.")
    return tuple(value)
