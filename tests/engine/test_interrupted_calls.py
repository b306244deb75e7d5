"""A call that ends in an interrupt: the state stays as it was, and the next backward is right."""

import sys

import numpy as np
import pytest
from cell_cases import Window, another, make
from helpers import assert_same_bits, normal, sized
from rnnfast.kernels.recurrence.sequence import block_steps

from rnnfast import CBOWLM, RNNLM, Bidirectional, SequenceRegressor, Stack, State, TimeLSTM
from rnnfast.engine import threads
from rnnfast.layers import plans

CELLS = ("rnn", "lstm", "gru-before", "gru-after")


class InterruptedAfter:
    """Stands for `threads.run`: an interrupt arrives after `calls` kernels."""

    def __init__(self, monkeypatch, calls):
        self.left, self.run = calls, threads.run
        monkeypatch.setattr(threads, "run", self)

    def __call__(self, *call):
        result = self.run(*call)
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt
        return result


@pytest.mark.parametrize("kind", CELLS)
def test_a_second_backward_after_an_interrupt_has_the_bits_of_the_first(kind, monkeypatch):
    monkeypatch.setattr(plans, "KEPT_BYTES", 0)  # so that gates are made again
    layer = make(kind, 3, sized(18, 4), np.float32)
    window = Window(layer, 3, 3 * block_steps(3) + 2)
    window.forward(layer)
    layer.backward(window.dhs, **window.next_gradient)
    expected = [grad.copy() for grad in layer.grads]
    window.forward(layer)
    with monkeypatch.context() as patch:
        InterruptedAfter(patch, 1)
        with pytest.raises(KeyboardInterrupt):
            layer.backward(window.dhs, **window.next_gradient)
    for grad in layer.grads:
        grad[...] = np.nan
    layer.backward(window.dhs, **window.next_gradient)
    for actual, wanted in zip(layer.grads, expected, strict=True):
        assert_same_bits(actual, wanted)


@pytest.mark.parametrize("kind", CELLS)
def test_an_interrupted_forward_leaves_the_state_and_refuses_backward(kind, monkeypatch):
    layer = make(kind, 3, 4, np.float32)
    xs = normal(np.random.default_rng(0), (2, 9, 3), np.float32)
    hs = layer.forward(xs)
    state = State.of(layer)
    twin = another(layer)
    twin.set_state(state)
    with monkeypatch.context() as patch:
        InterruptedAfter(patch, 1)
        with pytest.raises(KeyboardInterrupt):
            layer.forward(xs)
    assert State.of(layer) == state
    with pytest.raises(RuntimeError, match="call forward first"):
        layer.backward(hs)
    assert_same_bits(layer.forward(xs), twin.forward(xs))


def composites():
    rng = np.random.default_rng(1)
    layers = [TimeLSTM.from_sizes(4, 4, rng=rng, stateful=True) for _ in range(4)]
    xs = normal(rng, (2, 9, 4), np.float32)
    ids = rng.integers(9, size=(2, 9))
    yield Stack([layers[0], Bidirectional(*layers[1:3])]), lambda m: m.forward(xs), 3
    yield Bidirectional(*layers[2:]), lambda m: m.forward(xs), 2
    model = RNNLM(9, 4, 4, cell="gru", layers=2, tied=True, rng=rng)
    yield model, lambda m: m.forward(ids, ids), 3
    yield model, lambda m: m.losses(ids, ids), 3
    yield model, lambda m: m.predict(ids), 2
    yield model, lambda m: m.next_proba(ids[0]), 2
    yield CBOWLM(9, 4, rng=rng), lambda m: m.forward(ids, ids), 1
    regressor = SequenceRegressor(4, 5, 2, layers=2, rng=rng)
    yield regressor, lambda m: m.forward(xs, xs[..., :2].copy(), carry=True), 2
    yield regressor, lambda m: m.forward(xs, xs[..., :2].copy()), 2
    yield regressor, lambda m: m.predict(xs), 2


def test_layers_above_each_other_advance_together_or_not_at_all(monkeypatch):
    for whole, call, kernels in composites():
        call(whole)
        state = State.of(whole)
        for after in range(1, kernels + 1):
            with monkeypatch.context() as patch:
                InterruptedAfter(patch, after)
                with pytest.raises(KeyboardInterrupt):
                    call(whole)
            assert State.of(whole) == state, (whole, after)
        call(whole)


def test_a_loss_that_was_interrupted_gives_no_gradients(monkeypatch):
    ids = np.random.default_rng(1).integers(9, size=(2, 9))
    model = RNNLM(9, 4, 4, rng=np.random.default_rng(0))
    model.forward(ids, ids)
    InterruptedAfter(monkeypatch, 1)
    with pytest.raises(KeyboardInterrupt):
        model.output.forward(np.ones((2, 9, 4), np.float32), ids)
    with pytest.raises(RuntimeError, match="call forward first"):
        model.output.backward()


def interrupted_everywhere(call):
    """Run `call(interrupting)` with an interrupt before each bytecode of this library in turn."""
    place = 0
    while True:
        left = [place]

        def trace(frame, event, arg, left=left):
            if "rnnfast" not in frame.f_code.co_filename:
                return None
            frame.f_trace_opcodes = True
            if event == "opcode":
                left[0] -= 1
                if left[0] < 0:
                    sys.settrace(None)
                    raise KeyboardInterrupt
            return trace

        sys.settrace(trace)
        try:
            call()
            return
        except KeyboardInterrupt:
            yield
        finally:
            sys.settrace(None)
        place += sized(1, 7)


def test_an_interrupt_at_any_bytecode_leaves_all_layers_at_the_same_step():
    rng = np.random.default_rng(1)
    ids = rng.integers(9, size=(2, 4))
    model = RNNLM(9, 4, 4, cell="lstm", layers=2, rng=rng)
    model.predict(ids)
    before = State.of(model)
    model.predict(ids)
    after = State.of(model)
    reached = set()

    def call():
        model.set_state(before)
        model.predict(ids)

    for _ in interrupted_everywhere(call):
        found = State.of(model)
        assert found in (before, after)
        reached.add(found == after)
        model.set_state(before)
        model.predict(ids)
        assert State.of(model) == after
    assert reached == {False, True}
