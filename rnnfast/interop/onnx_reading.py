"""An ONNX file as plain values: nodes with their attributes, constants, inputs and outputs."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import numpy as np

from rnnfast.interop.onnx_wire import (
    DTYPES,
    FIXED32,
    Budget,
    Field,
    fields,
    floats,
    tensor,
    whole_numbers,
)

# The operator sets whose definitions are served.
OLDEST_OPSET, NEWEST_OPSET = 7, 28
RECURRENT = ("GRU", "LSTM", "RNN")
# How files of other kinds begin, that one may take for ONNX.
_OTHER_KINDS = (
    (b"PK\x03\x04", "a zip archive, as TorchScript, a state_dict of PyTorch and .npz are"),
    (b"\x89HDF", "a file of HDF5"),
    (b"\x80", "a pickle"),
)
_LOOKED_AT = 512
_WHITE = dict.fromkeys(map(ord, "\t\n\r\f"), " ")
# Graphs inside graphs, as the branches of an If.
DEEPEST = 16
# The metadata that are read: their names begin so, and neither they nor the names take more bytes.
OWN, MOST_METADATA, MOST_NAME = "rnnfast.", 1 << 20, 64


class Value(NamedTuple):
    """An input or an output of a graph.

    Attributes
    ----------
    name : str
    dtype : numpy.dtype or None
        None if the file does not say it.
    shape : tuple or None
        The length of each axis, or its name where it is dynamic ("" without a name); None if the file does
        not say it.
    """

    name: str
    dtype: np.dtype | None
    shape: tuple[int | str, ...] | None


class Node(NamedTuple):
    """One operation: an attribute is an int, a float, a str, an array, a list of str, or a `Body`."""

    name: str
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]


class Body(NamedTuple):
    """A graph: its nodes in the order in which they run, and its constants by name."""

    nodes: list[Node]
    inputs: list[Value]
    outputs: list[Value]
    constants: dict[str, np.ndarray]


class File(NamedTuple):
    """A model: its graph, the version of its operators, its size in bytes, and what `to_onnx` says of it."""

    body: Body
    opset: int
    nbytes: int
    metadata: dict[str, str]


def read_file(path: str | os.PathLike[str]) -> File:
    """Read a file; ValueError if it is damaged, of another kind, or of a version that is not served."""
    with open(path, "rb") as file:
        data = memoryview(file.read())
    try:
        return _file(data, path)
    except ValueError:
        kind = _other_kind(bytes(data[:_LOOKED_AT]))
        if kind:
            raise ValueError(f"it is {kind}, not an ONNX file") from None
        raise


def _other_kind(start: bytes) -> str:
    """What a file is that begins so and is not ONNX; "" if that is not known."""
    kinds = (kind for prefix, kind in _OTHER_KINDS if start.startswith(prefix))
    plain = start.isascii() and start.decode("latin-1").translate(_WHITE).isprintable()
    return next(kinds, "a text" if plain and start else "")


def _file(data: memoryview, path: str | os.PathLike[str]) -> File:
    budget = Budget(os.path.dirname(os.path.abspath(path)))
    graph, opset = None, 0
    metadata: dict[str, str] = {}
    for field in fields(data, budget):
        if field.number == 7:
            if graph is not None:
                raise ValueError("it has two graphs")
            graph = field.message()
        elif field.number == 8:
            budget.take(1)
            domain, version = _operator_set(field.message(), budget)
            if domain in ("", "ai.onnx"):
                opset = version
        elif field.number == 14 and len(field.message()) <= MOST_METADATA:
            parts = {part.number: part.data for part in fields(field.message(), budget)}
            name = bytes(parts.get(1, b"")[:MOST_NAME]).decode(errors="replace")
            if name.startswith(OWN):
                budget.take(1)
                metadata[name] = bytes(parts.get(2, b"")).decode(errors="replace")
    if graph is None:
        raise ValueError("it has no graph, so it is not an ONNX file")
    if not OLDEST_OPSET <= opset <= NEWEST_OPSET:
        raise ValueError(
            f"its operators have the version {opset}; {OLDEST_OPSET} to {NEWEST_OPSET} are served"
        )
    body = _body(graph, budget, 0)
    return File(body, opset, data.nbytes + budget.read, metadata)


def _operator_set(data: memoryview, budget: Budget) -> tuple[str, int]:
    domain, version = "", 0
    for field in fields(data, budget):
        if field.number == 1:
            domain = field.text()
        elif field.number == 2:
            version = field.whole()
    return domain, version


def _body(data: memoryview, budget: Budget, depth: int) -> Body:
    if depth > DEEPEST:
        raise ValueError(f"it has graphs inside graphs, more than {DEEPEST} deep")
    body = Body([], [], [], {})
    for field in fields(data, budget):
        if field.number == 1:
            body.nodes.append(_node(field.message(), budget, depth, len(body.nodes)))
        elif field.number == 5:
            budget.take(4)
            name, array = tensor(field.message(), budget)
            if not name or name in body.constants:
                raise ValueError(f"two constants are named {name!r}" if name else "a constant has no name")
            body.constants[name] = array
        elif field.number == 15:
            raise ValueError("it has sparse constants, which are not served")
        elif field.number in (11, 12):
            (body.inputs if field.number == 11 else body.outputs).append(_value(field.message(), budget))
    # Up to version 3 of the format, a constant is an input with a default.
    given = [value for value in body.inputs if value.name not in body.constants]
    return body._replace(inputs=given)


def _node(data: memoryview, budget: Budget, depth: int, index: int) -> Node:
    budget.take(8)
    name = op = domain = ""
    inputs: list[str] = []
    outputs: list[str] = []
    attributes: dict[str, Any] = {}
    for field in fields(data, budget):
        if field.number in (1, 2):
            budget.take(1)
            (inputs if field.number == 1 else outputs).append(field.text())
        elif field.number == 3:
            name = field.text()
        elif field.number == 4:
            op = field.text()
        elif field.number == 5:
            key, value = _attribute(field.message(), budget, depth)
            if key in attributes:
                raise ValueError(f"a node {op} has two attributes {key!r}")
            attributes[key] = value
        elif field.number == 7:
            domain = field.text()
    if op in RECURRENT:
        budget.take(64)  # its layers
    if domain not in ("", "ai.onnx"):
        op = f"{domain}.{op}"
    return Node(name or f"{op} {index}", op, tuple(inputs), tuple(outputs), attributes)


def _attribute(data: memoryview, budget: Budget, depth: int) -> tuple[str, Any]:
    """The name of an attribute and its value; lists of numbers become arrays."""
    budget.take(4)
    name = ""
    kind = 0
    found: dict[int, list[Any]] = {}
    for field in fields(data, budget):
        if field.number == 1:
            name = field.text()
        elif field.number == 20:
            kind = field.whole()
        elif field.number == 21:
            raise ValueError(f"the attribute {name!r} refers to that of a function")
        elif field.number in _READ:
            budget.take(1)
            found.setdefault(field.number, []).append(_READ[field.number](field, budget, depth))
    number = _FIELD_OF.get(kind) if kind else next(iter(found), None)
    if number is None:
        raise ValueError(f"the attribute {name!r} has a type that is not served ({kind})")
    values = found.get(number, [])
    if number in (7, 8):  # lists of numbers, in one or several pieces
        return name, np.concatenate(values) if values else np.zeros(
            0, np.float32 if number == 7 else np.int64
        )
    if number == 9:
        return name, values
    return name, values[-1] if values else _EMPTY.get(number)


def _float(field: Field, budget: Budget, depth: int) -> float:
    if field.wire != FIXED32:
        raise ValueError("a float has another type")
    return float(np.frombuffer(field.data, "<f4")[0])


# The fields of an AttributeProto: f, i, s, t, g, floats, ints, strings.
_READ = {
    2: _float,
    3: lambda field, budget, depth: field.whole(),
    4: lambda field, budget, depth: field.text(),
    5: lambda field, budget, depth: tensor(field.message(), budget)[1],
    6: lambda field, budget, depth: _body(field.message(), budget, depth + 1),
    7: lambda field, budget, depth: floats(field, budget, np.dtype("<f4")),
    8: lambda field, budget, depth: whole_numbers(field, budget),
    9: lambda field, budget, depth: field.text(),
}
# `AttributeProto.AttributeType` to the field that holds its value; what it is where the field is left out.
_FIELD_OF = {1: 2, 2: 3, 3: 4, 4: 5, 5: 6, 6: 7, 7: 8, 8: 9}
_EMPTY: dict[int, Any] = {2: 0.0, 3: 0, 4: ""}


def _value(data: memoryview, budget: Budget) -> Value:
    """A `ValueInfoProto`: name, and the element type and the shape of a tensor."""
    budget.take(4)
    name, dtype, shape = "", None, None
    for field in fields(data, budget):
        if field.number == 1:
            name = field.text()
        elif field.number == 2:
            for kind in fields(field.message(), budget):
                if kind.number == 6:  # a denotation
                    continue
                if kind.number != 1:
                    raise ValueError(f"the input or output {name!r} is not a tensor")
                for part in fields(kind.message(), budget):
                    if part.number == 1:
                        dtype = _dtype(name, part.whole())
                    elif part.number == 2:
                        shape = _axes(part.message(), budget)
    return Value(name, dtype, shape)


def _dtype(name: str, code: int) -> np.dtype | None:
    if code and code not in DTYPES:
        raise ValueError(f"the input or output {name!r} has the type {code}, which is not served")
    return DTYPES.get(code)


def _axes(data: memoryview, budget: Budget) -> tuple[int | str, ...]:
    shape: list[int | str] = []
    for field in fields(data, budget):
        if field.number != 1:
            continue
        budget.take(1)
        axis: int | str = ""
        for part in fields(field.message(), budget):
            if part.number == 1:
                axis = part.whole()
            elif part.number == 2:
                axis = part.text()
        shape.append(axis)
    return tuple(shape)
