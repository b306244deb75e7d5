"""The values on the stack of a pickle of arrays, beside numbers, lists and tuples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True)
class Name:
    """One of the names that arrays need; never what it is a name of."""

    name: str


@dataclass(frozen=True, slots=True)
class String:
    """A text or bytes, as a place in the file; bytes may be encoded too (protocols 0 to 2)."""

    start: int
    stop: int
    encoding: str
    is_text: bool


@dataclass(slots=True)
class Dtype:
    """A dtype; its byte order comes after it."""

    dtype: np.dtype


@dataclass(slots=True)
class Array:
    """An array; its values come after it."""

    array: np.ndarray | None = None


_CORES = ("numpy.core", "numpy._core")
NAMES = {
    ("numpy", "ndarray"): Name("ndarray"),
    ("numpy", "dtype"): Name("dtype"),
    ("_codecs", "encode"): Name("encode"),
    **{(module, "bytes"): Name("bytes") for module in ("builtins", "__builtin__")},
    **{(f"{core}.multiarray", "_reconstruct"): Name("_reconstruct") for core in _CORES},
    **{(f"{core}.numeric", "_frombuffer"): Name("_frombuffer") for core in _CORES},
}


def told(value: Any) -> str:
    """A value of the machine, for errors."""
    match value:
        case None | bool() | int():
            return repr(value)
        case Name(name):
            return f"the name {name}"
        case String(is_text=is_text):
            return "a text" if is_text else "bytes"
        case Dtype(dtype):
            return f"the dtype {dtype}"
    return "an array" if isinstance(value, Array) else f"a {type(value).__name__}"


def told_opcode(code: bytes) -> str:
    """An opcode by name, for errors."""
    import pickletools

    names = {op.code: op.name for op in pickletools.opcodes}
    name = names.get(code.decode("latin-1"))
    return f"the opcode {name}" if name else f"the byte {code[0]:#04x} in place of an opcode"
