"""Optimizers, clipping and merging against their naive twins; bits against vector widths and layouts."""

import hashlib
import json
import math
import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import reference
import safetensors.numpy
from helpers import DTYPES, arrays, distance, needs_jit
from rnnfast.kernels.elementwise import dropout as dropout_kernels
from rnnfast.kernels.elementwise import embedding as embedding_kernels
from rnnfast.kernels.elementwise import optim as kernels

from rnnfast import optim

NAMES = ("SGD", "Momentum", "Nesterov", "AdaGrad", "RMSprop", "Adam", "AdamW")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_five_updates_equal_the_naive_formula(name, dtype):
    actual = arrays(0, dtype=dtype)
    expected = [param.astype(np.float64) for param in actual]
    fast, naive = getattr(optim, name)(), getattr(reference, name)()
    for step in range(5):
        grads = arrays(step + 1, dtype=dtype)
        fast.update(actual, grads)
        naive.update(expected, [grad.astype(np.float64) for grad in grads])
    assert distance(actual, expected) <= 32 * np.finfo(dtype).eps


def test_nesterov_is_momentum_looked_at_one_step_ahead():
    """In the textbook form the gradient is taken at theta + momentum * v; `param` holds that point."""
    momentum, lr = 0.9, 0.1
    theta, v = np.array([2.0]), np.zeros(1)
    ahead, optimizer = theta.copy(), optim.Nesterov(lr, momentum)
    for _ in range(6):
        v = momentum * v - lr * (theta + momentum * v)
        theta = theta + v
        optimizer.update([ahead], [ahead.copy()])
    np.testing.assert_allclose(ahead, theta + momentum * v, rtol=1e-14)


def test_the_first_step_of_adam_has_length_lr():
    for name in ("Adam", "AdamW"):
        param = np.zeros(3)
        getattr(optim, name)(lr=0.1).update([param], [np.array([1e-2, -3.0, 1e3])])
        np.testing.assert_allclose(param, [-0.1, 0.1, -0.1], rtol=1e-3)


def test_adamw_without_gradient_only_decays():
    param = np.ones(3)
    optim.AdamW(lr=0.1, weight_decay=0.5).update([param], [np.zeros(3)])
    np.testing.assert_allclose(param, 0.95, rtol=1e-15)


def test_a_changed_learning_rate_takes_effect_at_once():
    param = np.zeros(1)
    optimizer = optim.SGD(lr=1.0)
    optimizer.update([param], [np.ones(1)])
    optimizer.lr = 0.25
    optimizer.update([param], [np.ones(1)])
    assert param[0] == -1.25


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_layouts_of_parameters_and_gradients_do_not_change_a_bit(name, dtype):
    """C order, a transposed and a strided view."""

    def laid_out(values, layout):
        if layout == "transposed":
            return np.ascontiguousarray(values.T).T
        if layout == "strided":
            wide = np.zeros((2 * values.shape[0], values.shape[1]), values.dtype)
            wide[::2] = values
            return wide[::2]
        return values.copy()

    start, *steps = arrays(3, [(5, 7)] * 4, dtype)
    expected = start.copy()
    plain = getattr(optim, name)()
    for grad in steps:
        plain.update([expected], [grad])
    for param_layout in ("C", "transposed", "strided"):
        for grad_layout in ("C", "transposed", "strided"):
            actual, optimizer = laid_out(start, param_layout), getattr(optim, name)()
            for grad in steps:
                optimizer.update([actual], [laid_out(grad, grad_layout)])
                state = optimizer.state_dict()
                optimizer = getattr(optim, name)()
                optimizer.load_state_dict(state)
            np.testing.assert_array_equal(actual, expected)


@needs_jit
def test_updates_are_compiled_for_one_signature_a_dtype_whatever_the_layout_of_the_parameters():
    """Also for columns and every other element, whose memory has gaps."""
    for name in NAMES:
        for dtype in DTYPES:
            wide = arrays(4, [(6, 8)], dtype)[0]
            grads = arrays(5, [(6,), (3,), (6, 1)], dtype)
            params = [wide[:, 1], wide[::2, 3], wide[:, 4:5]]
            expected = [param.copy() for param in params]
            getattr(optim, name)().update(params, grads)
            getattr(optim, name)().update(expected, grads)
            for a, e in zip(params, expected, strict=True):
                np.testing.assert_array_equal(a, e)
    for name in NAMES:
        kernel = getattr(kernels, f"{name.lower().removesuffix('w')}_update")
        assert len(kernel.signatures) <= 2, name


@pytest.mark.parametrize("name", NAMES)
def test_a_run_resumed_from_saved_state_has_the_bits_of_one_that_was_not_stopped(name):
    shapes = [(4, 5), (33,)]
    expected, actual = arrays(0, shapes, np.float32), arrays(0, shapes, np.float32)
    through, first, second = (
        getattr(optim, name)(lr=0.5),
        getattr(optim, name)(lr=0.5),
        getattr(optim, name)(),
    )
    for step in range(6):
        through.update(expected, arrays(step, shapes, np.float32))
        if step < 3:
            first.update(actual, arrays(step, shapes, np.float32))
    saved = first.state_dict()
    state = {
        "scalars": json.loads(json.dumps(saved["scalars"])),
        "arrays": safetensors.numpy.load(safetensors.numpy.save(saved["arrays"])),
    }
    second.load_state_dict(state)
    assert (second.lr, second.steps) == (0.5, 3)
    for step in range(3, 6):
        second.update(actual, arrays(step, shapes, np.float32))
    for a, e in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(a, e)


