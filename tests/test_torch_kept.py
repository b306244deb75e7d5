"""Weights that stay packed from call to call in PyTorch: no change of their bits is missed."""

import copy
import gc
import io
import threading

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import rnnfast.torch  # noqa: E402
from rnnfast.layers.frozen import Packed  # noqa: E402
from rnnfast.torch import kept  # noqa: E402

KINDS = ("RNN", "LSTM", "GRU")


@pytest.fixture(autouse=True)
def all_sizes(monkeypatch):
    monkeypatch.setattr(kept, "LEAST_SIZE", 0)
    monkeypatch.setattr(kept, "_kept", {})


@pytest.fixture
def lent(monkeypatch):
    """Whether the weights of each call are packed already."""
    found, lend = [], Packed.lend

    def spy(*arguments):
        made = lend(*arguments)
        found.append(bool(made.size and made[0]))
        return made

    monkeypatch.setattr(Packed, "lend", spy)
    return found


def net_of(kind, **options):
    torch.manual_seed(0)
    return getattr(rnnfast.torch, kind)(5, 40, batch_first=True, **options)


def x_of(*shape):
    return torch.randn(*(shape or (2, 12, 5)), generator=torch.Generator().manual_seed(1))


def afresh(net, x):
    """The output with weights that are packed for this call."""
    kept._kept.clear()
    return net(x)[0]


@pytest.mark.parametrize("kind", KINDS)
def test_calls_without_a_tape_pack_once_and_give_the_same_bits(kind, lent):
    net, x = net_of(kind, num_layers=2, bidirectional=True), x_of()
    expected = net(x)[0].detach()
    lent.clear()
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            for _ in range(2):
                assert torch.equal(net(x)[0], expected)
    assert lent == [False] * 4 + [True] * 12
    with torch.inference_mode():
        made_inside = net_of(kind)
        for _ in range(2):
            made_inside(x)
    assert lent[-2:] == [False, True]


def changes():
    yield "in place", lambda w: w.add_(1e-3)
    yield "data", lambda w: w.data.mul_(0.5)
    yield "array", lambda w: w.detach().numpy().__imul__(np.float32(0.5))
    yield "one element", lambda w: w.data[3, 2].copy_(torch.tensor(0.25))
    yield "a sign", lambda w: w.data[3, 2].neg_()
    yield "rows exchanged", lambda w: w.data.copy_(w.data[torch.arange(len(w)) ^ 1])
    yield "memory", lambda w: setattr(w, "data", torch.full_like(w, 0.125))


@pytest.mark.parametrize("weight", ["weight_ih_l0", "weight_hh_l0"])
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("change", [pytest.param(one, id=name) for name, one in changes()])
def test_every_change_is_seen(change, mode, weight, lent):
    net, x = net_of("LSTM"), x_of()
    with mode():
        before = net(x)[0], net(x)[0]
        change(getattr(net, weight))
        actual = net(x)[0]
        assert not torch.equal(actual, before[1])
        assert torch.equal(actual, afresh(net, x))
    assert lent == [False, True, False, False]


def test_two_sets_of_recurrent_weights_on_one_input_matrix():
    net, x = net_of("GRU"), x_of()
    other = net_of("GRU")
    other.weight_ih_l0 = net.weight_ih_l0
    with torch.inference_mode():
        other.weight_hh_l0.mul_(0.5)
        expected = afresh(net, x), afresh(other, x)
        for _ in range(2):
            for each, one in zip((net, other), expected, strict=True):
                assert torch.equal(each(x)[0], one)


def test_threads_dtypes_and_shapes_of_calls():
    net, before = net_of("LSTM"), torch.get_num_threads()
    calls = [(1, (2, 12, 5)), (2, (2, 12, 5)), (1, (30, 4, 5)), (2, (1, 1, 5)), (2, (2, 12, 5))]
    with torch.inference_mode():
        try:
            for threads, shape in calls:
                torch.set_num_threads(threads)
                assert torch.equal(net(x_of(*shape))[0], afresh(net, x_of(*shape)))
        finally:
            torch.set_num_threads(before)
        x = x_of()
        net(x)
        net.double()
        assert torch.equal(net(x.double())[0], afresh(net, x.double()))


def test_calls_at_once_do_not_share_memory():
    net = net_of("LSTM")
    xs = [x_of(n, 12, 5) for n in (1, 3, 9)]
    wrong = []
    with torch.no_grad():
        expected = [net(x)[0] for x in xs]

    def read():
        with torch.no_grad():
            for _ in range(50):
                for x, one in zip(xs, expected, strict=True):
                    if not torch.equal(net(x)[0], one):
                        wrong.append(x)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_memory_goes_with_the_weights_and_with_training():
    net, x = net_of("LSTM"), x_of()
    with torch.no_grad():
        net(x)
    assert len(kept._kept) == 1
    net(x)[0].sum().backward()
    assert kept._kept == {}
    with torch.no_grad():
        net(x)
        copied = copy.deepcopy(net)
        torch.save(net.state_dict(), io.BytesIO())
        assert torch.equal(copied(x)[0], net(x)[0])
    assert len(kept._kept) == 2
    del net, copied
    gc.collect()
    assert kept._kept == {}


def test_small_weights_are_not_looked_up(monkeypatch):
    monkeypatch.undo()
    with torch.no_grad():
        net_of("LSTM")(x_of())
    assert kept._kept == {}
