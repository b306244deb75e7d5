"""The recurrences in PyTorch's own operators, step by step: gradients that are differentiated again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn import functional

from rnnfast.layers.window import Rows, nothing
from rnnfast.torch import windows
from rnnfast.torch.layout import Kind, RowLayout, array_of, is_plain
from rnnfast.torch.windows import Window


def outputs(kind: Kind, rows: Rows, x: torch.Tensor, weights: Sequence[Any], states: Any) -> tuple:
    """What `recurrence` returns, slowly."""
    w_ih, w_hh, b_ih, b_hh = weights
    order = torch.from_numpy(rows.order)
    current = [state[0][order] for state in states]
    flat, made, places = x.reshape(-1, x.shape[-1]), [], []
    for t in range(rows.offsets.size - 1):
        count = int(rows.offsets[t + 1] - rows.offsets[t])
        place = torch.from_numpy(rows.sequence_rows[:count] + rows.step_rows[t])
        before = [state[:count] for state in current]
        if rows.resets.size:
            kept = torch.from_numpy(~rows.resets[rows.order[:count], t])[:, None]
            before = [state * kept for state in before]
        new = _step(
            kind, functional.linear(flat[place], w_ih, b_ih), functional.linear(before[0], w_hh, b_hh), before
        )
        current = [torch.cat((part, state[count:])) for part, state in zip(new, current, strict=True)]
        made.append(new[0])
        places.append(place)
    hs = x.new_zeros((flat.shape[0], w_hh.shape[1])).index_copy(0, torch.cat(places), torch.cat(made))
    back = torch.argsort(order)
    return hs.reshape(*x.shape[:-1], -1), *(state[back][None] for state in current)


def _step(kind: Kind, from_x: torch.Tensor, from_h: torch.Tensor, states: list) -> list[torch.Tensor]:
    if kind.name == "lstm":
        i, f, g, o = (from_x + from_h).chunk(4, 1)
        c = f.sigmoid() * states[1] + i.sigmoid() * g.tanh()
        return [o.sigmoid() * c.tanh(), c]
    if kind.name == "gru":
        (r, z, n), (r_h, z_h, n_h) = from_x.chunk(3, 1), from_h.chunk(3, 1)
        n = (n + (r + r_h).sigmoid() * n_h).tanh()
        z = (z + z_h).sigmoid()
        return [n + z * (states[0] - n)]
    return [torch.tanh(from_x + from_h) if kind.name == "rnn_tanh" else torch.relu(from_x + from_h)]


def gradients(kind: Kind, rows: Rows, inputs: Sequence[Any], arriving: Sequence[Any]) -> list[Any]:
    """The gradient of each input, as a function that can be differentiated again."""
    again = torch.is_grad_enabled()
    with torch.enable_grad(), torch.autocast("cpu", enabled=False):
        return _gradients(kind, rows, inputs, arriving, again)


def _gradients(
    kind: Kind, rows: Rows, inputs: Sequence[Any], arriving: Sequence[Any], again: bool
) -> list[Any]:
    # Views of their own: where one input depends on another, each still gets its own part of the gradient.
    inputs = [None if tensor is None else tensor.view_as(tensor) for tensor in inputs]
    x, *others = inputs
    made = outputs(kind, rows, x, others[:4], others[4:])
    wanted = [tensor for tensor in inputs if tensor is not None and tensor.requires_grad]
    given = [
        (output, gradient) for output, gradient in zip(made, arriving, strict=True) if gradient is not None
    ]
    found = iter(
        torch.autograd.grad(
            [output for output, _ in given],
            wanted,
            [gradient for _, gradient in given],
            create_graph=again,
            allow_unused=True,
        )
    )
    return [next(found) if tensor is not None and tensor.requires_grad else None for tensor in inputs]


# The kernels as a differentiable function of PyTorch.


def recurrence(
    kind: Kind,
    layout: RowLayout,
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
                windows.forget(w_ih)
                return _Recurrence.apply(kind, layout, x, *weights, *states)
    arrays = arrays_of(kind, *weights)
    memory = windows.take(kind, w_ih, arrays)
    made = forward(Window(kind, arrays, memory), layout, x, states, False)
    windows.give_back(w_ih, memory)
    return made


def arrays_of(kind: Kind, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any) -> list[np.ndarray | None]:
    """The arrays that a window takes."""
    return [array_of(w_ih), array_of(w_hh), *kind.biases(b_ih, b_hh, w_ih)]


def forward(
    window: Window, layout: RowLayout, x: torch.Tensor, states: Sequence[torch.Tensor], keep: bool
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
    window.forward(
        _with_three_axes(array_of(x)), before, after, layout.rows, _with_three_axes(hs.numpy()), keep
    )
    return hs, *[torch.from_numpy(after[s : s + 1]) for s in range(len(states))]


class _Recurrence(torch.autograd.Function):
    """`recurrence` with a tape."""

    @staticmethod
    def forward(
        ctx: Any,
        kind: Kind,
        layout: RowLayout,
        x: torch.Tensor,
        w_ih: Any,
        w_hh: Any,
        b_ih: Any,
        b_hh: Any,
        *states: Any,
    ) -> tuple[torch.Tensor, ...]:
        """What `recurrence` returns."""
        ctx.window = Window(kind, arrays_of(kind, w_ih, w_hh, b_ih, b_hh))
        made = forward(ctx.window, layout, x, states, True)
        ctx.save_for_backward(x, w_ih, w_hh, b_ih, b_hh, *states)
        ctx.set_materialize_grads(False)
        ctx.kind, ctx.layout, ctx.shape = kind, layout, made[0].shape
        return made

    @staticmethod
    def backward(ctx: Any, *arriving: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        """The gradient of each input; where it is to be differentiated again, by PyTorch's own operators."""
        saved = ctx.saved_tensors
        if torch.is_grad_enabled() or not all(one is None or is_plain(one) for one in arriving):
            return None, None, *gradients(ctx.kind, ctx.layout.rows, saved, arriving)
        made = backward(ctx.window, ctx.shape, saved, arriving, ctx.needs_input_grad[2:])
        if not torch._C._autograd._get_current_graph_task_keep_graph():
            ctx.window = None  # its memory is free for others
        return None, None, *made


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


