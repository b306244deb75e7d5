"""Dropout between layers."""

from __future__ import annotations

from collections.abc import Callable
from threading import get_ident
from typing import Any, NamedTuple

import numpy as np

from rnnfast import _check
from rnnfast.kernels.elementwise.dropout import dropout_backward, dropout_forward, dropout_keys
from rnnfast.layers.base import Layer
from rnnfast.layers.window import Place


class Mask(NamedTuple):
    """The inputs of the hash that drops the elements of a call."""

    key0: int
    key1: int
    threshold: int
    factor: float  # of the elements that are kept
    place: Place | None  # the part of a batch of sequences that the call reads; None for all of it


class TimeDropout(Layer):
    """Inverted dropout: elements become 0 with probability `dropout_ratio`, others are divided by 1 - ratio.

    The mask is a function of the seed, the number of the call and the position. So `backward` needs no stored
    mask, and a run resumed with the same `rng_state` draws the same masks.

    Parameters
    ----------
    dropout_ratio : float
        At least 0 and below 1.
    per_step : bool
        Draw a new mask for every step; False draws one mask for all steps of a call (locked, or variational,
        dropout).
    rng : numpy.random.Generator, optional
        The seed is drawn from it once; a fresh generator by default.

    Attributes
    ----------
    train_flg : bool
        True: drop. False: `forward` and `backward` return the array they are given.
    rng_state : tuple of two ints
        The seed and the number of calls so far; may be set.
    params, grads : list
        Empty.

    Notes
    -----
    Source: Saito, *Deep Learning from Scratch 2*, section 6.5; Srivastava et al., *Dropout*, 2014; Gal and
    Ghahramani, *A theoretically grounded application of dropout in recurrent networks*, 2016. The book draws
    the mask from NumPy's global generator; here it comes from an integer hash, so the masks differ.

    Examples
    --------
    >>> import numpy as np, rnnfast
    >>> layer = rnnfast.TimeDropout(0.5, rng=np.random.default_rng(0))
    >>> hs = layer.forward(np.ones((1, 100, 10)))
    >>> bool(((hs == 0) | (hs == 2)).all()), bool(0.4 < (hs == 0).mean() < 0.6)
    (True, True)
    >>> bool((layer.backward(np.ones_like(hs)) == hs).all())
    True
    """

    TAPE = (*Layer.TAPE, "_shape", "_dtype", "_mask")
    _shape: tuple[int, ...] | None = None
    _dtype = np.dtype(np.float32)
    _mask: Mask | None = None

    def __init__(
        self,
        dropout_ratio: float = 0.5,
        *,
        per_step: bool = True,
        rng: np.random.Generator | None = None,
    ) -> None:
        owner = type(self).__name__
        self.dropout_ratio = _check.values.number_below(owner, "dropout_ratio", dropout_ratio, 0, 1)
        self.per_step = _check.values.boolean(owner, "per_step", per_step)
        self._hold()
        self.train_flg = True
        rng = _check.values.generator(owner, rng)
        self._seed = int(rng.integers(2**63))
        self._counter = 0

    def _shown(self) -> dict[str, Any]:
        return {"dropout_ratio": self.dropout_ratio, "per_step": self.per_step}

    @property
    def rng_state(self) -> tuple[int, int]:
        """The seed and the number of training calls so far."""
        return self._seed, self._counter

    @rng_state.setter
    def rng_state(self, state: tuple[int, int]) -> None:
        owner = f"{type(self).__name__}.rng_state"
        self._seed, self._counter = _check.values.sizes(owner, ("seed", "counter"), state)

    def forward(self, xs: np.ndarray, *, out: np.ndarray | None = None) -> np.ndarray:
        """Drop elements, with a new mask at every call.

        Parameters
        ----------
        xs : ndarray (N, T, D)
            float32 or float64.
        out : ndarray (N, T, D), optional
            The array for the result, which may be `xs`; a new one by default.

        Returns
        -------
        out : ndarray (N, T, D)
            `xs` itself if nothing is dropped and `out` is not given.
        """
        return self.read(xs, out, drop=self.train_flg)

    def read(
        self, xs: np.ndarray, out: np.ndarray | None = None, *, drop: bool, place: Place | None = None
    ) -> np.ndarray:
        """`forward` over a part (N, steps, D) of a sequence; drops elements if `drop` is true."""
        with self._turn:
            owner = f"{type(self).__name__}.forward"
            xs = _check.arrays.shape(owner, "xs", xs, ("N", "T", "D"))
            dtype = _check.arrays.float_dtype(owner, xs.dtype.newbyteorder("="))
            xs = _check.arrays.floats(owner, "xs", xs, xs.shape, dtype)
            self._made_by = get_ident()
            self._shape, self._dtype, self._mask = xs.shape, dtype, None
            if drop and self.dropout_ratio > 0:
                key0, key1 = dropout_keys(self._seed, self._counter)
                threshold = min(round(self.dropout_ratio * 2**32), 2**32 - 1)
                self._mask = Mask(key0, key1, threshold, 1.0 / (1.0 - self.dropout_ratio), place)
                self._counter += 1
            return self._apply(owner, dropout_forward, xs, out)

    def backward(self, dout: np.ndarray, *, out: np.ndarray | None = None) -> np.ndarray:
        """The gradient (N, T, D) of the last input from the gradient `dout` (N, T, D) of the last output.

        `out` is as in `forward`, and may be `dout`.
        """
        with self._turn:
            self._claim_tape()
            owner = f"{type(self).__name__}.backward"
            _check.objects.called_before(owner, self._shape is not None, "forward")
            assert self._shape is not None
            dout = _check.arrays.floats(
                owner, "dout", dout, self._shape, self._dtype, "the shape of the last output"
            )
            return self._apply(owner, dropout_backward, dout, out)

    def _apply(self, owner: str, kernel: Callable, given: np.ndarray, out: np.ndarray | None) -> np.ndarray:
        """Multiply by the mask of the last `forward`, if any."""
        if out is None:
            if self._mask is None:
                return given
            out = np.empty_like(given)
        elif out is not given:
            out = _check.arrays.out(owner, out, given.shape, given.dtype, given)
        if self._mask is None:
            out[...] = given
            return out
        key0, key1, threshold, factor, place = self._mask
        scale = given.dtype.type(factor)
        batch, steps, width = given.shape
        first, whole, row = (0, steps, 0) if place is None else place
        if self.per_step:
            shape = (batch, steps * width)
            mask_of = ((row * whole + first) * width, whole * width, key0, key1, threshold, scale)
            kernel(given.reshape(shape), *mask_of, out.reshape(shape))
        else:
            mask = self._workspace.take("mask", (batch, width), given.dtype)
            mask[...] = 1
            kernel(mask, row * width, width, key0, key1, threshold, scale, mask)
            with np.errstate(under="ignore"):
                np.multiply(given, mask[:, np.newaxis], out=out)
        return out
