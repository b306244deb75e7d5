"""A program for tests of lost ranks: `mpiexec -n N python tests/watched_ranks.py WORK [END RANK]`.

All ranks do WORK: "python", "compiled", "writing" or "mpi", which never end, "waits", which ends on rank RANK
alone, "inner" or "nothing". After a second, rank RANK comes to its END: "killed", "exited", "crashed" or
"fails". At "alike" and "all fail", all ranks do.
"""

import os
import signal
import sys
import threading
import time

import numpy as np
from mpi4py import MPI
from numba import njit

from rnnfast.distributed.watchdog import Watchdog
from rnnfast.files.tensors import write_tensors

STARTED = threading.Event()  # work is under way
FORM = "test"
ABOUT = {"arrays": {"numbers": ["float32", 1]}}


class Alike(Exception):
    """Raised on all ranks by agreement."""


class OfWorld:
    """The ranks of COMM_WORLD."""

    rank, size = MPI.COMM_WORLD.rank, MPI.COMM_WORLD.size
    local_size = MPI.COMM_WORLD.Split_type(MPI.COMM_TYPE_SHARED).size
    agreed = staticmethod(MPI.COMM_WORLD.bcast)
    barrier = staticmethod(MPI.COMM_WORLD.barrier)


@njit(nogil=True)
def long_loop(turns):
    """Seconds to minutes of compiled code."""
    total = 0.0
    for i in range(turns):
        total += np.sin(i)
    return total


def write_forever():
    """Rank 0 writes one number after the other, a million times each, to the file `numbers`."""
    number = 0
    while True:
        number += 1
        if OfWorld.rank == 0:
            write_tensors("numbers", FORM, {"numbers": np.full(10**6, number, np.float32)}, ABOUT)
        MPI.COMM_WORLD.barrier()
        STARTED.set()


def work(kind):
    long_loop(1)
    if kind != "writing":
        STARTED.set()
    if kind == "compiled":
        long_loop(10**12)
    elif kind == "writing":
        write_forever()
    elif kind == "mpi":
        MPI.COMM_WORLD.recv()  # nobody sends
    else:
        while True:
            time.sleep(0.01)


def killed():
    signal.raise_signal(signal.SIGKILL)


def exited():
    os._exit(3)


def crashed():
    import ctypes

    ctypes.string_at(0)


def dies(end):
    STARTED.wait()
    time.sleep(1)
    print(f"dies {time.time()}\n", end="", flush=True)
    end()


def fails(error):
    time.sleep(1)
    raise error


def inner(is_it):
    """Blocks inside a block only wait."""
    for turn in range(3):
        with Watchdog(OfWorld()):
            if is_it and turn == 2:
                time.sleep(1)
        print(f"turn {time.time()}\n", end="", flush=True)


def main(kind, end="", rank="-1"):
    sudden = {"killed": killed, "exited": exited, "crashed": crashed}
    is_it = OfWorld.rank == int(rank)
    with Watchdog(OfWorld(), (Alike,), "Resume with --resume."):
        if end == "alike":
            fails(Alike("all ranks agree"))
        if end == "all fail":
            fails(ValueError(f"rank {OfWorld.rank} fails as all do"))
        if is_it and end == "fails":
            fails(FileNotFoundError("data.bin has gone"))
        if is_it and end == "late":
            time.sleep(3)
        if is_it and end in sudden:
            threading.Thread(target=dies, args=(sudden[end],)).start()
        if kind == "inner":
            inner(is_it)
        elif kind == "waits" and is_it:
            STARTED.set()
        elif kind != "nothing":
            work("python" if kind == "waits" else kind)
    print(f"left {time.time()}\n", end="", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
