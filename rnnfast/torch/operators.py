"""The kernels as operators that `torch.compile` keeps whole: `rnnfast::recurrence` and its backward.

Their tape is in tensors. In eager mode `rnnfast.torch.function` takes less time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from rnnfast.kernels.recurrence.sequence import block_steps
from rnnfast.layers.window import Inputs, Run, nothing
from rnnfast.torch import function
from rnnfast.torch.function import Options
from rnnfast.torch.layout import DTYPES, KINDS, Kind, RowLayout, array_of, whole
from rnnfast.torch.serving import masked, states_of
from rnnfast.torch.windows import Window

_TAPE = {"states": 2, "tape": 2, "starts": 3}  # axes


class _Taped(Window):
    """A window that writes its tape into tensors of its own."""

    def __init__(self, kind: Kind, arrays: list[np.ndarray | None]) -> None:
        super().__init__(kind, arrays)
        self._workspace.plans.clear()  # those of other windows have a tape in the scratch memory

    def __del__(self) -> None:
        if "_workspace" in self.__dict__:
            self._workspace.plans.clear()
            super().__del__()

    def _take(self, name: str, *shape: int) -> np.ndarray:
        if name not in _TAPE:
            return super()._take(name, *shape)
        return torch.empty(shape, dtype=torch.float32 if self.dtype == np.float32 else torch.float64).numpy()

    def tape_tensors(self) -> tuple[torch.Tensor, ...]:
        """The tape."""
        assert self._run is not None
        made = zip(_TAPE.values(), self._run.saved, strict=True)
        return tuple(
            torch.from_numpy(np.empty((0,) * axes, self.dtype) if one is None else one) for axes, one in made
        )

    def restore_tensors(self, xs: np.ndarray, layout: RowLayout, tensors: Sequence[torch.Tensor]) -> None:
        """Put a tape back, that of a `forward` over these inputs."""
        none = nothing(self.dtype, 2)
        states, tape, starts = (array_of(one) if one.numel() else None for one in tensors)
        blocks, batch, intact = layout.rows.blocks.size - 1, layout.rows.order.size, 0
        if tape is not None and tape.shape[0] < blocks * block_steps(batch) * batch:
            # Blocks are made again, all of them each time, in memory that is not the tensors'.
            tape, intact = np.empty_like(tape), blocks
        self._run = Run(Inputs(xs, None, none, none), None, layout.rows, (states, tape, starts), intact)


def _layout(
    x: torch.Tensor,
    batch_first: bool,
    backwards: bool,
    lengths: torch.Tensor | None,
    resets: torch.Tensor | None,
) -> RowLayout:
    if lengths is None and resets is None:
        batch, steps = x.shape[:2] if batch_first else (x.shape[1], x.shape[0])
        return whole(batch, steps, batch_first, backwards)
    return masked("rnnfast.torch.compile", x, batch_first, lengths, resets)(backwards)


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
    kind, layout = KINDS[name], _layout(x, batch_first, backwards, lengths, resets)
    window = _Taped(kind, function.arrays_of(kind, *_four(weights)))
    hs, *finals = function.forward(window, layout, layout.transposed(x), states, keep)
    tape = window.tape_tensors() if keep else tuple(x.new_empty((0,) * axes) for axes in _TAPE.values())
    return layout.transposed(hs), torch.cat(finals), *tape


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
    kind, layout = KINDS[name], _layout(x, batch_first, backwards, lengths, resets)
    x = layout.transposed(x)
    window = _Taped(kind, function.arrays_of(kind, *_four(weights)))
    window.restore_tensors(array_of(x), layout, tape)
    arriving = layout.transposed(dhs), *dafter.split(1)
    dx, *others = function.backward(window, dhs.shape, (x, *_four(weights), *states), arriving, (True,))
    assert dx is not None
    return [layout.transposed(dx), *(one for one in others if one is not None)]


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
    ctx.mark_non_differentiable(*tape)
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


def traced(
    module: Any,
    given: Any,
    hx: Any,
    otherwise: Callable[[Any, Any], Any],
    lengths: Any = None,
    resets: Any = None,
) -> Any:
    """`call` inside a graph that is being compiled."""
    axis, states, x = (0 if module.batch_first else 1), [], given
    if _is_served(module, given):
        is_batched = given.dim() == 3
        x = given if is_batched else given.unsqueeze(axis)
        states = states_of(module, hx, x, x.shape[axis], is_batched, None)
    count, width = module.num_layers * (2 if module.bidirectional else 1), module.hidden_size
    if not states or any(
        one.dtype != x.dtype or tuple(one.shape) != (count, x.shape[axis], width) for one in states
    ):
        if lengths is not None or resets is not None:
            owner = f"rnnfast.torch.{type(module).__name__}.forward"
            raise ValueError(
                f"{owner}: lengths and resets need the kernels, which do not serve this call; outside the "
                f"graph the error says why."
            )
        return otherwise(given, hx)
    options, kind, first = Options.of(module), KINDS[module.mode.lower()], module.batch_first
    turns = first and options.drops  # PyTorch draws its masks over (T, N, H)
    if turns:
        x, first = x.transpose(0, 1).contiguous(), False
    params = [getattr(module, name) for name in module._flat_weights_names]
    ends = None if lengths is None else torch.as_tensor(lengths)
    masks = None if resets is None else torch.as_tensor(resets)

    def direction(backwards: bool, x: Any, weights: Any, before: Any) -> Any:
        keep = torch.is_grad_enabled() and any(one.requires_grad for one in (x, *weights, *before))
        made = recurrence(x, list(weights), list(before), ends, masks, kind.name, first, backwards, keep)
        return made[0], *made[1].split(1)

    out, *finals = function.run(kind, x, states, params, options, direction)
    if turns:
        out = out.transpose(0, 1)
    if not is_batched:
        out, finals = out.squeeze(axis), [final.squeeze(1) for final in finals]
    return out, tuple(finals) if module.mode == "LSTM" else finals[0]


def _is_served(module: Any, x: Any) -> bool:
    """Whether the kernels serve a call with this input."""
    if not isinstance(x, torch.Tensor) or x.dim() not in (2, 3) or torch.is_autocast_enabled("cpu"):
        return False
    if x.device.type != "cpu" or x.dtype not in DTYPES or module.proj_size or 0 in x.shape:
        return False
    params = [getattr(module, name) for name in module._flat_weights_names]
    return x.shape[-1] == module.input_size and all(one.dtype == x.dtype for one in params)
