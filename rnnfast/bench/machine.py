"""What it is measured on: the processor, its cores, and versions."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import numba
import numpy as np

import rnnfast
from rnnfast.kernels.vectors import VECTOR_BYTES


def cores() -> list[int] | None:
    """The cores this process may use; None where the system does not say."""
    if not hasattr(os, "sched_getaffinity"):
        return None
    return sorted(os.sched_getaffinity(0))


def core_count() -> int:
    """How many cores this process may use."""
    allowed = cores()
    return len(allowed) if allowed is not None else (os.cpu_count() or 1)


def processor() -> str:
    """The processor as it calls itself."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.lower().startswith(("model name", "hardware")):
                return line.partition(":")[2].strip()
    if sys.platform == "darwin":
        with suppress(OSError, subprocess.SubprocessError):
            command = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
            return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    return platform.processor() or platform.machine()


def description() -> dict[str, Any]:
    """All of it."""
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
