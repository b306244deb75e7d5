"""Softmax with cross-entropy loss, on given scores or fused with the affine layer that computes them."""

from __future__ import annotations

from collections.abc import Sequence
from threading import get_ident
from typing import Any

import numpy as np

from rnnfast import _check
from rnnfast.engine import threads
from rnnfast.engine.locks import in_turn
from rnnfast.kernels.losses.affine import scaled_gradient
from rnnfast.kernels.losses.fused_loss import (
    affine_softmax_loss,
    even_period,
    loss_block_rows,
    loss_period,
    rounded_affine_softmax_loss,
    row_stride,
)
from rnnfast.kernels.losses.slab_products import SLAB_WORDS
from rnnfast.kernels.losses.softmax import LANES, softmax_loss_backward, softmax_loss_forward
from rnnfast.kernels.product.bfloat16 import PAIRS
from rnnfast.kernels.product.gemm import packed_shape, packed_size
from rnnfast.layers.affine import AffineLoss, kernel_matrix
from rnnfast.layers.base import Layer, Precise
from rnnfast.layers.window import Blocks, Part, sum_by_blocks


def _labels(owner: str, ts: np.ndarray, scores_shape: tuple[int, ...], ignore: int) -> np.ndarray:
    """Labels (N, T) as int64, from ids or from one-hot rows (N, T, V)."""
    if np.ndim(ts) == len(scores_shape):
        ts = _check.arrays.shape(owner, "ts", ts, scores_shape, "one-hot labels have the shape of the scores")
        return _check.arrays.kernel_ready(_check.arrays.one_hot(owner, "ts", ts))
    return _check.arrays.ids(owner, "ts", ts, scores_shape[:-1], scores_shape[-1], ignore)


