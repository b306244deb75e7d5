"""What `torch.compile` returns, made to hold recurrent layers."""

from __future__ import annotations

from typing import Any

import torch


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
