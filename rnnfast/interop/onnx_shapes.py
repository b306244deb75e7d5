"""ONNX operators that move values and compute none: name to function and size of the result."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from rnnfast.interop.onnx_wire import DTYPES

Inputs = list[Any]
Attributes = dict[str, Any]


class Operator(NamedTuple):
    """An operator of the table.

    Attributes
    ----------
    run : callable
        ``(inputs, attributes, opset)`` to an array, or to a tuple or a list of several; an input that is left
        out is None. Beside the node's own attributes there is "outputs", their number.
    size : callable
        ``(inputs, attributes, opset)`` to the largest number of elements that `run` will hold at a time. It
        is asked first, so that no file makes an array of any size.
    """

    run: Callable[[Inputs, Attributes, int], Any]
    size: Callable[[Inputs, Attributes, int], int]


class Sequence(tuple[np.ndarray, ...]):
    """A value that is several tensors, which only the operators of `SEQUENCES` read or make."""


def of_view(inputs: Inputs, attributes: Attributes, opset: int) -> int:
    """The size of a result that shares the memory of its input."""
    return 0


def of_first(inputs: Inputs, attributes: Attributes, opset: int) -> int:
    """The size of a result that is never larger than the first input."""
    return inputs[0].size


def of_all(inputs: Inputs, attributes: Attributes, opset: int) -> int:
    """The size of a result that holds all inputs."""
    return sum(array.size for array in inputs if array is not None)


def numbers(inputs: Inputs, place: int, attributes: Attributes, name: str) -> list[int] | None:
    """Whole numbers that are an input in later operator sets and an attribute in earlier ones."""
    given = inputs[place] if len(inputs) > place else None
    if given is None:
        given = attributes.get(name)
    return None if given is None else [int(number) for number in np.asarray(given).ravel()[:64]]


def axis_of(attributes: Attributes, default: int) -> int:
    """The attribute `axis`."""
    return int(attributes.get("axis", default))


def _transpose(inputs: Inputs, attributes: Attributes, opset: int) -> np.ndarray:
    return inputs[0].transpose(numbers([], 0, attributes, "perm"))


def _squeeze(inputs: Inputs, attributes: Attributes, opset: int) -> np.ndarray:
    axes = numbers(inputs, 1, attributes, "axes")
    return inputs[0].squeeze(None if axes is None else tuple(axes))


def _unsqueeze(inputs: Inputs, attributes: Attributes, opset: int) -> np.ndarray:
    return np.expand_dims(inputs[0], tuple(numbers(inputs, 1, attributes, "axes") or ()))


def _reshape(inputs: Inputs, attributes: Attributes, opset: int) -> np.ndarray:
    x, shape = inputs[0], numbers(inputs, 1, attributes, "shape")
    assert shape is not None
    if not attributes.get("allowzero"):
        shape = [x.shape[place] if length == 0 else length for place, length in enumerate(shape)]
    return x.reshape(shape)


def _flatten(inputs: Inputs, attributes: Attributes, opset: int) -> np.ndarray:
    x, axis = inputs[0], axis_of(attributes, 1)
    axis += x.ndim if axis < 0 else 0
    return x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))


def _concat(inputs: Inputs, attributes: Attributes, opset: int) -> np.ndarray:
    return np.concatenate(inputs, axis=axis_of(attributes, 0))


def _split(inputs: Inputs, attributes: Attributes, opset: int) -> list[np.ndarray]:
    """Parts of given sizes, or one equal part per output, the last of which may be smaller."""
    x, axis, sizes = inputs[0], axis_of(attributes, 0), numbers(inputs, 1, attributes, "split")
    if sizes is None:
        count = attributes["outputs"]
        sizes = [-(-x.shape[axis] // count)] * (count - 1)
        sizes.append(x.shape[axis] - sum(sizes))
    if sum(sizes) != x.shape[axis] or min(sizes) < 0:
        raise ValueError(f"{x.shape[axis]} is not the sum of {sizes}")
    return np.split(x, np.cumsum(sizes[:-1]), axis)


def _slice(inputs: Inputs, attributes: Attributes, opset: int) -> np.ndarray:
    x = inputs[0]
    starts, ends = numbers(inputs, 1, attributes, "starts"), numbers(inputs, 2, attributes, "ends")
    assert starts is not None
    assert ends is not None
    axes = numbers(inputs, 3, attributes, "axes") or list(range(len(starts)))
    steps = numbers(inputs, 4, attributes, "steps") or [1] * len(starts)
    index = [slice(None)] * x.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        if step < 0 and end < -x.shape[axis]:  # up to and with the first
            index[axis] = slice(start, None, step)
        else:
            index[axis] = slice(start, end, step)
    return x[tuple(index)]


def _gather(inputs: Inputs, attributes: Attributes, opset: int) -> np.ndarray:
    return np.take(inputs[0], inputs[1], axis=axis_of(attributes, 0))


def _gather_size(inputs: Inputs, attributes: Attributes, opset: int) -> int:
    x, indices = inputs[0], inputs[1]
    return x.size // max(1, x.shape[axis_of(attributes, 0)]) * indices.size


def _gather_elements(inputs: Inputs, attributes: Attributes, opset: int) -> np.ndarray:
    return np.take_along_axis(inputs[0], inputs[1], axis_of(attributes, 0))


def _gather_nd(inputs: Inputs, attributes: Attributes, opset: int) -> np.ndarray:
    if attributes.get("batch_dims"):
        raise ValueError("batch_dims is not served")
    return inputs[0][tuple(np.moveaxis(inputs[1], -1, 0))]


def _gather_nd_size(inputs: Inputs, attributes: Attributes, opset: int) -> int:
    x, indices = inputs[0], inputs[1]
    depth = indices.shape[-1]
    return indices.size // max(1, depth) * math.prod(x.shape[depth:])


def _split_to_sequence(inputs: Inputs, attributes: Attributes, opset: int) -> list[Sequence]:
    """Parts of one size, of which the last may be smaller, or of given sizes; by default of size 1."""
    x, split, axis = inputs[0], (*inputs, None)[1], axis_of(attributes, 0)
    ends = np.cumsum(split) if split is not None and split.ndim else np.array([x.shape[axis]])
    if ends[-1] != x.shape[axis] or np.any(np.diff(ends, prepend=0) < 0):
        raise ValueError(f"{x.shape[axis]} is not the sum of the parts")
    if split is None or not split.ndim:
        step = 1 if split is None else int(split)
        ends = np.arange(step, x.shape[axis] + step, step)
    parts = np.split(x, ends[:-1], axis) if ends.size else []
    if split is None and not attributes.get("keepdims", 1):
        parts = [part.squeeze(axis) for part in parts]
    return [Sequence(parts)]


def _parts_size(inputs: Inputs, attributes: Attributes, opset: int) -> int:
    """What the objects of the parts take, in numbers."""
    split = (*inputs, None)[1]
    if split is not None and split.ndim:
        return 16 * split.size
    step = 1 if split is None else int(split)
    if step < 1:
        raise ValueError(f"the size of the parts is {step}")
    return 16 * -(-inputs[0].shape[axis_of(attributes, 0)] // step)


# What ScatterElements does with the values that it finds.
_REDUCTIONS = {"add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum}


def _scatter_elements(inputs: Inputs, attributes: Attributes, opset: int) -> np.ndarray:
    x, indices, updates = inputs
    place: list[Any] = list(np.ogrid[tuple(map(slice, indices.shape))])
    place[axis_of(attributes, 0)] = indices
    y, reduction = np.array(x), str(attributes.get("reduction", "none"))
    if reduction == "none":
        y[tuple(place)] = updates
    else:
        _REDUCTIONS[reduction].at(y, tuple(place), updates)
    return y


def _shape(inputs: Inputs, attributes: Attributes, opset: int) -> np.ndarray:
    whole = slice(attributes.get("start", 0), attributes.get("end"))
    return np.array(inputs[0].shape[whole], np.int64)


def _constant(inputs: Inputs, attributes: Attributes, opset: int) -> np.ndarray:
    """One of the attributes of a Constant, which has no input."""
    for name, dtype in (("int", np.int64), ("float", np.float32)):
        for key in (f"value_{name}", f"value_{name}s"):
            if key in attributes:
                return np.array(attributes[key], dtype)
    return _tensor(attributes["value"])


def _tensor(value: Any) -> np.ndarray:
    if not isinstance(value, np.ndarray):
        raise TypeError("the value is no tensor")
    return value


def _constant_of_shape(inputs: Inputs, attributes: Attributes, opset: int) -> np.ndarray:
    value = _tensor(attributes.get("value", np.zeros(1, np.float32)))
    return np.full(_lengths(inputs[0]), value.reshape(-1)[0], value.dtype)


def _lengths(shape: np.ndarray) -> tuple[int, ...]:
    lengths = tuple(int(length) for length in shape.ravel()[:64])
    if min(lengths, default=0) < 0:
        raise ValueError(f"the shape {lengths} is negative")
    return lengths


def _expand(inputs: Inputs, attributes: Attributes, opset: int) -> np.ndarray:
    return np.array(np.broadcast_to(inputs[0], np.broadcast_shapes(inputs[0].shape, _lengths(inputs[1]))))


def _expand_size(inputs: Inputs, attributes: Attributes, opset: int) -> int:
    return math.prod(np.broadcast_shapes(inputs[0].shape, _lengths(inputs[1])))


def _tile_size(inputs: Inputs, attributes: Attributes, opset: int) -> int:
    return inputs[0].size * math.prod(_lengths(inputs[1]))


def _range(inputs: Inputs, attributes: Attributes, opset: int) -> np.ndarray:
    start, _, delta = (array.reshape(()) for array in inputs)
    return (start + np.arange(_range_size(inputs, attributes, opset)) * delta).astype(start.dtype)


def _range_size(inputs: Inputs, attributes: Attributes, opset: int) -> int:
    start, limit, delta = (array.reshape(()).item() for array in inputs)
    return max(0, math.ceil((limit - start) / delta))


def _pad(inputs: Inputs, attributes: Attributes, opset: int) -> np.ndarray:
    x = inputs[0]
    mode: Any = attributes.get("mode", "constant")
    if mode == "constant":
        fill = inputs[2] if len(inputs) > 2 and inputs[2] is not None else attributes.get("value", 0)
        fill = np.asarray(fill, x.dtype).reshape(())
        return np.pad(x, _pads(inputs, attributes), constant_values=fill)
    if mode not in ("reflect", "edge"):
        raise ValueError(f"the mode {mode} is not served")
    return np.pad(x, _pads(inputs, attributes), mode=mode)


def _pads(inputs: Inputs, attributes: Attributes) -> list[tuple[int, int]]:
    """What is added before and after each axis of the first input."""
    x, pads = inputs[0], numbers(inputs, 1, attributes, "pads")
    axes = numbers(inputs, 3, {}, "") or list(range(x.ndim))
    if pads is None or len(pads) != 2 * len(axes) or min(pads, default=0) < 0:
        raise ValueError(f"pads {pads} are not served")
    found = [(0, 0)] * x.ndim
    for axis, before, after in zip(axes, pads[: len(axes)], pads[len(axes) :], strict=True):
        found[axis] = (before, after)
    return found


def _pad_size(inputs: Inputs, attributes: Attributes, opset: int) -> int:
    pads = _pads(inputs, attributes)
    return math.prod(n + sum(added) for n, added in zip(inputs[0].shape, pads, strict=True))


def _cast(inputs: Inputs, attributes: Attributes, opset: int) -> np.ndarray:
    code = int(attributes["to"])
    if code not in DTYPES:
        raise ValueError(f"the type {code} is not served")
    return inputs[0].astype(DTYPES[code].newbyteorder("="))


def _reverse_sequence(inputs: Inputs, attributes: Attributes, opset: int) -> np.ndarray:
    """Each row of `batch_axis` reversed within its length along `time_axis`."""
    time, batch = int(attributes.get("time_axis", 0)), int(attributes.get("batch_axis", 1))
    x = np.moveaxis(inputs[0], (batch, time), (0, 1))
    steps, lengths = np.arange(x.shape[1]), inputs[1].reshape(-1, 1)
    places = np.where(steps < lengths, lengths - 1 - steps, steps)
    return np.moveaxis(x[np.arange(x.shape[0])[:, np.newaxis], places], (0, 1), (batch, time))


MOVES: dict[str, Operator] = {
    "Cast": Operator(_cast, of_first),
    "CastLike": Operator(lambda inputs, _, opset: inputs[0].astype(inputs[1].dtype), of_first),
    "Concat": Operator(_concat, of_all),
    "Constant": Operator(_constant, lambda inputs, attributes, opset: 0),
    "ConstantOfShape": Operator(
        _constant_of_shape, lambda inputs, attributes, opset: math.prod(_lengths(inputs[0]))
    ),
    "Expand": Operator(_expand, _expand_size),
    "Flatten": Operator(_flatten, of_first),
    "Gather": Operator(_gather, _gather_size),
    "GatherElements": Operator(_gather_elements, lambda inputs, attributes, opset: inputs[1].size),
    "GatherND": Operator(_gather_nd, _gather_nd_size),
    "Identity": Operator(lambda inputs, _, opset: inputs[0], of_view),
    "Pad": Operator(_pad, _pad_size),
    "Range": Operator(_range, _range_size),
    "Reshape": Operator(_reshape, of_first),
    "ReverseSequence": Operator(_reverse_sequence, of_first),
    "ScatterElements": Operator(_scatter_elements, of_all),
    "SequenceAt": Operator(lambda inputs, _, opset: inputs[0][int(inputs[1].reshape(()))], of_view),
    "Shape": Operator(_shape, lambda inputs, attributes, opset: inputs[0].ndim),
    "Size": Operator(lambda inputs, _, opset: np.array(inputs[0].size, np.int64), lambda inputs, _, opset: 1),
    "Slice": Operator(_slice, of_view),
    "Split": Operator(_split, of_view),
    "SplitToSequence": Operator(_split_to_sequence, _parts_size),
    "Squeeze": Operator(_squeeze, of_view),
    "Tile": Operator(lambda inputs, _, opset: np.tile(inputs[0], _lengths(inputs[1])), _tile_size),
    "Transpose": Operator(_transpose, of_view),
    "Unsqueeze": Operator(_unsqueeze, of_view),
}
# Operators that make or read several tensors as one value.
SEQUENCES = ("SequenceAt", "SplitToSequence")
