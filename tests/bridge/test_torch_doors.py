"""Calls, memory, graphs and threads, through each door of the bridge."""

import threading

import pytest

torch = pytest.importorskip("torch")

from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402
from torch_helpers import CLASSES, DOORS, D, H, assert_close, gradients_of, same, tensors, through  # noqa: E402

import rnnfast.torch as bridge  # noqa: E402

every_door = pytest.mark.parametrize("door", DOORS)
every_cell = pytest.mark.parametrize("cell", CLASSES)


@every_door
@every_cell
@pytest.mark.parametrize("form", ["steps first", "batch first", "packed"])
def test_dropout_draws_pytorch_s_masks(door, cell, form):
    def program(classes, prepare):
        module = prepare(classes[cell](D, H, 3, dropout=0.4, batch_first=form == "batch first").double())
        x, found = torch.randn(5, 5, D).double(), []
        given = pack_padded_sequence(x, [5, 4, 4, 2, 1]) if form == "packed" else x
        for seed in (1, 2):
            torch.manual_seed(seed)
            found += [one.clone() for one in gradients_of(module, *module(given))]
            found.append(torch.rand(3))  # as many numbers are drawn
        return found

    assert_close(*through(door, program))


class Holder(torch.nn.Module):
    """Recurrent layers have no script of their own."""

    def __init__(self, rnn):
        super().__init__()
        self.rnn = rnn

    def forward(self, x):
        return self.rnn(x)


