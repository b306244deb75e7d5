"""The book's layers of one step that are not recurrent.

They take any number of rows and compute with NumPy or with the layer over time of the same kind.
`BookDropout` and `BookTimeDropout` draw their masks from NumPy's global generator, exactly as in the book, so
a seeded script gives the same curve.
"""

from __future__ import annotations

from threading import get_ident
from typing import Any

import numpy as np

from rnnfast import _check
from rnnfast.book.binary_loss import TimeSigmoidWithLoss
from rnnfast.kernels.codegen.activations import sigmoid_forward
from rnnfast.layers.affine import TimeAffine
from rnnfast.layers.base import Layer
from rnnfast.layers.embedding import TimeEmbedding
from rnnfast.layers.loss import TimeSoftmaxWithLoss


def _floats(owner: str, name: str, value: np.ndarray) -> np.ndarray:
    """An array of floats of any shape, ready for a kernel."""
    array = _check.arrays.shape(owner, name, value, np.shape(value))
    dtype = _check.arrays.float_dtype(owner, array.dtype.newbyteorder("="))
    return _check.arrays.floats(owner, name, array, array.shape, dtype)


def _product(x: np.ndarray, factor: np.ndarray | np.floating) -> np.ndarray:
    """``x factor``; an underflow gives zero."""
    with np.errstate(under="ignore"):
        return x * factor


def sigmoid(x: np.ndarray) -> np.ndarray:
    """``1 / (1 + exp(-x))`` of an array of any shape or a number, without overflow.

    Examples
    --------
    >>> sigmoid(np.array([0.0, 1e4]))
    array([0.5, 1. ])
    """
    array = _check.arrays.shape("sigmoid", "x", np.asanyarray(x), np.shape(x))
    if array.dtype not in _check.arrays.FLOAT_DTYPES:
        array = _check.arrays.numbers("sigmoid", "x", array).astype(np.float64)
    array = _check.arrays.kernel_ready(array)
    y = np.empty_like(array)
    sigmoid_forward(array.reshape(-1), y.reshape(-1))
    return y if y.ndim else y[()]


def softmax(x: np.ndarray) -> np.ndarray:
    """Softmax over the last axis of an array (V,) or (N, V).

    Examples
    --------
    >>> softmax(np.zeros((1, 4)))
    array([[0.25, 0.25, 0.25, 0.25]])
    """
    x = _check.arrays.shape("softmax", "x", x, np.shape(x))
    with np.errstate(under="ignore", over="ignore"):  # both correctly give 0
        shifted = np.exp(x - x.max(axis=-1, keepdims=True))
        return shifted / shifted.sum(axis=-1, keepdims=True)


def cross_entropy_error(y: np.ndarray, t: np.ndarray) -> float:
    """Mean of ``-log(y[n, t[n]] + 1e-7)``, as in the book.

    Parameters
    ----------
    y : ndarray (N, V) or (V,)
        Probabilities.
    t : ndarray of integers (N,), or one-hot of the shape of `y`

    Examples
    --------
    >>> round(float(cross_entropy_error(np.array([[0.5, 0.5]]), np.array([1]))), 4)
    0.6931
    """
    y = _check.arrays.shape("cross_entropy_error", "y", y, np.shape(y))
    if y.ndim == 1:
        y, t = y.reshape(1, -1), np.reshape(t, (1, -1))
    t = np.asanyarray(t)
    if t.size == y.size and y.shape[1] > 1:
        t = _check.arrays.one_hot(
            "cross_entropy_error", "t", _check.arrays.shape("cross_entropy_error", "t", t, y.shape)
        )
    t = _check.arrays.ids("cross_entropy_error", "t", t.reshape(-1), (y.shape[0],), y.shape[1])
    return -np.log(y[np.arange(y.shape[0]), t] + 1e-7).sum() / y.shape[0]


class MatMul(Layer):
    """``y = x W``.

    Parameters
    ----------
    W : ndarray (D, O)

    Notes
    -----
    Source: Saito, *Deep Learning from Scratch 2*, section 1.3.

    Examples
    --------
    >>> MatMul(np.eye(2)).forward(np.ones((1, 2)))
    array([[1., 1.]])
    """

    TAPE = (*Layer.TAPE, "_x")
    _x: np.ndarray | None = None

    def __init__(self, W: np.ndarray) -> None:
        self._hold([_check.objects.parameter("MatMul", "W", W, ("D", "O"))])

    def _shown(self) -> dict[str, Any]:
        return dict(zip(("input_size", "output_size"), self.params[0].shape, strict=True))

    def forward(self, x: np.ndarray) -> np.ndarray:
        """``x W`` (N, O) of `x` (N, D)."""
        (W,) = self._weights
        x = _check.arrays.floats("MatMul.forward", "x", x, ("N", W.shape[0]), W.dtype, "D is the rows of W")
        self._made_by, self._x = get_ident(), x
        with np.errstate(under="ignore"):
            return x @ W

    def backward(self, dout: np.ndarray) -> np.ndarray:
        """Gradient (N, D) with respect to the last input from the output's, (N, O); fills `grads`."""
        self._claim_tape()
        _check.objects.called_before("MatMul.backward", self._x is not None, "forward")
        assert self._x is not None
        (W,) = self._weights
        dout = _check.arrays.floats("MatMul.backward", "dout", dout, (self._x.shape[0], W.shape[1]), W.dtype)
        with np.errstate(under="ignore"):
            dx = dout @ W.T  # first, because `dout` may share memory with `grads`
            np.matmul(self._x.T, dout, out=self._dweights[0])
        return dx


