"""The specification: naive float64 NumPy with the public names."""

import math
from statistics import NormalDist
from types import SimpleNamespace

import numpy as np


def central_differences(loss, array, step=1e-5):
    """The gradient of `loss()` by each element of `array`, which is changed and restored."""
    gradient = np.zeros_like(array)
    for index in np.ndindex(array.shape):
        kept = array[index]
        array[index] = kept + step
        above = loss()
        array[index] = kept - step
        below = loss()
        array[index] = kept
        gradient[index] = (above - below) / (2 * step)
    return gradient


def bfloat16(x):
    """The nearest number with 8 significant bits, ties to even."""
    mantissa, exponent = np.frexp(np.asarray(x, np.float64))
    return np.ldexp(np.rint(mantissa * 256), exponent - 8)


class Rounded(np.ndarray):
    """An array whose matrix products, inner and outer, round both operands to bfloat16, as do those of all
    arrays computed from it."""

    def __array_ufunc__(self, ufunc, method, *inputs, **options):
        plain = [np.asarray(x) for x in inputs]
        if ufunc is np.matmul:
            plain = [bfloat16(x) for x in plain]
        options = {name: tuple(map(np.asarray, x)) if name == "out" else x for name, x in options.items()}
        return _rounding(getattr(ufunc, method)(*plain, **options))

    def __array_function__(self, func, types, args, kwargs):
        if func is np.outer:
            args = tuple(bfloat16(x).view(Rounded) for x in args)
        return _rounding(super().__array_function__(func, types, args, kwargs))


def _rounding(made):
    """A result, whose arrays become `Rounded`."""
    if isinstance(made, list | tuple):
        return type(made)(_rounding(one) for one in made)
    return made.view(Rounded) if isinstance(made, np.ndarray) else made


class SGD:
    """param -= lr * grad."""

    def __init__(self, lr=0.01):
        self.lr = lr

    def update(self, params, grads):
        for param, grad in zip(params, grads, strict=True):
            param -= self.lr * grad


class Momentum:
    """v = momentum * v - lr * grad; param += v."""

    def __init__(self, lr=0.01, momentum=0.9):
        self.lr, self.momentum, self.v = lr, momentum, None

    def update(self, params, grads):
        if self.v is None:
            self.v = [np.zeros_like(param) for param in params]
        for i, (param, grad) in enumerate(zip(params, grads, strict=True)):
            self.v[i] = self.momentum * self.v[i] - self.lr * grad
            param += self.v[i]


class Nesterov:
    """param += momentum**2 * v - (1 + momentum) * lr * grad; only then v = momentum * v - lr * grad."""

    def __init__(self, lr=0.01, momentum=0.9):
        self.lr, self.momentum, self.v = lr, momentum, None

    def update(self, params, grads):
        if self.v is None:
            self.v = [np.zeros_like(param) for param in params]
        for i, (param, grad) in enumerate(zip(params, grads, strict=True)):
            param += self.momentum**2 * self.v[i] - (1 + self.momentum) * self.lr * grad
            self.v[i] = self.momentum * self.v[i] - self.lr * grad


class AdaGrad:
    """h += grad**2; param -= lr * grad / (sqrt(h) + eps)."""

    def __init__(self, lr=0.01, eps=1e-7):
        self.lr, self.eps, self.h = lr, eps, None

    def update(self, params, grads):
        if self.h is None:
            self.h = [np.zeros_like(param) for param in params]
        for i, (param, grad) in enumerate(zip(params, grads, strict=True)):
            self.h[i] = self.h[i] + grad**2
            param -= self.lr * grad / (np.sqrt(self.h[i]) + self.eps)


class RMSprop:
    """h = decay_rate * h + (1 - decay_rate) * grad**2; param -= lr * grad / (sqrt(h) + eps)."""

    def __init__(self, lr=0.01, decay_rate=0.99, eps=1e-7):
        self.lr, self.decay_rate, self.eps, self.h = lr, decay_rate, eps, None

    def update(self, params, grads):
        if self.h is None:
            self.h = [np.zeros_like(param) for param in params]
        for i, (param, grad) in enumerate(zip(params, grads, strict=True)):
            self.h[i] = self.decay_rate * self.h[i] + (1 - self.decay_rate) * grad**2
            param -= self.lr * grad / (np.sqrt(self.h[i]) + self.eps)


