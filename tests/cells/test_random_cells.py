"""Random cells: values and gradients against PyTorch's autograd, bits over batches, chunks and threads.

RNNFAST_CELLS is the number of cells, 3 by default; 300 take two hours of one core. RNNFAST_CELLS_SEED is the
first seed. PyTorch runs the source of each cell, with functions of its own and surrogates as
`torch.autograd.Function`; random numbers and given arrays are the layer's.
"""

import itertools
import os

import numpy as np
import pytest
from helpers import assert_same_bits, kernel_calls, needs_jit
from user_cells import CellWindow, drawn, run_all

import rnnfast
from rnnfast import cells
from rnnfast.layers import plans

torch = pytest.importorskip("torch")

FIRST = int(os.environ.get("RNNFAST_CELLS_SEED", "0"))
SEEDS = range(FIRST, FIRST + int(os.environ.get("RNNFAST_CELLS", "3")))
LIMIT = 1e-11  # of the norm, for gradients in float64
SURROGATES = (
    "",
    ", surrogate=lambda x: 1 / (1 + 5 * abs(x)) ** 2",
    ", surrogate=lambda x: sigmoid(4 * x) * (1 - sigmoid(4 * x))",
    ", surrogate=lambda x: where(abs(x) < 0.5, 1, 0)",
    ", surrogate=lambda x: 0.5 * exp(-x * x)",
    ", surrogate=lambda x: relu(1 - abs(x)) * 0.3",
)
ROLES = {
    "alpha": "unit(0.3)", "gain": "scalar(0.8)", "tau": "constant(1.25)", "drive": "given()",
    "pace": "given()", "noise": "normal(0.2)", "stays": "bernoulli(0.6)",
}  # fmt: skip
FORMS = (
    "({x} + {y})", "({x} - {y})", "{name} * ({x})", "({x}) * tanh({y})", "({x}) / (1 + abs({y}))", "(-({x}))",
    "abs({x})", "sigmoid({x})", "tanh({x})", "exp(minimum({x}, 0.5))", "log(1 + ({x}) * ({x}))",
    "sqrt(1 + ({x}) ** 2)", "softplus({x})", "relu({x})", "maximum({x}, {y})", "minimum({x}, {number})",
    "where({x} > {y}, {z}, {u})", "where({x} <= {number}, {y}, {number})", "stop_gradient({x})",
    "step({x} - 0.2{surrogate})", "step({x}{surrogate}) * ({y})", "tanh({x}) ** {power}",
)  # fmt: skip
STATES = (
    "tanh({0})", "0.6 * {1} + 0.4 * tanh({0})", "minimum(maximum({0}, -2), 2)", "sigmoid({0})",
    "step({0}{2})", "0.5 * {1} + 0.5 * sigmoid(step({0}{2}))",
)  # fmt: skip
KINDS = ("h", "h", "diagonal", "none", "apart", "again", "again")


