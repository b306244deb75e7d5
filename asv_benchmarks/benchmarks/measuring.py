"""Common parts of benchmarks: aligned inputs, checks before timing, shares of the peak, memory."""

import statistics
import time
import tracemalloc

import numpy as np
from rnnfast.kernels.product.peak import fma_peak

# Bytes of Python objects (tuples, array headers) that one call makes and frees. The arrays of every benchmark
# are many times larger, so that a single one is detected.
PYTHON_OBJECTS = 16 * 1024


class Timed:
    """asv settings for timings whose state is made once by an `lru_cache`d function.

    asv calls `setup` before each timed call and then times that single call, so `setup` must be cheap and
    samples must be many. Compilation happens in the cached function, outside the timer. The timer measures
    CPU time of the process, which runs on one thread, so that time of other programs is excluded.
    """

    timer = time.process_time
    repeat = (20, 500, 2.0)
    rounds = 2
    timeout = 300


def unit(name):
    """Set the unit of a figure (`track_...`)."""

    def decorate(function):
        function.unit = name
        return function

    return decorate


def aligned(values, dtype=np.float32):
    """A copy aligned to 64 bytes, so that timings do not depend on malloc."""
    values = np.asarray(values, dtype)
    raw = np.empty(values.nbytes + 64, np.uint8)
    start = -raw.ctypes.data % 64
    copy = raw[start : start + values.nbytes].view(values.dtype).reshape(values.shape)
    copy[...] = values
    return copy


def assert_agrees(what, actual, expected, terms):
    """Fail unless `actual` equals `expected` by norm, up to the rounding of sums of `terms` products."""
    error = np.linalg.norm(np.asarray(actual, np.float64) - expected) / max(np.linalg.norm(expected), 1e-30)
    limit = 32 * np.finfo(np.asarray(actual).dtype).eps * np.sqrt(terms)
    if not error <= limit:
        raise AssertionError(f"{what}: relative error {error:.1e} is above {limit:.1e}; nothing was timed")


def share_of_peak(call, operations, dtype=np.float32, seconds=1.0):
    """Median over rounds of the operations per second of `call` divided by the FMA peak, measured before it.

    A round takes about 20 ms, so that both sides have the same clock frequency and load.
    """
    call()
    begin = time.perf_counter()
    call()
    times = max(1, int(0.01 / (time.perf_counter() - begin)))
    shares = []
    begin = time.perf_counter()
    while len(shares) < 5 or time.perf_counter() - begin < seconds:
        peak = fma_peak(0.008, dtype)
        start = time.perf_counter()
        for _ in range(times):
            call()
        shares.append(operations * times / (time.perf_counter() - start) / peak)
    return statistics.median(shares)


def operations(layer, N, T):
    """Operations of the products of a forward pass over a window; backward has twice as many."""
    return 2 * N * T * sum(param.size for param in layer.params if param.ndim == 2)


def allocated_bytes(call):
    """Bytes of arrays that a call allocates in the steady state; the aim is 0.

    Small Python objects, together under PYTHON_OBJECTS, count as 0. Allocations in compiled code are not
    detected here; a test of the sources forbids them.
    """
    for _ in range(3):
        call()
    tracemalloc.start()
    call()
    start = tracemalloc.get_traced_memory()[0]
    tracemalloc.reset_peak()
    call()
    extra = tracemalloc.get_traced_memory()[1] - start
    tracemalloc.stop()
    return extra if extra >= PYTHON_OBJECTS else 0


def workspace_bytes(layer):
    """Bytes of scratch memory that a layer, or a model with its layers, holds."""
    total, waiting, seen = 0, [layer], set()
    while waiting:
        item = waiting.pop()
        if id(item) in seen or isinstance(item, np.ndarray):
            continue
        seen.add(id(item))
        if type(item).__name__ == "Workspace":
            total += item.nbytes
        elif isinstance(item, list | tuple):
            waiting += item
        elif type(item).__module__.startswith("rnnfast."):
            waiting += getattr(item, "__dict__", {}).values()  # values of a cell have slots
    return total


def figures(benchmark):
    """Add figures of `call`, of `layer` with its workspace, and of `operations`, which `setup` prepares."""

    @unit("of the FMA peak")
    def track_share_of_peak(self, *params):
        return share_of_peak(self.call, self.operations)

    @unit("bytes a step")
    def track_allocated(self, *params):
        return allocated_bytes(self.call)

    @unit("bytes")
    def track_workspace(self, *params):
        self.call()
        return workspace_bytes(self.layer)

    for track in (track_share_of_peak, track_allocated, track_workspace):
        setattr(benchmark, track.__name__, track)
    benchmark.timeout = 300
    return benchmark
