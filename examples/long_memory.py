"""A task that needs a long memory: adding, with truncated and with exact gradients.

Each sequence has 200 steps; each step has a random number and a mark. Two numbers are marked, one among the
first 10, one later in the first half; after the last step, the network must output their sum. Backpropagation
truncated after 50 steps never reaches a mark: the network does not learn what to keep, and the error stays at
1/6, the error of always answering 1. `ExactBPTT` goes back through all steps.

    python examples/long_memory.py
    python examples/long_memory.py --plot long_memory.png
"""

import argparse

import numpy as np

from rnnfast import ExactBPTT, SequenceRegressor, Trainer, TruncatedBPTT, optim


def make_sequences(rng, count, steps):
    """Inputs (N, T, 2): numbers from 0 to 1, and marks; targets (N, 1): the sums of the marked numbers."""
    xs = np.zeros((count, steps, 2), np.float32)
    xs[:, :, 0] = rng.random((count, steps))
    rows, early = np.arange(count), steps // 20
    first, second = rng.integers(0, early, count), rng.integers(early, steps // 2, count)
    for marked in (first, second):
        xs[rows, marked, 1] = 1
    return xs, (xs[rows, first, 0] + xs[rows, second, 0])[:, np.newaxis]


def learning_curve(name, bptt, steps, epochs, sequences, hidden_size, seed):
    """The mean squared error on new sequences after each epoch."""
    rng = np.random.default_rng(seed)
    model = SequenceRegressor(2, hidden_size, 1, cell="lstm", rng=rng)
    # Initial biases for memory over the length of the sequence: forget and input gates change the cell only
    # slowly (Tallec and Ollivier, 2018). The blocks of the bias are f, g, i, o.
    slow = np.log(rng.uniform(1, steps, hidden_size))
    bias = model.params[model.parameter_names.index("layer0_b")].reshape(4, hidden_size)
    bias[0], bias[2] = slow, -slow
    new = make_sequences(rng, 500, steps)
    trainer = Trainer(model, optim.Adam(lr=0.01), bptt, clip_norm=1.0, anneal=None, rng=rng)
    errors = []
    for epoch in range(1, epochs + 1):
        data = make_sequences(rng, sequences, steps)
        errors.append(trainer.fit(data, epochs=1, batch_size=32, valid=new)[0]["valid_loss"])
        print(f"{name}, epoch {epoch:2d}: error on new sequences {errors[-1]:.4f}")
    return errors


def draw(path, curves, steps):
    """The learning curves as a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    for name, errors in curves.items():
        axes.plot(np.arange(1, len(errors) + 1), errors, marker="o", markersize=4, label=name)
    axes.axhline(1 / 6, color="gray", linestyle="--", label="always saying 1")
    axes.set(
        xlabel="epoch", ylabel="mean squared error", yscale="log", title=f"Adding two numbers, {steps} steps"
    )
    axes.legend()
    figure.savefig(path, dpi=120)


def main(epochs=8, steps=200, window=50, sequences=3200, hidden_size=32, seed=0, plot=None):
    """Train with both kinds of gradient, and return the last errors: truncated, exact."""
    ways = {f"truncated after {window} steps": TruncatedBPTT(window), "exact": ExactBPTT()}
    curves = {
        name: learning_curve(name, bptt, steps, epochs, sequences, hidden_size, seed)
        for name, bptt in ways.items()
    }
    if plot is not None:
        draw(plot, curves, steps)
    truncated, exact = (errors[-1] for errors in curves.values())
    print(f"always saying 1: {1 / 6:.4f}, truncated: {truncated:.4f}, exact: {exact:.4f}")
    return truncated, exact


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="What truncation cannot learn.")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--sequences", type=int, default=3200)
    parser.add_argument("--plot", default=None, help="write the learning curves to this PNG")
    parser.add_argument("--seed", type=int, default=0)
    main(**vars(parser.parse_args()))
