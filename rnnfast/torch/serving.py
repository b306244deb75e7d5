"""What was served by the kernels, and what was left to PyTorch."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn.utils.rnn import PackedSequence

from rnnfast import _check
from rnnfast.torch import function
from rnnfast.torch.function import Options
from rnnfast.torch.layout import KINDS, SERVED, RowLayout, is_plain, packed, padded, untraced, whole

_VERBOSE = os.environ.get("RNNFAST_VERBOSE") == "1"
_served: Counter[str] = Counter()
_left: Counter[tuple[str, str]] = Counter()
_shapes: set[tuple[str, tuple[int, ...], str]] = set()


class Report(NamedTuple):
    """Calls since the program began or since the last `enable()`, of accelerated models too.

    Each process counts for itself; graphs of `compile` are not counted.

    Attributes
    ----------
    served : dict of str to int
        Calls that the kernels served, by operator; those of `Recurrent` by its cell.
    left : dict of (str, str) to int
        Calls that PyTorch served itself, by operator and reason.

    Examples
    --------
    >>> import torch, rnnfast.torch
    >>> with rnnfast.torch.enable():
    ...     _ = torch.nn.GRU(3, 4)(torch.zeros(5, 2, 3))
    >>> rnnfast.torch.report().served
    {'gru': 1}
    """

    served: dict[str, int]
    left: dict[tuple[str, str], int]

    def __str__(self) -> str:
        served = ", ".join(f"{count} {name}" for name, count in sorted(self.served.items())) or "none"
        left = ", ".join(f"{count} {name} ({why})" for (name, why), count in sorted(self.left.items()))
        return f"rnnfast.torch: calls served: {served}; left to PyTorch: {left or 'none'}"


def report() -> Report:
    """Which calls were served, and which were left to PyTorch and why.

    Examples
    --------
    >>> import torch, rnnfast.torch
    >>> with rnnfast.torch.enable():
    ...     _ = torch.nn.GRU(3, 4)(torch.zeros(5, 2, 3))
    ...     print(rnnfast.torch.report())
    rnnfast.torch: calls served: 1 gru; left to PyTorch: none
    """
    return Report(dict(_served), dict(_left))


def clear() -> None:
    """Begin to count anew."""
    _served.clear()
    _left.clear()
    _shapes.clear()


def note(name: str, x: torch.Tensor, why: str) -> None:
    """Count a call; with RNNFAST_VERBOSE=1 each new shape is told on stderr."""
    if why:
        _left[name, why] += 1
    else:
        _served[name] += 1
    if _VERBOSE:
        key = name, tuple(x.shape), why
        if key not in _shapes:
            _shapes.add(key)
            done = f"left to PyTorch: {why}" if why else "served"
            print(f"rnnfast.torch: {name} {tuple(x.shape)} {done}", file=sys.stderr)


# The error of a call with `lengths` or `resets` that the kernels do not serve.


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


# Which calls the kernels serve, and the calls themselves; the others are PyTorch's.


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
    direction = function.eager(kind, lambda backwards: whole(batch, steps, batch_first, backwards))
    return function.run(kind, x, states, params, options, direction)


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
    direction = function.eager(KINDS[name], lambda backwards: lies[backwards])
    return function.run(KINDS[name], data, states, params, options, direction)


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


# A call of `torch.nn.LSTM`, `GRU` or `RNN` served by the kernels, whatever form its input has.


@untraced
def call(
    module: Any,
    given: Any,
    hx: Any = None,
    *,
    otherwise: Callable[[Any, Any], Any],
    lengths: Any = None,
    resets: Any = None,
) -> Any:
    """What `module.forward(given, hx)` returns; `otherwise(given, hx)` where PyTorch has to compute it."""
    name = module.mode.lower()
    owner = f"rnnfast.torch.{type(module).__name__}.forward"
    is_packed, is_lstm = isinstance(given, PackedSequence), module.mode == "LSTM"
    if is_packed:
        if lengths is not None or resets is not None:
            raise ValueError(f"{owner}: a PackedSequence has its own lengths and takes no resets.")
        data, sizes, order, back = given
        batch, is_batched = int(sizes[0]), True
    else:
        if not isinstance(given, torch.Tensor) or given.dim() not in (2, 3):
            return otherwise(given, hx)
        data, sizes, order, back = given, None, None, None
        is_batched = given.dim() == 3
        if not is_batched:
            data = data.unsqueeze(0 if module.batch_first else 1)
        batch = data.shape[0 if module.batch_first else 1]
    states = states_of(module, hx, data, batch, is_batched, order)
    options = Options.of(module)
    module._update_flat_weights()  # parametrizations and functional calls exchange parameters
    params = module._flat_weights
    why = why_not(name, (data, *states), params, options) if states else "states"
    if not why and is_packed and not are_sizes(sizes, data, states[0]):
        why = "shapes"
    if not why and not is_packed and states[0].shape[1] != batch:
        why = "shapes"
    note(name, data, why)
    if why and (lengths is not None or resets is not None):
        raise refused(owner, module, given, hx, why)
    if why:
        return otherwise(given, hx)
    if is_packed:
        out, *finals = serve_data(name, data, sizes, states, params, options)
    elif lengths is not None or resets is not None:
        lies = masked(owner, data, module.batch_first, lengths, resets)
        kind = KINDS[name]
        out, *finals = function.run(kind, data, states, params, options, function.eager(kind, lies))
    else:
        out, *finals = serve_input(name, data, states, params, options, module.batch_first)
    if is_packed:
        out = PackedSequence(out, sizes, order, back)
        if back is not None:
            finals = [final.index_select(1, back) for final in finals]
    elif not is_batched:
        out = out.squeeze(0 if module.batch_first else 1)
        finals = [final.squeeze(1) for final in finals]
    return out, tuple(finals) if is_lstm else finals[0]


def states_of(
    module: Any, hx: Any, data: torch.Tensor, batch: int, is_batched: bool, order: torch.Tensor | None
) -> list[torch.Tensor]:
    """The initial states in the order of the data; none where PyTorch has to say what is wrong with them."""
    count = 2 if module.mode == "LSTM" else 1
    if hx is None:
        shape = module.num_layers * (2 if module.bidirectional else 1), batch, module.hidden_size
        return [torch.zeros(shape, dtype=data.dtype, device=data.device)] * count
    given = list(hx) if isinstance(hx, (tuple, list)) else [hx]
    if len(given) != count or any(not isinstance(one, torch.Tensor) for one in given):
        return []
    if any(one.dim() != (3 if is_batched else 2) for one in given):
        return []
    if not is_batched:
        given = [one.unsqueeze(1) for one in given]
    return given if order is None else [one.index_select(1, order) for one in given]


def masked(
    owner: str, data: torch.Tensor, batch_first: bool, lengths: Any, resets: Any
) -> Callable[[bool], RowLayout]:
    """The row layout of lengths (N,) and resets (N, T)."""
    batch, steps = data.shape[:2] if batch_first else (data.shape[1], data.shape[0])
    if lengths is not None:
        lengths = _check.arrays.lengths(owner, np.asarray(lengths), batch, steps)
    if resets is not None:
        resets = np.asarray(resets)
        if resets.dtype != np.bool_:
            raise TypeError(f"{owner}: resets must be bool, got {resets.dtype}.")
        if resets.shape != (batch, steps):
            raise ValueError(
                f"{owner}: resets must have the shape (N, T) = ({batch}, {steps}), also where inputs are "
                f"(T, N, D), got {resets.shape}."
            )
    return lambda backwards: padded(batch, steps, batch_first, backwards, lengths, resets)
