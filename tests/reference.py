"""The specification: naive float64 NumPy with the public names."""

import numpy as np


def central_differences(loss, array, step=1e-5):
    """The gradient of `loss()`, a function of nothing, by each element of `array`, which is changed and restored."""
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
    """param += momentum**2 * v - (1 + momentum) * lr * grad with the old v; then v = momentum * v - lr * grad."""

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
