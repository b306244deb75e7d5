"""asv benchmarks of rnnfast, one file per unit; `measuring.py` and `baseline.py` have their common parts.

The specification in `tests/reference.py` checks results too.

All libraries use one thread. It is set here, since they read it when loaded and asv loads this file first.
"""

import os
import sys
from pathlib import Path

for _name in (
    "OPENBLAS_NUM_THREADS",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "RNNFAST_NUM_THREADS",
):
    os.environ.setdefault(_name, "1")

sys.path.append(str(Path(__file__).resolve().parents[2] / "tests"))
