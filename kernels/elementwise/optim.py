"""Updates of flat parameter arrays, and the kernels of clipping: one pass over memory each.

Every array is one-dimensional. Memory limits these loops, so they are plain loops that the compiler
vectorizes. Each element is computed independently, without contraction into fused operations, so the bits do
not depend on the vector width.
"""

from __future__ import annotations

import numpy as np

from .._jit import kernel
from ..codegen.denormals import flush_denormals, restore_mode

# Partial sums of a squared norm, and squares summed before each update of a partial sum; the same on every
# target. On 80 MB of float32: 32 GB/s, the speed of memory. 64 lanes read rows 256 bytes apart, which the
# hardware does not prefetch: 10 GB/s. 8 lanes are not vectorized: 8 GB/s.
LANES = 16
ROWS = 8
FINITE_BLOCK = 4096  # elements checked before `all_finite` may stop


@kernel
def sgd_update(grad, lr, param):
    """`param -= lr * grad`.

    grad   (n,)  gradient
    param  (n,)  parameter, accumulated
    """
    mode_before = flush_denormals()
    for i in range(param.size):
        param[i] -= lr * grad[i]
    restore_mode(mode_before)


@kernel
def momentum_update(grad, lr, momentum, v, param):
    """`v = momentum * v - lr * grad; param += v`.

    grad   (n,)  gradient
    v      (n,)  velocity, overwritten
    param  (n,)  parameter, accumulated
    """
    mode_before = flush_denormals()
    for i in range(param.size):
        velocity = momentum * v[i] - lr * grad[i]
        v[i] = velocity
        param[i] += velocity
    restore_mode(mode_before)


@kernel
def nesterov_update(grad, lr, momentum, v, param):
    """`v = momentum * v - lr * grad; param += momentum * v - lr * grad`.

    grad   (n,)  gradient
    v      (n,)  velocity, overwritten
    param  (n,)  parameter, accumulated
    """
    mode_before = flush_denormals()
    for i in range(param.size):
        step = lr * grad[i]
        velocity = momentum * v[i] - step
        v[i] = velocity
        param[i] += momentum * velocity - step
    restore_mode(mode_before)


@kernel
def adagrad_update(grad, lr, eps, h, param):
    """`h += grad**2; param -= lr * grad / (sqrt(h) + eps)`.

    grad   (n,)  gradient
    h      (n,)  sum of squared gradients, accumulated
    param  (n,)  parameter, accumulated
    """
    mode_before = flush_denormals()
    for i in range(param.size):
        g = grad[i]
        total = h[i] + g * g
        h[i] = total
        param[i] -= lr * g / (np.sqrt(total) + eps)
    restore_mode(mode_before)


@kernel
def rmsprop_update(grad, lr, decay_rate, fresh, eps, h, param):
    """`h = decay_rate * h + fresh * grad**2; param -= lr * grad / (sqrt(h) + eps)`, `fresh` = 1 - decay_rate.

    grad   (n,)  gradient
    h      (n,)  running mean of squared gradients, overwritten
    param  (n,)  parameter, accumulated
    """
    mode_before = flush_denormals()
    for i in range(param.size):
        g = grad[i]
        mean = decay_rate * h[i] + fresh * (g * g)
        h[i] = mean
        param[i] -= lr * g / (np.sqrt(mean) + eps)
    restore_mode(mode_before)


@kernel
def adam_update(grad, step, fresh1, fresh2, eps, keep, m, v, param):
    """`m += fresh1 * (grad - m); v += fresh2 * (grad**2 - v)`, then
    `param = keep * param - step * m / (sqrt(v) + eps)`.

    `fresh` is 1 - beta, `step` and `eps` carry the bias correction, and `keep` is 1 - lr * weight_decay (1
    for Adam, which keeps every bit of `param`).

    grad   (n,)  gradient
    m      (n,)  running mean of gradients, accumulated
    v      (n,)  running mean of squared gradients, accumulated
    param  (n,)  parameter, overwritten
    """
    mode_before = flush_denormals()
    for i in range(param.size):
        g = grad[i]
        mean = m[i] + fresh1 * (g - m[i])
        square = v[i] + fresh2 * (g * g - v[i])
        m[i] = mean
        v[i] = square
        param[i] = keep * param[i] - step * mean / (np.sqrt(square) + eps)
    restore_mode(mode_before)


@kernel
def squared_norm(x, lanes):
    """`sum(x**2)` as float64, in the same order at every vector width.

    In blocks of ROWS rows of LANES elements, the squares of a column are added in pairs, then to the partial
    sum of its lane; at the end the lanes are added by halves. All sums are float64, so that millions of
    elements keep their digits.

    x      (n,)      summed
    lanes  (LANES,)  float64, partial sums, overwritten
    """
    mode_before = flush_denormals()
    block = LANES * ROWS
    whole = x.size // block
    lanes[:] = 0.0
    for k in range(whole):
        rows = x[k * block : (k + 1) * block]
        for j in range(LANES):
            a, b = np.float64(rows[j]), np.float64(rows[j + LANES])
            c, d = np.float64(rows[j + 2 * LANES]), np.float64(rows[j + 3 * LANES])
            e, f = np.float64(rows[j + 4 * LANES]), np.float64(rows[j + 5 * LANES])
            g, h = np.float64(rows[j + 6 * LANES]), np.float64(rows[j + 7 * LANES])
            lanes[j] += ((a * a + b * b) + (c * c + d * d)) + ((e * e + f * f) + (g * g + h * h))
    rest = x[whole * block :]
    for i in range(rest.size):
        a = np.float64(rest[i])
        lanes[i % LANES] += a * a
    half = LANES // 2
    while half > 0:
        for j in range(half):
            lanes[j] += lanes[j + half]
        half //= 2
    restore_mode(mode_before)
    return lanes[0]


@kernel
def scale_in_place(x, factor):
    """`x *= factor`.

    x  (n,)  overwritten
    """
    mode_before = flush_denormals()
    for i in range(x.size):
        x[i] *= factor
    restore_mode(mode_before)


@kernel
def clamp_in_place(x, limit):
    """`x = min(max(x, -limit), limit)`; NaN stays NaN.

    x  (n,)  overwritten
    """
    for i in range(x.size):
        value = x[i]
        value = limit if value > limit else value
        x[i] = -limit if value < -limit else value


@kernel
def all_finite(x):
    """Whether no element is NaN or infinite; comparing a NaN is always false.

    x  (n,)  read
    """
    infinity = x.dtype.type(np.inf)
    for start in range(0, x.size, FINITE_BLOCK):
        block = x[start : start + FINITE_BLOCK]
        bad = 0
        for i in range(block.size):
            bad |= not abs(block[i]) < infinity
        if bad:
            return False
    return True
