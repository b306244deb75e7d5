"""The operands of weight gradients, packed or where they lie: the same bits, for layers and for groups."""

from __future__ import annotations

import numpy as np
import pytest
from cell_cases import KINDS, Window, make, run
from helpers import assert_same_bits
from rnnfast.kernels.recurrence import operands, sequence

from rnnfast import RNNLM
from rnnfast.engine import threads as _threads
from rnnfast.layers.window import Blocks

N, T, D, H = 5, 103, 21, 37  # two blocks of the time grid, the last of 5 rows


@pytest.fixture(params=[1, 2])
def threads(request, monkeypatch):
    monkeypatch.setattr(_threads, "LEAST_OPERATIONS", 1.0)
    monkeypatch.setattr(_threads, "_threads", request.param)


def always_packed(monkeypatch):
    monkeypatch.setattr(operands, "LEAST_COLUMNS", 0)
    monkeypatch.setattr(operands, "LEAST_BYTES", 0)


def turned_around(layer):
    """The layer with weights and gradients as (G H, D) and (G H, H), as in PyTorch."""
    wx, wh, *biases = layer._kernel_params()
    transposed = [wx.T.copy(), wh.T.copy(), *biases]
    layer.transposed, layer._kernel_params = True, lambda: transposed
    layer._kernel_grads = [None if array is None else np.full_like(array, np.nan) for array in transposed]
    return layer


OPTIONS = {"full": {}, "lengths and resets": {"lengths": True, "resets": True}}


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", KINDS)
def test_packed_operands_change_no_bit(kind, dtype, options, threads, monkeypatch):
    window = Window(make(kind, D, H, dtype), N, T, **OPTIONS[options])
    expected = run(make(kind, D, H, dtype), window)
    always_packed(monkeypatch)
    layer = make(kind, D, H, dtype)
    actual = run(layer, window)
    assert layer._workspace.plans["backward"][2].scratch.panels.size
    assert actual.keys() == expected.keys()
    for name, array in expected.items():
        assert_same_bits(actual[name], array)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("precision", [None, "bfloat16"])
@pytest.mark.parametrize("kind", ["lstm", "gru-before", "gru-after"])
def test_weights_of_pytorch_have_the_same_gradients(kind, precision, options, threads, monkeypatch):
    always_packed(monkeypatch)
    plain, layer = (make(kind, D, H, np.float32) for _ in range(2))
    plain.precision = layer.precision = precision
    window = Window(plain, N, T, **OPTIONS[options])
    run(plain, window)
    turned_around(layer)
    window.forward(layer)
    layer.backward(window.dhs, **window.next_gradient)
    dwx, dwh, *biases = layer._kernel_grads
    assert_same_bits(dwx.T.copy(), plain.grads[0])
    assert_same_bits(dwh.T.copy(), plain.grads[1])
    for actual, expected in zip(biases, plain.grads[2:], strict=False):
        assert_same_bits(actual, expected)


@pytest.mark.parametrize("kind", ["lstm", "gru-before", "gru-after"])
def test_groups_of_sequences_read_packed_operands_too(kind, threads, monkeypatch):
    def gradients():
        layer = make(kind, D, H, np.float32, stateful=False)
        window = Window(layer, N, T)
        layer.read(window.xs, blocks=Blocks(np.array([0, 3, 5])))
        layer.backpropagate(window.dhs)
        return [grad.copy() for grad in layer.grads]

    expected = gradients()
    always_packed(monkeypatch)
    for actual, grad in zip(gradients(), expected, strict=True):
        assert_same_bits(actual, grad)


def test_words_are_no_operand_of_weight_gradients(threads, monkeypatch):
    def gradients():
        model, rng = RNNLM(7, D, H, cell="lstm", rng=np.random.default_rng(0)), np.random.default_rng(1)
        model.forward(*rng.integers(0, 7, (2, N, T)))
        model.backward()
        assert model.body.recurrent[0].reads_words
        return [grad.copy() for grad in model.grads]

    expected = gradients()
    always_packed(monkeypatch)
    for actual, grad in zip(gradients(), expected, strict=True):
        assert_same_bits(actual, grad)


def test_small_layers_read_operands_where_they_lie():
    layer = make("lstm", D, H, np.float32)
    run(layer, Window(layer, N, T))
    assert not layer._workspace.plans["backward"][2].scratch.panels.size


def test_parts_of_blocks_fill_the_cache_and_wide_rows_are_not_divided():
    offsets = np.array([0, 40, 80, 110, 110, 111])  # sequences end; the last but one step has no rows
    end = sequence.end_of_part
    row_bytes = sequence.PART_BYTES // 80
    assert [end(t, 5, offsets, row_bytes) for t in range(5)] == [2, 5, 5, 5, 5]
    assert [end(t, 5, offsets, 3 * row_bytes) for t in range(5)] == [5] * 5  # fewer than LEAST_PART_ROWS
    assert end(0, 1, offsets, row_bytes) == 1
    assert end(0, 5, offsets, 8) == 5


@pytest.mark.parametrize("precision", [None, "bfloat16"])
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("kind", ["rnn", "lstm", "gru-after"])
def test_a_window_of_many_parts_has_the_bits_of_single_steps(kind, options, precision, threads):
    layer = make(kind, 9, 128, np.float32)
    layer.precision = precision
    window = Window(layer, 33, 16, **OPTIONS[options])
    hs = window.forward(layer)
    other = make(kind, 9, 128, np.float32)
    other.precision = precision
    other.set_state(*window.state)
    lengths = window.options.get("lengths", np.full(33, 16))
    for t in range(16):
        one = {"lengths": (t < lengths).astype(int)}
        if "reset" in window.options:
            one["reset"] = window.options["reset"][:, t : t + 1]
        assert_same_bits(other.forward(window.xs[:, t : t + 1], **one)[:, 0], hs[:, t])
