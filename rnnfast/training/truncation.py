"""The error of the gradient of truncated backpropagation through time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from rnnfast import _check
from rnnfast.data.sequences import Batch
from rnnfast.layers.window import Part
from rnnfast.models.body import Body
from rnnfast.models.model import Model
from rnnfast.training.chain import chain_for
from rnnfast.training.exact import ExactBPTT


class TruncationBias(NamedTuple):
    """The truncated gradient compared with the exact one, all parameters as one vector.

    Attributes
    ----------
    relative_error : float
        The norm of the difference divided by the norm of the exact gradient.
    cosine : float
        The cosine of the angle between the two; 1 if truncation keeps the direction.

    Examples
    --------
    >>> import numpy as np, rnnfast
    >>> from rnnfast.diagnostics import truncation_bias
    >>> model = rnnfast.RNNLM(9, 4, 4, rng=np.random.default_rng(0))
    >>> ids = np.arange(42).reshape(2, 21) % 9
    >>> found = truncation_bias(model, ids[:, :-1], ids[:, 1:], k=10)
    >>> found.relative_error > 0, found.cosine > 0.9
    (True, True)
    """

    relative_error: float
    cosine: float


def truncation_bias(
    model: Model, xs: np.ndarray, ts: np.ndarray, k: int, k2: int | None = None
) -> TruncationBias:
    """The gradient error of `TruncatedBPTT(k, k2)` on one stretch of data, with the current parameters.

    The truncated gradient is the sum over all windows of `k` steps; each goes back `k2` steps from the end of
    its window. Computed without dropout, from a fresh state. The model and its gradients do not change.

    Parameters
    ----------
    model : RNNLM or SequenceRegressor
    xs, ts : ndarray (N, T, ...)
        The arguments of the model's `forward`; truncation can miss more in longer sequences.
    k : int
        Steps from one update to the next, `k1` of `TruncatedBPTT`.
    k2 : int, optional
        Steps the gradient goes back, at least `k`; None means `k`.

    Returns
    -------
    TruncationBias
        `relative_error` and `cosine`.

    Raises
    ------
    TypeError, ValueError
        The model does not work in parts, or a number is out of its range.

    Examples
    --------
    >>> import rnnfast
    >>> model = rnnfast.RNNLM(7, 8, 8, rng=np.random.default_rng(0))
    >>> ids = np.random.default_rng(1).integers(0, 7, (1, 101))
    >>> short, long, all_of_it = (truncation_bias(model, ids[:, :-1], ids[:, 1:], k) for k in (1, 10, 100))
    >>> short.relative_error > long.relative_error > all_of_it.relative_error
    True
    """
    owner = "truncation_bias"
    k = _check.values.size(owner, "k", k)
    reach = k if k2 is None else _check.values.size(owner, "k2", k2, k)
    return next(truncation_biases(model, xs, ts, k, [reach]))[1]


def truncation_biases(
    model: Model, xs: np.ndarray, ts: np.ndarray, k: int, reaches: Sequence[int]
) -> Iterator[tuple[int, TruncationBias]]:
    """Each reach with its `truncation_bias`, all compared with one exact gradient."""
    _check.objects.works_in_parts("truncation_bias", model, Body)
    model = _apart(model)
    model.reset_state()
    ExactBPTT().gradients(model, xs, ts)
    exact = [grad.astype(np.float64) for grad in model.grads]
    for reach in reaches:
        model.reset_state()
        yield reach, _compare(_truncated_gradient(model, xs, ts, k, reach), exact)


def _apart(model: Model) -> Model:
    """Another model on the same parameters, with its own gradients and without dropout."""
    other = model.another()
    other.train_flg = False
    return other


def _truncated_gradient(model: Model, xs: np.ndarray, ts: np.ndarray, k: int, reach: int) -> list[np.ndarray]:
    """The truncated gradient of the mean loss, summed in float64."""
    steps = np.shape(xs)[1]
    every_step = np.ndim(ts) == np.ndim(xs)
    chain = chain_for(model, k, reach)
    total = [np.zeros(grad.shape) for grad in model.grads]
    scored = 0
    for first in range(0, steps, k):
        last = min(first + k, steps)
        window = np.array(ts[:, first:last] if every_step else ts)
        has_targets = every_step or last == steps
        if chain.learn(Batch(np.array(xs[:, first:last]), window if has_targets else None)) is None:
            continue
        count = model.output.scored(window, [Part(0, last - first, last - first)])
        scored += count
        for sums, grad in zip(total, model.grads, strict=True):
            sums += count * grad.astype(np.float64)
    return [sums / max(1, scored) for sums in total]


def _compare(truncated: list[np.ndarray], exact: list[np.ndarray]) -> TruncationBias:
    """The bias with all arrays as one vector; no bias if both gradients are zero."""

    def dot(left: list[np.ndarray], right: list[np.ndarray]) -> float:
        return sum(float(np.vdot(a, b)) for a, b in zip(left, right, strict=True))

    own, other = np.sqrt(dot(truncated, truncated)), np.sqrt(dot(exact, exact))
    difference = [a - b for a, b in zip(truncated, exact, strict=True)]
    if not other:
        return TruncationBias(float(own > 0), float(own == 0))
    cosine = dot(truncated, exact) / (own * other) if own else 0.0
    return TruncationBias(float(np.sqrt(dot(difference, difference)) / other), float(cosine))