class Adam:
    """Running means m and v of grad and grad**2; lr corrected for their start at zero; eps beside sqrt(v)."""

    def __init__(self, lr=0.001, beta1=0.9, beta2=0.999, eps=1e-7):
        self.lr, self.beta1, self.beta2, self.eps = lr, beta1, beta2, eps
        self.t, self.m, self.v = 0, None, None

    def update(self, params, grads):
        if self.m is None:
            self.m = [np.zeros_like(param) for param in params]
            self.v = [np.zeros_like(param) for param in params]
        self.t += 1
        for i, (param, grad) in enumerate(zip(params, grads, strict=True)):
            self.m[i] = self.beta1 * self.m[i] + (1 - self.beta1) * grad
            self.v[i] = self.beta2 * self.v[i] + (1 - self.beta2) * grad**2
            self._change(param, self.m[i], self.v[i])

    def _change(self, param, m, v):
        lr_t = self.lr * np.sqrt(1 - self.beta2**self.t) / (1 - self.beta1**self.t)
        param -= lr_t * m / (np.sqrt(v) + self.eps)


class AdamW(Adam):
    """Adam with eps beside the corrected root, and a decay of the parameter itself."""

    def __init__(self, lr=0.001, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.01):
        super().__init__(lr, beta1, beta2, eps)
        self.weight_decay = weight_decay

    def _change(self, param, m, v):
        m_hat = m / (1 - self.beta1**self.t)
        v_hat = v / (1 - self.beta2**self.t)
        param -= self.lr * (m_hat / (np.sqrt(v_hat) + self.eps) + self.weight_decay * param)


def global_norm(grads):
    """sqrt of the sum of all squares."""
    return np.sqrt(sum((grad.astype(np.float64) ** 2).sum() for grad in grads))


def clip_by_norm(grads, max_norm):
    """Scale by max_norm / (norm + 1e-6) where that is below 1; leave gradients alone that are not finite."""
    norm = global_norm(grads)
    rate = max_norm / (norm + 1e-6)
    if np.isfinite(norm) and rate < 1:
        for grad in grads:
            grad *= rate
    return norm


def clip_by_value(grads, limit):
    """Clamp to [-limit, limit]; NaN stays."""
    for grad in grads:
        grad[grad > limit] = limit
        grad[grad < -limit] = -limit


class TimeEmbedding:
    """out[n, t] = W[xs[n, t]]."""

    def __init__(self, W):
        self.params, self.grads = [W], [np.zeros_like(W)]

    def forward(self, xs):
        self.xs = xs
        return self.params[0][xs]

    def backward(self, dhs):
        self.grads[0][...] = 0
        for index in np.ndindex(self.xs.shape):
            self.grads[0][self.xs[index]] += dhs[index]


class TimeContextSum:
    """out[n, t] = the sum of W[x] over the last `window` tokens of row n up to t; fewer at the beginning."""

    def __init__(self, W, window):
        self.params, self.grads, self.window = [W], [np.zeros_like(W)], window
        self.past = None

    def reset_state(self):
        self.past = None

    def forward(self, xs):
        W = self.params[0]
        N, T = xs.shape
        self.rows = [list(xs[n]) if self.past is None else self.past[n] + list(xs[n]) for n in range(N)]
        self.past = self.rows
        out = np.zeros((N, T, W.shape[1]))
        for n, row in enumerate(self.rows):
            for t in range(T):
                for token in self._context(row, T, t):
                    out[n, t] += W[token]
        return out

    def _context(self, row, T, t):
        end = len(row) - T + t + 1
        return row[max(0, end - self.window) : end]

    def backward(self, dhs):
        self.grads[0][...] = 0
        for n, row in enumerate(self.rows):
            for t in range(dhs.shape[1]):
                for token in self._context(row, dhs.shape[1], t):
                    self.grads[0][token] += dhs[n, t]


def _mix64(z):
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
    return z ^ z >> 31


def _mix32(x):
    x = (x ^ x >> 16) * 0x7FEB352D % 2**32
    x = (x ^ x >> 15) * 0x846CA68B % 2**32
    return x ^ x >> 16


