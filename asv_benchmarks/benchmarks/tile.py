"""The register-blocked product on packed operands: C = b + A B."""

import functools

import numpy as np
from rnnfast.kernels._jit import kernel
from rnnfast.kernels.product.gemm import gemm_forward, pack_forward, packed_size
from rnnfast.kernels.product.tile import FROM_START

from .measuring import Timed, aligned, assert_agrees, fma_peak, share_of_peak, unit


@kernel
def _repeated(times, a, packed, b, c, mode):
    """The product repeated in compiled code, since each call from Python would add 0.5 to 1 us."""
    for _ in range(times):
        gemm_forward(a, packed, b, c, mode)


@functools.cache
def _operands(rows, size, dtype):
    """A, packed B, bias, C and the call that multiplies them, compiled and checked."""
    rng = np.random.default_rng(0)
    a, b, bias = (
        aligned(rng.standard_normal(shape), dtype) for shape in ((rows, size), (size, size), (size,))
    )
    packed = aligned(np.zeros(packed_size(size, size, b.dtype)), dtype)
    c = aligned(np.full((rows, size), np.nan), dtype)
    pack_forward(b, packed)
    gemm_forward(a, packed, bias, c, FROM_START)
    assert_agrees("gemm", c, a.astype(np.float64) @ b + bias, size)
    return a, b, packed, bias, c


class Gemm(Timed):
    params = ([12, 20, 64], [100, 128, 512], ["float32", "float64"])
    param_names = ("rows", "size", "dtype")

    def setup(self, rows, size, dtype):
        self.a, self.b, self.packed, self.bias, self.c = _operands(rows, size, dtype)

    def time_packed(self, rows, size, dtype):
        gemm_forward(self.a, self.packed, self.bias, self.c, FROM_START)

    def time_numpy(self, rows, size, dtype):
        np.matmul(self.a, self.b, out=self.c)

    @unit("of the FMA peak")
    def track_share_of_peak(self, rows, size, dtype):
        operations = 2 * rows * size * size
        times = max(1, 20_000_000 // operations)

        def call():
            _repeated(times, self.a, self.packed, self.bias, self.c, FROM_START)

        return share_of_peak(call, times * operations, dtype, seconds=0.3)


class Peak:
    """The FMA peak: a change here is the machine, not the library."""

    params = (["float32", "float64"],)
    param_names = ("dtype",)

    @unit("GFLOP/s")
    def track_fma_peak(self, dtype):
        return fma_peak(0.1, dtype) / 1e9
