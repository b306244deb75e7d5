"""Optimizers on subclasses of arrays: the memory is updated, whatever the class makes of shapes."""

import numpy as np
import pytest

from rnnfast import optim


@pytest.mark.parametrize("kind", [np.matrix, np.memmap])
def test_subclasses_of_arrays_are_updated_like_arrays(kind, tmp_path):
    rng = np.random.default_rng(0)

    def made(name):
        values = rng.standard_normal((3, 4)).astype(np.float32)
        if kind is np.matrix:
            return values.view(np.matrix), values.copy()
        mapped = np.memmap(tmp_path / name, np.float32, "w+", shape=(3, 4))
        mapped[...] = values
        return mapped, values

    (param, plain), (grad, plain_grad) = made("param"), made("grad")
    for optimizer in (optim.SGD, optim.Momentum, optim.Adam):
        actual, expected = optimizer(lr=0.1), optimizer(lr=0.1)
        for _ in range(2):
            actual.update([param, param.T], [grad, grad.T])
            expected.update([plain, plain.T], [plain_grad, plain_grad.T])
        assert isinstance(param, kind)
        np.testing.assert_array_equal(np.asarray(param), plain)
    assert optim.clip_by_norm([grad], 0.1) == optim.clip_by_norm([plain_grad], 0.1)
    optim.clip_by_value([grad], 0.01)
    optim.clip_by_value([plain_grad], 0.01)
    np.testing.assert_array_equal(np.asarray(grad), plain_grad)
    assert optim.global_norm([grad]) == optim.global_norm([plain_grad])
    assert optim.all_finite([grad])
    (merged,), (total,) = optim.merge_shared([param, param.T], [grad, grad.T])
    assert merged is param
    np.testing.assert_array_equal(np.asarray(total), 2 * plain_grad)
