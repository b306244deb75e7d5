"""Named arrays and their description in one safetensors file, read as untrusted input.

Before an array is allocated, the size of the header is limited, its offsets are checked against the size of
the file, and its tensors against the description; then a checksum covers description and values. There is no
pickle: a file can be wrong, but it cannot run code.

Arrays are written from their own memory and read into their final memory, without a second copy.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import IO, Any, NamedTuple

import numpy as np

from rnnfast import _check
from rnnfast.files.atomic import write_atomically

_DTYPES: dict[str, np.dtype] = {"F32": np.dtype("<f4"), "F64": np.dtype("<f8"), "I64": np.dtype("<i8")}
# Files of other programs may also hold these.
_FOREIGN_DTYPES = {"F16": np.dtype("<f2"), "BF16": np.dtype("<u2"), **_DTYPES}
# The order of tensors in a file, as in the safetensors library: by dtype, then by name.
_ORDER = ("I64", "F64", "F32")
# Elements put in C order at a time, for an array of another layout.
_PIECE = 1 << 16
# A model has a dozen tensors, each with 100 bytes of header; a bigger header is not ours.
_HEADER_LIMIT = 1 << 20
# A kilobyte of "[],[],[]" takes 20 kB as Python objects. Our headers have 8 of these marks per tensor, so
# this limit allows 4,000 tensors, and no header takes more than 10 MB.
_MARKS_LIMIT = 1 << 15
_MARKS = "[{,:"

# The exceptions of json and of checks of a description for crafted values.
_WRONG = (TypeError, ValueError, ArithmeticError, LookupError, AttributeError, RecursionError)


class Spec(NamedTuple):
    """The expected dtype and shape of a tensor."""

    dtype: np.dtype
    shape: tuple[int, ...]


class _Tensor(NamedTuple):
    dtype: np.dtype
    shape: tuple[int, ...]
    start: int
    stop: int


def write_tensors(
    path: str | os.PathLike[str], form: str, tensors: Mapping[str, np.ndarray], description: Mapping[str, Any]
) -> None:
    """Write arrays and their description as one safetensors file, atomically.

    Parameters
    ----------
    path
        The file to write; an older one stays until the new one is complete.
    form
        The name of the format, which the reader checks.
    tensors
        Name to float32, float64 or int64 array, any shape and layout.
    description
        JSON values, kept in the file's metadata.

    Raises
    ------
    OSError
        The file cannot be written.
    """
    codes = {name: _code(name, array) for name, array in tensors.items()}
    text = json.dumps(dict(description), sort_keys=True)
    about = json.dumps({"format": form, "config": text, "checksum": _checksum(text, tensors)})
    header: dict[str, Any] = {"__metadata__": {"rnnfast": about}}
    end = 0
    for name in sorted(tensors, key=lambda name: (_ORDER.index(codes[name]), name)):
        start, end = end, end + tensors[name].nbytes
        shape = list(tensors[name].shape)
        header[name] = {"dtype": codes[name], "shape": shape, "data_offsets": [start, end]}
    content = json.dumps(header, separators=(",", ":")).encode("ascii")
    content += b" " * (-len(content) % 8)
    with write_atomically(path) as file:
        file.write(struct.pack("<Q", len(content)) + content)
        for name in list(header)[1:]:
            for piece in _pieces(tensors[name]):
                file.write(piece)


def _code(name: str, array: np.ndarray) -> str:
    for code, dtype in _DTYPES.items():
        if array.dtype.newbyteorder("<") == dtype:
            return code
    raise TypeError(f"write_tensors: {name} must be float32, float64 or int64, got {array.dtype}.")


def _pieces(array: np.ndarray) -> Iterator[memoryview]:
    """The bytes of the values in C order, as in a file; a C-ordered array is not copied."""
    dtype = array.dtype.newbyteorder("<")
    if array.flags.c_contiguous and array.dtype == dtype:
        yield array.reshape(-1).view(np.uint8).data
        return
    flags: Any = ["external_loop", "buffered", "zerosize_ok"]
    for piece in np.nditer(array, flags, order="C", casting="equiv", op_dtypes=[dtype], buffersize=_PIECE):
        yield np.ascontiguousarray(piece).view(np.uint8).data


def read_tensors(
    path: str | os.PathLike[str], form: str, expect: Callable[[dict[str, Any]], Mapping[str, Spec]]
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Read a file of `write_tensors`.

    Parameters
    ----------
    path
        The file.
    form
        The expected name of the format.
    expect
        Called with the description; returns dtype and shape of every tensor the file must hold (-1 allows
        any length), or raises `ValueError` or `TypeError` if the description is invalid.

    Returns
    -------
    description : dict
    tensors : dict
        C-contiguous arrays in native byte order.

    Raises
    ------
    CheckpointError
        The file is damaged or does not match its description.
    OSError
        The file cannot be read.
    """
    with open(path, "rb") as file:
        length = os.fstat(file.fileno()).st_size
        with _malformed_if_wrong(path, "the header is not one of rnnfast"):
            header = _read_header(path, file, length)
            text, checksum = _read_about(path, form, header.pop("__metadata__", None))
            found = {name: _read_entry(path, name, entry) for name, entry in header.items()}
            data = file.tell()
            _check_layout(path, found, length - data)
            description = parse_object(path, text, "the configuration")
        with _malformed_if_wrong(path, "its configuration is not valid"):
            _check_tensors(path, found, expect(description))
        tensors = {name: _read_tensor(path, file, data, tensor) for name, tensor in found.items()}
    if _checksum(text, tensors) != checksum:
        raise _check.training.malformed(
            path, "the checksum does not match, so the file was changed or damaged"
        )
    return description, tensors