class Affine(TimeAffine):
    """``y = x W + b`` of rows (N, D): `TimeAffine` under the book's name for one step.

    Examples
    --------
    >>> Affine(np.eye(2), np.ones(2)).forward(np.ones((1, 2)))
    array([[2., 2.]])
    """


class Softmax(Layer):
    """Softmax over the last axis of (N, V).

    Examples
    --------
    >>> Softmax().forward(np.zeros((1, 2)))
    array([[0.5, 0.5]])
    """

    TAPE = (*Layer.TAPE, "out")
    out: np.ndarray | None = None

    def __init__(self) -> None:
        self._hold()

    def forward(self, x: np.ndarray) -> np.ndarray:
        """Probabilities (N, V) of scores `x` (N, V)."""
        self._made_by, self.out = get_ident(), softmax(_floats("Softmax.forward", "x", x))
        return self.out

    def backward(self, dout: np.ndarray) -> np.ndarray:
        """``y (dout - sum(y dout))``, the gradient (N, V) with respect to the scores."""
        self._claim_tape()
        _check.objects.called_before("Softmax.backward", self.out is not None, "forward")
        assert self.out is not None
        dout = _check.arrays.floats("Softmax.backward", "dout", dout, self.out.shape, self.out.dtype)
        with np.errstate(under="ignore"):
            product = self.out * dout
            return product - self.out * product.sum(axis=-1, keepdims=True)


class SoftmaxWithLoss(Layer):
    """Softmax and mean cross-entropy of one step; see `TimeSoftmaxWithLoss`.

    Examples
    --------
    >>> round(SoftmaxWithLoss().forward(np.zeros((1, 4)), np.array([3])), 4)
    1.3863
    """

    def __init__(self) -> None:
        self._hold()
        self._time = TimeSoftmaxWithLoss()

    def forward(self, x: np.ndarray, t: np.ndarray) -> float:
        """The mean loss of scores `x` (N, V) for labels `t`, ids (N,) or one-hot (N, V)."""
        x = _check.arrays.shape("SoftmaxWithLoss.forward", "x", x, ("N", "V"))
        t = np.asanyarray(t)
        if t.ndim != 2:
            t = _check.arrays.shape("SoftmaxWithLoss.forward", "t", t, (x.shape[0],))
        return self._time.forward(x[:, None], t[:, None])

    def backward(self, dout: float = 1.0) -> np.ndarray:
        """Gradient (N, V) of `dout` times the last loss with respect to the scores."""
        return self._time.backward(dout)[:, 0]


class Sigmoid(Layer):
    """``y = 1 / (1 + exp(-x))``.

    Examples
    --------
    >>> Sigmoid().forward(np.zeros((1, 1)))
    array([[0.5]])
    """

    TAPE = (*Layer.TAPE, "out")
    out: np.ndarray | None = None

    def __init__(self) -> None:
        self._hold()

    def forward(self, x: np.ndarray) -> np.ndarray:
        """The sigmoid of an array of any shape, float32 or float64."""
        self._made_by, self.out = get_ident(), sigmoid(_floats("Sigmoid.forward", "x", x))
        return self.out

    def backward(self, dout: np.ndarray) -> np.ndarray:
        """``dout y (1 - y)``."""
        self._claim_tape()
        _check.objects.called_before("Sigmoid.backward", self.out is not None, "forward")
        assert self.out is not None
        dout = _check.arrays.floats("Sigmoid.backward", "dout", dout, self.out.shape, self.out.dtype)
        with np.errstate(under="ignore"):
            return dout * (1 - self.out) * self.out


class SigmoidWithLoss(Layer):
    """Sigmoid and mean binary cross-entropy of one step; see `TimeSigmoidWithLoss`.

    Examples
    --------
    >>> round(SigmoidWithLoss().forward(np.zeros(2), np.array([0, 1])), 4)
    0.6931
    """

    def __init__(self) -> None:
        self._hold()
        self._time = TimeSigmoidWithLoss()

    def forward(self, x: np.ndarray, t: np.ndarray) -> float:
        """The mean loss of scores `x` (N,) or (N, 1) for labels `t`, 0 or 1."""
        _check.objects.equal(
            "SigmoidWithLoss.forward", "numbers of scores and labels", np.size(x), np.size(t)
        )
        if np.ndim(x) == np.ndim(t):
            _check.objects.equal(
                "SigmoidWithLoss.forward", "shapes of scores and labels", np.shape(x), np.shape(t)
            )
        self._shape = np.shape(x)
        return self._time.forward(np.reshape(x, (-1, 1)), np.reshape(t, (-1, 1)))

    def backward(self, dout: float = 1.0) -> np.ndarray:
        """Gradient of `dout` times the last loss with respect to the scores, in their shape."""
        return self._time.backward(dout).reshape(self._shape)


