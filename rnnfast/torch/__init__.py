"""PyTorch's recurrent layers on rnnfast's kernels.

* `enable()` serves every recurrent layer of a program, `python -m rnnfast.torch script.py` those of a script.
* `accelerate(model)` serves the layers of one model, and `restore(model)` undoes it.
* `compile(model)` is `torch.compile` with recurrent layers inside one graph.
* `accelerate_policy(policy)` has a recurrent policy of sb3-contrib reset its states in the kernels.
* `RNN`, `LSTM` and `GRU` are those of `torch.nn` with `lengths` and `resets`.
* `Recurrent` is any cell of rnnfast, your own too, as a module.
* `report()` tells what was served.
"""

from __future__ import annotations

try:
    import torch as _torch
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "rnnfast.torch needs PyTorch: pip install 'rnnfast[torch]', or, in a clone, "
        "pip install -e '.[torch]'."
    ) from error

if not hasattr(_torch.library, "get_kernel"):
    raise ImportError(f"rnnfast.torch needs PyTorch 2.9 or newer, got {_torch.__version__}.")

from rnnfast.torch import openmp
from rnnfast.torch.accelerating import Accelerated, accelerate, accelerate_policy, restore
from rnnfast.torch.compiling import compile
from rnnfast.torch.dispatcher import Enabled, disable, enable, is_enabled
from rnnfast.torch.modules import GRU, LSTM, RNN
from rnnfast.torch.recurrent import Recurrent
from rnnfast.torch.serving import Report, report

openmp.borrow()

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "Accelerated",
    "Enabled",
    "Recurrent",
    "Report",
    "accelerate",
    "accelerate_policy",
    "compile",
    "disable",
    "enable",
    "is_enabled",
    "report",
    "restore",
]
