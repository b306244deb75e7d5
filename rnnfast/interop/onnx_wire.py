"""The bytes of an ONNX file: fields of protobuf messages, and arrays of tensors that share the file's memory.

A file from a stranger costs at most its own size, and a few megabytes of Python objects: whatever becomes an
object is counted, and a tensor's bytes are compared with its shape before there is an array. This is why the
file is read here: a general reader of protobuf turns two bytes of an empty message into an object.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

# Objects per file; a language model of two layers has 200, an unrolled one some thousands.
OBJECTS = 1 << 15
FIELDS = 1 << 18  # also of those that are passed over, such as documentation
NAME_BYTES = 4096
_ARRAY = 4  # an array counts as so many objects
# Bytes of whole numbers of variable length in a file: each byte may become a number of 8.
VARINT_BYTES = 1 << 18
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
_LENGTHS = {FIXED64: 8, FIXED32: 4}

# Numbers of `TensorProto.DataType`. A tensor has its bytes in `raw_data`, or its values in a typed field.
DTYPES: dict[int, np.dtype] = {
    1: np.dtype("<f4"), 2: np.dtype("u1"), 3: np.dtype("i1"), 4: np.dtype("<u2"), 5: np.dtype("<i2"),
    6: np.dtype("<i4"), 7: np.dtype("<i8"), 9: np.dtype("?"), 10: np.dtype("<f2"), 11: np.dtype("<f8"),
    12: np.dtype("<u4"), 13: np.dtype("<u8"),
}  # fmt: skip
_FIXED_FIELDS: dict[int, tuple[np.dtype, tuple[int, ...]]] = {
    4: (np.dtype("<f4"), (1,)),
    10: (np.dtype("<f8"), (11,)),
}
_VARINT_FIELDS = {5: (2, 3, 4, 5, 6, 9, 10), 7: (7,), 11: (12, 13)}


class Field(NamedTuple):
    """One field of a message: its number, its wire type, and an int or the bytes."""

    number: int
    wire: int
    value: int
    data: memoryview

    def text(self) -> str:
        """The field as a name."""
        if self.wire != BYTES or len(self.data) > NAME_BYTES:
            raise ValueError("a name is not a text, or too long")
        return str(self.data, "utf-8", "backslashreplace")

    def whole(self) -> int:
        """The field as an int64."""
        if self.wire != VARINT:
            raise ValueError("a whole number has another type")
        return _signed(self.value)

    def message(self) -> memoryview:
        """The field as the bytes of a message."""
        if self.wire != BYTES:
            raise ValueError("a part of the file has another type")
        return self.data


class Budget:
    """What is left of the objects and of the whole numbers that one file may hold.

    Attributes
    ----------
    folder : str
        Where the file is.
    external : dict of str to int
        The size of each file beside it from which tensors were read.
    read : int
        Bytes of tensors read from those files.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.objects, self.varints, self.fields = OBJECTS, VARINT_BYTES, FIELDS
        self.external: dict[str, int] = {}
        self.read = 0

    def take(self, objects: int) -> None:
        """Count objects before they are made."""
        self.objects -= objects
        if self.objects < 0:
            raise ValueError(f"it has more than {OBJECTS} parts")

    def take_varints(self, count: int) -> None:
        """Count bytes of whole numbers before they are decoded."""
        self.varints -= count
        if self.varints < 0:
            raise ValueError(f"it has more than {VARINT_BYTES} bytes of whole numbers outside raw_data")

    def take_external(self, location: str, size: int, nbytes: int) -> None:
        """Count bytes before they are read from a file beside the model; tensors may not overlap."""
        self.external[location] = size
        self.read += nbytes
        if self.read > sum(self.external.values()):
            raise ValueError("its external tensors overlap")


def fields(data: memoryview, budget: Budget) -> Iterator[Field]:
    """The fields of a message, in the order of the file; ValueError if it is damaged."""
    place, end = 0, len(data)
    while place < end:
        budget.fields -= 1
        if budget.fields < 0:
            raise ValueError(f"it has more than {FIELDS} fields")
        key, place = _varint(data, place)
        number, wire = key >> 3, key & 7
        value, part = 0, data[:0]
        if wire == VARINT:
            value, place = _varint(data, place)
        elif wire in (BYTES, FIXED32, FIXED64):
            length = _LENGTHS.get(wire, 0)
            if wire == BYTES:
                length, place = _varint(data, place)
            if length > end - place:
                raise ValueError("it is cut off, or a length in it is wrong")
            part, place = data[place : place + length], place + length
        else:
            raise ValueError("it is not an ONNX file, or damaged")
        yield Field(number, wire, value, part)


