"""PyTorch as a contender: modules with `batch_first=True`, in inference mode unless gradients are needed."""

from __future__ import annotations

from typing import Any

import numpy as np

from rnnfast import cells
from rnnfast.bench.contenders import Runs
from rnnfast.bench.grid import LayerProblem, ModelProblem
from rnnfast.interop.layouts import LAYOUTS, Arrays, from_library, to_library
from rnnfast.interop.torch import module_of
from rnnfast.models.cells import named_cell

_LAYOUTS = LAYOUTS["torch"]


def start(threads: int) -> str:
    """Limit PyTorch to `threads` threads; return its version."""
    import torch

    torch.set_num_threads(threads)
    return str(torch.__version__)


def _fill(module: Any, number: int, cell: cells.Cell, params: list[np.ndarray]) -> None:
    """Copy the weights of a layer."""
    import torch

    values = to_library(cell, _LAYOUTS[cell], dict(zip(cell.shapes(1, 1), params, strict=True)))
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    with torch.no_grad():
        for name, value in zip(names, values, strict=True):
            getattr(module, f"{name}_l{number}").copy_(torch.from_numpy(value))


def _gradients(module: Any, number: int, cell: cells.Cell) -> list[np.ndarray]:
    """dWx, dWh, db, and dbhh if the cell has one, in rnnfast's layout."""

    def gradient(name: str) -> np.ndarray:
        return getattr(module, f"{name}_l{number}").grad.numpy()

    db, recurrent = gradient("bias_ih"), gradient("bias_hh")
    reset = np.zeros_like(db)  # the gradients of two biases that are added are equal, and not added
    if cell.apart:
        reset[-module.hidden_size :] = recurrent[-module.hidden_size :]
    arrays = Arrays(gradient("weight_ih"), gradient("weight_hh"), db, reset)
    return list(from_library(cell, _LAYOUTS[cell], arrays).values())


def layer(problem: LayerProblem) -> Runs | None:
    """The module; None for a cell that PyTorch does not have."""
    import torch

    cell, shape = problem.cell, problem.shape
    if cell not in _LAYOUTS:
        return None
    module = module_of(cell, shape.D, shape.H, batch_first=True)
    _fill(module, 0, cell, problem.params)
    plain, gradient = torch.from_numpy(problem.xs.copy()), torch.from_numpy(problem.dhs.copy())
    tracked = plain.clone().requires_grad_(True)

    def forward() -> Any:
        with torch.inference_mode():
            return module(plain)[0]

    def both() -> Any:
        tracked.grad = None
        module.zero_grad()
        hs = module(tracked)[0]
        hs.backward(gradient)
        return hs

    def results(which: str) -> dict[str, np.ndarray]:
        if which == "forward":
            return {"hs": forward().numpy()}
        hs = both().detach().numpy()
        names = ("dWx", "dWh", "db", "dbhh")
        found = dict(zip(names, _gradients(module, 0, cell), strict=False))
        assert tracked.grad is not None
        return {"hs": hs, "dxs": tracked.grad.numpy(), **found}

    return Runs({"forward": forward, "both": both}, results)


def language_model(problem: ModelProblem) -> Runs | None:
    """The same model made of PyTorch's modules, trained as in PyTorch's example of a language model."""
    import torch

    size, params, cell = problem.size, problem.params, named_cell("bench", problem.size.cell)
    if cell not in _LAYOUTS:
        return None
    embedding = torch.nn.Embedding(size.V, size.H)
    recurrent = module_of(cell, size.H, size.H, size.layers, batch_first=True)
    output = torch.nn.Linear(size.H, size.V)
    each = len(cell.shapes(1, 1))
    for number in range(size.layers):
        _fill(recurrent, number, cell, params[1 + each * number :][:each])
    with torch.no_grad():
        embedding.weight.copy_(torch.from_numpy(params[0]))
        output.weight.copy_(torch.from_numpy(params[-2].T.copy()))
        output.bias.copy_(torch.from_numpy(params[-1]))
    model = torch.nn.ModuleList([embedding, recurrent, output])
    optimizer = torch.optim.SGD(model.parameters(), 1.0)
    ids, labels = torch.from_numpy(problem.xs), torch.from_numpy(problem.ts)
    carried: list[Any] = [None]

    def gradients() -> Any:
        optimizer.zero_grad()
        hs, state = recurrent(embedding(ids), carried[0])
        carried[0] = tuple(s.detach() for s in state) if isinstance(state, tuple) else state.detach()
        loss = torch.nn.functional.cross_entropy(output(hs).reshape(-1, size.V), labels.reshape(-1))
        loss.backward()
        return loss

    def step() -> None:
        gradients()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.25)
        optimizer.step()

    def results(which: str) -> dict[str, np.ndarray]:
        carried[0] = None
        loss = gradients().detach().numpy()
        carried[0] = None
        found = [embedding.weight.grad]
        for number in range(size.layers):
            found += _gradients(recurrent, number, cell)
        assert output.weight.grad is not None
        found += [output.weight.grad.T, output.bias.grad]
        return {"loss": loss, **{str(i): np.array(grad) for i, grad in enumerate(found)}}

    return Runs({"gradients": gradients, "step": step}, results)
