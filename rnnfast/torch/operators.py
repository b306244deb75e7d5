"""The kernels as operators that `torch.compile` keeps whole: `rnnfast::recurrence` and its backward.

Their tape is in tensors. In eager mode `rnnfast.torch.function` takes less time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from rnnfast.kernels.sequence import block_steps
from rnnfast.layers.window import Inputs, Run, nothing
from rnnfast.torch import function, layers
from rnnfast.torch.kinds import KINDS
from rnnfast.torch.layers import Options
from rnnfast.torch.lies import Lie, padded, whole
from rnnfast.torch.tensors import array_of
from rnnfast.torch.windows import Window

_TAPE = {"states": 2, "tape": 2, "starts": 3}  # axes
_DTYPES = (torch.float32, torch.float64)


class _Taped(Window):
    """A window that writes its tape into tensors of its own."""

    def _take(self, name: str, *shape: int) -> np.ndarray:
        if name not in _TAPE:
            return super()._take(name, *shape)
        return torch.empty(shape, dtype=torch.float32 if self.dtype == np.float32 else torch.float64).numpy()

    def tape_tensors(self) -> tuple[torch.Tensor, ...]:
        """The tape, which belongs to the caller from now on."""
        assert self._run is not None
        self._workspace.plans.clear()
        made = zip(_TAPE.values(), self._run.saved, strict=True)
        return tuple(
            torch.from_numpy(np.empty((0,) * axes, self.dtype) if one is None else one) for axes, one in made
        )

    def wind_tensors(self, xs: np.ndarray, lie: Lie, tape: Sequence[torch.Tensor]) -> None:
        """Put a tape back, that of a `forward` over these inputs."""
        none = nothing(self.dtype, 2)
        saved = tuple(array_of(one) if one.numel() else None for one in tape)
        blocks, batch = lie.rows.blocks.size - 1, lie.rows.order.size
        is_whole = saved[1] is None or saved[1].shape[0] >= blocks * block_steps(batch) * batch
        # Blocks made again overwrite others, and autograd may come again: then all are made again each time.
        self._run = Run(Inputs(xs, None, none, none), None, lie.rows, saved, 0 if is_whole else blocks)


def _lie(
    x: torch.Tensor,
    batch_first: bool,
    backwards: bool,
    lengths: torch.Tensor | None,
    resets: torch.Tensor | None,
) -> Lie:
    batch, steps = x.shape[:2] if batch_first else (x.shape[1], x.shape[0])
    if lengths is None and resets is None:
        return whole(batch, steps, batch_first, backwards)
    ends = None if lengths is None else lengths.numpy()
    return padded(batch, steps, batch_first, backwards, ends, None if resets is None else resets.numpy())


def _four(weights: Sequence[torch.Tensor]) -> list[torch.Tensor | None]:
    """The weights, and None for biases that there are not."""
    return [*weights, *(None,) * (4 - len(weights))]


@torch.library.custom_op("rnnfast::recurrence", mutates_args=())
def recurrence(
    x: torch.Tensor,
    weights: Sequence[torch.Tensor],
    states: Sequence[torch.Tensor],
    lengths: torch.Tensor | None,
    resets: torch.Tensor | None,
    name: str,
    batch_first: bool,
    backwards: bool,
    keep: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """One direction of one layer: outputs, final states (S, N, H), and the tape if it is to be kept.

    x (T, N, D), or batch first; weights w_ih, w_hh and two biases or none; states (1, N, H); lengths (N,)
    int64; resets (N, T) bool.
    """
    kind, lie = KINDS[name], _lie(x, batch_first, backwards, lengths, resets)
    window = _Taped(kind, function.arrays_of(kind, *_four(weights)))
    hs, *finals = function.forward(window, lie, lie.turned(x), states, keep)
    tape = window.tape_tensors() if keep else tuple(x.new_empty((0,) * axes) for axes in _TAPE.values())
    return lie.turned(hs), torch.cat(finals), *tape


@recurrence.register_fake
def _(
    x: Any, weights: Any, states: Any, lengths: Any, resets: Any, name: str, batch_first: bool,
    backwards: bool, keep: bool,
) -> Any:  # fmt: skip
    _, batch, width = states[0].shape
    tape = []
    for axes in _TAPE.values():
        sizes = [torch.library.get_ctx().new_dynamic_size() if keep else 0 for _ in range(axes)]
        tape.append(x.new_empty(sizes))
    return x.new_empty((*x.shape[:-1], width)), x.new_empty((len(states), batch, width)), *tape


@torch.library.custom_op("rnnfast::recurrence_backward", mutates_args=())
def recurrence_backward(
    dhs: torch.Tensor,
    dafter: torch.Tensor,
    tape: Sequence[torch.Tensor],
    x: torch.Tensor,
    weights: Sequence[torch.Tensor],
    states: Sequence[torch.Tensor],
    lengths: torch.Tensor | None,
    resets: torch.Tensor | None,
    name: str,
    batch_first: bool,
    backwards: bool,
) -> list[torch.Tensor]:
    """The gradients of x, of the weights, and of the states."""
    kind, lie = KINDS[name], _lie(x, batch_first, backwards, lengths, resets)
    x = lie.turned(x)
    window = _Taped(kind, function.arrays_of(kind, *_four(weights)))
    window.wind_tensors(array_of(x), lie, tape)
    arriving = lie.turned(dhs), *dafter.split(1)
    dx, *others = function.backward(window, dhs.shape, (x, *_four(weights), *states), arriving, (True,))
    assert dx is not None
    return [lie.turned(dx), *(one for one in others if one is not None)]


@recurrence_backward.register_fake
def _(
    dhs: Any, dafter: Any, tape: Any, x: Any, weights: Any, states: Any, lengths: Any, resets: Any, name: str,
    batch_first: bool, backwards: bool,
) -> Any:  # fmt: skip
    return [one.new_empty(one.shape) for one in (x, *weights, *states)]


def _remember(ctx: Any, inputs: Any, output: Any) -> None:
    x, weights, states, lengths, resets, *ctx.how, _ = inputs
    ctx.counts = len(weights), len(states)
    _, _, *tape = output
    ctx.set_materialize_grads(True)
    ctx.save_for_backward(x, *weights, *states, lengths, resets, *tape)


def _differentiate(ctx: Any, dhs: torch.Tensor, dafter: torch.Tensor, *_: Any) -> tuple[Any, ...]:
    weights, states = ctx.counts
    x, *others = ctx.saved_tensors
    lengths, resets, *tape = others[weights + states :]
    given = x, others[:weights], others[weights : weights + states]
    dx, *found = recurrence_backward(dhs, dafter, tape, *given, lengths, resets, *ctx.how)
    return dx, found[:weights], found[weights:], *(None,) * 6


recurrence.register_autograd(_differentiate, setup_context=_remember)


def is_in_graph() -> bool:
    """Whether `torch.compile` traces; `torch.export` keeps PyTorch's own operators."""
    return torch.compiler.is_dynamo_compiling() and not torch.compiler.is_exporting()