def _most_members(rows: int) -> int:
    """The largest number of threads for a block of the fused loss."""
    return max(1, -(-rows // 32))


class _LabelLoss(Layer):
    """A loss of integer labels with one label that is ignored."""

    _ignore_label = -1

    def _shown(self) -> dict[str, Any]:
        return {"ignore_label": self.ignore_label}

    @property
    def ignore_label(self) -> int:
        """The label that is ignored."""
        return self._ignore_label

    @ignore_label.setter
    def ignore_label(self, value: int) -> None:
        least = -(2**63)
        self._ignore_label = _check.values.size(type(self).__name__, "ignore_label", value, least, -least - 1)


class TimeSoftmaxWithLoss(_LabelLoss):
    """Mean cross-entropy of softmax over all positions whose label is not ignored.

    ``loss = mean(-log softmax(xs)[ts])``; backward ``dxs = (softmax(xs) - onehot(ts)) / count``, zero at
    ignored positions. The loss is computed with log-sum-exp, so it is finite for finite scores; it is 0 if
    every label is ignored.

    Attributes
    ----------
    ignore_label : int
        The label that is ignored; -1 by default.

    Notes
    -----
    Source: Saito, *Deep Learning from Scratch 2*, section 5.4.

    Examples
    --------
    >>> import numpy as np, rnnfast
    >>> layer = rnnfast.TimeSoftmaxWithLoss()
    >>> round(layer.forward(np.zeros((1, 2, 4)), np.array([[3, -1]])), 4)
    1.3863
    """

    TAPE = (*Layer.TAPE, "_cache")
    _cache: tuple[np.ndarray, np.ndarray, int, tuple[int, ...]] | None = None

    def __init__(self) -> None:
        self._hold()

    def forward(self, xs: np.ndarray, ts: np.ndarray) -> float:
        """The mean loss, in nats.

        Parameters
        ----------
        xs : ndarray (N, T, V)
            Scores, float32 or float64.
        ts : ndarray (N, T) of integers, or one-hot (N, T, V)
            Labels; `ignore_label` marks positions to leave out.
        """
        with self._turn:
            owner = "TimeSoftmaxWithLoss.forward"
            xs = _check.arrays.shape(owner, "xs", xs, ("N", "T", "V"))
            size = _check.values.size(owner, "V, the last axis of xs,", xs.shape[2])
            xs = _check.arrays.floats(
                owner, "xs", xs, xs.shape, _check.arrays.float_dtype(owner, xs.dtype.newbyteorder("="))
            )
            labels = _labels(owner, ts, xs.shape, self.ignore_label).reshape(-1)
            take, self._cache = self._workspace.take, None
            probabilities = take("probabilities", (labels.size, size), xs.dtype)
            losses = take("losses", (labels.size,), np.dtype(np.float64))
            lanes = take("lanes", (LANES,), xs.dtype)
            count = softmax_loss_forward(
                xs.reshape(-1, size), labels, self.ignore_label, lanes, probabilities, losses
            )
            self._made_by = get_ident()
            self._cache = probabilities, labels, count, xs.shape
            return float(losses.sum() / max(1, count))

    def backward(self, dout: float = 1.0) -> np.ndarray:
        """Gradient (N, T, V) of `dout` times the last loss with respect to the scores."""
        with self._turn:
            self._claim_tape()
            owner = "TimeSoftmaxWithLoss.backward"
            _check.objects.called_before(owner, self._cache is not None, "forward")
            assert self._cache is not None
            probabilities, labels, count, shape = self._cache
            dxs = np.empty(shape, probabilities.dtype)
            scale = probabilities.dtype.type(_check.values.number(owner, "dout", dout) / max(1, count))
            softmax_loss_backward(
                probabilities, labels, self.ignore_label, scale, dxs.reshape(probabilities.shape)
            )
            return dxs


class TimeAffineSoftmaxWithLoss(AffineLoss, _LabelLoss, Precise):
    """The output layer of a language model: affine, softmax and mean cross-entropy in one pass.

    ``loss = mean(-log softmax(xs W + b)[ts])``. The (N, T, V) scores are never stored as a whole: `forward`
    processes blocks of rows and computes their gradients as well. The gradient is linear in `dout`, so
    `backward` only scales it.

    Parameters
    ----------
    W : ndarray (H, V)
        Weights, float32 or float64; a transposed view such as ``embed_W.T`` shares the embedding's memory.
    b : ndarray (V,)
        Bias.
    dW : ndarray (H, V), optional
        The array for the gradient of W: the transposed gradient of the embedding if the two share memory. A
        new array by default.
    precision : "bfloat16", optional
        Round the operands of products to bfloat16; see the property.

    Attributes
    ----------
    params, grads : list of ndarray
        ``[W, b]`` and their gradients; always the same arrays; `backward` writes in place.
    ignore_label : int
        The label that is ignored; -1 by default.

    Examples
    --------
    >>> import numpy as np, rnnfast
    >>> layer = rnnfast.TimeAffineSoftmaxWithLoss(np.zeros((3, 4)), np.zeros(4))
    >>> round(layer.forward(np.ones((1, 2, 3)), np.array([[0, 3]])), 4)
    1.3863
    >>> layer.backward().shape
    (1, 2, 3)
    """

    AXES = ("H", "V")
    SIZES = ("hidden_size", "vocab_size")

    def __init__(
        self,
        W: np.ndarray,
        b: np.ndarray,
        *,
        dW: np.ndarray | None = None,
        precision: str | None = None,
    ) -> None:
        owner, params = type(self).__name__, self._checked_params(W, b)
        dW = (
            np.zeros(W.shape, W.dtype) if dW is None else _check.objects.gradient_of(owner, "dW", dW, *params)
        )
        self._hold(params, [dW, np.zeros(b.shape, b.dtype)])
        self.dtype = W.dtype
        self._precision = _check.values.precision(owner, precision, self.dtype)

    @classmethod
    def from_sizes(
        cls,
        hidden_size: int,
        vocab_size: int,
        *,
        rng: np.random.Generator | None = None,
        dtype: np.typing.DTypeLike = np.float32,
    ) -> TimeAffineSoftmaxWithLoss:
        """Create a layer with the book's initial values: weights randn / sqrt(fan-in), zero bias.

        Parameters
        ----------
        hidden_size, vocab_size : int
            H and V.
        rng : numpy.random.Generator, optional
            Draws the weights; a fresh generator by default.
        dtype : float32 or float64
        """
        return cls._drawn((hidden_size, vocab_size), rng, dtype)

    def forward(self, xs: np.ndarray, ts: np.ndarray) -> float:
        """The mean loss, in nats; its gradients are kept for `backward`.

        Parameters
        ----------
        xs : ndarray (N, T, H)
            Hidden states, in the dtype of the parameters.
        ts : ndarray (N, T) of integers, or one-hot (N, T, V)
            Labels; `ignore_label` marks positions to leave out.
        """
        with self._turn:
            checked = self._checked(f"{type(self).__name__}.forward", xs, ts)
            sums = self._sums(checked[0].shape[:1])
            return self.mean(sums, self._run(*checked, None, sums)[2])

    @in_turn
    def losses(self, xs: np.ndarray, ts: np.ndarray) -> np.ndarray:
        """-log p of each label, (N, T) in float64 and nats, 0 if ignored; gradients are unchanged."""
        return self._run(*self._checked(f"{type(self).__name__}.losses", xs, ts), None)[0].copy()

    def _checked(self, owner: str, xs: np.ndarray, ts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        depth, size = self._weights[0].shape
        xs = _check.arrays.floats(owner, "xs", xs, ("N", "T", depth), self.dtype, "H is the rows of W")
        return xs, _labels(owner, ts, (*xs.shape[:2], size), self.ignore_label)

    def _sums(self, shape: tuple[int, ...]) -> np.ndarray:
        """Zeros (N,), for the sum of the losses of each row."""
        sums = self._workspace.take("sums", shape, np.dtype(np.float64))
        sums[...] = 0
        return sums

    def _run(
        self,
        xs: np.ndarray,
        targets: np.ndarray,
        blocks: np.ndarray | None,
        sums: np.ndarray | None = None,
        scored: float = -1,
        adds: bool = False,
        into: Sequence[np.ndarray] = (),
    ) -> tuple[np.ndarray, bool, float]:
        gradients = sums is not None
        W, b = self._weights
        batch, steps, _ = xs.shape
        size = b.size
        if gradients:
            self._gradients = None
        sums = self._sums((batch,)) if sums is None else sums
        products = 3 if gradients else 1
        most = _most_members(loss_block_rows(batch, steps, size))
        members = threads.members_for(2.0 * products * xs.size * size, most)
        scratch = self._scratch(batch, steps, gradients, members)
        losses, (dxs, dWb_t) = scratch[0], into or scratch[1:3]
        period = even_period(batch, steps, size) if into else loss_period(batch, size)
        arguments = (
            xs, targets, *kernel_matrix(W), _check.arrays.kernel_ready(b), self.ignore_label, int(scored),
            period, gradients, adds, losses, sums, dxs, dWb_t, *scratch[3:],
        )  # fmt: skip
        kernel = rounded_affine_softmax_loss if self.rounds else affine_softmax_loss
        count = threads.run(kernel, members, False, arguments)
        if gradients:
            self._made_by = get_ident()
            self._gradients = dxs, dWb_t
        return losses, gradients, count

    def _scratch(self, batch: int, steps: int, gradients: bool, members: int) -> tuple[Any, ...]:
        """The losses, the gradients and all scratch of the kernel, for a window and a number of threads."""
        (depth, size), dtype = self._weights[0].shape, self.dtype
        rows = loss_block_rows(batch, steps, size)
        row, slabs = row_stride(rows, dtype), -(-size // SLAB_WORDS)
        take, deep = self._workspace.take, -(-depth // 2) if self.rounds else depth
        return (
            take("losses", (batch, steps), np.dtype(np.float64)),
            take("dxs", (batch, steps, depth) if gradients else (0, 0, 0), dtype),
            self._level(0)[0] if gradients else take("no dWb_t", (0, row_stride(depth + 1, dtype)), dtype),
            take("x_block", (rows, row_stride(depth + 1, dtype)), dtype),
            take("packed_x", *packed_shape(depth, row, dtype, self.rounds)),
            take("labels", (row,), np.dtype(np.int64)),
            take("words", (members, deep * SLAB_WORDS), PAIRS if self.rounds else dtype),
            take("slabs", (slabs, SLAB_WORDS, row), dtype),
            take("maxima", (slabs, row), dtype),
            take("total", (row,), dtype),
            take("part", (row,), dtype),
            take("targets", (row,), dtype),
            take("dx_t", (depth, row), dtype),
            self._pairs(rows, row) if self.rounds else None,
        )

    def _pairs(self, rows: int, row: int) -> tuple[np.ndarray, ...]:
        """Scratch for rows in pairs."""
        wide = row_stride(self._weights[0].shape[0] + 1, self.dtype)
        shapes = {"x_pairs": (rows // 2 + 1, wide), "slab_pairs": (SLAB_WORDS // 2, row)}
        shapes["slab_columns"] = (SLAB_WORDS, row // 2)
        return tuple(self._workspace.take(name, shape, PAIRS) for name, shape in shapes.items())

    def _level(self, level: int) -> tuple[np.ndarray, ...]:
        depth, size = self._weights[0].shape
        return (
            self._workspace.take(f"dWb_t {level}", (size, row_stride(depth + 1, self.dtype)), self.dtype),
        )

    def _run_blocks(
        self, xs: np.ndarray, targets: np.ndarray, blocks: Blocks, sums: np.ndarray, scored: float
    ) -> None:
        self._gradients = None
        (_, steps, depth), size = xs.shape, self._weights[1].size
        dxs = self._workspace.take("dxs", xs.shape, self.dtype)

        def compute(rows: slice, arrays: Sequence[np.ndarray], adds: bool) -> None:
            self._run(xs[rows], targets[rows], None, sums[rows], scored, adds, (dxs[rows], *arrays))

        def adds_once(rows: slice) -> bool:
            count = rows.stop - rows.start
            in_one = even_period(count, steps, size) == steps and count <= loss_block_rows(count, steps, size)
            return count * steps * depth > 0 and in_one

        self._gradients = dxs, *sum_by_blocks(blocks, self._level, compute, adds_once)
        self._made_by = get_ident()

    def _scored_steps(self, targets: np.ndarray) -> np.ndarray:
        return np.count_nonzero(targets != self.ignore_label, axis=1).astype(np.float64)

    def make_room(self, batch: int, steps: int) -> None:
        """Allocate the arrays of a window before the first call."""
        self._gradients = None
        most = _most_members(loss_block_rows(batch, steps, self._weights[1].size))
        self._scratch(batch, steps, True, min(threads.get_num_threads(), most))

    def parameter_gradients(self, dout: float = 1.0, *, adds: bool = False) -> None:
        """The second half of `backward`: fills `grads`; with `adds`, the gradient of W accumulates."""
        assert self._gradients is not None
        dW, db = self._dweights
        dWb_t = self._gradients[1]
        members = threads.members_for_bytes(2 * dWb_t.nbytes, dWb_t.shape[0] // 64)
        arguments = (dWb_t, self.dtype.type(dout), adds, *kernel_matrix(dW), db)
        threads.run(scaled_gradient, members, False, arguments)

    # A sequence in parts, for models.

    def _part_targets(self, owner: str, hs: np.ndarray, ts: Any, part: Part) -> np.ndarray:
        return _check.arrays.ids(
            owner, "ts", part.of(ts), hs.shape[:2], self._weights[1].size, self.ignore_label
        )

    def scored(self, ts: Any, parts: Sequence[Part]) -> int:
        """The number of labels (N, T) of these parts that are not ignored."""
        return sum(int(np.count_nonzero(part.of(ts) != self.ignore_label)) for part in parts)

    def period(self, batch: int) -> int:
        """Chunk lengths are multiples of this number of steps, so that sums over time have whole blocks."""
        return loss_period(batch, self._weights[1].size)

    def scratch_bytes(self, batch: int, steps: int) -> int:
        """Upper bound in bytes on `forward` with gradients, including labels as given and in int64."""
        depth, size = self._weights[0].shape
        dtype = self.dtype
        rows = loss_block_rows(batch, steps, size)
        row, slabs = row_stride(rows, dtype), -(-size // SLAB_WORDS)
        wide, members = row_stride(depth + 1, dtype), min(threads.get_num_threads(), _most_members(rows))
        elements = (size + rows) * wide + packed_size(depth, row, dtype)
        elements += depth * (members * SLAB_WORDS + row)
        elements += (rows // 2 + 1) * wide + SLAB_WORDS * row if self.rounds else 0
        elements += slabs * (SLAB_WORDS + 1) * row + 3 * row + batch * steps * depth
        return elements * dtype.itemsize + (batch * (3 * steps + 1) + row) * 8 + 4096
