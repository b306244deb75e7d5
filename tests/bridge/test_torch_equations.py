"""Every ready cell compared with PyTorch's autograd on its equations, which are written again here."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from rnnfast.kernels.elementwise.noise import normal_forward  # noqa: E402

from rnnfast.cells import READY  # noqa: E402


class Spike(torch.autograd.Function):
    """1 above 0; its derivative is taken to be 1 / (1 + 10 |x|)^2."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return (x > 0).to(x.dtype)

    @staticmethod
    def backward(ctx, dy):
        (x,) = ctx.saved_tensors
        return dy / (1 + 10 * x.abs()) ** 2


def rnn(w, x, states, noise):
    return [torch.tanh(x @ w.Wx + states[0] @ w.Wh + w.b)]


def relu(w, x, states, noise):
    return [torch.relu(x @ w.Wx + states[0] @ w.Wh + w.b)]


def lstm(w, x, states, noise):
    h, c = states
    f, g, i, o = (x @ w.Wx + h @ w.Wh + w.b).chunk(4, 1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return [torch.sigmoid(o) * torch.tanh(c), c]


def gru(w, x, states, noise):
    (h,), size = states, w.Wh.shape[0]
    zr = torch.sigmoid(x @ w.Wx[:, : 2 * size] + h @ w.Wh[:, : 2 * size] + w.b[: 2 * size])
    z, r = zr.chunk(2, 1)
    n = torch.tanh(x @ w.Wx[:, 2 * size :] + (r * h) @ w.Wh[:, 2 * size :] + w.b[2 * size :])
    return [(1 - z) * h + z * n]


def gru_after(w, x, states, noise):
    (h,), size = states, w.Wh.shape[0]
    of_x, of_h = x @ w.Wx + w.b, h @ w.Wh
    z, r = torch.sigmoid(of_x[:, : 2 * size] + of_h[:, : 2 * size]).chunk(2, 1)
    n = torch.tanh(of_x[:, 2 * size :] + r * (of_h[:, 2 * size :] + w.bhh))
    return [(1 - z) * h + z * n]


def leaky(w, x, states, noise):
    h, v = states
    v = (1 - w.alpha) * v + w.alpha * (x @ w.Wx + h @ w.Wh + w.b) + noise
    return [torch.relu(v), v]


def lif(w, x, states, noise):
    s, v, i = states
    i = 0.9 * i + x @ w.Wx + s @ w.Wh + w.b
    v = (0.85 * v + i) * (1 - s.detach())
    return [Spike.apply(v - 1.0), v, i]


def peephole_lstm(w, x, states, noise):
    h, c = states
    f, g, i, o = (x @ w.Wx + h @ w.Wh + w.b).chunk(4, 1)
    c = torch.sigmoid(f + w.pf * c) * c + torch.sigmoid(i + w.pi * c) * torch.tanh(g)
    return [torch.sigmoid(o + w.po * c) * torch.tanh(c), c]


def coupled_lstm(w, x, states, noise):
    h, c = states
    f, g, o = (x @ w.Wx + h @ w.Wh + w.b).chunk(3, 1)
    c = torch.sigmoid(f) * c + (1 - torch.sigmoid(f)) * torch.tanh(g)
    return [torch.sigmoid(o) * torch.tanh(c), c]


def li_gru(w, x, states, noise):
    (h,) = states
    z, n = (x @ w.Wx + h @ w.Wh + w.b).chunk(2, 1)
    return [torch.sigmoid(z) * h + (1 - torch.sigmoid(z)) * torch.relu(n)]


def min_gru(w, x, states, noise):
    (h,) = states
    z, n = (x @ w.Wx + w.b).chunk(2, 1)
    return [(1 - torch.sigmoid(z)) * h + torch.sigmoid(z) * n]


def min_lstm(w, x, states, noise):
    (h,) = states
    f, i, n = (x @ w.Wx + w.b).chunk(3, 1)
    f, i = torch.sigmoid(f), torch.sigmoid(i)
    return [f / (f + i) * h + i / (f + i) * n]


def ind_rnn(w, x, states, noise):
    return [torch.relu(x @ w.Wx + w.Wh * states[0] + w.b)]


def slstm(w, x, states, noise):
    h, c, n, m = states
    f, z, i, o = (x @ w.Wx + h @ w.Wh + w.b).chunk(4, 1)
    log_f = torch.nn.functional.logsigmoid(f)
    after = torch.maximum(log_f + m, i)
    i, f = torch.exp(i - after), torch.exp(log_f + m - after)
    c, n = f * c + i * torch.tanh(z), f * n + i
    return [torch.sigmoid(o) * c / n.clamp(min=1.0), c, n, after]


EQUATIONS = {
    one.__name__: one
    for one in (
        rnn, relu, lstm, gru, gru_after, leaky, lif, peephole_lstm, coupled_lstm, li_gru, min_gru, min_lstm,
        ind_rnn, slstm,
    )
}  # fmt: skip


class Weights:
    """The parameters by name."""

    def __init__(self, names, tensors):
        self.__dict__.update(zip(names, tensors, strict=True))


@pytest.mark.parametrize("cell", READY, ids=lambda cell: cell.name)
def test_values_and_gradients_are_those_of_autograd(cell):
    rng, (N, T, D, H) = np.random.default_rng(0), (3, 9, 4, 6)
    layer = cell.layer(D, H, rng=rng, dtype=np.float64, stateful=True)
    for param in layer.params:
        param += 0.3 * rng.standard_normal(param.shape)
    xs, dhs = rng.standard_normal((N, T, D)), rng.standard_normal((N, T, H))
    before = [rng.standard_normal((N, H)) for _ in cell.states]
    arriving = {f"d{name}_next": rng.standard_normal((N, H)) for name in cell.states}
    if cell.name == "lif":
        before[0] = (before[0] > 0).astype(float)  # a neuron has spiked or not
    noise = np.zeros((N, T, H))
    if cell.random:
        normal_forward(layer.rng_state[0], cell.rows.index("noise"), 0, 0, 0.05, noise)
    layer.set_state(*before)
    hs = layer.forward(xs)
    dxs = layer.backward(dhs, **arriving)
    leaves = [torch.tensor(a, requires_grad=True) for a in (xs, *before, *layer.params)]
    x, states, params = leaves[0], leaves[1 : 1 + len(before)], leaves[1 + len(before) :]
    w, outputs = Weights(layer.parameter_names, params), []
    for t in range(T):
        states = EQUATIONS[cell.name](w, x[:, t], states, torch.tensor(noise[:, t]))
        outputs.append(states[0])
    expected = torch.stack(outputs, 1)
    loss = (expected * torch.tensor(dhs)).sum()
    loss = loss + sum((s * torch.tensor(d)).sum() for s, d in zip(states, arriving.values(), strict=True))
    loss.backward()
    found = [hs, *layer.get_state(), dxs, *layer.get_state_gradients(), *layer.grads]
    wanted = [one.detach().numpy() for one in (expected, *states)] + [
        np.zeros(leaf.shape) if leaf.grad is None else leaf.grad.numpy() for leaf in leaves
    ]
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-11, atol=1e-11)
