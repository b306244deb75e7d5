"""Ranks where MPI is missing: one sentence, and nothing is imported before it is needed."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("mpi4py", "Ranks needs mpi4py: pip install 'rnnfast[mpi]'."),
        (
            "mpi4py.MPI",
            "Ranks needs an MPI library, which mpi4py does not find: pip install mpich, or load a module.",
        ),
    ],
)
def test_what_is_missing_is_one_sentence(missing, message):
    code = f"""
import importlib.machinery, sys, types
sys.modules["mpi4py"] = types.ModuleType("mpi4py")
sys.modules["mpi4py"].__spec__ = importlib.machinery.ModuleSpec("mpi4py", None)
sys.modules[{missing!r}] = None
from rnnfast.training import Ranks
Ranks()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1] == f"ImportError: {message}"


def test_training_does_not_import_mpi4py():
    code = "import sys, rnnfast.training; assert 'mpi4py' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
