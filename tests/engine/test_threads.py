"""Teams of threads: the same bits for every number of them, and no caller that waits for ever."""

import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from cell_cases import KINDS, Window, make, run
from helpers import DTYPES, assert_same_bits, kernel_calls, needs_jit, normal, sized
from rnnfast.kernels.losses.fused_loss import SLAB_WORDS
from rnnfast.kernels.team import team as teams

import rnnfast
from rnnfast import RNNLM, ExactBPTT, SequenceRegressor, TimeAffineSoftmaxWithLoss
from rnnfast.engine import threads
from rnnfast.layers import plans

pytestmark = pytest.mark.usefixtures("shared_windows")
COUNTS = (2, 3)


def results(count, call):
    """Twice, since the first call for a kernel and dtype runs alone."""
    rnnfast.set_num_threads(count)
    call()
    return call()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "options", [{}, {"lengths": True}, {"resets": True}], ids=["full", "lengths", "resets"]
)
@pytest.mark.parametrize("kind", KINDS)
def test_sequences_shared_out_give_the_same_bits(kind, options, dtype, monkeypatch):
    N, T = 21, sized(61, 5)  # more than two blocks of the time grid
    layer = make(kind, 7, 19, dtype)
    window = Window(layer, N, T, **options)
    expected = results(1, lambda: run(layer, window))
    seen = kernel_calls(monkeypatch)
    for count in COUNTS:
        seen.clear()
        actual = results(count, lambda: run(layer, window))
        assert set(seen) == {(count, False)}
        for name, array in expected.items():
            assert_same_bits(actual[name], array)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("N", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_units_shared_out_give_the_same_bits(kind, N, dtype, monkeypatch):
    T, H = sized(60 if N == 1 else 200, 4), 83  # with three threads, shares of 27 and 28 units
    layer = make(kind, 5, H, dtype)
    window = Window(layer, N, T)
    expected = results(1, lambda: run(layer, window))
    seen = kernel_calls(monkeypatch)
    for count in COUNTS:
        seen.clear()
        actual = results(count, lambda: run(layer, window))
        assert set(seen) == {(count, True)}
        for name, array in expected.items():
            assert_same_bits(actual[name], array)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["lstm", "gru-before", "gru-after"])
def test_blocks_that_are_made_again_give_the_same_bits(kind, dtype, monkeypatch):
    layer = make(kind, 7, 19, dtype)
    window = Window(layer, 21, sized(61, 5), lengths=True)
    expected = results(1, lambda: run(layer, window))
    monkeypatch.setattr(plans, "KEPT_BYTES", 0)
    for count in (1, *COUNTS):
        actual = results(count, lambda: run(layer, window))
        for name, array in expected.items():
            assert_same_bits(actual[name], array)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("N", "T", "V"), [(20, 35, 2 * SLAB_WORDS + 9), (7, 30, 61), (300, 2, 40)])
def test_the_fused_loss_gives_the_same_bits(N, T, V, dtype):
    N, T, V = (size if size < 10 else sized(size, 12) for size in (N, T, V))
    rng = np.random.default_rng(0)
    layer = TimeAffineSoftmaxWithLoss.from_sizes(17, V, rng=rng, dtype=dtype)
    xs, ts = normal(rng, (N, T, 17), dtype), rng.integers(-1, V, (N, T))

    def call():
        for buffer in layer._workspace._buffers.values():
            buffer[...] = 0xFF
        loss = np.array(layer.forward(xs, ts))
        return loss, layer.backward(0.5), *(grad.copy() for grad in layer.grads), layer.losses(xs, ts)

    expected = results(1, call)
    for count in COUNTS:
        for actual, array in zip(results(count, call), expected, strict=True):
            assert_same_bits(actual, array)