def random_words(count, seed, *counters):
    """Hashes of the places 0 .. count - 1 under keys of whole numbers, written with Python's integers."""
    golden = 0x9E3779B97F4A7C15
    state = _mix64((seed + golden) % 2**64)
    for counter in counters:
        state = _mix64((state + counter * golden) % 2**64)
    second, first = divmod(state, 2**32)
    return np.array([_mix32(_mix32(i ^ first) ^ second) for i in range(count)], dtype=np.int64)


class TimeDropout:
    """xs * mask; the mask is a hash of (seed, counter, position)."""

    def __init__(self, dropout_ratio, seed, counter=0):
        self.dropout_ratio, self.seed, self.counter = dropout_ratio, seed, counter

    def forward(self, xs):
        words = random_words(xs.size, self.seed, self.counter)
        kept = words.reshape(xs.shape) >= round(self.dropout_ratio * 2**32)
        self.mask = kept / (1 - self.dropout_ratio)
        self.counter += 1
        return xs * self.mask

    def backward(self, dout):
        return dout * self.mask


def _window_words(seed, stream, first_step, shape):
    N, T, H = shape
    steps = [random_words(N * H, seed, stream, first_step + t).reshape(N, H) for t in range(T)]
    return np.stack(steps, axis=1)


def normal(seed, stream, first_step, scale, shape):
    """scale * z; words below 2**31 are right of 0, the others left."""
    words = _window_words(seed, stream, first_step, shape)
    below = (np.where(words < 2**31, words + 2**31, words - 2**31) + 0.5) / 2**32
    return scale * np.vectorize(NormalDist().inv_cdf)(below)


def bernoulli(seed, stream, first_step, p, shape):
    """1 with probability p."""
    return np.where(_window_words(seed, stream, first_step, shape) < round(p * 2**32), 1.0, 0.0)


def gemm(a, b, start=None, add_to=None):
    """C = add_to + (start + A B); what is None counts as zero."""
    c = np.zeros((a.shape[0], b.shape[1]))
    for i in range(c.shape[0]):
        for j in range(c.shape[1]):
            c[i, j] = sum(a[i, k] * b[k, j] for k in range(a.shape[1]))
    for term in (start, add_to):
        c = c if term is None else c + term
    return c


class RNN:
    """h = act(h_prev Wh + x Wx + b), act = tanh or relu."""

    def __init__(self, Wx, Wh, b, activation="tanh"):
        self.params, self.grads = [Wx, Wh, b], [np.zeros_like(p) for p in (Wx, Wh, b)]
        self.activation = activation

    def forward(self, x, h_prev):
        Wx, Wh, b = self.params
        a = h_prev @ Wh + x @ Wx + b
        h = np.tanh(a) if self.activation == "tanh" else np.maximum(a, 0)
        self.cache = x, h_prev, h
        return h

    def backward(self, dh):
        Wx, Wh, _ = self.params
        x, h_prev, h = self.cache
        dt = dh * (1 - h**2) if self.activation == "tanh" else dh * (h > 0)
        for grad, value in zip(self.grads, (x.T @ dt, h_prev.T @ dt, dt.sum(axis=0)), strict=True):
            grad[...] = value
        return dt @ Wx.T, dt @ Wh.T


def sigmoid(a):
    """1 / (1 + exp(-a)), without overflow."""
    e = np.exp(-np.abs(a))
    return np.where(a < 0, e, 1) / (1 + e)


class LSTM:
    """c = f c_prev + g i, h = o tanh(c); f, g, i, o are blocks of x Wx + h_prev Wh + b in this order."""

    def __init__(self, Wx, Wh, b):
        self.params, self.grads = [Wx, Wh, b], [np.zeros_like(p) for p in (Wx, Wh, b)]

    def forward(self, x, h_prev, c_prev):
        Wx, Wh, b = self.params
        f, g, i, o = np.split(x @ Wx + h_prev @ Wh + b, 4, axis=1)
        f, g, i, o = sigmoid(f), np.tanh(g), sigmoid(i), sigmoid(o)
        c = f * c_prev + g * i
        self.cache = x, h_prev, c_prev, f, g, i, o, c
        return o * np.tanh(c), c

    def backward(self, dh, dc):
        Wx, Wh, _ = self.params
        x, h_prev, c_prev, f, g, i, o, c = self.cache
        dc = dc + dh * o * (1 - np.tanh(c) ** 2)
        df, dg, di, do = dc * c_prev, dc * i, dc * g, dh * np.tanh(c)
        da = np.hstack([df * f * (1 - f), dg * (1 - g**2), di * i * (1 - i), do * o * (1 - o)])
        for grad, value in zip(self.grads, (x.T @ da, h_prev.T @ da, da.sum(axis=0)), strict=True):
            grad[...] = value
        return da @ Wx.T, da @ Wh.T, dc * f


