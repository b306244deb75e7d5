"""Lists of NumPy arrays in pickles, read as untrusted input.

A pickle is a program. Here it may use only the opcodes that lists of arrays are made of, and only the names
that NumPy writes beside them. Each name is a stand-in that checks its arguments, so no function of NumPy or
of Python is called for the file.
"""

from __future__ import annotations

import io
import math
import os
import pickle
import pickletools
from collections.abc import Callable
from typing import Any

import numpy as np

from rnnfast import _check

MOST_BYTES = 1 << 30
# An array takes up to 34 opcodes, so this limit allows about 1,000 arrays.
_MOST_OPCODES = 1 << 15
_OPCODES = set(
    """PROTO FRAME STOP MARK NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1
    UNICODE SHORT_BINUNICODE BINUNICODE BINUNICODE8 SHORT_BINBYTES BINBYTES BINBYTES8 BYTEARRAY8
    EMPTY_LIST LIST APPEND APPENDS EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3
    PUT BINPUT LONG_BINPUT MEMOIZE GET BINGET LONG_BINGET GLOBAL STACK_GLOBAL REDUCE BUILD""".split()  # noqa: SIM905
)
_DTYPES = {f"{kind}{size}" for kind, sizes in (("f", "248"), ("i", "1248"), ("u", "1248")) for size in sizes}
_ORDERS = {"<": "<", ">": ">", "|": "="}


def read_arrays(path: str | os.PathLike[str]) -> list[np.ndarray]:
    """Read a pickle that holds an array, or lists and tuples of arrays, and nothing else.

    It is safe on files of strangers: nothing in the file is imported or called, and all arrays together take
    no more bytes than the file.

    Parameters
    ----------
    path
        The file: any protocol, written with NumPy 1 or 2, up to 1 GiB.

    Returns
    -------
    list of ndarray
        All arrays in their order, without the nesting, in native byte order; float16, float32, float64 or
        integers.

    Raises
    ------
    CheckpointError
        The file is damaged or too large, or holds or names anything else, such as a dict or a function.
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
        if os.fstat(file.fileno()).st_size > MOST_BYTES:
            raise _check.training.malformed(
                path, f"it has more than {MOST_BYTES} bytes, far more than a list of the book"
            )
        content = file.read()
    try:
        _check_opcodes(content)
        return _arrays_in(_Unpickler(content).load(), len(content))
    except Exception as error:  # pickle and NumPy raise many kinds
        reason = str(error) or type(error).__name__
        raise _check.training.malformed(path, f"not a pickle of NumPy arrays alone ({reason})") from None


def _check_opcodes(content: bytes) -> None:
    """ValueError for a pickle of other opcodes, or of too many."""
    last: Any = 0
    for count, (opcode, argument, last) in enumerate(pickletools.genops(content)):  # noqa: B007
        if opcode.name not in _OPCODES:
            raise ValueError(f"it has the opcode {opcode.name}")
        if count >= _MOST_OPCODES:
            raise ValueError(f"it has more than {_MOST_OPCODES} opcodes")
        if opcode.name in ("PUT", "LONG_BINPUT") and argument not in range(_MOST_OPCODES):
            raise ValueError(f"it writes to the place {argument} of its memo")  # the memo has so many places
    if last != len(content) - 1:
        raise ValueError("it goes on after its value")


class _Name:
    """A name of NumPy as a pickle may use it: it can be called, and passed to others."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def __call__(self, *arguments: Any) -> Any:
        return self._call(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise ValueError("it sets the state of a name")


class _Dtype:
    """A dtype, made like `numpy.dtype` for NumPy's own pickles."""

    __slots__ = ("dtype",)

    def __init__(self, code: Any, align: Any, copy: Any) -> None:
        if code not in _DTYPES:
            raise ValueError(f"it holds an array of dtype {code!s:.40}")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: Any) -> None:
        version, order, *rest = state
        if version != 3 or tuple(rest) != (None, None, None, -1, -1, 0):
            raise ValueError("it sets the state of a dtype as NumPy does not")
        self.dtype = self.dtype.newbyteorder(_ORDERS[order])


