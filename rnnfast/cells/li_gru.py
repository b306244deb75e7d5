"""The light GRU: no reset gate, relu."""

from __future__ import annotations

import numpy as np

from rnnfast.cells._decorator import cell
from rnnfast.cells._functions import relu, sigmoid


def _orthogonal(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """An orthogonal block (H, H) for each gate, as in the paper."""
    H, columns = shape
    blocks = [np.linalg.qr(rng.standard_normal((H, H)))[0] for _ in range(columns // H)]
    return np.concatenate(blocks, axis=1)


def _biases(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """0 for z, 0.5 for n."""
    return np.repeat([0.0, 0.5], shape[0] // 2)


# A relu is unbounded, and this cell has no batch normalization. Biases of 0.5 keep the first updates from
# raising all of Wh, as in `rnn_relu`. Training perplexity on 8,000 words of the default corpus (V =
# 1,875, D = H = 100, seeds 1 to 3, the second without tied weights; unigram: 245) after 3 epochs of
# AdamW(0.003), and of Adam(0.01):
#     169, 144, 172 and 89, 73, 95      these initial values
#     169, 144, 165 and 96, 77, 91      Wh from randn / sqrt(H); stuck with one seed of a shorter text
#     313, 227, 316 and 235, 150, 256   Wh orthogonal, biases zero, words randn / 100
#     323, 265, 305 and 203, 160, 250   all initial values of the book
# With zero biases, half of the last two Wh, and half the identity, diverged for at least one of these seeds.
@cell(
    states=("h",),
    start={
        "Wh": _orthogonal,
        "b": _biases,
        "words": lambda shape, rng: rng.standard_normal(shape) / 10,
    },
    title="light GRU",
    forgets={"z": "low"},
)
def li_gru(z, n, h):
    """``z = sigmoid(z)``, ``h_t = z h + (1 - z) relu(n)``; without the paper's batch normalization.

    Recurrent weights are initially orthogonal, as in the paper, and the biases of n are 0.5.

    Source: Ravanelli et al., *Light gated recurrent units for speech recognition*, 2018.
    """
    z = sigmoid(z)
    return z * h + (1 - z) * relu(n)