def test_saved_state_is_a_copy():
    param, optimizer = np.ones(3), optim.Adam()
    optimizer.update([param], [np.ones(3)])
    saved = optimizer.state_dict()
    before = saved["arrays"]["m.0"].copy()
    optimizer.update([param], [np.ones(3)])
    np.testing.assert_array_equal(saved["arrays"]["m.0"], before)


def test_saved_state_that_does_not_fit_is_refused():
    param, optimizer = np.ones(3), optim.Adam()
    optimizer.update([param], [np.ones(3)])
    state = optimizer.state_dict()
    with pytest.raises(ValueError, match="expected the state of SGD, got that of Adam"):
        optim.SGD().load_state_dict(state)
    without_v = {"m.0": state["arrays"]["m.0"]}
    with pytest.raises(ValueError, match=r"missing or unknown: v\.0"):
        optim.Adam().load_state_dict({"scalars": state["scalars"], "arrays": without_v})
    without_beta1 = {name: value for name, value in state["scalars"].items() if name != "beta1"}
    with pytest.raises(ValueError, match="missing or unknown: beta1"):
        optim.Adam().load_state_dict({"scalars": without_beta1, "arrays": state["arrays"]})
    with pytest.raises(TypeError, match=r"state_dict\(\)"):
        optim.Adam().load_state_dict({"lr": 1})
    fresh = optim.Adam()
    fresh.load_state_dict(state)
    with pytest.raises(ValueError, match=r"params\[0\] must be \(3,\) float64"):
        fresh.update([np.ones(4)], [np.ones(4)])


@pytest.mark.parametrize(
    ("params", "grads", "error", "message"),
    [
        ([np.ones(2)], [], ValueError, "got 1 params and 0 grads"),
        ([np.ones(2)], [np.ones(3)], ValueError, r"grads\[0\] must be \(2,\)"),
        ([np.ones(2)], [np.ones(2, np.float32)], TypeError, r"grads\[0\] must be float64"),
        ([np.ones(2, int)], [np.ones(2, int)], TypeError, "float32 or float64"),
        ([np.broadcast_to(np.ones(1), 2)], [np.ones(2)], ValueError, "read-only"),
        ([[1.0]], [np.ones(1)], TypeError, r"params\[0\] must be a NumPy array"),
        (np.ones((1, 2)), [np.ones(2)], TypeError, "list of arrays"),
    ],
)
def test_parameters_and_gradients_that_do_not_fit_are_refused(params, grads, error, message):
    with pytest.raises(error, match=message):
        optim.Momentum().update(params, grads)


def test_a_refused_update_changes_nothing():
    params, optimizer = [np.ones(2), np.ones(3)], optim.Adam()
    with pytest.raises(ValueError, match=r"grads\[1\]"):
        optimizer.update(params, [np.ones(2), np.ones(4)])
    assert optimizer.steps == 0
    np.testing.assert_array_equal(params[0], 1.0)
    optimizer.update(params, [np.ones(2), np.ones(3)])
    with pytest.raises(ValueError, match="belongs to 2 params, got 1"):
        optimizer.update(params[:1], [np.ones(2)])
    assert optimizer.steps == 1


@pytest.mark.parametrize("lr", [math.nan, math.inf, -1.0, "fast", None])
def test_a_learning_rate_that_is_no_finite_number_is_refused(lr):
    optimizer = optim.SGD()
    with pytest.raises((TypeError, ValueError), match=r"SGD: lr must be"):
        optimizer.lr = lr
    with pytest.raises((TypeError, ValueError), match=r"SGD: lr must be"):
        optim.SGD(lr)
    assert optimizer.lr == 0.01


def digest():
    """A hash of everything the kernels of optim, embedding and dropout compute on fixed input."""
    found = hashlib.sha256()
    for dtype in DTYPES:
        for size in (1, 37, 1000):
            params = arrays(0, [(size,)] * 7, dtype)
            for param, name in zip(params, NAMES, strict=True):
                optimizer = getattr(optim, name)()
                for step in range(3):
                    optimizer.update([param], arrays(step + 1, [(size,)], dtype))
            norm = optim.clip_by_norm(params, 0.5)
            optim.clip_by_value(params, 0.01)
            out = np.empty_like(params[0])
            one_row = params[0][np.newaxis], out[np.newaxis]
            dropout_kernels.dropout_forward(one_row[0], 0, size, 123, 456, 2**31, dtype(2), one_row[1])
            ids = np.random.default_rng(size).integers(0, 9, (3, 11))
            table, rows = arrays(size, [(9, size), (33, size)], dtype)
            embedding_kernels.embedding_backward(ids, rows.reshape(3, 11, size), table)
            sums = np.empty((3, 9, size), dtype)
            embedding_kernels.context_sum_forward(ids, table, 3, sums)
            embedding_kernels.context_sum_backward(ids, sums, 3, table)
            for array in (*params, np.array(norm), out, table, sums):
                found.update(array.tobytes())
    return found.hexdigest()


def test_repeated_runs_give_the_same_bits():
    assert digest() == digest()


@pytest.mark.skipif(platform.machine() != "x86_64", reason="compares AVX2 with the native x86 code")
@pytest.mark.skipif(os.environ.get("NUMBA_DISABLE_JIT") == "1", reason="compares compiled code")
def test_avx2_code_gives_the_bits_of_native_code():
    here = Path(__file__).parent
    environment = {
        **os.environ,
        "NUMBA_CPU_NAME": "haswell",
        "PYTHONPATH": f"{here}{os.pathsep}{here.parent}",
    }
    command = [sys.executable, "-c", "import test_optim; print(test_optim.digest())"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == digest()
