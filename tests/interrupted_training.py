"""A program for tests of Ctrl-C: `mpiexec -n N python tests/interrupted_training.py FOLDER [wait]`.

The ranks train, and go on from the folder's checkpoint if there is one. With `wait`, each rank writes its
process id to `running-RANK` at its third pass, and rank 0 waits 20 ms after every step. Each rank
prints its steps, a hash of its parameters and losses, and the number of checkpoints it has written.
"""

import hashlib
import os
import sys
import time
from pathlib import Path

import numpy as np
from interrupted_ranks import note
from mpi4py import MPI

import rnnfast
from rnnfast.training import checkpointing

RANK = MPI.COMM_WORLD.rank
EPOCHS, STEPS = 6, 40


def counted(folder):
    """The checkpoints that this rank writes from now on."""
    written, write = [], checkpointing.write_tensors
    checkpointing.write_tensors = lambda path, *content: (written.append(path), write(path, *content))
    return written


def main(folder, waits=""):
    rng, ids = np.random.default_rng(1), np.random.default_rng(0).integers(9, size=20 * 5 * STEPS + 1)
    model = rnnfast.RNNLM(9, 8, 8, cell="lstm", dropout=0.3, rng=rng)
    optimizer = rnnfast.optim.Adam(lr=0.01)
    backward, passes = model.backward, []

    def noted(*arguments):
        passes.append(0)
        if waits and len(passes) == 3:
            note(folder / f"running-{RANK}", os.getpid())
        return backward(*arguments)

    model.backward = noted
    trainer = rnnfast.Trainer(
        model, optimizer, rnnfast.TruncatedBPTT(5), blocks=4, ranks=MPI.COMM_WORLD,
        callback=lambda report: time.sleep(0.02 if waits else 0),
    )  # fmt: skip
    written, place = counted(folder), folder / "training"
    try:
        trainer.fit(
            ids, epochs=EPOCHS, batch_size=20, checkpoint_file=place, checkpoint_every=1e9, resume=True
        )
    finally:
        losses = [record["train_perplexity"] for record in trainer.history]
        bits = b"".join(array.tobytes() for array in [*model.params, np.array(losses)])
        os.write(1, f"{optimizer.steps} {hashlib.sha256(bits).hexdigest()[:16]} {len(written)}\n".encode())


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), *sys.argv[2:])
    except KeyboardInterrupt:
        sys.exit(130)
