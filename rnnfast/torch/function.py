"""The kernels as a differentiable function of PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from rnnfast.layers.window import nothing
from rnnfast.torch import kept, plain
from rnnfast.torch.kinds import Kind
from rnnfast.torch.lies import Lie
from rnnfast.torch.tensors import array_of, is_plain
from rnnfast.torch.windows import Window


def recurrence(
    kind: Kind,
    lie: Lie,
    x: torch.Tensor,
    weights: tuple[torch.Tensor | None, ...],
    states: tuple[torch.Tensor, ...],
) -> tuple[torch.Tensor, ...]:
    """One direction of one layer: outputs and final states (1, N, H).

    `weights` are w_ih, w_hh and the two biases or None; `states` (1, N, H).
    """
    w_ih = weights[0]
    assert w_ih is not None
    if torch.is_grad_enabled():
        for tensor in (x, *weights, *states):
            if tensor is not None and tensor.requires_grad:
                kept.forget(w_ih)
                return _Recurrence.apply(kind, lie, x, *weights, *states)
    arrays = arrays_of(kind, *weights)
    memory = kept.take(kind, w_ih, arrays)
    made = forward(Window(kind, arrays, memory), lie, x, states, False)
    kept.give_back(w_ih, memory)
    return made


def arrays_of(kind: Kind, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any) -> list[np.ndarray | None]:
    """The arrays that a window takes."""
    return [array_of(w_ih), array_of(w_hh), *kind.biases(b_ih, b_hh, w_ih)]


def forward(
    window: Window, lie: Lie, x: torch.Tensor, states: Sequence[torch.Tensor], keep: bool
) -> tuple[torch.Tensor, ...]:
    """What `recurrence` returns; `keep` the tape for `backward`."""
    shape = states[0].shape
    hs = torch.empty((*x.shape[:-1], shape[2]), dtype=x.dtype)
    if len(states) == 1:
        before = array_of(states[0])
    else:
        before = np.empty((len(states), *shape[1:]), window.dtype)
        for place, state in zip(before, states, strict=True):
            place[...] = state.detach().numpy()[0]
    after = np.empty(before.shape, window.dtype)
    window.forward(_with_three_axes(array_of(x)), before, after, lie.rows, _with_three_axes(hs.numpy()), keep)
    return hs, *[torch.from_numpy(after[s : s + 1]) for s in range(len(states))]


class _Recurrence(torch.autograd.Function):
    """`recurrence` with a tape."""

    @staticmethod
    def forward(
        ctx: Any,
        kind: Kind,
        lie: Lie,
        x: torch.Tensor,
        w_ih: Any,
        w_hh: Any,
        b_ih: Any,
        b_hh: Any,
        *states: Any,
    ) -> tuple[torch.Tensor, ...]:
        """What `recurrence` returns."""
        ctx.window = Window(kind, arrays_of(kind, w_ih, w_hh, b_ih, b_hh))
        made = forward(ctx.window, lie, x, states, True)
        ctx.save_for_backward(x, w_ih, w_hh, b_ih, b_hh, *states)
        ctx.set_materialize_grads(False)
        ctx.kind, ctx.lie, ctx.shape = kind, lie, made[0].shape
        return made

    @staticmethod
    def backward(ctx: Any, *arriving: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        """The gradient of each input; where it is to be differentiated again, by PyTorch's own operators."""
        saved = ctx.saved_tensors
        if torch.is_grad_enabled() or not all(one is None or is_plain(one) for one in arriving):
            return None, None, *plain.gradients(ctx.kind, ctx.lie.rows, saved, arriving)
        gradients = backward(ctx.window, ctx.shape, saved, arriving, ctx.needs_input_grad[2:])
        if not torch._C._autograd._get_current_graph_task_keep_graph():
            ctx.window = None  # its memory is free for others
        return None, None, *gradients


def backward(
    window: Window, shape: torch.Size, inputs: Any, arriving: Any, wanted: Any
) -> list[torch.Tensor | None]:
    """The gradient of each input (x, four weights, states), from those of outputs of this shape and of final
    states; x has one only if it is `wanted`."""
    x, _, _, b_ih, _, *states = inputs
    dhs, *later = arriving
    dhs = torch.zeros(shape, dtype=x.dtype) if dhs is None else dhs
    size = (len(states), *states[0].shape[1:])
    dafter = None
    if any(one is not None for one in later):
        dafter = np.zeros(size, window.dtype)
        for place, given in zip(dafter, later, strict=True):
            if given is not None:
                place[...] = given.numpy()[0]
    dbefore, dxs, dxs_array = np.empty(size, window.dtype), None, nothing(window.dtype, 3)
    if wanted[0]:
        dxs = torch.empty(x.shape, dtype=x.dtype)
        dxs_array = _with_three_axes(dxs.numpy())
    dwx, dwh, db, dbhh = window.backward(_with_three_axes(array_of(dhs)), dafter, dxs_array, dbefore)
    gradients: list[torch.Tensor | None] = [dxs, torch.from_numpy(dwx), torch.from_numpy(dwh), None, None]
    if b_ih is not None:
        second = db.copy()
        if dbhh is not None:
            second[-dbhh.size :] = dbhh
        gradients[3:] = torch.from_numpy(db), torch.from_numpy(second)
    return [*gradients, *[torch.from_numpy(dbefore[s : s + 1]) for s in range(len(states))]]


def _with_three_axes(array: np.ndarray) -> np.ndarray:
    """Rows of packed data have one axis only."""
    return array if array.ndim == 3 else array[np.newaxis]
