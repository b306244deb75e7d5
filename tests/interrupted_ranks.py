"""A program for tests of Ctrl-C: `mpiexec -n N python tests/interrupted_ranks.py FOLDER`.

Ranks make steps until one of them is asked to stop. Each writes its process id to the file `running-RANK`,
and its last step to `stopped-RANK`. Rank 0 writes `saving` when it begins to save, then `saved` for a second.
"""

import os
import sys
import time
from pathlib import Path

from mpi4py import MPI
from watched_ranks import OfWorld

from rnnfast.distributed.watchdog import Watchdog
from rnnfast.files.atomic import write_atomically
from rnnfast.training.safety import Interrupts

WORLD = MPI.COMM_WORLD


def note(path, value):
    with write_atomically(path) as file:
        file.write(str(value).encode())


def steps(interrupts, folder):
    """Train in lockstep until a rank is asked to stop."""
    for step in range(10**4):
        stops = WORLD.allreduce(interrupts.asked, MPI.LOR)
        if stops:
            note(folder / f"stopped-{WORLD.rank}", step)
            raise KeyboardInterrupt
        if step == 20:
            note(folder / f"running-{WORLD.rank}", os.getpid())
        time.sleep(0.01)


def main(folder):
    with Interrupts() as interrupts, Watchdog(OfWorld(), (KeyboardInterrupt,)):
        try:
            steps(interrupts, folder)
        except KeyboardInterrupt:
            if WORLD.rank == 0:
                note(folder / "saving", "")
                with write_atomically(folder / "saved") as file:
                    for _ in range(10):  # of 100 ms
                        file.write(b"0123456789")
                        time.sleep(0.1)
            raise


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]))
    except KeyboardInterrupt:
        sys.exit(130)
