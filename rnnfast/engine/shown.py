"""The `repr` of layers, models, optimizers and trainers: one line, like the constructor call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def shown(
    owner: object, values: dict[str, Any], params: Sequence[np.ndarray] = (), *, count: bool = False
) -> str:
    """``Name(key=value, ...)``, optionally with the number of parameters, and their dtype if it is not
    float32."""
    parts = [f"{name}={value!r}" for name, value in values.items()]
    if count:
        parts.append(f"parameters={sum(param.size for param in params):,}")
    if params and params[0].dtype != np.float32:
        parts.append(f"dtype={params[0].dtype}")
    return f"{type(owner).__name__}({', '.join(parts)})"
