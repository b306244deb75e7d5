"""Training steps of language models beside PyTorch: forward, backward, clipping and SGD.

python asv_benchmarks/language_models.py --threads 1
"""

import argparse
from statistics import median

import numpy as np
import torch

import rnnfast
from rnnfast import interop, optim
from rnnfast.bench.timing import in_turn, pinned, settle

LR, CLIP = 1.0, 0.25


SIZES = (  # cell, layers, words, units (and the width of the embedding), rows, steps
    ("rnn", 1, 10_000, 100, 20, 35),
    ("lstm", 1, 10_000, 100, 20, 35),
    ("lstm", 2, 10_000, 650, 20, 35),
    ("lstm", 2, 65, 128, 50, 50),
)


def window(V, N, T):
    """Input and target ids, with the frequencies of words."""
    rng, frequency = np.random.default_rng(0), 1 / np.arange(1, V + 1)
    return (rng.choice(V, (N, T), p=frequency / frequency.sum()) for _ in range(2))


def of_rnnfast(model, xs, ts):
    """A training step, which returns the loss and the gradient of the embedding."""
    optimizer = optim.SGD(LR)

    def step():
        loss = model.forward(xs, ts)
        model.backward()
        optim.clip_by_norm(model.grads, CLIP)
        optimizer.update(model.params, model.grads)
        return loss, model.grads[0]

    return step


def of_torch(model, xs, ts):
    """The same model, trained as in PyTorch's example of a language model."""
    table, (W, b) = model.params[0], model.params[-2:]
    embedding = torch.nn.Embedding.from_pretrained(torch.tensor(table), freeze=False)
    body = model.body.layers
    recurrent = interop.to_torch(rnnfast.Stack(body) if len(body) > 1 else body[0])
    output = torch.nn.Linear(*W.shape)
    with torch.no_grad():
        output.weight.copy_(torch.tensor(W.T))
        output.bias.copy_(torch.tensor(b))
    params = [param for module in (embedding, recurrent, output) for param in module.parameters()]
    optimizer = torch.optim.SGD(params, LR)
    ids, labels, state = torch.from_numpy(xs), torch.from_numpy(ts), None

    def step():
        nonlocal state
        optimizer.zero_grad()
        hs, state = recurrent(embedding(ids), state)
        state = tuple(s.detach() for s in state) if isinstance(state, tuple) else state.detach()
        loss = torch.nn.functional.cross_entropy(output(hs).flatten(0, 1), labels.flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(params, CLIP)
        optimizer.step()
        return loss.item(), embedding.weight.grad.numpy()

    return step


def measure(cell, layers, V, H, N, T, *, threads, seconds):
    """Seconds of a step, by library; the results of the first are compared."""
    xs, ts = window(V, N, T)
    model = rnnfast.RNNLM(V, H, H, cell=cell, layers=layers, rng=np.random.default_rng(0))
    steps = {"PyTorch": of_torch(model, xs, ts), "rnnfast": of_rnnfast(model, xs, ts)}
    (loss, grad), (own_loss, own_grad) = (step() for step in steps.values())
    # Clipping scales them differently: each layer of PyTorch has two biases, and so a larger norm.
    grad, own_grad = (array / np.linalg.norm(array) for array in (grad, own_grad))
    assert abs(own_loss / loss - 1) < 1e-5
    assert np.linalg.norm(own_grad - grad) < 1e-4
    samples = in_turn(steps, seconds, 5, settle if threads > 1 else None)
    return {name: median(found) for name, found in samples.items()}


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=2.0, help="for each model")
    given = parser.parse_args(arguments)
    rnnfast.set_num_threads(given.threads)
    torch.set_num_threads(given.threads)
    with pinned(given.threads):
        for cell, layers, V, H, N, T in SIZES:
            times = measure(cell, layers, V, H, N, T, threads=given.threads, seconds=given.seconds)
            figures = ", ".join(f"{name} {N * T / found:,.0f}" for name, found in times.items())
            ratio = times["PyTorch"] / times["rnnfast"]
            print(f"{layers} x {cell}, V={V} H={H} N={N} T={T}: tokens/s {figures}, ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
