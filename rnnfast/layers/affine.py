"""The affine layer, applied to every position of a sequence."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from threading import get_ident
from typing import Any

import numpy as np

from rnnfast import _check
from rnnfast.kernels.losses.affine import BLOCK_ROWS, affine_backward, affine_forward
from rnnfast.kernels.product.gemm import packed_size
from rnnfast.layers.base import Layer
from rnnfast.layers.window import Blocks, Part


def kernel_matrix(W: np.ndarray) -> tuple[np.ndarray, int, int]:
    """Memory and strides of a matrix for kernels that take both. A transposed view such as ``embed_W.T`` is
    used without a copy; any other layout is copied."""
    if W.flags.c_contiguous:
        return W, W.shape[1], 1
    if W.flags.f_contiguous:
        return W.T, 1, W.shape[0]
    return np.ascontiguousarray(W), W.shape[1], 1


class Affine(Layer):
    """Base of layers with weights W (rows, columns) and a bias b (columns,)."""

    # The rows and the columns of W: their letters, and their argument names in `from_sizes`.
    AXES: tuple[str, str]
    SIZES: tuple[str, str]

    def __init__(self, W: np.ndarray, b: np.ndarray) -> None:
        self._hold(self._checked_params(W, b))
        self.dtype = W.dtype

    def _checked_params(self, W: np.ndarray, b: np.ndarray) -> list[np.ndarray]:
        """W and b, after checking that their shapes agree."""
        owner = type(self).__name__
        W = _check.objects.parameter(owner, "W", W, self.AXES)
        for axis, place, length in zip(self.AXES, ("rows", "columns"), W.shape, strict=True):
            _check.values.size(owner, f"{axis}, the {place} of W,", length)
        return [W, _check.objects.parameter(owner, "b", b, (W.shape[1],), W.dtype)]

    @classmethod
    def _drawn(cls, given: tuple[int, int], rng: np.random.Generator | None, dtype: Any) -> Any:
        """A layer of these sizes with the book's initial values: weights randn / sqrt(fan-in), zero bias."""
        owner = f"{cls.__name__}.from_sizes"
        rows, cols = (
            _check.values.size(owner, name, value) for name, value in zip(cls.SIZES, given, strict=True)
        )
        kind = _check.arrays.float_dtype(owner, dtype)
        W = _check.values.generator(owner, rng).standard_normal((rows, cols)) / np.sqrt(rows)
        return cls(W.astype(kind), np.zeros(cols, kind))

    def _shown(self) -> dict[str, Any]:
        return {**dict(zip(self.SIZES, self.params[0].shape, strict=True)), **super()._shown()}


