"""When one rank of an MPI job dies or fails alone, all ranks end, and one line names it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from typing import Any

from rnnfast.training import guard

_SECONDS = 3.0  # for one try to reach the guard


class Watcher:
    """A block that all ranks enter and leave together, and that none survives alone.

    If a rank is killed in the block (SIGKILL, a lack of memory, a crash, `os._exit`), or leaves it by an
    exception that the others do not have, all ranks end with exit code 1 within seconds, also inside
    compiled code or an MPI call that never returns. One line on stderr names the rank. At its end, the
    block waits until every rank is there.

    A process beside the ranks (`guard.py`) sees to that; ranks on other machines reach it over TCP at a free
    port of rank 0's machine. Ranks that cannot are left to the launcher. The loss of a whole machine is left to
    the launcher, too.

    Parameters
    ----------
    ranks : Ranks
        Uses its `rank`, `size`, `local_size` and `agreed`. With one rank, nothing happens.
    alike : tuple of types
        Exceptions that all ranks raise at the same place by agreement; they are a normal end.
    advice : str
        A sentence for the end of the line, for example how to resume. That of rank 0 is used.

    Notes
    -----
    Launchers add messages of their own. MPICH's `mpiexec` kills all ranks in the first millisecond and prints
    "BAD TERMINATION"; with `-disable-auto-cleanup` it leaves ending them to this class and still prints. Open
    MPI's sends SIGTERM after 0.25 s and SIGKILL 0.3 s later; `--quiet` silences it. A child process that a rank
    has forked, without a program of its own, hides the rank's death until it ends, too.

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
        self._connection: socket.socket | None = None
        self._thread = threading.Thread(target=self._listen, name="rnnfast-ranks", daemon=True)

    def __enter__(self) -> Watcher:
        ranks = self._ranks
        if ranks.size > 1:
            place = self._start() if ranks.rank == 0 else None
            self._connect(*ranks.agreed(place))
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._connection is None:
            return
        if kind is not None and not issubclass(kind, self._alike):
            self._tell(f"failed {kind.__name__}")
            return
        self._tell("left")
        self._thread.join()
        self._connection.close()

    def _start(self) -> tuple[list[str], int, str]:
        """Start the guard; returns names of this machine, the port, and what the guard wants to hear."""
        ranks = self._ranks
        hosts = ["127.0.0.1"] if ranks.local_size == ranks.size else _names()
        address = hosts[0] if ranks.local_size == ranks.size else ""
        program = [sys.executable, "-I", "-S", guard.__file__, str(ranks.size), address, self._advice]
        try:
            self._guard = subprocess.Popen(
                program, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True
            )
            with self._guard.stdout as pipe:  # type: ignore[union-attr]
                port, token = pipe.readline().split()
        except (OSError, ValueError):  # no process can be started
            return [], 0, ""
        return hosts, int(port), token.decode()

    def _connect(self, hosts: list[str], port: int, token: str) -> None:
        hello = {
            "token": token,
            "rank": self._ranks.rank,
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "machine": guard.machine(),
        }
        for host in hosts:
            with suppress(OSError):
                connection = socket.create_connection((host, port), timeout=_SECONDS)
                connection.sendall(json.dumps(hello).encode() + b"\n")
                if connection.recv(1) == guard.WELCOME:
                    connection.settimeout(None)
                    self._connection = connection
                    self._thread.start()
                    return
                connection.close()

    def _tell(self, line: str) -> None:
        with suppress(OSError):
            self._connection.sendall(line.encode() + b"\n")  # type: ignore[union-attr]

    def _listen(self) -> None:
        """Wait until the guard ends or says that this process must."""
        with suppress(OSError):
            if self._connection.recv(1) == guard.STOP:  # type: ignore[union-attr]
                os._exit(1)
        if self._guard is not None:
            self._guard.wait()


def _names() -> list[str]:
    """Under what names other machines may reach this one."""
    names = [socket.gethostname(), socket.getfqdn()]
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # sends nothing, and finds the address of the usual way out
        names.append(probe.getsockname()[0])
    return list(dict.fromkeys(names))