class GRU:
    """h = (1 - z) h_prev + z hat, hat = tanh(x Wxh + bh + a), a = (r h_prev) Whh or r (h_prev Whh + bhh)."""

    def __init__(self, Wx, Wh, b, bhh=None, *, reset="before"):
        self.params = [Wx, Wh, b] if reset == "before" else [Wx, Wh, b, bhh]
        self.grads, self.reset = [np.zeros_like(p) for p in self.params], reset

    def forward(self, x, h_prev):
        Wx, Wh, b = self.params[:3]
        H = h_prev.shape[1]
        z, r = np.split(sigmoid(x @ Wx[:, : 2 * H] + h_prev @ Wh[:, : 2 * H] + b[: 2 * H]), 2, axis=1)
        a = x @ Wx[:, 2 * H :] + b[2 * H :]
        if self.reset == "before":
            u = None
            a = a + (r * h_prev) @ Wh[:, 2 * H :]
        else:
            u = h_prev @ Wh[:, 2 * H :] + self.params[3]
            a = a + r * u
        hat = np.tanh(a)
        self.cache = x, h_prev, z, r, u, hat
        return (1 - z) * h_prev + z * hat

    def backward(self, dh):
        Wx, Wh = self.params[:2]
        x, h_prev, z, r, u, hat = self.cache
        H = h_prev.shape[1]
        dhat = dh * z * (1 - hat**2)
        dz = dh * (hat - h_prev) * z * (1 - z)
        dh_prev = dh * (1 - z)
        if self.reset == "before":
            d = dhat @ Wh[:, 2 * H :].T
            dr, dh_prev = d * h_prev * r * (1 - r), dh_prev + d * r
            dWhh = (r * h_prev).T @ dhat
        else:
            dr = dhat * u * r * (1 - r)
            dh_prev = dh_prev + (dhat * r) @ Wh[:, 2 * H :].T
            dWhh = h_prev.T @ (dhat * r)
            self.grads[3][...] = (dhat * r).sum(axis=0)
        da, dzr = np.hstack([dz, dr, dhat]), np.hstack([dz, dr])
        self.grads[0][...] = x.T @ da
        self.grads[1][...] = np.hstack([h_prev.T @ dzr, dWhh])
        self.grads[2][...] = da.sum(axis=0)
        return da @ Wx.T, dh_prev + dzr @ Wh[:, : 2 * H].T


class _Time:
    """A cell at each step of a window; the gradients of the steps add up.

    Sequence n ends after lengths[n] steps: its outputs are zero from there on, its state stays as it is. Its
    state is zero before step t where reset[n, t].
    """

    names = ("h",)

    def __init__(self, make_cell, params, stateful):
        self.make_cell, self.params, self.stateful = make_cell, params, stateful
        self.grads = [np.zeros_like(p) for p in params]
        self.state = self.dstate = None

    def set_state(self, *state):
        self.state = None if state[0] is None else list(state)

    def reset_state(self):
        self.state = None

    def forward(self, xs, *, lengths=None, reset=None):
        N, T, _ = xs.shape
        H = self.params[1].shape[0]
        if not self.stateful or self.state is None:
            self.state = [np.zeros((N, H)) for _ in self.names]
        self.lengths = np.full(N, T) if lengths is None else np.asarray(lengths)
        self.reset = np.zeros((N, T), bool) if reset is None else reset
        self.steps = [self.make_cell() for _ in range(T)]
        hs = np.zeros((N, T, H))
        for t, step in enumerate(self.steps):
            alive, anew = (t < self.lengths)[:, None], self.reset[:, t, None]
            before = [np.where(anew, 0, array) for array in self.state]
            after = step.forward(np.where(alive, xs[:, t], 0), *before)
            after = after if isinstance(after, tuple) else (after,)
            self.state = [np.where(alive, new, old) for new, old in zip(after, self.state, strict=True)]
            hs[:, t] = np.where(alive, after[0], 0)
        self.xs_shape = xs.shape
        return hs

    def backward(self, dhs, *, dh_next=None, dc_next=None):
        dxs = np.zeros(self.xs_shape)
        shape = dhs.shape[0], dhs.shape[2]
        dstate = [np.zeros(shape) if d is None else d for d in (dh_next, dc_next)[: len(self.names)]]
        for grad in self.grads:
            grad[...] = 0
        for t in reversed(range(len(self.steps))):
            alive, anew = (t < self.lengths)[:, None], self.reset[:, t, None]
            above = [dstate[0] + dhs[:, t], *dstate[1:]]
            dx, *before = self.steps[t].backward(*[np.where(alive, d, 0) for d in above])
            dxs[:, t] = dx
            dstate = [
                np.where(alive, np.where(anew, 0, new), old) for new, old in zip(before, dstate, strict=True)
            ]
            for grad, part in zip(self.grads, self.steps[t].grads, strict=True):
                grad += part
        self.dstate = dstate
        return dxs

    @property
    def h(self):
        return None if self.state is None else self.state[0]

    @property
    def dh(self):
        return None if self.dstate is None else self.dstate[0]