class BookDropout(Layer):
    """The book's dropout of one step: training drops elements, otherwise inputs are scaled by ``1 - ratio``.

    Masks come from NumPy's global generator, ``np.random.rand(*x.shape) > ratio``.

    Parameters
    ----------
    dropout_ratio : float
        At least 0 and below 1.

    Examples
    --------
    >>> np.random.seed(0)
    >>> BookDropout(0.5).forward(np.ones((1, 4), np.float32))
    array([[1., 1., 1., 1.]], dtype=float32)
    """

    TAPE = (*Layer.TAPE, "mask")
    mask: np.ndarray | None = None

    def __init__(self, dropout_ratio: float = 0.5) -> None:
        self._hold()
        self.dropout_ratio = _check.values.number_below("Dropout", "dropout_ratio", dropout_ratio, 0, 1)

    def _shown(self) -> dict[str, Any]:
        return {"dropout_ratio": self.dropout_ratio}

    def forward(self, x: np.ndarray, train_flg: bool = True) -> np.ndarray:
        """`x` with dropped elements in training, else `x (1 - ratio)`."""
        x = _floats("Dropout.forward", "x", x)
        if not train_flg:
            return _product(x, x.dtype.type(1.0 - self.dropout_ratio))
        self._made_by, self.mask = get_ident(), self._drawn(x)
        return _product(x, self.mask)

    def _drawn(self, x: np.ndarray) -> np.ndarray:
        kept = np.random.rand(*x.shape) > self.dropout_ratio  # noqa: NPY002 (the book's generator)
        return kept.astype(x.dtype)

    def backward(self, dout: np.ndarray) -> np.ndarray:
        """The gradient with respect to the last training input."""
        self._claim_tape()
        _check.objects.called_before("Dropout.backward", self.mask is not None, "forward")
        assert self.mask is not None
        dout = _check.arrays.floats("Dropout.backward", "dout", dout, self.mask.shape, self.mask.dtype)
        return _product(dout, self.mask)


class BookTimeDropout(BookDropout):
    """Inverted dropout over a sequence, switched by `train_flg`, with the book's masks.

    Training divides the remaining elements by ``1 - ratio``; otherwise inputs are unchanged.

    Examples
    --------
    >>> layer = BookTimeDropout(0.5)
    >>> layer.train_flg = False
    >>> float(layer.forward(np.ones((1, 2, 3))).sum())
    6.0
    """

    def __init__(self, dropout_ratio: float = 0.5) -> None:
        super().__init__(dropout_ratio)
        self.train_flg = True

    def forward(self, xs: np.ndarray) -> np.ndarray:  # type: ignore[override]
        """`xs` (N, T, D) with dropped elements if `train_flg` is true, else `xs` itself."""
        xs = _floats("TimeDropout.forward", "xs", xs)
        if not self.train_flg:
            self._made_by, self.mask = get_ident(), np.ones_like(xs)
            return xs
        self._made_by = get_ident()
        self.mask = self._drawn(xs) * xs.dtype.type(1.0 / (1.0 - self.dropout_ratio))
        return _product(xs, self.mask)


class Embedding(Layer):
    """Rows of a table: ``y[n] = W[idx[n]]``.

    Parameters
    ----------
    W : ndarray (V, D)

    Notes
    -----
    Source: Saito, *Deep Learning from Scratch 2*, section 4.1.

    Examples
    --------
    >>> Embedding(np.eye(2)).forward(np.array([1, 0]))
    array([[0., 1.],
           [1., 0.]])
    """

    def __init__(self, W: np.ndarray) -> None:
        self._time = TimeEmbedding(W)
        self._hold(self._time.params, self._time.grads)

    def _shown(self) -> dict[str, Any]:
        return self._time._shown()

    def forward(self, idx: np.ndarray) -> np.ndarray:
        """Rows (..., D) of the ids `idx`, of any shape."""
        ids = np.asanyarray(idx)
        return self._time.forward(ids.reshape(1, -1)).reshape(*ids.shape, self._time.embed_size)

    def backward(self, dout: np.ndarray) -> None:
        """Overwrite `grads[0]` with the gradient of the table, from `dout` (..., D) of the last output."""
        dout = np.asanyarray(dout)
        expected = (*dout.shape[:-1], self._time.embed_size)
        dout = _check.arrays.shape("Embedding.backward", "dout", dout, expected)
        self._time.backward(dout.reshape(1, -1, self._time.embed_size))
