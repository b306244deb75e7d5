"""Softmax with cross-entropy loss on given scores.

With p = softmax(a), loss = log(sum exp(a_v - m)) + m - a_target, m = max a. The gradient with
respect to a is p - onehot.
"""

from __future__ import annotations

import math

import numpy as np

from .._jit import inline, kernel
from ..codegen.activations import exp
from ..codegen.denormals import flush_denormals, restore_mode
from ..codegen.logarithm import log

LANES = 32  # partial sums over V in softmax_loss_forward


@inline
def _fold_lanes(lanes):
    """The sum of the lanes, in order, in float64."""
    total = 0.0
    for value in lanes:
        total += value
    return total


@inline
def count_labels(ts, ignore):
    count = 0
    for label in ts.reshape(-1):
        count += label != ignore
    return count


@kernel
def softmax_loss_forward(scores, ts, ignore, lanes, probabilities, losses):
    """probabilities = softmax(scores); losses = -log probabilities at the target, 0 if that is `ignore`.

    Returns the number of labels that are not `ignore`.

    scores         (R, V)    read
    ts             (R,)      read, int64
    ignore         int       the label to ignore
    lanes          (LANES,)  scratch
    probabilities  (R, V)    overwritten; may be scores
    losses         (R,)      overwritten, float64
    """
    mode_before = flush_denormals()
    rows, size = scores.shape
    full = size // LANES * LANES
    for r in range(rows):
        a, p = scores[r], probabilities[r]
        lanes[:] = -np.inf
        for left in range(0, size, LANES):
            group = a[left : left + LANES]
            for j in range(group.size):
                lanes[j] = group[j] if group[j] > lanes[j] else lanes[j]
        m = lanes[0]
        for value in lanes:
            m = value if value > m else m
        target = a[ts[r]] if ts[r] != ignore else m
        lanes[:] = 0
        for left in range(0, full, LANES):
            source, out = a[left : left + LANES], p[left : left + LANES]
            for j in range(LANES):
                e = exp(source[j] - m)
                out[j] = e
                lanes[j] += e
        for v in range(full, size):
            p[v] = exp(a[v] - m)
            lanes[v - full] += p[v]
        total = _fold_lanes(lanes)
        inverse = scores.dtype.type(1 / total)
        for v in range(size):
            p[v] *= inverse
        losses[r] = math.log(total) + (np.float64(m) - np.float64(target)) if ts[r] != ignore else 0.0
    restore_mode(mode_before)
    return count_labels(ts, ignore)


@kernel
def softmax_loss_backward(probabilities, ts, ignore, scale, dscores):
    """dscores = (probabilities - onehot(ts)) scale; zero if the target is `ignore`.

    probabilities  (R, V)   read, from softmax_loss_forward
    ts             (R,)     read, int64
    ignore, scale           the label to ignore; incoming gradient divided by the count of other labels
    dscores        (R, V)   overwritten; not probabilities
    """
    mode_before = flush_denormals()
    rows, size = probabilities.shape
    for r in range(rows):
        p, d = probabilities[r], dscores[r]
        if ts[r] == ignore:
            d[:] = 0
        else:
            for v in range(size):
                d[v] = p[v] * scale
            d[ts[r]] -= scale
    restore_mode(mode_before)


# The cross-entropy of one of K classes, for one row of scores.


@inline
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
