"""Random shapes beside the libraries of `rnnfast bench`: how often one is faster, and the lowest ratios.

    python asv_benchmarks/random_shapes.py --count 100 --threads 1

Sizes are log-uniform, so most shapes are small. 100 shapes of three cells take about twenty minutes.
"""

import argparse
from statistics import geometric_mean

import numpy as np

from rnnfast.bench import contenders
from rnnfast.bench.contenders import PASSES, PEERS, Shape
from rnnfast.bench.measure import measured

LARGEST = Shape(512, 400, 2_000, 512)  # of each size; the least is 1
# Limits on the multiply-adds of a gate and on the elements of the input, which bound the time of a pass (2e10
# operations for an LSTM) and the memory.
MOST_PRODUCTS, MOST_INPUTS = 800_000_000, 16_000_000
LOWEST = 10  # lines shown


def drawn(count, seed):
    """Distinct shapes, the same ones for a seed; shapes beyond the limits are drawn again."""
    rng = np.random.default_rng(seed)
    most = np.log(np.add(LARGEST, 1))
    found = {}
    while len(found) < count:
        shape = Shape(*(int(size) for size in np.exp(rng.uniform(0, most))))
        N, T, D, H = shape
        if N * T * H * (D + H) <= MOST_PRODUCTS and N * T * D <= MOST_INPUTS:
            found[shape] = None
    return list(found)


def counts(lines, peers):
    """A row for each cell and pass: the geometric mean for each peer, and how many ratios are below 1."""
    for cell in dict.fromkeys(line.cell for line in lines):
        for which in PASSES:
            ratios = [line.ratios for line in lines if (line.cell, line.which) == (cell, which)]
            columns = {name: [found[name] for found in ratios if name in found] for name in peers}
            columns["the fastest"] = [min(found.values()) for found in ratios if found]
            if not ratios:
                continue
            texts = (
                f"{name} {geometric_mean(values):.2f}, {sum(value < 1 for value in values)} of {len(values)}"
                for name, values in columns.items()
                if values
            )
            yield f"{cell:10} {which:8} {'   '.join(texts)}"


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=100, help="number of shapes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cells", nargs="+", default=contenders.CELLS)
    parser.add_argument("--seconds", type=float, default=0.5, help="for each line")
    given = parser.parse_args(arguments)
    peers = [name for name, peer in PEERS.items() if not peer.missing]
    lines = []
    for line in measured(given.cells, drawn(given.count, given.seed), given.threads, peers, given.seconds):
        lines.append(line)
        print(f"{len(lines)}: {line.cell} {line.shape} {line.which}", flush=True)
    print("\nGeometric mean of the ratios to each library, and how many are below 1:")
    print(*counts(lines, peers), sep="\n")
    print("\nThe lowest ratios to the fastest library:")
    compared = sorted((line for line in lines if line.ratios), key=lambda line: min(line.ratios.values()))
    for line in compared[:LOWEST]:
        fastest = min(line.ratios, key=line.ratios.get)
        what = f"{line.cell} {line.shape} {line.which}, {line.seconds['rnnfast'] * 1e3:.3g} ms"
        print(f"{line.ratios[fastest]:.2f} {fastest}, {what}")


if __name__ == "__main__":
    main()
