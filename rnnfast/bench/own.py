"""rnnfast as a contender."""

from __future__ import annotations

import numpy as np

import rnnfast
from rnnfast import optim
from rnnfast.bench.contenders import Runs
from rnnfast.bench.grid import LayerProblem, ModelProblem
from rnnfast.models.cells import named_cell


def start(threads: int) -> str:
    """Limit rnnfast to `threads` threads; return its version."""
    rnnfast.set_num_threads(threads)
    return rnnfast.__version__


def layer(problem: LayerProblem) -> Runs:
    """A layer with frozen weights for inference, one for training; results in the caller's arrays."""

    def made() -> rnnfast.Recurrent:
        params = [param.copy() for param in problem.params]
        return rnnfast.Recurrent(problem.cell, params, rng=np.random.default_rng(0))

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

    def results(which: str) -> dict[str, np.ndarray]:
        if which == "forward":
            forward()
            return {"hs": hs}
        both()
        names = [f"d{name}" for name in layer.parameter_names]
        return {"hs": hs, "dxs": dxs, **dict(zip(names, layer.grads, strict=True))}

    return Runs({"forward": forward, "both": both}, results, keeps=freeze)


def language_model(problem: ModelProblem) -> Runs:
    """A training step: forward and backward; the whole step adds clipping and SGD."""
    size = problem.size
    cell = named_cell("bench", size.cell)
    model = rnnfast.RNNLM(size.V, size.H, size.H, cell=cell, layers=size.layers, rng=np.random.default_rng(0))
    for param, value in zip(model.params, problem.params, strict=True):
        param[...] = value
    optimizer = optim.SGD(1.0)

    def gradients() -> None:
        model.forward(problem.xs, problem.ts)
        model.backward()

    def step() -> None:
        gradients()
        optim.clip_by_norm(model.grads, 0.25)
        optimizer.update(model.params, model.grads)

    def results(which: str) -> dict[str, np.ndarray]:
        model.reset_state()
        loss = model.forward(problem.xs, problem.ts)
        model.backward()
        model.reset_state()
        return {"loss": np.array(loss), **{str(i): grad.copy() for i, grad in enumerate(model.grads)}}

    return Runs({"gradients": gradients, "step": step}, results)
