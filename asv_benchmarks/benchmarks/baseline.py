"""The same layers in plain vectorized NumPy, written from the equations.

In float32 they are the baseline of the timings; in float64 they check the results before timing.
"""

import numpy as np


class TimeRNN:
    """h_t = tanh(h_{t-1} Wh + x_t Wx + b), two matrix products per step."""

    def __init__(self, Wx, Wh, b):
        self.Wx, self.Wh, self.b = Wx, Wh, b

    def forward(self, xs):
        N, T, _ = xs.shape
        self.xs = xs
        self.hs = np.zeros((N, T + 1, self.Wh.shape[0]), xs.dtype)  # slot 0 is the initial state
        for t in range(T):
            self.hs[:, t + 1] = np.tanh(self.hs[:, t] @ self.Wh + xs[:, t] @ self.Wx + self.b)
        return self.hs[:, 1:]

    def backward(self, dhs):
        xs, hs = self.xs, self.hs
        self.grads = dWx, dWh, db = [np.zeros_like(p) for p in (self.Wx, self.Wh, self.b)]
        dxs = np.empty_like(xs)
        dh = np.zeros_like(hs[:, 0])
        for t in reversed(range(xs.shape[1])):
            dt = (dh + dhs[:, t]) * (1 - hs[:, t + 1] ** 2)
            dWx += xs[:, t].T @ dt
            dWh += hs[:, t].T @ dt
            db += dt.sum(axis=0)
            dxs[:, t] = dt @ self.Wx.T
            dh = dt @ self.Wh.T
        return dxs


def _sigmoid(a):
    return 1 / (1 + np.exp(-a))


class TimeLSTM:
    """c_t = f c_{t-1} + g i, h_t = o tanh(c_t), with one product for the four gates of a step."""

    def __init__(self, Wx, Wh, b):
        self.Wx, self.Wh, self.b = Wx, Wh, b

    def forward(self, xs):
        N, T, _ = xs.shape
        H = self.Wh.shape[0]
        self.xs = xs
        self.hs, self.cs = (
            np.zeros((N, T + 1, H), xs.dtype) for _ in range(2)
        )  # slot 0 is the initial state
        self.gates = np.empty((N, T, 4 * H), xs.dtype)
        for t in range(T):
            gates = self.gates[:, t]
            gates[...] = self.hs[:, t] @ self.Wh + xs[:, t] @ self.Wx + self.b
            f, g, i, o = np.split(gates, 4, axis=1)
            f[...], g[...], i[...], o[...] = _sigmoid(f), np.tanh(g), _sigmoid(i), _sigmoid(o)
            self.cs[:, t + 1] = f * self.cs[:, t] + g * i
            self.hs[:, t + 1] = o * np.tanh(self.cs[:, t + 1])
        return self.hs[:, 1:]

    def backward(self, dhs):
        self.grads = dWx, dWh, db = [np.zeros_like(p) for p in (self.Wx, self.Wh, self.b)]
        dxs = np.empty_like(self.xs)
        dh, dc = (np.zeros_like(self.hs[:, 0]) for _ in range(2))
        for t in reversed(range(self.xs.shape[1])):
            f, g, i, o = np.split(self.gates[:, t], 4, axis=1)
            squashed = np.tanh(self.cs[:, t + 1])
            total = dh + dhs[:, t]
            dc = dc + total * o * (1 - squashed**2)
            da = np.hstack(
                [
                    dc * self.cs[:, t] * f * (1 - f),
                    dc * i * (1 - g**2),
                    dc * g * i * (1 - i),
                    total * squashed * o * (1 - o),
                ]
            )
            dWx += self.xs[:, t].T @ da
            dWh += self.hs[:, t].T @ da
            db += da.sum(axis=0)
            dxs[:, t], dh, dc = da @ self.Wx.T, da @ self.Wh.T, dc * f
        return dxs


