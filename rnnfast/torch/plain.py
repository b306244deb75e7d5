"""The recurrences in PyTorch's own operators, step by step: gradients that are differentiated again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional

from rnnfast.layers.rows import Rows
from rnnfast.torch.kinds import Kind


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
