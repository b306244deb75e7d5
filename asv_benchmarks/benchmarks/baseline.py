"""The same layers as plain vectorised NumPy, as one would write them from the equations.

They are the baseline of the timings in float32 and, in float64, what results are compared with before timing.
"""

import numpy as np


class TimeRNN:
    """h_t = tanh(h_{t-1} Wh + x_t Wx + b), one matrix product pair a step."""

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
    """Embedding, TimeRNN, output layer; `step` is one SGD update with the gradient's norm clipped."""

    def __init__(self, params):
        self.params = params
        self.embed_W, Wx, Wh, b, W, output_b = params
        self.rnn = TimeRNN(Wx, Wh, b)
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
