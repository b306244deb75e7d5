"""Backpropagation through a million steps: one exact gradient, in memory for a few thousand steps.

A sensor drifts: its reading is a slow wave with noise, and a rare flag reverses the sign of all later
readings. To predict the true value at each step, a network must remember the last flag, which may be 100,000
steps ago. The input is a memory-mapped file, read chunk by chunk. `ExactBPTT` keeps the states at chunk
boundaries and reads each chunk a second time in the backward pass. No gradient is cut, and all gradients have
the bits of plain backpropagation through the whole sequence at once.

    python examples/million_steps.py
    python examples/million_steps.py --steps 10000000
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from rnnfast import ExactBPTT, SequenceRegressor, optim

INPUTS = 16  # the reading, the flag, and noise
PIECE = 100_000


def write_series(folder, steps, rng):
    """Inputs (1, T, 16) and targets (1, T, 1) as memory maps of files, written piece by piece."""
    xs = np.memmap(folder / "xs", np.float32, "w+", shape=(1, steps, INPUTS))
    ts = np.memmap(folder / "ts", np.float32, "w+", shape=(1, steps, 1))
    sign = 1.0
    for first in range(0, steps, PIECE):
        last = min(first + PIECE, steps)
        piece = rng.standard_normal((last - first, INPUTS), dtype=np.float32)
        wave = np.sin(np.arange(first, last) / 300)
        flags = rng.random(last - first) < 2e-5
        signs = sign * np.where(np.cumsum(flags) % 2, -1.0, 1.0)
        sign = signs[-1]
        piece[:, 0] = 0.1 * piece[:, 0] + wave * signs
        piece[:, 1] = flags
        xs[0, first:last], ts[0, first:last, 0] = piece, wave
    return xs, ts


def memory_of_process():
    """The peak memory of this process in bytes: its own memory, and resident pages of mapped files."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
        peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
        return int(peak.split()[1]) * 1024
    except (OSError, StopIteration):
        return None  # not Linux


def main(steps=1_000_000, epochs=1, hidden_size=64, memory="100MB", seed=0):
    """Make one update per epoch; returns the losses, and the plan."""
    rng = np.random.default_rng(seed)
    model = SequenceRegressor(INPUTS, hidden_size, 1, cell="lstm", rng=rng)
    optimizer = optim.Adam(lr=0.01)
    exact = ExactBPTT(memory=memory)
    plan = exact.plan(model, 1, steps)
    print(f"{steps:,} steps in {plan.chunks:,} chunks of {plan.chunk:,}: {plan.memory / 1e6:.1f} MB at most")
    losses = []
    # The folder outlives the maps: Windows does not remove mapped files.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        xs, ts = write_series(Path(folder), steps, rng)
        exact.gradients(model, xs[:, :PIECE], ts[:, :PIECE])  # compiles
        for epoch in range(1, epochs + 1):
            model.reset_state()
            began = time.perf_counter()
            losses.append(exact.gradients(model, xs, ts))
            seconds = time.perf_counter() - began
            norm = optim.clip_by_norm(model.grads, 1.0)
            optimizer.update(model.params, model.grads)
            print(f"epoch {epoch}  loss {losses[-1]:.5f}  norm of the gradient {norm:.4f}")
            print(f"{steps / seconds:,.0f} steps a second, forward and backward, in {seconds:.1f} s")
        held = memory_of_process()
        if held is not None:
            print(f"peak memory of the process {held / 1e6:.0f} MB; the input is {xs.nbytes / 1e6:.0f} MB")
        del xs, ts
    return losses, plan


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="One exact gradient through a million steps.")
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--memory", default="100MB")
    parser.add_argument("--seed", type=int, default=0)
    main(**vars(parser.parse_args()))