class TimeGRU:
    """h_t = (1 - z) h_{t-1} + z tanh(x_t Wxh + bh + (r h_{t-1}) Whh)."""

    def __init__(self, Wx, Wh, b):
        self.Wx, self.Wh, self.b = Wx, Wh, b

    def forward(self, xs):
        N, T, _ = xs.shape
        H = self.Wh.shape[0]
        self.xs = xs
        self.hs = np.zeros((N, T + 1, H), xs.dtype)  # slot 0 is the initial state
        self.gates = np.empty((N, T, 3 * H), xs.dtype)
        for t in range(T):
            h, gates = self.hs[:, t], self.gates[:, t]
            gates[...] = xs[:, t] @ self.Wx + self.b
            gates[:, : 2 * H] = _sigmoid(gates[:, : 2 * H] + h @ self.Wh[:, : 2 * H])
            z, r, hat = np.split(gates, 3, axis=1)
            hat[...] = np.tanh(hat + (r * h) @ self.Wh[:, 2 * H :])
            self.hs[:, t + 1] = (1 - z) * h + z * hat
        return self.hs[:, 1:]

    def backward(self, dhs):
        H = self.Wh.shape[0]
        self.grads = dWx, dWh, db = [np.zeros_like(p) for p in (self.Wx, self.Wh, self.b)]
        dxs = np.empty_like(self.xs)
        dh = np.zeros_like(self.hs[:, 0])
        for t in reversed(range(self.xs.shape[1])):
            z, r, hat = np.split(self.gates[:, t], 3, axis=1)
            h, total = self.hs[:, t], dh + dhs[:, t]
            dhat = total * z * (1 - hat**2)
            d = dhat @ self.Wh[:, 2 * H :].T
            da = np.hstack([total * (hat - h) * z * (1 - z), d * h * r * (1 - r), dhat])
            dWx += self.xs[:, t].T @ da
            dWh[:, : 2 * H] += h.T @ da[:, : 2 * H]
            dWh[:, 2 * H :] += (r * h).T @ dhat
            db += da.sum(axis=0)
            dxs[:, t] = da @ self.Wx.T
            dh = total * (1 - z) + d * r + da[:, : 2 * H] @ self.Wh[:, : 2 * H].T
        return dxs


CELLS = {"rnn": TimeRNN, "lstm": TimeLSTM, "gru": TimeGRU}


class TimeAffineSoftmaxWithLoss:
    """Mean cross-entropy of softmax(xs W + b), with the (N T, V) scores in memory."""

    def __init__(self, W, b):
        self.W, self.b = W, b

    def forward(self, xs, ts):
        self.x, self.t = xs.reshape(-1, xs.shape[-1]), ts.reshape(-1)
        self.shape = xs.shape
        scores = self.x @ self.W + self.b
        scores -= scores.max(axis=1, keepdims=True)
        self.p = np.exp(scores)
        total = self.p.sum(axis=1, keepdims=True)
        self.p /= total
        rows = np.arange(self.t.size)
        return float((np.log(total[:, 0]) - scores[rows, self.t]).mean())

    def backward(self):
        dscores = self.p
        dscores[np.arange(self.t.size), self.t] -= 1
        dscores /= self.t.size
        self.grads = [self.x.T @ dscores, dscores.sum(axis=0)]
        return (dscores @ self.W.T).reshape(self.shape)


class RNNLM:
    """Embedding, recurrent layer, output layer; `step` is one SGD update with the gradient's norm clipped."""

    def __init__(self, params, cell):
        self.params = params
        self.embed_W, Wx, Wh, b, W, output_b = params
        self.rnn = CELLS[cell](Wx, Wh, b)
        self.output = TimeAffineSoftmaxWithLoss(W, output_b)

    def step(self, xs, ts, lr, clip):
        hs = self.rnn.forward(self.embed_W[xs])
        loss = self.output.forward(hs, ts)
        d_embedded = self.rnn.backward(self.output.backward())
        d_embed = np.zeros_like(self.embed_W)
        np.add.at(d_embed, xs, d_embedded)
        grads = [d_embed, *self.rnn.grads, *self.output.grads]
        norm = np.sqrt(sum(float((g**2).sum()) for g in grads))
        rate = min(1.0, clip / (norm + 1e-6))
        for param, grad in zip(self.params, grads, strict=True):
            param -= lr * rate * grad
        return loss
