"""A recurrent language model by hand, as in chapter 5 of *Deep Learning from Scratch 2*.

The example uses the book's layers: a model is a list of layers with `params` and `grads`, and a training step
is `forward`, `backward` and ``param -= lr * grad``. The RNN is stateful, so it reads each of the equally
spaced parts of the text from beginning to end, while gradients stay within a window: truncated
backpropagation through time.

The text is short, the beginning of the Python language reference, and the model learns it by heart: only the
perplexity on the training text falls. `rnnfast train` also measures held-out text.

    python examples/simple_rnnlm.py
"""

# ruff: noqa: F403, F405 (the star import is how the book begins)

import argparse
from itertools import islice

from rnnfast import WordTokenizer
from rnnfast.data import default_corpus
from rnnfast.time_layers import *


class SimpleRnnlm:
    """Word ids (N, T) -> word vectors -> states -> scores (N, T, V) -> mean loss against the next words."""

    def __init__(self, vocab_size, wordvec_size, hidden_size, rng):
        V, D, H = vocab_size, wordvec_size, hidden_size

        def normal(rows, cols, scale):
            return (scale * rng.standard_normal((rows, cols))).astype("f")

        self.rnn = TimeRNN(normal(D, H, D**-0.5), normal(H, H, H**-0.5), np.zeros(H, "f"), stateful=True)
        self.layers = [
            TimeEmbedding(normal(V, D, 0.01)),
            self.rnn,
            TimeAffine(normal(H, V, H**-0.5), np.zeros(V, "f")),
        ]
        self.loss_layer = TimeSoftmaxWithLoss()
        self.params = [param for layer in self.layers for param in layer.params]
        self.grads = [grad for layer in self.layers for grad in layer.grads]

    def forward(self, xs, ts):
        for layer in self.layers:
            xs = layer.forward(xs)
        return self.loss_layer.forward(xs, ts)

    def backward(self):
        dout = self.loss_layer.backward()
        for layer in reversed(self.layers):
            dout = layer.backward(dout)

    def reset_state(self):
        self.rnn.reset_state()


def main(epochs=40, lines=300, batch_size=10, steps=5, lr=0.5, seed=0):
    """Train on the first lines of the default corpus, and return the perplexity of the last epoch."""
    text = "".join(islice(default_corpus(), lines))
    tokenizer = WordTokenizer.fit(text)
    ids = tokenizer.encode(text)
    shares = np.unique(ids, return_counts=True)[1] / len(ids)
    by_frequency = np.exp(-shares @ np.log(shares))
    print(
        f"{len(ids)} words, {len(shares)} different; perplexity by their frequency alone {by_frequency:.1f}"
    )

    # Row i of a batch reads part i of the text; the label of each word is the next word.
    part = (len(ids) - 1) // batch_size
    xs = ids[: batch_size * part].reshape(batch_size, part)
    ts = ids[1 : batch_size * part + 1].reshape(batch_size, part)

    model = SimpleRnnlm(
        tokenizer.vocab_size, wordvec_size=100, hidden_size=100, rng=np.random.default_rng(seed)
    )
    for epoch in range(1, epochs + 1):
        model.reset_state()  # each part starts again
        total = 0.0
        for start in range(0, part, steps):
            window = slice(start, start + steps)
            total += model.forward(xs[:, window], ts[:, window]) * xs[:, window].size
            model.backward()
            for param, grad in zip(model.params, model.grads, strict=True):
                param -= lr * grad
        perplexity = float(np.exp(total / xs.size))
        print(f"epoch {epoch:3d}  perplexity {perplexity:7.2f}")
    return perplexity


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A recurrent language model by hand.")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    main(**vars(parser.parse_args()))