class TimeAffine(Affine):
    """``y = x W + b`` at every position.

    Backward: ``dx = dy W^T``, ``dW = sum x^T dy``, ``db = sum dy``.

    Parameters
    ----------
    W : ndarray (D, O)
        Weights, float32 or float64. A transposed view is not copied: ``TimeAffine(embed_W.T, b)`` shares the
        embedding's memory.
    b : ndarray (O,)
        Bias.

    Attributes
    ----------
    params, grads : list of ndarray
        ``[W, b]`` and their gradients; always the same arrays; `backward` writes in place.

    Notes
    -----
    Source: Saito, *Deep Learning from Scratch 2*, section 5.4.

    Examples
    --------
    >>> import numpy as np, rnnfast
    >>> layer = rnnfast.TimeAffine(np.ones((3, 2)), np.zeros(2))
    >>> layer.forward(np.ones((1, 4, 3)))[0, 0]
    array([3., 3.])
    """

    TAPE = (*Affine.TAPE, "_x")
    AXES = ("D", "O")
    SIZES = ("input_size", "output_size")
    _x: np.ndarray | None = None

    @classmethod
    def from_sizes(
        cls,
        input_size: int,
        output_size: int,
        *,
        rng: np.random.Generator | None = None,
        dtype: np.typing.DTypeLike = np.float32,
    ) -> TimeAffine:
        """Create a layer with the book's initial values: weights randn / sqrt(fan-in), zero bias.

        Parameters
        ----------
        input_size, output_size : int
            D and O.
        rng : numpy.random.Generator, optional
            Draws the weights; a fresh generator by default.
        dtype : float32 or float64
        """
        return cls._drawn((input_size, output_size), rng, dtype)

    def forward(self, x: np.ndarray, *, out: np.ndarray | None = None) -> np.ndarray:
        """Apply the layer.

        Parameters
        ----------
        x : ndarray (..., D)
            Usually (N, T, D); any number of leading axes. `backward` uses it: it is kept by reference.
        out : ndarray (..., O), optional
            The array for the result; a new one by default.

        Returns
        -------
        y : ndarray (..., O)
        """
        with self._turn:
            W, b = self._weights
            why = "the last axis is the rows of W"
            x = _check.arrays.floats("TimeAffine.forward", "x", x, ("...", W.shape[0]), self.dtype, why)
            y = self._output("TimeAffine.forward", out, (*x.shape[:-1], W.shape[1]), x, *self._weights)
            packed = self._workspace.take("packed", (packed_size(*W.shape, self.dtype),), self.dtype)
            keeper = self._workspace.packed
            made = keeper.lend(self._freezes, (packed,))
            affine_forward(
                x.reshape(-1, W.shape[0]),
                *kernel_matrix(W),
                _check.arrays.kernel_ready(b),
                made,
                y.reshape(-1, W.shape[1]),
                packed,
            )
            keeper.keep()
            self._made_by = get_ident()
            self._x = x
            return y

    def backward(self, dout: np.ndarray, *, out: np.ndarray | None = None) -> np.ndarray:
        """The gradient (..., D) with respect to the last input, from the gradient (..., O) of the output;
        fills `grads`."""
        with self._turn:
            self._claim_tape()
            owner = "TimeAffine.backward"
            _check.objects.called_before(owner, self._x is not None, "forward")
            assert self._x is not None
            W, _ = self._weights
            depth, cols = W.shape
            x = self._x
            dout = _check.arrays.floats(
                owner, "dout", dout, (*x.shape[:-1], cols), self.dtype, "the shape of the last output"
            )
            self._read_apart(owner, {"dout": dout, "x": x})
            dx = self._output(owner, out, x.shape, x, dout, *self._weights, *self._dweights)
            take = self._workspace.take
            affine_backward(
                x.reshape(-1, depth), dout.reshape(-1, cols), *kernel_matrix(W),
                dx.reshape(-1, depth), *self._dweights,
                take("packed", (packed_size(cols, depth, self.dtype),), self.dtype),
                take("packed_dy", (packed_size(BLOCK_ROWS, cols, self.dtype),), self.dtype),
                take("block_sum", (cols,), self.dtype),
            )  # fmt: skip
            return dx


# The base of the output layers of models: affine and a mean loss in one pass.


