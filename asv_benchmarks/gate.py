"""A gate against regressions: speed ratios measured in one process, each with a lower limit.

    python asv_benchmarks/gate.py            all cases, half a minute once kernels are compiled
    python asv_benchmarks/gate.py lstm       the cases with this in their names

Times depend on the machine and its load, ratios hardly. The matrix product is compared with the FMA peak of
the same core, layers with the product (some processors slow down during multiply-adds that also load), and
the rest with NumPy on the same data. Both sides take turns, and the best of many short turns counts, which
other programs do not slow down. The limits are some 80 % of the lowest ratio on Granite Rapids, which is
lower than on Zen 5: noise does not reach them, and an LSTM's forward pass with one loop that is no longer
vectorized falls below.
"""

import sys
import time
from collections.abc import Callable
from typing import NamedTuple

# isort: off
from benchmarks import baseline, measuring, tile  # before other libraries: it limits all to one thread
import numpy as np

# isort: on
from rnnfast.kernels.codegen.activations import exp_forward, sigmoid_forward, tanh_forward
from rnnfast.kernels.product.peak import fma_peak
from rnnfast.kernels.product.tile import FROM_START

import rnnfast
from rnnfast import cells, optim

TURN, ROUNDS = 0.004, 25  # seconds of one turn, and the number of turns of each side


class Case(NamedTuple):
    """One ratio: the time of `other` divided by the time of `call`; otherwise operations per second
    of `call` divided by the product's, or the product's divided by the FMA peak."""

    name: str
    at_least: float
    call: Callable[[], object]
    operations: float = 0.0
    other: Callable[[], object] | None = None


PRODUCT_SHAPE = 64, 128  # rows, and the size of a square matrix; the operands fit the nearest caches
PRODUCT_TIMES = 20
PRODUCT_OPERATIONS = 2.0 * PRODUCT_TIMES * PRODUCT_SHAPE[0] * PRODUCT_SHAPE[1] ** 2


def product():
    """The packed product, several times."""
    a, _, packed, bias, c = tile._operands(*PRODUCT_SHAPE, "float32")
    tile._repeated(PRODUCT_TIMES, a, packed, bias, c, FROM_START)


def recurrent(rng, cell, shape, least_forward, least_both):
    """A layer's share of the product's speed: forward, and forward with backward."""
    N, T, D, H = shape
    layer = cell.layer(D, H, rng=rng)
    xs, dhs = (rng.standard_normal((N, T, size)).astype(np.float32) for size in (D, H))
    hs, dxs = np.empty_like(dhs), np.empty_like(xs)
    operations = float(measuring.operations(layer, N, T))

    def both():
        layer.forward(xs, out=hs)
        layer.backward(dhs, out=dxs)

    name = f"{cell.name} {'x'.join(map(str, shape))}"
    yield Case(f"{name} forward", least_forward, lambda: layer.forward(xs, out=hs), operations)
    yield Case(f"{name} both", least_both, both, 3 * operations)


def compared_with_numpy(rng, cell, least):
    """A layer written in NumPy as in the book, compared with ours."""
    N, T, D, H = 20, 35, 100, 100
    layer = cell.layer(D, H, rng=rng)
    naive = baseline.CELLS[cell.name](*layer.params)
    xs, dhs = (rng.standard_normal((N, T, size)).astype(np.float32) for size in (D, H))

    def both(one):
        one.forward(xs)
        one.backward(dhs)

    yield Case(f"{cell.name} against NumPy", least, lambda: both(layer), other=lambda: both(naive))


def functions(rng):
    """Elementwise loops compared with NumPy's."""
    x = rng.standard_normal(20_000).astype(np.float32)
    y = np.empty_like(x)
    for name, call, naive, least in (
        ("exp", exp_forward, np.exp, 0.8),
        ("sigmoid", sigmoid_forward, lambda x: 1 / (1 + np.exp(-x)), 1.05),
        ("tanh", tanh_forward, np.tanh, 0.45),
    ):
        yield Case(f"{name} against NumPy", least, lambda call=call: call(x, y), other=lambda f=naive: f(x))


def output_and_updates(rng):
    """The fused loss compared with the product, and a parameter update compared with NumPy's."""
    loss = rnnfast.TimeAffineSoftmaxWithLoss.from_sizes(100, 2000, rng=rng)
    xs, ts = rng.standard_normal((20, 35, 100)).astype(np.float32), rng.integers(0, 2000, (20, 35))
    yield Case("fused loss", 0.50, lambda: loss.forward(xs, ts), 3 * 2.0 * 700 * 100 * 2000)
    params, grads = ([rng.standard_normal(50_000).astype(np.float32)] for _ in range(2))
    m, v = np.zeros_like(params[0]), np.zeros_like(params[0])
    adam = optim.Adam(lr=1e-6)

    def naive():
        m[...] += 0.1 * (grads[0] - m)
        v[...] += 0.001 * (grads[0] ** 2 - v)
        params[0][...] -= 1e-6 * m / (np.sqrt(v) + 1e-8)

    yield Case("Adam against NumPy", 2.0, lambda: adam.update(params, grads), other=naive)


def cases():
    rng = np.random.default_rng(0)
    yield Case("product", 0.63, product, PRODUCT_OPERATIONS)
    yield from recurrent(rng, cells.rnn, (32, 128, 64, 128), 0.56, 0.58)
    yield from recurrent(rng, cells.lstm, (32, 128, 64, 128), 0.55, 0.55)
    yield from recurrent(rng, cells.gru_after, (32, 128, 64, 128), 0.56, 0.58)
    yield from recurrent(rng, cells.lstm, (1, 400, 64, 128), 0.30, 0.35)
    yield from compared_with_numpy(rng, cells.rnn, 1.8)
    yield from compared_with_numpy(rng, cells.lstm, 2.3)
    yield from compared_with_numpy(rng, cells.gru, 2.4)
    yield from functions(rng)
    yield from output_and_updates(rng)


def best(call, seconds):
    """The shortest time of a call within a turn."""
    end, shortest = time.perf_counter() + seconds, np.inf
    while True:
        start = time.perf_counter()
        call()
        now = time.perf_counter()
        shortest = min(shortest, now - start)
        if now > end:
            return shortest


def measured(case):
    """The ratio."""
    case.call()  # compiles
    own, other = np.inf, np.inf
    for _ in range(ROUNDS):
        own = min(own, best(case.call, TURN))
        if case.call is product:
            other = min(other, case.operations / fma_peak(TURN))
        elif case.other:
            other = min(other, best(case.other, TURN))
        else:
            other = min(other, best(product, TURN) * case.operations / PRODUCT_OPERATIONS)
    return other / own


def main():
    rnnfast.set_num_threads(1)  # overrides the environment
    wanted = sys.argv[1] if len(sys.argv) > 1 else ""
    below = []
    for case in cases():
        if wanted not in case.name:
            continue
        ratio = measured(case)
        unit = "times as fast" if case.other else "of the peak" if case.call is product else "of the product"
        verdict = "" if ratio >= case.at_least else "  <-- too slow"
        print(f"{case.name:32} {ratio:6.2f} {unit:14} (at least {case.at_least:.2f}){verdict}", flush=True)
        if verdict:
            below.append(case.name)
    if below:
        print(f"{len(below)} below the least that may be: {', '.join(below)}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
