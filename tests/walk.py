"""A brute-force oracle of truncated gradients: every step is remembered."""

import numpy as np
import reference

CELLS = {"rnn": reference.RNN, "lstm": reference.LSTM, "gru": reference.GRU}


class Walk:
    """A language model step by step in plain NumPy, which remembers every step it has taken.

    A gradient goes back over as many remembered steps as it is told to, with the activations of the time
    when they were taken and the parameters of now.
    """

    def __init__(self, cell, params):
        self.params = params
        embed_W, *recurrent, self.W, self.b = params
        self.embed_W, self.kind = embed_W, CELLS[cell]
        self.layers = [recurrent[i : i + 3] for i in range(0, len(recurrent), 3)]
        self.states, self.steps = None, []

    def read(self, x):
        names = 2 if self.kind is reference.LSTM else 1
        if self.states is None:
            self.states = [[np.zeros((len(x), Wh.shape[0]))] * names for _, Wh, _ in self.layers]
        h, cells = self.embed_W[x], []
        for i, layer in enumerate(self.layers):
            cells.append(self.kind(*layer))
            state = cells[-1].forward(h, *self.states[i])
            self.states[i] = list(state) if names == 2 else [state]
            h = self.states[i][0]
        self.steps.append((x, cells))
        return h

    def gradients(self, dhs, reach):
        """From the gradients of the outputs of the newest steps, back over `reach` steps in all."""
        grads = [np.zeros_like(param) for param in self.params]
        arriving = [[np.zeros_like(s) for s in state] for state in self.states]
        taken = self.steps[max(0, len(self.steps) - reach) :]
        dhs = [np.zeros_like(dhs[0])] * (len(taken) - len(dhs)) + dhs
        for (x, cells), dh in zip(reversed(taken), reversed(dhs), strict=True):
            for i in reversed(range(len(cells))):
                arriving[i][0] = arriving[i][0] + dh
                dh, *arriving[i] = cells[i].backward(*arriving[i])
                for j, grad in enumerate(cells[i].grads):
                    grads[1 + 3 * i + j] += grad
            np.add.at(grads[0], x, dh)
        return grads

    def learn(self, xs, ts, reach):
        hs = [self.read(xs[:, t]) for t in range(xs.shape[1])]
        output = reference.TimeAffineSoftmaxWithLoss(self.W, self.b)
        loss = output.forward(np.stack(hs, axis=1), ts)
        dhs = output.backward()
        grads = self.gradients([dhs[:, t] for t in range(xs.shape[1])], reach)
        return loss, [*grads[:-2], *output.grads]
