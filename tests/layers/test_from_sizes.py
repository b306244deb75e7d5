"""`from_sizes`: every layer with parameters is made from sizes, a generator and a dtype alone."""

import inspect

import numpy as np
import pytest
from helpers import DTYPES

import rnnfast
from rnnfast.layers.base import Layer
from rnnfast.layers.bidirectional import Bidirectional
from rnnfast.layers.stack import Stack

IN, OUT = 300, 40

# Layer: names of its sizes, other options, and the standard deviation of each parameter.
RECURRENT = ("input_size", "hidden_size"), {}, (IN**-0.5, OUT**-0.5, 0)
AFTER = RECURRENT[0], {"reset": "after"}, (*RECURRENT[2], 0)
LAYERS = [
    ("RNN", *RECURRENT),
    ("LSTM", *RECURRENT),
    ("GRU", *RECURRENT),
    ("GRU", *AFTER),
    ("TimeRNN", *RECURRENT),
    ("TimeLSTM", *RECURRENT),
    ("TimeGRU", *RECURRENT),
    ("TimeGRU", *AFTER),
    ("TimeAffine", ("input_size", "output_size"), {}, (IN**-0.5, 0)),
    ("TimeAffineSoftmaxWithLoss", ("hidden_size", "vocab_size"), {}, (IN**-0.5, 0)),
    ("TimeAffineSquaredLoss", ("hidden_size", "output_size"), {}, (IN**-0.5, 0)),
    ("TimeAffineWithLoss", ("hidden_size", "output_size"), {"head": "gaussian"}, (IN**-0.5, 0)),
    ("TimeEmbedding", ("vocab_size", "embed_size"), {}, (0.01,)),
    ("TimeContextSum", ("vocab_size", "embed_size"), {"window": 2}, (0.01,)),
]
all_layers = pytest.mark.parametrize(
    ("name", "sizes", "options", "deviations"), LAYERS, ids=[f"{n}-{o}" if o else n for n, _, o, _ in LAYERS]
)


@all_layers
def test_weights_are_drawn_as_in_the_book_and_biases_are_zero(name, sizes, options, deviations):
    make = getattr(rnnfast, name).from_sizes
    for dtype in DTYPES:
        layer, again = (make(IN, OUT, rng=np.random.default_rng(0), dtype=dtype, **options) for _ in "ab")
        assert len(layer.params) == len(deviations)
        for param, same, deviation in zip(layer.params, again.params, deviations, strict=True):
            assert param.dtype == dtype
            np.testing.assert_array_equal(param, same)
            assert param.std() == pytest.approx(deviation, rel=0.1)
            assert param.any() == (deviation > 0)
    assert make(2, 3, **options).params[0].dtype == np.float32
    assert layer.params[0].shape[0] == IN
    assert layer.params[-1].shape[-1] % OUT == 0


@all_layers
def test_wrong_sizes_dtypes_and_generators_are_refused_in_one_sentence(name, sizes, options, deviations):
    make = getattr(rnnfast, name).from_sizes
    owner = rf"^(Time)?{name}\.from_sizes"
    for rng in (3, np.random.RandomState(3), np.random):
        with pytest.raises(TypeError, match=rf"{owner}: rng must be a numpy\.random\.Generator, got \w+;"):
            make(2, 3, rng=rng, **options)
    for given, wrong in zip(((0, 3), (2, 0)), sizes, strict=True):
        with pytest.raises(ValueError, match=rf"{owner}: {wrong} must be at least 1, got 0\.$"):
            make(*given, **options)
    with pytest.raises(TypeError, match=rf"{owner}: dtype must be float32 or float64"):
        make(2, 3, dtype=np.float16, **options)


def test_every_public_layer_with_parameters_of_its_own_has_from_sizes():
    """`Stack` and `Bidirectional` are made of layers, which have it; a cell makes a `Recurrent`."""
    public = {name: getattr(rnnfast, name) for name in rnnfast.__all__}
    layers = {name for name, value in public.items() if inspect.isclass(value) and issubclass(value, Layer)}
    layers -= {name for name in layers if issubclass(public[name], Stack | Bidirectional)}
    assert layers - {name for name, *_ in LAYERS} == {
        "Recurrent", "TimeDropout", "TimeSigmoidWithLoss", "TimeSoftmaxWithLoss",
    }  # fmt: skip
