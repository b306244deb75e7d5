"""The bias of truncation for several window lengths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from rnnfast import _check
from rnnfast.models.body import Body
from rnnfast.models.model import Model
from rnnfast.training.truncation import truncation_bias


class TruncationCurve(NamedTuple):
    """`truncation_bias` for several window lengths.

    Attributes
    ----------
    ks : ndarray of int (W,)
        Steps of the windows.
    relative_errors, cosines : ndarray (W,)
        The bias for each window length.

    Examples
    --------
    >>> import numpy as np, rnnfast
    >>> from rnnfast.diagnostics import truncation_curve
    >>> model = rnnfast.RNNLM(9, 4, 4, rng=np.random.default_rng(0))
    >>> ids = np.arange(42).reshape(2, 21) % 9
    >>> truncation_curve(model, ids[:, :-1], ids[:, 1:], ks=[2, 10]).cosines.shape
    (2,)
    """

    ks: np.ndarray
    relative_errors: np.ndarray
    cosines: np.ndarray


def truncation_curve(
    model: Model, xs: np.ndarray, ts: np.ndarray, ks: Sequence[int] | None = None
) -> TruncationCurve:
    """`truncation_bias` of `TruncatedBPTT(k)` for several k.

    Parameters
    ----------
    model : RNNLM or SequenceRegressor
    xs, ts : ndarray (N, T, ...)
        The arguments of the model's `forward`.
    ks : sequence of int, optional
        The windows; by default 1, 2, 4 ... below T.

    Returns
    -------
    TruncationCurve

    Raises
    ------
    TypeError, ValueError
        The model does not work in parts, or a number is out of its range.

    Examples
    --------
    >>> import rnnfast
    >>> model = rnnfast.RNNLM(7, 8, 8, rng=np.random.default_rng(0))
    >>> ids = np.random.default_rng(1).integers(0, 7, (1, 101))
    >>> curve = truncation_curve(model, ids[:, :-1], ids[:, 1:], ks=[1, 10, 100])
    >>> curve.relative_errors.shape, bool(curve.relative_errors[0] > curve.relative_errors[1])
    ((3,), True)
    """
    owner = "truncation_curve"
    _check.objects.works_in_parts(owner, model, Body)
    if ks is None:
        ks = [2**power for power in range(max(1, (int(np.shape(xs)[1]) - 1).bit_length()))]
    if not len(ks):
        raise ValueError(f"{owner}: ks must hold at least one window, got none.")
    checked = [_check.values.size(owner, f"ks[{i}]", k) for i, k in enumerate(ks)]
    found = np.array([truncation_bias(model, xs, ts, k) for k in checked])
    return TruncationCurve(np.array(checked), found[:, 0], found[:, 1])
