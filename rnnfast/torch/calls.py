"""A call of `torch.nn.LSTM`, `GRU` or `RNN` served by the kernels, whatever form its input has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import PackedSequence

from rnnfast import _check
from rnnfast.torch import layers, report
from rnnfast.torch.kinds import KINDS
from rnnfast.torch.layers import Options
from rnnfast.torch.lies import Lie, padded
from rnnfast.torch.refusals import refused
from rnnfast.torch.serving import are_sizes, serve_data, serve_input, why_not
from rnnfast.torch.untraced import untraced


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
    report.note(name, data, why)
    if why and (lengths is not None or resets is not None):
        raise refused(owner, module, given, hx, why)
    if why:
        return otherwise(given, hx)
    if is_packed:
        out, *finals = serve_data(name, data, sizes, states, params, options)
    elif lengths is not None or resets is not None:
        lies = masked(owner, data, module.batch_first, lengths, resets)
        kind = KINDS[name]
        out, *finals = layers.run(kind, data, states, params, options, layers.eager(kind, lies))
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
) -> Callable[[bool], Lie]:
    """How the rows lie with lengths (N,) and resets (N, T)."""
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
