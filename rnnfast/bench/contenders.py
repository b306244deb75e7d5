"""A problem prepared for rnnfast and for each other library.

A contender is a function of a `Problem`. It returns the passes as `Runs`, or None for a cell that the library
does not have. To add a library, write one and add a line to `PEERS`.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

import rnnfast
from rnnfast import cells
from rnnfast.bench.timing import CORES
from rnnfast.cells import Cell, gru_after, lstm, rnn
from rnnfast.interop.structure import LAYOUTS, Arrays, from_library, to_library
from rnnfast.models.weights import named_cell

# The problems of the benchmark: cells, shapes and passes; their values, and their operations.


# The default cells: those of the other libraries, in their variants.
CELLS = (rnn.name, lstm.name, gru_after.name)
# Inference; and forward with backward, including the gradient of the input.
PASSES = ("forward", "both")


class Shape(NamedTuple):
    """Sizes of a layer: batch, steps, inputs, hidden units."""

    N: int
    T: int
    D: int
    H: int

    def __str__(self) -> str:
        return "x".join(map(str, self))


SHAPES = (
    Shape(1, 1000, 32, 32),
    Shape(10, 5, 100, 100),
    Shape(20, 35, 100, 100),
    Shape(20, 35, 650, 650),
    Shape(32, 128, 64, 128),
    Shape(64, 100, 128, 256),
    Shape(32, 256, 256, 512),
    Shape(1, 4096, 64, 256),
    Shape(64, 50, 1024, 1024),
)
QUICK_SHAPES = (Shape(10, 5, 100, 100), Shape(20, 35, 100, 100), Shape(32, 128, 64, 128))


@dataclass(frozen=True)
class Problem:
    """A layer with its weights and data in float32, in rnnfast's layout.

    Parameters
    ----------
    cell : Cell
    shape : Shape
    threads : int
        Number of threads a contender may use.
    params : list of ndarray
        In the order of `cell.shapes`: ``Wx (D, G H)``, ``Wh (H, G H)``, ``b (G H,)``.
    xs, dhs : ndarray (N, T, D), (N, T, H)
    """

    cell: Cell
    shape: Shape
    threads: int
    params: list[np.ndarray]
    xs: np.ndarray
    dhs: np.ndarray


def problem(name: str, shape: Shape, threads: int = 1) -> Problem:
    """A problem for the cell of this name, with the same values each time.

    Weights are uniform within 1 / sqrt(H), as in PyTorch; a cell's own parameters have its initial values.
    """
    rng = np.random.default_rng(0)
    cell = named_cell("bench", name)
    N, T, D, H = shape
    bound = 1 / np.sqrt(H)
    params = [
        cell.initial(name, size, rng) if name in cell.roles else rng.uniform(-bound, bound, size)
        for name, size in cell.shapes(D, H).items()
    ]
    xs, dhs = (rng.standard_normal((N, T, size), dtype=np.float32) for size in (D, H))
    return Problem(cell, shape, threads, [param.astype(np.float32) for param in params], xs, dhs)


def operations(cell: Cell, shape: Shape, which: str) -> int:
    """Floating-point operations of the matrix products of a pass; a multiply-add counts as two.

    Examples
    --------
    >>> operations(lstm, Shape(1, 1, 2, 3), "forward"), operations(lstm, Shape(1, 1, 2, 3), "both")
    (120, 360)
    """
    N, T, D, H = shape
    weights = sum(size[0] * size[1] for size in cell.shapes(D, H).values() if len(size) == 2)
    return {"forward": 2, "both": 6}[which] * N * T * weights


Results = dict[str, np.ndarray]


@dataclass(frozen=True)
class Runs:
    """A problem prepared for a contender.

    Parameters
    ----------
    calls : dict of str to callable
        The timed call of each pass that the library has.
    results : callable
        Runs a pass once, untimed, and returns its results in rnnfast's layout: ``hs (N, T, H)``; ``both``
        adds ``dxs``, and ``dWx``, ``dWh``, ``db`` and so on, one for each parameter of the cell.
    keeps : object
        What the calls need while they are used, such as an open context.
    """

    calls: dict[str, Callable[[], object]]
    results: Callable[[str], Results]
    keeps: object = None


def own(problem: Problem) -> Runs:
    """A layer with frozen weights for inference, one for training; results in the caller's arrays."""

    def made() -> rnnfast.Recurrent:
        params = [param.copy() for param in problem.params]
        return rnnfast.Recurrent(problem.cell, params, rng=np.random.default_rng(0))

    rnnfast.set_num_threads(problem.threads)
    layer, reader = made(), made()
    freeze = reader.frozen()
    freeze.__enter__()
    xs, dhs = problem.xs, problem.dhs
    hs, dxs = np.zeros_like(dhs), np.zeros_like(xs)

    def forward() -> None:
        reader.forward(xs, out=hs, keep=False)

    def both() -> None:
        layer.forward(xs, out=hs)
        layer.backward(dhs, out=dxs)

    def results(which: str) -> Results:
        if which == "forward":
            forward()
            return {"hs": hs.copy()}
        both()
        return {"hs": hs.copy(), "dxs": dxs, **_named(problem, layer.grads)}

    return Runs({"forward": forward, "both": both}, results, keeps=freeze)