class TimeRNN(_Time):
    """RNN at each step of a window."""

    def __init__(self, Wx, Wh, b, stateful=False, *, activation="tanh"):
        super().__init__(lambda: RNN(Wx, Wh, b, activation), [Wx, Wh, b], stateful)


class TimeLSTM(_Time):
    """LSTM at each step of a window."""

    names = ("h", "c")

    def __init__(self, Wx, Wh, b, stateful=False):
        super().__init__(lambda: LSTM(Wx, Wh, b), [Wx, Wh, b], stateful)

    @property
    def c(self):
        return None if self.state is None else self.state[1]

    @property
    def dc(self):
        return None if self.dstate is None else self.dstate[1]


class TimeGRU(_Time):
    """GRU at each step of a window."""

    def __init__(self, Wx, Wh, b, stateful=False, *, reset="before", bhh=None):
        params = [Wx, Wh, b] if reset == "before" else [Wx, Wh, b, bhh]
        super().__init__(lambda: GRU(Wx, Wh, b, bhh, reset=reset), params, stateful)


class Bidirectional:
    """Outputs of one layer, and beside them those of another that reads each sequence from its end."""

    def __init__(self, layer_forward, layer_backward):
        self.layers = layer_forward, layer_backward

    @property
    def grads(self):
        return [grad for layer in self.layers for grad in layer.grads]

    def _reversed(self, array):
        array = array.copy()
        for n, length in enumerate(self.lengths):
            array[n, :length] = array[n, :length][::-1].copy()
        return array

    def forward(self, xs, *, lengths=None, reset=None):
        N, T, _ = xs.shape
        self.lengths = np.full(N, T) if lengths is None else np.asarray(lengths)
        reset = np.zeros((N, T), bool) if reset is None else reset
        mirrored = np.zeros((N, T), bool)
        for n, length in enumerate(self.lengths):
            for t in range(1, length):  # a sequence that begins at t ends, backwards, before t - 1
                mirrored[n, length - t] = reset[n, t]
        hs = self.layers[0].forward(xs, lengths=self.lengths, reset=reset)
        backwards = self.layers[1].forward(self._reversed(xs), lengths=self.lengths, reset=mirrored)
        return np.concatenate([hs, self._reversed(backwards)], axis=2)

    def backward(self, dhs):
        width = self.layers[0].params[1].shape[0]
        dxs = self.layers[0].backward(dhs[:, :, :width])
        return dxs + self._reversed(self.layers[1].backward(self._reversed(dhs[:, :, width:])))


class Stack:
    """Each layer reads the outputs of the one below."""

    def __init__(self, layers):
        self.layers = layers

    @property
    def grads(self):
        return [grad for layer in self.layers for grad in layer.grads]

    def forward(self, xs, **options):
        for layer in self.layers:
            xs = layer.forward(xs, **options)
        return xs

    def backward(self, dhs):
        for layer in reversed(self.layers):
            dhs = layer.backward(dhs)
        return dhs


