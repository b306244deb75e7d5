"""A program for tests of lost ranks: `mpiexec -n N python tests/watched_ranks.py WORK [END RANK]`.

All ranks do WORK ("python", "compiled" or "mpi"); after a second, rank RANK comes to its END.
"""

import os
import signal
import sys
import threading
import time

import numpy as np
from mpi4py import MPI
from numba import njit

from rnnfast.training.lost_ranks import Watcher


class Alike(Exception):
    """Raised on all ranks by agreement."""


class OfWorld:
    """The ranks of COMM_WORLD."""

    rank, size = MPI.COMM_WORLD.rank, MPI.COMM_WORLD.size
    local_size = MPI.COMM_WORLD.Split_type(MPI.COMM_TYPE_SHARED).size
    agreed = staticmethod(MPI.COMM_WORLD.bcast)


@njit(nogil=True)
def long_loop(turns):
    """Seconds to minutes of compiled code."""
    total = 0.0
    for i in range(turns):
        total += np.sin(i)
    return total


def work(kind):
    long_loop(1)
    MPI.COMM_WORLD.barrier()
    print("working", os.getpid(), flush=True)
    if kind == "compiled":
        long_loop(10**12)
    elif kind == "mpi":
        if OfWorld.rank == OfWorld.size - 1:
            time.sleep(100)
        MPI.COMM_WORLD.barrier()
    else:
        while True:
            time.sleep(0.01)


def killed():
    os.kill(os.getpid(), signal.SIGKILL)


def exited():
    os._exit(3)


def crashed():
    import ctypes

    ctypes.string_at(0)


def fails(error):
    time.sleep(1)
    raise error


def main(kind, end="", rank="-1"):
    ends = {"killed": killed, "exited": exited, "crashed": crashed}
    with Watcher(OfWorld(), (Alike,), "Resume with --resume."):
        if end == "alike":
            fails(Alike("all ranks agree"))
        if end == "all fail":
            fails(ValueError(f"rank {OfWorld.rank} fails as all do"))
        if OfWorld.rank == int(rank) and end == "fails":
            fails(FileNotFoundError("data.bin has gone"))
        if OfWorld.rank == int(rank) and end == "slow":
            time.sleep(3)
        if OfWorld.rank == int(rank) and end in ends:
            thread = threading.Thread(target=lambda: (time.sleep(1), ends[end]()))
            thread.start()
        if kind != "nothing":
            work(kind)
    print("left", OfWorld.rank, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