def _named(problem: Problem, grads: list[np.ndarray]) -> Results:
    """Gradients by name: ``dWx``, ``dWh``, ``db`` and so on."""
    names = problem.cell.shapes(1, 1)
    return {f"d{name}": np.asarray(grad) for name, grad in zip(names, grads, strict=True)}


def pytorch(problem: Problem) -> Runs | None:
    """The module with `batch_first=True`, in inference mode unless gradients are needed."""
    import torch

    from rnnfast.interop.torch import module_of

    layouts, cell, shape = LAYOUTS["torch"], problem.cell, problem.shape
    if cell not in layouts:
        return None
    torch.set_num_threads(problem.threads)
    module = module_of(cell, shape.D, shape.H, batch_first=True)
    weights = [getattr(module, f"{name}_l0") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
    given = to_library(cell, layouts[cell], dict(zip(cell.shapes(1, 1), problem.params, strict=True)))
    with torch.no_grad():
        for weight, value in zip(weights, given, strict=True):
            weight.copy_(torch.from_numpy(value))
    plain, gradient = torch.from_numpy(problem.xs.copy()), torch.from_numpy(problem.dhs.copy())
    tracked: Any = plain.clone().requires_grad_(True)

    def forward() -> Any:
        with torch.inference_mode():
            return module(plain)[0]

    def both() -> Any:
        tracked.grad = None
        module.zero_grad()
        hs = module(tracked)[0]
        hs.backward(gradient)
        return hs

    def results(which: str) -> Results:
        if which == "forward":
            return {"hs": forward().numpy()}
        hs = both().detach().numpy()
        wx, wh, bx, bh = (weight.grad.numpy() for weight in weights)
        reset = np.zeros_like(bx)  # the gradients of two biases that are added are equal, and not added
        if cell.apart:
            reset[-shape.H :] = bh[-shape.H :]
        grads = from_library(cell, layouts[cell], Arrays(wx, wh, bx, reset))
        return {"hs": hs, "dxs": tracked.grad.numpy(), **_named(problem, list(grads.values()))}

    return Runs({"forward": forward, "both": both}, results)


def _jax_step(cell: cells.Cell) -> Any:
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


def jax(problem: Problem) -> Runs | None:
    """A compiled `lax.scan` on time-major arrays, with the input product outside of the loop."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ.setdefault("NPROC", str(len(CORES)))  # the number of XLA's threads
    import jax
    import jax.numpy as jnp
    from jax import jit as compiled_by_xla

    step, states = _jax_step(problem.cell), len(problem.cell.states)
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

    params = [jnp.asarray(param) for param in problem.params]
    xs, dhs = (jnp.asarray(np.ascontiguousarray(a.swapaxes(0, 1))) for a in (problem.xs, problem.dhs))
    # All contenders are pinned; beyond that, XLA need not share out the work of one thread.
    how: Any = {"xla_cpu_multi_thread_eigen": problem.threads > 1}
    compiled = compiled_by_xla(run).lower(params, xs).compile(how)
    compiled_both = compiled_by_xla(run_and_pull).lower(params, xs, dhs).compile(how)

    def forward() -> Any:
        return jax.block_until_ready(compiled(params, xs))

    def both() -> Any:
        return jax.block_until_ready(compiled_both(params, xs, dhs))

    def results(which: str) -> Results:
        if which == "forward":
            return {"hs": np.asarray(forward()).swapaxes(0, 1)}
        hs, (grads, dxs) = both()
        found = {"hs": np.asarray(hs).swapaxes(0, 1), "dxs": np.asarray(dxs).swapaxes(0, 1)}
        return {**found, **_named(problem, grads)}

    return Runs({"forward": forward, "both": both}, results)


def _onnx_model(problem: Problem) -> bytes | None:
    """One recurrent operator with its weights, serialized; None for a cell that ONNX does not have."""
    from onnx import TensorProto, helper, numpy_helper

    from rnnfast.interop.onnx_layers import OPERATORS

    how = next((o for o in OPERATORS if o.cell == problem.cell and not o.layout.peepholes), None)
    if how is None:
        return None
    N, T, D, H = problem.shape
    params = dict(zip(problem.cell.shapes(D, H), problem.params, strict=True))
    wx, wh, bx, bh = to_library(how.cell, how.layout, params)
    weights = {"W": wx, "R": wh, "B": np.concatenate([bx, bh])}
    attributes = how.attributes | ({"activations": [how.activation]} if how.activation else {})
    graph = helper.make_graph(
        [helper.make_node(how.kind, ["X", *weights], ["Y"], hidden_size=H, **attributes)],
        problem.cell.name,
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, (T, N, D))],
        [helper.make_tensor_value_info("Y", TensorProto.FLOAT, (T, 1, N, H))],
        [numpy_helper.from_array(np.ascontiguousarray(w[None]), name) for name, w in weights.items()],
    )
    # Operators of 2021, which older runtimes can also read.
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    return bytes(model.SerializeToString())


def onnx_runtime(problem: Problem) -> Runs | None:
    """A session for one operator, time-major, forward only, with a bound output array."""
    import onnxruntime

    model = _onnx_model(problem)
    if model is None:
        return None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = problem.threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    N, T, _, H = problem.shape
    given = onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(problem.xs.swapaxes(0, 1)))
    taken = onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros((T, 1, N, H), np.float32))
    binding: Any = session.io_binding()
    binding.bind_ortvalue_input("X", given)
    binding.bind_ortvalue_output("Y", taken)

    def forward() -> None:
        session.run_with_iobinding(binding)

    def results(which: str) -> Results:
        forward()
        return {"hs": taken.numpy()[:, 0].swapaxes(0, 1)}

    return Runs({"forward": forward}, results)


@dataclass(frozen=True)
class Peer:
    """Another library.

    Parameters
    ----------
    title : str
        Its name.
    prepare : callable
        The contender.
    needs : tuple of str
        The required packages, by their import names.
    """

    title: str
    prepare: Callable[[Problem], Runs | None]
    needs: tuple[str, ...]

    @property
    def missing(self) -> list[str]:
        """The required packages that are not installed."""
        return [name for name in self.needs if importlib.util.find_spec(name) is None]


PEERS = {
    "torch": Peer("PyTorch", pytorch, ("torch",)),
    "jax": Peer("JAX", jax, ("jax",)),
    "onnxruntime": Peer("ONNX Runtime", onnx_runtime, ("onnxruntime", "onnx")),
}
