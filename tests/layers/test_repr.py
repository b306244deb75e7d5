"""How objects show themselves: one line with what tells them apart, like the call that makes them."""

import inspect

import numpy as np
import pytest

import rnnfast
from rnnfast import optim, time_layers
from rnnfast.layers.base import Layer

F32, F64 = np.float32, np.float64


def lstm(dtype=F32, **options):
    return rnnfast.TimeLSTM.from_sizes(3, 4, dtype=dtype, **options)


def matrix(dtype=F32):
    return np.zeros((3, 4), dtype)


def one_step(kind, **options):
    time = getattr(rnnfast, f"Time{kind}").from_sizes(3, 4, **options)
    return getattr(time_layers, kind)(*time.params[:3], **options)


INNER = "TimeLSTM(input_size=3, hidden_size=4, stateful=False)"
SHOWN = {
    "TimeLSTM(input_size=3, hidden_size=4, stateful=True)": lambda: lstm(stateful=True),
    "TimeLSTM(input_size=3, hidden_size=4, stateful=False, dtype=float64)": lambda: lstm(F64),
    "TimeRNN(input_size=3, hidden_size=4, stateful=False, activation='relu')": lambda: (
        rnnfast.TimeRNN.from_sizes(3, 4, activation="relu")
    ),
    "TimeGRU(input_size=3, hidden_size=4, stateful=False, reset='after')": lambda: rnnfast.TimeGRU.from_sizes(
        3, 4, reset="after"
    ),
    "Recurrent(cell=<cell li_gru(z, n, h)>, input_size=3, hidden_size=4, stateful=False)": lambda: (
        rnnfast.cells.li_gru.layer(3, 4)
    ),
    "RNN(input_size=3, hidden_size=4)": lambda: one_step("RNN"),
    "LSTM(input_size=3, hidden_size=4)": lambda: one_step("LSTM"),
    "GRU(input_size=3, hidden_size=4, reset='before')": lambda: one_step("GRU"),
    f"Bidirectional(layer_forward={INNER}, layer_backward={INNER})": lambda: rnnfast.Bidirectional(
        lstm(), lstm()
    ),
    f"TimeBiLSTM(layer_forward={INNER}, layer_backward={INNER})": lambda: rnnfast.TimeBiLSTM(
        *lstm().params, *lstm().params
    ),
    f"Stack(layers=[{INNER}])": lambda: rnnfast.Stack([lstm()]),
    f"Stack(layers=[{INNER}, {INNER.replace('3', '4')}], dropout=0.5)": lambda: rnnfast.Stack(
        [lstm(), rnnfast.TimeLSTM.from_sizes(4, 4)], 0.5
    ),
    "TimeAffine(input_size=3, output_size=4)": lambda: rnnfast.TimeAffine(matrix(), matrix()[0]),
    "Affine(input_size=3, output_size=4, dtype=float64)": lambda: time_layers.Affine(
        matrix(F64), matrix(F64)[0]
    ),
    "MatMul(input_size=3, output_size=4)": lambda: time_layers.MatMul(matrix()),
    "TimeEmbedding(vocab_size=3, embed_size=4)": lambda: rnnfast.TimeEmbedding(matrix()),
    "Embedding(vocab_size=3, embed_size=4)": lambda: time_layers.Embedding(matrix()),
    "TimeContextSum(vocab_size=3, embed_size=4, window=2)": lambda: rnnfast.TimeContextSum(matrix(), 2),
    "TimeDropout(dropout_ratio=0.5, per_step=False)": lambda: rnnfast.TimeDropout(per_step=False),
    "BookDropout(dropout_ratio=0.3)": lambda: time_layers.Dropout(0.3),
    "BookTimeDropout(dropout_ratio=0.5)": lambda: time_layers.TimeDropout(),
    "TimeSoftmaxWithLoss(ignore_label=-1)": lambda: rnnfast.TimeSoftmaxWithLoss(),
    "TimeAffineSoftmaxWithLoss(hidden_size=3, vocab_size=4, ignore_label=-1)": lambda: (
        rnnfast.TimeAffineSoftmaxWithLoss(matrix(), matrix()[0])
    ),
    "TimeAffineSquaredLoss(hidden_size=3, output_size=4)": lambda: rnnfast.TimeAffineSquaredLoss(
        matrix(), matrix()[0]
    ),
    "TimeAffineWithLoss(hidden_size=3, output_size=2, head='gaussian')": lambda: rnnfast.TimeAffineWithLoss(
        matrix(), matrix()[0], "gaussian"
    ),
    "TimeSigmoidWithLoss()": rnnfast.TimeSigmoidWithLoss,
    "SoftmaxWithLoss()": time_layers.SoftmaxWithLoss,
    "SigmoidWithLoss()": time_layers.SigmoidWithLoss,
    "Softmax()": time_layers.Softmax,
    "Sigmoid()": time_layers.Sigmoid,
    "RNNLM(vocab_size=7, embed_size=8, hidden_size=8, cell='lstm', layers=2, parameters=1,207)": lambda: (
        rnnfast.RNNLM(7, 8, 8, cell="lstm", layers=2)
    ),
    "RNNLM(vocab_size=7, embed_size=8, hidden_size=8, cell='rnn', layers=1, dropout=0.5, tied=True, "
    "parameters=199, dtype=float64)": lambda: rnnfast.RNNLM(7, 8, 8, dropout=0.5, tied=True, dtype=F64),
    "CBOWLM(vocab_size=7, embed_size=8, window=2, parameters=119)": lambda: rnnfast.CBOWLM(7, 8),
    "SequenceRegressor(input_size=3, hidden_size=4, output_size=1, cell='gru', layers=1, parameters=101)": (
        lambda: rnnfast.SequenceRegressor(3, 4, 1, cell="gru")
    ),
    "SGD(lr=1.0)": lambda: optim.SGD(lr=1),
    "Momentum(lr=0.01, momentum=0.9)": optim.Momentum,
    "Nesterov(lr=0.01, momentum=0.9)": optim.Nesterov,
    "AdaGrad(lr=0.01, eps=1e-07)": optim.AdaGrad,
    "RMSprop(lr=0.01, decay_rate=0.99, eps=1e-07)": optim.RMSprop,
    "Adam(lr=0.002, beta1=0.9, beta2=0.999, eps=1e-07)": lambda: optim.Adam(lr=np.float64(0.002)),
    "AdamW(lr=0.001, beta1=0.9, beta2=0.999, eps=1e-08, weight_decay=0.01)": optim.AdamW,
    "Trainer(model=CBOWLM(vocab_size=7, embed_size=8, window=2, parameters=119), optimizer=SGD(lr=1.0), "
    "bptt=TruncatedBPTT(35), clip_norm=0.25, anneal=4.0, shuffle=True)": lambda: rnnfast.Trainer(
        rnnfast.CBOWLM(7, 8), optim.SGD(lr=1.0)
    ),
    "TruncatedBPTT(5, 10)": lambda: rnnfast.TruncatedBPTT(5, 10),
    "ExactBPTT(chunk=7)": lambda: rnnfast.ExactBPTT(chunk=7),
}


