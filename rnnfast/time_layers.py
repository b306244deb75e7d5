"""The layers of *Deep Learning from Scratch 2*, compiled: change ``from common.time_layers import *`` to
``from rnnfast.time_layers import *``.

Names, constructors, shapes, gate order, the identity of `params` and `grads`, and values equal those of the
book's `common/time_layers.py`, including its star imports (`np`, the functions and the layers of one step).
Losses and gradients agree with the book's arithmetic up to float32 rounding.

rnnfast differs on purpose in these points:

* `TimeSoftmaxWithLoss`, `SoftmaxWithLoss`: the loss is computed with log-sum-exp. The book gives NaN if a
  position is ignored and its last score underflows, infinity if the true class underflows, and NaN if every
  label is ignored; here the loss is the correct finite number, and 0 if every label is ignored.
* `TimeSigmoidWithLoss`, `SigmoidWithLoss`: the loss is exact; the book adds 1e-7 inside the logarithm.
* `sigmoid` does not overflow.
* `backward` may be called again and gives the same gradients; the book's loss layers change their cache.
* `TimeLSTM` also has `dc`, the gradient of the initial cell, and every recurrent `backward` takes `dh_next`.
* float64 stays float64; the book's recurrent layers always return float32. All arrays of a layer must have
  one dtype, and the error names the array that differs.
* `set_state` on a layer with ``stateful=False`` warns: the layer starts from zero anyway, as in the book.
* `h`, `c`, `dh` are copies.
* `SoftmaxWithLoss` ignores label -1, as `TimeSoftmaxWithLoss` does. The internal attributes of the book's
  layers (`y`, `t`, `layers`, `cache`) do not exist.
* Ids out of range and wrong shapes raise one-line errors.

>>> from rnnfast.time_layers import *
>>> rng = np.random.default_rng(0)
>>> Wx, Wh = (rng.standard_normal(shape).astype("f") for shape in ((3, 16), (4, 16)))
>>> layer = TimeLSTM(Wx, Wh, np.zeros(16, "f"), stateful=True)
>>> hs = layer.forward(np.ones((2, 5, 3), "f"))
>>> dxs = layer.backward(np.ones_like(hs))
>>> dxs.shape, layer.dh.shape
((2, 5, 3), (2, 4))
"""

import numpy as np

from rnnfast.book.bi_lstm import TimeBiLSTM
from rnnfast.book.binary_loss import TimeSigmoidWithLoss
from rnnfast.book.recurrent import GRU, LSTM, RNN
from rnnfast.book.simple import (
    Affine,
    Embedding,
    MatMul,
    Sigmoid,
    SigmoidWithLoss,
    Softmax,
    SoftmaxWithLoss,
    cross_entropy_error,
    sigmoid,
    softmax,
)
from rnnfast.book.simple import BookDropout as Dropout
from rnnfast.book.simple import BookTimeDropout as TimeDropout
from rnnfast.layers.affine import TimeAffine
from rnnfast.layers.embedding import TimeEmbedding
from rnnfast.layers.gru import TimeGRU
from rnnfast.layers.loss import TimeSoftmaxWithLoss
from rnnfast.layers.lstm import TimeLSTM
from rnnfast.layers.rnn import TimeRNN

# The book introduces these in their simplest form and never calls them again.
Simple_TimeAffine = TimeAffine
Simple_TimeSoftmaxWithLoss = TimeSoftmaxWithLoss

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "Affine",
    "Dropout",
    "Embedding",
    "MatMul",
    "Sigmoid",
    "SigmoidWithLoss",
    "Simple_TimeAffine",
    "Simple_TimeSoftmaxWithLoss",
    "Softmax",
    "SoftmaxWithLoss",
    "TimeAffine",
    "TimeBiLSTM",
    "TimeDropout",
    "TimeEmbedding",
    "TimeGRU",
    "TimeLSTM",
    "TimeRNN",
    "TimeSigmoidWithLoss",
    "TimeSoftmaxWithLoss",
    "cross_entropy_error",
    "np",
    "sigmoid",
    "softmax",
]
