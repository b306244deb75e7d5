"""Errors of conversions: layers that another library lacks, wrong arrays, and damaged files."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rnnfast._check.arrays import shape_text

_NAMES = {"torch": "PyTorch", "keras": "Keras", "flax nnx": "Flax", "flax linen": "Flax"}
_WHY = {
    "gru": 'resets the state before the product; make the layer with reset="after", or use ONNX or Keras',
    "peephole_lstm": "lets its gates read the cell state",
}


def not_representable(owner: str, library: str, cell: str) -> ValueError:
    """The error for a cell that none of a library's layers computes."""
    if cell not in _WHY and library in _NAMES:  # its gates may be those of a layer in another order
        return ValueError(f"{owner}: no layer of {_NAMES[library]} is known to compute the cell {cell}.")
    why = f", which {_WHY[cell]}" if cell in _WHY else ""
    return ValueError(f"{owner}: {_NAMES.get(library, library)} has no layer for the cell {cell}{why}.")


def finite_array(owner: str, name: str, array: Any) -> None:
    """An array without NaN or infinity."""
    wrong = np.argwhere(~np.isfinite(array))
    if len(wrong):
        place = ", ".join(map(str, wrong[0]))
        raise ValueError(f"{owner}: {name} must be finite, got {array[tuple(wrong[0])]} at [{place}].")


def no_place_for(owner: str, library: str, what: str) -> ValueError:
    """The error for a head or a model that a file of weights alone cannot tell."""
    return ValueError(f"{owner}: {library} has no place for {what}.")


def cell_of_file(owner: str, path: Any, given: str, found: str) -> ValueError:
    """The error for a cell that is not the one which a file has."""
    return ValueError(f"{owner}: cell must be {found}, which {path} has, got {given}.")


def array_missing(owner: str, name: str) -> ValueError:
    """The error for a layer without one of its arrays."""
    return ValueError(f"{owner}: the array {name} is missing.")


def array_unknown(owner: str, name: str, why: str = "no such layer has it") -> ValueError:
    """The error for an array that does not belong to the layer."""
    return ValueError(f"{owner}: {name} is an array too many; {why}.")


def array_kind(owner: str, name: str, kind: str) -> TypeError:
    """The error for an array of another dtype than the layers have."""
    way = "; pass dtype=np.float32 to convert it" if kind in ("float16", "bfloat16") else ""
    return TypeError(f"{owner}: {name} must be float32 or float64, got {kind}{way}.")


def option_not_served(owner: str, name: str, value: Any, served: str) -> ValueError:
    """The error for an option of another library's layer that no layer of rnnfast has."""
    if isinstance(value, Mapping):  # an object, serialized
        kind = value.get("class_name", "function")
        given = "a function of your own" if kind in ("function", "__lambda__") else f"a {kind}"
    else:
        given = f"{value!r:.60}"
    return ValueError(f"{owner}: {name} must be {served}, got {given}; no layer of rnnfast has that.")


def pass_instead(owner: str, name: str, given: str, way: str) -> TypeError:
    """The error for an object of another library whose arrays cannot be read, and what to pass instead."""
    return TypeError(f"{owner}: {name} is {given}; pass {way}.")


def no_layer_found(owner: str, what: str, where: str) -> ValueError:
    """The error for a model without a recurrent layer."""
    return ValueError(f"{owner}: no recurrent layer found{where}; expected {what}.")


def several_layers(owner: str, names: list[str], way: str) -> ValueError:
    """The error for a model with several recurrent layers."""
    return ValueError(f"{owner}: found several recurrent layers: {', '.join(names)}; {way}.")


def unlike_the_first(
    owner: str, place: str, what: str, given: Any, expected: Any, library: str
) -> ValueError:
    """The error for a stack that is more than one layer of another library."""
    return ValueError(
        f"{owner}: all layers of one {library} have the same {what}, got {given} in layer {place} and "
        f"{expected} in layer 0; convert the layers one by one."
    )


def keras_weights(owner: str, place: str, count: int) -> ValueError:
    """The error for a list that is not the weights of one Keras layer."""
    return ValueError(
        f"{owner}: the weights of {place} must be kernel, recurrent_kernel and perhaps bias, or twice "
        f"these for two directions, got {count} arrays; a layer has them once it is built."
    )


def gates(owner: str, name: str, weights: Any, form: str) -> tuple[int, int]:
    """The hidden size H and the number of gates G, 1, 3 or 4, of recurrent weights (H, G*H)."""
    if weights.ndim == 2 and weights.shape[0]:
        hidden, columns = weights.shape
        if columns in (hidden, 3 * hidden, 4 * hidden):
            return hidden, columns // hidden
    given = shape_text(weights.shape if form.startswith("(H") else weights.shape[::-1])
    raise ValueError(f"{owner}: {name} must be {form} with 1, 3 or 4 gates G, got {given}.")


def reads_backwards(owner: str, place: str, expected: bool) -> ValueError:
    """The error for a layer of Keras whose direction is not that of a layer of rnnfast."""
    way = (
        "as backward_layer of Bidirectional"
        if expected
        else "rnnfast reads forwards; convert get_weights(), and pass xs[:, ::-1] to forward"
    )
    return ValueError(f"{owner}: go_backwards must be {expected} in {place}, got {not expected}; {way}.")


def package_missing(owner: str, package: str, extra: str) -> ModuleNotFoundError:
    """The error for an optional package that is not installed."""
    return ModuleNotFoundError(f"{owner} needs {package}: pip install 'rnnfast[{extra}]'.")


def installed(owner: str, extra: str, *packages: str) -> None:
    """Packages of an extra that are installed; ModuleNotFoundError, which names the extra, otherwise."""
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise package_missing(owner, package, extra)


def not_exported(owner: str, model: Any, kinds: Sequence[type]) -> TypeError:
    """The error for a model of a kind that has no form in another format."""
    *others, last = (kind.__name__ for kind in kinds)
    return TypeError(f"{owner}: model must be {', '.join(others)} or {last}, got {type(model).__name__}.")


def fits_protobuf(owner: str, nbytes: int, most: int) -> None:
    """Parameters that fit a file of ONNX."""
    if nbytes > most:
        raise ValueError(
            f"{owner}: the parameters take {nbytes:,} bytes, and a file of ONNX ends at {most:,}."
        )


def one_recurrent_layer(owner: str, prefixes: list[str]) -> ValueError:
    """The error for a state_dict with several recurrent layers."""
    names = ", ".join(prefix.rstrip(".") or "the top" for prefix in prefixes)
    return ValueError(f"{owner}: expected one recurrent layer, got several: {names}.")


def unknown_ending(path: Any, endings: tuple[str, ...]) -> ValueError:
    """The error for a file whose ending names no format."""
    *others, last = endings
    return ValueError(f"{path} must end in {', '.join(others)}{' or ' * bool(others)}{last}.")


def file_in_the_way(path: Any) -> FileExistsError:
    """The error for a file that would be replaced."""
    return FileExistsError(f"{path}: this file already exists; choose another one, or --overwrite it.")


def no_model(owner: str, node: str, op: str, why: str = "is not part of one") -> ValueError:
    """The error for a graph that is more than layers, or has none."""
    what = f"the node {node!r} ({op}) {why}" if op else "the graph has no RNN, LSTM or GRU"
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
    """The error for a graph that cannot be compared with a model, since ONNX Runtime does not run it."""
    return ValueError(
        f"{owner}: ONNX Runtime does not run the graph, use graph.layers: {' '.join(why.split()):.200}."
    )
