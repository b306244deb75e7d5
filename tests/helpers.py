"""What tests of compiled code share: sizes for both modes, poison, guards, distances."""

import gc
import importlib.util
import re
import sys
import tracemalloc

import llvmlite.binding as llvm
import numpy as np
import pytest
from numba.core.registry import cpu_target
from rnnfast.kernels._jit import jit_is_disabled
from rnnfast.kernels.product.tile import panel_width

from rnnfast.engine import threads
from rnnfast.models import RNNLM

JIT = not jit_is_disabled()
sends_interrupts = pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT to another process")
takes_minutes_interpreted = pytest.mark.skipif(not JIT, reason="takes minutes without compiled code")
needs_jit = pytest.mark.skipif(not JIT, reason="looks at compiled code, and NUMBA_DISABLE_JIT is set")

DTYPES = (np.float32, np.float64)
# The public modules, as what follows "rnnfast".
MODULES = [
    "",
    ".cells",
    ".data",
    ".diagnostics",
    ".forecast",
    ".forecast.metrics",
    ".heads",
    ".interop",
    ".models",
    ".optim",
    ".time_layers",
    ".training",
]
MODULES += [f".{name}" for name in ("sklearn", "torch") if importlib.util.find_spec(name)]
SHAPES = [(1,), (7,), (16, 17), (3, 0), (65,)]  # of parameters


def sized(compiled, plain):
    """A size for compiled code, or a smaller one for plain Python, which is 1,000 times slower."""
    return compiled if JIT else plain


def compiled(module, target, cpu):
    """The target machine for a processor, and the module after the passes that Numba runs, too."""
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    module.triple = target.triple
    found = llvm.Target.from_triple(target.triple)
    machine = found.create_target_machine(cpu=cpu, features=target.features, opt=3)
    optimized = llvm.parse_assembly(str(module))
    passes = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=3))
    passes.getModulePassManager().run(optimized, passes)
    return machine, optimized


def normal(rng, shape, dtype):
    return rng.standard_normal(shape).astype(dtype)


def poisoned(shape, dtype):
    """An output array in which an element that nobody writes shows."""
    return np.full(shape, np.nan, dtype)


def poison(layer, keep=()):
    """Spoil what a layer's next call must overwrite: gradients, and scratch except the memory of `keep`."""
    for grad in layer.grads:
        grad[...] = np.nan
    for buffer in layer._workspace._buffers.values():
        if not any(np.may_share_memory(buffer, array) for array in keep):
            buffer[...] = 0xFF


def relative_distance(actual, expected):
    """The norm of the difference over that of `expected`; infinite where one of them is not finite."""
    assert actual.shape == expected.shape, (actual.shape, expected.shape)
    actual, expected = actual.astype(np.float64), expected.astype(np.float64)
    if not np.isfinite(actual).all():
        return np.inf
    difference, scale = np.linalg.norm(actual - expected), np.linalg.norm(expected)
    return difference / scale if scale else difference


def assert_same_bits(actual, expected):
    """Equal shape, dtype and bytes; unlike ==, it tells -0 from 0 and accepts NaN."""
    assert (actual.shape, actual.dtype) == (expected.shape, expected.dtype)
    np.testing.assert_array_equal(actual, expected)
    assert np.ascontiguousarray(actual).tobytes() == np.ascontiguousarray(expected).tobytes()


def kernel_calls(monkeypatch):
    """A list to which each call of a kernel adds how many threads it runs on, and whether by units."""
    seen, original = [], threads.run

    def noted(kernel, members, by_units, *rest):
        seen.append((members, by_units))
        return original(kernel, members, by_units, *rest)

    monkeypatch.setattr(threads, "run", noted)
    return seen


def target_without_avx512():
    """Environment of a process that compiles for AVX2; None where there is no AVX-512 to switch off.

    The name of a processor alone would leave AVX-512 on, since Numba takes the features from the host.
    """
    features = cpu_target.target_context.codegen().magic_tuple()[2]
    if "+avx512f" not in features or "+fma" not in features:
        return None
    narrowed = re.sub(r"\+(?=avx512|avx10|evex512)", "-", features)
    return {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": narrowed}


def laid_out(matrix, row_stride, panel_stride=None, col_stride=1, guard=70):
    """`matrix` at these strides in a flat array that is NaN elsewhere.

    Returns the array, the offset of the first element and the offsets of all. A panel stride is the distance
    between groups of panel_width columns.
    """
    width = panel_width(matrix.dtype)
    panel_stride = width * col_stride if panel_stride is None else panel_stride
    rows, cols = np.indices(matrix.shape)
    places = rows * row_stride + cols // width * panel_stride + cols % width * col_stride
    first = guard - int(places.min(initial=0))
    places += first
    flat = poisoned(int(places.max(initial=first)) + guard, matrix.dtype)
    flat[places] = matrix
    return flat, first, places


def arrays(seed, shapes=SHAPES, dtype=np.float64):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


def distance(actual, expected):
    """The largest relative distance by norm."""
    pairs = [(a, e) for a, e in zip(actual, expected, strict=True) if e.size]
    return max(np.linalg.norm(a - e) / np.linalg.norm(e) for a, e in pairs)


def small_model(seed=0, **options):
    return RNNLM(7, 6, 6, rng=np.random.default_rng(seed), **options)


def copies(model):
    return [param.copy() for param in model.params]


def assert_equal(actual, expected):
    """Equal arrays, one by one."""
    for one, other in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def peak_of(call):
    """The most bytes that Python and NumPy held during a call."""
    gc.collect()
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
