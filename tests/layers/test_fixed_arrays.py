"""`params` and `grads` stay the arrays that were checked: replacing one is refused, in every way."""

import numpy as np
import pytest
from cell_cases import KINDS, make
from helpers import assert_same_bits, normal

from rnnfast import (
    CBOWLM,
    RNNLM,
    SequenceRegressor,
    Stack,
    TimeAffine,
    TimeAffineSoftmaxWithLoss,
    TimeEmbedding,
    TimeLSTM,
)

OWNERS = [
    *(lambda kind=kind: make(kind, 3, 4, np.float32) for kind in KINDS),
    lambda: RNNLM(7, 4, 4, tied=True),
    lambda: CBOWLM(7, 4),
    lambda: SequenceRegressor(3, 4, 2),
    lambda: Stack([TimeLSTM.from_sizes(3, 4)]),
    lambda: TimeAffine.from_sizes(3, 4),
    lambda: TimeEmbedding.from_sizes(7, 4),
]


@pytest.mark.parametrize("make_owner", OWNERS)
@pytest.mark.parametrize("name", ["params", "grads"])
def test_no_entry_can_be_replaced_removed_or_added(make_owner, name):
    owner = make_owner()
    arrays = getattr(owner, name)
    held, kind = list(arrays), type(owner).__name__
    small = np.zeros(1, np.float32)

    for change in (
        lambda: arrays.__setitem__(0, small),
        lambda: arrays.__setitem__(slice(0, 1), [small]),
        lambda: arrays.__setitem__(0, arrays[0].copy()),
        lambda: arrays.__delitem__(0),
        lambda: arrays.__iadd__([small]),
        lambda: arrays.__imul__(2),
        lambda: arrays.append(small),
        lambda: arrays.insert(0, small),
        lambda: arrays.extend([small]),
        lambda: arrays.remove(small),
        arrays.pop,
        arrays.clear,
        arrays.sort,
        arrays.reverse,
        lambda: setattr(owner, name, [*arrays, small]),
    ):
        with pytest.raises(TypeError, match=rf"{kind}: {name} cannot be replaced.*write into"):
            change()
        assert all(a is b for a, b in zip(getattr(owner, name), held, strict=True))


def test_writing_in_place_with_an_operator_is_no_replacement():
    layer = TimeAffine.from_sizes(3, 4, rng=np.random.default_rng(0))
    W, x = layer.params[0], np.ones((1, 3), np.float32)
    before = layer.forward(x)
    layer.params[0] *= np.float32(2)
    assert layer.params[0] is W
    assert_same_bits(layer.forward(x), before * np.float32(2))


@pytest.mark.parametrize("kind", KINDS)
def test_a_parameter_whose_shape_is_changed_by_its_owner_is_still_read_as_it_was_checked(kind):
    layer = make(kind, 3, 4, np.float32)
    xs = normal(np.random.default_rng(1), (2, 6, 3), np.float32)
    expected = layer.forward(xs)
    layer.reset_state()
    for array in (*layer.params, *layer.grads):
        array.resize((array.size,), refcheck=False)
    assert_same_bits(layer.forward(xs), expected)
    layer.backward(np.ones_like(expected))
    assert layer.grads[0].any()


def test_an_array_for_a_gradient_is_checked():
    W, b = np.ones((8, 16), np.float32), np.ones(16, np.float32)
    xs, ts = np.ones((2, 3, 8), np.float32), np.zeros((2, 3), int)
    for wrong, error, message in (
        (np.zeros((16, 2), np.float32, "F"), ValueError, r"dW must be \(8, 16\), got \(16, 2\)"),
        (np.zeros((8, 32), np.float32)[:, ::2], ValueError, "dW must be contiguous"),
        (np.zeros((8, 16)), TypeError, "dW must be float32"),
        (W, ValueError, "dW shares memory with a parameter"),
        (np.broadcast_to(np.float32(0), (8, 16)), ValueError, "dW is read-only"),
    ):
        with pytest.raises(error, match=message):
            TimeAffineSoftmaxWithLoss(W, b, dW=wrong)
    expected = TimeAffineSoftmaxWithLoss(W, b)
    expected.forward(xs, ts)
    expected.backward()
    for dW in (np.full((8, 16), np.nan, np.float32), np.full((16, 8), np.nan, np.float32).T):
        layer = TimeAffineSoftmaxWithLoss(W, b, dW=dW)
        layer.forward(xs, ts)
        layer.backward()
        assert layer.grads[0] is dW
        assert_same_bits(dW, expected.grads[0])
