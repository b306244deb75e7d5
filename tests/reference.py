"""The specification: naive float64 NumPy with the public names."""

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


class TimeDropout:
    """xs * mask; the mask is a hash of (seed, counter, position), written with Python's integers."""

    def __init__(self, dropout_ratio, seed, counter=0):
        self.dropout_ratio, self.seed, self.counter = dropout_ratio, seed, counter

    @staticmethod
    def _mix64(z):
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
        return z ^ z >> 31

    @staticmethod
    def _mix32(x):
        x = (x ^ x >> 16) * 0x7FEB352D % 2**32
        x = (x ^ x >> 15) * 0x846CA68B % 2**32
        return x ^ x >> 16

    def forward(self, xs):
        golden = 0x9E3779B97F4A7C15
        start = self._mix64((self.seed + golden) % 2**64)
        key1, key0 = divmod(self._mix64((start + self.counter * golden) % 2**64), 2**32)
        words = [self._mix32(self._mix32(i ^ key0) ^ key1) for i in range(xs.size)]
        kept = np.array(words, dtype=np.uint64).reshape(xs.shape) >= round(self.dropout_ratio * 2**32)
        self.mask = kept / (1 - self.dropout_ratio)
        self.counter += 1
        return xs * self.mask

    def backward(self, dout):
        return dout * self.mask


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


class TimeRNN:
    """RNN at each step of a window; the gradients of the steps add up."""

    def __init__(self, Wx, Wh, b, stateful=False, *, activation="tanh"):
        self.params, self.grads = [Wx, Wh, b], [np.zeros_like(p) for p in (Wx, Wh, b)]
        self.stateful, self.activation, self.h, self.dh = stateful, activation, None, None

    def set_state(self, h):
        self.h = h

    def reset_state(self):
        self.h = None

    def forward(self, xs):
        N, T, _ = xs.shape
        H = self.params[1].shape[0]
        if not self.stateful or self.h is None:
            self.h = np.zeros((N, H))
        self.steps = [RNN(*self.params, self.activation) for _ in range(T)]
        hs = np.zeros((N, T, H))
        for t, step in enumerate(self.steps):
            self.h = hs[:, t] = step.forward(xs[:, t], self.h)
        self.xs_shape = xs.shape
        return hs

    def backward(self, dhs, *, dh_next=None):
        dxs = np.zeros(self.xs_shape)
        dh = np.zeros((dhs.shape[0], dhs.shape[2])) if dh_next is None else dh_next
        for grad in self.grads:
            grad[...] = 0
        for t in reversed(range(len(self.steps))):
            dxs[:, t], dh = self.steps[t].backward(dhs[:, t] + dh)
            for grad, part in zip(self.grads, self.steps[t].grads, strict=True):
                grad += part
        self.dh = dh
        return dxs


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
