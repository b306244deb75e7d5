"""Sequences are read in a new random order each epoch, which a seed gives and a training file keeps."""

import numpy as np
import pytest
from helpers import sized

from rnnfast import RNNLM, ExactBPTT, SequenceRegressor, Trainer, TruncatedBPTT
from rnnfast._check import CheckpointError
from rnnfast.data.batching import epoch_order
from rnnfast.files.tensors import read_tensors, write_tensors
from rnnfast.optim import SGD, Adam
from rnnfast.training import checkpointing
from rnnfast.training.chain import Window

COUNT, BATCH = 7, 2
XS = np.random.default_rng(0).standard_normal((COUNT, 6, 3)).astype(np.float32)
EVERY, LAST = XS[..., :2] * 2, XS[:, -1, :1] + 1
WAYS = {
    "windows": lambda: TruncatedBPTT(4),
    "overlap": lambda: TruncatedBPTT(2, 4),
    "measured": lambda: TruncatedBPTT(2, "auto", tolerance=0.01),
    "exact": lambda: ExactBPTT(chunk=4),
}


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch):
    monkeypatch.setattr("os.fsync", lambda descriptor: None)


def regressor(ts=EVERY):
    return SequenceRegressor(3, 4, ts.shape[-1], cell="gru", rng=np.random.default_rng(0))


class Watch:
    """A way through the data that remembers the order it was given, with every argument of the real one."""

    def __init__(self):
        self.orders, self._real = [], TruncatedBPTT(6)
        self.batches = self._real.batches

    def windows(self, model, data, batch_size, passed=0, order=None):
        self.orders.append(order)
        return self._real.windows(model, data, batch_size, passed, order)


def orders(epochs=3, data=(XS, EVERY), trainer=None, watch=None, **options):
    watch = Watch() if watch is None else watch
    trainer = Trainer(regressor(), SGD(lr=0.01), watch, **options) if trainer is None else trainer
    trainer.fit(data, epochs=epochs, batch_size=BATCH)
    return [None if order is None else order.tolist() for order in watch.orders]


def test_each_epoch_has_an_order_of_its_own_that_follows_from_the_generator():
    actual = orders(rng=np.random.default_rng(1))
    assert all(sorted(order) == list(range(COUNT)) for order in actual)
    assert len({tuple(order) for order in actual}) == 3
    assert orders(rng=np.random.default_rng(1)) == actual
    assert orders(rng=np.random.default_rng(2)) != actual
    assert orders() != orders()


def test_a_second_fit_has_other_orders():
    watch = Watch()
    trainer = Trainer(regressor(), SGD(lr=0.01), watch, rng=np.random.default_rng(1))
    for _ in range(2):
        found = orders(trainer=trainer, watch=watch)
    assert len({tuple(order) for order in found}) == 6


def test_without_shuffling_sequences_are_read_in_their_order():
    assert orders(shuffle=False) == [None] * 3


def test_a_text_is_never_shuffled():
    watch, ids = Watch(), np.arange(40) % 7
    trainer = Trainer(RNNLM(7, 4, 4, rng=np.random.default_rng(0)), SGD(lr=0.1), watch)
    trainer.fit(ids, epochs=2, batch_size=2)
    assert watch.orders == [None, None]
    assert trainer.order_seed is None


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("ts", [EVERY, LAST], ids=["every step", "last step"])
def test_an_epoch_in_some_order_has_the_bits_of_sorted_data_in_that_order(way, ts, tmp_path):
    order = epoch_order(3, 1, COUNT)
    mapped = []
    for name, array in (("xs", XS), ("ts", ts)):
        np.save(tmp_path / f"{name}.npy", array)
        mapped.append(np.load(tmp_path / f"{name}.npy", mmap_mode="r"))

    def walked(data, **options):
        model = regressor(ts)
        found = []
        for window in WAYS[way]().windows(model, data, BATCH, **options):
            found.append((window, [grad.tobytes() for grad in model.grads]))
            SGD(lr=0.1).update(model.params, model.grads)
        return found

    expected = walked((XS[order], ts[order]))
    assert walked((XS, ts), order=order) == expected
    assert walked(tuple(mapped), order=order) == expected
    assert walked([XS, ts], order=order) == expected


