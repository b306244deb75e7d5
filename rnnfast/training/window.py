"""What training makes of one window."""

from __future__ import annotations

from typing import NamedTuple


class Window(NamedTuple):
    """One window that has been through `forward` and `backward`; the gradients are in the model's `grads`."""

    number: int  # from 1
    windows: int  # in the whole pass
    tokens: int  # words scored, or steps read, in this window
    loss: float  # their mean loss
    whole: bool = True  # whether the windows behind depend on no more than the model's parameters and state