class _Array:
    """An array: a view of the bytes in the file, which come with its state."""

    __slots__ = ("array",)

    def __init__(self, array: np.ndarray | None = None) -> None:
        self.array = array

    def __setstate__(self, state: Any) -> None:
        version, shape, dtype, fortran, data = state
        if version != 1 or self.array is not None:
            raise ValueError("it sets the state of an array as NumPy does not")
        self.array = _viewed(data, dtype, shape, "F" if fortran else "C")


def _viewed(data: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    """The bytes of an array in its shape."""
    if not isinstance(data, bytes | bytearray) or not isinstance(dtype, _Dtype):
        raise ValueError(f"it holds {_told(data)} in place of the values of an array")
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.dtype.itemsize != len(data):
        raise ValueError("the values of an array do not fill its shape")
    return np.ndarray(shape, dtype.dtype, bytes(data), order=order)


class _Unpickler(pickle.Unpickler):
    """Knows the names that NumPy writes beside arrays, each as a stand-in."""

    def __init__(self, content: bytes) -> None:
        super().__init__(io.BytesIO(content))
        self._room = len(content)
        self._ndarray = _Name(self._refused)
        called: dict[tuple[str, str], Callable[..., Any]] = {
            ("numpy", "dtype"): _Dtype,
            ("_codecs", "encode"): self._encoded,
            ("builtins", "bytes"): self._no_bytes,
            ("__builtin__", "bytes"): self._no_bytes,
        }
        for core in ("numpy.core", "numpy._core"):  # of NumPy 1 and 2
            called[f"{core}.multiarray", "_reconstruct"] = self._reconstructed
            called[f"{core}.numeric", "_frombuffer"] = self._from_buffer
        self._names = {name: _Name(call) for name, call in called.items()}
        self._names["numpy", "ndarray"] = self._ndarray

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in of a name; ValueError for all others."""
        if (module, name) not in self._names:
            raise ValueError(f"it names {module:.60}.{name:.60}")
        return self._names[module, name]

    def _refused(self, *arguments: Any) -> Any:
        raise ValueError("it calls ndarray as NumPy does not")

    def _no_bytes(self) -> bytes:
        return b""

    def _encoded(self, text: str, encoding: str) -> bytes:
        """Bytes as protocols 0 to 2 write them: a text of one character a byte."""
        self._room -= len(text)
        if encoding != "latin1" or self._room < 0:
            raise ValueError("it calls encode as NumPy does not")
        return text.encode("latin1")

    def _reconstructed(self, subtype: Any, shape: Any, code: Any) -> _Array:
        if (subtype, shape) != (self._ndarray, (0,)):
            raise ValueError("it calls _reconstruct as NumPy does not")
        return _Array()

    def _from_buffer(self, data: Any, dtype: Any, shape: Any, order: Any, axes: Any = None) -> _Array:
        if axes is None:
            return _Array(_viewed(data, dtype, shape, order))
        if order != "K":
            raise ValueError("it calls _frombuffer as NumPy does not")
        return _Array(_viewed(data, dtype, shape, "C").transpose(axes))


def _arrays_in(top: Any, most: int) -> list[np.ndarray]:
    """Copies of the arrays in nested lists, which take no more than `most` bytes."""
    rest, made, found, visited = [top], {}, [], 0
    while rest:
        value = rest.pop()
        visited += 1
        if isinstance(value, list | tuple):
            if visited + len(rest) + len(value) > _MOST_OPCODES:  # such as a list in itself
                raise ValueError("its lists are too deep or too long")
            rest.extend(reversed(value))
        elif isinstance(value, _Array) and value.array is not None:
            if id(value) not in made:
                most -= value.array.nbytes
                if most < 0:
                    raise ValueError("its arrays have more bytes than the file")
                made[id(value)] = value.array.astype(value.array.dtype.newbyteorder("="))
            found.append(made[id(value)])
        else:
            raise ValueError(f"it holds {_told(value)}")
    return found


def _told(value: Any) -> str:
    """A value in a pickle, for errors."""
    if value is None or isinstance(value, int):
        return f"{value!r:.40}"
    kinds = {
        str: "a text",
        bytes: "bytes",
        bytearray: "bytes",
        _Name: "a name",
        _Array: "an array without values",
    }
    return kinds.get(type(value), f"a {type(value).__name__.strip('_').lower()}")
