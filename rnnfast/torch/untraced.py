"""Functions that `torch.compile` runs as they are instead of tracing into them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def untraced(function: Callable[..., Any]) -> Callable[..., Any]:
    """Mark a function, and all that it calls, as one that is not to be traced.

    `torch.compiler.disable` does so as well, but imports the compiler, which takes a second.
    """
    frames: Any = getattr(getattr(torch._C, "_dynamo", None), "eval_frame", None)
    if not hasattr(frames, "set_code_exec_strategy"):
        return torch.compiler.disable(function)
    skip = frames._FrameAction.SKIP
    frames.set_code_exec_strategy(function.__code__, frames._FrameExecStrategy(skip, skip))
    return function