@pytest.mark.filterwarnings("ignore:.torch.jit", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("when", ["before", "while"])
@every_cell
def test_scripts_and_traces_are_served(cell, when):
    module, x = Holder(CLASSES[cell](D, H, 2, bidirectional=True)), torch.randn(7, 3, D)
    expected = [one.clone() for one in gradients_of(module, *module(x))]
    made = [torch.jit.script(module), torch.jit.trace(module, x)] if when == "before" else []
    with bridge.enable():
        made = made or [torch.jit.script(module), torch.jit.trace(module, x)]
        for one in made:
            for _ in range(3):  # the second call is optimized
                assert_close(gradients_of(one, *one(x)), expected, 1e-5)
        assert bridge.report().served


@pytest.mark.filterwarnings("ignore:.torch.jit")
def test_restored_models_can_be_scripted():
    module, x = Holder(torch.nn.GRU(D, H)), torch.randn(7, 3, D)
    expected = module(x)[0]
    bridge.accelerate(module)
    bridge.restore(module)
    assert torch.equal(torch.jit.script(module)(x)[0], expected)


@every_door
@every_cell
def test_no_sequences_are_legal_and_no_steps_are_pytorch_s_error(door, cell):
    errors = []

    def program(classes, prepare):
        module, x = prepare(classes[cell](D, H, 2, dtype=torch.float64)), torch.randn(7, 3, D).double()
        found = gradients_of(module, *module(x)) + gradients_of(module, *module(x[:, :0]))
        with pytest.raises(RuntimeError) as error:
            module(x[:0])
        errors.append(str(error.value))
        return found

    assert_close(*through(door, program))
    assert errors[0] == errors[1]


# Bits.


@every_door
@every_cell
@pytest.mark.parametrize("bidirectional", [False, True])
def test_bits_depend_neither_on_the_batch_nor_on_packing_nor_on_cuts(door, cell, bidirectional):
    def program(classes, prepare):
        module = prepare(classes[cell](D, 33, 2, bidirectional=bidirectional))
        x, lengths = torch.randn(9, 17, D), torch.arange(17) % 9 + 1
        whole = module(x)[0]
        if classes is CLASSES and prepare is same and not bridge.is_enabled():
            return [whole]
        assert torch.equal(module(x[:, 3:8])[0], whole[:, 3:8])
        assert torch.equal(module(x[:, 5])[0], whole[:, 5])
        packed = module(pack_padded_sequence(x, lengths, enforce_sorted=False))[0]
        out = pad_packed_sequence(packed)[0]
        for n in (0, 4, 16):
            assert torch.equal(module(x[: lengths[n], n])[0], out[: lengths[n], n])
        if door == "classes":
            assert torch.equal(module(x, lengths=lengths)[0], out)
        if not bidirectional:
            first, state = module(x[:4])
            assert torch.equal(torch.cat([first, module(x[4:], state)[0]]), whole)
        return [whole]

    assert_close(*through(door, program), 1e-5)


# Memory.


@every_door
@every_cell
def test_outputs_may_be_written(door, cell):
    """Also those of an LSTM, whose gradients PyTorch then refuses."""
    in_place = iter((False, True))

    def program(classes, prepare):
        module, x = prepare(classes[cell](D, H, dtype=torch.float64)), torch.randn(7, 3, D).double()
        out = module(x)[0]
        return gradients_of(module, out.mul_(2) if next(in_place) else out * 2)

    assert_close(*through(door, program))


@every_door
@every_cell
@pytest.mark.parametrize("batch_first", [False, True])
def test_tensors_of_any_strides(door, cell, batch_first):
    def program(classes, prepare):
        module = prepare(classes[cell](D, H, 2, batch_first=batch_first, dtype=torch.float64))
        count = 2 if cell == "lstm" else 1
        with torch.no_grad():
            module.weight_hh_l0.data = module.weight_hh_l0.t().contiguous().t()
            module.bias_ih_l0.data = torch.randn(len(module.bias_ih_l0), 2).double()[:, 1]
            module.bias_hh_l1.data = torch.ones(1).double().expand(len(module.bias_hh_l1))
        whole = torch.randn(6, 6, 2 * D).double()
        found = []
        for x in (
            whole.transpose(0, 1)[..., :D],
            whole[::2, 1:, ::2],
            whole.permute(2, 0, 1)[..., :D],
            whole[:, :1, :D].expand(-1, 6, -1),
            whole[..., D:].flip(0),
        ):
            x = x.requires_grad_() if x.is_leaf else x
            batch = x.shape[0 if batch_first else 1]
            states = tuple(torch.randn(H, batch, 2).double().permute(2, 1, 0) for _ in range(count))
            out, final = module(x, states if cell == "lstm" else states[0])
            module.zero_grad()
            (out.transpose(0, 2).sum(0).sum() + sum(one.sum() for one in tensors(final))).backward()
            found += [out, *tensors(final), *(param.grad.clone() for param in module.parameters())]
        return found

    assert_close(*through(door, program))


# Graphs and threads.


@every_door
@every_cell
@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpoints_and_two_backwards_of_one_graph(door, cell, reentrant):
    def program(classes, prepare):
        module = prepare(classes[cell](D, D, 2, dropout=0.3, dtype=torch.float64))
        x = torch.randn(7, 3, D).double().requires_grad_()
        out = checkpoint(lambda one: module(one)[0], x, use_reentrant=reentrant)
        loss = module(out)[0].square().sum()
        loss.backward(retain_graph=not reentrant)
        if not reentrant:
            loss.backward()
        return [x.grad, *(param.grad for param in module.parameters())]

    assert_close(*through(door, program))


@every_door
@every_cell
def test_gradients_of_gradients(door, cell):
    def program(classes, prepare):
        module = prepare(classes[cell](D, H, 2, bidirectional=True, dtype=torch.float64))
        x = torch.randn(7, 3, D).double().requires_grad_()
        packed = pack_padded_sequence(x, [2, 7, 4], enforce_sorted=False)
        out = module(x)[0].square().sum() + module(packed)[0].data.square().sum()
        return gradients_of(module, torch.autograd.grad(out, x, create_graph=True)[0])

    assert_close(*through(door, program))


@every_door
def test_threads_share_a_model(door):
    def program(classes, prepare):
        module, found = prepare(classes["lstm"](D, H, 2, dtype=torch.float64)), {}
        params = list(module.parameters())

        def work(seed):
            x = torch.randn(7, 3 + seed, D, generator=torch.Generator().manual_seed(seed)).double()
            for _ in range(10):
                found[seed] = torch.autograd.grad(module(x)[0].square().sum(), params)

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return [one for seed in range(4) for one in found[seed]]

    assert_close(*through(door, program))
