"""Fingerprints: equal for cells that say the same under other names, different where anything differs."""

import copy
import gc
import pickle

import pytest
from rnnfast.kernels.recurrence.recurrence import time_loop

import rnnfast
from rnnfast.cells import (
    READY,
    bernoulli,
    cell,
    constant,
    defined,
    given,
    normal,
    scalar,
    sigmoid,
    step,
    tanh,
    unit,
    zoneout,
)


@cell(states=("h", "c"))
def plain(f, g, h, c, *, alpha=unit(0.1)):
    c = sigmoid(f) * c + alpha * tanh(g)
    return 0.5 * c, c


def test_other_names_of_everything_give_the_same_fingerprint():
    @cell(states=("shown", "memory"))
    def renamed(forget, candidate, shown, memory, *, rate=unit(0.7)):
        after = sigmoid(forget) * memory + rate * tanh(candidate)
        tanh(after)  # what no state is made of does not count
        return 0.5 * after, after

    assert renamed.fingerprint == plain.fingerprint
    assert renamed != plain
    assert time_loop(renamed.equations) is time_loop(plain.equations)


def variants():
    """Cells that differ from each other in one point."""

    def made(function, states=("h", "c"), **options):
        return cell(function, states=states, **options)

    def first(f, g, h, c, *, alpha=unit(0.1)):
        return tanh(f) * alpha, c + g

    yield made(first)
    yield made(first, product=None)
    yield made(first, product="diagonal")
    yield made(lambda f, g, h, c, *, alpha=unit(0.1): (tanh(f) * alpha, g + c))
    yield made(lambda f, g, h, c, *, alpha=unit(0.1): (sigmoid(f) * alpha, c + g))
    yield made(lambda f, g, h, c, *, alpha=unit(0.1): (tanh(g) * alpha, c + f))
    yield made(lambda f, g, h, c, *, alpha=unit(0.1): (c + g, tanh(f) * alpha))
    yield made(lambda f, g, h, c, *, alpha=unit(0.1): (tanh(f) * alpha, h + g))
    yield made(lambda f, g, h, c, *, alpha=unit(0.1), beta=unit(0.1): (tanh(f) * alpha, c + g))
    yield made(lambda f, g, e, h, c, *, alpha=unit(0.1): (tanh(f) * alpha, c + g))
    yield made(lambda f, g, h, c, d, *, alpha=unit(0.1): (tanh(f) * alpha, c + g, d), states=("h", "c", "d"))
    for number in (0.1, 0.1000001, 0.0, -0.0):
        yield made(_with_number(number))
    for role in (
        scalar(0.1), constant(0.1), constant(0.2), given(), normal(0.1), normal(0.2), bernoulli(0.1),
        bernoulli(0.2),
    ):  # fmt: skip
        yield made(_with_role(role))
    yield made(lambda f, g, h, c: (tanh(f.x + f.h), c + tanh(g.x + g.h)), apart=("f", "g"))
    yield made(lambda f, g, h, c: (tanh(f), c + tanh(g.x + g.h)), apart="g")
    yield made(lambda f, g, h, c: (tanh(f), c + tanh(g(h))), again="g")
    yield made(lambda f, g, h, c: (tanh(f), c + tanh(g(c))), again="g")
    yield made(lambda f, g, h, c: (tanh(f), c + tanh(g)))
    yield made(lambda f, g, h, c: (step(f), c + g))
    yield made(lambda f, g, h, c: (step(f, surrogate=lambda x: 1 / (1 + abs(x)) ** 2), c + g))
    yield made(lambda f, g, h, c: (step(f, surrogate=lambda x: 1 / (1 + 2 * abs(x)) ** 2), c + g))
    yield made(_with_surrogates(None, None))
    yield made(_with_surrogates(None, tanh))
    yield made(_with_surrogates(tanh, None))
    yield made(_with_surrogates(tanh, tanh))


def _with_number(number):
    def function(f, g, h, c):
        return tanh(f) * number, c + g

    return function


def _with_surrogates(one, other):
    def function(f, g, h, c):
        return step(f, surrogate=one) * g + step(f, surrogate=other) * c, c + g

    return function


def _with_role(role):
    def function(f, g, h, c, *, alpha=role):
        return tanh(f) * alpha, c + g

    return function


def test_whatever_differs_shows_in_the_fingerprint():
    cells = [*variants(), *READY]
    assert len({one.fingerprint for one in cells}) == len(cells)


def test_code_is_shared_where_it_is_the_same():
    """A unit is trained and a constant is not; given arrays have a gradient and random numbers have none."""

    def code(role):
        return cell(_with_role(role), states=("h", "c")).equations.fingerprint

    for alike in ((unit(0.1), scalar(0.2)), (constant(0.1), constant(0.2)), (normal(0.1), bernoulli(0.2))):
        assert code(alike[0]) == code(alike[1])
    assert len({code(role) for role in (unit(0.1), constant(0.1), given(), normal(0.1))}) == 4


def test_where_a_parameter_starts_is_not_part_of_it():
    assert cell(_with_role(unit(0.1)), states=("h", "c")).fingerprint == next(variants()).fingerprint
    one, other = (
        cell(_with_role(scalar(value)), states=("h", "c"), start={"b": value}) for value in (1.0, 2.0)
    )
    assert one.fingerprint == other.fingerprint


def test_a_step_that_nothing_is_made_of_does_not_count():
    def function(a, h):
        step(h - 1)
        return tanh(a)

    assert cell(function, states="h").fingerprint == rnnfast.cells.rnn.fingerprint


def test_zoneout_of_equal_cells_is_equal():
    assert zoneout(plain, 0.1).fingerprint == zoneout(plain, 0.1).fingerprint
    assert zoneout(plain, 0.1).fingerprint != zoneout(plain, 0.2).fingerprint


# The cells that a program has defined.


@pytest.mark.parametrize("ready", READY, ids=lambda ready: ready.name)
def test_copies_of_a_cell_are_that_cell(ready):
    for copied in (copy.copy(ready), copy.deepcopy(ready), pickle.loads(pickle.dumps(ready))):
        assert copied is ready
    assert defined(ready.name, ready.fingerprint) is ready


def test_a_pickled_cell_comes_back_with_its_own_names():
    def mine(gate, state):
        return tanh(gate)

    own = cell(mine, states="state")
    assert own.fingerprint == rnnfast.cells.rnn.fingerprint
    assert pickle.loads(pickle.dumps(own)) is own
    assert pickle.loads(pickle.dumps(rnnfast.cells.rnn)) is rnnfast.cells.rnn


def test_a_cell_defined_twice_is_found_when_either_is_gone():
    """A notebook runs the block that defines it again."""
    for gone in (0, 1):
        both = [cell(_with_number(0.375), states=("h", "c")) for _ in range(2)]
        fingerprint = both[0].fingerprint
        del both[gone]
        gc.collect()
        assert defined("function", fingerprint) is both[0]
        del both
        gc.collect()
        words = r"^the cell 'function' \(fingerprint '[0-9a-f]{12}'\) is not defined in this program"
        with pytest.raises(rnnfast.CheckpointError, match=words):
            defined("function", fingerprint)


def test_a_cell_under_another_name_serves_where_none_has_the_name():
    own = cell(_with_number(0.4375), states=("h", "c"))
    assert defined("the name it had", own.fingerprint) is own
