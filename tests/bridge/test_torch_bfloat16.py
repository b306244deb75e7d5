"""PyTorch's layers in bfloat16: served with float32 sums, near PyTorch's own results and gradients."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from rnnfast import cells  # noqa: E402
from rnnfast import torch as bridge  # noqa: E402

D, H = 5, 8
KINDS = [torch.nn.LSTM, torch.nn.GRU, torch.nn.RNN]


def distance(actual, expected):
    actual, expected = actual.detach().double(), expected.detach().double()
    return float((actual - expected).norm() / expected.norm())


def results(module, x):
    """Outputs, final states, and the gradients of inputs and parameters."""
    x = x.clone().requires_grad_()
    out, state = module(x)
    finals = list(state) if isinstance(state, tuple) else [state]
    sum((one.float() ** 2).sum() for one in (out, *finals)).backward()
    return [out, *finals, x.grad, *(param.grad for param in module.parameters())]


@pytest.mark.parametrize("made", KINDS)
@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True, "batch_first": True}])
def test_they_are_served_and_nearer_to_float64_than_pytorch_s_own(made, options):
    torch.manual_seed(0)
    module = made(D, H, **options)
    x = torch.randn(7, 6, D)
    exact = results(module.double(), x.double())
    module.zero_grad()
    rounded = module.bfloat16()
    theirs = results(rounded, x.bfloat16())
    rounded.zero_grad()
    with bridge.enable():
        ours = results(rounded, x.bfloat16())
        assert bridge.report().left == {}
    for one, other, expected in zip(ours, theirs, exact, strict=True):
        assert one.dtype is torch.bfloat16
        assert distance(one, expected) < 2e-2
        assert distance(one, expected) < 1.5 * distance(other, expected) + 2e-3


def test_products_round_and_states_do_not():
    torch.manual_seed(0)
    module, x = torch.nn.RNN(D, H).bfloat16(), torch.randn(4, 3, D).bfloat16()
    with bridge.enable():
        out = module(x)[0]
    params = [param.detach().float().numpy() for param in module.parameters()]
    layer = cells.rnn.layer(D, H, precision="bfloat16")
    for own, given in zip(layer.params, (params[0].T, params[1].T, params[2] + params[3]), strict=True):
        own[...] = given
    hs = layer.forward(np.ascontiguousarray(x.float().numpy().swapaxes(0, 1)))
    assert torch.equal(out, torch.from_numpy(hs.swapaxes(0, 1).copy()).bfloat16())


def test_packed_sequences_and_lengths_are_served():
    torch.manual_seed(0)
    module, x = torch.nn.GRU(D, H).bfloat16(), torch.randn(7, 3, D).bfloat16()
    packed = torch.nn.utils.rnn.pack_padded_sequence(x, [7, 4, 2])
    theirs = module(packed)[1]
    with bridge.enable():
        ours = module(packed)[1]
        assert bridge.report().left == {}
    assert distance(ours, theirs) < 1e-2
    layer = bridge.GRU(D, H).bfloat16()
    layer.load_state_dict(module.state_dict())
    assert torch.equal(layer(x, lengths=[7, 4, 2])[1], ours)


def test_one_dtype_is_needed():
    with bridge.enable(), pytest.raises(Exception, match=r"dtype|type"):
        torch.nn.GRU(D, H)(torch.randn(4, 3, D).bfloat16())
