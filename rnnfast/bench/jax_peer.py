"""JAX as a contender: compiled `lax.scan` on time-major arrays, with the input product outside the loop."""

from __future__ import annotations

from typing import Any

import numpy as np

from rnnfast import cells
from rnnfast.bench.contenders import Runs
from rnnfast.bench.grid import LayerProblem, ModelProblem


def start(threads: int) -> str:
    """The version; XLA reads its number of threads from the environment when it starts."""
    import jax

    return str(jax.__version__)


def _step_of(cell: cells.Cell) -> Any:
    """The step of a cell, `(params, carry, xs_t Wx + b) -> carry` with its states as carry, or None."""
    import jax.numpy as jnp
    from jax.nn import sigmoid

    def rnn(params: Any, carry: Any, given: Any) -> Any:
        return (jnp.tanh(given + carry[0] @ params[1]),)

    def lstm(params: Any, carry: Any, given: Any) -> Any:
        h, c = carry
        f, g, i, o = jnp.split(given + h @ params[1], 4, axis=-1)
        c = sigmoid(f) * c + sigmoid(i) * jnp.tanh(g)
        return sigmoid(o) * jnp.tanh(c), c

    def gru(params: Any, carry: Any, given: Any) -> Any:
        (h,) = carry
        zx, rx, hx = jnp.split(given, 3, axis=-1)
        zh, rh, hh = jnp.split(h @ params[1], 3, axis=-1)
        z, r = sigmoid(zx + zh), sigmoid(rx + rh)
        return ((1 - z) * h + z * jnp.tanh(hx + r * (hh + params[3])),)

    return {cells.rnn: rnn, cells.lstm: lstm, cells.gru_after: gru}.get(cell)


def layer(problem: LayerProblem) -> Runs | None:
    """The layer as a function, alone and with its gradients; None for a cell without a step here."""
    import jax
    import jax.numpy as jnp
    from jax import jit as compiled_by_xla

    step, states = _step_of(problem.cell), len(problem.cell.states)
    if step is None:
        return None

    def run(params: Any, xs: Any) -> Any:
        first = (jnp.zeros((xs.shape[1], params[1].shape[0]), xs.dtype),) * states

        def one(carry: Any, given: Any) -> Any:
            carry = step(params, carry, given)
            return carry, carry[0]

        # unroll=4 was tried: 0.8 to 1.2 times as fast on most shapes, and slow to compile.
        return jax.lax.scan(one, first, xs @ params[0] + params[2])[1]

    def run_and_pull(params: Any, xs: Any, dhs: Any) -> Any:
        hs, pull = jax.vjp(run, params, xs)
        return hs, pull(dhs)

    compiled, compiled_both = compiled_by_xla(run), compiled_by_xla(run_and_pull)
    params = [jnp.asarray(param) for param in problem.params]
    xs, dhs = (jnp.asarray(np.ascontiguousarray(a.swapaxes(0, 1))) for a in (problem.xs, problem.dhs))

    def forward() -> Any:
        return jax.block_until_ready(compiled(params, xs))

    def both() -> Any:
        return jax.block_until_ready(compiled_both(params, xs, dhs))

    def results(which: str) -> dict[str, np.ndarray]:
        if which == "forward":
            return {"hs": np.asarray(forward()).swapaxes(0, 1)}
        hs, (grads, dxs) = both()
        found = {"hs": np.asarray(hs).swapaxes(0, 1), "dxs": np.asarray(dxs).swapaxes(0, 1)}
        return {**found, **dict(zip(("dWx", "dWh", "db", "dbhh"), map(np.asarray, grads), strict=False))}

    return Runs({"forward": forward, "both": both}, results)


def language_model(problem: ModelProblem) -> None:
    """None: JAX has no training loop of its own to compare with."""
