"""Cells of rnnfast as modules of PyTorch, and teams of PyTorch's threads."""

import copy
import pickle

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from rnnfast.kernels.team.team import MEMBERS, WAITED, new_team  # noqa: E402

import rnnfast  # noqa: E402
import rnnfast.torch as bridge  # noqa: E402
from rnnfast import cells  # noqa: E402
from rnnfast.engine import load  # noqa: E402
from rnnfast.engine import threads as _threads  # noqa: E402
from rnnfast.layers import plans  # noqa: E402
from rnnfast.torch import openmp  # noqa: E402

D, H = 3, 5


@rnnfast.cell(states=("h", "v"))
def pushed(a, h, v, *, alpha=rnnfast.unit(0.3), push=rnnfast.given(), pace=rnnfast.given()):
    v = v + alpha * (a - v) * pace + push
    return cells.tanh(v), v


@pytest.mark.parametrize("cell", [cells.leaky, cells.peephole_lstm, cells.min_gru, cells.gru, cells.ind_rnn])
def test_gradients_are_those_of_central_differences(cell):
    torch.manual_seed(0)  # other seeds put units where relu has no derivative
    module = bridge.Recurrent(cell, D, H, 2, dtype=torch.float64).eval()
    x = torch.randn(4, 2, D, dtype=torch.float64, requires_grad=True)
    states = [torch.randn(2, 2, H, dtype=torch.float64, requires_grad=True) for _ in cell.states]

    def of(x, *states_and_params):
        states, params = states_and_params[: len(states_)], states_and_params[len(states_) :]
        out, final = torch.func.functional_call(module, dict(zip(names, params, strict=True)), (x, states))
        return out, *final

    states_ = states
    names = [name for name, _ in module.named_parameters()]
    leaves = [param.detach().clone().requires_grad_() for param in module.parameters()]
    assert torch.autograd.gradcheck(of, (x, *states, *leaves))
    (dx,) = torch.autograd.grad(of(x, *states, *leaves)[0].sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="cannot be differentiated again"):
        dx.square().sum().backward()


def test_a_module_computes_what_the_layer_does():
    module = bridge.Recurrent(cells.lstm, D, H, batch_first=True)
    layer = rnnfast.TimeLSTM(*(param.detach().numpy() for param in module.parameters()))
    x = torch.randn(2, 7, D)
    out, (h, c) = module(x, lengths=[7, 4])
    assert np.array_equal(out.detach().numpy(), layer.forward(x.numpy(), lengths=[7, 4]))
    assert np.array_equal(h[0].detach().numpy(), layer.h)
    assert c.shape == (1, 2, H)
    assert list(module.state_dict()) == ["Wx_l0", "Wh_l0", "b_l0"]
    resets = torch.tensor([[False] * 3 + [True] + [False] * 3] * 2)
    again = module(x, resets=resets)[0]
    assert torch.equal(again[:, 3:], module(x[:, 3:])[0])


@pytest.mark.parametrize("batch_first", [True, False])
def test_given_arrays_get_gradients(batch_first):
    module = bridge.Recurrent(pushed, D, H, batch_first=batch_first, dtype=torch.float64)
    shape = (2, 4) if batch_first else (4, 2)
    x = torch.randn(*shape, D, dtype=torch.float64)
    push = torch.randn(*shape, H, dtype=torch.float64, requires_grad=True)
    pace = torch.randn(*shape, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda push, pace: module(x, push=push, pace=pace)[0], (push, pace))
    with pytest.raises(TypeError, match="the cell needs the argument pace, a Tensor"):
        module(x, push=push)
    with pytest.raises(ValueError, match="pace must have the shape"):
        module(x, push=push, pace=torch.ones(3, 3, dtype=torch.float64))
    with pytest.raises(TypeError, match="unknown argument pull"):
        module(x, pull=push)


def test_noise_follows_the_seed_of_pytorch_and_ends_with_eval():
    module = bridge.Recurrent(cells.leaky, D, H)
    x = torch.randn(7, 2, D)
    draws = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        draws.append(module(x)[0])
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    module.eval()
    assert torch.equal(module(x)[0], module(x)[0])