class TimeSigmoidWithLoss:
    """Mean of -t log p - (1 - t) log(1 - p), p = sigmoid(xs)."""

    def __init__(self):
        self.params, self.grads = [], []

    def forward(self, xs, ts):
        self.p, self.ts = sigmoid(xs), ts
        return -np.mean(ts * np.log(self.p) + (1 - ts) * np.log(sigmoid(-xs)))

    def backward(self, dout=1.0):
        return dout * (self.p - self.ts) / self.p.size


class TimeAffine:
    """y = x W + b at each position."""

    def __init__(self, W, b):
        self.params, self.grads = [W, b], [np.zeros_like(W), np.zeros_like(b)]

    def forward(self, x):
        W, b = self.params
        self.x = x
        y = np.zeros((*x.shape[:-1], W.shape[1]))
        for index in np.ndindex(x.shape[:-1]):
            y[index] = x[index] @ W + b
        return y

    def backward(self, dout):
        W, _ = self.params
        for grad in self.grads:
            grad[...] = 0
        dx = np.zeros(self.x.shape)
        for index in np.ndindex(dx.shape[:-1]):
            dx[index] = dout[index] @ W.T
            self.grads[0] += np.outer(self.x[index], dout[index])
            self.grads[1] += dout[index]
        return dx


class TimeSoftmaxWithLoss:
    """Mean of -log softmax(scores)[label] over the labels that are not ignored; 0 if there are none."""

    ignore_label = -1

    def __init__(self):
        self.params, self.grads = [], []

    def losses(self, xs, ts):
        losses, self.p = np.zeros(ts.shape), np.zeros(xs.shape)
        for index in np.ndindex(ts.shape):
            shifted = xs[index] - xs[index].max()
            total = np.exp(shifted).sum()
            self.p[index] = np.exp(shifted) / total
            if ts[index] != self.ignore_label:
                losses[index] = np.log(total) - shifted[ts[index]]
        self.ts = ts
        return losses

    def forward(self, xs, ts):
        return self.losses(xs, ts).sum() / max(1, (ts != self.ignore_label).sum())

    def backward(self, dout=1.0):
        dxs = np.zeros(self.p.shape)
        for index in np.ndindex(self.ts.shape):
            if self.ts[index] != self.ignore_label:
                dxs[index] = self.p[index]
                dxs[index][self.ts[index]] -= 1
        return dxs * dout / max(1, (self.ts != self.ignore_label).sum())


class TimeAffineSoftmaxWithLoss:
    """TimeAffine, then TimeSoftmaxWithLoss."""

    def __init__(self, W, b):
        self.affine, self.softmax = TimeAffine(W, b), TimeSoftmaxWithLoss()
        self.params, self.grads = self.affine.params, self.affine.grads

    def losses(self, xs, ts):
        return self.softmax.losses(self.affine.forward(xs), ts)

    def forward(self, xs, ts):
        return self.softmax.forward(self.affine.forward(xs), ts)

    def backward(self, dout=1.0):
        return self.affine.backward(self.softmax.backward(dout))


class TimeAffineSquaredLoss:
    """Mean of (x W + b - t)^2 over the steps of each sequence, or over its last step if ts is (N, O)."""

    def __init__(self, W, b):
        self.affine = TimeAffine(W, b)
        self.params, self.grads = self.affine.params, self.affine.grads

    def losses(self, xs, ts, lengths=None):
        N, T, _ = xs.shape
        lengths = [T] * N if lengths is None else lengths
        y = self.affine.forward(xs)
        self.d = np.zeros(y.shape)
        self.count = 0
        for n in range(N):
            for t in range(lengths[n]):
                if ts.ndim == 3 or t == lengths[n] - 1:
                    self.d[n, t] = y[n, t] - (ts[n, t] if ts.ndim == 3 else ts[n])
                    self.count += y.shape[2]
        return (self.d**2).sum(axis=2)

    def forward(self, xs, ts, lengths=None):
        return self.losses(xs, ts, lengths).sum() / max(1, self.count)

    def backward(self, dout=1.0):
        return self.affine.backward(2 * dout * self.d / max(1, self.count))


def softplus(x):
    return math.log1p(math.exp(-abs(x))) + max(x, 0.0)


