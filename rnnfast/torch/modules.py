"""`RNN`, `LSTM` and `GRU`: those of `torch.nn`, on the kernels, with lengths and resets."""

from __future__ import annotations

import copy
from typing import Any

import torch

from rnnfast.torch.operators import is_in_graph, traced
from rnnfast.torch.serving import call


class _Served:
    """What the three classes share: `forward` on the kernels."""

    def forward(self, input: Any, hx: Any = None, *, lengths: Any = None, resets: Any = None) -> Any:
        """Outputs and final states, as the class of `torch.nn` gives them.

        Parameters
        ----------
        input : Tensor (T, N, D), (N, T, D) if `batch_first`, or (T, D); or PackedSequence
        hx : Tensor, or tuple of two for an LSTM, optional
            Initial states (layers * directions, N, H); zero by default.
        lengths : sequence of N ints, optional
            Steps of each sequence, in any order. Outputs behind an end are zero, and final states are those
            after the last step of each sequence, as with packing; dropout masks are those of padded input.
        resets : bool Tensor or ndarray (N, T), optional
            Where True, a new sequence begins: the state is zero before that step.

        Raises
        ------
        ValueError
            `lengths` or `resets` come with a PackedSequence or with a call that the kernels do not serve.
        """
        plain = super().forward  # type: ignore[misc]
        if is_in_graph():
            return traced(self, input, hx, plain, lengths, resets)
        return call(self, input, hx, otherwise=plain, lengths=lengths, resets=resets)

    def __prepare_scriptable__(self) -> Any:
        """A module of `torch.nn` with these parameters: TorchScript compiles PyTorch's own code."""
        plain = copy.copy(self)
        plain.__class__ = next(one for one in type(self).__mro__ if one.__module__.startswith("torch.nn."))
        return plain


_Served.forward.__qualname__ = "rnnfast.torch: forward"  # in errors about its arguments


class RNN(_Served, torch.nn.RNN):
    """`torch.nn.RNN` on the kernels, with `lengths` and `resets` in `forward`.

    The arguments are those of `torch.nn.RNN`: input_size, hidden_size, num_layers=1, nonlinearity="tanh",
    bias=True, batch_first=False, dropout=0.0, bidirectional=False, device=None, dtype=None.

    Examples
    --------
    >>> import torch, rnnfast.torch
    >>> layer = rnnfast.torch.RNN(3, 4, nonlinearity="relu")
    >>> out, h = layer(torch.zeros(5, 2, 3), lengths=[5, 2])
    >>> out.shape, h.shape
    (torch.Size([5, 2, 4]), torch.Size([1, 2, 4]))
    """


class LSTM(_Served, torch.nn.LSTM):
    """`torch.nn.LSTM` on the kernels, with `lengths` and `resets` in `forward`.

    The arguments are those of `torch.nn.LSTM`: input_size, hidden_size, num_layers=1, bias=True,
    batch_first=False, dropout=0.0, bidirectional=False, proj_size=0, device=None, dtype=None.

    Examples
    --------
    >>> import torch, rnnfast.torch
    >>> layer = rnnfast.torch.LSTM(3, 4, batch_first=True, bidirectional=True)
    >>> out, (h, c) = layer(torch.zeros(2, 5, 3), resets=torch.zeros(2, 5, dtype=torch.bool))
    >>> out.shape, c.shape
    (torch.Size([2, 5, 8]), torch.Size([2, 2, 4]))
    """


class GRU(_Served, torch.nn.GRU):
    """`torch.nn.GRU` on the kernels, with `lengths` and `resets` in `forward`.

    The arguments are those of `torch.nn.GRU`: input_size, hidden_size, num_layers=1, bias=True,
    batch_first=False, dropout=0.0, bidirectional=False, device=None, dtype=None.

    Examples
    --------
    >>> import torch, rnnfast.torch
    >>> layer = rnnfast.torch.GRU(3, 4)
    >>> layer.load_state_dict(torch.nn.GRU(3, 4).state_dict())
    <All keys matched successfully>
    """
