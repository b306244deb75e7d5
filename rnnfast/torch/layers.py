"""All layers and directions of a call, as PyTorch's operators lay them out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch.nn import functional

from rnnfast.torch.function import Recurrence
from rnnfast.torch.kinds import Kind
from rnnfast.torch.lies import Lie


class Options(NamedTuple):
    """The options of PyTorch's recurrent operators."""

    has_biases: bool
    num_layers: int
    dropout: float
    train: bool
    bidirectional: bool


def run(
    kind: Kind,
    x: torch.Tensor,
    states: Sequence[torch.Tensor],
    params: Sequence[torch.Tensor],
    options: Options,
    lie_of: Callable[[bool], Lie],
) -> tuple[torch.Tensor, ...]:
    """Outputs, and the final states (layers * directions, N, H), from initial ones.

    `lie_of(backwards)` says how the rows of x lie.
    """
    directions, each = 2 if options.bidirectional else 1, 4 if options.has_biases else 2
    finals: list[tuple[torch.Tensor, ...]] = []
    for layer in range(options.num_layers):
        outs = []
        for backwards in range(directions):
            k = layer * directions + backwards
            weights = [*params[k * each : (k + 1) * each], None, None][:4]
            lie = lie_of(bool(backwards))
            hs, *final = _one(kind, lie, x, weights, [state[k] for state in states])
            outs.append(hs)
            finals.append(tuple(final))
        x = outs[0] if directions == 1 else torch.cat(outs, -1)
        if options.dropout and options.train and layer + 1 < options.num_layers:
            x = functional.dropout(x, options.dropout, training=True)
    if len(finals) == 1:
        return x, *(final[None] for final in finals[0])
    return x, *(torch.stack(one) for one in zip(*finals, strict=True))


def _one(
    kind: Kind, lie: Lie, x: torch.Tensor, weights: list[torch.Tensor | None], states: list[torch.Tensor]
) -> tuple[torch.Tensor, ...]:
    """One direction of one layer."""
    keep = torch.is_grad_enabled()
    if lie.turn is None:
        return Recurrence.apply(kind, lie, keep, x, *weights, *states)
    turned = x.reshape(-1, x.shape[-1]).index_select(0, lie.turn).reshape(x.shape)
    hs, *final = Recurrence.apply(kind, lie, keep, turned, *weights, *states)
    return hs.reshape(-1, hs.shape[-1]).index_select(0, lie.turn).reshape(hs.shape), *final
