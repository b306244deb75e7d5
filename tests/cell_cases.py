"""Every kind of recurrent layer, its naive twin, and windows with all options."""

import numpy as np
import reference
from helpers import normal, poison, poisoned, relative_distance

from rnnfast import TimeGRU, TimeLSTM, TimeRNN
from rnnfast.layers.recurrent import Recurrent

# The layers that have a class of their own, and what makes them differ.
_LAYERS = {
    "rnn": (TimeRNN, {}),
    "relu": (TimeRNN, {"activation": "relu"}),
    "lstm": (TimeLSTM, {}),
    "gru-before": (TimeGRU, {"reset": "before"}),
    "gru-after": (TimeGRU, {"reset": "after"}),
}
KINDS = tuple(_LAYERS)


def make(kind, D, H, dtype, *, seed=0, stateful=True):
    """A layer with biases that matter."""
    rng = np.random.default_rng(seed)
    made, options = _LAYERS[kind]
    layer = made.from_sizes(D, H, rng=rng, dtype=dtype, stateful=stateful, **options)
    for bias in layer.params[2:]:
        bias[...] = rng.standard_normal(bias.shape) * 0.5
    if kind == "relu":
        layer.params[1] *= dtype(0.5)  # or long windows explode
    return layer


def _arguments(layer, params):
    """What makes a layer like this one on these parameters."""
    options = {name: getattr(layer, name) for name in ("activation", "reset") if hasattr(layer, name)}
    return {**dict(zip(layer.parameter_names, params, strict=True)), "stateful": layer.stateful, **options}


def another(layer, params=None):
    """A fresh layer on the same parameters, or on those given."""
    params = layer.params if params is None else params
    if type(layer) is Recurrent:
        return Recurrent(layer.cell, params, layer.stateful, precision=layer.precision)
    return type(layer)(**_arguments(layer, params), precision=layer.precision)


def naive_twin(layer):
    """The reference with the parameters of a layer, which rounds products if the layer does."""
    params = [param.astype(np.float64) for param in layer.params]
    if layer.rounds:
        params = [param.view(reference.Rounded) for param in params]
    return getattr(reference, type(layer).__name__)(**_arguments(layer, params))


class Window:
    """Inputs, gradients that arrive, initial state, lengths and resets; what lies behind an end is NaN."""

    def __init__(self, layer, N, T, *, seed=1, lengths=False, resets=False, state=True, next_gradient=True):
        rng = np.random.default_rng(seed)
        D, H, dtype = layer.input_size, layer.hidden_size, layer.dtype.type
        self.xs, self.dhs = normal(rng, (N, T, D), dtype), normal(rng, (N, T, H), dtype) * dtype(0.3)
        self.state = [normal(rng, (N, H), dtype) for _ in layer.cell.states] if state else None
        arriving = [normal(rng, (N, H), dtype) for _ in layer.cell.states] if next_gradient else []
        self.next_gradient = {
            f"d{name}_next": d for name, d in zip(layer.cell.states, arriving, strict=False)
        }
        self.options = {}
        if lengths:
            self.options["lengths"] = rng.integers(0, T + 1, N)
            for n, length in enumerate(self.options["lengths"]):
                self.xs[n, length:] = np.nan
                self.dhs[n, length:] = np.nan
        if resets:
            self.options["reset"] = rng.random((N, T)) < 0.3

    def forward(self, layer):
        """Outputs of a layer or a twin from the window's state."""
        wide = (lambda a: a) if hasattr(layer, "_workspace") else (lambda a: a.astype(np.float64))
        if self.state is None:
            layer.reset_state()
        else:
            layer.set_state(*map(wide, self.state))
        return layer.forward(wide(self.xs), **self.options)


def run(layer, window):
    """Every result of one forward and backward; all that must be overwritten is poisoned first."""
    poison(layer)
    hs = window.forward(layer)
    result = {"hs": hs, **dict(zip(layer.cell.states, layer.get_state(), strict=True))}
    poison(layer, keep=layer._run.saved)
    dxs = poisoned(window.xs.shape, layer.dtype)
    assert layer.backward(window.dhs, **window.next_gradient, out=dxs) is dxs
    result["dxs"] = dxs
    names = [f"d{name}" for name in layer.cell.states]
    result |= dict(zip(names, layer.get_state_gradients(), strict=True))
    return result | gradients(layer)


def naive_run(twin, window):
    """The same of the twin."""
    result = {"hs": window.forward(twin), **dict(zip(twin.names, twin.state, strict=True))}
    wide = {name: d.astype(np.float64) for name, d in window.next_gradient.items()}
    dhs = np.where(np.isnan(window.dhs), 0, window.dhs).astype(np.float64)
    result["dxs"] = twin.backward(dhs, **wide)
    result |= {f"d{name}": d for name, d in zip(twin.names, twin.dstate, strict=True)}
    return result | gradients(twin)


def gradients(layer):
    return {name: d.copy() for name, d in zip(("dWx", "dWh", "db", "dbhh"), layer.grads, strict=False)}


def assert_close(actual, expected, limit):
    assert actual.keys() == expected.keys()
    for name in expected:
        assert relative_distance(actual[name], expected[name]) <= limit, name
