"""Plain NumPy for the other layers and the optimizers: tables, affine, losses, updates of parameters."""

import numpy as np


class TimeEmbedding:
    """Rows of a table; the gradient is summed by row."""

    def __init__(self, W):
        self.W = W

    def forward(self, ids):
        self.ids = ids
        return self.W[ids]

    def backward(self, dout):
        dW = np.zeros_like(self.W)
        np.add.at(dW, self.ids, dout)
        self.grads = [dW]


class TimeContextSum(TimeEmbedding):
    """The sum of the rows of the last `window` ids; before the first id there are none."""

    def __init__(self, W, window):
        super().__init__(W)
        self.window = window

    def forward(self, ids):
        self.ids = ids
        rows = self.W[ids]
        out = rows.copy()
        for back in range(1, self.window):
            out[:, back:] += rows[:, :-back]
        return out

    def backward(self, dout):
        total = dout.copy()
        for back in range(1, self.window):
            total[:, :-back] += dout[:, back:]
        super().backward(total)


class TimeAffine:
    """xs W + b."""

    def __init__(self, W, b):
        self.W, self.b = W, b

    def forward(self, xs):
        self.xs = xs
        return xs @ self.W + self.b

    def backward(self, dout):
        x, d = self.xs.reshape(-1, self.xs.shape[-1]), dout.reshape(-1, dout.shape[-1])
        self.grads = [x.T @ d, d.sum(axis=0)]
        return dout @ self.W.T


class TimeDropout:
    """Zeros in random places; other elements are divided by the kept share."""

    def __init__(self, ratio, rng):
        self.ratio, self.rng, self.grads = ratio, rng, []

    def forward(self, xs):
        self.mask = (self.rng.random(xs.shape, np.float32) >= self.ratio) / xs.dtype.type(1 - self.ratio)
        return xs * self.mask

    def backward(self, dout):
        return dout * self.mask


class TimeSoftmaxWithLoss:
    """Mean cross-entropy of the softmax of scores."""

    def __init__(self):
        self.grads = []

    def forward(self, scores, ts):
        flat = scores.reshape(-1, scores.shape[-1])
        shifted = flat - flat.max(axis=1, keepdims=True)
        exp = np.exp(shifted)
        total = exp.sum(axis=1, keepdims=True)
        self.p, self.ts, self.shape = exp / total, ts.reshape(-1), scores.shape
        return float((np.log(total[:, 0]) - shifted[np.arange(self.ts.size), self.ts]).mean())

    def backward(self):
        d = self.p.copy()
        d[np.arange(self.ts.size), self.ts] -= 1
        return (d / d.dtype.type(self.ts.size)).reshape(self.shape)


class TimeSigmoidWithLoss:
    """Mean binary cross-entropy of the sigmoid of scores."""

    def __init__(self):
        self.grads = []

    def forward(self, scores, ts):
        self.p, self.ts = 1 / (1 + np.exp(-scores)), ts
        return float((np.log1p(np.exp(-np.abs(scores))) + np.maximum(scores, 0) - scores * ts).mean())

    def backward(self):
        return (self.p - self.ts.astype(self.p.dtype)) / self.p.dtype.type(self.p.size)


class TimeAffineSquaredLoss:
    """Mean of (xs W + b - ts)^2."""

    def __init__(self, W, b):
        self.params, self.grads = [W, b], [np.zeros_like(W), np.zeros_like(b)]

    def forward(self, xs, ts):
        W, b = self.params
        flat = xs.reshape(-1, W.shape[0])
        error = flat @ W + b - ts.reshape(-1, b.size)
        self.cache = xs.shape, flat, error
        return (error**2).mean()

    def backward(self):
        shape, flat, error = self.cache
        d = error * (2 / error.size)
        self.grads[0][...] = flat.T @ d
        self.grads[1][...] = d.sum(axis=0)
        return (d @ self.params[0].T).reshape(shape)


class TimeAffineGaussianLoss:
    """Mean negative log-likelihood; the first half of the columns are means, the second scales."""

    def __init__(self, W, b):
        self.params, self.grads = [W, b], [np.zeros_like(W), np.zeros_like(b)]

    def forward(self, xs, ts):
        W, b = self.params
        flat = xs.reshape(-1, W.shape[0])
        mean, raw = np.split(flat @ W + b, 2, axis=1)
        sigma = np.log1p(np.exp(-np.abs(raw))) + np.maximum(raw, 0) + 1e-6
        z = (ts.reshape(mean.shape) - mean) / sigma
        self.cache = xs.shape, flat, raw, sigma, z
        return float((0.5 * z**2 + np.log(sigma) + 0.5 * np.log(2 * np.pi)).mean())

    def backward(self):
        shape, flat, raw, sigma, z = self.cache
        slope = 1 / (1 + np.exp(-raw))
        d = np.concatenate([-z, (1 - z**2) * slope], axis=1) / np.tile(sigma * z.size, 2)
        self.grads[0][...] = flat.T @ d
        self.grads[1][...] = d.sum(axis=0)
        return (d @ self.params[0].T).reshape(shape)


def sgd(param, grad, state, lr):
    param -= lr * grad


def momentum(param, grad, state, lr):
    v = state.setdefault("v", np.zeros_like(param))
    v *= 0.9
    v -= lr * grad
    param += v


def nesterov(param, grad, state, lr):
    v = state.setdefault("v", np.zeros_like(param))
    v *= 0.9
    v -= lr * grad
    param += 0.9 * v - lr * grad


def ada_grad(param, grad, state, lr):
    h = state.setdefault("h", np.zeros_like(param))
    h += grad * grad
    param -= lr * grad / (np.sqrt(h) + 1e-7)


def rms_prop(param, grad, state, lr):
    h = state.setdefault("h", np.zeros_like(param))
    h *= 0.99
    h += (1 - 0.99) * grad * grad
    param -= lr * grad / (np.sqrt(h) + 1e-7)


def adam(param, grad, state, lr):
    m, v = (state.setdefault(name, np.zeros_like(param)) for name in "mv")
    state["t"] = state.get("t", 0) + 1
    m += (1 - 0.9) * (grad - m)
    v += (1 - 0.999) * (grad**2 - v)
    rate = lr * np.sqrt(1 - 0.999 ** state["t"]) / (1 - 0.9 ** state["t"])
    param -= rate * m / (np.sqrt(v) + 1e-7)


def adam_w(param, grad, state, lr):
    m, v = (state.setdefault(name, np.zeros_like(param)) for name in "mv")
    state["t"] = state.get("t", 0) + 1
    m += (1 - 0.9) * (grad - m)
    v += (1 - 0.999) * (grad**2 - v)
    param *= 1 - lr * 0.01
    param -= lr * (m / (1 - 0.9 ** state["t"])) / (np.sqrt(v / (1 - 0.999 ** state["t"])) + 1e-8)
