"""Copies and pickles of states, optimizers, trainers and what they save with: each goes on by itself."""

import copy
import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest

from rnnfast import RNNLM, State, Trainer, TruncatedBPTT, optim
from rnnfast.data import CharTokenizer
from rnnfast.training import Checkpoint, load_checkpoint
from rnnfast.training.checkpointing import Checkpointing

IDS = np.random.default_rng(0).integers(0, 7, 300)
OPTIMIZERS = (
    optim.SGD,
    optim.Momentum,
    optim.Nesterov,
    optim.AdaGrad,
    optim.RMSprop,
    optim.Adam,
    optim.AdamW,
)
COPIES = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda value: pickle.loads(pickle.dumps(value)),
}
DEEP = ("deepcopy", "pickle")


def trainer(**options):
    model = RNNLM(7, 4, 5, cell="lstm", dropout=0.2, rng=np.random.default_rng(1))
    return Trainer(model, optim.Adam(lr=0.01), TruncatedBPTT(10), **options)


def fit(each):
    each.fit(IDS, epochs=2, batch_size=3, valid=IDS)
    return [param.copy() for param in each.model.params]


def equal(first, second):
    return all(a.tobytes() == b.tobytes() for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("way", COPIES)
def test_a_copied_state_is_apart(way):
    state = State((np.ones((3, 2)), (np.zeros((3, 4), np.float32), None)))
    other = COPIES[way](state)
    assert other == state
    assert other.rows == 3
    other[0] = State((np.full((1, 2), 5.0), (np.ones((1, 4), np.float32), None)))
    assert other != state
    assert (state.value[0] == 1).all()


@pytest.mark.parametrize("way", COPIES)
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_a_copied_optimizer_goes_on_with_moments_of_its_own(kind, way):
    rng = np.random.default_rng(2)
    params = [rng.standard_normal((4, 3)), rng.standard_normal((3, 4)).T]
    grads = [rng.standard_normal((4, 3)) for _ in params]
    optimizer = kind(lr=0.1)
    optimizer.update(params, grads)
    first, second = copy.deepcopy(params), copy.deepcopy(params)
    other = COPIES[way](optimizer)
    other.update(first, grads)
    assert optimizer.steps == 1
    optimizer.update(second, grads)
    assert equal(first, second)
    assert other.steps == optimizer.steps == 2
    kept, own = optimizer._state.values(), other._state.values()
    assert not any(
        np.shares_memory(a, b) for k, o in zip(kept, own, strict=True) for a, b in zip(k, o, strict=True)
    )


@pytest.mark.parametrize("way", DEEP)
def test_a_copied_trainer_trains_the_copied_model(way):
    first = trainer()
    fit(first)
    second = COPIES[way](first)
    assert second.history == first.history
    before = [param.copy() for param in first.model.params]
    actual = fit(second)
    assert equal(first.model.params, before)
    assert not equal(actual, before)
    assert equal(fit(first), actual)
    assert second.last_good._params[0] is second.model.params[0]
    assert second.optimizer.steps == first.optimizer.steps


def test_a_shallow_copy_of_a_trainer_has_the_model_and_a_fit_of_its_own():
    first = trainer()
    fit(first)
    second = copy.copy(first)
    assert second.model is first.model
    assert second.last_good is not first.last_good
    assert second._shared is not first._shared
    second.history.append({})
    assert len(first.history) == 2


@pytest.mark.parametrize("way", DEEP)
def test_a_copy_from_the_middle_of_a_fit_writes_to_no_file_of_it(way, tmp_path):
    copies = []

    class Copying:
        def __call__(self, progress):
            if progress.step == 5:
                copies.append(COPIES[way](copies_of))

        def __reduce__(self):
            return list, ()

    copies_of = trainer()
    copies_of.callback = Copying()
    copies_of.fit(IDS, epochs=1, batch_size=3, checkpoint_file=tmp_path / "training", checkpoint_every=0)
    (other,) = copies
    assert other._keeper is None
    assert not other.last_good.is_kept
    written = (tmp_path / "training").read_bytes()
    other.callback = None
    fit(other)
    assert (tmp_path / "training").read_bytes() == written


@pytest.mark.parametrize("way", COPIES)
def test_a_copied_checkpoint_saves_to_the_same_folder_and_counts_for_itself(way, tmp_path):
    checkpoint = Checkpoint(tmp_path, tokenizer=CharTokenizer("abcd"), settings={"lr": 1.0})
    other = COPIES[way](checkpoint)
    model = RNNLM(CharTokenizer("abcd").vocab_size, 4, 4)
    other(model, {"epoch": 1})
    assert (other.saved, checkpoint.saved) == (True, False)
    run = load_checkpoint(tmp_path)
    assert run.config["settings"] == {"lr": 1.0}
    assert run.tokenizer.fingerprint() == CharTokenizer("abcd").fingerprint()


@pytest.mark.parametrize("way", COPIES)
def test_what_keeps_a_fit_under_way_is_not_copied(way, tmp_path):
    keeper = Checkpointing(trainer(), tmp_path / "training", 1.0, np.arange(9), None, 2)
    with pytest.raises(TypeError, match=r"Checkpointing cannot be copied or pickled: .*copy the trainer\.$"):
        COPIES[way](keeper)


def test_a_trainer_and_a_state_go_to_another_process():
    first = trainer()
    fit(first)
    state = State.of(first.model)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as others:
        actual = others.submit(fit, first).result()
        assert others.submit(State.copy, state).result() == state
    assert equal(fit(first), actual)
