# ruff: noqa: E402 (thread counts are set before the libraries are loaded)
"""Time rnnfast beside PyTorch, in one process and in turn, on one thread: medians and ratios.

    pip install torch                                  # into the environment that has rnnfast
    taskset -c 0 python asv_benchmarks/peers.py        # pinned to one core; --help has the choices

Each line is one shape (N, T, D, H): forward for inference, and forward + backward with the gradient of the
input; the share is the operations a second of the products over the FMA peak of the core, measured in
between. The last lines are training steps of language models, in tokens a second.
"""

import argparse
import os
import statistics
import time

for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import numpy as np
import torch
from rnnfast.kernels.peak import fma_peak

import rnnfast
from rnnfast import optim

LAYERS = {
    "rnn": (rnnfast.TimeRNN, torch.nn.RNN, {}),
    "lstm": (rnnfast.TimeLSTM, torch.nn.LSTM, {}),
    "gru": (rnnfast.TimeGRU, torch.nn.GRU, {"reset": "after"}),
}
SHAPES = [
    (1, 1000, 32, 32),
    (10, 5, 100, 100),
    (20, 35, 100, 100),
    (20, 35, 650, 650),
    (32, 128, 64, 128),
    (64, 100, 128, 256),
    (32, 256, 256, 512),
    (1, 4096, 64, 256),
    (64, 50, 1024, 1024),
]
# cell, layers, V, D = H, N, T
MODELS = [
    ("rnn", 1, 10_000, 100, 20, 35),
    ("lstm", 1, 10_000, 100, 20, 35),
    ("lstm", 2, 10_000, 650, 20, 35),
    ("lstm", 2, 65, 128, 50, 50),
]


def medians(calls, seconds):
    """Median seconds of each call, all of them in turn; calls that are short are repeated within a turn."""
    times = []
    for call in calls:
        call()
        start = time.perf_counter()
        call()
        times.append(max(1, int(0.005 / (time.perf_counter() - start))))
    samples = [[] for _ in calls]
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(samples[0]) < 5:
        for call, count, kept in zip(calls, times, samples, strict=True):
            start = time.perf_counter()
            for _ in range(count):
                call()
            kept.append((time.perf_counter() - start) / count)
    return [statistics.median(kept) for kept in samples]


def compare_layers(cell, shape, seconds):
    """Print one line for a layer."""
    N, T, D, H = shape
    ours, theirs, options = LAYERS[cell]
    rng = np.random.default_rng(0)
    layer, module = ours.from_sizes(D, H, rng=rng, **options), theirs(D, H, batch_first=True)
    xs, dhs = (rng.standard_normal((N, T, size)).astype(np.float32) for size in (D, H))
    hs, dxs = np.zeros_like(dhs), np.zeros_like(xs)
    plain, gradient = torch.from_numpy(xs.copy()), torch.from_numpy(dhs.copy())
    tracked = plain.clone().requires_grad_(True)

    def forward():
        layer.forward(xs, out=hs)

    def both():
        layer.forward(xs, out=hs)
        layer.backward(dhs, out=dxs)

    def torch_forward():
        with torch.inference_mode():
            module(plain)

    def torch_both():
        tracked.grad = None
        module.zero_grad()
        module(tracked)[0].backward(gradient)

    peaks = []

    def peak():
        peaks.append(fma_peak(0.005))

    forward_s, both_s, torch_forward_s, torch_both_s, _ = medians(
        [forward, both, torch_forward, torch_both, peak], seconds
    )
    share = 6 * N * T * ours.GATES * H * (D + H) / both_s / statistics.median(peaks)
    print(
        f"{cell:5s} {shape!s:22s} "
        f"forward {forward_s * 1e3:9.3f} ms, torch {torch_forward_s * 1e3:9.3f}, "
        f"ratio {torch_forward_s / forward_s:6.2f} | "
        f"both {both_s * 1e3:9.3f} ms, torch {torch_both_s * 1e3:9.3f}, "
        f"ratio {torch_both_s / both_s:6.2f} | {share:6.1%} of the peak",
        flush=True,
    )


class TorchModel(torch.nn.Module):
    """The same language model."""

    def __init__(self, cell, layers, V, size):
        super().__init__()
        self.embedding = torch.nn.Embedding(V, size)
        self.recurrent = LAYERS[cell][1](size, size, layers, batch_first=True)
        self.output = torch.nn.Linear(size, V)

    def forward(self, ids, state):
        hs, state = self.recurrent(self.embedding(ids), state)
        return self.output(hs), state


def compare_models(cell, layers, V, size, N, T, seconds):
    """Print one line for a training step: forward, backward, clipping, SGD."""
    rng = np.random.default_rng(0)
    frequency = 1 / np.arange(1, V + 1)
    xs, ts = (rng.choice(V, (N, T), p=frequency / frequency.sum()) for _ in range(2))
    model, optimizer = rnnfast.RNNLM(V, size, size, cell=cell, layers=layers, rng=rng), optim.SGD(1.0)
    other = TorchModel(cell, layers, V, size)
    other_optimizer = torch.optim.SGD(other.parameters(), 1.0)
    ids, labels = torch.from_numpy(xs), torch.from_numpy(ts)
    carried = [None]

    def step():
        model.forward(xs, ts)
        model.backward()
        optim.clip_by_norm(model.grads, 0.25)
        optimizer.update(model.params, model.grads)

    def torch_step():
        other_optimizer.zero_grad()
        scores, state = other(ids, carried[0])
        carried[0] = tuple(s.detach() for s in state) if isinstance(state, tuple) else state.detach()
        torch.nn.functional.cross_entropy(scores.reshape(-1, V), labels.reshape(-1)).backward()
        torch.nn.utils.clip_grad_norm_(other.parameters(), 0.25)
        other_optimizer.step()

    ours, theirs = medians([step, torch_step], seconds)
    print(
        f"{layers} x {cell} V={V} D=H={size} N={N} T={T}: {N * T / ours:,.0f} tokens/s, "
        f"torch {N * T / theirs:,.0f}, ratio {theirs / ours:.2f}",
        flush=True,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", nargs="*", choices=LAYERS, default=list(LAYERS), help="none: models only")
    parser.add_argument("--seconds", type=float, default=3.0, help="for each shape")
    parser.add_argument("--no-models", action="store_true", help="layers only")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(f"PyTorch {torch.__version__}; FMA peak {fma_peak(0.2) / 1e9:.0f} GFLOP/s a core, float32")
    for cell in arguments.cells:
        for shape in SHAPES:
            compare_layers(cell, shape, arguments.seconds)
    if not arguments.no_models:
        for model in MODELS:
            compare_models(*model, arguments.seconds)


if __name__ == "__main__":
    main()
