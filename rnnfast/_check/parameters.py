"""Checks of parameters, gradients and optimizer states."""

from __future__ import annotations

from typing import Any

import numpy as np

from rnnfast._check.arrays import FLOAT_DTYPES, as_array, float_dtype, shape, shape_text


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
