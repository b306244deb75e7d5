"""Programs on several MPI ranks; importing this skips a module where mpi4py or mpiexec is missing."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mpi4py")
_beside = Path(sys.executable).with_name("mpiexec")
MPIEXEC = str(_beside) if _beside.exists() else shutil.which("mpiexec")
if MPIEXEC is None:
    pytest.skip("mpiexec is missing", allow_module_level=True)


def on_ranks(ranks, code, *arguments, timeout=120, fails=False):
    """Run Python code with `mpiexec -n ranks`; returns its output and errors as text, lines in any order.

    An exception on one rank ends all of them (`-m mpi4py`).
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    done = subprocess.run(
        [MPIEXEC, "-n", str(ranks), sys.executable, "-m", "mpi4py", "-c", code, *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert (done.returncode != 0) == fails, done.stdout + done.stderr
    return done.stdout, done.stderr