def form_of(path: str | os.PathLike[str]) -> str | None:
    """The format of a file of `write_tensors`; None for a safetensors file of another program.

    Raises
    ------
    CheckpointError
        It is no safetensors file.
    OSError
        The file cannot be read.
    """
    with open(path, "rb") as file, _malformed_if_wrong(path, "the header is not one of safetensors"):
        metadata = _read_header(path, file, os.fstat(file.fileno()).st_size).get("__metadata__")
    if not isinstance(metadata, dict) or not isinstance(metadata.get("rnnfast"), str):
        return None
    return str(parse_object(path, metadata["rnnfast"], "the metadata").get("format"))


def read_foreign(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """All arrays of a safetensors file of any program, by name; errors as in `read_tensors`.

    Such a file has no checksum. The arrays are float16, float32, float64 or int64; bfloat16 becomes float32.
    """
    with open(path, "rb") as file:
        length = os.fstat(file.fileno()).st_size
        with _malformed_if_wrong(path, "the header is not one of safetensors"):
            header = _read_header(path, file, length)
            header.pop("__metadata__", None)
            found = {name: _read_entry(path, name, entry, _FOREIGN_DTYPES) for name, entry in header.items()}
            data = file.tell()
            _check_layout(path, found, length - data)
        return {name: _widened(_read_tensor(path, file, data, tensor)) for name, tensor in found.items()}


def _widened(array: np.ndarray) -> np.ndarray:
    """The float32 values of bfloat16, which NumPy lacks: their bits are the upper half."""
    if array.dtype != np.uint16:
        return array
    bits = array.astype(np.uint32)
    bits <<= 16
    return bits.view(np.float32)


@contextmanager
def _malformed_if_wrong(path: Any, what: str) -> Iterator[None]:
    """Turn any exception that a crafted file causes in the checks inside into CheckpointError."""
    try:
        yield
    except _check.CheckpointError:
        raise
    except _WRONG as error:
        raise _check.training.malformed(path, f"{what} ({error})") from None


def _checksum(text: str, tensors: Mapping[str, np.ndarray]) -> int:
    """CRC-32 of the description, then of every tensor's name, shape, dtype and bytes, by name."""
    crc = zlib.crc32(text.encode("utf-8", "surrogatepass"))
    for name in sorted(tensors):
        array = tensors[name]
        kind = array.dtype.newbyteorder("=")
        crc = zlib.crc32(f"{name} {array.shape} {kind}".encode("utf-8", "surrogatepass"), crc)
        for piece in _pieces(array):
            crc = zlib.crc32(piece, crc)
    return crc


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({name for name, _ in pairs}) != len(pairs):
        raise ValueError("a name occurs twice")
    return dict(pairs)


def parse_object(path: Any, text: str | bytes, what: str) -> dict[str, Any]:
    """A JSON object; CheckpointError for anything else, including nesting that causes a RecursionError."""
    try:
        value = json.loads(text, object_pairs_hook=_no_duplicates)
    except (ValueError, RecursionError) as error:
        raise _check.training.malformed(path, f"{what} is not valid JSON ({error})") from None
    if not isinstance(value, dict):
        raise _check.training.malformed(path, f"{what} must be a JSON object, got {type(value).__name__}")
    return value


def _read_header(path: Any, file: IO[bytes], length: int) -> dict[str, Any]:
    prefix = file.read(8)
    if len(prefix) < 8:
        raise _check.training.malformed(path, f"too short for a safetensors file ({length} bytes)")
    (size,) = struct.unpack("<Q", prefix)
    if size > min(_HEADER_LIMIT, length - 8):
        raise _check.training.malformed(
            path, f"not a safetensors file of rnnfast (its header would take {size} bytes)"
        )
    content = file.read(size)
    # Our headers are ASCII. A decoding error would hold three copies of a header as long as the file.
    if not content.isascii():
        raise _check.training.malformed(path, "the header is not valid JSON (it is not ASCII)")
    text = content.decode("ascii")
    del content
    if sum(map(text.count, _MARKS)) > _MARKS_LIMIT:
        raise _check.training.malformed(
            path, "not a safetensors file of rnnfast (its header has too many parts)"
        )
    return parse_object(path, text, "the header")


def _read_about(path: Any, form: str, metadata: Any) -> tuple[str, int]:
    """The description's text and the checksum, from the metadata."""
    if not isinstance(metadata, dict) or not isinstance(metadata.get("rnnfast"), str):
        raise _check.training.malformed(
            path, "no rnnfast model in its metadata, so it was not saved by rnnfast"
        )
    about = parse_object(path, metadata["rnnfast"], "the metadata")
    if about.get("format") != form:
        raise _check.training.malformed(path, f"format must be {form!r}, got {about.get('format')!r}")
    text, checksum = about.get("config"), about.get("checksum")
    if not isinstance(text, str) or not isinstance(checksum, int):
        raise _check.training.malformed(path, "the metadata lacks the configuration or the checksum")
    return text, checksum


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 62


def _read_entry(path: Any, name: str, entry: Any, dtypes: Mapping[str, np.dtype] = _DTYPES) -> _Tensor:
    reason = f"the header's entry for {name!r} is malformed"
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise _check.training.malformed(path, reason)
    code, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(code, str) or code not in dtypes:
        raise _check.training.malformed(path, f"tensor {name!r} must be {', '.join(dtypes)}, got {code!r}")
    if not isinstance(shape, list) or len(shape) > 8 or not all(map(_is_count, shape)):
        raise _check.training.malformed(path, reason)
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(map(_is_count, offsets)):
        raise _check.training.malformed(path, reason)
    return _Tensor(dtypes[code], tuple(shape), offsets[0], offsets[1])


def _check_layout(path: Any, found: dict[str, _Tensor], length: int) -> None:
    """Check that the tensors fill the data section exactly: no hole, no overlap, nothing after the end."""
    end = 0
    for name, tensor in sorted(found.items(), key=lambda item: item[1][2:]):
        count = 1
        for axis in tensor.shape:
            count *= axis
        if tensor.start != end or tensor.stop - tensor.start != count * tensor.dtype.itemsize:
            raise _check.training.malformed(
                path, f"the place of tensor {name!r} in the file does not fit its shape"
            )
        end = tensor.stop
    if end != length:
        raise _check.training.malformed(
            path,
            f"the header promises {end} bytes of data, the file holds {length}; it was cut short or extended",
        )


def _check_tensors(path: Any, found: dict[str, _Tensor], specs: Mapping[str, Spec]) -> None:
    for name in specs:
        if name not in found:
            raise _check.training.malformed(path, f"tensor {name!r} is missing")
    for name, tensor in found.items():
        if name not in specs:
            raise _check.training.malformed(
                path, f"tensor {name!r} does not belong to the model of its configuration"
            )
        dtype, shape = specs[name]
        free = tuple(have if want == -1 else want for have, want in zip(tensor.shape, shape, strict=False))
        if len(tensor.shape) != len(shape) or tensor.shape != free:
            raise _check.training.malformed(path, f"tensor {name!r} must be {shape}, got {tensor.shape}")
        if tensor.dtype != dtype:
            raise _check.training.malformed(path, f"tensor {name!r} must be {dtype}, got {tensor.dtype}")


def _read_tensor(path: Any, file: IO[bytes], data: int, tensor: _Tensor) -> np.ndarray:
    file.seek(data + tensor.start)
    count = (tensor.stop - tensor.start) // tensor.dtype.itemsize
    array = np.fromfile(file, dtype=tensor.dtype, count=count)
    if array.size != count:
        raise _check.training.malformed(path, "the file ended while it was read")
    return array.reshape(tensor.shape).astype(tensor.dtype.newbyteorder("="), copy=False)
