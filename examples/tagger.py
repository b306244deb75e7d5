"""Tag words by the words before and after them, with a layer that reads in both directions.

In sentences of different lengths, two words matter, "left" and "right". The tag of a word says whether there
is a "left" anywhere before it, a "right" anywhere after it, both, or neither. A forward layer does not know
the words after; `Bidirectional` does, with as many outputs and fewer parameters.

The example shows a batch of sequences of different lengths: they are padded to the longest, `lengths` gives
the recurrent layer the end of each (the backward half starts there, not in the padding), and the label -1
excludes the padding from the loss.

    python examples/tagger.py
"""

import argparse

import numpy as np

from rnnfast import Bidirectional, TimeAffine, TimeEmbedding, TimeGRU, TimeSoftmaxWithLoss, optim

PADDING, LEFT, RIGHT = 0, 1, 2  # other ids are words without a meaning
VOCAB_SIZE = 20
TAGS = ("neither", "after left", "before right", "both")
IGNORED = -1  # the ignore_label of TimeSoftmaxWithLoss


def make_sentences(rng, count, longest=20):
    """Word ids (N, T), their tags (N, T), and the lengths (N,); padding has id 0 and tag -1."""
    lengths = rng.integers(3, longest + 1, count)
    inside = np.arange(longest) < lengths[:, np.newaxis]
    words = rng.integers(RIGHT + 1, VOCAB_SIZE, inside.shape)
    for special in (LEFT, RIGHT):  # most sentences get both; the second may overwrite the first
        has_one = np.flatnonzero(rng.random(count) < 0.8)
        words[has_one, rng.integers(0, lengths[has_one])] = special
    words = np.where(inside, words, PADDING)
    left, right = words == LEFT, words == RIGHT
    after_left = np.cumsum(left, axis=1) > left
    before_right = np.cumsum(right[:, ::-1], axis=1)[:, ::-1] > right
    return words, np.where(inside, after_left + 2 * before_right, IGNORED), lengths


class Tagger:
    """Word ids (N, T) -> word vectors -> states of a recurrent layer -> scores (N, T, tags)."""

    def __init__(self, bidirectional, wordvec_size, hidden_size, rng):
        D, H = wordvec_size, hidden_size
        self.embedding = TimeEmbedding.from_sizes(VOCAB_SIZE, D, rng=rng)
        if bidirectional:  # two halves: the outputs of both taggers have size H
            self.recurrent = Bidirectional(*(TimeGRU.from_sizes(D, H // 2, rng=rng) for _ in range(2)))
        else:
            self.recurrent = TimeGRU.from_sizes(D, H, rng=rng)
        W = (rng.standard_normal((H, len(TAGS))) / np.sqrt(H)).astype(np.float32)
        self.affine = TimeAffine(W, np.zeros(len(TAGS), np.float32))
        self.loss_layer = TimeSoftmaxWithLoss()
        layers = (self.embedding, self.recurrent, self.affine)
        self.params = [param for layer in layers for param in layer.params]
        self.grads = [grad for layer in layers for grad in layer.grads]

    def scores(self, words, lengths):
        hs = self.recurrent.forward(self.embedding.forward(words), lengths=lengths)
        return self.affine.forward(hs)

    def forward(self, words, tags, lengths):
        return self.loss_layer.forward(self.scores(words, lengths), tags)

    def backward(self):
        self.embedding.backward(self.recurrent.backward(self.affine.backward(self.loss_layer.backward())))


def trained_accuracy(name, bidirectional, epochs, hidden_size, seed):
    """The share of right tags in sentences outside the training data, without padding."""
    rng = np.random.default_rng(seed)
    words, tags, lengths = make_sentences(rng, 2000)
    new_words, new_tags, new_lengths = make_sentences(rng, 500)
    tagger = Tagger(bidirectional, wordvec_size=16, hidden_size=hidden_size, rng=rng)
    print(f"{name}: {sum(param.size for param in tagger.params)} parameters")
    optimizer = optim.Adam(lr=0.01)
    for epoch in range(1, epochs + 1):
        losses = []
        for batch in rng.permutation(len(words)).reshape(-1, 50):
            losses.append(tagger.forward(words[batch], tags[batch], lengths[batch]))
            tagger.backward()
            optimizer.update(tagger.params, tagger.grads)
        right = tagger.scores(new_words, new_lengths).argmax(axis=-1) == new_tags
        accuracy = float(right[new_tags != IGNORED].mean())
        print(f"  epoch {epoch}  loss {np.mean(losses):.3f}  right tags in new sentences {accuracy:.1%}")
    return accuracy


def main(epochs=5, hidden_size=64, seed=0):
    """Train both taggers, and return their accuracies: both directions, one direction."""
    both = trained_accuracy("both directions", True, epochs, hidden_size, seed)
    one = trained_accuracy("one direction", False, epochs, hidden_size, seed)
    print(f"right tags in new sentences: both directions {both:.1%}, one direction {one:.1%}")
    return both, one


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Tag words by the words before and after them.")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    main(**vars(parser.parse_args()))
