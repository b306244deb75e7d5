"""Weights that stay packed from call to call in PyTorch: no change of their bits is missed."""

import contextlib
import copy
import gc
import io
import os
import threading

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from rnnfast.kernels.elementwise.fingerprint import BLOCK, fingerprint  # noqa: E402

import rnnfast.torch  # noqa: E402
from rnnfast.layers.frozen import Packed  # noqa: E402
from rnnfast.torch import windows  # noqa: E402

KINDS = ("RNN", "LSTM", "GRU")
CHANGES = int(os.environ.get("RNNFAST_CHANGES", "10000"))


@pytest.fixture(autouse=True)
def all_sizes(monkeypatch):
    monkeypatch.setattr(windows, "LEAST_SIZE", 0)
    monkeypatch.setattr(windows, "_packed", {})


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
    windows._packed.clear()
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


@pytest.mark.parametrize("door", ["class", "enabled", "accelerated"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", KINDS)
def test_signs_changed_together_are_seen(kind, dtype, door):
    net = net_of(kind, dtype=dtype)
    if door != "class":
        net = getattr(torch.nn, kind)(5, 40, batch_first=True, dtype=dtype)
    if door == "accelerated":
        rnnfast.torch.accelerate(net)
    x = x_of().to(dtype)
    with torch.no_grad(), rnnfast.torch.enable() if door == "enabled" else contextlib.nullcontext():
        for weight in (net.weight_ih_l0, net.weight_hh_l0):
            for part in (weight, weight[:2], weight[:, 3], weight.view(-1)[:65:64], weight.view(-1)[:33:32]):
                before = net(x)[0], net(x)[0]
                part.neg_()
                actual = net(x)[0]
                assert not torch.equal(actual, before[1])
                assert torch.equal(actual, afresh(net, x))


def signs_of_all(weights, words, rng):
    np.negative(weights, out=weights)


def signs_of_rows(weights, words, rng):
    chosen = rng.random(len(weights)) < rng.random()
    weights[chosen] = -weights[chosen]


def signs_of_columns(weights, words, rng):
    signs_of_rows(weights.T, words, rng)


def signs_of_words(weights, words, rng):
    words[rng.random(words.size) < rng.random()] ^= np.uint32(1 << 31)


def signs_of_words_64_apart(weights, words, rng):
    words[(rng.integers(words.size) + np.array([0, 64])) % words.size] ^= np.uint32(1 << 31)


def one_bit(weights, words, rng):
    words[rng.integers(words.size)] ^= np.uint32(1) << np.uint32(rng.integers(32))


def one_bit_of_two_words(weights, words, rng):
    words[rng.integers(words.size, size=2)] ^= np.uint32(1) << np.uint32(rng.integers(32))


def words_exchanged(weights, words, rng):
    some, others = rng.integers(len(words), size=2)
    words[[some, others]] = words[[others, some]]


def rows_exchanged(weights, words, rng):
    words_exchanged(weights, weights, rng)


def columns_exchanged(weights, words, rng):
    words_exchanged(weights, weights.T, rng)


def words_moved_on(weights, words, rng):
    words[:] = np.roll(words, rng.integers(70))


def zeros_and_their_signs(weights, words, rng):
    rows, cols = (rng.integers(size, size=2) for size in weights.shape)
    weights[rows, cols] = np.where(weights[rows, cols] == 0, -weights[rows, cols], 0)


def sums(weights, words, rng):
    weights[rng.random(weights.shape) < 0.1] += rng.standard_normal()


WAYS = (
    signs_of_all, signs_of_rows, signs_of_columns, signs_of_words, signs_of_words_64_apart, one_bit,
    one_bit_of_two_words, words_exchanged, rows_exchanged, columns_exchanged, words_moved_on,
    zeros_and_their_signs, sums,
)  # fmt: skip


@pytest.mark.parametrize("size", [1, 2, 3, 2 * BLOCK - 1, 2 * BLOCK, 2 * BLOCK + 1, 5 * BLOCK + 3])
def test_fingerprints_are_sums_of_products_of_keyed_halves(size):
    rng, pairs = np.random.default_rng(size), -(-size // 2)
    words = rng.integers(1 << 32, size=size, dtype=np.uint32)
    keys = rng.integers(1 << 64, size=(2, BLOCK), dtype=np.uint64)
    actual = np.full((-(-pairs // BLOCK), 2), 1 << 63, np.uint64)
    fingerprint(words, keys, actual)
    padded, expected = [*words.tolist(), 0], np.zeros_like(actual).tolist()
    for i in range(pairs):
        for row in range(2):
            keyed = (padded[2 * i] + (padded[2 * i + 1] << 32) + int(keys[row, i % BLOCK])) % 2**64
            expected[i // BLOCK][row] += (keyed >> 32) * (keyed % 2**32)
    assert actual.tolist() == [[one % 2**64 for one in both] for both in expected]


def test_no_change_goes_unseen():
    """Arrays of odd sizes, with tails of every length, are changed in every way, many times in turn."""
    rng, done, unseen = np.random.default_rng(0), 0, dict.fromkeys((way.__name__ for way in WAYS), 0)
    while done < CHANGES:
        rows, cols = rng.integers(1, 40, size=2)
        weights = rng.standard_normal((rows, cols)).astype(rng.choice([np.float32, np.float64]))
        words, still, memory = (
            weights.reshape(-1).view(np.uint32),
            np.ones((1, 1), np.float32),
            windows.PackedWeights(()),
        )
        memory.check(weights, still)
        for way in rng.permutation(WAYS):
            before, freeze = words.copy(), memory.freeze
            with np.errstate(all="ignore"):  # changed bits may be any number
                way(weights, words, rng)
            memory.check(weights, still)
            if not np.array_equal(before, words):
                done += 1
                unseen[way.__name__] += memory.freeze is freeze
            else:
                assert memory.freeze is freeze
    print(f"{done} changes, unseen: {unseen}")
    assert not any(unseen.values())


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
    assert len(windows._packed) == 1
    net(x)[0].sum().backward()
    assert windows._packed == {}
    with torch.no_grad():
        net(x)
        copied = copy.deepcopy(net)
        torch.save(net.state_dict(), io.BytesIO())
        assert torch.equal(copied(x)[0], net(x)[0])
    assert len(windows._packed) == 2
    del net, copied
    gc.collect()
    assert windows._packed == {}


def test_small_weights_are_not_looked_up(monkeypatch):
    monkeypatch.undo()
    with torch.no_grad():
        net_of("LSTM")(x_of())
    assert windows._packed == {}