def _varint(data: memoryview, place: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if place >= len(data):
            raise ValueError("it is cut off in a number")
        byte = data[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value & (1 << 64) - 1, place
    raise ValueError("a number in it has no end")


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def whole_numbers(field: Field, budget: Budget) -> np.ndarray:
    """A repeated field of whole numbers, or one entry of it, as int64."""
    if field.wire == VARINT:
        budget.take(_ARRAY)
        return np.array([field.whole()], np.int64)
    octets = np.frombuffer(field.message(), np.uint8)
    budget.take_varints(octets.size)
    if octets.size == 0 or octets.max() < 128:
        return octets.astype(np.int64)
    ends = np.flatnonzero(octets < 128)
    starts = np.concatenate(([0], ends[:-1] + 1))
    lengths = ends - starts + 1
    if ends.size == 0 or ends[-1] != octets.size - 1 or lengths.max() > 10:
        raise ValueError("a list of whole numbers is damaged")
    values = np.zeros(ends.size, np.uint64)
    for shift in range(int(lengths.max())):
        longer = lengths > shift
        part = octets[starts[longer] + shift].astype(np.uint64) & np.uint64(127)
        values[longer] |= part << np.uint64(7 * shift)
    return values.view(np.int64)


def floats(field: Field, budget: Budget, dtype: np.dtype) -> np.ndarray:
    """A repeated field of floats, or one entry of it."""
    budget.take(_ARRAY)
    if field.wire not in (BYTES, FIXED32, FIXED64) or len(field.data) % dtype.itemsize:
        raise ValueError("a list of floats is damaged")
    return np.frombuffer(field.data, dtype)


def tensor(data: memoryview, budget: Budget) -> tuple[str, np.ndarray]:
    """The name and the values of a `TensorProto`; read-only, and where possible without a copy."""
    name, code, external = "", 0, False
    dims: list[np.ndarray] = []
    raw: memoryview | None = None
    values: dict[int, list[np.ndarray]] = {}
    place: dict[str, str] = {}
    for field in fields(data, budget):
        if field.number == 1:
            dims.append(whole_numbers(field, budget))
        elif field.number == 2:
            code = field.whole()
        elif field.number in _FIXED_FIELDS:
            values.setdefault(field.number, []).append(floats(field, budget, _FIXED_FIELDS[field.number][0]))
        elif field.number in _VARINT_FIELDS:
            values.setdefault(field.number, []).append(whole_numbers(field, budget))
        elif field.number == 8:
            name = field.text()
        elif field.number == 9:
            raw = field.message()
        elif field.number == 13:
            budget.take(2)
            key, value = _pair(field.message(), budget)
            place[key] = value
        elif field.number == 14:
            external = field.whole() != 0
    if code not in DTYPES:
        raise ValueError(f"tensor {name!r} has the type {code}, which is not served")
    shape = _shape(name, np.concatenate(dims) if dims else np.zeros(0, np.int64))
    dtype = DTYPES[code]
    if external:
        raw = _external(name, place, budget, math.prod(shape) * dtype.itemsize)
    array = _from_raw(name, dtype, raw) if raw is not None else _from_values(name, code, values)
    if array.size != math.prod(shape):
        raise ValueError(f"tensor {name!r} has {array.size} values, but its shape is {shape}")
    return name, array.reshape(shape)


def _pair(data: memoryview, budget: Budget) -> tuple[str, str]:
    """A `StringStringEntryProto`."""
    found = {field.number: field.text() for field in fields(data, budget) if field.number in (1, 2)}
    return found.get(1, ""), found.get(2, "")


def _shape(name: str, dims: np.ndarray) -> tuple[int, ...]:
    shape = tuple(int(length) for length in dims[:33])
    if len(shape) > 32 or min(shape, default=0) < 0 or math.prod(shape) >= 1 << 60:
        raise ValueError(f"tensor {name!r} has an impossible shape")
    return shape


def _from_raw(name: str, dtype: np.dtype, raw: memoryview) -> np.ndarray:
    if len(raw) % dtype.itemsize:
        raise ValueError(f"tensor {name!r} has {len(raw)} bytes, no multiple of {dtype.itemsize}")
    if dtype.kind == "b":
        return np.frombuffer(raw, np.uint8) != 0
    return np.frombuffer(raw, dtype)


def _from_values(name: str, code: int, values: dict[int, list[np.ndarray]]) -> np.ndarray:
    """The values of the one typed field that belongs to the tensor's type."""
    dtype = DTYPES[code]
    for number, parts in values.items():
        joined = parts[0] if len(parts) == 1 else np.concatenate(parts)
        if number in _FIXED_FIELDS and code in _FIXED_FIELDS[number][1]:
            return joined
        if code in _VARINT_FIELDS.get(number, ()):
            if code == 10:  # the bits of a float16
                return joined.astype(np.uint16).view(np.float16)
            return joined.astype(dtype)
    if any(part.size for parts in values.values() for part in parts):
        raise ValueError(f"tensor {name!r} has values of another type")
    return np.zeros(0, dtype)


def _external(name: str, place: dict[str, str], budget: Budget, nbytes: int) -> memoryview:
    """The bytes of a tensor in a file beside the model, as PyTorch's exporter writes them."""
    location = place.get("location", "")
    if not location or location in (".", "..") or set(location) & set("/\\:\0"):
        raise ValueError(f"tensor {name!r} is in the file {location!r}, which is not beside the model")
    path = os.path.join(budget.folder, location)
    if os.path.islink(path) or not os.path.isfile(path):
        raise ValueError(f"tensor {name!r} is in the file {location!r}, which is missing beside the model")
    start, length = _count(place.get("offset", "0")), _count(place.get("length", str(nbytes)))
    size = os.path.getsize(path)
    if length != nbytes or start + length > size:
        raise ValueError(f"tensor {name!r} does not fit into the file {location!r}")
    budget.take_external(location, size, nbytes)
    with open(path, "rb") as file:
        file.seek(start)
        return memoryview(file.read(length))


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise ValueError(f"an offset or a length of external data is {text[:20]!r}")
    return int(text)
