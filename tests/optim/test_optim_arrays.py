"""Optimizers on subclasses of arrays: a memory map is updated in its memory, a matrix is refused."""

import numpy as np
import pytest
from helpers import assert_same_bits

from rnnfast import optim


def test_a_matrix_is_refused_before_anything_changes():
    param, grad = np.ones((3, 4), np.float32), np.ones((3, 4), np.float32).view(np.matrix)
    for given in ([param], [grad]), ([grad], [grad]):
        with pytest.raises(TypeError, match=r"SGD\.update: .*matrix"):
            optim.SGD(lr=0.1).update(*given)
    assert (param == 1).all()


def test_memory_maps_are_updated_like_arrays(tmp_path):
    rng = np.random.default_rng(0)

    def made(name):
        values = rng.standard_normal((3, 4)).astype(np.float32)
        mapped = np.memmap(tmp_path / name, np.float32, "w+", shape=(3, 4))
        mapped[...] = values
        return mapped, values

    (param, plain), (grad, plain_grad) = made("param"), made("grad")
    for optimizer in (optim.SGD, optim.Momentum, optim.Adam):
        actual, expected = optimizer(lr=0.1), optimizer(lr=0.1)
        for _ in range(2):
            actual.update([param, param.T], [grad, grad.T])
            expected.update([plain, plain.T], [plain_grad, plain_grad.T])
        assert isinstance(param, np.memmap)
        assert_same_bits(np.asarray(param), plain)
    assert optim.clip_by_norm([grad], 0.1) == optim.clip_by_norm([plain_grad], 0.1)
    optim.clip_by_value([grad], 0.01)
    optim.clip_by_value([plain_grad], 0.01)
    assert_same_bits(np.asarray(grad), plain_grad)
    assert optim.global_norm([grad]) == optim.global_norm([plain_grad])
    assert optim.all_finite([grad])
    (merged,), (total,) = optim.merge_shared([param, param.T], [grad, grad.T])
    assert merged is param
    assert_same_bits(np.asarray(total), 2 * plain_grad)