def head_loss(name, parameters, t, levels=()):
    """The loss of a target under a head with these parameters, a list of numbers."""
    if name == "quantiles":
        value, total = parameters[0], 0.0
        for index, level in enumerate(levels):
            value += softplus(parameters[index]) if index else 0.0
            total += level * (t - value) if t > value else (1 - level) * (value - t)
        return total
    if name == "categorical":
        largest = max(parameters)
        return math.log(sum(math.exp(y - largest) for y in parameters)) + largest - parameters[int(t)]
    m = parameters[0]
    if name == "squared":
        return (m - t) ** 2
    if name == "absolute":
        return abs(m - t)
    if name == "negative_binomial":
        mean, alpha = np.exp(m), softplus(parameters[1]) + 1e-6
        r, p = 1 / alpha, 1 / (1 + alpha * mean)
        counted = math.lgamma(t + r) - math.lgamma(r) - math.lgamma(t + 1)
        return -(counted + r * math.log(p) + t * math.log(1 - p))
    sigma = softplus(parameters[1]) + 1e-6
    z = (t - m) / sigma
    if name == "gaussian":
        return z**2 / 2 + math.log(sigma) + math.log(2 * math.pi) / 2
    nu = 2 + softplus(parameters[2])
    constant = math.lgamma((nu + 1) / 2) - math.lgamma(nu / 2) - math.log(nu * math.pi) / 2
    return -constant + math.log(sigma) + (nu + 1) / 2 * math.log(1 + z**2 / nu)


class TimeAffineWithLoss:
    """The mean of the head's losses, weighted, over the steps of each sequence or over its last step."""

    def __init__(self, W, b, head, levels=()):
        self.W, self.b, self.head, self.levels = W, b, head, levels

    def losses(self, xs, ts, lengths=None, weights=None):
        N, T, _ = xs.shape
        scores, size = xs @ self.W + self.b, ts.shape[-1]
        losses, self.total = np.zeros((N, T)), 0.0
        for n in range(N):
            for t in range(T if lengths is None else lengths[n]):
                last = t == (T if lengths is None else lengths[n]) - 1
                weight = 1.0 if weights is None else weights[n, t] if weights.ndim == 2 else weights[n]
                if weight and (ts.ndim == 3 or last):
                    targets = ts[n, t] if ts.ndim == 3 else ts[n]
                    for o in range(size):
                        parameters = scores[n, t, o::size]
                        losses[n, t] += weight * head_loss(self.head, parameters, targets[o], self.levels)
                        self.total += weight
        return losses

    def forward(self, xs, ts, lengths=None, weights=None):
        return self.losses(xs, ts, lengths, weights).sum() / (self.total or 1.0)


class SequenceRegressor:
    """Recurrent layers above each other, TimeAffineSquaredLoss; `params` as the model's."""

    def __init__(self, params, cell="lstm"):
        *recurrent, W, b = params
        kind = {"rnn": TimeRNN, "relu": TimeRNN, "lstm": TimeLSTM, "gru": TimeGRU}[cell]
        options = {"activation": "relu"} if cell == "relu" else {}
        layers = [recurrent[i : i + 3] for i in range(0, len(recurrent), 3)]
        self.stack = Stack([kind(*layer, stateful=True, **options) for layer in layers])
        self.output = TimeAffineSquaredLoss(W, b)

    def forward(self, xs, ts, lengths=None, reset=None, carry=False):
        if not carry:
            for layer in self.stack.layers:
                layer.reset_state()
        hs = self.stack.forward(xs, lengths=lengths, reset=reset)
        return self.output.forward(hs, ts, lengths)

    def backward(self):
        self.stack.backward(self.output.backward())
        self.grads = [*self.stack.grads, *self.output.grads]


