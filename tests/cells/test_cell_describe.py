"""The text of a cell: its lines are the step and its gradient, and can be run."""

import itertools
import re

import numpy as np
import pytest
from rnnfast.kernels.cell.derive import gradient
from rnnfast.kernels.cell.expression import evaluate
from rnnfast.kernels.cell.schedule import Schedule

from rnnfast import cells
from rnnfast.cells import (
    READY,
    bernoulli,
    cell,
    constant,
    given,
    scalar,
    sigmoid,
    step,
    stop_gradient,
    tanh,
    unit,
    where,
    zoneout,
)


@cell(states=("h", "u"), product="diagonal")
def everything(
    a, t1, h, u, *, alpha=unit(0.1), tanh_a=scalar(0.2), outer=given(), k=constant(2.0), z=bernoulli(0.5)
):
    u = where(u > 1, u * alpha, tanh(a) + outer * k) * tanh_a
    return u + stop_gradient(t1 * u), u * h * z


@cell(states=("h", "c"), again=("n", "m"))
def again(z, n, m, h, c):
    z = sigmoid(z + c)
    return tanh(n(z * h)) * z, c * z + m(z * h)


@cell(states=("h", "c"))
def swapped(a, h, c):
    return c, h


@cell(states=("s", "v"))
def two_surrogates(a, s, v):
    v = 0.5 * v + a
    return step(v - 1, surrogate=sigmoid) * a + step(v - 1, surrogate=tanh) * s, v


SHOWN = (*READY, zoneout(cells.gru, 0.1), everything, again, swapped, two_surrogates)


def block(text, title):
    """The lines under a title."""
    lines = text.splitlines()
    first = lines.index(f"  {title}") + 1
    return [line.strip() for line in itertools.takewhile(lambda line: line.startswith("    "), lines[first:])]


def run_lines(lines, names):
    """Execute lines that are Python, products of matrices left out."""
    for line in lines:
        line = re.sub(r"sum over sequences and steps of ", "", line)
        line = re.sub(r" \+ \S*\(?[\w., ]+\)? W[hx]\^T$", "", line)
        if "W" in line.replace("Wh_", ""):
            continue
        exec(line, {**vars(cells), "abs": abs}, names)


@pytest.mark.parametrize("shown", SHOWN, ids=lambda one: one.name)
def test_the_lines_of_a_step_and_its_gradient_run_to_its_values(shown):
    equations, rng = shown.equations, np.random.default_rng(0)
    values = {node: rng.standard_normal(9) for node in equations.inputs.values()}
    text = shown.describe().replace("Wh.", "Wh_").replace(".x", "_x").replace(".h", "_h")
    names = {node.args[0].replace(".", "_"): value for node, value in values.items()}
    run_lines(block(text, "Step"), names)
    expected = evaluate(equations.after, values)
    for state, value in zip(equations.states, expected, strict=True):
        np.testing.assert_allclose(names[f"{state}_t"], value, rtol=1e-13)

    arriving = {f"d{state}_t": rng.standard_normal(9) for state in equations.states}
    names |= {**arriving, "doperand": rng.standard_normal(9)}
    run_lines(block(text, "Gradient of a step"), names)
    graph, operand = equations.graph, equations.operand
    ds = [graph.input(f"arriving {name}") for name in arriving]
    outputs = [*zip(equations.after, ds, strict=True)]
    known = {**values, **dict(zip(ds, arriving.values(), strict=True))}
    if operand is not None:
        outputs.append((operand, graph.input("arriving at the operand")))
        known[outputs[-1][1]] = names["doperand"]
    wanted = [
        n
        for n in equations.inputs
        if n in (*equations.gates, *equations.states, *equations.trained, *equations.wanted)
    ]
    for name, d in zip(wanted, gradient(outputs, [equations.inputs[n] for n in wanted]), strict=True):
        expected = 0.0 if d is None else evaluate([d], known)[0]
        own = names.get(
            f"d{equations.inputs[name].args[0].replace('.', '_')}", 0.0
        )  # 0 where all comes through Wh
        np.testing.assert_allclose(own, expected, rtol=1e-12, atol=1e-13, err_msg=name)


@pytest.mark.parametrize("shown", SHOWN, ids=lambda one: one.name)
def test_no_name_is_said_twice_and_none_before_it_is_made(shown):
    lines = [*block(shown.describe(), "Step"), *block(shown.describe(), "Gradient of a step")]
    made = [name.strip() for line in lines for name in line.split(" = ")[0].split(",")]
    assert len(made) == len(set(made))
    inputs = {node.args[0] for node in shown.equations.inputs.values()} - set(made)
    known = (
        inputs | {f"d{state}_t" for state in shown.states} | {"x_t", "Wx", "Wh", "b", "bhh", "Wh^T", "Wx^T"}
    )
    known |= (
        {name for name in vars(cells) if name.islower()}
        | {"abs"}
        | {"sum", "over", "sequences", "and", "steps", "of"}
    )
    known |= {"operand"} if shown.again else {f"d{gate}" for gate in shown.apart}  # in the lines of products
    for line in lines:
        names, _, text = line.partition(" = ")
        before = made[: made.index(names.split(",")[0].strip())]
        assert set(re.findall(r"[A-Za-z_][\w.]*(?:\^T)?", text)) <= known.union(before), line


def test_the_text_of_the_lstm():
    assert cells.lstm.describe().splitlines() == [
        "lstm: gates f, g, i, o; states h, c",
        "  Step",
        "    f, g, i, o = x_t Wx + h Wh + b",
        "    sigmoid_f = sigmoid(f)",
        "    tanh_g = tanh(g)",
        "    sigmoid_i = sigmoid(i)",
        "    c_t = sigmoid_f * c + tanh_g * sigmoid_i",
        "    sigmoid_o = sigmoid(o)",
        "    tanh_c_t = tanh(c_t)",
        "    h_t = sigmoid_o * tanh_c_t",
        "  Gradient of a step",
        "    t1 = dc_t + dh_t * sigmoid_o * (1 - tanh_c_t * tanh_c_t)",
        "    df = t1 * c * (sigmoid_f * (1 - sigmoid_f))",
        "    dg = t1 * sigmoid_i * (1 - tanh_g * tanh_g)",
        "    di = t1 * tanh_g * (sigmoid_i * (1 - sigmoid_i))",
        "    do = dh_t * tanh_c_t * (sigmoid_o * (1 - sigmoid_o))",
        "    dh = (df, dg, di, do) Wh^T",
        "    dc = t1 * sigmoid_f",
        "    dx_t = (df, dg, di, do) Wx^T",
        "  Kept for the backward pass",
        "    h_t, c_t, sigmoid_f, tanh_g, sigmoid_i, sigmoid_o",
        "  Operations a unit",
        "    8 forward, 23 backward, and the products",
    ]


def test_gradients_through_the_second_product_wait_for_it():
    lines = block(cells.gru.describe(), "Gradient of a step")
    assert lines.index("doperand = dn Wh^T") < lines.index(
        "dr = doperand * h * (sigmoid_r * (1 - sigmoid_r))"
    )
    assert "dh = doperand * sigmoid_r + dh_t * t1 + (dz, dr) Wh^T" in lines


def test_kept_gates_are_named_and_the_operations_are_those_of_the_schedule():
    schedule = Schedule(again.equations)
    assert block(again.describe(), "Kept for the backward pass") == ["h_t, c_t, t1, tanh_n"]
    count = sum(program.operations for part in schedule.backward for program in part)
    assert block(again.describe(), "Operations a unit")[0].endswith(f"{count} backward, and the products")
