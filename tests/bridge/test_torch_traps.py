"""Traps of a bridge to PyTorch: where such code is wrong without an error, holds memory, or hangs."""

import gc
import resource
import subprocess
import sys
import threading

import pytest

torch = pytest.importorskip("torch")

from torch_helpers import CLASSES, D, H, assert_close  # noqa: E402

import rnnfast  # noqa: E402
import rnnfast.torch as bridge  # noqa: E402
from rnnfast.engine import threads as _threads  # noqa: E402
from rnnfast.torch import openmp, windows  # noqa: E402


def both(use):
    """What PyTorch gives, and what it gives with the bridge."""
    torch.manual_seed(0)
    expected = use()
    torch.manual_seed(0)
    with bridge.enable():
        actual = use()
        assert bridge.report().served
    return actual, expected


@pytest.mark.parametrize("cell", CLASSES)
@pytest.mark.parametrize("how", ["carried", "fed back", "tied"])
def test_inputs_that_depend_on_each_other_are_differentiated_once(cell, how):
    def gradients():
        module = CLASSES[cell](D, D, dtype=torch.float64)
        if how == "tied":
            module.weight_ih_l0, module.bias_ih_l0 = module.weight_hh_l0, module.bias_hh_l0
        x = torch.randn(5, 2, D, dtype=torch.float64)
        out, state = module(x)
        if how != "tied":
            out, _ = module(x, state) if how == "carried" else module(out)
        params = list(module.parameters())
        first = torch.autograd.grad(out.square().sum(), params, create_graph=True)
        return [*first, *torch.autograd.grad(sum(one.square().sum() for one in first), params)]

    assert_close(*both(gradients))


def test_gradients_of_several_losses_at_once():
    def jacobian():
        module, x = torch.nn.GRU(D, H), torch.randn(4, 2, D)
        return [torch.autograd.functional.jacobian(lambda one: module(one)[0], x, vectorize=True)]

    assert_close(*both(jacobian), 1e-5)


def test_gradients_with_a_lazy_sign():
    def gradients():
        module, x = torch.nn.LSTM(D, H), torch.randn(4, 2, D)
        out, _ = module(x)
        torch.autograd.backward(out, torch._neg_view(torch.ones_like(out)))
        return [param.grad for param in module.parameters()]

    assert_close(*both(gradients), 1e-5)


def test_final_states_may_be_written():
    def states():
        module, x = torch.nn.LSTM(D, H), torch.randn(4, 2, D)
        _, (h, c) = module(x)
        h[:, 0] = 0
        c.mul_(0.5)
        (h.sum() + c.square().sum()).backward()
        return [h.detach(), c.detach(), *(param.grad for param in module.parameters())]

    assert_close(*both(states), 1e-5)


@pytest.mark.parametrize("axes", [1, 3])
def test_packed_data_of_other_shapes_is_pytorch_s_error(axes):
    packed = torch.nn.utils.rnn.PackedSequence(torch.randn(*(8, 2, D)[: axes + 1][-axes:]), torch.tensor([8]))
    for module in (torch.nn.LSTM(D, H), bridge.LSTM(D, H)):
        with pytest.raises(RuntimeError):
            module(packed)


def test_two_threads_go_back_through_one_graph():
    torch.manual_seed(0)
    with bridge.enable():
        module = torch.nn.GRU(32, 64)
        out = module(torch.randn(60, 16, 32))[0]
    params = list(module.parameters())
    expected = torch.autograd.grad(out.sum(), params, retain_graph=True)
    wrong = []

    def back():
        for _ in range(10):
            found = torch.autograd.grad(out.sum(), params, retain_graph=True)
            if not all(torch.equal(one, other) for one, other in zip(found, expected, strict=True)):
                wrong.append(found)

    threads = [threading.Thread(target=back) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_two_threads_go_back_through_one_graph_of_a_cell():
    before = sys.getswitchinterval()
    module = bridge.Recurrent(rnnfast.cells.gru, 8, 16)
    out, _ = module(torch.randn(20, 4, 8))
    params = list(module.parameters())
    expected = torch.autograd.grad(out.sum(), params, retain_graph=True)
    wrong = []

    def back():
        for _ in range(100):
            found = torch.autograd.grad(out.sum(), params, retain_graph=True)
            if not all(torch.equal(one, other) for one, other in zip(found, expected, strict=True)):
                wrong.append(found)

    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=back) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert not wrong


