"""Which calls the kernels serve, and the calls themselves; the others are PyTorch's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from rnnfast.torch import layers
from rnnfast.torch.kinds import KINDS
from rnnfast.torch.layers import Options
from rnnfast.torch.lies import packed, whole
from rnnfast.torch.tensors import SERVED, is_plain


def why_not(name: str, tensors: Sequence[Any], params: Sequence[Any], options: Options) -> str:
    """Why PyTorch has to serve a call with these tensors (inputs, then states); empty if the kernels do."""
    if torch._C._functorch.peek_interpreter_stack() is not None:
        return "torch.func transform"
    if torch._C._len_torch_dispatch_stack() or torch._C._len_torch_function_stack():
        return "dispatch mode"
    if torch._C._get_tracing_state() is not None or torch.compiler.is_compiling():
        return "traced or compiled"
    if torch.is_autocast_enabled("cpu"):
        return "autocast"
    if torch.autograd.forward_ad._current_level >= 0:
        return "forward-mode differentiation"
    x, *states = tensors
    dtype = x.dtype
    if dtype not in SERVED:
        return f"dtype {str(dtype).removeprefix('torch.')}"
    for tensor in (*tensors, *params):
        if is_plain(tensor) and tensor.dtype is dtype:
            continue
        if type(tensor) not in (torch.Tensor, torch.nn.Parameter):
            return f"tensor subclass {type(tensor).__name__}"
        if tensor.device.type != "cpu":
            return f"device {tensor.device.type}"
        return "several dtypes" if tensor.dtype is not dtype else "layout"
    return _unfit(name, x, states, params, options)


def _unfit(
    name: str, x: torch.Tensor, states: Sequence[torch.Tensor], params: Sequence[Any], options: Options
) -> str:
    """Why the shapes are not those of a layer that the kernels have."""
    kind, directions = KINDS[name], 2 if options.bidirectional else 1
    each, count, width = 4 if options.has_biases else 2, options.num_layers * directions, states[0].shape[-1]
    cols = len(kind.cell.gates) * width
    if len(params) == count * (each + 1):
        return "proj_size"
    if not x.numel() or not states[0].numel():
        return "empty input"
    if len(params) != count * each or len(states) != kind.states:
        return "shapes"
    if any(state.dim() != 3 or state.shape != states[0].shape for state in states):
        return "shapes"
    if states[0].shape[0] != count:
        return "shapes"
    for k in range(count):
        depth = x.shape[-1] if k < directions else directions * width
        own = params[k * each : (k + 1) * each]
        wanted = ((cols, depth), (cols, width), (cols,), (cols,))
        if any(param.shape != shape for param, shape in zip(own, wanted, strict=False)):
            return "shapes"
    return ""


def serve_input(
    name: str,
    x: torch.Tensor,
    states: Sequence[torch.Tensor],
    params: Any,
    options: Options,
    batch_first: bool,
) -> tuple[torch.Tensor, ...]:
    """`aten::NAME.input`."""
    kind = KINDS[name]
    if batch_first and options.drops:  # PyTorch draws its masks over (T, N, H)
        hs, *finals = serve_input(name, x.transpose(0, 1).contiguous(), states, params, options, False)
        return hs.transpose(0, 1), *finals
    batch, steps = (x.shape[0], x.shape[1]) if batch_first else (x.shape[1], x.shape[0])
    direction = layers.eager(kind, lambda backwards: whole(batch, steps, batch_first, backwards))
    return layers.run(kind, x, states, params, options, direction)


def serve_data(
    name: str,
    data: torch.Tensor,
    batch_sizes: torch.Tensor,
    states: Sequence[torch.Tensor],
    params: Any,
    options: Options,
) -> tuple[torch.Tensor, ...]:
    """`aten::NAME.data`, of a `PackedSequence`."""
    sizes = batch_sizes.numpy()
    lies = [packed(sizes, backwards) for backwards in (False, True)[: 1 + options.bidirectional]]
    direction = layers.eager(KINDS[name], lambda backwards: lies[backwards])
    return layers.run(KINDS[name], data, states, params, options, direction)


def are_sizes(batch_sizes: torch.Tensor, data: torch.Tensor, state: torch.Tensor) -> bool:
    """Whether these are the batch sizes (T,) of this data and state: falling, and at least 1."""
    if data.dim() != 2:
        return False
    if batch_sizes.dtype is not torch.int64 or batch_sizes.dim() != 1 or not batch_sizes.numel():
        return False
    sizes = batch_sizes.numpy()
    return bool(
        sizes[0] == state.shape[1]
        and sizes[-1] >= 1
        and (sizes[1:] <= sizes[:-1]).all()
        and sizes.sum() == data.shape[0]
    )
