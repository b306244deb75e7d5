"""Checks of layers, models, cells, parameters and calls."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from rnnfast._check.arrays import FLOAT_DTYPES, as_array, float_dtype, shape, shape_text
from rnnfast._check.errors import CellMissing, CheckpointError


def called_before(owner: str, ready: bool, first: str) -> None:
    """Guard for methods that must follow another one (`backward` after `forward`)."""
    if not ready:
        raise RuntimeError(f"{owner}: call {first} first.")


def another_thread(owner: str) -> RuntimeError:
    """The error for training one object from two threads."""
    return RuntimeError(
        f"{owner}: another thread is training it; wait for that, or use a copy (copy.deepcopy)."
    )


def no_stream(owner: str) -> TypeError:
    """The error for `step` of a layer that also reads sequences backwards."""
    return TypeError(f"{owner} cannot step: it also reads sequences backwards; use forward.")


def fixed(owner: str, name: str) -> TypeError:
    """The error for replacing an array that its owner keeps for life."""
    return TypeError(
        f"{owner}: {name} cannot be replaced, since its arrays are permanent; write into them, "
        f"{name}[0][...] = values."
    )


# What others call an argument, where the nearest spelling is another one or none.
_OTHER_NAMES = {
    "alpha": "decay_rate",
    "betas": "beta1",
    "epochs": "",
    "epsilon": "eps",
    "learning_rate": "lr",
    "nhid": "hidden_size",
    "ninp": "embed_size",
    "ntoken": "vocab_size",
    "p": "dropout_ratio",
    "random_state": "rng",
    "rho": "decay_rate",
    "seed": "rng",
    "units": "hidden_size",
}


def knows_arguments(method: Callable[..., None]) -> Callable[..., None]:
    """Decorate an `__init__`: the TypeError for an unknown keyword names the argument that was meant."""
    code = method.__code__
    names = code.co_varnames[1 : code.co_argcount + code.co_kwonlyargcount]
    if code.co_flags & inspect.CO_VARKEYWORDS:
        return method

    @functools.wraps(method)
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        for name in kwargs:
            if name not in names:
                owner, near = type(self).__name__, difflib.get_close_matches(name, names, 1)
                other = _OTHER_NAMES.get(name, near[0] if near else "")
                meant = f"; use {other}" if other in names else ""
                raise TypeError(f"{owner}: arguments are {', '.join(names)}, got {name}{meant}.")
        method(self, *args, **kwargs)

    return init


def known_arguments(owner: str, given: Iterable[str], known: Sequence[str]) -> None:
    """Keyword arguments whose names depend on the cell."""
    for name in given:
        if name not in known:
            others = known if "resets" in known else (*known, "lengths", "reset")
            near = difflib.get_close_matches(name, others, 1)
            taken = f"it takes {', '.join(known)}." if known else "the cell has no arguments of its own."
            hint = f"did you mean {near[0]}?" if near else taken
            raise TypeError(f"{owner}: unknown argument {name}; {hint}")


def in_order(owner: str, names: Sequence[str], values: Sequence[Any], named: dict[str, Any]) -> list[Any]:
    """Values given by position or by name, in the order of `names`; None for each that is missing."""
    known_arguments(owner, named, names)
    if len(values) > len(names) or any(name in named for name in names[: len(values)]):
        raise TypeError(
            f"{owner}: takes {', '.join(names)}, each once, got {len(values)} and {', '.join(named)}."
        )
    return [*values, *(named.get(name) for name in names[len(values) :])]


def pickled(owner: str, state: dict[str, Any], *needed: str) -> None:
    """A pickle has every entry that this version writes."""
    if not all(name in state for name in needed):
        raise TypeError(f"{owner}: another version of rnnfast wrote this pickle; keep models with save().")


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


def parameter(
    owner: str, name: str, value: Any, expected: tuple, dtype: np.dtype | None = None
) -> np.ndarray:
    """A parameter array, returned as the same object, since optimizers update it in place."""
    array = shape(owner, name, value, expected)
    if dtype is None and array.dtype not in FLOAT_DTYPES:
        raise TypeError(f"{owner}: {name} must be float32 or float64, got {array.dtype}.")
    if dtype is not None and array.dtype != dtype:
        raise TypeError(f"{owner}: {name} must be {dtype} like the other parameters, got {array.dtype}.")
    if not array.flags.writeable:
        way = f"leave frozen(), or pass {name}.copy()"
        raise ValueError(f"{owner}: {name} is read-only, but training writes into it; {way}.")
    if not (array.flags.aligned and array.dtype.isnative):
        raise ValueError(f"{owner}: {name} must be aligned and in native byte order; pass {name}.copy().")
    return array


def no_size(owner: str, value: Any) -> None:
    """An array, not a size."""
    if isinstance(value, int):
        raise TypeError(f"{owner}: takes arrays; for sizes use {owner}.from_sizes, got {value}.")


def gradient_of(owner: str, name: str, value: Any, param: np.ndarray, *others: np.ndarray) -> np.ndarray:
    """A caller's array for the gradient of a parameter: same shape and dtype, contiguous or the transpose of
    a contiguous array, sharing no memory with parameters."""
    array = parameter(owner, name, value, param.shape, param.dtype)
    if not (array.flags.c_contiguous or array.flags.f_contiguous):
        raise ValueError(f"{owner}: {name} must be contiguous, or the transpose of a contiguous array.")
    if any(np.may_share_memory(array, other) for other in (param, *others)):
        raise ValueError(f"{owner}: {name} shares memory with a parameter; pass a separate array.")
    return array


def _list_of_arrays(owner: str, name: str, value: Any) -> None:
    """A list or tuple; its entries are checked elsewhere."""
    if not isinstance(value, list | tuple):
        raise TypeError(f"{owner}: {name} must be a list of arrays, got {type(value).__name__}.")


def gradients(owner: str, grads: Any) -> None:
    """A list of float arrays that can be changed in place."""
    _list_of_arrays(owner, "grads", grads)
    for i, grad in enumerate(grads):
        parameter(owner, f"grads[{i}]", grad, np.shape(grad))


def parameters_and_gradients(owner: str, params: Any, grads: Any) -> None:
    """Two lists of equal length; each gradient has the shape and dtype of its parameter."""
    _list_of_arrays(owner, "params", params)
    _list_of_arrays(owner, "grads", grads)
    if len(params) != len(grads):
        raise ValueError(
            f"{owner}: each parameter needs one gradient, got {len(params)} params and {len(grads)} grads."
        )
    for i, (param, grad) in enumerate(zip(params, grads, strict=True)):
        parameter(owner, f"params[{i}]", param, np.shape(param))
        shape(owner, f"grads[{i}]", grad, param.shape, f"params[{i}] has that shape")
        if grad.dtype != param.dtype:
            raise TypeError(f"{owner}: grads[{i}] must be {param.dtype} like params[{i}], got {grad.dtype}.")


def same_parameters(owner: str, expected: list[np.ndarray], params: Any) -> None:
    """Parameters that match an optimizer's state in number, shapes and dtypes."""
    if len(expected) != len(params):
        raise ValueError(
            f"{owner}: the state belongs to {len(expected)} params, got {len(params)}; "
            f"use one optimizer a model, and a new one when the model changes."
        )
    for i, (state, param) in enumerate(zip(expected, params, strict=True)):
        if state.shape != param.shape or state.dtype != param.dtype:
            raise ValueError(
                f"{owner}: params[{i}] must be {shape_text(state.shape)} {state.dtype} like its state, "
                f"got {shape_text(param.shape)} {param.dtype}; use a new optimizer when the model changes."
            )