def traced(module: Any, x: Any, hx: Any, lengths: Any = None, resets: Any = None) -> Any:
    """A call of a module inside a graph that is being compiled."""
    owner, is_lstm = f"rnnfast.torch.compile: {type(module).__name__}", module.mode == "LSTM"
    if not isinstance(x, torch.Tensor):
        raise TypeError(f"{owner}: a graph takes Tensors with lengths=, not a PackedSequence.")
    params = module._flat_weights
    if x.device.type != "cpu" or x.dtype not in _DTYPES or any(one.dtype != x.dtype for one in params):
        raise TypeError(f"{owner}: inputs and parameters must be float32 or float64 of one kind on the CPU.")
    axis, is_batched, first = (0 if module.batch_first else 1), x.dim() == 3, module.batch_first
    if not is_batched:
        x = x.unsqueeze(axis)
    options = Options(
        module.bias, module.num_layers, float(module.dropout), module.training, module.bidirectional
    )
    count, kind = module.num_layers * (2 if module.bidirectional else 1), KINDS[module.mode.lower()]
    shape = count, x.shape[axis], module.hidden_size
    if hx is None:
        states = [x.new_zeros(shape)] * (2 if is_lstm else 1)
    else:
        states = [one if is_batched else one.unsqueeze(1) for one in (hx if is_lstm else (hx,))]
    if x.shape[-1] != module.input_size or any(tuple(one.shape) != shape for one in states):
        raise ValueError(f"{owner}: the input must have {module.input_size} features, and states {shape}.")
    ends = None if lengths is None else torch.as_tensor(lengths, dtype=torch.int64)
    masks = None if resets is None else torch.as_tensor(resets, dtype=torch.bool)
    keep = torch.is_grad_enabled()

    def direction(backwards: bool, x: Any, weights: Any, before: Any) -> Any:
        made = recurrence(x, list(weights), list(before), ends, masks, kind.name, first, backwards, keep)
        return made[0], *made[1].split(1)

    out, *finals = layers.run(kind, x, states, params, options, direction)
    if not is_batched:
        out, finals = out.squeeze(axis), [final.squeeze(1) for final in finals]
    return out, tuple(finals) if is_lstm else finals[0]
