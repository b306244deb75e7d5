"""Machines, their network, and what one rank on them needs for products, passes over memory and messages.

Times are in seconds, rates in operations or bytes per second.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

FREE = 1e18  # bytes per second of what costs no measurable time
# MPICH gathers up to this many bytes by recursive doubling, and more in a ring.
_DOUBLING = 512 * 1024


class Link(NamedTuple):
    """A connection: bytes per second in each direction, and seconds of latency per message."""

    bandwidth: float
    latency: float

    @classmethod
    def of_gigabits(cls, gigabits: float, latency: float = 20e-6) -> Link:
        """A network of `gigabits` Gb/s.

        Examples
        --------
        >>> Link.of_gigabits(10)
        Link(bandwidth=1250000000.0, latency=2e-05)
        """
        return cls(gigabits * 1e9 / 8, latency)


@dataclass(frozen=True)
class Machine:
    """Rates of a machine.

    Parameters
    ----------
    rate : float
        Operations per second of one thread in products of many rows.
    stream : float
        Bytes per second at which one thread reads recurrent weights that fit into `cache`.
    memory : float
        Bytes per second between one thread and memory.
    all_memory : float
        Bytes per second between all threads of the machine and memory.
    cache : int
        Bytes of the last cache, shared by the ranks of the machine.
    local : Link
        Messages between two ranks of the machine.
    overhead : float
        Seconds of a step that no size changes.
    """

    rate: float
    stream: float
    memory: float
    all_memory: float
    cache: int
    local: Link
    overhead: float = 0.0


@dataclass(frozen=True)
class Cluster:
    """Equal machines, how ranks are placed on them, and the network.

    Parameters
    ----------
    machine : Machine
    network : Link
        The connection of one machine; all its ranks share it.
    ranks_per_machine : int
    threads : int
        Of each rank. They divide its work without loss.
    """

    machine: Machine
    network: Link
    ranks_per_machine: int = 1
    threads: int = 1


class Rank:
    """One of equal ranks: the seconds of its products, passes over memory and messages.

    Parameters
    ----------
    cluster : Cluster
    ranks : int
        A power of two.

    Examples
    --------
    >>> machine = Machine(1e11, 4e10, 1e10, 2e10, 2**25, Link(5e9, 1e-6))
    >>> rank = Rank(Cluster(machine, Link(1e9, 1e-5)), ranks=4)
    >>> rank.products(1e9, 0, 0), rank.passes(1e9)
    (0.01, 0.1)
    >>> rank.slices(4e9)                     # three messages of 1e9 bytes
    3.00003
    """

    def __init__(self, cluster: Cluster, ranks: int) -> None:
        self.machine, self.network, self.threads = cluster.machine, cluster.network, cluster.threads
        self.ranks, self.beside = ranks, min(ranks, cluster.ranks_per_machine)
        self.memory = min(self.machine.memory * cluster.threads, self.machine.all_memory / self.beside)

    def products(self, operations: float, bytes_read: float, bytes_of_weights: int) -> float:
        """Seconds of products; weights that do not fit into the cache are read from memory."""
        stream = self.machine.stream * self.threads
        if bytes_of_weights * self.beside > self.machine.cache:
            stream = min(stream, self.memory)
        return operations / (self.machine.rate * self.threads) + bytes_read / stream

    def passes(self, count: float) -> float:
        """Seconds to move a number of bytes from or to memory."""
        return count / self.memory

    def slices(self, count: float) -> float:
        """Seconds in which each rank sends every other rank its part of the bytes, one after another."""
        return self._directly(count) + self._waiting(self.beside - 1, self.ranks - self.beside)

    def shares(self, count: float) -> float:
        """Seconds in which all ranks gather the bytes, of which each has an equal part."""
        if self.ranks == 1:
            return 0.0
        steps, has_neighbors = self.ranks - 1, self.ranks == self.beside
        if count <= _DOUBLING:
            inside, outside = math.log2(self.beside), math.log2(self.ranks / self.beside)
            return self._directly(count) + self._waiting(inside, outside)
        # In a ring a machine receives each part once, however many ranks it has.
        local, network = self.machine.local.bandwidth, self.network.bandwidth
        slowest = local if has_neighbors else min(local, network)
        waiting = self._waiting(steps, 0) if has_neighbors else self._waiting(0, steps)
        return steps / self.ranks * count / slowest + waiting

    def _directly(self, count: float) -> float:
        """Seconds of sending without latency; the ranks of a machine share its network."""
        inside = (self.beside - 1) / self.ranks * count / self.machine.local.bandwidth
        outside = self.beside * (self.ranks - self.beside) / self.ranks * count / self.network.bandwidth
        return inside + outside

    def _waiting(self, inside: float, outside: float) -> float:
        """Seconds of latency of a number of messages."""
        return inside * self.machine.local.latency + outside * self.network.latency
