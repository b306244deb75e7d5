"""Lists of NumPy arrays in pickles, read as untrusted input.

A pickle is a program for a stack machine. The machine here knows only the opcodes that lists of arrays are
made of, and the six names that NumPy writes beside them; it imports and calls nothing. Texts and bytes stay
in the file until an array is filled from them, and all arrays together take no more bytes than the file.
"""

from __future__ import annotations

import codecs
import math
import os
import re
import struct
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from rnnfast import _check
from rnnfast.interop.pickled_values import NAMES, Array, Dtype, Name, String, told, told_opcode

# An array takes up to 34 opcodes, so this limit allows about 1,000 arrays. The machine's values take up to
# 200 bytes an opcode.
_MOST_OPCODES = 1 << 15
_DEEPEST_LIST = 100
_LONGEST_NAME = 100
_MOST_AXES = 32
_PIECE = 1 << 16  # bytes of a text that are decoded at a time

_DTYPES = {
    f"{kind}{size}" for kind, sizes in {"f": "248", "i": "1248", "u": "1248"}.items() for size in sizes
}
_ORDERS: dict[str, Any] = {"<": "<", ">": ">", "|": "="}

_CONSTANTS = {b"N": None, b"\x88": True, b"\x89": False}
_NUMBERS = {b"J": "<i", b"K": "<B", b"M": "<H"}
_TUPLES = {b")": 0, b"\x85": 1, b"\x86": 2, b"\x87": 3}
_PUTS = {b"q": "<B", b"r": "<I"}
_GETS = {b"h": "<B", b"j": "<I"}
# The length before a text, and its encoding; "" for bytes.
_STRINGS = {
    b"\x8c": ("<B", "utf-8"),
    b"X": ("<I", "utf-8"),
    b"\x8d": ("<Q", "utf-8"),
    b"C": ("<B", ""),
    b"B": ("<I", ""),
    b"\x8e": ("<Q", ""),
    b"\x96": ("<Q", ""),
}


def read_arrays(path: str | os.PathLike[str]) -> list[np.ndarray]:
    """Read a pickle that holds an array, or lists and tuples of arrays, and nothing else.

    It is safe on files of strangers: nothing in the file is imported, called or allocated beyond the file's
    own size.

    Parameters
    ----------
    path
        The file: any protocol, written with NumPy 1 or 2.

    Returns
    -------
    list of ndarray
        All arrays in their order, without the nesting, in native byte order; float16, float32, float64 or
        integers.

    Raises
    ------
    CheckpointError
        The file is damaged, or it holds or names anything else, for example a dict or a function.
    OSError
        The file cannot be read.

    Examples
    --------
    >>> import pathlib, pickle, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder) / "Rnnlm.pkl"
    ...     _ = path.write_bytes(pickle.dumps([np.ones((2, 3), np.float16), np.zeros(3)]))
    ...     [array.shape for array in read_arrays(path)]
    [(2, 3), (3,)]
    """
    with open(path, "rb") as file:
        content = file.read()
    try:
        return list(_arrays_in(_Machine(content).run()))
    except ValueError as error:
        raise _check.malformed(path, f"not a pickle of NumPy arrays alone ({error})") from None


def _arrays_in(top: Any) -> Iterator[np.ndarray]:
    """The arrays in nested lists; ValueError for a list that is in itself, or in others again and again."""
    levels, visited = [iter([top])], 0
    while levels:
        for value in levels[-1]:
            visited += 1
            if len(levels) > _DEEPEST_LIST or visited > _MOST_OPCODES:
                raise ValueError("its lists are too deep or too long")
            if isinstance(value, list | tuple):
                levels.append(iter(value))
                break
            if not isinstance(value, Array):
                raise ValueError(f"it holds {told(value)}")
            if value.array is None:
                raise ValueError("an array has no values")
            yield value.array
        else:
            levels.pop()


