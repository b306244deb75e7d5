"""Models with recurrent layers as one graph of `torch.compile`."""

from __future__ import annotations

from typing import Any

import torch

from rnnfast.torch.accelerating import OURS, accelerate, restore


def compile(model: torch.nn.Module, **options: Any) -> Any:
    """`torch.compile` for a model with recurrent layers, which go into its graph on the kernels.

    PyTorch's own compiler breaks the graph at each `torch.nn.LSTM`, `GRU` and `RNN`. Here the layers are
    accelerated (`restore` undoes it) and each is an operator of the graph. Inputs are Tensors, with
    ``lengths=`` in place of a PackedSequence.

    Parameters
    ----------
    model : torch.nn.Module
    **options
        Those of `torch.compile`; ``fullgraph`` is True by default.

    Returns
    -------
    compiled : torch.nn.Module
        What `torch.compile` returns, with the parameters of `model`.

    Raises
    ------
    TypeError
        `model` is no module.
    ValueError
        A layer of the model cannot be accelerated; the model stays as it was.

    Examples
    --------
    >>> import torch, rnnfast.torch
    >>> model = torch.nn.Sequential(torch.nn.Linear(3, 3), rnnfast.torch.GRU(3, 4))
    >>> compiled = rnnfast.torch.compile(model, backend="aot_eager")
    >>> compiled(torch.zeros(5, 2, 3))[0].shape
    torch.Size([5, 2, 4])
    """
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"compile: expected a torch.nn.Module, got {type(model).__name__}.")
    _, left = accelerate(model)
    plain = {name: why for name, why in left.items() if why != OURS}
    if plain:
        restore(model)
        named = "; ".join(f"{name or 'the model itself'}: {why}" for name, why in plain.items())
        raise ValueError(f"compile: a graph cannot hold layers that stay PyTorch's own ({named}).")
    compiled = torch.compile(model, **{"fullgraph": True, **options})
    # PyTorch refuses recurrent modules in a graph unless it is told otherwise while it traces.
    compiled.forward = torch._dynamo.config.patch(allow_rnn=True)(compiled.forward)
    return compiled
