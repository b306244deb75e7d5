"""What a cell keeps for its backward pass, where it lies, and how many operations a unit takes."""

import numpy as np
import pytest
from rnnfast.kernels.cell.expression import evaluate
from rnnfast.kernels.cell.node import text_of
from rnnfast.kernels.cell.schedule import (
    ABOVE,
    AFTER,
    BEFORE,
    DSTATES,
    DTS,
    OPERAND,
    OTHERS,
    OUT,
    TAPE,
    Schedule,
)

from rnnfast import cells
from rnnfast.cells import READY, cell, relu, sigmoid, stop_gradient, tanh, unit, zoneout

# Operations a unit, each function counting as one: no more than these.
MOST = {
    "rnn": (1, 4), "relu": (1, 3), "lstm": (8, 23), "gru": (7, 17), "gru_after": (7, 16), "leaky": (4, 8),
    "lif": (7, 13), "peephole_lstm": (11, 29), "coupled_lstm": (8, 20), "li_gru": (5, 11), "min_gru": (4, 8),
    "min_lstm": (6, 15), "ind_rnn": (2, 5), "slstm": (17, 45),
}  # fmt: skip


def operations(direction):
    return sum(program.operations for part in direction for program in part)


def kept(schedule):
    return [text_of(node) for node in schedule.kept]


def home(schedule, text):
    return next(where for node, where in schedule._homes.items() if text_of(node) == text)


def ready(name):
    return Schedule(next(one for one in READY if one.name == name).equations)


@pytest.mark.parametrize("name", MOST)
def test_a_step_takes_no_more_operations_than_it_did(name):
    schedule = ready(name)
    assert (operations(schedule.forward), operations(schedule.backward)) <= MOST[name]
    assert operations(schedule.backward) <= MOST[name][1]


def test_every_ready_cell_has_its_bound():
    assert [one.name for one in READY] == [*MOST]


def test_the_lstm_keeps_each_gate_in_its_own_column():
    schedule = ready("lstm")
    assert kept(schedule) == ["sigmoid(f)", "tanh(g)", "sigmoid(i)", "sigmoid(o)"]
    assert [home(schedule, text) for text in kept(schedule)] == [(TAPE, column) for column in range(4)]
    assert (schedule.others, schedule.columns) == (4, 5)  # then c


def test_the_gru_keeps_the_second_product_beside_its_gates():
    before, after = ready("gru"), ready("gru_after")
    assert kept(before) == ["sigmoid(z)", "sigmoid(r)", "tanh(n)"]
    assert before.columns == 3
    assert kept(after) == ["sigmoid(z)", "sigmoid(r)", "tanh(n.x + sigmoid(r) * n.h)"]
    assert after.columns == 4
    assert home(after, "tanh(n.x + sigmoid(r) * n.h)") == (TAPE, 2)
    assert (TAPE, 3) in [where for _, where in after.backward[0][0].reads]  # n.h, for the gradient of r


@pytest.mark.parametrize("name", ["rnn", "relu", "ind_rnn"])
def test_one_gate_that_nothing_reads_again_is_made_where_the_state_will_be(name):
    schedule = ready(name)
    assert schedule.in_place
    assert (schedule.kept, schedule.columns) == ((), 0)


def test_gates_that_are_read_again_are_not_made_in_place():
    square = cell(lambda a, h: a * a, states="h")
    schedule = Schedule(square.equations)
    assert not schedule.in_place
    assert schedule.columns == 1
    assert (TAPE, 0) in [where for _, where in schedule.backward[0][0].reads]


def test_a_chain_of_functions_is_cut_before_its_last_one():
    """A processor cannot look ahead far enough to hide it."""
    (first, second), later = ready("lstm").forward
    assert later == ()
    assert [where for _, where in first.writes] == [
        *((TAPE, column) for column in range(4)),
        (OTHERS, 0),
        (TAPE, 4),
    ]
    assert {where for _, where in second.writes} == {(AFTER, 0), (OUT, 0)}
    assert {where for _, where in second.reads} == {(TAPE, 3), (TAPE, 4)}


def test_a_chain_whose_second_part_misses_what_the_first_overwrites_is_not_cut():
    @cell(states=("h", "c"))
    def lagged(a, h, c):
        return tanh(sigmoid(a) * c) + c, sigmoid(a)

    ((whole,), later) = Schedule(lagged.equations).forward
    assert later == ()
    assert {(AFTER, 0), (OUT, 0), (OTHERS, 0)} <= {where for _, where in whole.writes}


def test_a_second_product_divides_the_step():
    schedule = ready("gru")
    (first,), (second,) = schedule.forward
    assert {where for _, where in first.writes} == {(TAPE, 0), (TAPE, 1), (OPERAND, 0)}
    assert {where for _, where in second.writes} == {(TAPE, 2), (AFTER, 0), (OUT, 0)}
    assert [len(part) for part in schedule.backward] == [1, 1]


def test_what_is_made_again_writes_no_output():
    for one in READY:
        schedule = Schedule(one.equations)
        for part in schedule.recompute:
            for program in part:
                assert {place for place, _ in (where for _, where in program.writes)} <= {
                    TAPE,
                    OTHERS,
                    OPERAND,
                }
        assert schedule.can_remake


def test_a_second_product_with_several_states_is_always_kept():
    both = cell(
        lambda z, n, h, c: (tanh(n(sigmoid(z) * h)) + c, c * sigmoid(z)), states=("h", "c"), again="n"
    )
    assert not Schedule(both.equations).can_remake


