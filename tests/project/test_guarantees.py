"""The guarantees that the README gives about bits, for every cell in both dtypes.

1. A row does not depend on other rows, the batch size or its place: here for layers; `test_bits.py` for the
   output layers, `test_recurrent.py` for sequences of different lengths, `test_perplexity.py` for models.
2. Chunks and single steps give the bits of one pass: here; `test_bits.py` for random cuts and the loss.
3. AVX2 and AVX-512 code give the same bits: `test_bits.py`, of all that `bits_of_layers.py` computes.
4. A run that is killed and resumed gives the bits of one that was not: here with SIGKILL; `test_resume.py`
   for every single window, `test_resume_long.py` on long sequences, `test_cli_resume.py` for Ctrl-C.
5. Exact BPTT by chunk recomputation gives the bits of plain BPTT: here; `test_exact.py` for dropout, lengths,
   resets and gates that are made again, `test_threads.py` for every number of threads.

RNNFAST_KILLS is the number of runs that are killed, 2 by default; 100 take some minutes.
"""

import itertools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from cell_cases import KINDS, Window, gradients, make, run
from helpers import DTYPES, assert_same_bits, needs_jit, sized
from rnnfast.kernels.recurrence.sequence import BLOCK_ROWS, block_steps

from rnnfast import RNNLM, ExactBPTT

CELLS = ("rnn", "relu", "lstm", "gru")

KILLS = int(os.environ.get("RNNFAST_KILLS", "2"))
every_cell = pytest.mark.parametrize("kind", KINDS)
both_dtypes = pytest.mark.parametrize("dtype", DTYPES)


def rows_of(window, layer, rows):
    """The window of some of the sequences."""
    part = Window(layer, len(rows), window.xs.shape[1])
    part.xs, part.dhs = window.xs[rows], window.dhs[rows]
    part.state = [array[rows] for array in window.state]
    part.next_gradient = {name: array[rows] for name, array in window.next_gradient.items()}
    return part


@both_dtypes
@every_cell
def test_a_row_does_not_depend_on_the_other_rows_the_batch_size_or_its_place(kind, dtype):
    N, T, H = 30, 6, 21
    layer, rng = make(kind, 7, H, dtype), np.random.default_rng(2)
    window = Window(layer, N, T)
    expected = run(layer, window)
    weights = set(gradients(layer))
    choices = [np.array([0]), np.array([N - 1]), np.array([5, 3]), np.arange(1, 14), rng.permutation(N)]
    choices += [np.r_[np.arange(N), np.arange(N)], rng.integers(0, N, BLOCK_ROWS + 40)]  # another time grid
    for rows in choices:
        actual = run(layer, rows_of(window, layer, rows))
        for name in set(expected) - weights:  # a gradient of weights sums over rows
            assert_same_bits(actual[name], expected[name][rows])
        layer.set_state(*(array[rows] for array in window.state))
        assert_same_bits(layer.step(window.xs[rows, 0]), expected["hs"][rows, 0])


@both_dtypes
@every_cell
def test_chunks_and_single_steps_give_the_bits_of_one_pass(kind, dtype):
    N, T = 3, sized(2 * block_steps(3) + 5, 9)
    layer = make(kind, 5, 19, dtype)
    window = Window(layer, N, T)
    expected = window.forward(layer)
    reached = layer.get_state()
    layer.set_state(*window.state)
    cuts = [0, 1, 2, T // 3, T]
    chunks = [layer.forward(window.xs[:, first:last]) for first, last in itertools.pairwise(cuts)]
    assert_same_bits(np.concatenate(chunks, axis=1), expected)
    layer.set_state(*window.state)
    assert_same_bits(np.stack([layer.step(window.xs[:, t]) for t in range(T)], axis=1), expected)
    for actual, array in zip(layer.get_state(), reached, strict=True):
        assert_same_bits(actual, array)


@both_dtypes
@pytest.mark.parametrize("cell", CELLS)
def test_exact_bptt_by_chunk_recomputation_gives_the_bits_of_plain_bptt(cell, dtype):
    rng = np.random.default_rng(3)
    model = RNNLM(23, 6, 6, cell=cell, layers=2, tied=True, rng=rng, dtype=dtype)
    N, T = sized((20, 330), (150, 7))  # four periods of the grid of time, or two
    xs, ts = rng.integers(0, 23, (2, N, T))
    plain = model.forward(xs, ts)
    model.backward()
    expected = [grad.copy() for grad in model.grads] + [h for state in model.get_state() for h in state]
    for chunk in (1, T // 2, T):
        model.reset_state()
        exact = ExactBPTT(chunk=chunk)
        assert (exact.plan(model, N, T).chunks > 1) == (chunk < T)
        assert exact.gradients(model, xs, ts) == plain
        actual = model.grads + [h for state in model.get_state() for h in state]
        for array, wanted in zip(actual, expected, strict=True):
            assert_same_bits(array, wanted)


@needs_jit
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
def test_killed_and_resumed_runs_end_in_the_same_bits(tmp_path):
    program = Path(__file__).parents[1].joinpath("kill_and_resume.py")
    seed = os.environ.get("RNNFAST_KILLS_SEED", "0")
    # In memory where there is such a folder: each of some hundred writes a run waits for the disk otherwise.
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else tmp_path
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        command = [sys.executable, program, folder, str(KILLS), seed]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        leftovers = list(Path(folder).rglob(".rnnfast-*"))
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert (result["trials"], result["equal"]) == (KILLS, KILLS), result
    assert result["kills"] >= KILLS
    assert leftovers == []
