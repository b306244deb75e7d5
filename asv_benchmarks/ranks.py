"""Training steps on ranks, one thread each, and sums over ranks beside `MPI_Allreduce`.

    mpiexec -n 1 python -m mpi4py asv_benchmarks/ranks.py
    mpiexec -n 2 python -m mpi4py asv_benchmarks/ranks.py

Run both in turn a few times. A rank alone also shows what blocks cost.
"""

import argparse
import time
from statistics import median

import numpy as np
from mpi4py import MPI

import rnnfast
from rnnfast import optim
from rnnfast.training import Ranks

MODELS = ((1, 10_000, 256), (2, 10_000, 650))  # layers, words, and units
N, T, BLOCKS = 40, 35, 8  # rows of all ranks together, steps, and parts of the batch
NUMBERS = (1_000_000, 10_000_000)  # of float32


def step_seconds(ranks, layers, V, H, blocks, steps):
    """Median seconds of a training step of an LSTM language model; the first steps are left out."""
    rng = np.random.default_rng(0)
    model = rnnfast.RNNLM(V, H, H, cell="lstm", layers=layers, rng=rng)
    frequency = 1 / np.arange(1, V + 1)
    ids = rng.choice(V, N * T * steps + 1, p=frequency / frequency.sum())
    marks = []
    trainer = rnnfast.Trainer(
        model,
        optim.SGD(0.1),
        rnnfast.TruncatedBPTT(T),
        callback=lambda _: marks.append(time.perf_counter()),
        ranks=ranks,
        blocks=blocks,
    )
    trainer.fit(ids, epochs=1, batch_size=N)
    return median(np.diff(marks)[2:]) if marks else None  # only the first rank is called back


def sum_seconds(ranks, numbers, turns):
    """Median seconds of the sums over ranks on the slowest rank: our tree and MPI's sum, in turn."""
    array = np.zeros(numbers, np.float32)
    calls = {
        "fixed tree": lambda: ranks.begin([array]).finish(),
        "Allreduce": lambda: MPI.COMM_WORLD.Allreduce(MPI.IN_PLACE, array),
    }
    times = {name: [] for name in calls}
    for _ in range(turns):
        for name, call in calls.items():
            call()  # makes room, and fills caches
            MPI.COMM_WORLD.Barrier()
            start = time.perf_counter()
            call()
            times[name].append(MPI.COMM_WORLD.allreduce(time.perf_counter() - start, MPI.MAX))
    return {name: median(found) for name, found in times.items()}


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=20, help="training steps of each model")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it runs")
    given = parser.parse_args(arguments)
    rnnfast.set_num_threads(1)
    ranks = Ranks(MPI.COMM_WORLD)
    models, numbers = (((1, 50, 8),), (1000,)) if given.quick else (MODELS, NUMBERS)
    lines = []
    for layers, V, H in models:
        for blocks in (1, BLOCKS) if ranks.size == 1 else (BLOCKS,):
            seconds = step_seconds(ranks, layers, V, H, blocks, given.steps)
            lines.append(
                f"LSTM {layers} x {H}, V = {V}, {blocks} blocks: {(seconds or 0) * 1e3:.4g} ms a step"
            )
    for count in numbers if ranks.size > 1 else ():
        found = sum_seconds(ranks, count, turns=10)
        lines.append(f"{count:,} numbers: {', '.join(f'{k} {v * 1e3:.3g} ms' for k, v in found.items())}")
    if ranks.rank == 0:
        print(f"{ranks.size} ranks", *lines, sep="\n")


if __name__ == "__main__":
    main()
