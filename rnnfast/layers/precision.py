"""The precision of products: that of the parameters, or operands rounded to bfloat16."""

from __future__ import annotations

from rnnfast import _check
from rnnfast.engine.locks import in_turn
from rnnfast.layers.base import Layer


class Precise(Layer):
    """A layer whose products can round their operands."""

    _precision: str | None = None

    @property
    def precision(self) -> str | None:
        """The precision of products: None, that of the parameters, or "bfloat16". It may be set.

        With "bfloat16", which needs float32 parameters, the operands of products are rounded to bfloat16, to
        nearest, ties to even. Sums, states, gradients and parameters stay in float32, and every sum is the
        same chain of multiply-adds as without rounding. `backward` rounds if `precision` says so when it is
        called.
        """
        return self._precision

    @precision.setter
    @in_turn
    def precision(self, value: str | None) -> None:
        self._precision = _check.values.precision(type(self).__name__, value, self.dtype)
        self._forget_precision()

    def _forget_precision(self) -> None:
        """Drop what depends on the precision."""

    @property
    def rounds(self) -> bool:
        """Whether operands of products are rounded to bfloat16."""
        return self._precision is not None
