"""One object in several Python threads: inference is right, training from two threads is refused."""

import os
import sys
import threading

import numpy as np
import pytest
from cell_cases import KINDS, make
from helpers import assert_same_bits, normal, sized

from rnnfast import (
    CBOWLM,
    RNNLM,
    ExactBPTT,
    SequenceRegressor,
    Stack,
    State,
    TimeAffine,
    TimeAffineSoftmaxWithLoss,
    TimeEmbedding,
    TimeLSTM,
    Trainer,
    TruncatedBPTT,
    optim,
    perplexity,
    time_layers,
)

THREADS = 8
CALLS = int(os.environ.get("RNNFAST_SHARED_CALLS", sized(400, 40)))


@pytest.fixture(autouse=True)
def switch_threads_often():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


class Rows:
    """A layer of rows (N, D) as one of sequences."""

    def __init__(self, layer):
        self.layer = layer

    def forward(self, xs):
        return self.layer.forward(xs[:, 0].copy())

    def backward(self, dhs):
        return self.layer.backward(dhs)


def in_threads(work, count=THREADS):
    """Run `work(number)` on `count` threads at once; return their exceptions."""
    errors, start = [], threading.Barrier(count)

    def run(number):
        start.wait()
        try:
            work(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


def readers():
    """Calls on one object each, on inputs of several shapes: (name, read(input), inputs)."""
    rng = np.random.default_rng(0)
    shapes = [(1, 3), (2, 40), (5, 7), (3, 300)]
    windows = [normal(rng, (*shape, 4), np.float32) for shape in shapes]
    texts = [rng.integers(9, size=5 * n + 2) for n in range(1, 5)]
    for kind in KINDS:
        layer = make(kind, 4, 6, np.float32, stateful=False)
        yield kind, lambda xs, f=layer: f.forward(xs, keep=False), windows
        yield f"{kind} keeping", lambda xs, f=layer: f.forward(xs), windows
    lstm = [TimeLSTM.from_sizes(4, 4, rng=rng) for _ in range(2)]
    yield "stack", Stack(lstm).forward, windows
    yield "affine", TimeAffine.from_sizes(4, 7, rng=rng).forward, windows
    yield "embedding", TimeEmbedding.from_sizes(9, 4, rng=rng).forward, [text[None] for text in texts]
    loss = TimeAffineSoftmaxWithLoss.from_sizes(4, 9, rng=rng)
    yield "loss", lambda xs: np.array(loss.forward(xs, np.zeros(xs.shape[:2], int))), windows
    yield "losses", lambda xs: loss.losses(xs, np.zeros(xs.shape[:2], int)), windows
    regressor = SequenceRegressor(4, 5, 2, cell="gru", layers=2, dropout=0.5, rng=rng)
    yield "predict", regressor.predict, windows
    yield "evaluate", lambda xs: np.array(regressor.evaluate(xs, xs[..., :2].copy())), windows
    for model in (RNNLM(9, 4, 4, cell="lstm", tied=True, dropout=0.5, rng=rng), CBOWLM(9, 4, rng=rng)):
        name = type(model).__name__
        yield f"{name} next_proba", model.next_proba, texts
        yield f"{name} log_prob", lambda ids, m=model: np.array(m.log_prob(ids)), texts
        yield f"{name} perplexity", lambda ids, m=model: np.array(perplexity(m, ids)), texts
        yield (
            f"{name} generate",
            lambda ids, m=model: np.array(m.generate(ids, 5, rng=np.random.default_rng(len(ids)))),
            texts,
        )


@pytest.mark.parametrize(("read", "given"), [pytest.param(*case[1:], id=case[0]) for case in readers()])
def test_inference_from_several_threads_has_the_bits_of_one(read, given):
    expected = [read(each) for each in given]
    calls = max(1, CALLS // THREADS)

    def work(number):
        rng = np.random.default_rng(number)
        for _ in range(calls):
            case = int(rng.integers(len(given)))
            assert_same_bits(np.asarray(read(given[case])), np.asarray(expected[case]))

    assert in_threads(work) == []


def test_others_may_read_while_one_thread_trains():
    ids = np.random.default_rng(1).integers(9, size=400)
    models = [RNNLM(9, 8, 8, cell="lstm", dropout=0.2, rng=np.random.default_rng(2)) for _ in range(2)]

    def train(model):
        Trainer(model, optim.SGD(lr=0.5), TruncatedBPTT(10, 20)).fit(ids, epochs=sized(6, 1), batch_size=2)

    train(models[0])
    done = threading.Event()

    def work(number):
        if number == 0:
            try:
                train(models[1])
            finally:
                done.set()
        while not done.is_set():
            assert np.isfinite(models[1].next_proba(ids[: 5 + number])).all()

    assert in_threads(work, 3) == []
    for actual, expected in zip(models[1].params, models[0].params, strict=True):
        assert_same_bits(actual, expected)


@pytest.mark.parametrize(
    "make_object",
    [
        lambda: TimeLSTM.from_sizes(3, 4),
        lambda: Stack([TimeLSTM.from_sizes(3, 4)]),
        lambda: TimeAffine.from_sizes(3, 4),
        lambda: Rows(time_layers.MatMul(np.ones((3, 4), np.float32))),
        lambda: Rows(time_layers.Softmax()),
        lambda: Rows(time_layers.Sigmoid()),
        lambda: Rows(time_layers.Dropout()),
    ],
)
def test_backward_in_another_thread_than_the_last_forward_is_refused(make_object):
    layer, xs = make_object(), np.ones((2, 5, 3), np.float32)
    hs = layer.forward(xs)
    assert in_threads(lambda _: layer.forward(xs), 1) == []
    with pytest.raises(RuntimeError, match=r"\w+\.backward: another thread called forward last; .*copy"):
        layer.backward(hs)
    layer.forward(xs)
    layer.backward(hs)
    assert in_threads(lambda _: layer.backward(layer.forward(xs)), 1) == []  # handed over, which is fine


def test_training_one_model_in_two_threads_is_refused():
    ids = np.random.default_rng(1).integers(9, size=400)
    model = RNNLM(9, 8, 8, rng=np.random.default_rng(2))
    inside, tried = threading.Event(), threading.Event()

    def callback(progress):
        inside.set()
        tried.wait()

    def train(callback):
        trainer = Trainer(model, optim.SGD(lr=0.5), TruncatedBPTT(10), callback=callback)
        trainer.fit(ids, epochs=1, batch_size=2)

    def work(number):
        if number == 0:
            train(callback)
            return
        inside.wait()
        try:
            with pytest.raises(RuntimeError, match=r"Trainer\.fit: another thread is training it"):
                train(None)
            state, xs = State.of(model), ids[:10].reshape(2, 5)
            for method, arguments in {
                "forward": (xs, xs),
                "losses": (xs, xs),
                "predict": (xs,),
                "set_state": (state,),
                "reset_state": (),
                "backward": (),
            }.items():
                with pytest.raises(RuntimeError, match=rf"RNNLM\.{method}: another thread is training it"):
                    getattr(model, method)(*arguments)
            with pytest.raises(RuntimeError, match=r"RNNLM\.backward: another thread is training it"):
                ExactBPTT().gradients(model, xs, xs)
            assert np.isfinite([perplexity(model, ids), model.log_prob(ids)]).all()
            assert State.of(model) == state
        finally:
            tried.set()

    assert in_threads(work, 2) == []
    assert model._turn.trainer is None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_does_not_wait_for_a_thread_that_is_not_there():
    layer, xs = TimeLSTM.from_sizes(3, 4), np.ones((2, 5, 3), np.float32)
    expected = layer.forward(xs)
    held, let_go = threading.Event(), threading.Event()

    def hold():
        with layer._turn:
            held.set()
            let_go.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    child = os.fork()
    if child == 0:
        answer = []
        worker = threading.Thread(target=lambda: answer.append(layer.forward(xs)), daemon=True)
        worker.start()
        worker.join(20)
        os._exit(0 if answer and (answer[0] == expected).all() else 1)
    let_go.set()
    thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