class _Machine:
    """Runs one pickle; ValueError for anything that is no list of arrays."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.place = 0
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # the stack at each open mark
        self.memo: dict[int, Any] = {}
        self.room = len(content)  # bytes that further arrays may take

    def run(self) -> Any:
        """The value that the pickle makes."""
        for _ in range(_MOST_OPCODES):
            code = self._take(1)
            if code == b".":
                break
            self._do(code)
        else:
            raise ValueError(f"it has more than {_MOST_OPCODES} opcodes")
        value = self._pop()
        if self.stack or self.below or self.place != len(self.content):
            raise ValueError("it goes on after its value")
        return value

    def _do(self, code: bytes) -> None:
        push = self.stack.append
        if code in _CONSTANTS:
            push(_CONSTANTS[code])
        elif code in _NUMBERS:
            push(self._number(_NUMBERS[code]))
        elif code in _STRINGS:
            self._push_string(*_STRINGS[code])
        elif code in _TUPLES:
            push(tuple([self._pop() for _ in range(_TUPLES[code])][::-1]))
        elif code in _PUTS:
            self.memo[self._number(_PUTS[code])] = self._top()
        elif code in _GETS:
            push(self._memoized(self._number(_GETS[code])))
        else:
            self._do_other(code)

    def _do_other(self, code: bytes) -> None:
        match code:
            case b"\x80":  # PROTO
                self._number("<B")
            case b"\x95":  # FRAME
                self._number("<Q")
            case b"(":
                self.below.append(self.stack)
                self.stack = []
            case b"]":
                self.stack.append([])
            case b"l" | b"t" | b"e":
                self._take_to_mark(code)
            case b"a":
                value = self._pop()
                self._list().append(value)
            case b"\x94":  # MEMOIZE
                self.memo[len(self.memo)] = self._top()
            case b"p":
                self.memo[self._written_number(b"p")] = self._top()
            case b"g":
                self.stack.append(self._memoized(self._written_number(b"g")))
            case b"I" | b"L":
                self.stack.append(self._written_number(code))
            case b"\x8a":  # LONG1
                self.stack.append(int.from_bytes(self._take(self._number("<B")), "little", signed=True))
            case b"V":
                self._push_line()
            case b"c":
                self._push_name(self._line(), self._line())
            case b"\x93":  # STACK_GLOBAL
                name, module = self._text(self._pop()), self._text(self._pop())
                self._push_name(module, name)
            case b"R":
                arguments, function = self._pop(), self._pop()
                self.stack.append(self._call(function, arguments))
            case b"b":
                state = self._pop()
                self._set_state(self._top(), state)
            case _:
                raise ValueError(f"it has {told_opcode(code)}")

    # Reading the file.

    def _skip(self, count: int) -> int:
        """Step over bytes; their place."""
        if count > len(self.content) - self.place:
            raise ValueError("it was cut short")
        self.place += count
        return self.place - count

    def _take(self, count: int) -> bytes:
        start = self._skip(count)
        return self.content[start : self.place]

    def _number(self, form: str) -> int:
        return struct.unpack(form, self._take(struct.calcsize(form)))[0]

    def _line(self) -> str:
        end = self.content.find(b"\n", self.place, self.place + _LONGEST_NAME)
        if end < 0:
            raise ValueError("a line is too long or was cut short")
        line = self.content[self.place : end]
        self.place = end + 1
        return line.decode("ascii", "backslashreplace")

    def _written_number(self, code: bytes) -> int:
        line = self._line()
        if code == b"I" and line in ("00", "01"):
            return line == "01"
        if not re.fullmatch(r"-?[0-9]{1,20}" + ("L" if code == b"L" else ""), line):
            raise ValueError(f"{line!r} is not a number")
        return int(line.removesuffix("L"))

    # Making values.

    def _push_string(self, form: str, encoding: str) -> None:
        start = self._skip(self._number(form))
        self.stack.append(String(start, self.place, encoding, bool(encoding)))

    def _push_line(self) -> None:
        start, end = self.place, self.content.find(b"\n", self.place)
        if end < 0:
            raise ValueError("it was cut short")
        self.place = end + 1
        self.stack.append(String(start, end, "raw_unicode_escape", True))

    def _push_name(self, module: str, name: str) -> None:
        if (module, name) not in NAMES:
            raise ValueError(f"it names {module}.{name}")
        self.stack.append(NAMES[module, name])

    def _text(self, value: Any) -> str:
        """A short text in ASCII; other characters are escaped."""
        if not isinstance(value, String) or not value.is_text or value.stop - value.start > _LONGEST_NAME:
            raise ValueError(f"it holds {told(value)} in place of a name")
        return self.content[value.start : value.stop].decode("ascii", "backslashreplace")

    def _memoized(self, index: int) -> Any:
        if index not in self.memo:
            raise ValueError(f"it reads the place {index} of its memo, which is empty")
        return self.memo[index]

    # The stack.

    def _pop(self) -> Any:
        value = self._top()
        del self.stack[-1]
        return value

    def _top(self) -> Any:
        if not self.stack:
            raise ValueError("an opcode lacks its operand")
        return self.stack[-1]

    def _list(self) -> list[Any]:
        top = self._top()
        if not isinstance(top, list):
            raise ValueError(f"it appends to {told(top)}")
        return top

    def _take_to_mark(self, code: bytes) -> None:
        """Make a tuple or a list of the values above the last mark, or append them to the list below it."""
        if not self.below:
            raise ValueError("an opcode lacks its mark")
        values, self.stack = self.stack, self.below.pop()
        if code == b"e":
            self._list().extend(values)
        else:
            self.stack.append(values if code == b"l" else tuple(values))

    # What NumPy means by it.

    def _call(self, function: Any, arguments: Any) -> Any:
        """What a call of a known name would return."""
        if not isinstance(function, Name) or not isinstance(arguments, tuple):
            raise ValueError(f"it calls {told(function)}")
        match function.name, *arguments:
            case "encode", String(is_text=True) as text, encoding if self._text(encoding) == "latin1":
                return replace(text, is_text=False)
            case ("bytes",):
                return String(0, 0, "", False)
            case "_reconstruct", Name("ndarray"), (0,), String():
                return Array()
            case "dtype", code, 0 | 1, 0 | 1:
                return Dtype(self._dtype(code))
            case "_frombuffer", data, Dtype(dtype), shape, order:
                return Array(self._array(data, dtype, shape, self._text(order)))
            case "_frombuffer", data, Dtype(dtype), shape, order, axes if self._text(order) == "K":
                return Array(_transposed(self._array(data, dtype, shape, "C"), axes))
        raise ValueError(f"it calls {function.name} as NumPy does not")

    def _dtype(self, code: Any) -> np.dtype:
        text = self._text(code)
        if text not in _DTYPES:
            raise ValueError(f"it holds an array of dtype {text}")
        return np.dtype(text)

    def _set_state(self, value: Any, state: Any) -> None:
        match value, state:
            case Dtype(), (3, order, None, None, None, -1, -1, 0) if self._text(order) in _ORDERS:
                value.dtype = value.dtype.newbyteorder(_ORDERS[self._text(order)])
            case Array(None), (1, shape, Dtype(dtype), 0 | 1 as fortran, data):
                value.array = self._array(data, dtype, shape, "F" if fortran else "C")
            case _:
                raise ValueError(f"it sets the state of {told(value)} as NumPy does not")

    def _array(self, data: Any, dtype: np.dtype, shape: Any, order: str) -> np.ndarray:
        if not isinstance(data, String) or data.is_text:
            raise ValueError(f"it holds {told(data)} in place of the values of an array")
        axes = shape if isinstance(shape, tuple) and len(shape) <= _MOST_AXES else (None,)
        if order not in ("C", "F") or not all(type(n) is int and 0 <= n <= sys.maxsize for n in axes):
            raise ValueError("an array has no valid shape")
        count = math.prod(shape)
        self.room -= count * dtype.itemsize
        if self.room < 0:
            raise ValueError("its arrays have more bytes than the file")
        array = np.empty(count, dtype)
        self._fill(array.view(np.uint8).data, data)
        if not dtype.isnative:
            array = array.byteswap(inplace=True).view(dtype.newbyteorder("="))
        return array.reshape(shape, order="F" if order == "F" else "C")

    def _fill(self, out: memoryview, data: String) -> None:
        """Copy or decode bytes of the file; each character of a text is a byte."""
        done = 0
        decoder = codecs.getincrementaldecoder(data.encoding)() if data.encoding else None
        for start in range(data.start, data.stop, _PIECE):
            stop = min(start + _PIECE, data.stop)
            piece = self.content[start:stop]
            if decoder is not None:
                piece = decoder.decode(piece, stop == data.stop).encode("latin-1")
            if len(piece) > len(out) - done:
                break
            out[done : done + len(piece)] = piece
            done += len(piece)
        else:
            if done == len(out):
                return
        raise ValueError("the values of an array do not fill its shape")


def _transposed(array: np.ndarray, axes: Any) -> np.ndarray:
    if not isinstance(axes, tuple) or sorted(map(str, axes)) != sorted(map(str, range(array.ndim))):
        raise ValueError("an array has no valid order of axes")
    return array.transpose(axes)
