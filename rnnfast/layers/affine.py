"""The affine layer, applied to every position of a sequence."""

from __future__ import annotations

import numpy as np

from rnnfast import _check
from rnnfast.kernels.affine import BLOCK_ROWS, affine_backward, affine_forward
from rnnfast.kernels.gemm import packed_size
from rnnfast.layers.base import Layer, Workspace


def kernel_matrix(W: np.ndarray) -> tuple[np.ndarray, int, int]:
    """Memory and strides of a matrix for kernels that take both: a transposed view such as ``embed_W.T`` is
    read where it lies, any other layout is copied."""
    if W.flags.c_contiguous:
        return W, W.shape[1], 1
    if W.flags.f_contiguous:
        return W.T, 1, W.shape[0]
    return np.ascontiguousarray(W), W.shape[1], 1


class TimeAffine(Layer):
    """``y = x W + b`` at every position.

    Backward: ``dx = dy W^T``, ``dW = sum x^T dy``, ``db = sum dy``.

    Parameters
    ----------
    W : ndarray (D, O)
        Weights, float32 or float64. A transposed view is used as it is: ``TimeAffine(embed_W.T, b)`` shares
        the embedding's memory.
    b : ndarray (O,)
        Bias.

    Attributes
    ----------
    params, grads : list of ndarray
        ``[W, b]`` and their gradients; the arrays keep their identity, `backward` writes in place.

    Source: Saito, *Deep Learning from Scratch 2*, section 5.4.

    Examples
    --------
    >>> import numpy as np, rnnfast
    >>> layer = rnnfast.TimeAffine(np.ones((3, 2)), np.zeros(2))
    >>> layer.forward(np.ones((1, 4, 3)))[0, 0]
    array([3., 3.])
    """

    def __init__(self, W: np.ndarray, b: np.ndarray) -> None:
        W = _check.parameter("TimeAffine", "W", W, ("D", "O"))
        b = _check.parameter("TimeAffine", "b", b, (W.shape[1],), W.dtype)
        self.params = [W, b]
        self.grads = [np.zeros(W.shape, W.dtype), np.zeros(b.shape, b.dtype)]
        self.dtype = W.dtype
        self._workspace = Workspace()
        self._x: np.ndarray | None = None

    def forward(self, x: np.ndarray, *, out: np.ndarray | None = None) -> np.ndarray:
        """Apply the layer.

        Parameters
        ----------
        x : ndarray (..., D)
            Usually (N, T, D); any number of leading axes. A reference is kept for `backward`.
        out : ndarray (..., O), optional
            Where to write the result; a fresh array by default.

        Returns
        -------
        y : ndarray (..., O)
        """
        W, b = self.params
        leading = tuple(f"N{axis}" for axis in range(max(1, np.ndim(x) - 1)))
        x = _check.floats(
            "TimeAffine.forward", "xs", x, (*leading, W.shape[0]), self.dtype, "D is the rows of W"
        )
        shape = (*x.shape[:-1], W.shape[1])
        if out is None:
            y = np.empty(shape, self.dtype)
        else:
            y = _check.out("TimeAffine.forward", out, shape, self.dtype, x, *self.params)
        packed = self._workspace.take("packed", (packed_size(*W.shape, self.dtype),), self.dtype)
        affine_forward(
            x.reshape(-1, W.shape[0]),
            *kernel_matrix(W),
            _check.kernel_ready(b),
            y.reshape(-1, W.shape[1]),
            packed,
        )
        self._x = x
        return y

    def backward(self, dout: np.ndarray, *, out: np.ndarray | None = None) -> np.ndarray:
        """Gradient by the input of the last `forward`, (..., D), from that of its output, (..., O); fills
        `grads`."""
        owner = "TimeAffine.backward"
        _check.called_before(owner, self._x is not None, "forward")
        assert self._x is not None
        W, _ = self.params
        depth, cols = W.shape
        x = self._x
        dout = _check.floats(
            owner, "dout", dout, (*x.shape[:-1], cols), self.dtype, "the shape of the last output"
        )
        if out is None:
            dx = np.empty(x.shape, self.dtype)
        else:
            dx = _check.out(owner, out, x.shape, self.dtype, x, dout, *self.params, *self.grads)
        take = self._workspace.take
        affine_backward(
            x.reshape(-1, depth), dout.reshape(-1, cols), *kernel_matrix(W),
            dx.reshape(-1, depth), *self.grads,
            take("packed", (packed_size(cols, depth, self.dtype),), self.dtype),
            take("packed_dy", (packed_size(BLOCK_ROWS, cols, self.dtype),), self.dtype),
            take("block_sum", (cols,), self.dtype),
        )  # fmt: skip
        return dx
