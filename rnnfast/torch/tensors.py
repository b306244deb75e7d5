"""Which tensors are plain arrays in the memory of the CPU, and the arrays."""

from __future__ import annotations

import numpy as np
import torch

DTYPES = (torch.float32, torch.float64)  # those of the kernels
SERVED = (*DTYPES, torch.bfloat16)  # computed in float32, with operands of products in bfloat16

_CLASSES = (torch.Tensor, torch.nn.Parameter)
_keys_of = torch._C._dispatch_keys

# Their dispatch keys: no other device or layout, no subclass, no transform, no lazy sign.
with torch.inference_mode():
    _WITHOUT_TAPE = _keys_of(torch.empty(0, device="cpu"))
_WITH_TAPE = _keys_of(torch.empty(0, device="cpu"))


def is_plain(tensor: torch.Tensor) -> bool:
    """Whether a tensor is a strided array on the CPU and nothing else."""
    return type(tensor) in _CLASSES and _keys_of(tensor) in (_WITH_TAPE, _WITHOUT_TAPE)


def array_of(tensor: torch.Tensor) -> np.ndarray:
    """A plain tensor's own memory, which is copied only where it is not contiguous."""
    return tensor.detach().contiguous().numpy()