class AffineLoss(Affine):
    """Base of layers whose `forward` computes a mean loss from hidden states, and also its gradients."""

    TAPE = (*Affine.TAPE, "_gradients")
    # Gradients for an incoming gradient of 1: of the hidden states, and in the kernel's form of W and b.
    _gradients: tuple[np.ndarray, ...] | None = None

    def _run(
        self,
        xs: np.ndarray,
        targets: Any,
        blocks: np.ndarray | None,
        sums: np.ndarray | None = None,
        scored: float = -1,
        adds: bool = False,
    ) -> tuple[np.ndarray, bool, float]:
        """The losses (N, T) of checked arguments, whether there are gradients, and the count of scored steps.

        With `sums` (N,), it adds each row's losses to them and computes gradients of the mean over `scored`
        steps, or over the steps of the call. With `adds`, the gradients of the parameters accumulate.
        """
        raise NotImplementedError

    _checked: Callable[..., tuple[np.ndarray, Any]]  # the checked arguments of `forward`, for `_run`

    def _scored_steps(self, targets: Any) -> np.ndarray:
        """The sum of the weights of the scored steps of each row, (N,) in float64."""
        raise NotImplementedError

    def _part_targets(self, owner: str, hs: np.ndarray, ts: Any, part: Part) -> Any:
        """The checked targets of a part, as `_run` takes them."""
        raise NotImplementedError

    def parameter_gradients(self, dout: float = 1.0, *, adds: bool = False) -> None:
        """The second half of `backward`: fills `grads`; with `adds`, they accumulate."""
        raise NotImplementedError

    def backward(self, dout: float = 1.0, *, out: np.ndarray | None = None) -> np.ndarray:
        """Gradient (N, T, H) of `dout` times the last loss with respect to the inputs; fills `grads`."""
        with self._turn:
            self._claim_tape()
            result = self.input_gradient(dout, out)
            self.parameter_gradients(dout)
            return result

    def input_gradient(self, dout: float = 1.0, out: np.ndarray | None = None) -> np.ndarray:
        """The first half of `backward`: the gradient (N, T, H) of the inputs."""
        owner = f"{type(self).__name__}.backward"
        _check.objects.called_before(owner, self._gradients is not None, "forward")
        assert self._gradients is not None
        dxs = self._gradients[0]
        scale = self.dtype.type(_check.values.number(owner, "dout", dout))
        result = self._output(owner, out, dxs.shape, dxs, *self._weights, *self._dweights)
        with np.errstate(under="ignore"):
            return np.multiply(dxs, scale, out=result)

    # A batch in blocks, for models.

    def forward_by_blocks(
        self, xs: np.ndarray, ts: np.ndarray, blocks: Blocks, options: Mapping[str, Any]
    ) -> float:
        """`forward` for the rows (N, T, H) of a batch in blocks: the mean loss of the whole batch.

        The gradients that are kept are those of the rows here; those of the parameters are added by blocks.
        """
        with self._turn:
            xs, targets = self._checked(f"{type(self).__name__}.forward", xs, ts, **options)
            sums, scored = np.zeros(len(xs)), float(blocks.gathered(self._scored_steps(targets)).sum())
            self._run_blocks(xs, targets, blocks, sums, scored)
            return self.mean(blocks.gathered(sums), scored)

    def _run_blocks(
        self, xs: np.ndarray, targets: Any, blocks: Blocks, sums: np.ndarray, scored: float
    ) -> None:
        """`_run` with gradients by blocks."""
        raise NotImplementedError

    @property
    def made(self) -> tuple[np.ndarray, ...]:
        """The gradients of W and b in the kernel's form, for an incoming gradient of 1."""
        assert self._gradients is not None
        return self._gradients[1:]

    # A sequence in parts, for models.

    def score(
        self,
        owner: str,
        hs: np.ndarray,
        ts: Any,
        part: Part,
        blocks: np.ndarray,
        sums: np.ndarray,
        scored: int,
        adds: bool,
    ) -> bool:
        """Add the losses of a part to `sums` (N,) and compute its gradients; returns whether there are any.

        The gradients are those of the mean over `scored` steps of the whole sequence; with `adds`, the
        gradients of the parameters accumulate. `hs` (N, steps, H) belong to the part, `ts` to the whole
        sequence, as in `forward`. `blocks` holds the first step of each block of the part's time grid, and
        the part's length.
        """
        return self._run(hs, self._part_targets(owner, hs, ts, part), blocks, sums, scored, adds)[1]

    def part_losses(
        self, owner: str, hs: np.ndarray, ts: Any, part: Part, blocks: np.ndarray | None
    ) -> np.ndarray:
        """`losses` (N, steps) of a part, with arguments as in `score`; the next call overwrites them."""
        return self._run(hs, self._part_targets(owner, hs, ts, part), blocks)[0]

    def mean(self, sums: np.ndarray, scored: float) -> float:
        """The mean of `scored` losses, from the sums (N,) of the rows, added in order."""
        total = float(np.add.accumulate(sums)[-1]) if sums.size else 0.0
        return float(total / scored) if scored else 0.0
