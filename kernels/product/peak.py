"""Fused multiply-adds per second of one core: the peak that measured speeds are compared with.

The loop runs independent chains `sum = sum * a + b` in vector registers, without memory. On current
processors a step takes four cycles and two begin in each, so at least eight chains are needed; there are
more because a longer loop body hides the loop's own instructions.
Measured on Zen 4 with AVX-512: 117 GFLOP/s in float32, the same as a C loop of the same chains (gcc -O3
-march=native).
"""

from __future__ import annotations

import time

import numpy as np
from llvmlite import ir
from numba import types

from .._jit import intrinsic, jit_is_disabled, kernel
from ..codegen.vectors import VECTOR_BYTES, VECTOR_REGISTERS, VectorWriter

CHAINS = VECTOR_REGISTERS * 3 // 4  # leaves registers for the two factors


def _chains_twin(rounds, a, b):
    """The chains in plain NumPy, for NUMBA_DISABLE_JIT."""
    sums = np.repeat(np.arange(CHAINS, dtype=a.dtype) * b, VECTOR_BYTES // a.dtype.itemsize)
    for _ in range(rounds):
        sums = sums * a + b
    return sums.sum()


@intrinsic(_chains_twin)
def _chains(typing_context, rounds, a, b):
    """The sum of all lanes after `rounds` steps of every chain; without a result the loop would vanish."""

    def codegen(context, builder, signature, arguments):
        count, *factors = arguments
        writer = VectorWriter(builder.module, signature.args[1])
        scalar, lanes = writer.scalar, writer.lanes
        a_vector, b_vector = (writer.splat(builder, factor) for factor in factors)
        first = [
            builder.fmul(b_vector, ir.Constant(writer.vector, [float(i)] * lanes)) for i in range(CHAINS)
        ]
        before = builder.block
        loop = builder.append_basic_block("chains")
        done = builder.append_basic_block("sum")
        some = builder.icmp_signed(">", count, ir.Constant(count.type, 0))
        builder.cbranch(some, loop, done)

        builder.position_at_end(loop)
        left = builder.phi(count.type)
        sums = [builder.phi(writer.vector) for _ in first]
        later = [writer.multiply_add(builder, total, a_vector, b_vector) for total in sums]
        fewer = builder.sub(left, ir.Constant(count.type, 1))
        builder.cbranch(builder.icmp_signed("!=", fewer, ir.Constant(count.type, 0)), loop, done)
        left.add_incoming(count, before)
        left.add_incoming(fewer, loop)
        for total, start, value in zip(sums, first, later, strict=True):
            total.add_incoming(start, before)
            total.add_incoming(value, loop)

        builder.position_at_end(done)
        ends = []
        for start, value in zip(first, later, strict=True):
            end = builder.phi(writer.vector)
            end.add_incoming(start, before)
            end.add_incoming(value, loop)
            ends.append(end)
        total = ends[0]
        for end in ends[1:]:
            total = builder.fadd(total, end)
        result = ir.Constant(scalar, 0.0)
        for lane in range(lanes):
            result = builder.fadd(result, builder.extract_element(total, ir.Constant(ir.IntType(32), lane)))
        return result

    return a(types.int64, a, a), codegen


@kernel
def fma_chains(rounds, a, b):
    """The sum over chains c and lanes of s_c after `rounds` steps of `s_c = s_c a + b`, from `s_c = c b`.

    rounds  int    steps of each chain
    a, b    float  factor and summand, both float32 or both float64
    """
    return _chains(rounds, a, b)


def fma_peak(seconds: float = 0.02, dtype: np.typing.DTypeLike = np.float32) -> float:
    """Floating-point operations per second of one core now; a multiply-add counts as two.

    Parameters
    ----------
    seconds : float
        Approximate time of the measurement. The best of four slices counts, since other processes can only
        slow a slice down.
    dtype : float32 or float64

    Examples
    --------
    >>> fma_peak() > 1e6
    True
    """
    a, b = np.array([0.5, 0.25], dtype)  # the sums tend to 0.5: no overflow and no denormals
    rounds = 1 if jit_is_disabled() else 1000
    fma_chains(rounds, a, b)  # compiles
    while (elapsed := _slice(rounds, a, b)) < seconds / 16:
        rounds *= 2
    rounds = max(1, int(rounds * seconds / 4 / elapsed))
    best = min(_slice(rounds, a, b) for _ in range(4))
    return 2 * CHAINS * (VECTOR_BYTES // np.dtype(dtype).itemsize) * rounds / best


def _slice(rounds: int, a: np.floating, b: np.floating) -> float:
    start = time.perf_counter()
    fma_chains(rounds, a, b)
    return time.perf_counter() - start
