"""The layers of one step, `RNN`, `LSTM` and `GRU`: against the reference and central differences."""

import cell_cases
import numpy as np
import pytest
import reference
from helpers import DTYPES, normal, poison, relative_distance
from rnnfast.kernels.product.tile import panel_width

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


@pytest.mark.parametrize("dtype", DTYPES)
def test_one_step_layers_equal_the_reference(dtype):
    rng = np.random.default_rng(5)
    N, D, H = 5, 3, panel_width(np.dtype(np.float32)) // 2 + 1
    for kind, one_step, naive in (
        ("lstm", LSTM, reference.LSTM),
        ("gru-before", GRU, reference.GRU),
        ("gru-after", GRU, reference.GRU),
    ):
        params = cell_cases.make(kind, D, H, dtype).params
        options = {"reset": "after", "bhh": params[3]} if kind == "gru-after" else {}
        layer = one_step(*params[:3], **options)
        if options:
            options["bhh"] = options["bhh"].astype(np.float64)
        twin = naive(*[p.astype(np.float64) for p in params[:3]], **options)
        x, *state = (normal(rng, (N, size), dtype) for size in ((D, H, H) if kind == "lstm" else (D, H)))
        dstate = [normal(rng, (N, H), dtype) for _ in state]
        results = []
        for cell in (layer, twin):
            reached, back = cell.forward(x, *state), cell.backward(*dstate)
            reached = reached if isinstance(reached, tuple) else (reached,)
            results.append([*reached, *back, *cell.grads])
        for actual, expected in zip(*results, strict=True):
            assert relative_distance(actual, expected) <= (1e-5 if dtype is np.float32 else 1e-11), kind
        assert all(kept is given for kept, given in zip(layer.params, params, strict=True))
