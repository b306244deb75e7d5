"""The operators of ONNX graphs beside the recurrent ones, in NumPy: one table, name to function."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from rnnfast.interop.onnx_shapes import (
    MOVES,
    Attributes,
    Inputs,
    Operator,
    axis_of,
    numbers,
    of_first,
)


def _broadcast(inputs: Inputs, attributes: Attributes, opset: int) -> int:
    return math.prod(np.broadcast_shapes(*(array.shape for array in inputs if array is not None)))


def _each(function: Callable[..., Any]) -> Operator:
    """An operator that applies a function of NumPy to elements, which are broadcast."""
    return Operator(lambda inputs, attributes, opset: function(*inputs), _broadcast)


def _folded(function: Callable[[Any, Any], Any]) -> Operator:
    """An operator of any number of inputs."""

    def run(inputs: Inputs, attributes: Attributes, opset: int) -> Any:
        result = inputs[0]
        for other in inputs[1:]:
            result = function(result, other)
        return result

    return Operator(run, _broadcast)


def _divide(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    if x.dtype.kind in "iu":  # towards zero, as in C
        quotient = np.floor_divide(x, y)
        return quotient + ((quotient < 0) & (quotient * y != x))
    return x / y


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return (0.5 * np.tanh(0.5 * x) + 0.5).astype(x.dtype)


def _softplus(x: np.ndarray) -> np.ndarray:
    return np.logaddexp(x, np.zeros((), x.dtype))


def _leaky(inputs: Inputs, attributes: Attributes, opset: int) -> np.ndarray:
    x = inputs[0]
    return np.where(x < 0, x * x.dtype.type(attributes.get("alpha", 0.01)), x)


def _elu(inputs: Inputs, attributes: Attributes, opset: int) -> np.ndarray:
    x = inputs[0]
    return np.where(x < 0, np.expm1(x) * x.dtype.type(attributes.get("alpha", 1.0)), x)


def _hard_sigmoid(inputs: Inputs, attributes: Attributes, opset: int) -> np.ndarray:
    x = inputs[0]
    slope, shift = (
        x.dtype.type(attributes.get(name, value)) for name, value in (("alpha", 0.2), ("beta", 0.5))
    )
    return np.clip(x * slope + shift, 0, 1).astype(x.dtype)


def _power(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.power(x, y).astype(x.dtype)


def _clip(inputs: Inputs, attributes: Attributes, opset: int) -> np.ndarray:
    x, low, high = (*inputs, None, None)[:3]
    low = attributes.get("min") if low is None else low
    high = attributes.get("max") if high is None else high
    if low is None and high is None:
        return x
    return np.clip(x, low, high).astype(x.dtype)


def _exponentials(inputs: Inputs, attributes: Attributes, opset: int) -> tuple[np.ndarray, Any]:
    """The input less its largest value, and the axes of the softmax."""
    x = inputs[0]
    axis = axis_of(attributes, -1 if opset >= 13 else 1)
    axes = axis if opset >= 13 else tuple(range(axis % max(1, x.ndim), x.ndim))
    return x - x.max(axis=axes, keepdims=True, initial=-np.inf), axes


def _softmax(inputs: Inputs, attributes: Attributes, opset: int) -> np.ndarray:
    x, axes = _exponentials(inputs, attributes, opset)
    x = np.exp(x)
    return x / x.sum(axis=axes, keepdims=True)


def _log_softmax(inputs: Inputs, attributes: Attributes, opset: int) -> np.ndarray:
    x, axes = _exponentials(inputs, attributes, opset)
    return x - np.log(np.exp(x).sum(axis=axes, keepdims=True))


def _reduction(function: Callable[..., Any]) -> Operator:
    """An operator that reduces axes, all of them if none are given."""

    def run(inputs: Inputs, attributes: Attributes, opset: int) -> np.ndarray:
        x, axes = inputs[0], numbers(inputs, 1, attributes, "axes")
        if not axes and attributes.get("noop_with_empty_axes"):
            return x
        result = function(x, axis=tuple(axes) if axes else None, keepdims=bool(attributes.get("keepdims", 1)))
        return np.asarray(result, x.dtype)

    return Operator(run, of_first)


def _extreme(function: Callable[..., Any]) -> Operator:
    """ArgMax and ArgMin: the first of equal values, or the last."""

    def run(inputs: Inputs, attributes: Attributes, opset: int) -> np.ndarray:
        x, axis, kept = inputs[0], axis_of(attributes, 0), bool(attributes.get("keepdims", 1))
        if attributes.get("select_last_index"):
            return x.shape[axis] - 1 - function(np.flip(x, axis), axis=axis, keepdims=kept)
        return function(x, axis=axis, keepdims=kept)

    return Operator(run, of_first)


def _largest(inputs: Inputs, attributes: Attributes, opset: int) -> tuple[np.ndarray, np.ndarray]:
    """TopK: the largest or smallest values along an axis, in order, and their places; of equal values the
    first come first."""
    x, axis, count = inputs[0], axis_of(attributes, -1), (numbers(inputs, 1, attributes, "k") or [0])[0]
    if not 0 <= count <= x.shape[axis]:
        raise ValueError(f"k is {count}, but the axis has {x.shape[axis]} values")
    if attributes.get("largest", 1):
        order = x.shape[axis] - 1 - np.flip(np.argsort(np.flip(x, axis), axis, kind="stable"), axis)
    else:
        order = np.argsort(x, axis, kind="stable")
    places = np.take(order, np.arange(count), axis)
    return np.take_along_axis(x, places, axis), places


def _product_size(inputs: Inputs, attributes: Attributes, opset: int) -> int:
    a, b = (array.shape for array in inputs[:2])
    rows, cols = a[-2:-1] or (1,), b[-1:] if len(b) > 1 else (1,)
    return math.prod((*np.broadcast_shapes(a[:-2], b[:-2]), *rows, *cols))


def _gemm(inputs: Inputs, attributes: Attributes, opset: int) -> np.ndarray:
    a, b, c = (*inputs, None)[:3]
    a = a.T if attributes.get("transA") else a
    b = b.T if attributes.get("transB") else b
    kind = a.dtype.type
    y = a @ b
    if attributes.get("alpha", 1.0) != 1.0:
        y = y * kind(attributes["alpha"])
    if c is None:
        return y
    return y + (c if attributes.get("beta", 1.0) == 1.0 else c * kind(attributes["beta"]))


def _gemm_size(inputs: Inputs, attributes: Attributes, opset: int) -> int:
    a, b = (array.shape for array in inputs[:2])
    return a[1 if attributes.get("transA") else 0] * b[0 if attributes.get("transB") else 1]


def _layer_normalization(inputs: Inputs, attributes: Attributes, opset: int) -> tuple[np.ndarray, ...]:
    """The normalized input, its mean, and 1 over its deviation."""
    x, scale, bias = (*inputs, None)[:3]
    axes = tuple(range(axis_of(attributes, -1) % max(1, x.ndim), x.ndim))
    mean = x.mean(axis=axes, keepdims=True)
    x = x - mean
    variance = np.square(x).mean(axis=axes, keepdims=True)
    inverse = 1 / np.sqrt(variance + x.dtype.type(attributes.get("epsilon", 1e-5)))
    y = x * inverse * scale
    return (y if bias is None else y + bias), mean, inverse


def _dropout(inputs: Inputs, attributes: Attributes, opset: int) -> tuple[np.ndarray, np.ndarray]:
    if len(inputs) > 2 and inputs[2] is not None and inputs[2].any():
        raise ValueError("training_mode is not served")
    return inputs[0], np.ones(inputs[0].shape, np.bool_)


def _batch_normalization(inputs: Inputs, attributes: Attributes, opset: int) -> np.ndarray:
    if attributes.get("training_mode"):
        raise ValueError("training_mode is not served")
    x, *rest = inputs
    scale, bias, mean, variance = (array.reshape(-1, *[1] * (x.ndim - 2)) for array in rest)
    return (x - mean) / np.sqrt(variance + x.dtype.type(attributes.get("epsilon", 1e-5))) * scale + bias


def _windows(inputs: Inputs, attributes: Attributes) -> tuple[list[tuple[int, int]], list[int], list[int]]:
    """Pads, strides and dilations of a convolution, one per axis."""
    count = inputs[0].ndim - 2
    strides = numbers([], 0, attributes, "strides") or [1] * count
    dilations = numbers([], 0, attributes, "dilations") or [1] * count
    pads = numbers([], 0, attributes, "pads") or [0] * 2 * count
    mode = str(attributes.get("auto_pad", "NOTSET"))
    if mode not in ("NOTSET", "VALID"):
        raise ValueError(f"auto_pad {mode} is not served")
    if min(*strides, *dilations) < 1 or min(pads) < 0 or len(pads) != 2 * count:
        raise ValueError(f"strides {strides}, dilations {dilations} and pads {pads} are not served")
    return list(zip(pads[:count], pads[count:], strict=True)), strides, dilations


def _convolution(inputs: Inputs, attributes: Attributes, opset: int) -> np.ndarray:
    x, weights, bias = (*inputs, None)[:3]
    pads, strides, dilations = _windows(inputs, attributes)
    axes = tuple(range(2, x.ndim))
    x = np.pad(x, [(0, 0), (0, 0), *pads])
    reach = [(n - 1) * d + 1 for n, d in zip(weights.shape[2:], dilations, strict=True)]
    seen = np.lib.stride_tricks.sliding_window_view(x, reach, axes)
    steps = [slice(None, None, step) for step in (*strides, *dilations)]
    seen = seen[(slice(None), slice(None), *steps)]
    inner = [1, *range(seen.ndim - len(axes), seen.ndim)]
    groups = int(attributes.get("group", 1))
    parts = [
        np.tensordot(part, kernel, (inner, list(range(1, kernel.ndim))))
        for part, kernel in zip(np.split(seen, groups, 1), np.split(weights, groups, 0), strict=True)
    ]
    y = np.concatenate(parts, axis=-1)
    return np.moveaxis(y if bias is None else y + bias, -1, 1)


def _convolution_size(inputs: Inputs, attributes: Attributes, opset: int) -> int:
    x, weights = inputs[:2]
    pads, strides, _ = _windows(inputs, attributes)
    padded = [n + sum(added) for n, added in zip(x.shape[2:], pads, strict=True)]
    places = x.shape[0] * math.prod(-(-n // step) for n, step in zip(padded, strides, strict=True))
    return places * max(weights.shape[0], x.shape[1] * math.prod(weights.shape[2:]))


OPERATORS: dict[str, Operator] = {
    **MOVES,
    "Abs": _each(np.abs),
    "Add": _each(np.add),
    "And": _each(np.logical_and),
    "ArgMax": _extreme(np.argmax),
    "ArgMin": _extreme(np.argmin),
    "BatchNormalization": Operator(_batch_normalization, of_first),
    "Clip": Operator(_clip, of_first),
    "Conv": Operator(_convolution, _convolution_size),
    "Cos": _each(np.cos),
    "Dropout": Operator(_dropout, of_first),
    "Div": _each(_divide),
    "Elu": Operator(_elu, of_first),
    "Equal": _each(np.equal),
    "Exp": _each(np.exp),
    "Gemm": Operator(_gemm, _gemm_size),
    "Greater": _each(np.greater),
    "GreaterOrEqual": _each(np.greater_equal),
    "HardSigmoid": Operator(_hard_sigmoid, of_first),
    "LayerNormalization": Operator(_layer_normalization, of_first),
    "LeakyRelu": Operator(_leaky, of_first),
    "Less": _each(np.less),
    "LessOrEqual": _each(np.less_equal),
    "Log": _each(np.log),
    "LogSoftmax": Operator(_log_softmax, of_first),
    "MatMul": Operator(lambda inputs, _, opset: np.matmul(*inputs), _product_size),
    "Max": _folded(np.maximum),
    "Min": _folded(np.minimum),
    "Mul": _each(np.multiply),
    "Neg": _each(np.negative),
    "Not": _each(np.logical_not),
    "Or": _each(np.logical_or),
    "Pow": _each(_power),
    "Reciprocal": _each(np.reciprocal),
    "ReduceMax": _reduction(np.max),
    "ReduceMean": _reduction(np.mean),
    "ReduceMin": _reduction(np.min),
    "ReduceProd": _reduction(np.prod),
    "ReduceSum": _reduction(np.sum),
    "Relu": _each(lambda x: np.maximum(x, x.dtype.type(0))),
    "Sigmoid": _each(_sigmoid),
    "Sign": _each(np.sign),
    "Sin": _each(np.sin),
    "Softmax": Operator(_softmax, of_first),
    "Softplus": _each(_softplus),
    "Sqrt": _each(np.sqrt),
    "Sub": _each(np.subtract),
    "Sum": _folded(np.add),
    "Tanh": _each(np.tanh),
    "TopK": Operator(_largest, of_first),
    "Where": _each(np.where),
}
