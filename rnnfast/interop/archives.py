"""Files of arrays by name, with a description in JSON or without one: .npz, .safetensors and .pt.

All are read as untrusted input: whatever the bytes, CheckpointError and no more memory than the arrays take.
"""

from __future__ import annotations

import io
import json
import math
import os
import warnings
import zipfile
from collections.abc import Mapping
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
