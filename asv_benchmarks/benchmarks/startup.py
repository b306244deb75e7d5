"""Startup times: the import, compilation, and the first training step of a new process."""

import os
import statistics
import subprocess
import sys
import tempfile
import time

from .measuring import unit

FIRST_STEP = """
import numpy as np
import rnnfast
from rnnfast import optim

model = rnnfast.RNNLM(10_000, 100, 100, rng=np.random.default_rng(0))
ids = np.random.default_rng(1).integers(0, 10_000, (20, 36))
loss = model.forward(np.ascontiguousarray(ids[:, :-1]), np.ascontiguousarray(ids[:, 1:]))
model.backward()
optim.clip_by_norm(model.grads, 0.25)
optim.SGD(1.0).update(model.params, model.grads)
assert 9 < loss < 10, loss
"""


# The compiler alone: forward and backward of a layer, without starting the process and its imports.
COMPILE = """
import sys
import time
import numpy as np
import rnnfast

layer = getattr(rnnfast, sys.argv[1]).from_sizes(3, 4, rng=np.random.default_rng(0), dtype=sys.argv[2])
xs = np.ones((2, 3, 3), sys.argv[2])
start = time.process_time()
layer.backward(layer.forward(xs))
print(time.process_time() - start)
"""


def _seconds(cache):
    """Seconds from the start of the process to its end, with the compiled kernels in folder `cache`."""
    with tempfile.TemporaryDirectory() as elsewhere:
        environment = {**os.environ, "NUMBA_CACHE_DIR": cache}
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", FIRST_STEP], env=environment, cwd=elsewhere, check=True)
        return time.perf_counter() - start


class Import:
    timeout = 120

    def timeraw_import(self):
        return "import rnnfast"

    def timeraw_numba_alone(self):
        return "import numba"


class FirstStep:
    """Process start to the end of the first training step (V = 10,000, D = H = 100, N = 20, T = 35)."""

    timeout = 600

    def setup_cache(self):
        """Measure both times, since the first run fills the cache for the second."""
        with tempfile.TemporaryDirectory() as cache:
            return {"cold": _seconds(cache), "warm": statistics.median(_seconds(cache) for _ in range(5))}

    @unit("seconds")
    def track_cold_cache(self, seconds):
        return seconds["cold"]

    @unit("seconds")
    def track_warm_cache(self, seconds):
        return seconds["warm"]


class Compile:
    """Compile time of a layer's forward and backward, in a new process with an empty cache."""

    params = (["TimeRNN", "TimeLSTM", "TimeGRU"], ["float32"])
    param_names = ("layer", "dtype")
    timeout = 300

    @unit("seconds")
    def track_compile(self, layer, dtype):
        with tempfile.TemporaryDirectory() as cache:
            command = [sys.executable, "-c", COMPILE, layer, dtype]
            environment = {**os.environ, "NUMBA_CACHE_DIR": cache}
            done = subprocess.run(command, env=environment, cwd=cache, capture_output=True, check=True)
            return float(done.stdout)
