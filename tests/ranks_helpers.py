"""What tests on ranks share: programs under `mpiexec`, ended as a whole when their time is over."""

import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
# Open MPI refuses root and more ranks than cores; versions 4 and 5 have other names for the second.
ALLOWED = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    "OMPI_MCA_btl": "self,sm,vader",  # no network is needed
    "OMPI_MCA_btl_base_warn_component_unused": "0",
}


def launcher():
    """The path of `mpiexec`: that of the environment before that of the system; None without MPI."""
    if importlib.util.find_spec("mpi4py") is None or sys.platform == "win32":
        return None
    return shutil.which("mpiexec", path=Path(sys.executable).parent) or shutil.which("mpiexec")


needs_ranks = pytest.mark.skipif(launcher() is None, reason="needs mpi4py and mpiexec")


def library():
    """The name and version of the MPI library; empty without MPI."""
    if launcher() is None:
        return ""
    code = "from mpi4py import MPI; print(MPI.Get_library_version())"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False).stdout


class Ended(NamedTuple):
    """The exit code of `mpiexec` and what all ranks have written."""

    code: int
    out: str
    err: str


def start_ranks(count, *arguments, options=(), environment=None, **pipes):
    """Start `python arguments` on ranks, as the head of a process group; returns the process of `mpiexec`.

    Parameters
    ----------
    count : int
        Ranks.
    arguments : str or path
        A program and its arguments, "-c" and code, or "-m" and a module.
    options : sequence of str
        Of `mpiexec`.
    environment : dict, optional
        Further variables. Each rank has one thread, and finds rnnfast in this checkout.
    pipes
        Further arguments of `subprocess.Popen`; by default both outputs are pipes of text.
    """
    if launcher() is None:
        pytest.skip("needs mpi4py and mpiexec")
    path = os.pathsep.join(filter(None, [str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH")]))
    variables = {
        **os.environ,
        **ALLOWED,
        "RNNFAST_NUM_THREADS": "1",
        "PYTHONPATH": path,
        **(environment or {}),
    }
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **pipes}
    command = [launcher(), *options, "-n", count, sys.executable, *arguments]
    return subprocess.Popen([*map(str, command)], env=variables, start_new_session=True, **pipes)


def end_ranks(process):
    """Kill `mpiexec` and all its ranks, also those with a session of their own."""
    for pid in [*descendants(process.pid), process.pid]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


def run_ranks(count, *arguments, timeout=120, **options):
    """Run a program on ranks to its end; arguments and options as for `start_ranks`.

    Returns
    -------
    Ended
        Code and outputs. After `timeout` seconds, every rank is killed and the test fails.
    """
    process = start_ranks(count, *arguments, **options)
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        end_ranks(process)
        out, err = process.communicate()
        pytest.fail(f"{count} ranks ran for more than {timeout} s\n{out}\n{err}")
    except BaseException:
        end_ranks(process)
        raise
    return Ended(process.returncode, out, err)


def wait_for(condition, process, seconds=60):
    """Wait until the condition holds; the ranks end, and the test fails, if that takes longer."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline or process.poll() is not None:
            end_ranks(process)
            pytest.fail("\n".join(["it never came to that", *process.communicate()]))
        time.sleep(0.02)


def descendants(pid):
    """Process ids of all children, grandchildren, ... of a process."""
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True)
    children = {}
    for line in listed.stdout.splitlines():
        child, parent = map(int, line.split())
        children.setdefault(parent, []).append(child)
    found = [pid]
    for parent in found:
        found += children.get(parent, [])
    return found[1:]
