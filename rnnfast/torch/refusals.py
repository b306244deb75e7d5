"""The error of a call with `lengths` or `resets` that the kernels do not serve."""

from __future__ import annotations

from typing import Any

import torch

_WAYS = {
    "autocast": "call the layer inside torch.autocast('cpu', enabled=False)",
    "dtype": "convert layer and input to float32, float64 or bfloat16",
    "device": "move layer and input to the CPU",
    "empty": "pass at least one sequence and one step",
}


def refused(owner: str, module: Any, given: torch.Tensor, hx: Any, why: str) -> ValueError:
    """The error, with the way out; `why` is the reason in the report."""
    if why in ("shapes", "states"):
        return ValueError(f"{owner}: {_misfit(module, given, hx)}.")
    if why == "several dtypes":
        found = [given.dtype, *(one.dtype for one in _tensors(hx)), next(module.parameters()).dtype]
        names = " and ".join(dict.fromkeys(str(one).removeprefix("torch.") for one in found))
        return ValueError(f"{owner}: input, states and parameters must have one dtype, got {names}.")
    if why == "empty input":
        why += f" {tuple(given.shape)}"
    way = _WAYS.get(why.split()[0], "without resets, pass a PackedSequence, which PyTorch computes")
    return ValueError(f"{owner}: lengths and resets need the kernels, which do not serve {why}; {way}.")


def _misfit(module: Any, given: torch.Tensor, hx: Any) -> str:
    """Which shape is wrong."""
    axes = ("N", "T") if module.batch_first else ("T", "N")
    if given.shape[-1] != module.input_size:
        shape = ", ".join([*(axes if given.dim() == 3 else "T"), str(module.input_size)])
        return f"input must be ({shape}), got {tuple(given.shape)}"
    if hx is None:
        return "the parameters do not have the shapes of input_size, hidden_size and num_layers"
    count = module.num_layers * (2 if module.bidirectional else 1)
    batch = [given.shape[axes.index("N")]] if given.dim() == 3 else []
    shape = str((count, *batch, module.hidden_size))
    wanted = f"a tuple (h, c), each {shape}" if module.mode == "LSTM" else f"a Tensor {shape}"
    tensors = _tensors(hx)
    found = ", ".join(str(tuple(one.shape)) for one in tensors)
    of = "" if isinstance(hx, torch.Tensor) else "of "
    got = f"{type(hx).__name__} {of}{found}" if tensors else type(hx).__name__
    return f"states must be {wanted}, got {got}"


def _tensors(hx: Any) -> list[torch.Tensor]:
    """The Tensors among given states."""
    return [one for one in (hx if isinstance(hx, tuple | list) else [hx]) if isinstance(one, torch.Tensor)]
