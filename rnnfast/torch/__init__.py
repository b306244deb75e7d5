"""PyTorch's recurrent layers on rnnfast's kernels.

* `enable()` serves every recurrent layer of a program, `python -m rnnfast.torch script.py` those of a script.
* `report()` tells what was served.
"""

from __future__ import annotations

try:
    import torch as _torch  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("rnnfast.torch needs PyTorch: pip install 'rnnfast[torch]'.") from error

from rnnfast.torch.dispatcher import disable, enable, is_enabled
from rnnfast.torch.report import report

__all__ = ["disable", "enable", "is_enabled", "report"]