def test_modules_are_copied_trained_and_kept():
    torch.manual_seed(0)
    module = bridge.Recurrent(cells.lif, D, H, 2, dropout=0.2)
    optimizer = torch.optim.Adam(module.parameters(), 1e-2)
    x = torch.randn(9, 4, D)
    first = module(x)[0].square().mean()
    for _ in range(20):
        loss = (module(x)[0] - 1).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert torch.isfinite(first)
    module.eval()
    name = next(iter(module.constants))
    module.constants = {name: 0.45}
    assert module.constants[name] == 0.45
    with pytest.raises(TypeError):
        module.constants[name] = 0.5
    loaded = bridge.Recurrent(cells.lif, D, H, 2)
    loaded.load_state_dict(module.state_dict())
    assert loaded.constants == module.constants
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(twin(x)[0], module(x)[0])
        assert dict(twin.constants) == dict(module.constants)
    assert "lif, 3, 5, num_layers=2" in repr(module)


def test_wrong_arguments_are_refused_in_one_sentence():
    with pytest.raises(TypeError, match=r"^rnnfast\.torch\.Recurrent: .*Cell"):
        bridge.Recurrent("lstm", D, H)
    module = bridge.Recurrent(cells.lstm, D, H)
    with pytest.raises(ValueError, match=r"input must have the shape \(T, N, 3\), got \(4, 2, 4\)"):
        module(torch.zeros(4, 2, D + 1))
    with pytest.raises(
        TypeError, match=r"states must be a tuple \(h, c\), each \(num_layers, N, H\); got list of 1\."
    ):
        module(torch.zeros(4, 2, D), [torch.zeros(1, 2, H)])
    with pytest.raises(TypeError, match="input must be a Tensor, got ndarray"):
        module(np.zeros((4, 2, D), np.float32))
    for wrong in (
        torch.zeros(4, 2, D).double(),
        torch.zeros(4, 2, D).bfloat16(),
        torch.zeros(4, 2, D).to("meta"),
    ):
        with pytest.raises(
            TypeError, match="input and the parameters must be float32 or float64 of one kind"
        ):
            module(wrong)
    with pytest.raises(TypeError, match="dtype must be torch"):
        bridge.Recurrent(cells.lstm, D, H, dtype=torch.bfloat16)
    with pytest.raises(ValueError, match=r"Recurrent\.forward: h must have the shape \(1, 2, 5\)"):
        module(torch.zeros(4, 2, D), [torch.zeros(3, 2, H)] * 2)


# Threads.


@pytest.fixture
def teams(monkeypatch):
    """Any window is worth a team, on any machine; which ones ran on PyTorch's threads."""
    before, seen, original = rnnfast.get_num_threads(), [], openmp.run
    monkeypatch.setattr(load, "allowed", lambda: 64)
    monkeypatch.setattr(_threads, "LEAST_OPERATIONS", 1.0)
    monkeypatch.setattr(plans, "LEAST_STEP_OPERATIONS", 0.0)

    def noted(kernel, team, arguments):
        seen.append(team.item(MEMBERS))
        return original(kernel, team, arguments)

    if _threads._borrowed is None:
        pytest.skip("this system's PyTorch has no OpenMP library that lends threads")
    monkeypatch.setattr(_threads, "_borrowed", noted)
    rnnfast.set_num_threads(4)
    threads = torch.get_num_threads()
    yield seen
    torch.set_num_threads(threads)
    rnnfast.set_num_threads(before)


@pytest.mark.parametrize("batch", [2, 24])
def test_teams_of_pytorch_s_threads_give_the_same_bits(batch, teams):
    torch.manual_seed(0)
    module, x = torch.nn.LSTM(16, 64), torch.randn(20, batch, 16)
    found = {}
    for threads in (1, 2, 4):
        torch.set_num_threads(threads)
        with bridge.enable():
            for _ in range(2):  # the first call on threads runs alone
                module.zero_grad()
                teams.clear()
                out = module(x)[0]
                out.square().sum().backward()
        found[threads] = [out.detach().clone(), *(param.grad.clone() for param in module.parameters())]
        assert set(teams) == ({threads} if threads > 1 else set())
    for threads in (2, 4):
        for one, other in zip(found[threads], found[1], strict=True):
            assert torch.equal(one, other)


def test_an_error_in_a_team_is_raised(teams):
    def kernel(team, member, array):
        if member:
            raise ZeroDivisionError("on purpose")

    with pytest.raises(ZeroDivisionError, match="on purpose"):
        openmp.run(kernel, new_team(2), [np.zeros(1)])
    team = new_team(2)
    assert openmp.run(lambda team, member, array: member, team, [np.zeros(1)]) == 0
    assert team.item(WAITED) > 0  # for the beginning and the end of the region


def test_calls_are_counted_by_the_name_of_the_cell():
    with bridge.enable():
        bridge.Recurrent(cells.leaky, D, H, 2)(torch.zeros(3, 2, D))
        assert bridge.report().served == {"leaky": 1}
