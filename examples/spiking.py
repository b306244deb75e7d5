"""Spiking neurons learn to classify spike patterns with a surrogate gradient.

Each class is a pattern of spikes of 20 inputs. In a trial, every spike of the pattern is jittered, some are
lost and some are added. An input spikes equally often in all classes: only the spike times differ. Leaky
integrate-and-fire neurons with recurrent connections, `rnnfast.cells.lif`, read the spikes, and the class is
computed from the firing rates of the neurons.

A spike is a step function, whose derivative is zero or infinite. Training replaces it by a surrogate
derivative, large near the threshold, as in Neftci, Mostafa and Zenke, 2019; gradients then flow back through
time as in any cell.

    python examples/spiking.py
    python examples/spiking.py --plot spiking.png
"""

import argparse

import numpy as np

from rnnfast import TimeAffine, TimeSoftmaxWithLoss, cells, optim

CLASSES, INPUTS, STEPS, SPIKES = 4, 20, 60, 3


def make_patterns(rng):
    """The spike times of each class, (classes, inputs, spikes): multiples of 5, so no spikes coincide."""
    order = rng.random((CLASSES, INPUTS, STEPS // 5 - 1)).argsort(axis=-1)
    return 5 * (1 + order[..., :SPIKES])


def make_trials(rng, patterns, count):
    """Spikes (N, T, inputs), 0 or 1, and classes (N,)."""
    classes = rng.integers(CLASSES, size=count)
    times = patterns[classes] + rng.integers(-2, 3, (count, INPUTS, SPIKES))
    kept = rng.random(times.shape) < 0.8
    xs = (rng.random((count, STEPS, INPUTS)) < 0.01).astype(np.float32)
    rows, inputs, _ = np.nonzero(kept)
    xs[rows, times[kept], inputs] = 1
    return xs, classes


class Classifier:
    """Spikes (N, T, inputs) -> spikes of neurons (N, T, H) -> rates (N, 1, H) -> scores (N, 1, classes)."""

    def __init__(self, hidden_size, rng):
        self.neurons = cells.lif.layer(INPUTS, hidden_size, rng=rng)
        self.neurons.params[1][...] *= 0.1  # weak connections at first, so that the inputs drive the spikes
        self.affine = TimeAffine.from_sizes(hidden_size, CLASSES, rng=rng)
        self.loss_layer = TimeSoftmaxWithLoss()
        self.params = [*self.neurons.params, *self.affine.params]
        self.grads = [*self.neurons.grads, *self.affine.grads]

    def scores(self, xs):
        spikes = self.neurons.forward(xs)
        return self.affine.forward(spikes.mean(axis=1, keepdims=True))

    def forward(self, xs, classes):
        return self.loss_layer.forward(self.scores(xs), classes[:, np.newaxis])

    def backward(self):
        drates = self.affine.backward(self.loss_layer.backward())
        self.neurons.backward(np.repeat(drates / STEPS, STEPS, axis=1))

    def accuracy(self, xs, classes):
        return float((self.scores(xs)[:, 0].argmax(axis=-1) == classes).mean())


def draw(path, classifier, rng, patterns):
    """Draw one trial of each class as a PNG: the spikes of the inputs and of the neurons."""
    from matplotlib.figure import Figure

    xs, classes = make_trials(rng, patterns, 100)
    shown = [int(np.flatnonzero(classes == number)[0]) for number in range(CLASSES)]
    spikes = classifier.neurons.forward(xs[shown])
    figure = Figure(figsize=(10, 5), layout="constrained")
    axes = figure.subplots(2, CLASSES, sharex=True, sharey="row")
    for number in range(CLASSES):
        for axis, raster in zip(axes[:, number], (xs[shown[number]], spikes[number]), strict=True):
            axis.scatter(*np.nonzero(raster), s=4, color="black", marker="|")
        axes[0, number].set_title(f"class {number}")
        axes[1, number].set_xlabel("step")
    axes[0, 0].set_ylabel("input")
    axes[1, 0].set_ylabel("neuron")
    figure.savefig(path, dpi=120)


def main(epochs=15, trials=1000, hidden_size=100, seed=0, plot=None):
    """Train, and return the accuracy on new trials after each epoch."""
    rng = np.random.default_rng(seed)
    patterns = make_patterns(rng)
    classifier, optimizer = Classifier(hidden_size, rng), optim.Adam(lr=0.003)
    new = make_trials(rng, patterns, 500)
    print(f"before training: right classes of new trials {classifier.accuracy(*new):.1%}")
    found = []
    for epoch in range(1, epochs + 1):
        xs, classes = make_trials(rng, patterns, trials)
        losses = []
        for batch in np.arange(trials).reshape(-1, 50):
            losses.append(classifier.forward(xs[batch], classes[batch]))
            classifier.backward()
            optimizer.update(classifier.params, classifier.grads)
        found.append(classifier.accuracy(*new))
        rate = classifier.neurons.forward(new[0]).mean()
        print(
            f"epoch {epoch:2d}  loss {np.mean(losses):.3f}  spikes per neuron and step {rate:.3f}  "
            f"right classes of new trials {found[-1]:.1%}"
        )
    if plot:
        draw(plot, classifier, rng, patterns)
        print(f"a trial of each class is drawn in {plot}")
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Tell spike patterns apart with spiking neurons.")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--trials", type=int, default=1000, help="new trials per epoch, a multiple of 50")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plot", metavar="PNG", help="draw a trial of each class in this PNG")
    main(**vars(parser.parse_args()))
