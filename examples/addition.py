"""Learn to add from examples: sequence to sequence, as in chapter 7 of *Deep Learning from Scratch 2*.

The encoder reads a problem such as ``"16+75"`` backwards. The decoder gets only the encoder's last state and
cell, and writes the sum character by character, ``"91 "``, after the mark ``"_"``. The example shows how to
connect two layers by their state: ``decoder.lstm.set_state(h, c)`` in the forward pass; in the backward pass,
`dh` and `dc` of the decoder become the gradients `dh_next` and `dc_next` of the encoder's last step.

A tenth of all pairs of numbers below 100, in both orders, is held out from training.

    python examples/addition.py
"""

import argparse

import numpy as np

from rnnfast import TimeAffine, TimeEmbedding, TimeLSTM, TimeSoftmaxWithLoss, optim

CHARS = "0123456789+_ "


def make_problems(rng, held_out=0.1):
    """Ids (N, 5) of questions like ``16+75``, ids (N, 4) of answers like ``_91 ``, and the held-out mask."""
    a, b = np.divmod(np.arange(100 * 100), 100)
    is_new = rng.random((100, 100)) < held_out
    is_new = is_new[np.maximum(a, b), np.minimum(a, b)]  # one decision for a + b and b + a
    questions = [[*map(CHARS.index, f"{f'{x}+{y}':5}")] for x, y in zip(a, b, strict=True)]
    answers = [[*map(CHARS.index, f"_{total:<3}")] for total in a + b]
    return np.array(questions), np.array(answers), is_new


class Encoder:
    """Ids (N, T) -> the state and the cell (N, H) of an LSTM after the last id."""

    def __init__(self, wordvec_size, hidden_size, rng):
        self.embedding = TimeEmbedding.from_sizes(len(CHARS), wordvec_size, rng=rng)
        self.lstm = TimeLSTM.from_sizes(wordvec_size, hidden_size, rng=rng)
        self.layers = [self.embedding, self.lstm]

    def forward(self, xs):
        self.hs = self.lstm.forward(self.embedding.forward(xs))
        return self.lstm.h, self.lstm.c

    def backward(self, dh, dc):
        dhs = np.zeros_like(self.hs)  # the loss depends only on the last state and cell
        self.embedding.backward(self.lstm.backward(dhs, dh_next=dh, dc_next=dc))


class Decoder:
    """The encoder's state, ids (N, T) -> scores (N, T, V) of the character after each id."""

    def __init__(self, wordvec_size, hidden_size, rng):
        self.embedding = TimeEmbedding.from_sizes(len(CHARS), wordvec_size, rng=rng)
        self.lstm = TimeLSTM.from_sizes(wordvec_size, hidden_size, rng=rng, stateful=True)
        W = rng.standard_normal((hidden_size, len(CHARS))) / np.sqrt(hidden_size)
        self.affine = TimeAffine(W.astype(np.float32), np.zeros(len(CHARS), np.float32))
        self.layers = [self.embedding, self.lstm, self.affine]

    def forward(self, xs):
        return self.affine.forward(self.lstm.forward(self.embedding.forward(xs)))

    def backward(self, dscore):
        self.embedding.backward(self.lstm.backward(self.affine.backward(dscore)))
        return self.lstm.dh, self.lstm.dc


class Seq2seq:
    """An encoder, a decoder that starts from its state, and the loss of the answer's characters."""

    def __init__(self, wordvec_size, hidden_size, rng):
        self.encoder = Encoder(wordvec_size, hidden_size, rng)
        self.decoder = Decoder(wordvec_size, hidden_size, rng)
        self.loss_layer = TimeSoftmaxWithLoss()
        layers = self.encoder.layers + self.decoder.layers
        self.params = [param for layer in layers for param in layer.params]
        self.grads = [grad for layer in layers for grad in layer.grads]

    def forward(self, questions, answers):
        self.decoder.lstm.set_state(*self.encoder.forward(questions[:, ::-1]))
        return self.loss_layer.forward(self.decoder.forward(answers[:, :-1]), answers[:, 1:])

    def backward(self):
        self.encoder.backward(*self.decoder.backward(self.loss_layer.backward()))

    def generate(self, questions, length):
        """Ids (N, length): the likeliest character at each step; it becomes the decoder's next input."""
        self.decoder.lstm.set_state(*self.encoder.forward(questions[:, ::-1]))
        written = [np.full((len(questions), 1), CHARS.index("_"))]
        for _ in range(length):
            written.append(self.decoder.forward(written[-1]).argmax(axis=-1))
        return np.concatenate(written[1:], axis=1)


def main(epochs=12, hidden_size=64, batch_size=64, lr=0.01, seed=0):
    """Train, and return the share of held-out problems with a completely right answer."""
    rng = np.random.default_rng(seed)
    questions, answers, is_new = make_problems(rng)
    new_questions, new_answers = questions[is_new], answers[is_new]
    known = np.flatnonzero(~is_new)
    print(f"{len(known)} problems to learn from, {len(new_questions)} held out")
    model = Seq2seq(wordvec_size=16, hidden_size=hidden_size, rng=rng)
    optimizer = optim.Adam(lr=lr)
    for epoch in range(1, epochs + 1):
        optimizer.lr = lr * (1 - (epoch - 1) / epochs)  # small steps at the end, for the last per cent
        losses = []
        for batch in np.array_split(rng.permutation(known), len(known) // batch_size):
            losses.append(model.forward(questions[batch], answers[batch]))
            model.backward()
            optim.clip_by_norm(model.grads, 5.0)
            optimizer.update(model.params, model.grads)
        written = model.generate(new_questions, new_answers.shape[1] - 1)
        accuracy = float((written == new_answers[:, 1:]).all(axis=1).mean())
        print(f"epoch {epoch:2d}  loss {np.mean(losses):.3f}  right answers to new problems {accuracy:.1%}")
    for question, answer in zip(new_questions[::250], written[::250], strict=True):
        print("".join(CHARS[i] for i in question), "=", "".join(CHARS[i] for i in answer))
    return accuracy


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Learn to add from examples alone.")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    main(**vars(parser.parse_args()))
