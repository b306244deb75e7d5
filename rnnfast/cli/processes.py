"""The processes of a command: this one alone, or the ranks that `mpiexec` or `srun` started together.

Every rank runs the same command. The first alone prints and writes; the output of the others is discarded,
and what they print on standard error is kept for the case that one of them fails alone. At the end all ranks
agree on one exit code.
"""

from __future__ import annotations

import io
import os
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, TypeVar

if TYPE_CHECKING:
    from rich.console import Console

    from rnnfast.distributed.ranks import Ranks
    from rnnfast.distributed.watchdog import Watchdog

# The variables that tell a process its number and their count: of MPICH and Intel MPI, Open MPI, and srun. A
# batch script of Slurm has SLURM_NTASKS too, but is one process: only srun sets the last name.
_LAUNCHERS = (
    ("PMI_RANK", "PMI_SIZE"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"),
)
_TOGETHER = ("train", "forecast", "classify")
_KEPT = 1 << 16  # characters
_PAUSE = 0.002  # seconds between two looks at the other ranks
# Seconds a failed rank waits for the others to fail alike; and where all are known to, for the first to save.
_PATIENCE, _LONG_PATIENCE = 1.0, 60.0

_Value = TypeVar("_Value")


class Launch(NamedTuple):
    """The number of a process, and the number of processes."""

    rank: int
    size: int


ALONE = Launch(0, 1)


def launched(environment: Mapping[str, str]) -> Launch:
    """The place of this process among those that a launcher started, from its environment variables.

    Examples
    --------
    >>> launched({"PMI_RANK": "1", "PMI_SIZE": "4"}), launched({"SLURM_PROCID": "0", "SLURM_NTASKS": "4"})
    (Launch(rank=1, size=4), Launch(rank=0, size=1))
    """
    for names in _LAUNCHERS:
        rank, size = (environment.get(name, "") for name in names)
        if rank.isdecimal() and size.isdecimal():
            return Launch(int(rank), int(size))
    return ALONE


class Processes:
    """The processes that run one command.

    Parameters
    ----------
    launch : Launch
        Of this process.

    Attributes
    ----------
    is_first : bool
        Whether this process prints and writes.
    size : int
        The number of processes.
    ranks : Ranks or None
        All processes, once `join` was called; None for one process.
    """

    def __init__(self, launch: Launch = ALONE) -> None:
        self._launch, self.is_first, self.size = launch, launch.rank == 0, launch.size
        self.ranks: Ranks | None = None
        self._world: Any = None  # a communicator of its own
        self._watcher: Watchdog | None = None
        self._patience = _PATIENCE
        self._chosen: int | None = None
        self._held = _Held()

    def join(self, command: str) -> None:
        """Begin a command on all ranks.

        Raises
        ------
        ValueError, ImportError
            The command runs in one process, or mpi4py is missing or does not know the other processes.
        """

        if self.size == 1:
            return
        if command not in _TOGETHER:
            raise ValueError(
                f"{command} runs in one process, and {self.size} were started; start it without "
                "mpiexec or srun."
            )
        self._meet()
        from rnnfast.distributed.ranks import Ranks
        from rnnfast.distributed.watchdog import Watchdog

        self.ranks = Ranks()
        self._watcher = Watchdog(self.ranks).__enter__()
        if self.ranks.any(self.ranks.agreed(sys.argv[1:]) != sys.argv[1:]):
            raise ValueError(
                "the processes were started with different arguments; start all with the same ones."
            )

    def _meet(self) -> None:
        """Start MPI; an error unless it knows the processes of the launcher."""
        from rnnfast import _check

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # mpi4py's about another MPI, which is an error below
            world = _check.training.mpi(f"a command in {self.size} processes").COMM_WORLD
        if (world.rank, world.size) != self._launch:
            raise _check.training.other_mpi(self._launch, (world.rank, world.size))
        self._world = world.Dup()

    # What a command asks of its processes.

    def blocks(self, given: int | None, batch_size: int) -> int | None:
        """The blocks of a batch of this many rows: those given, or on several ranks the least number that
        serves them."""
        if given is not None or self.size == 1:
            return given
        from rnnfast.training.processes import blocks_of

        self._chosen = max(blocks_of(batch_size), self.size)
        return self._chosen

    def say_blocks(self, console: Console) -> None:
        """Print the number that `blocks` chose."""
        if self._chosen is not None:
            console.print(
                f"{self.size} ranks share batches of {self._chosen} blocks; one process with "
                f"--blocks {self._chosen} ends in the same bits",
                soft_wrap=True,
            )

    def console(self, *, stderr: bool = False) -> Console:
        """The console for progress and tables; those of other ranks print nothing."""
        from rich.console import Console

        return Console(highlight=False, markup=False, stderr=stderr, quiet=not self.is_first)

    def agreed(self, value: _Value) -> _Value:
        """The first rank's value, on every rank."""
        return value if self.ranks is None else self.ranks.agreed(value)

    def of_first(self, work: Callable[[], _Value]) -> _Value:
        """The result of `work` on the first rank, on every rank; all end if it fails there."""
        if self.ranks is None:
            return work()
        if not self.is_first:
            value, failed = self.ranks.agreed(None)
            if failed:
                self._give_up()
            return value
        try:
            value = work()
        except BaseException:
            self.ranks.agreed((None, True))
            raise
        return self.ranks.agreed((value, False))[0]

    def first_then(self, first: Callable[[], _Value], others: Callable[[], _Value]) -> _Value:
        """The result of `first` on the first rank; then of `others` on the others, unless it failed."""
        made: list[_Value] = []
        self.of_first(lambda: made.append(first()))
        return made[0] if self.is_first else others()

    def end_alike(self) -> None:
        """All ranks are about to end for the same reason: the others wait until the first has saved."""
        self._patience = _LONG_PATIENCE

    def _give_up(self) -> NoReturn:
        """End after the first rank failed; its exit code becomes that of all."""
        import typer

        raise typer.Exit(1)

    # From the first line to the exit code.

    def run(self, command: Callable[[], object]) -> None:
        """Call `command` and exit with one code for all ranks: that of the first of them that failed.

        A rank that fails alone prints its number and the reason, and ends the others.
        """
        if self.size == 1:
            command()
            return
        if not self.is_first:
            sys.stdout, sys.stderr = open(os.devnull, "w"), self._held  # noqa: SIM115, for the whole process
        code: Any = 0
        try:
            command()
        except SystemExit as stop:
            code = stop.code
            if isinstance(code, str):
                print(code, file=sys.stderr)
                code = 1
        except BaseException:
            traceback.print_exc()
            code = 1
        sys.exit(self._agreed_code(code or 0))

    def _agreed_code(self, code: int) -> int:
        """The exit code of all ranks."""
        if self._world is None:
            if code == 0:  # --help or --version
                return 0
            try:
                self._meet()
            except (ImportError, ValueError):
                return code
        import numpy as np

        # The work of this rank is over: Ctrl-C is for those that others wait for.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        codes = np.zeros(self.size, np.int32)
        request = self._world.Iallgather(np.array([code], np.int32), codes)
        until = time.monotonic() + self._patience
        while not request.Test():
            if code and time.monotonic() > until:
                self._tell()
                if self._watcher is not None:
                    self._watcher.fail(f"exit code {code}")
                self._world.Abort(code)
            time.sleep(_PAUSE)
        if self._watcher is not None:
            self._watcher.__exit__(None, None, None)
        failed = np.flatnonzero(codes)
        if not failed.size:
            return 0
        if failed[0] == self._launch.rank:
            self._tell()
        return int(codes[failed[0]])

    def _tell(self) -> None:
        """Print why this rank fails; the first has printed it already."""
        sys.stdout.flush()
        if not self.is_first and sys.__stderr__ is not None:
            lines = self._held.getvalue().splitlines() or ["it failed"]
            sys.__stderr__.writelines(f"rank {self._launch.rank}: {line}\n" for line in lines)
            sys.__stderr__.flush()


class _Held(io.StringIO):
    """Text that is printed only if it turns out to be needed; very old text is forgotten."""

    def write(self, text: str) -> int:
        if self.tell() > _KEPT:
            self.seek(0)
            self.truncate()
        return super().write(text)