def test_an_exact_gradient_reads_a_shuffled_memory_map_part_by_part():
    """Copying a batch at once would take the memory that `memory=` promises to save."""

    class Counting:
        def __init__(self, array):
            self.array, self.shape, self.dtype, self.most = array, array.shape, array.dtype, 0

        def __getitem__(self, places):
            piece = self.array[places]
            self.most = max(self.most, piece.shape[1])
            return piece

    from rnnfast.data.batching import PickedRows

    xs = np.random.default_rng(2).standard_normal((3, 600, 3)).astype(np.float32)
    counting = Counting(xs)
    model, twin = regressor(), regressor()
    exact = ExactBPTT(chunk=1)
    rows = np.array([2, 0])
    chunk = exact.plan(model, 2, 600).chunk
    assert chunk < 600
    loss = exact.gradients(model, PickedRows(counting, rows, 600), xs[rows][..., :2].copy())
    assert loss == exact.gradients(twin, xs[rows], xs[rows][..., :2].copy())
    assert counting.most == chunk


def test_the_order_of_an_epoch_is_the_same_on_every_machine_and_in_every_version():
    assert epoch_order(7, 1, 8).tolist() == [3, 1, 6, 2, 5, 4, 0, 7]


@pytest.mark.parametrize(
    ("order", "error", "message"),
    [
        (np.arange(COUNT - 1), ValueError, r"order must be \(7,\), got \(6,\)"),
        (np.zeros(COUNT, int), ValueError, "order must name each sequence once"),
        (np.arange(COUNT) - 1, IndexError, "order must hold ids from 0 to 6, got -1"),
        (np.arange(COUNT) * 1.0, TypeError, "order must hold integers"),
    ],
)
def test_what_is_no_order_is_refused(order, error, message):
    for way in (TruncatedBPTT(3), ExactBPTT()):
        with pytest.raises(error, match=message):
            next(way.windows(regressor(), (XS, EVERY), BATCH, order=order))
        with pytest.raises(ValueError, match="order belongs to sequences with targets"):
            next(way.windows(RNNLM(7, 4, 4), np.arange(40) % 7, BATCH, order=np.arange(3)))


def test_options_that_are_none_are_refused():
    with pytest.raises(TypeError, match="Trainer: shuffle must be True or False, got 1"):
        Trainer(regressor(), SGD(), shuffle=1)
    with pytest.raises(TypeError, match=r"Trainer: rng must be a numpy\.random\.Generator, got int"):
        Trainer(regressor(), SGD(), rng=3)


def test_a_way_through_the_data_that_knows_no_order_is_refused():
    class Own(TruncatedBPTT):
        def windows(self, model, data, batch_size):
            yield Window(1, 1, 1, 0.0)

    trainer = Trainer(regressor(), SGD(), Own(3))
    with pytest.raises(TypeError, match=r"^Trainer\.fit: Own\.windows must take order=.*shuffle=False"):
        trainer.fit((XS, EVERY), epochs=1, batch_size=BATCH)
    Trainer(regressor(), SGD(), Own(3), shuffle=False).fit((XS, EVERY), epochs=1, batch_size=BATCH)


class Killed(BaseException):
    """What no handler expects: nothing is saved when it comes."""


def trained(path, way, step=0, resume=False, valid=None, **options):
    """Parameters and history of a run that is killed at a step, where there is one."""

    def report(progress):
        if progress.step == step:
            raise Killed

    trainer = Trainer(regressor(), Adam(lr=0.02), WAYS[way](), callback=report, **options)
    data = {"epochs": 3, "batch_size": BATCH, "valid": valid}
    if not step:
        trainer.fit((XS, EVERY), **data, checkpoint_file=path, checkpoint_every=0.0, resume=resume)
    else:
        with pytest.raises(Killed):
            trainer.fit((XS, EVERY), **data, checkpoint_file=path, checkpoint_every=0.0)
    losses = [(record["train_loss"], record["valid_loss"]) for record in trainer.history]
    return [param.tobytes() for param in trainer.model.params], losses, trainer.order_seed


@pytest.mark.parametrize("way", WAYS)
def test_a_run_killed_in_the_middle_of_an_epoch_goes_on_in_the_order_of_its_file(way, tmp_path):
    valid = XS[:3], EVERY[:3]
    expected = trained(tmp_path / "whole", way, valid=valid, rng=np.random.default_rng(5))
    for step in sized((2, 5, 6, 9), (6,)):
        trained(tmp_path / "t", way, step, valid=valid, rng=np.random.default_rng(5))
        # Whatever the generator of the new process gives, also where it has no seed.
        actual = trained(tmp_path / "t", way, resume=True, valid=valid)
        assert actual == expected, step
        (tmp_path / "t").unlink()


