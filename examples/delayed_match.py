"""Working memory: a network of noisy rate neurons learns to compare two stimuli across a delay.

A trial shows a sample stimulus, then nothing, then a test stimulus. The output must be 0 before the test, and
afterwards 1 if the two match and -1 if they do not. Monkeys are trained on this task; their neurons, like the
units here, hold the sample in their activity. Each stimulus is a direction, encoded by inputs with different
preferred directions, as in Song, Yang and Wang, 2016.

The example shows how to write your own cell: only the equations of a step are needed. `rnnfast.cells.leaky`
is the same cell, ready made.

    python examples/delayed_match.py
    python examples/delayed_match.py --plot delayed_match.png
"""

import argparse

import numpy as np

import rnnfast
from rnnfast import Recurrent, SequenceRegressor, Trainer, TruncatedBPTT, optim
from rnnfast.cells import relu

SAMPLE, DELAY, TEST, END = 5, 13, 33, 45  # the first step of each part of a trial, and the end
DIRECTIONS, INPUTS = 4, 8


@rnnfast.cell(states=("h", "v"))
def leaky(a, h, v, *, alpha=rnnfast.unit(0.1), noise=rnnfast.normal(0.05)):
    """A current `v` that slowly follows its input `a`, and a rate `h`; `alpha` is dt / tau, one per unit."""
    v = v + alpha * (a - v) + noise
    return relu(v), v


def make_trials(rng, count):
    """Inputs (N, T, inputs), targets (N, T, 1), and the mask (N,) of matching trials."""
    preferred = np.arange(INPUTS) * (2 * np.pi / INPUTS)
    angles = np.arange(DIRECTIONS) * (2 * np.pi / DIRECTIONS)
    tuning = np.exp(2 * (np.cos(angles[:, np.newaxis] - preferred) - 1))  # (directions, inputs)
    sample, match = rng.integers(DIRECTIONS, size=count), rng.random(count) < 0.5
    other = (sample + rng.integers(1, DIRECTIONS, count)) % DIRECTIONS
    xs = rng.normal(0, 0.1, (count, END, INPUTS))
    xs[:, SAMPLE:DELAY] += tuning[sample, np.newaxis]
    xs[:, TEST:] += tuning[np.where(match, sample, other), np.newaxis]
    ts = np.zeros((count, END, 1), np.float32)
    ts[:, TEST + 3 :, 0] = np.where(match, 1, -1)[:, np.newaxis]  # after a short reaction time
    return xs.astype(np.float32), ts, match


def accuracy(model, rng, count=500):
    """The share of new trials with the right answer at the end."""
    xs, _, match = make_trials(rng, count)
    return float(((model.predict(xs)[:, -1, 0] > 0) == match).mean())


def draw(path, model, rng):
    """A trial as a PNG: inputs, activity of the units, output and target."""
    from matplotlib.figure import Figure

    xs, ts, _ = make_trials(rng, 1)
    layer = Recurrent(leaky, model.params[:-2])  # the model's own arrays; the last two are its output layer
    layer.train_flg = False  # no noise
    rates = layer.forward(xs)[0]
    figure = Figure(figsize=(7, 6), layout="constrained")
    axes = figure.subplots(3, sharex=True)
    axes[0].imshow(xs[0].T, aspect="auto", origin="lower", cmap="Greys")
    axes[0].set(ylabel="input", title="A trial of the delayed match-to-sample task")
    axes[1].imshow(rates[:, rates.argmax(axis=0).argsort()].T, aspect="auto", origin="lower", cmap="viridis")
    axes[1].set(ylabel="unit, by the time of its peak")
    axes[2].plot(ts[0, :, 0], color="gray", linestyle="--", label="target")
    axes[2].plot(model.predict(xs)[0, :, 0], label="output")
    axes[2].set(xlabel="step", ylabel="match", ylim=(-1.5, 1.5))
    axes[2].legend(loc="lower left")
    for axis in axes:
        for step in (SAMPLE, DELAY, TEST):
            axis.axvline(step - 0.5, color="tab:red", linewidth=0.8)
    figure.savefig(path, dpi=120)


def main(epochs=12, trials=500, hidden_size=64, seed=0, plot=None):
    """Train, and return the accuracy on new trials after each epoch."""
    rng = np.random.default_rng(seed)
    model = SequenceRegressor(INPUTS, hidden_size, 1, cell=leaky, rng=rng)
    trainer = Trainer(model, optim.Adam(lr=0.005), TruncatedBPTT(END), clip_norm=1.0, rng=rng)
    found = []
    for epoch in range(1, epochs + 1):
        xs, ts, _ = make_trials(rng, trials)
        loss = trainer.fit((xs, ts), epochs=1, batch_size=50)[0]["train_loss"]
        found.append(accuracy(model, rng))
        print(f"epoch {epoch:2d}: error {loss:.3f}, right answers in new trials {found[-1]:.1%}")
    if plot:
        draw(plot, model, rng)
        print(f"a trial is drawn in {plot}")
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Compare two stimuli across a delay.")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--trials", type=int, default=500, help="new trials per epoch")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plot", metavar="PNG", help="draw a trial in this PNG")
    main(**vars(parser.parse_args()))
