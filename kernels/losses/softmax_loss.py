"""The cross-entropy of one of K classes, for one row of scores."""

from __future__ import annotations

from .._jit import spliced
from ..codegen.activations import exp
from ..codegen.logarithm import log


@spliced
def softmax_loss(scores, first, stride, label, weight, line):
    """-log softmax(scores) at `label`, and `weight` times its gradient in place of the scores.

    scores  (cols,)  elements first, first + stride, ... are read, then overwritten
    label   int      from 0 to K-1
    weight  float    of the gradient; the loss is returned without it
    line    (K,)     scratch, float64
    """
    largest = float(scores[first])
    for k in range(line.size):
        line[k] = scores[first + k * stride]
        largest = line[k] if line[k] > largest else largest
    found = line[label]
    for k in range(line.size):
        line[k] = exp(line[k] - largest)
    total = 0.0
    for k in range(line.size):
        total += line[k]
    for k in range(line.size):
        gradient = line[k] / total - (1.0 if k == label else 0.0)
        scores[first + k * stride] = weight * gradient
    return log(total) + (largest - found)
