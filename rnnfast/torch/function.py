"""The kernels as a differentiable function of PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from rnnfast.torch import plain
from rnnfast.torch.kinds import Kind
from rnnfast.torch.lies import Lie
from rnnfast.torch.tensors import is_plain
from rnnfast.torch.windows import Window


class Recurrence(torch.autograd.Function):
    """One direction of one layer: outputs and final states, from inputs, initial states and parameters."""

    @staticmethod
    def forward(
        ctx: Any, kind: Kind, lie: Lie, keep: bool, x: torch.Tensor, w_ih: Any, w_hh: Any, *others: Any
    ) -> tuple[torch.Tensor, ...]:
        """`others` are the two biases, or None, and the initial states (N, H); `keep` if there is a tape."""
        b_ih, b_hh, *states = others
        kind_biases = kind.biases(b_ih, b_hh, w_ih)
        arrays = [_array(w_ih), _array(w_hh), *kind_biases]
        window = Window(kind, arrays)
        xs = _array(x)
        needs_gradient = keep and any(ctx.needs_input_grad)
        hs = torch.empty((*x.shape[:-1], w_hh.shape[1]), dtype=x.dtype)
        # np.stack would keep the order of transposed ones.
        before = (
            np.array([state.detach().numpy() for state in states])
            if len(states) > 1
            else _array(states[0])[np.newaxis]
        )
        after = np.empty_like(before)
        window.forward(
            _with_three_axes(xs),
            before,
            after,
            lie.rows,
            _with_three_axes(hs.numpy()),
            needs_gradient,
        )
        if needs_gradient:
            ctx.save_for_backward(x, w_ih, w_hh, b_ih, b_hh, *states)
            ctx.set_materialize_grads(False)
            ctx.kind, ctx.lie, ctx.window, ctx.shape = kind, lie, window, hs.shape
        return hs, *(torch.from_numpy(state) for state in after)

    @staticmethod
    def backward(ctx: Any, *arriving: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        """The gradient of each input; where it is to be differentiated again, by PyTorch's own operators."""
        x, w_ih, w_hh, b_ih, b_hh, *states = ctx.saved_tensors
        if torch.is_grad_enabled() or not all(one is None or is_plain(one) for one in arriving):
            inputs = (x, w_ih, w_hh, b_ih, b_hh, *states)
            return None, None, None, *plain.gradients(ctx.kind, ctx.lie.rows, inputs, arriving)
        dhs, *later = arriving
        batch, width = states[0].shape
        dafter = np.zeros((len(states), batch, width), ctx.window.dtype)
        for target, given in zip(dafter, later, strict=True):
            if given is not None:
                target[...] = given.numpy()
        dhs = torch.zeros(ctx.shape, dtype=x.dtype) if dhs is None else dhs
        dxs, dbefore = torch.empty(x.shape, dtype=x.dtype), np.empty_like(dafter)
        dwx, dwh, db, dbhh = ctx.window.backward(
            _with_three_axes(_array(dhs)), dafter, _with_three_axes(dxs.numpy()), dbefore
        )
        gradients: list[torch.Tensor | None] = [dxs, torch.from_numpy(dwx).t(), torch.from_numpy(dwh).t()]
        gradients += (None, None)
        if b_ih is not None:
            second = db.copy()
            if dbhh is not None:
                second[-width:] = dbhh
            gradients[3:] = torch.from_numpy(db), torch.from_numpy(second)
        if not torch._C._autograd._get_current_graph_task_keep_graph():
            ctx.window = None  # its memory is free for others
        return None, None, None, *gradients, *torch.from_numpy(dbefore).unbind(0)


def _array(tensor: torch.Tensor) -> np.ndarray:
    """The tensor's own memory, which is copied only where it is not contiguous."""
    return tensor.detach().contiguous().numpy()


def _with_three_axes(array: np.ndarray) -> np.ndarray:
    """Rows of packed data have one axis only."""
    return array if array.ndim == 3 else array[np.newaxis]