def test_a_run_without_a_seed_goes_on_too(tmp_path):
    trained(tmp_path / "t", "windows", 6)
    seed = checkpointing.read_training(tmp_path / "t").about["order_seed"]
    (tmp_path / "t").rename(tmp_path / "kept")
    trained(tmp_path / "t", "windows", 5)
    assert checkpointing.read_training(tmp_path / "t").about["order_seed"] != seed
    for _ in range(2):
        (tmp_path / "t").write_bytes((tmp_path / "kept").read_bytes())
        assert trained(tmp_path / "t", "windows", resume=True)[2] == seed


def rewritten(path, change):
    """The file again, with another description."""
    about, arrays = read_tensors(path, checkpointing.FORMAT, checkpointing._specs)
    change(about)
    write_tensors(path, checkpointing.FORMAT, arrays, about)


def as_before(about):
    """What files held before sequences were shuffled."""
    del about["order_seed"], about["run"]["shuffle"]


def test_a_file_from_before_the_shuffling_goes_on_in_order_and_says_so(tmp_path):
    path = tmp_path / "t"
    expected = trained(tmp_path / "whole", "windows", shuffle=False)
    trained(path, "windows", 6, shuffle=False)
    rewritten(path, as_before)
    with pytest.raises(CheckpointError, match=r"^Trainer\.fit: shuffle is True and not False, so the run in"):
        trained(path, "windows", resume=True)
    assert trained(path, "windows", resume=True, shuffle=False) == expected


def test_a_file_of_a_text_from_before_the_shuffling_goes_on(tmp_path):
    def fit(**options):
        model = RNNLM(7, 4, 4, rng=np.random.default_rng(0))
        trainer = Trainer(model, SGD(lr=0.1), TruncatedBPTT(5))
        trainer.fit(np.arange(41) % 7, batch_size=2, checkpoint_file=tmp_path / "t", **options)
        return [param.tobytes() for param in model.params]

    expected = fit(epochs=3)
    (tmp_path / "t").unlink()
    fit(epochs=1)
    rewritten(tmp_path / "t", lambda about: about.pop("order_seed"))
    assert fit(epochs=3, resume=True) == expected


@pytest.mark.parametrize("seed", [None, "7", -1, 2**63, 1.5, True])
def test_a_file_whose_seed_is_none_is_malformed(tmp_path, seed):
    trained(tmp_path / "t", "windows", 6)
    rewritten(tmp_path / "t", lambda about: about.update(order_seed=seed))
    with pytest.raises(CheckpointError, match=r"does not fit the run .*seed must be"):
        trained(tmp_path / "t", "windows", resume=True)


def test_a_file_of_the_other_choice_is_named_in_one_sentence(tmp_path):
    trained(tmp_path / "t", "windows", 6)
    with pytest.raises(CheckpointError, match=r"^Trainer\.fit: shuffle is False and not True, so the run in"):
        trained(tmp_path / "t", "windows", resume=True, shuffle=False)


@pytest.mark.parametrize("way", ["windows", "exact"])
def test_sorted_data_is_learned_as_well_as_data_in_random_order(way):
    """Sequences sorted by their mean: in that order each epoch ends on the largest and forgets the rest."""
    rng = np.random.default_rng(4)
    level = np.sort(rng.uniform(-1, 1, 64))[:, np.newaxis, np.newaxis]
    xs = (level + 0.1 * rng.standard_normal((64, 6, 1))).astype(np.float32)
    data = xs, xs[:, -1] ** 2

    def error(**options):
        model = SequenceRegressor(1, 8, 1, cell="gru", rng=np.random.default_rng(0))
        bptt = TruncatedBPTT(6) if way == "windows" else ExactBPTT()
        trainer = Trainer(model, Adam(lr=0.02), bptt, anneal=None, **options)
        return trainer.fit(data, epochs=sized(20, 1), batch_size=8, valid=data)[-1]["valid_loss"]

    shuffled, in_order = error(rng=np.random.default_rng(1)), error(shuffle=False)
    assert shuffled != in_order
    if sized(True, False):
        assert 2 * shuffled < in_order
