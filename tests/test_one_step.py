"""The layers of one step, `RNN`, `LSTM` and `GRU`: every gradient against central differences."""

import numpy as np
import pytest
import reference
from helpers import poison, relative_distance

from rnnfast import GRU, LSTM, RNN

N, D, H = 3, 4, 5


def make(kind):
    """A layer with biases that matter."""
    rng = np.random.default_rng(0)
    name, _, reset = kind.partition("-")
    options = {"reset": reset} if reset else {}
    kind_of_layer = {"RNN": RNN, "LSTM": LSTM, "GRU": GRU}[name]
    layer = kind_of_layer.from_sizes(D, H, rng=rng, dtype=np.float64, **options)
    for bias in layer.params[2:]:
        bias[...] = rng.standard_normal(bias.shape)
    return layer


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU-before", "GRU-after"])
def test_every_gradient_of_one_step_equals_central_differences(kind):
    layer, rng = make(kind), np.random.default_rng(1)
    names = ("h", "c") if kind == "LSTM" else ("h",)
    x, *state = (rng.standard_normal((N, width)) for width in (D, *(H for _ in names)))
    arriving = [rng.standard_normal((N, H)) for _ in names]

    def loss():
        reached = layer.forward(x, *state)
        reached = reached if isinstance(reached, tuple) else (reached,)
        return sum((array * d).sum() for array, d in zip(reached, arriving, strict=True))

    loss()
    poison(layer._time, keep=layer._time._run.saved)
    dx, *dstate = layer.backward(*arriving)
    actual = {"dx": (dx, x)}
    actual |= {f"d{n}_prev": pair for n, *pair in zip(names, dstate, state, strict=True)}
    parameters = ("dWx", "dWh", "db", "dbhh")[: 4 if kind == "GRU-after" else 3]
    actual |= {n: (grad.copy(), p) for n, grad, p in zip(parameters, layer.grads, layer.params, strict=True)}
    for name, (gradient, array) in actual.items():
        expected = reference.central_differences(loss, array, step=1e-6)
        assert relative_distance(gradient, expected) <= 1e-6, name