# All layers and directions of a call, as PyTorch's operators lay them out.


class Options(NamedTuple):
    """The options of PyTorch's recurrent operators."""

    has_biases: bool
    num_layers: int
    dropout: float
    train: bool
    bidirectional: bool

    @classmethod
    def of(cls, module: Any) -> Options:
        """Those of a module."""
        return cls(
            module.bias, module.num_layers, float(module.dropout), module.training, module.bidirectional
        )

    @property
    def drops(self) -> bool:
        """Whether there is dropout between layers."""
        return bool(self.dropout and self.train and self.num_layers > 1)


def run(
    kind: Kind,
    x: torch.Tensor,
    states: Sequence[torch.Tensor],
    params: Sequence[torch.Tensor],
    options: Options,
    direction: Callable[..., Sequence[torch.Tensor]],
) -> tuple[torch.Tensor, ...]:
    """Outputs, and the final states (layers * directions, N, H), from initial ones.

    `direction(backwards, x, weights, states)` runs one direction of one layer.
    """
    directions, each = 2 if options.bidirectional else 1, 4 if options.has_biases else 2
    count = options.num_layers * directions
    finals: list[list[torch.Tensor]] = []
    for layer in range(options.num_layers):
        outs = []
        for backwards in range(directions):
            k = layer * directions + backwards
            weights = tuple(params[k * each : (k + 1) * each])
            before = tuple(states if count == 1 else [state[k : k + 1] for state in states])
            hs, *final = direction(bool(backwards), x, weights, before)
            outs.append(hs)
            finals.append(final)
        x = outs[0] if directions == 1 else torch.cat(outs, -1)
        if options.dropout and options.train and layer + 1 < options.num_layers:
            x = functional.dropout(x, options.dropout, training=True)
    if count == 1:
        return x, *finals[0]
    return x, *(torch.cat(one) for one in zip(*finals, strict=True))


def eager(kind: Kind, layout_of: Callable[[bool], RowLayout]) -> Callable[..., tuple[torch.Tensor, ...]]:
    """What `run` takes; `layout_of(backwards)` says how the rows of x lie."""

    def direction(
        backwards: bool, x: torch.Tensor, weights: tuple[torch.Tensor, ...], states: tuple[torch.Tensor, ...]
    ) -> tuple[torch.Tensor, ...]:
        layout, dtype, own = layout_of(backwards), x.dtype, kind
        if dtype is torch.bfloat16:
            own, x = kind._replace(precision="bfloat16"), x.float()
            weights, states = (tuple(one.float() for one in tensors) for tensors in (weights, states))
        made = recurrence(own, layout, layout.transposed(x), (*weights, None, None)[:4], states)
        hs, *final = made if dtype is x.dtype else (one.to(dtype) for one in made)
        return layout.transposed(hs), *final

    return direction
