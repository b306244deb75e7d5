"""Files of arrays by name, with a description in JSON or without one: .npz, .safetensors and .pt.

All are read as untrusted input: whatever the bytes, CheckpointError and no more memory than the arrays take.
"""

from __future__ import annotations

import io
import json
import math
import os
import pickle
import pickletools
import warnings
import zipfile
from collections.abc import Callable, Mapping
from typing import IO, Any, NamedTuple

import numpy as np

from rnnfast import _check
from rnnfast.files.atomic import write_atomically
from rnnfast.files.tensors import Spec, form_of, parse_object, read_foreign, read_tensors, write_tensors

LAYERS = "rnnfast-layers-1"  # the format of a safetensors file of layers
_DESCRIPTION = "rnnfast"  # the array in a .npz file whose text is the description
_LONGEST_DESCRIPTION = 1 << 16
_MOST_ARRAYS = 4000
# Deflated weights shrink by a few per cent. A file may unpack to this many times its size, and to a
# megabyte more, since biases are often zeros.
_MOST_TIMES, _SLACK = 20, 1 << 20
_LONGEST_HEADER = 4096
_PIECE = 1 << 16
# Where checkpoints of PyTorch, which also hold optimizers and numbers, have the model's state_dict.
_WRAPPED = ("state_dict", "model_state_dict", "model")


class Archive(NamedTuple):
    """The arrays of a file by name, and its description, which files of other programs lack."""

    arrays: dict[str, np.ndarray]
    description: dict[str, Any] | None = None


# .npz


def write_npz(path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray], description: Any) -> None:
    """Write arrays (any shape) as `numpy.savez` does, atomically; the description is the array `rnnfast`."""
    members: dict[str, Any] = {_DESCRIPTION: np.array(json.dumps(description, sort_keys=True)), **arrays}
    with write_atomically(path) as file:
        np.savez(file, **members)


def read_npz(path: str | os.PathLike[str]) -> Archive:
    """Read a file of `write_npz`, `numpy.savez` or `numpy.savez_compressed`."""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of headers from Python 2
                arrays = _read_members(file, size)
        except Exception as error:  # zipfile and NumPy raise many kinds
            raise _check.training.malformed(path, f"not a .npz file of arrays of numbers ({error})") from None
    text = arrays.pop(_DESCRIPTION, None)
    return Archive(arrays, None if text is None else parse_object(path, str(text), "its description"))


def _read_members(file: IO[bytes], size: int) -> dict[str, np.ndarray]:
    if _members(file) > _MOST_ARRAYS:
        raise ValueError(f"it has more than {_MOST_ARRAYS} members")
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        if sum(member.file_size for member in members) > _MOST_TIMES * size + _SLACK:
            raise ValueError("it unpacks to too many bytes")
        return {member.filename.removesuffix(".npy"): _read_member(archive, member) for member in members}


def _members(file: IO[bytes]) -> int:
    """The number of members in the directory of a zip file, or a few more; `zipfile` would make an object of
    each."""
    count, piece = 0, b""
    while more := file.read(_PIECE):
        piece = piece[-3:] + more
        count += piece.count(b"PK\x01\x02")
    return count


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{member.filename!r} is packed in an unknown way")
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        if version not in header:
            raise ValueError(f"{member.filename!r} is of the unknown version {version}")
        shape, in_fortran_order, dtype = header[version](file, max_header_size=_LONGEST_HEADER)
        name = member.filename.removesuffix(".npy")
        is_text = name == _DESCRIPTION and dtype.kind == "U" and dtype.itemsize <= 4 * _LONGEST_DESCRIPTION
        if not (dtype.kind in "fiu" or is_text) or dtype.itemsize == 0:
            raise ValueError(f"{member.filename!r} holds {dtype}")
        nbytes = math.prod(shape) * dtype.itemsize
        if min(shape, default=0) < 0 or file.tell() + nbytes != member.file_size:
            raise ValueError(f"{member.filename!r} does not have the size of its shape")
        data = np.empty(nbytes, np.uint8)
        for start in range(0, nbytes, _PIECE):
            piece = file.read(min(_PIECE, nbytes - start))
            data[start : start + len(piece)] = np.frombuffer(piece, np.uint8)
            if len(piece) < min(_PIECE, nbytes - start):
                raise ValueError(f"{member.filename!r} was cut short")
        file.read(1)  # the checksum is compared at the end
    array = data.view(dtype).reshape(shape, order="F" if in_fortran_order else "C")
    return array.astype(dtype.newbyteorder("="), copy=False)


# .safetensors


def write_layers(path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray], description: Any) -> None:
    """Write arrays (any shape) of layers as a safetensors file, atomically, with a checksum."""
    shapes = {name: [array.dtype.name, *array.shape] for name, array in arrays.items()}
    write_tensors(path, LAYERS, arrays, {"layers": description, "shapes": shapes})


def read_safetensors(path: str | os.PathLike[str]) -> Archive:
    """Read a safetensors file of `write_layers` or of another program."""
    if form_of(path) is None:
        return Archive(read_foreign(path))

    def specs(described: dict[str, Any]) -> dict[str, Spec]:
        return {
            name: Spec(np.dtype(dtype), tuple(shape)) for name, (dtype, *shape) in described["shapes"].items()
        }

    described, arrays = read_tensors(path, LAYERS, specs)
    if not isinstance(described.get("layers"), dict):
        raise _check.training.malformed(path, "its configuration has no layers")
    return Archive(arrays, described["layers"])


# .pt


def write_pt(path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays (any shape) as a `state_dict` of PyTorch, atomically."""
    torch = _torch("a .pt file")
    content = io.BytesIO()  # PyTorch turns the OSError of a full disk into a RuntimeError of its own
    torch.save(
        {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}, content
    )
    with write_atomically(path) as file:
        file.write(content.getbuffer())


def read_pt(path: str | os.PathLike[str]) -> Archive:
    """Read a `state_dict` of PyTorch, or that of a model in a checkpoint, with `weights_only`; halves become
    float32."""
    torch = _torch(f"{path}:")
    with open(path, "rb") as file:
        try:
            loaded = torch.load(file, map_location="cpu", weights_only=True)
            loaded = next((loaded[name] for name in _WRAPPED if _wraps(loaded, name)), loaded)
            if not isinstance(loaded, Mapping) or not loaded:
                raise ValueError(f"it holds a {type(loaded).__name__}")
            return Archive({str(name): _as_array(torch, name, value) for name, value in loaded.items()})
        except Exception as error:  # PyTorch raises many kinds
            raise _check.training.malformed(path, f"not a state_dict of PyTorch ({error})") from None


def _wraps(loaded: Any, name: str) -> bool:
    """Whether a checkpoint has a `state_dict` under this name."""
    return isinstance(loaded, Mapping) and isinstance(loaded.get(name), Mapping)


def _as_array(torch: Any, name: Any, tensor: Any) -> np.ndarray:
    if not isinstance(tensor, torch.Tensor) or not tensor.is_floating_point():
        raise ValueError(f"{name} is no tensor of floating-point numbers")
    tensor = tensor.detach()
    return (tensor.float() if tensor.element_size() < 4 else tensor).contiguous().numpy().copy()


def _torch(owner: str) -> Any:
    try:
        import torch
    except ModuleNotFoundError as error:
        raise _check.interop.package_missing(owner, "PyTorch", "torch") from error
    return torch


# Lists of NumPy arrays in pickles, read as untrusted input.


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
