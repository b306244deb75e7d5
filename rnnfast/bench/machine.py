"""The machine of the measurement: processor, cores, versions."""

from __future__ import annotations

import os
import platform
from typing import Any

import numba
import numpy as np

import rnnfast
from rnnfast.bench.processor import processor
from rnnfast.kernels.codegen.vectors import VECTOR_BYTES


def cores() -> list[int] | None:
    """The cores this process may use; None if the system does not tell."""
    if not hasattr(os, "sched_getaffinity"):
        return None
    return sorted(os.sched_getaffinity(0))


def core_count() -> int:
    """The number of cores this process may use."""
    allowed = cores()
    return len(allowed) if allowed is not None else (os.cpu_count() or 1)


def description() -> dict[str, Any]:
    """The description of the machine, as JSON values."""
    return {
        "processor": processor(),
        "machine": platform.machine(),
        "system": platform.platform(),
        "cores": core_count(),
        "vector_bytes": VECTOR_BYTES,
        "float32_lanes": VECTOR_BYTES // 4,
        "versions": {
            "rnnfast": rnnfast.__version__,
            "python": platform.python_version(),
            "numpy": np.__version__,
            "numba": numba.__version__,
        },
    }
