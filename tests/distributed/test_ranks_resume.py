"""A run that stops inside an epoch or a batch goes on with another number of ranks to the same bits."""

import numpy as np
import pytest
from helpers import takes_minutes_interpreted
from threads_as_ranks import on_ranks, without_times

import rnnfast
from rnnfast import cells
from rnnfast.data import Sequences
from rnnfast.training import StopTraining

pytestmark = takes_minutes_interpreted
EPOCHS, BATCH, BPTT = 3, 20, 5


def text(seeded):
    """Five windows an epoch, the last of which is shorter."""
    ids = np.random.default_rng(0).integers(7, size=BATCH * 23 + 1)
    return rnnfast.RNNLM(7, 8, 8, cell="lstm", layers=2, dropout=0.3, tied=True, **seeded), ids, ids[:90]


def series(seeded, cell):
    """Batches of 20, 20 and 5 rows with two to four windows; not every block of the last has a row."""
    rng = np.random.default_rng(2)
    lengths = rng.integers(4, 18, 45)
    xs = [rng.standard_normal((length, 3)).astype(np.float32) for length in lengths]
    ts = [rng.standard_normal((length, 1)).astype(np.float32) for length in lengths]
    model = rnnfast.SequenceRegressor(3, 8, 1, cell=cell, layers=2, dropout=0.3, **seeded)
    return model, Sequences(xs, ts, weights=rng.random(45)), Sequences(xs[:9], ts[:9])


CASES = {
    "text": text,
    "series": lambda seeded: series(seeded, "gru"),
    "noise": lambda seeded: series(seeded, cells.leaky),
}


def trained(case, rank, stop_at=None, file=None, seen=None):
    """Parameters and records after a `fit` that ends at `stop_at` steps, or at the end."""
    model, data, valid = CASES[case]({"rng": np.random.default_rng(1)})

    def stop(report):
        if seen is not None:
            seen.append((report.epoch, report.window))
        if report.step == stop_at:
            raise StopTraining

    trainer = rnnfast.Trainer(
        model, rnnfast.optim.Adam(lr=0.03), rnnfast.TruncatedBPTT(BPTT), callback=stop, ranks=rank, blocks=8,
        rng=np.random.default_rng(3),
    )  # fmt: skip
    options = {} if file is None else {"checkpoint_file": file, "resume": True}
    trainer.fit(data, epochs=EPOCHS, batch_size=BATCH, valid=valid, **options)
    history = without_times(trainer.history)
    return [param.tobytes() for param in model.params], history


@pytest.mark.parametrize("case", CASES)
def test_a_run_that_stops_anywhere_goes_on_with_another_number_of_ranks(case, tmp_path):
    seen = []
    (expected,) = on_ranks(1, lambda rank: trained(case, rank, seen=seen))
    windows = max(window for _, window in seen)
    assert len(seen) == EPOCHS * windows > 12
    for stops in ((2, 3, windows - 1), (1, windows, windows + 2), (4, windows + 6, 2 * windows + 1)):
        file, places = tmp_path / f"{stops[0]}.safetensors", [*stops, None]
        for ranks, stop_at in zip((8, 1, 4, 2), places, strict=True):
            found = on_ranks(ranks, lambda rank, at=stop_at, file=file: trained(case, rank, at, file))
        for one in found:
            assert one == expected