def test_what_states_tell_is_not_kept():
    """A sigmoid that is the state; a tanh that is; the relu of a state, which tells where it is positive."""
    named = cell(lambda a, h, c: (tanh(c + a), c + a), states=("h", "c"))
    assert Schedule(named.equations).kept == ()
    state = cell(lambda a, h: sigmoid(a), states="h")
    assert Schedule(state.equations).kept == ()
    assert Schedule(cells.leaky.equations).kept == ()


def test_what_a_stopped_gradient_does_not_need_is_not_kept():
    stopped = cell(lambda f, g, h: stop_gradient(sigmoid(f)) + g * h, states="h")
    assert Schedule(stopped.equations).kept == ()


def test_functions_of_units_alone_have_a_column_of_their_own():
    decayed = cell(lambda a, h, *, alpha=unit(0.1): sigmoid(alpha) * h + tanh(a), states="h")
    schedule = Schedule(decayed.equations)
    assert kept(schedule) == ["sigmoid(alpha)", "tanh(a)"]
    assert [home(schedule, text) for text in kept(schedule)] == [(TAPE, 1), (TAPE, 0)]


def test_every_gate_state_and_parameter_has_its_gradient():
    for one in (*READY, zoneout(cells.lstm, 0.1), zoneout(cells.gru, 0.1)):
        schedule = Schedule(one.equations)
        written = {where for part in schedule.backward for program in part for _, where in program.writes}
        rows = len(one.gates) + (len(one.apart) or bool(one.again)) + len(one.equations.trained)
        assert written >= {(DTS, row) for row in range(rows)}
        assert written >= {(DSTATES, row) for row in range(1, len(one.states))}
        assert schedule.gradients == rows


def test_names_of_arguments_do_not_meet_those_of_gradients():
    """A formula knows its inputs by name; a unit called `above` is not the gradient from above."""

    def function(dh, h, c, *, above=unit(0.5), doperand=unit(0.5)):
        return dh * above + c * doperand, tanh(c) + doperand

    def renamed(a, h, c, *, alpha=unit(0.5), beta=unit(0.5)):
        return a * alpha + c * beta, tanh(c) + beta

    actual, expected = (Schedule(cell(one, states=("h", "c")).equations) for one in (function, renamed))
    assert text_of(actual.backward[0][0].writes[0][0]) == text_of(expected.backward[0][0].writes[0][0])
    assert operations(actual.backward) == operations(expected.backward)
    assert [where for _, where in actual.backward[0][0].reads] == [
        where for _, where in expected.backward[0][0].reads
    ]


def test_a_cell_without_any_gradient_has_a_pass_that_reads_something():
    """Rows are compiled from what is read; a pass of zeros reads nothing."""
    for function in (lambda a, h: stop_gradient(a), lambda a, h: a.graph.constant(1.0)):
        schedule = Schedule(cell(function, states="h").equations)
        for part in (*schedule.forward, *schedule.backward):
            assert all(program.reads for program in part)
        assert operations(schedule.backward) == 0


def test_the_passes_compute_the_cell_and_its_gradient():
    """Of the peephole LSTM, whose first part leaves c for its second: on arrays, against the formula."""
    schedule, equations = ready("peephole_lstm"), cells.peephole_lstm.equations
    rng = np.random.default_rng(0)
    values = {node: rng.standard_normal(7) for node in equations.inputs.values()}
    rows = {where: values[node] for node, where in {**schedule._raw, **schedule._stored}.items()}
    for program in schedule.forward[0]:
        results = evaluate(
            [node for node, _ in program.writes], {node: rows[where] for node, where in program.reads}
        )
        rows |= dict(zip((where for _, where in program.writes), results, strict=True))
    h, c = evaluate(equations.after, values)
    np.testing.assert_allclose(rows[AFTER, 0], h, rtol=1e-14)
    np.testing.assert_allclose(rows[OTHERS, 0], c, rtol=1e-14)
    np.testing.assert_array_equal(rows[TAPE, schedule.others], rows[OTHERS, 0])

    back = {where: rows[where] for where in rows if where[0] in (TAPE, AFTER)}
    back |= {where: values[node] for node, where in schedule._stored.items()}  # the states before the step
    above, later = rng.standard_normal(7), [rng.standard_normal(7) for _ in range(2)]
    back |= {(ABOVE, 0): above, (DSTATES, 0): later[0], (DSTATES, 1): later[1]}
    (program,) = schedule.backward[0]
    results = evaluate(
        [node for node, _ in program.writes], {node: back[where] for node, where in program.reads}
    )
    actual = dict(zip((where for _, where in program.writes), results, strict=True))
    eps = 1e-6
    names = {(DTS, i): gate for i, gate in enumerate(equations.gates)} | {(DSTATES, 1): "c"}
    names |= {(DTS, 4 + i): name for i, name in enumerate(equations.trained)}
    for where, name in names.items():
        node = equations.inputs[name]
        up, down = (
            evaluate(equations.after, {**values, node: values[node] + sign * eps}) for sign in (1, -1)
        )
        slopes = [(u - d) / (2 * eps) for u, d in zip(up, down, strict=True)]
        np.testing.assert_allclose(
            actual[where], slopes[0] * (above + later[0]) + slopes[1] * later[1], rtol=1e-6
        )
    assert BEFORE == 1
    assert relu(1.0) == 1.0
