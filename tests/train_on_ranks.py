"""A program: 200 steps with dropout of a language model and of a forecaster on the ranks it is started on.

    mpiexec -n 4 python tests/train_on_ranks.py [--messages] [FOLDER EPOCHS]

Ranks of one machine exchange through shared memory, or by messages as those of several. With a folder, each
`fit` goes on from the folder's checkpoint to this number of epochs of 4. Every rank prints the hashes of all
parameters and losses.
"""

import hashlib
import os
import sys
from pathlib import Path

import numpy as np
from mpi4py import MPI

import rnnfast
from rnnfast.data import Sequences
from rnnfast.training import Ranks

BLOCKS, EPOCHS = 8, 4
SEED = 0 if MPI.COMM_WORLD.rank == 0 else None  # training begins with the parameters of rank 0


def digest(model, history, measure):
    """A hash of the bits of parameters and losses."""
    losses = [(record[f"train_{measure}"], record[f"valid_{measure}"]) for record in history]
    arrays = [*model.params, np.array(losses)]
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()[:16]


def trained(name, model, data, valid, ranks, folder, epochs, bptt, measure):
    """Train for 50 steps an epoch; the name, the steps and the hash."""
    options = {"ranks": ranks, "blocks": BLOCKS, "rng": np.random.default_rng(3)}
    trainer = rnnfast.Trainer(model, rnnfast.optim.Adam(lr=0.01), rnnfast.TruncatedBPTT(bptt), **options)
    place = None if folder is None else Path(folder) / name
    resume = {} if place is None else {"checkpoint_file": place, "checkpoint_every": 0.0, "resume": True}
    history = trainer.fit(data, epochs=epochs, batch_size=40, valid=valid, **resume)
    return f"{name} {history[-1]['steps']} {digest(model, history, measure)}"


def main(*arguments):
    by_messages = arguments[:1] == ("--messages",)
    folder, epochs = arguments[by_messages:] or (None, EPOCHS)
    ranks = Ranks(_by_messages=by_messages)
    rng, seeded = np.random.default_rng(0), {"rng": np.random.default_rng(SEED)}
    ids = rng.integers(0, 60, 40 * 7 * 50 + 1)
    model = rnnfast.RNNLM(60, 16, 16, cell="lstm", layers=2, dropout=0.3, tied=True, **seeded)
    found = [trained("text", model, ids, ids[:500], ranks, folder, int(epochs), 7, "perplexity")]
    lengths = rng.integers(5, 15, 1000)
    xs = [rng.standard_normal((steps, 3)).astype(np.float32) for steps in lengths]
    ts = [x.cumsum(axis=0)[:, :1] for x in xs]
    series = Sequences(xs, ts, weights=rng.random(1000))
    model = rnnfast.SequenceRegressor(3, 16, 1, cell="gru", head="gaussian", dropout=0.3, **seeded)
    found.append(
        trained("series", model, series, Sequences(xs[:50], ts[:50]), ranks, folder, int(epochs), 7, "loss")
    )
    os.write(1, f"{'; '.join(found)}\n".encode())  # one write, so that lines of ranks do not mix


if __name__ == "__main__":
    main(*sys.argv[1:])