class Source:
    """The Python source of a random cell, and its options."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)
        kind = self.choice(KINDS)
        gates = ["f", "g", "m", "n"][: self.rng.integers(1, 5)]
        self.states = ["h", "c", "s"][: self.rng.integers(1, 4)]
        late = gates[-self.rng.integers(1, len(gates) + 1) :] if kind in ("apart", "again") else []
        roles = [name for name in ROLES if self.rng.random() < 0.45]
        self.options = {"product": {"none": None, "diagonal": kind}.get(kind, "h")}
        self.options |= {kind: tuple(late)} if late else {}
        self.names = [*self.states, *roles, *(gate for gate in gates if gate not in late)]
        self.unread, self.lines = {*self.names}, []
        if kind == "apart":
            self.learn(*(f"{gate}.{part}" for gate in late for part in "xh"))
        if self.rng.random() < 0.5:
            self.assign("early")
        if kind == "again":
            self.lines.append(f"operand = {self.operand()}")
            self.lines += [f"{gate} = {gate}(operand)" for gate in late]
            self.learn(*late)
        for index in range(self.rng.integers(1, 5)):
            self.assign(f"t{index}")
        if self.rng.random() < 0.4:
            self.two_steps()
        results = [self.state(name) for name in self.states]
        arguments = ", ".join([*gates, *self.states, "*", *(f"{name}={ROLES[name]}" for name in roles)])
        body = "".join(f"    {line}\n" for line in [*self.lines, f"return {', '.join(results)}"])
        self.text = f"def mine({arguments.removesuffix(', *')}):\n{body}"

    def choice(self, values):
        return values[self.rng.integers(len(values))]

    def learn(self, *names):
        self.names += names
        self.unread.update(names)

    def assign(self, name):
        self.lines.append(f"{name} = {self.value(self.rng.integers(1, 4))}")
        self.learn(name)

    def operand(self):
        """What multiplies Wh: mostly a formula, sometimes a name or a number."""
        kind = self.rng.random()
        return self.value(2) if kind < 0.7 else self.name() if kind < 0.95 else "0.5"

    def two_steps(self):
        """Two steps of one operand, with a surrogate each."""
        first, second = self.rng.permutation(len(SURROGATES))[:2]
        x = self.value(1)
        self.lines.append(f"both = {x} - 0.1")
        self.lines.append(f"first = step(both{SURROGATES[first]}) * {self.value(1)}")
        self.lines.append(f"second = step(both{SURROGATES[second]})")
        self.learn("first", "second")

    def state(self, name):
        """A state after the step, in bounds; what nothing has read yet goes into it."""
        value = self.value(2)
        for one in sorted(self.unread):
            value = f"{value} + 0.4 * {one}"
        self.unread.clear()
        return self.choice(STATES).format(value, name, self.choice(SURROGATES))

    def name(self):
        waiting = sorted(self.unread)
        name = self.choice(waiting if waiting and self.rng.random() < 0.5 else self.names)
        self.unread.discard(name)
        return name

    def value(self, depth):
        if not depth or self.rng.random() < 0.1:
            return (
                self.name() if self.rng.random() < 0.9 else f"{self.rng.uniform(-1, 1):.2f} * {self.name()}"
            )
        form = self.choice(FORMS)
        parts = {letter: self.value(depth - 1) for letter in "xyzu" if f"{{{letter}}}" in form}
        if "{name}" in form:
            parts["name"] = self.name()
        number, power = f"{self.rng.uniform(-1, 1):.2f}", self.rng.integers(2, 5)
        return form.format(number=number, power=power, surrogate=self.choice(SURROGATES), **parts)

    def made(self, names):
        """The function with these names."""
        names = {**names}
        exec(compile(self.text, "<random cell>", "exec"), names)
        return names["mine"]


class Step(torch.autograd.Function):
    """1 above 0, with a surrogate as derivative."""

    @staticmethod
    def forward(context, x, surrogate):
        context.save_for_backward(x)
        context.surrogate = surrogate
        return (x > 0).to(x.dtype)

    @staticmethod
    def backward(context, d):
        (x,) = context.saved_tensors
        return d * context.surrogate(x), None


def _of_tensors(function):
    def called(*values):
        return function(*(
            value if torch.is_tensor(value) else torch.tensor(float(value), dtype=torch.float64)
            for value in values
        ))  # fmt: skip

    return called


def _torch_step(x, *, surrogate=lambda x: 1 / (1 + 10 * abs(x)) ** 2):
    return Step.apply(x, surrogate)


TORCH = {name: _of_tensors(getattr(torch, name)) for name in (
    "exp", "log", "sqrt", "tanh", "sigmoid", "relu", "maximum", "minimum", "where",
)}  # fmt: skip
TORCH["softplus"] = _of_tensors(lambda x: torch.logaddexp(x, torch.zeros_like(x)))
TORCH |= {"step": _torch_step, "stop_gradient": lambda x: x.detach()}
TORCH |= {name: lambda *_: None for name in ("unit", "scalar", "constant", "given", "normal", "bernoulli")}


def by_autograd(source, layer, window):
    """Every result of `run_all`, by the source of the cell in PyTorch."""
    cell, step = layer.cell, source.made(TORCH)
    count, (N, T, _) = len(cell.gates), window.xs.shape

    def leaf(array):
        return torch.tensor(array, dtype=torch.float64, requires_grad=True)

    params = {name: leaf(param) for name, param in zip(layer.parameter_names, layer.params, strict=True)}
    xs, before = leaf(window.xs), [leaf(state) for state in window.state]
    given = {
        name: leaf(np.broadcast_to(array.reshape(N, T, -1), (N, T, layer.hidden_size)))
        for name, array in window.given.items()
    }
    rows = {**given, **{name: torch.tensor(array) for name, array in drawn(layer, N, T).items()}}
    named = {name: params[name] for name in cell.roles if name in params}
    named |= {name: torch.tensor(value, dtype=torch.float64) for name, value in layer.constants.items()}
    weights = params["Wh"].chunk(count, -1) if "Wh" in params else None
    second = (
        dict(zip(cell.apart, params["bhh"].chunk(len(cell.apart), -1), strict=True)) if cell.apart else {}
    )
    states, hs = before, []
    for t in range(T):
        gates = []
        for k, name in enumerate(cell.gates):
            of_x = xs[:, t] @ params["Wx"].chunk(count, -1)[k] + params["b"].chunk(count, -1)[k]
            if name in cell.again:
                gates.append(
                    lambda operand, of_x=of_x, k=k: (
                        of_x + torch.as_tensor(operand).expand(of_x.shape).to(of_x) @ weights[k]
                    )
                )
            elif name in cell.apart:
                gates.append(type("Gate", (), {"x": of_x, "h": states[0] @ weights[k] + second[name]}))
            elif weights is None:
                gates.append(of_x)
            else:
                of_h = states[0] * weights[k] if cell.product == "diagonal" else states[0] @ weights[k]
                gates.append(of_x + of_h)
        after = step(*gates, *states, **named, **{name: array[:, t] for name, array in rows.items()})
        states = [*after] if isinstance(after, tuple) else [after]
        hs.append(states[0])
    result = {"hs": torch.stack(hs, 1), **dict(zip(cell.states, states, strict=True))}
    arriving = [window.dhs, *(window.next_gradient[f"d{name}_next"] for name in cell.states)]
    loss = sum((one * torch.tensor(d)).sum() for one, d in zip(result.values(), arriving, strict=True))
    leaves = {"xs": xs, **dict(zip(cell.states, before, strict=True)), **params, **given}
    loss.backward() if loss.requires_grad else None
    gradients = {
        f"d{name}": torch.zeros_like(one) if one.grad is None else one.grad for name, one in leaves.items()
    }
    return {name: one.detach().numpy() for name, one in (result | gradients).items()}


def layer_of(cell, D, H):
    layer = cell.layer(D, H, rng=np.random.default_rng(0), dtype=np.float64, stateful=True)
    rng = np.random.default_rng(1)
    for param in layer.params:
        spread = rng.standard_normal((2, *param.shape)) / 5
        param[...] = np.where(param == 0, spread[0], param * (1 + spread[1]))
    return layer


def window_of(layer, N, T, **options):
    """A window whose array `pace` has one number for all units."""
    window = CellWindow(layer, N, T, **options)
    if "pace" in window.given:
        window.given["pace"] = np.ascontiguousarray(window.given["pace"][..., 0])
    return window


def assert_same(actual, expected, layer=None, chosen=None):
    """The same bits; with `layer`, of the sequences `chosen` of the expected results."""
    weights = {f"d{name}" for name in layer.parameter_names} if layer else ()
    for name, array in expected.items():
        if name not in weights:
            assert_same_bits(actual[name], array if layer is None else array[chosen])


@needs_jit
@pytest.mark.parametrize("seed", SEEDS)
def test_a_random_cell_has_the_gradients_of_autograd_and_bits_that_depend_on_nothing_else(
    seed, shared_windows, monkeypatch
):
    source, calls = Source(seed), kernel_calls(monkeypatch)
    print(f"\ncell {seed} {source.options} {source.states}\n{source.text}")
    cell = rnnfast.cell(source.made(vars(cells)), states=source.states, **source.options)
    rnnfast.set_num_threads(1)

    layer = layer_of(cell, 3, 5)
    window = window_of(layer, 5, 7)
    whole, expected = run_all(layer, window), by_autograd(source, layer, window)
    assert whole.keys() == expected.keys()
    least, worst = 1e-3 * max(map(np.linalg.norm, expected.values())), 0.0
    for name, array in expected.items():
        distance = np.linalg.norm(whole[name] - array) / max(np.linalg.norm(array), least)
        worst = max(worst, distance)
        assert distance <= LIMIT, (name, distance)
    cell.describe()
    print(f"cell {seed}: differs from autograd by {worst:.1e}, from differences by "
          f"{cell.check(rng=np.random.default_rng(seed)):.1e}")  # fmt: skip

    # A row alone; random numbers are those of the row's number.
    for chosen in (slice(1), slice(3), *(() if cell.random else ([3], [4, 0, 2]))):
        assert_same(run_all(layer, window.rows(chosen)), whole, layer, chosen)

    # Chunks, with the state carried.
    layer.set_state(*window.state)
    layer.rng_state = layer.rng_state[0], 0
    for first, last in itertools.pairwise((0, 1, 4, 7)):
        given = {name: array[:, first:last] for name, array in window.given.items()}
        assert_same_bits(layer.forward(window.xs[:, first:last], **given), whole["hs"][:, first:last])
    for state, name in zip(layer.get_state(), cell.states, strict=True):
        assert_same_bits(state, whole[name])

    # Threads, by sequences and by units, and a tape made again.
    for N, T, H in ((9, 17, 19), (2, 200, 35)):
        layer = layer_of(cell, 7, H)
        window = window_of(layer, N, T, lengths=N > 8, resets=N > 8)
        one = run_all(layer, window)
        rnnfast.set_num_threads(2)
        assert_same(run_all(layer, window), one)  # the first call on threads runs alone
        calls.clear()
        assert_same(run_all(layer, window), one)
        assert set(calls) == {(2, N < 8)}
        with monkeypatch.context() as patch:
            patch.setattr(plans, "KEPT_BYTES", 0)
            assert_same(run_all(layer, window), one)
        rnnfast.set_num_threads(1)
