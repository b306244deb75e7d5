"""All layers and directions of a call, as PyTorch's operators lay them out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch.nn import functional

from rnnfast.torch.function import recurrence
from rnnfast.torch.kinds import Kind
from rnnfast.torch.lies import Lie


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


def eager(kind: Kind, lie_of: Callable[[bool], Lie]) -> Callable[..., tuple[torch.Tensor, ...]]:
    """What `run` takes; `lie_of(backwards)` says how the rows of x lie."""

    def direction(
        backwards: bool, x: torch.Tensor, weights: tuple[torch.Tensor, ...], states: tuple[torch.Tensor, ...]
    ) -> tuple[torch.Tensor, ...]:
        lie, dtype, own = lie_of(backwards), x.dtype, kind
        if dtype is torch.bfloat16:
            own, x = kind._replace(precision="bfloat16"), x.float()
            weights, states = (tuple(one.float() for one in tensors) for tensors in (weights, states))
        made = recurrence(own, lie, lie.turned(x), (*weights, None, None)[:4], states)
        hs, *final = made if dtype is x.dtype else (one.to(dtype) for one in made)
        return lie.turned(hs), *final

    return direction
