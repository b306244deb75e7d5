"""When one rank of an MPI job dies or fails alone, all ranks end, and one line names it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from contextlib import ExitStack, suppress
from typing import Any

from rnnfast.distributed import watchdog as guard

_SECONDS = 3.0  # for one try to reach the guard
_THREAD = "rnnfast-ranks"


class Watcher:
    """A block that all ranks enter and leave together, and that none survives alone.

    If a rank is killed in the block (SIGKILL, a lack of memory, a crash, `os._exit`), or leaves it by an
    exception and the others do not within 3 s, all ranks end with exit code 1, also inside compiled code or
    an MPI call that never returns. One line on stderr names the rank. After no exception, or one of `alike`,
    the block waits until every rank has left it. A block inside another one does no more than that.

    A process beside the ranks (`guard.py`) sees to that. Ranks on other machines reach it over TCP at a free
    port of rank 0's machine; those that cannot are left to the launcher, and so is the loss of a whole
    machine.

    Parameters
    ----------
    ranks : Ranks
        Uses its `rank`, `size`, `local_size`, `agreed` and `barrier`. With one rank, nothing happens.
    alike : tuple of types
        Exceptions that all ranks raise by agreement, for example `KeyboardInterrupt` after `Interrupts`. On
        its way out, rank 0 may take its time to save.
    advice : str
        A sentence for the end of the line, for example how to resume. That of rank 0 is used.

    Notes
    -----
    Launchers also end the job when a rank dies, and print messages of their own. MPICH's `mpiexec` kills all
    ranks within a millisecond and prints "BAD TERMINATION"; with `-disable-auto-cleanup` it leaves the ranks
    to this class. Open MPI's prints which rank it was, sends SIGTERM after 0.25 s and SIGKILL 0.3 s later.
    Neither has an option for silence, except that `--quiet` shortens the message of Open MPI 4. `srun` waits
    for ranks that never end unless it has `--kill-on-bad-exit`; this class ends them.

    A process that a rank forked, without starting another program, hides the death of the rank until it ends.

    Examples
    --------
    >>> class Alone:
    ...     rank, size, local_size = 0, 1, 1
    >>> with Watcher(Alone()):
    ...     pass
    """

    def __init__(self, ranks: Any, alike: tuple[type[BaseException], ...] = (), advice: str = "") -> None:
        self._ranks, self._alike, self._advice = ranks, alike, advice
        self._guard: subprocess.Popen[bytes] | None = None
        self._thread: threading.Thread | None = None
        self._connection: socket.socket | None = None
        self._is_inner = False

    def __enter__(self) -> Watcher:
        ranks = self._ranks
        self._thread = None
        if ranks.size > 1:
            place = ranks.agreed(None if ranks.rank or _is_watched() else self._start())
            self._is_inner = place is None
            if place is not None:
                self._connect(*place)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        together = kind is None or issubclass(kind, self._alike)
        if self._is_inner and together:
            self._ranks.barrier()
        if not together:
            self.fail(kind.__name__)  # type: ignore[union-attr]
        elif self._thread is not None:
            self._tell("left")
            self._thread.join()

    def fail(self, reason: str) -> None:
        """Name this rank and the reason unless all ranks fail; all end in 3 s, or when this one does."""
        if self._thread is not None:
            self._tell(f"failed {reason}")

    def _start(self) -> tuple[list[str], int, str]:
        """Start the guard; returns names of this machine, the port, and what the guard wants to hear."""
        ranks = self._ranks
        address = "127.0.0.1" if ranks.local_size == ranks.size else ""
        program = [sys.executable, "-I", "-S", guard.__file__, str(ranks.size), address, self._advice]
        try:
            self._guard = subprocess.Popen(
                program, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True
            )
            with self._guard.stdout as pipe:  # type: ignore[union-attr]
                port, token = pipe.readline().split()
        except (OSError, ValueError):  # no process can be started
            return [], 0, ""
        return [address] if address else _names(), int(port), token.decode()

    def _connect(self, hosts: list[str], port: int, token: str) -> None:
        hello = {
            "token": token,
            "rank": self._ranks.rank,
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "machine": guard.machine(),
        }
        self._connection = _connected(hosts, port, json.dumps(hello))
        if self._connection is not None:
            self._thread = threading.Thread(target=self._listen, name=_THREAD, daemon=True)
            self._thread.start()

    def _tell(self, line: str) -> None:
        with suppress(OSError):
            self._connection.sendall(line.encode() + b"\n")  # type: ignore[union-attr]

    def _listen(self) -> None:
        """Wait until the guard ends or says that this process must."""
        with self._connection as connection, suppress(OSError):  # type: ignore[union-attr]
            if connection.recv(1) == guard.STOP:
                os._exit(1)
        if self._guard is not None:
            self._guard.wait()


def _is_watched() -> bool:
    """Whether this process is in a block; its thread runs as long."""
    return any(thread.name == _THREAD for thread in threading.enumerate())


def _connected(hosts: list[str], port: int, hello: str) -> socket.socket | None:
    """A connection to the guard; None if it cannot be reached under any name."""
    for host in hosts:
        with suppress(OSError), ExitStack() as stack:
            connection = stack.enter_context(socket.create_connection((host, port), timeout=_SECONDS))
            connection.sendall(hello.encode() + b"\n")
            if connection.recv(1) == guard.WELCOME:
                connection.settimeout(None)
                stack.pop_all()
                return connection
    return None


def _names() -> list[str]:
    """Under what names other machines may reach this one."""
    names = [socket.gethostname(), socket.getfqdn()]
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # sends nothing, and finds the address of the usual way out
        names.append(probe.getsockname()[0])
    return list(dict.fromkeys(names))
