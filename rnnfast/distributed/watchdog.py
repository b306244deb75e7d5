"""The process that ends all ranks of a job, with one line on stderr, when one of them dies or fails alone.

    python -I -S guard.py SIZE ADDRESS ADVICE

`Watchdog` starts it on rank 0. It is no rank, and has a session of its own: launchers kill all
ranks within a millisecond of the first death, so that no rank is sure to find the time for a line. Each rank
holds a connection to it, which the system closes however the rank ends. Ends are handled in the order in
which the system reports them: the first one is named, not those that the launcher kills because of it.

Only the standard library is imported, so that it starts in 50 ms; the ranks wait for it.
"""

from __future__ import annotations

import json
import math
import os
import secrets
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, suppress
from typing import Any

# Seconds in which all ranks must fail to count as failing alike; meanwhile a lone one prints its traceback.
_TOGETHER = 3.0
# Seconds until ranks on this machine that do not end by themselves are killed.
_BY_ITSELF = 3.0
# Seconds to wait for the ranks; those that have not come by then cannot.
_ARRIVAL = 60.0

WELCOME, STOP = b"w", b"s"


def machine() -> str:
    """The machine and its space of process ids: equal ones have the same processes under the same ids."""
    with suppress(OSError), open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return f"{file.read().strip()} {os.readlink('/proc/self/ns/pid')}"
    return socket.gethostname()


class Member:
    """A connected rank.

    Attributes
    ----------
    rank, pid, host, machine
        What the rank has told; its number is -1 until then.
    error : str
        The name of the exception that it left with, if any.
    has_left : bool
        Whether it waits for the others to leave.
    """

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.rank, self.pid, self.host, self.machine = -1, 0, "", ""
        self.error, self.has_left = "", False
        self._read = b""

    def lines(self) -> list[str] | None:
        """The lines that have come; None once the connection is closed."""
        try:
            got = self.connection.recv(4096)
        except OSError:
            got = b""
        *lines, self._read = (self._read + got).split(b"\n")
        return [line.decode("utf-8", "replace") for line in lines] if got else None

    def tell(self, message: bytes) -> None:
        """Send, if it is still there."""
        with suppress(OSError):
            self.connection.send(message)


