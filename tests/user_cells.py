"""Every ready cell and cells as users write them; layers of them, windows with all options, a naive twin."""

import numpy as np
from cell_cases import Window
from helpers import poison, poisoned
from rnnfast.kernels.elementwise.noise import bernoulli_forward, normal_forward

from rnnfast import cells
from rnnfast.cells import (
    READY,
    bernoulli,
    cell,
    constant,
    given,
    maximum,
    normal,
    relu,
    scalar,
    sigmoid,
    softplus,
    step,
    stop_gradient,
    tanh,
    unit,
    where,
    zoneout,
)


@cell(states=("h", "v"))
def driven(a, h, v, *, alpha=unit(0.3), gain=scalar(0.8), floor=constant(-0.4), drive=given()):
    """A given array, a parameter of units, one of the layer, and a constant."""
    v = v + alpha * (a - v) + gain * drive
    return maximum(v, floor), v


@cell(states=("h", "c"), again=("n", "m"))
def twice(z, n, m, h, c, *, noise=normal(0.2), peep=unit(0.5)):
    """Two gates that wait for an operand, and two states: the tape is always kept."""
    z = sigmoid(z + peep * c)
    operand = z * h - c
    c = (1 - z) * c + z * tanh(n(operand)) + noise
    return tanh(c) * sigmoid(m(operand)), c


@cell(states=("h", "v", "s"), apart=("n",))
def everything(
    f, n, h, v, s, *, alpha=unit(0.3), gain=scalar(0.8), tau=constant(1.25), drive=given(), pace=given(),
    noise=normal(0.1), stays=bernoulli(0.7),
):  # fmt: skip
    """All that a cell may have."""
    f = sigmoid(f + alpha * v)
    v = f * v + (1 - f) * tanh(n.x + gain * n.h) * softplus(drive) / tau + noise
    fired = step(v - 0.3 - stop_gradient(s) * tau)
    s = where(fired > 0.5, s * 0.5 + pace, s * alpha)
    return stays * h + (1 - stays) * (relu(v) + fired * v), v, s


CELLS = {
    one.name: one
    for one in (*READY, zoneout(cells.lstm, 0.2), zoneout(cells.min_gru, 0.3), driven, twice, everything)
}
RANDOM = [name for name, one in CELLS.items() if one.random]


def layer_of(name, D=3, H=5, dtype=np.float32, *, seed=0, stateful=True):
    """A layer whose parameters all matter."""
    rng = np.random.default_rng(seed)
    layer = CELLS[name].layer(D, H, rng=rng, dtype=dtype, stateful=stateful)
    for param in layer.params:
        spread = rng.standard_normal((2, *param.shape)) / 5
        param[...] = np.where(param == 0, spread[0], param * (1 + spread[1]))
    if name == "relu":
        layer.params[1] *= dtype(0.5)  # or long windows explode
    return layer


class CellWindow(Window):
    """A window with the cell's given arrays, whose random numbers are the same at each run.

    `lengths` may be an array (N,) of them.
    """

    def __init__(self, layer, N, T, *, lengths=False, **options):
        super().__init__(layer, N, T, lengths=lengths is True, **options)
        if np.ndim(lengths):
            self.options["lengths"] = np.asarray(lengths)
        rng, dtype = np.random.default_rng(2), layer.dtype.type
        roles = layer.cell.roles
        self.given = {name: rng.standard_normal((N, T, layer.hidden_size)).astype(dtype)
                      for name in layer.cell.rows if roles[name].kind == "given"}  # fmt: skip
        for n, length in enumerate(self.options.get("lengths", ())):
            for array in (self.xs, self.dhs, *self.given.values()):
                array[n, length:] = np.nan

    def forward(self, layer):
        layer.rng_state = layer.rng_state[0], 0
        layer.set_state(*self.state) if self.state is not None else layer.reset_state()
        return layer.forward(self.xs, **self.options, **self.given)

    def rows(self, chosen):
        """The window of some of its sequences."""
        part = object.__new__(CellWindow)
        part.xs, part.dhs = self.xs[chosen], self.dhs[chosen]
        part.state = None if self.state is None else [state[chosen] for state in self.state]
        part.next_gradient = {name: d[chosen] for name, d in self.next_gradient.items()}
        part.options = {name: array[chosen] for name, array in self.options.items()}
        part.given = {name: array[chosen] for name, array in self.given.items()}
        return part


def run_all(layer, window):
    """Every result of one forward and backward; all that must be overwritten is poisoned first."""
    poison(layer)
    hs = window.forward(layer)
    result = {"hs": hs, **dict(zip(layer.cell.states, layer.get_state(), strict=True))}
    poison(layer, keep=[array for array in (*layer._run.saved, layer._run.given) if array is not None])
    dxs = poisoned(window.xs.shape, layer.dtype)
    assert layer.backward(window.dhs, **window.next_gradient, out=dxs) is dxs
    result["dxs"] = dxs
    names = [*layer.cell.states, *layer.parameter_names]
    arrays = [*layer.get_state_gradients(), *(grad.copy() for grad in layer.grads)]
    result |= {f"d{name}": array for name, array in zip(names, arrays, strict=True)}
    return result | {f"d{name}": d for name, d in (layer.given_gradients if window.given else {}).items()}


def drawn(layer, N, T):
    """The random arguments (N, T, H) of a layer's first window, in float64."""
    rows = {}
    for name in layer.cell.random:
        role, numbers = layer.cell.roles[name], np.empty((N, T, layer.hidden_size), layer.dtype)
        draw = normal_forward if role.kind == "normal" else bernoulli_forward
        draw(layer.rng_state[0], layer.cell.rows.index(name), 0, 0, role.value, numbers)
        rows[name] = numbers.astype(np.float64)
    return rows
