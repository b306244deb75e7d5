"""What `torch.compile` returns, made to hold recurrent layers."""

from __future__ import annotations

from typing import Any

import torch

from rnnfast.torch.accelerating import CELL, OURS, accelerate, survey
from rnnfast.torch.recurrent import Recurrent


def with_recurrent_layers(compiled: Any) -> Any:
    """Let a module of `torch.compile` trace recurrent modules, which it refuses by default."""
    compiled.__class__ = _class()
    compiled._initialize()
    return compiled


def _class() -> type:
    """`CompiledModule`, made at the first use: importing the compiler takes a second."""
    if "CompiledModule" not in globals():
        from torch._dynamo.eval_frame import OptimizedModule

        class CompiledModule(OptimizedModule):
            """A compiled module with recurrent layers in its graph; pickles and copies make another."""

            def _initialize(self) -> None:
                super()._initialize()
                compiled: Any = self.forward  # type: ignore[has-type]
                self.forward = torch._dynamo.config.patch(allow_rnn=True)(compiled)

        CompiledModule.__qualname__ = "CompiledModule"
        globals()["CompiledModule"] = CompiledModule
    return globals()["CompiledModule"]


def __getattr__(name: str) -> Any:
    if name == "CompiledModule":  # a pickle asks for it
        return _class()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


# Models with recurrent layers as one graph of `torch.compile`.


LOWEST = (2, 13)  # the compiler of older ones does not trace all of the layers


def compile(model: torch.nn.Module, **options: Any) -> Any:
    """`torch.compile` for a model with recurrent layers, which go into its graph on the kernels.

    `torch.compile` alone splits the graph at each `torch.nn.LSTM`, `GRU` and `RNN`. Here each layer is one
    operator of the graph. `accelerate` without a graph takes less time where little else can be fused.

    Parameters
    ----------
    model : torch.nn.Module
    **options
        Those of `torch.compile`; ``fullgraph`` is True by default.

    Returns
    -------
    compiled : torch.nn.Module
        What `torch.compile` returns, with the parameters of `model`, whose layers are accelerated, too.

    Raises
    ------
    TypeError
        `model` is no module.
    RuntimeError
        PyTorch is older than 2.13.
    ValueError
        A layer cannot be in the graph; the model is unchanged.

    Notes
    -----
    For sequences of different lengths use `rnnfast.torch.LSTM` with ``lengths=`` and ``resets=``, always as
    tensors: each new list, and each kind of call, compiles another graph, and PyTorch allows eight
    (``torch._dynamo.config.recompile_limit``). Calls that the kernels do not serve, a PackedSequence among
    them, put PyTorch's own operators into the graph. PyTorch's compiler has no second derivatives,
    `retain_graph` works with ``torch._functorch.config.donated_buffer = False`` only, and its default backend
    draws dropout masks of its own. `report` does not count what runs in graphs.

    Examples
    --------
    >>> import torch, rnnfast.torch
    >>> model = torch.nn.Sequential(torch.nn.Linear(3, 3), rnnfast.torch.GRU(3, 4))
    >>> compiled = rnnfast.torch.compile(model, backend="aot_eager")
    >>> compiled(torch.zeros(5, 2, 3))[0].shape
    torch.Size([5, 2, 4])
    """
    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < LOWEST:
        raise RuntimeError(f"compile: needs PyTorch 2.13 or newer, this is {torch.__version__}.")
    plain = {name: why for name, why in survey("compile", model).left.items() if why not in (OURS, CELL)}
    for name, module in model.named_modules():
        if isinstance(module, Recurrent):
            plain[name] = "use accelerate, or torch.nn.LSTM or GRU, instead of Recurrent"
        elif getattr(module, "proj_size", 0):
            plain[name] = "the kernels have no projections (proj_size)"
    for name, why in plain.items():
        raise ValueError(f"compile: layer {name!r} cannot be in the graph: {why}.")
    accelerate(model)
    compiled = torch.compile(model, **{"fullgraph": True, **options})
    return with_recurrent_layers(compiled)
