"""The result of training on one window."""

from __future__ import annotations

from typing import NamedTuple


class Window(NamedTuple):
    """One window after `forward` and `backward`; the gradients are in the model's `grads`."""

    number: int  # counted from 1
    windows: int  # in the whole pass
    tokens: int  # words scored, or steps read, in this window
    loss: float  # their mean loss
    whole: bool = True  # whether later windows depend only on the model's parameters and state
