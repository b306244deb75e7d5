"""asv benchmarks of rnnfast, one file a unit; `measuring.py` and `baseline.py` hold what they share.

One thread everywhere: set here, since libraries read it when they are loaded and asv loads this first.
"""

import os

for _name in (
    "OPENBLAS_NUM_THREADS",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "RNNFAST_NUM_THREADS",
):
    os.environ.setdefault(_name, "1")