@pytest.mark.parametrize("N", [2, 20])  # by units, and by sequences
@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
@pytest.mark.parametrize("kind", ["language model", "regression"])
def test_exact_gradients_in_chunks_have_the_same_bits(kind, cell, N, monkeypatch):
    rng, T = np.random.default_rng(0), sized(600 // min(N, 3), 11)  # two chunks or more
    if kind == "regression":
        model = SequenceRegressor(5, 48, 2, cell=cell, dropout=0.3, rng=rng)
        xs, ts = normal(rng, (N, T, 5), np.float32), normal(rng, (N, T, 2), np.float32)
    else:
        model = RNNLM(50, 48, 48, cell=cell, dropout=0.3, tied=True, rng=rng)
        xs, ts = rng.integers(0, 50, (N, T)), rng.integers(-1, 50, (N, T))
    masks, exact = model.rng_state, ExactBPTT(chunk=1)
    assert exact.plan(model, N, T).chunks >= sized(2, 1)

    def call(learn):
        model.reset_state()
        model.rng_state = masks
        loss = learn()
        return np.array(loss), *(array.copy() for array in (*model.grads, *model.get_state()[0]))

    def at_once():
        loss = model.forward(xs, ts)
        model.backward()
        return loss

    expected, seen = results(1, lambda: call(at_once)), kernel_calls(monkeypatch)
    for count in (1, 2, 3):
        seen.clear()
        actual = results(count, lambda: call(lambda: exact.gradients(model, xs, ts)))
        assert max(members for members, _ in seen) == count
        for array, wanted in zip(actual, expected, strict=True):
            assert_same_bits(array, wanted)


def test_callers_on_several_python_threads_do_not_disturb_each_other():
    rnnfast.set_num_threads(2)
    layers = [make("lstm", 7, 19, np.float32, seed=n) for n in range(4)]
    windows = [Window(layer, 16, sized(40, 3)) for layer in layers]
    expected = [run(layer, window) for layer, window in zip(layers, windows, strict=True)]
    wrong = []

    def call(n):
        for _ in range(sized(30, 2)):
            actual = run(layers[n], windows[n])
            wrong.extend(name for name in actual if actual[name].tobytes() != expected[n][name].tobytes())

    callers = [threading.Thread(target=call, args=(n,), daemon=True) for n in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(timeout=60)
        assert not caller.is_alive()
    assert wrong == []


def test_fewer_threads_end_those_that_are_too_many():
    layer = make("rnn", 7, 19, np.float32)
    window = Window(layer, 21, 5)
    results(4, lambda: run(layer, window))

    def workers():
        return [thread for thread in threading.enumerate() if thread.name.startswith("rnnfast-")]

    assert len(workers()) >= 3
    rnnfast.set_num_threads(2)
    run(layer, window)
    end = time.monotonic() + 10
    while len(workers()) > 1 and time.monotonic() < end:
        time.sleep(0.01)
    assert len(workers()) == 1


def plain(body):
    """A kernel in plain Python: `body(team, member, x)` between the meetings of a team."""

    def kernel(team, member, x):
        goal = teams._begin_call_twin(team, member)
        body(team, member, x)
        teams._end_call_twin(team, 0, goal)

    return kernel


def wait_for(worker):
    """Until a worker has ended."""
    end = time.monotonic() + 60
    while not worker.ended:
        assert time.monotonic() < end
        time.sleep(0.001)


def test_what_goes_wrong_on_another_thread_is_raised_here():
    rnnfast.set_num_threads(2)

    def body(team, member, x):
        if member and x[0]:
            raise ArithmeticError("on the other thread")

    kernel = plain(body)
    threads.run(kernel, 2, False, (np.zeros(1),))
    threads.run(kernel, 2, False, (np.zeros(1),))
    with pytest.raises(RuntimeError, match="a kernel failed on another thread") as caught:
        threads.run(kernel, 2, False, (np.ones(1),))
    assert isinstance(caught.value.__cause__, ArithmeticError)
    threads.run(kernel, 2, False, (np.zeros(1),))  # another team
    assert len(threads._pool.idle) == 1


def test_a_team_whose_thread_failed_after_a_call_is_not_used_again():
    rnnfast.set_num_threads(2)
    members = []
    kernel = plain(lambda team, member, x: members.append(member))
    for _ in range(2):
        threads.run(kernel, 2, False, (np.zeros(1),))
    (team,) = threads._pool.idle
    team.workers[0].calls.put(("no kernel", 0, ()))
    wait_for(team.workers[0])
    assert team.failed
    with pytest.raises(RuntimeError, match="a kernel failed on another thread"):
        team.call(kernel, 2, False, (np.zeros(1),))  # had it failed a moment later
    members.clear()
    threads.run(kernel, 2, False, (np.zeros(1),))
    assert sorted(members) == [0, 1]
    assert threads._pool.idle[0] is not team


@needs_jit
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_starts_its_own_threads():
    program = """
import os, warnings
import numpy as np, rnnfast
from rnnfast.engine import load, threads
warnings.simplefilter("ignore")
threads.LEAST_OPERATIONS, load.allowed = 1.0, lambda: 2
rnnfast.set_num_threads(2)
layer = rnnfast.TimeRNN.from_sizes(5, 33, rng=np.random.default_rng(0))
xs = np.ones((16, 9, 5), np.float32)
for _ in range(2):
    expected = layer.forward(xs)
assert [len(team.workers) for team in threads._pool.idle] == [1]
child = os.fork()
if child == 0:
    assert threads._pool.idle == []
    same = all(layer.forward(xs).tobytes() == expected.tobytes() for _ in range(3))
    os._exit(0 if same and [len(team.workers) for team in threads._pool.idle] == [1] else 1)
assert os.waitpid(child, 0)[1] == 0
assert layer.forward(xs).tobytes() == expected.tobytes()
print("done")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout == "done\n", done.stderr


def test_without_more_threads_the_caller_works_alone(monkeypatch):
    layer = make("rnn", 7, 19, np.float32)
    window = Window(layer, 21, 5)
    expected = results(1, lambda: run(layer, window))

    def refuse(team, member):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threads, "_Worker", refuse)
    for name, array in results(2, lambda: run(layer, window)).items():
        assert_same_bits(array, expected[name])


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs processor affinity")
def test_where_threads_may_not_be_placed_the_system_chooses(monkeypatch):
    layer = make("rnn", 7, 19, np.float32)
    window = Window(layer, 21, 5)
    expected = results(1, lambda: run(layer, window))
    refused = []

    def refuse(*given):
        refused.append(given)
        raise PermissionError("forbidden")

    monkeypatch.setattr(os, "sched_setaffinity", refuse)
    rnnfast.set_num_threads(2)
    for _ in range(3):
        for name, array in run(layer, window).items():
            assert_same_bits(array, expected[name])
        time.sleep(0.05)  # the worker goes to sleep
    assert refused or len(os.sched_getaffinity(0)) == 1


def test_an_interrupted_caller_leaves_no_thread_at_work():
    rnnfast.set_num_threads(2)
    begun, ended = [], []

    def body(team, member, x):
        if member and x[0]:
            begun.append(member)
            while team[teams.ARRIVALS] < teams.FAILED:
                time.sleep(0)
            ended.append(member)
        elif x[0]:
            while not begun:
                time.sleep(0)
            raise KeyboardInterrupt

    kernel = plain(body)
    threads.run(kernel, 2, False, (np.zeros(1),))  # the first call is alone
    with pytest.raises(KeyboardInterrupt):
        threads.run(kernel, 2, False, (np.ones(1),))
    assert ended == [1]


def test_giving_a_team_up_outlasts_interrupts(monkeypatch):
    rnnfast.set_num_threads(2)
    begun, ended, interrupts, sleep = [], [], [], time.sleep

    def body(team, member, x):
        if member and x[0]:
            begun.append(member)
            while len(interrupts) < 5:
                sleep(0)
            ended.append(member)
        elif x[0]:
            while not begun:
                sleep(0)
            raise KeyboardInterrupt

    def interrupted(seconds):
        if seconds == 1e-4:
            interrupts.append(seconds)
            if len(interrupts) <= 5:
                raise KeyboardInterrupt
        sleep(seconds)

    kernel = plain(body)
    threads.run(kernel, 2, False, (np.zeros(1),))  # the first call is alone
    monkeypatch.setattr(time, "sleep", interrupted)
    with pytest.raises(KeyboardInterrupt):
        threads.run(kernel, 2, False, (np.ones(1),))
    assert ended == [1]


def test_a_thread_enters_no_kernel_that_its_caller_does_not_enter(monkeypatch):
    rnnfast.set_num_threads(2)
    members = []
    kernel = plain(lambda team, member, x: members.append(member))
    for _ in range(2):
        threads.run(kernel, 2, False, (np.zeros(1),))
    post = threads._Worker.post

    def interrupted(worker, call):
        post(worker, call)
        raise KeyboardInterrupt

    monkeypatch.setattr(threads._Worker, "post", interrupted)
    monkeypatch.setattr(threads._Team, "give_up", lambda team: None)  # interrupted as well
    members.clear()
    (worker,) = threads._pool.idle[0].workers
    with pytest.raises(KeyboardInterrupt):
        threads.run(kernel, 2, False, (np.zeros(1),))
    wait_for(worker)  # it ends, since nobody holds its team
    assert members == []