class WatchdogServer:
    """Serves the ranks until all have left together, or one has died and all are ended.

    Parameters
    ----------
    listener : socket
        Where they connect.
    size : int
        Ranks of the job.
    token : str
        What they must know.
    advice : str
        A sentence at the end of the line.
    """

    def __init__(self, listener: socket.socket, size: int, token: str, advice: str) -> None:
        self._listener, self._size, self._token, self._advice = listener, size, token, advice
        self._members: list[Member] = []  # connected ones
        self._arrived: set[int] = set()
        self._is_complete = False
        self._failed: Member | None = None  # the first one
        self._deadline, self._parent = time.monotonic() + _ARRIVAL, os.getppid()
        # epoll and kqueue report ends in the order in which they happened.
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ)

    def serve(self) -> None:
        """Return when no rank needs the guard any more."""
        while not self._is_over():
            left = min(self._deadline - time.monotonic(), math.inf if self._is_complete else 1.0)
            for key, _ in self._selector.select(None if math.isinf(left) else max(left, 0.0)):
                if key.data is None:
                    self._accept()
                elif not self._hear(key.data):
                    return self._end(self._failed or key.data)
            if not (self._is_complete or self._members) and os.getppid() != self._parent:
                return None  # rank 0 ended before it came, and nobody else is there
            if time.monotonic() >= self._deadline:
                if self._failed is not None:
                    return self._end(self._failed)
                self._is_complete, self._deadline = True, math.inf
        return None

    def _is_over(self) -> bool:
        """Whether all ranks have left, or all have failed."""
        if self._failed is not None:
            return self._is_complete and all(member.error for member in self._members)
        return self._is_complete and all(member.has_left for member in self._members)

    def _accept(self) -> None:
        with suppress(OSError):
            connection, _ = self._listener.accept()
            self._members.append(Member(connection))
            self._selector.register(connection, selectors.EVENT_READ, self._members[-1])

    def _hear(self, member: Member) -> bool:
        """Take what a rank has said; False if it has ended before all have left."""
        lines = member.lines()
        if lines is None:
            self._drop(member)
            return bool(member.error) or member.rank < 0
        for line in lines:
            what, _, rest = line.partition(" ")
            if member.rank < 0:
                self._greet(member, line)
            elif what == "left":
                member.has_left = True
            elif what == "failed":
                member.error = rest
                if self._failed is None:
                    self._failed, self._deadline = member, time.monotonic() + _TOGETHER
        return True

    def _greet(self, member: Member, line: str) -> None:
        """The first line of a rank; strangers are dropped."""
        try:
            told = json.loads(line)
            if not secrets.compare_digest(told.pop("token"), self._token):
                raise ValueError
            for name in ("rank", "pid", "host", "machine"):
                setattr(member, name, told[name])
        except (ValueError, TypeError, LookupError, AttributeError):
            self._drop(member)
        else:
            self._arrived.add(member.rank)
            member.tell(WELCOME)
            if len(self._arrived) == self._size:
                self._is_complete = True
                if self._failed is None:
                    self._deadline = math.inf

    def _drop(self, member: Member) -> None:
        if member in self._members:
            self._members.remove(member)
            self._selector.unregister(member.connection)
            member.connection.close()

    def _end(self, first: Member) -> None:
        """Say which rank was the first, and end the others."""
        how = f"failed with {first.error}" if first.error else "died"
        process = f"process {first.pid} on {first.host}"
        line = f"rnnfast: rank {first.rank} of {self._size} ({process}) {how}; training ended on all ranks."
        with suppress(OSError):
            os.write(2, f"{line} {self._advice}".rstrip().encode() + b"\n")
        for member in self._members:
            member.tell(STOP)
        self._selector.unregister(self._listener)
        deadline = time.monotonic() + _BY_ITSELF
        while self._members and time.monotonic() < deadline:
            for key, _ in self._selector.select(deadline - time.monotonic()):
                if key.data.lines() is None:
                    self._drop(key.data)
        here = machine()
        for member in self._members:  # they are connected, so their ids are theirs
            if member.machine == here:
                with suppress(OSError):
                    os.kill(member.pid, signal.SIGKILL if os.name == "posix" else signal.SIGTERM)


def main(size: int, address: str, advice: str) -> None:
    """Print the port and the token, then serve."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2"):  # the job ends it by ending
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    with suppress(ImportError, ValueError, OSError):  # a rank takes a file descriptor
        import resource

        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    both = not address and socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    with socket.create_server((address, 0), family=family, dualstack_ipv6=both, backlog=size) as listener:
        token = secrets.token_hex(16)
        print(listener.getsockname()[1], token, flush=True)
        sys.stdout.close()
        WatchdogServer(listener, size, token, advice).serve()


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])


# When one rank of an MPI job dies or fails alone, all ranks end, and one line names it.


_SECONDS = 3.0  # for one try to reach the guard
_THREAD = "rnnfast-ranks"


class Watchdog:
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
    >>> with Watchdog(Alone()):
    ...     pass
    """

    def __init__(self, ranks: Any, alike: tuple[type[BaseException], ...] = (), advice: str = "") -> None:
        self._ranks, self._alike, self._advice = ranks, alike, advice
        self._guard: subprocess.Popen[bytes] | None = None
        self._thread: threading.Thread | None = None
        self._connection: socket.socket | None = None
        self._is_inner = False

    def __enter__(self) -> Watchdog:
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
        program = [sys.executable, "-I", "-S", __file__, str(ranks.size), address, self._advice]
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
            "machine": machine(),
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
            if connection.recv(1) == STOP:
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
            if connection.recv(1) == WELCOME:
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