def optimizer_state(
    owner: str, state: Any, name: str, scalars: tuple[str, ...], slots: tuple[str, ...]
) -> int:
    """The number of parameters in a complete `state_dict` of the optimizer `name`."""
    if not isinstance(state, dict) or set(state) != {"scalars", "arrays"}:
        raise TypeError(f"{owner}: expected a dict with 'scalars' and 'arrays' as state_dict() returns it.")
    given = state["scalars"].get("name")
    if given != name:
        raise ValueError(f"{owner}: expected the state of {name}, got that of {given}; load it into {given}.")
    wrong = {"name", *scalars} ^ set(state["scalars"])
    if wrong:
        expected = ", ".join(("name", *scalars))
        raise ValueError(
            f"{owner}: scalars must be {expected}; missing or unknown: {', '.join(sorted(wrong))}."
        )
    count = -(-len(state["arrays"]) // max(1, len(slots)))
    wrong = {f"{slot}.{i}" for slot in slots for i in range(count)} ^ set(state["arrays"])
    if wrong:
        raise ValueError(
            f"{owner}: arrays must be named slot.position, with no gaps; "
            f"missing or unknown: {', '.join(sorted(wrong))}."
        )
    for key, array in state["arrays"].items():
        as_array(owner, key, array)
        float_dtype(owner, array.dtype)
    return count


def cell_missing(name: str, fingerprint: str, path: Any = None) -> CellMissing:
    """The error for a cell that the file `path` needs and this program has not defined."""
    start = "" if path is None else f"{path}: "
    error = CellMissing(
        f"{start}the cell {name[:80]!r} (fingerprint {fingerprint[:12]!r}) is not defined in this program, "
        f"or its equations have changed since; import the module that defines it, or make it "
        "again and keep it in a variable."
    )
    error.name, error.fingerprint = name, fingerprint
    return error


def cell_not_found(owner: str, name: str, cell: str, error: Exception) -> ValueError:
    """The error for a `module:name` that cannot be imported."""
    why = " ".join(str(error).split())
    return ValueError(
        f"{owner}: {name} must be module:name of a cell of your own, got {cell!r}; importing it fails with "
        f"{type(error).__name__}: {why}."
    )


def not_a_cell(owner: str, name: str, cell: str, found: Any) -> ValueError:
    """The error for a `module:name` that is not a cell."""
    kind = type(found).__name__
    return ValueError(f"{owner}: {name} must be module:name of a cell, got {cell!r} of type {kind}.")


def cell_needed(folder: Any, cell: str, told: str = "module:name") -> CheckpointError:
    """The error for a run whose cell is the user's own, which is imported only if `--cell` names it."""
    return CheckpointError(
        f"{folder}: the cell {cell!r} of this run is one of your own; give --cell {told}, which imports it."
    )


def other_cell(folder: Any, name: str, given: str) -> CheckpointError:
    """The error for a run whose cell is not the one given."""
    return CheckpointError(
        f"{folder}: the cell {name!r} of this run has other equations than --cell {given}; give the one that "
        f"it was trained with."
    )
