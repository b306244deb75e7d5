"""The layers of *Deep Learning from Scratch 2*, compiled: change ``from common.time_layers import *`` to
``from rnnfast.time_layers import *``.

Names, constructors, shapes, gate order, the identity of `params` and `grads`, and values are those of the
book's `common/time_layers.py`, and of what comes through its own star imports (`np`, the functions and the
layers of one step). Losses and gradients agree with the book's arithmetic to the rounding of float32.

Where rnnfast gives another result, on purpose:

* `TimeSoftmaxWithLoss`, `SoftmaxWithLoss`: the loss comes from the log-sum-exp. The book gives NaN where a
  position is ignored and its last score underflows, infinity where the true class underflows, and NaN where
  every label is ignored; here the loss is the right finite number, and 0 if no label is left.
* `TimeSigmoidWithLoss`, `SigmoidWithLoss`: the loss is exact; the book adds 1e-7 inside the logarithm.
* `sigmoid` does not overflow.
* `backward` may be called again and gives the same gradients; the book's loss layers change what they keep.
* `TimeLSTM` also has `dc`, the gradient of the initial cell, and every recurrent `backward` takes `dh_next`.
* float64 stays float64; the book's recurrent layers return float32 whatever the parameters are. All arrays
  of a layer must have one dtype, and the error says which one differs.
* `set_state` on a layer with ``stateful=False`` warns: like the book's, the layer starts from zero anyway.
* `h`, `c`, `dh` are copies.
* `SoftmaxWithLoss` leaves label -1 out, as `TimeSoftmaxWithLoss` does. What the book's layers keep for
  themselves (`y`, `t`, `layers`, `cache`) is not there.
* Ids out of range, and shapes that do not fit, are errors in one line.

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

# The book shows these first, in their simplest form, and then never calls them.
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
