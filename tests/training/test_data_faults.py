"""NaN and infinity in the data are named, and not blamed on the learning rate."""

import numpy as np
import pytest

from rnnfast import ExactBPTT, SequenceRegressor, Trainer, TruncatedBPTT, optim
from rnnfast.training import TrainingDiverged, safety

# Plain Python warns of it; compiled code does not.
pytestmark = pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered")


def data(targets_shape=(6, 20, 2)):
    rng = np.random.default_rng(0)
    xs = rng.standard_normal((6, 20, 3)).astype(np.float32)
    return xs, rng.standard_normal(targets_shape).astype(np.float32)


def message_of(xs, ts, valid=None, bptt=None, lr=0.01):
    model = SequenceRegressor(3, 4, 2, rng=np.random.default_rng(1))
    trainer = Trainer(model, optim.SGD(lr=lr), bptt or TruncatedBPTT(10), clip_norm=None)
    with pytest.raises(TrainingDiverged) as caught:
        trainer.fit((xs, ts), epochs=40, batch_size=2, valid=valid)
    assert all(np.isfinite(param).all() for param in model.params)
    assert (caught.value.epoch, caught.value.step) >= (1, 1)
    return str(caught.value)


@pytest.mark.parametrize("bptt", [TruncatedBPTT(10), ExactBPTT()])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_input_that_is_not_finite_is_named_with_its_sequence_and_step(bptt, value):
    xs, ts = data()
    xs[3, 17, 2] = value
    xs[4, 0, 0] = np.nan
    message = message_of(xs, ts, bptt=bptt)
    assert f"the inputs are not finite: {value} in sequence 3 at step 17" in message
    assert "learning rate" not in message


def test_a_target_is_named_too():
    xs, ts = data()
    ts[1, 4, 1] = np.nan
    assert "the targets are not finite: nan in sequence 1 at step 4" in message_of(xs, ts)
    xs, ts = data((6, 2))
    ts[5, 0] = np.nan
    assert "the targets are not finite: nan in sequence 5;" in message_of(xs, ts)


def test_sequences_of_a_list_are_named_too():
    xs, ts = (list(array) for array in data())
    xs[3] = xs[3][:9]
    ts[3] = ts[3][:9]
    ts[3][8, 1] = np.nan
    assert "the targets are not finite: nan in sequence 3 at step 8" in message_of(xs, ts)


def test_validation_data_are_named_too():
    valid = data()
    valid[0][2, 9, 0] = np.nan
    message = message_of(*data(), valid=valid)
    assert "the validation inputs are not finite: nan in sequence 2 at step 9" in message


def test_good_data_leave_the_blame_to_the_learning_rate():
    assert "A lower learning rate" in message_of(*data(), lr=1e20)


@pytest.mark.parametrize("piece", [1, 7, 1 << 20])
def test_long_data_are_looked_at_in_pieces(monkeypatch, piece):
    monkeypatch.setattr(safety, "_PIECE", piece)
    xs, _ = data()
    assert safety.first_not_finite(xs) is None
    xs[4, 2, 1] = np.inf
    assert safety.first_not_finite(xs) == (4, 2, 1)