def test_cells_run_on_as_many_threads_as_pytorch_may(monkeypatch):
    used = []
    monkeypatch.setattr(_threads, "members_for", lambda operations, most: 2)
    monkeypatch.setattr(_threads, "run", lambda kernel, members, *rest: used.append(members))
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            bridge.Recurrent(rnnfast.cells.gru, 8, 16)(torch.randn(20, 16, 8))
    finally:
        torch.set_num_threads(before)
    assert used == [1, 2]


@pytest.mark.parametrize("cell", CLASSES)
def test_outputs_are_contiguous_except_with_dropout_between_batch_first_layers(cell):
    x = torch.randn(3, 7, D)
    for batch_first in (True, False):
        module = CLASSES[cell](D, H, 2, batch_first=batch_first, dropout=0.5, bidirectional=True)
        bridge.accelerate(module)
        assert module(x)[0].is_contiguous() is not batch_first
        assert module.eval()(x)[0].is_contiguous()


def test_denormal_numbers_count_as_zero():
    module = bridge.RNN(1, 1, bias=False, nonlinearity="relu")
    with torch.no_grad():
        for param in module.parameters():
            param.fill_(1)
        assert not module(torch.full((3, 1, 1), 1e-40))[0].any()


# Memory.


def test_windows_that_the_collector_finds_do_not_wait_for_a_lock():
    """A model that keeps its hidden state is in a cycle with its window, and may be collected in `take`."""

    def use():
        module, x = torch.nn.GRU(4, 4), torch.randn(2, 1, 4)
        for _ in range(3000):
            out, module.hidden = module(x)
            module.kept = [module, out]
            module = torch.nn.GRU(4, 4)
        done.append(True)

    before, done = gc.get_threshold(), []
    gc.set_threshold(20)
    try:
        with bridge.enable():
            thread = threading.Thread(target=use, daemon=True)
            thread.start()
            thread.join(60)
    finally:
        gc.set_threshold(*before)
    assert done


def test_the_tape_goes_with_backward():
    module, x, total = torch.nn.LSTM(16, 64), torch.randn(200, 16, 16), 0.0
    with bridge.enable():
        for step in range(24):
            loss = module(x)[0].square().mean()
            loss.backward()
            total = total + loss  # keeps the graph
            if step == 3:
                before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000  # KiB; a tape is 5 MB


def test_idle_memory_has_a_bound(monkeypatch):
    monkeypatch.setattr(windows.WorkspacePool, "MOST_BYTES", 3_000_000)
    with bridge.enable():
        for width in range(8, 40):
            torch.nn.GRU(4, width)(torch.randn(100, 32, 4))
    gc.collect()
    assert sum(workspace.nbytes for _, workspace, _ in windows.idle._kept) == windows.idle.nbytes <= 3_000_000


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_gradients_no_tape_is_written(mode, monkeypatch):
    kept, original = [], windows.Window.forward

    def noted(self, *arguments):
        kept.append(arguments[-1])
        return original(self, *arguments)

    monkeypatch.setattr(windows.Window, "forward", noted)
    module, x = torch.nn.LSTM(D, H), torch.randn(4, 2, D)
    with bridge.enable():
        module(x)
        with mode():
            module(x)
    assert kept == [True, False]


# Interrupts.

INTERRUPTED = """
import random, signal, torch, rnnfast, rnnfast.torch
from rnnfast.engine import load, threads
load.allowed = lambda: 64
load.Load.members = lambda load, wanted, pace=None: wanted
threads.LEAST_OPERATIONS = 1.0
rnnfast.set_num_threads(2)
torch.set_num_threads(2)
random.seed(0)
module, x = torch.nn.LSTM(16, 64), torch.randn(20, 24, 16)
class Interrupt(BaseException): pass
def interrupt(*_): raise Interrupt
with rnnfast.torch.enable():
    for _ in range(3):
        module(x)[0].square().sum().backward()
    signal.signal(signal.SIGALRM, interrupt)
    seen = 0
    for _ in range(300):
        try:
            signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-5, 3e-3))
            for _ in range(50):
                module(x)[0].square().sum().backward()
        except Interrupt:
            seen += 1
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    module.zero_grad()
    module(x)[0].sum().backward()
print(seen)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="has no timers that interrupt")
def test_interrupts_leave_no_team_behind():
    if openmp._library() is None:
        pytest.skip("this system's PyTorch has no OpenMP library that lends threads")
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 200
