"""Word vectors: one per token (`TimeEmbedding`), or summed over the last tokens (`TimeContextSum`)."""

from __future__ import annotations

from collections.abc import Sequence
from threading import get_ident
from typing import Any

import numpy as np

from rnnfast import _check
from rnnfast.engine.locks import in_turn
from rnnfast.kernels.elementwise.embedding import (
    context_sum_backward,
    context_sum_forward,
    embedding_backward,
    embedding_forward,
)
from rnnfast.layers.base import Layer
from rnnfast.layers.window import Blocks, Lookup, Reduction, sum_by_blocks

NO_WORD = -1


class _Table(Layer):
    """A table of word vectors and its gradient."""

    TAPE = (*Layer.TAPE, "_ids", "_shape")
    _ids: np.ndarray | None = None
    _shape: tuple[int, int, int] | None = None

    def __init__(self, W: np.ndarray) -> None:
        owner = type(self).__name__
        self._hold([_check.objects.parameter(owner, "W", W, ("V", "D"))])
        self.dtype = W.dtype
        self.vocab_size, self.embed_size = W.shape

    def _shown(self) -> dict[str, Any]:
        return {"vocab_size": self.vocab_size, "embed_size": self.embed_size}

    @property
    def W(self) -> np.ndarray:
        """The table (V, D), not a copy."""
        return self.params[0]

    @property
    def _table(self) -> np.ndarray:
        return self._weights[0]

    @staticmethod
    def _draw(
        owner: str, vocab_size: int, embed_size: int, rng: np.random.Generator | None, dtype: Any
    ) -> np.ndarray:
        """A table drawn as in the book: randn / 100."""
        rows = _check.values.size(owner, "vocab_size", vocab_size)
        width = _check.values.size(owner, "embed_size", embed_size)
        kind = _check.arrays.float_dtype(owner, dtype)
        rng = _check.values.generator(owner, rng)
        return (rng.standard_normal((rows, width)) / 100).astype(kind)

    def forward(self, xs: np.ndarray, *, out: np.ndarray | None = None) -> np.ndarray:
        """Look up a window.

        Parameters
        ----------
        xs : integer ndarray (N, T)
            Token ids from 0 to V - 1.
        out : ndarray (N, T, D), optional
            The array for the result; a new one by default.

        Returns
        -------
        out : ndarray (N, T, D)

        Raises
        ------
        IndexError
            If an id is out of range.
        TypeError, ValueError
            If `xs` is not an integer array (N, T), `out` does not fit, or the batch size differs from that of
            the carried tokens.
        """
        with self._turn:
            owner = f"{type(self).__name__}.forward"
            xs = _check.arrays.ids(owner, "xs", xs, ("N", "T"), self.vocab_size)
            out = self._output(owner, out, (*xs.shape, self.embed_size), xs, self._table)
            self._ids = self._look_up(owner, xs, out)
            self._made_by = get_ident()
            self._shape = out.shape
            return out

    def _look_up(self, owner: str, xs: np.ndarray, out: np.ndarray) -> np.ndarray:
        """Fill `out` (N, T, D) from checked ids (N, T); returns a copy of the ids for `backward`."""
        raise NotImplementedError

    def _incoming(self, owner: str, dhs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The checked gradient of the last output, and the ids of that output."""
        _check.objects.called_before(owner, self._shape is not None, "forward")
        assert self._shape is not None
        assert self._ids is not None
        dhs = _check.arrays.floats(owner, "dhs", dhs, self._shape, self.dtype, "the shape of the last output")
        return dhs, self._ids

    def _add(self, ids: np.ndarray, dhs: np.ndarray, dW: np.ndarray) -> None:
        """Add the gradient of the table to dW (words, D), from checked ids and gradients of the outputs."""
        raise NotImplementedError

    def backward_by_blocks(self, dhs: np.ndarray, blocks: Blocks, reduction: Reduction) -> None:
        """`backward` for the rows (N, T, D) of a batch in blocks: `grads[0]` is the sum by blocks over all
        processes, once the reduction is finished. Only words that occur in the batch are summed."""
        with self._turn:
            self._claim_tape()
            dhs, ids = self._incoming(f"{type(self).__name__}.backward", dhs)
            ids = ids.reshape(len(dhs), -1) if len(dhs) else np.zeros((0, 0), np.int64)
            words = np.unique(ids[ids >= 0])
            if blocks.exchange is not None:
                words = np.unique(blocks.gathered(words.astype(np.float64))).astype(np.int64)
            compact = np.where(ids < 0, NO_WORD, np.searchsorted(words, ids))

            def level(number: int) -> tuple[np.ndarray, ...]:
                return (self._workspace.take(f"sums {number}", (words.size, self.embed_size), self.dtype),)

            def compute(rows: slice, arrays: Sequence[np.ndarray], adds: bool) -> None:
                arrays[0][...] = 0
                self._add(compact[rows], dhs[rows], arrays[0])

            sums = sum_by_blocks(blocks, level, compute)

            def fill() -> None:
                self._cleared_gradient()[words] = sums[0]

            reduction.begin(sums, fill)

    def _cleared_gradient(self) -> np.ndarray:
        """`grads[0]`, set to zero."""
        # Clearing only the rows of the last call was dropped: it saved 0.06 ms of a training step of 51 ms
        # (V = 10,000, D = H = 100, N = 20, T = 35) and kept values that a caller had added to other rows.
        self._dweights[0].fill(0)
        return self._dweights[0]


class TimeEmbedding(_Table):
    """Look up the vector of each token: ``out[n, t] = W[xs[n, t]]``.

    Backward: ``dW[xs[n, t]] += dhs[n, t]``, t descending and then n ascending, zero elsewhere.

    Parameters
    ----------
    W : ndarray (V, D)
        One row per token, float32 or float64. A transposed view works; C order is faster.

    Attributes
    ----------
    params, grads : list of ndarray
        ``[W]`` and ``[dW]``; always the same arrays.
    W : ndarray (V, D)

    Notes
    -----
    Source: Saito, *Deep Learning from Scratch 2*, sections 4.1 and 5.4.

    Examples
    --------
    >>> import numpy as np, rnnfast
    >>> layer = rnnfast.TimeEmbedding(np.arange(6.0).reshape(3, 2))
    >>> layer.forward(np.array([[2, 0]]))
    array([[[4., 5.],
            [0., 1.]]])
    >>> layer.backward(np.ones((1, 2, 2)))
    >>> layer.grads[0]
    array([[1., 1.],
           [0., 0.],
           [1., 1.]])
    """

    @classmethod
    def from_sizes(
        cls,
        vocab_size: int,
        embed_size: int,
        *,
        rng: np.random.Generator | None = None,
        dtype: np.typing.DTypeLike = np.float32,
    ) -> TimeEmbedding:
        """Create a layer with a table (vocab_size, embed_size) drawn as in the book: randn / 100.

        Parameters
        ----------
        vocab_size, embed_size : int
            V and D.
        rng : numpy.random.Generator, optional
            Draws the table; a fresh generator by default.
        dtype : float32 or float64
        """
        return cls(cls._draw(f"{cls.__name__}.from_sizes", vocab_size, embed_size, rng, dtype))

    def _look_up(self, owner: str, xs: np.ndarray, out: np.ndarray) -> np.ndarray:
        self._shape, table = None, self._table
        ids = self._workspace.take("ids", (xs.size,), xs.dtype)
        ids[...] = xs.reshape(-1)
        rows = out.reshape(xs.size, self.embed_size)
        if table.flags.c_contiguous:
            embedding_forward(ids, table, rows)
        else:
            rows[...] = table[ids]
        return ids

    def rows(self, ids: np.ndarray) -> np.ndarray:
        """Copies of the vectors (N, D) of checked ids (N,)."""
        return self._table[ids]

    def lookup(self, ids: np.ndarray) -> Lookup | None:
        """Checked ids (N, T) as rows of the table, for a recurrent layer that computes one product per word;
        None if the table is not in C order."""
        table = self._table
        return Lookup(ids, table, self._dweights[0]) if table.flags.c_contiguous else None

    def backward(self, dhs: np.ndarray, *, add_to: np.ndarray | None = None) -> None:
        """Overwrite `grads[0]` with the gradient of the table; ids have no gradient.

        Parameters
        ----------
        dhs : ndarray (N, T, D)
            Gradient of the loss with respect to the last output.
        add_to : ndarray (V, D), optional
            Add the gradient to this array and keep `grads[0]` unchanged. With tied weights, it is the dense
            gradient of the output layer, or its transpose. It is C-contiguous, or the transposed view of a
            C-contiguous array.
        """
        with self._turn:
            self._claim_tape()
            owner = f"{type(self).__name__}.backward"
            dhs, ids = self._incoming(owner, dhs)
            ids = ids.reshape(dhs.shape[:2])
            if add_to is None:
                self._read_apart(owner, {"dhs": dhs})
                self._add(ids, dhs, self._cleared_gradient())
                return
            add_to = _check.objects.parameter(owner, "add_to", add_to, self._table.shape, self.dtype)
            if add_to.flags.c_contiguous:
                self._add(ids, dhs, _check.arrays.out(owner, add_to, add_to.shape, self.dtype, dhs))
            else:
                transposed = _check.arrays.out(owner, add_to.T, self._table.shape[::-1], self.dtype, dhs)
                self._add(ids, dhs, transposed.T)

    def _add(self, ids: np.ndarray, dhs: np.ndarray, dW: np.ndarray) -> None:
        embedding_backward(ids, dhs, dW)


class TimeContextSum(_Table):
    """The sum of the vectors of the last `window` tokens at every step.

    ``out[n, t] = W[x_{t-window+1}] + ... + W[x_t]``. The last ``window - 1`` tokens are carried from call to
    call, like a recurrent state, so chunks of any size give the bits of one pass. At the beginning, the sum
    runs over the available tokens. Backward adds ``dhs[n, t]`` to the row of each token in the window of t,
    including carried tokens.

    Parameters
    ----------
    W : ndarray (V, D)
        One row per token, float32 or float64, C-contiguous.
    window : int
        The number of tokens summed.

    Attributes
    ----------
    params, grads : list of ndarray
        ``[W]`` and ``[dW]``; always the same arrays.
    W : ndarray (V, D)
    context : integer ndarray (N, window - 1) or None
        A copy of the carried tokens, oldest first, -1 for none; None before the first `forward`.

    Notes
    -----
    Source: the projection layer of CBOW; Mikolov et al., *Efficient estimation of word representations*,
    2013.

    Examples
    --------
    >>> import numpy as np, rnnfast
    >>> layer = rnnfast.TimeContextSum(np.array([[1.0], [10.0], [100.0]]), window=2)
    >>> layer.forward(np.array([[0, 1]]))[0, :, 0]
    array([ 1., 11.])
    >>> layer.forward(np.array([[2]]))[0, :, 0]
    array([110.])
    """

    def __init__(self, W: np.ndarray, window: int) -> None:
        super().__init__(W)
        self.window = _check.values.size(type(self).__name__, "window", window)
        if not W.flags.c_contiguous:
            raise ValueError(f"{type(self).__name__}: W must be C-contiguous; pass np.ascontiguousarray(W).")
        self._context: np.ndarray | None = None

    @classmethod
    def from_sizes(
        cls,
        vocab_size: int,
        embed_size: int,
        window: int,
        *,
        rng: np.random.Generator | None = None,
        dtype: np.typing.DTypeLike = np.float32,
    ) -> TimeContextSum:
        """Create a layer with a table (vocab_size, embed_size) of randn / 100."""
        return cls(cls._draw(f"{cls.__name__}.from_sizes", vocab_size, embed_size, rng, dtype), window)

    def _shown(self) -> dict[str, Any]:
        return {**super()._shown(), "window": self.window}

    @property
    @in_turn
    def context(self) -> np.ndarray | None:
        """A copy of the carried tokens (N, window - 1), oldest first, -1 for none."""
        return None if self._context is None else self._context.copy()

    @in_turn
    def set_state(self, context: np.ndarray | None) -> None:
        """Set the tokens (N, window - 1) before the next call, oldest first, -1 for none."""
        if context is not None:
            owner = f"{type(self).__name__}.set_state"
            expected = ("N", self.window - 1)
            context = _check.arrays.ids(
                owner, "context", context, expected, self.vocab_size, also=NO_WORD
            ).copy()
        self._context = context

    @in_turn
    def reset_state(self) -> None:
        """Forget the carried tokens."""
        self._context = None

    def _look_up(self, owner: str, xs: np.ndarray, out: np.ndarray) -> np.ndarray:
        batch, steps = xs.shape
        before = self.window - 1
        carried = self._context if xs.size else None
        if carried is not None:
            _check.objects.batch(owner, carried.shape[0], batch)
        self._shape = None
        ids = self._workspace.take("ids", (batch, before + steps), xs.dtype)
        ids[:, :before] = NO_WORD if carried is None else carried
        ids[:, before:] = xs
        context_sum_forward(ids, self._table, self.window, out)
        if xs.size:
            self._context = ids[:, steps:].copy()
        return ids

    def backward(self, dhs: np.ndarray) -> None:
        """Overwrite `grads[0]` with the gradient of the table, from `dhs` (N, T, D) of the last output."""
        with self._turn:
            self._claim_tape()
            owner = f"{type(self).__name__}.backward"
            dhs, ids = self._incoming(owner, dhs)
            self._read_apart(owner, {"dhs": dhs})
            self._add(ids, dhs, self._cleared_gradient())

    def _add(self, ids: np.ndarray, dhs: np.ndarray, dW: np.ndarray) -> None:
        context_sum_backward(ids, dhs, self.window, dW)
