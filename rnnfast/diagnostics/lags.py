"""Vanishing and exploding gradients: the gradient of a loss with respect to earlier states."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from rnnfast import _check
from rnnfast.diagnostics.apart import Apart
from rnnfast.models.model import Model

_MOST_LAGS = 100
_MOST_TARGETS = 16


class GradientByLag(NamedTuple):
    """Gradient norms of single losses with respect to earlier states; L layers, J targets, K lags.

    The states are the cell's: h, the output, is the first. An LSTM also has c, along which gradients are
    meant to last.

    Attributes
    ----------
    lags : ndarray of int (K + 1,)
        0 to K, the number of steps from the state to the loss.
    targets : ndarray of int (J,)
        The steps of the losses.
    norms : dict of str to ndarray (L, J, K + 1)
        For each state, ``||dL_t / dh_{t-k}||`` of each layer from the bottom, averaged over the sequences.
        NaN if no sequence has a target at the step. Lag 0 is 0 except for the output, since the loss reads no
        other state.

    Examples
    --------
    >>> import numpy as np, rnnfast
    >>> from rnnfast.diagnostics import gradient_by_lag
    >>> model = rnnfast.RNNLM(9, 4, 4, rng=np.random.default_rng(0))
    >>> ids = np.arange(42).reshape(2, 21) % 9
    >>> found = gradient_by_lag(model, ids[:, :-1], ids[:, 1:], lags=8)
    >>> found.lags.size, found.norms["h"].shape[2]
    (9, 9)
    """

    lags: np.ndarray
    targets: np.ndarray
    norms: dict[str, np.ndarray]

    @property
    def h_norms(self) -> np.ndarray:
        """The norms of the output, (L, J, K + 1)."""
        return next(iter(self.norms.values()))

    def mean(self) -> np.ndarray:
        """`h_norms` averaged over the targets, (L, K + 1)."""
        return np.nanmean(self.h_norms, axis=1)

    def means(self) -> dict[str, np.ndarray]:
        """The norms of each state averaged over the targets, (L, K + 1)."""
        return {state: np.nanmean(norms, axis=1) for state, norms in self.norms.items()}


def gradient_by_lag(
    model: Model,
    xs: np.ndarray,
    ts: np.ndarray,
    lags: int | None = None,
    targets: Sequence[int] | None = None,
) -> GradientByLag:
    """Gradient of the loss at a step with respect to the states 0, 1, 2 ... steps before it.

    ``L_t`` is the loss of the single prediction at step t of a sequence. Its gradient with respect to the
    state ``h_{t-k}`` of a layer is taken over every path, including paths through the layers above. A
    gradient that falls with k limits learning over k steps; a gradient that grows explodes. Computed without
    dropout, from a fresh state. The model and its gradients do not change.

    Parameters
    ----------
    model : RNNLM or SequenceRegressor
        With any cell and number of layers.
    xs, ts : ndarray (N, T, ...)
        The arguments of the model's `forward`.
    lags : int, optional
        K, below T; by default half of the steps (all, if only the last step has a target), at most 100.
    targets : sequence of int, optional
        Steps of the losses, each with K steps before it; by default up to 16, evenly spread.

    Returns
    -------
    GradientByLag

    Raises
    ------
    TypeError, ValueError, IndexError
        The model has no recurrent layers, an array does not fit it, a number is out of its range, or no step
        has a target.

    Notes
    -----
    The computation takes K + 1 steps back, with all targets and sequences in one batch.

    Source: Pascanu, Mikolov and Bengio, *On the difficulty of training recurrent neural networks*, 2013.

    Examples
    --------
    >>> import rnnfast
    >>> model = rnnfast.RNNLM(7, 8, 8, rng=np.random.default_rng(0))
    >>> model.params[2] *= 0.3                                     # layer0_Wh: a recurrence that forgets
    >>> ids = np.random.default_rng(1).integers(0, 7, (4, 41))
    >>> found = gradient_by_lag(model, ids[:, :-1], ids[:, 1:], lags=20)
    >>> found.h_norms.shape, found.mean().shape
    ((1, 16, 21), (1, 21))
    >>> bool(found.mean()[0, 20] < 1e-3 * found.mean()[0, 0])
    True
    """
    owner = "gradient_by_lag"
    apart = Apart(owner, model)
    vectors = apart.vectors(xs)
    batch, steps, _ = vectors.shape
    ts = apart.targets(ts, batch, steps)
    at_the_end = ts.ndim == 2 and ts.dtype.kind == "f"
    if lags is None:
        lags = min(_MOST_LAGS, steps - 1 if at_the_end else steps // 2)
    lags = _check.values.size(owner, "lags", lags, 0, steps - 1)
    scored = np.ones((batch, steps), np.bool_) if ts.dtype.kind == "f" else ts != -1
    chosen = _chosen(owner, targets, scored, steps - 1 if at_the_end else lags)
    last = int(chosen.max()) + 1
    inputs, states = _read(apart.layers, vectors[:, :last])
    own = ts[np.newaxis] if at_the_end else ts.swapaxes(0, 1)[chosen]
    dhs = _loss_gradient(apart.output, states[-1][0][chosen + 1], own)
    norms = _go_back(apart.layers, inputs, states, chosen, dhs, lags)
    counted = scored.T[chosen]
    means = [_mean_over_rows(of_state, counted) for of_state in norms]
    return GradientByLag(np.arange(lags + 1), chosen, dict(zip(apart.cell.states, means, strict=True)))


def _chosen(owner: str, targets: Sequence[int] | None, scored: np.ndarray, first: int) -> np.ndarray:
    """The steps (J,) of the losses: as given, or spread over the steps with a target from `first` on."""
    last = scored.shape[1] - 1
    found = first + np.flatnonzero(scored[:, first:].any(axis=0))
    if targets is not None:
        steps = [_check.values.size(owner, f"targets[{i}]", t, first, last) for i, t in enumerate(targets)]
        given = np.array(steps, dtype=np.int64)
        found = given if np.isin(given, found).any() else found[:0]
    if not found.size:
        where = f"step {first} or later" if targets is None else "the steps of `targets`"
        raise ValueError(f"{owner}: ts must have a target at {where}, got none.")
    if targets is not None:
        return found
    return found[np.linspace(0, found.size - 1, min(_MOST_TARGETS, found.size)).round().astype(np.int64)]


def _read(layers: list[Any], vectors: np.ndarray) -> tuple[list[np.ndarray], list[list[np.ndarray]]]:
    """The inputs (T, N, D) and the states (T + 1, N, H) of each layer, initial states first."""
    inputs, states = [np.ascontiguousarray(vectors.swapaxes(0, 1))], []
    for layer in layers:
        kept = [[np.zeros((vectors.shape[0], layer.hidden_size), layer.dtype) for _ in layer.cell.states]]
        for x in inputs[-1]:
            layer.step(x)
            kept.append(list(layer.get_state()))
        states.append([np.stack(of_state) for of_state in zip(*kept, strict=True)])
        inputs.append(states[-1][0][1:])
    return inputs[:-1], states


def _loss_gradient(output: Any, hs: np.ndarray, ts: np.ndarray) -> np.ndarray:
    """The gradient (J * N, H) of each loss with respect to its output (J, N, H); zero without a target."""
    width = hs.shape[-1]
    flat = ts.reshape(-1, 1, *ts.shape[2:])
    output.forward(hs.reshape(-1, 1, width), flat)
    count = int(np.count_nonzero(flat != -1)) if flat.dtype.kind in "iu" else len(flat)
    return output.backward().reshape(-1, width) * max(1, count)


def _go_back(
    layers: list[Any],
    inputs: list[np.ndarray],
    states: list[list[np.ndarray]],
    targets: np.ndarray,
    dhs: np.ndarray,
    lags: int,
) -> list[np.ndarray]:
    """Norms (L, J, N, K + 1) of the gradients of each state, computed step by step for all targets.

    Each step is a separate window, read again from the state before it, so that `backward` returns the
    gradient of each state.
    """
    rows = len(dhs)
    batch = rows // targets.size
    arriving = [
        [np.zeros((rows, layer.hidden_size), layer.dtype) for _ in layer.cell.states] for layer in layers
    ]
    norms = [np.zeros((len(layers), targets.size, batch, lags + 1)) for _ in layers[0].cell.states]
    above = dhs
    for lag in range(lags + 1):
        place = targets - lag
        for index in reversed(range(len(layers))):
            layer, given = layers[index], arriving[index]
            whole = [above + given[0], *given[1:]]
            for of_state, gradient in zip(norms, whole, strict=True):
                of_state[index, ..., lag] = _norm(gradient).reshape(targets.size, batch)
            before = [of_state[place].reshape(rows, -1) for of_state in states[index]]
            layer.set_state(*before)
            layer.forward(inputs[index][place].reshape(rows, 1, -1))
            later = {
                f"d{name}_next": gradient for name, gradient in zip(layer.cell.states, given, strict=True)
            }
            above = layer.backward(above[:, np.newaxis], **later)[:, 0]
            arriving[index] = list(layer.get_state_gradients())
        above = np.zeros_like(dhs)
    return norms


def _norm(gradient: np.ndarray) -> np.ndarray:
    """The norm of each row, in float64: squares of small numbers are zero in float32."""
    return np.linalg.norm(gradient.astype(np.float64), axis=-1)


def _mean_over_rows(norms: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """The mean (L, J, K + 1) of norms (L, J, N, K + 1) over the rows with a target; other norms are zero."""
    count = counted.sum(axis=1)
    means = norms.sum(axis=2) / np.maximum(1, count)[:, np.newaxis]
    means[:, count == 0] = np.nan
    return means
