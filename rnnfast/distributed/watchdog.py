"""The process that ends all ranks of a job, with one line on stderr, when one of them dies or fails alone.

    python -I -S guard.py SIZE ADDRESS ADVICE

`lost_ranks.Watcher` starts it on rank 0. It is no rank, and has a session of its own: launchers kill all
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
import sys
import time
from contextlib import suppress

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


class Guard:
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
        Guard(listener, size, token, advice).serve()


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