class RNNLM:
    """TimeEmbedding, recurrent layers above each other, TimeAffineSoftmaxWithLoss; `params` as the model's.

    Tied, the output weights are the transposed embedding, whose gradient is the sum of both uses.
    """

    def __init__(self, params, cell="rnn", tied=False):
        embed_W, *recurrent, output_b = params
        output_W = embed_W.T if tied else recurrent.pop()
        kind = {"rnn": TimeRNN, "relu": TimeRNN, "lstm": TimeLSTM, "gru": TimeGRU}[cell]
        options = {"activation": "relu"} if cell == "relu" else {}
        self.embedding, self.tied = TimeEmbedding(embed_W), tied
        layers = [recurrent[i : i + 3] for i in range(0, len(recurrent), 3)]
        self.stack = Stack([kind(*layer, stateful=True, **options) for layer in layers])
        self.output = TimeAffineSoftmaxWithLoss(output_W, output_b)

    def forward(self, xs, ts):
        return self.output.forward(self.stack.forward(self.embedding.forward(xs)), ts)

    def backward(self):
        self.embedding.backward(self.stack.backward(self.output.backward()))
        (embed_dW,), (output_dW, output_db) = self.embedding.grads, self.output.grads
        first, last = (embed_dW + output_dW.T, []) if self.tied else (embed_dW, [output_dW])
        self.grads = [first, *self.stack.grads, *last, output_db]


class CBOWLM:
    """TimeContextSum, then TimeAffineSoftmaxWithLoss."""

    def __init__(self, params, window=2):
        embed_W, output_W, output_b = params
        self.context = TimeContextSum(embed_W, window)
        self.output = TimeAffineSoftmaxWithLoss(output_W, output_b)

    def forward(self, xs, ts):
        return self.output.forward(self.context.forward(xs), ts)

    def backward(self):
        self.context.backward(self.output.backward())
        self.grads = [*self.context.grads, *self.output.grads]


class TimeCell:
    """A layer of any cell: the cell's own step in float64, a sequence and a step at a time; forward only."""

    def __init__(self, layer):
        self.cell, self.width = layer.cell, layer.hidden_size
        arrays = zip(layer.parameter_names, layer.params, strict=True)
        self.params = {name: array.astype(np.float64) for name, array in arrays}
        self.constants = {name: float(layer.dtype.type(value)) for name, value in layer.constants.items()}

    def gates(self, x, h):
        cell, p = self.cell, self.params
        made = []
        for index, name in enumerate(cell.gates):
            columns = slice(index * self.width, (index + 1) * self.width)
            of_x = x @ p["Wx"][:, columns] + p["b"][columns]
            if cell.product is None:
                made.append(of_x)
            elif cell.product == "diagonal":
                made.append(of_x + p["Wh"][columns] * h)
            elif name in cell.apart:
                late = slice(cell.apart.index(name) * self.width, (cell.apart.index(name) + 1) * self.width)
                made.append(SimpleNamespace(x=of_x, h=h @ p["Wh"][:, columns] + p["bhh"][late]))
            elif name in cell.again:
                made.append(lambda operand, of_x=of_x, columns=columns: of_x + operand @ p["Wh"][:, columns])
            else:
                made.append(of_x + h @ p["Wh"][:, columns])
        return made

    def step(self, x, states, rows):
        named = {name: self.params.get(name, self.constants.get(name)) for name in self.cell.roles}
        after = self.cell.step(*self.gates(x, states[0]), *states, **(named | rows))
        return after if isinstance(after, tuple) else (after,)

    def forward(self, window, rows):
        """The outputs (N, T, H), zero behind an end, and the states (S, N, H) after the last step of each."""
        N, T, _ = window.xs.shape
        lengths, reset = window.options.get("lengths", [T] * N), window.options.get("reset")
        rows = {**rows, **{name: array.astype(np.float64) for name, array in window.given.items()}}
        hs, last = np.zeros((N, T, self.width)), np.zeros((len(self.cell.states), N, self.width))
        for n in range(N):
            states = [np.zeros(self.width)] * len(last)
            if window.state is not None:
                states = [state[n].astype(np.float64) for state in window.state]
            for t in range(lengths[n]):
                if reset is not None and reset[n, t]:
                    states = [np.zeros(self.width)] * len(last)
                x, here = (
                    window.xs[n, t].astype(np.float64),
                    {name: array[n, t] for name, array in rows.items()},
                )
                states = self.step(x, states, here)
                hs[n, t] = states[0]
            last[:, n] = states
        return hs, last


def tree_sum(rows):
    """Pairs of neighbours, then pairs of pairs: rows of any shape, a power of two of them."""
    half = len(rows) // 2
    return tree_sum(rows[:half]) + tree_sum(rows[half:]) if half else rows[0]