@pytest.mark.parametrize("expected", SHOWN)
def test_an_object_shows_what_tells_it_apart(expected):
    assert repr(SHOWN[expected]()) == expected


def test_every_public_layer_model_and_optimizer_is_looked_at_here():
    looked_at = {type(make()) for make in SHOWN.values()}
    modules = (rnnfast, optim, time_layers)
    public = [getattr(module, name) for module in modules for name in module.__all__]
    bases = (Layer, optim.Optimizer, rnnfast.Trainer)
    kinds = {value for value in public if inspect.isclass(value) and issubclass(value, bases)}
    kinds |= {rnnfast.RNNLM, rnnfast.CBOWLM, rnnfast.SequenceRegressor}
    assert kinds - {optim.Optimizer} - looked_at == set()


def test_what_an_object_shows_follows_its_settings():
    optimizer, layer = optim.SGD(lr=1.0), rnnfast.TimeSoftmaxWithLoss()
    optimizer.lr, layer.ignore_label = 0.25, 3
    assert (repr(optimizer), repr(layer)) == ("SGD(lr=0.25)", "TimeSoftmaxWithLoss(ignore_label=3)")


def test_an_optimizer_and_a_layer_of_ones_own_show_themselves_too():
    class Mine(optim.SGD):
        """Nothing of its own."""

    class Doubling(Layer):
        def __init__(self):
            self._hold()

    assert (repr(Mine(lr=0.5)), repr(Doubling())) == ("Mine(lr=0.5)", "Doubling()")
