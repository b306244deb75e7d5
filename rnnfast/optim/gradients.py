"""Processing of gradients before an update: sums of shared gradients, clipping, a health check."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np

from rnnfast import _check
from rnnfast.engine.arrays import Seen
from rnnfast.kernels.elementwise import optim as kernels
from rnnfast.layers.base import Workspace


def _storage(array: np.ndarray) -> tuple | None:
    """The identity of an array's memory: address, dtype, length and stride of axes longer than 1."""
    if not array.size:
        return None
    axes = tuple((n, step) for n, step in zip(array.shape, array.strides, strict=True) if n > 1)
    return array.__array_interface__["data"][0], array.dtype, array.ndim, axes


def merge_shared(
    params: Sequence[np.ndarray], grads: Sequence[np.ndarray], *, workspace: Workspace | None = None
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """List each parameter once; the gradients of arrays that share memory, also transposed, are added up.

    This does the work of the book's `remove_duplicate`, but compares memory (address, shape, strides) instead
    of values, and does not write into `grads`.

    Parameters
    ----------
    params, grads : sequence of ndarray
        One gradient per parameter, of the same shape.
    workspace : Workspace, optional
        Memory for the sums, so that repeated calls allocate nothing; new arrays by default.

    Returns
    -------
    params, grads : list of ndarray
        The first occurrence of each parameter, and its gradient: the given array if the parameter occurs
        once, else a sum in order of position.

    Raises
    ------
    TypeError, ValueError
        If the lists do not match.

    Notes
    -----
    Source: Saito, *Deep Learning from Scratch 2*, `common/trainer.py`.

    Examples
    --------
    >>> import numpy as np
    >>> from rnnfast import optim
    >>> W = np.zeros((2, 3))
    >>> params, grads = optim.merge_shared([W, W.T], [np.ones((2, 3)), np.arange(6.0).reshape(3, 2)])
    >>> len(params), grads[0]
    (1, array([[1., 3., 5.],
           [2., 4., 6.]]))
    """
    _check.objects.parameters_and_gradients("merge_shared", params, grads)
    where: dict[tuple, int] = {}
    summed: set[int] = set()
    kept_params: list[np.ndarray] = []
    kept_grads: list[np.ndarray] = []
    for param, grad in zip(params, grads, strict=True):
        key = _storage(param)
        i = None if key is None else where.get(key)
        if i is None and key is not None:
            i = where.get((*key[:3], key[3][::-1]))
            grad = grad if i is None else grad.T
        if i is None:
            if key is not None:
                where[key] = len(kept_params)
            kept_params.append(param)
            kept_grads.append(grad)
            continue
        if i not in summed:
            total = (workspace or Workspace()).take(f"shared.{i}", param.shape, param.dtype)
            total = total.reshape(kept_params[i].shape)
            total[...] = kept_grads[i]
            kept_grads[i] = total
            summed.add(i)
        kept_grads[i] += grad
    return kept_params, kept_grads


class Merged(NamedTuple):
    """Parameters and gradients, each once, and the gradients as flat arrays."""

    params: list[np.ndarray]
    grads: list[np.ndarray]
    flat: list[np.ndarray]

    def clip(self, max_norm: float | None) -> float:
        """`clip_by_norm`, or `global_norm` for None, without its checks."""
        norm = _norm(self.flat)
        return norm if max_norm is None else _scale_down(self.grads, self.flat, norm, max_norm)


class SharedGradients:
    """`merge_shared` for the same arrays again and again, as in training: those that share no memory are
    looked at once."""

    def __init__(self) -> None:
        self._workspace, self._seen = Workspace(), Seen()

    def merged(self, params: Sequence[np.ndarray], grads: Sequence[np.ndarray]) -> Merged:
        """Parameters and gradients, each once."""
        given = [*params, *grads]
        found = self._seen.of(given)
        if found is None:
            once = merge_shared(params, grads, workspace=self._workspace)
            _check.objects.gradients("Trainer.fit", once[1])
            found = Merged(*once, [_flat(grad) for grad in once[1]])
            views = all(map(np.may_share_memory, found.flat, found.grads))
            if views and len(found.params) == len(params):
                self._seen.keep(given, found)
        return found


def _flat(array: np.ndarray) -> np.ndarray:
    """All elements as a flat array, in the order of memory: a view if there are no gaps, else a copy."""
    array = np.asarray(array)  # an np.matrix would keep two axes
    order: Literal["C", "F"] = "F" if array.flags.f_contiguous else "C"
    return _check.arrays.kernel_ready(array.reshape(-1, order=order))


def _apply_in_place(kernel: Callable, array: np.ndarray, flat: np.ndarray, value: float) -> None:
    """Run an in-place kernel with one scalar over an array of any layout, given also as `_flat`."""
    kernel(flat, array.dtype.type(value))
    if not np.may_share_memory(flat, array):
        array[...] = flat.reshape(array.shape)


def _norm(flat: Sequence[np.ndarray]) -> float:
    """The Euclidean norm of all elements of flat arrays."""
    lanes = np.empty(kernels.LANES)
    return math.sqrt(sum(kernels.squared_norm(one, lanes) for one in flat))


def _scale_down(
    grads: Sequence[np.ndarray], flat: Sequence[np.ndarray], norm: float, max_norm: float
) -> float:
    """Scale gradients of this norm, given also as flat arrays, to at most `max_norm`; returns `norm`."""
    rate = max_norm / (norm + 1e-6)
    if math.isfinite(norm) and rate < 1:
        for grad, one in zip(grads, flat, strict=True):
            _apply_in_place(kernels.scale_in_place, grad, one, rate)
    return norm


def global_norm(grads: Sequence[np.ndarray]) -> float:
    """The Euclidean norm of all gradients together, summed in float64; not finite if an element is not.

    Parameters
    ----------
    grads : sequence of ndarray
        float32 or float64, any shapes.

    Examples
    --------
    >>> import numpy as np
    >>> from rnnfast import optim
    >>> optim.global_norm([np.array([3.0]), np.array([[4.0]])])
    5.0
    """
    _check.objects.gradients("global_norm", grads)
    return _norm([_flat(grad) for grad in grads])


def clip_by_norm(grads: Sequence[np.ndarray], max_norm: float) -> float:
    """Scale all gradients in place by ``max_norm / (norm + 1e-6)`` if that is below 1.

    Parameters
    ----------
    grads : sequence of ndarray
        float32 or float64; a shared array must be listed once, see `merge_shared`.
    max_norm : float
        Largest global norm allowed, at least 0.

    Returns
    -------
    norm : float
        The global norm before clipping. If it is NaN or infinite, the gradients are unchanged, so the caller
        can inspect them. (Float64 gradients above 1e154 also have an infinite norm.)

    Raises
    ------
    TypeError, ValueError
        If a gradient is not a writable float array, or `max_norm` is negative or not finite.

    Notes
    -----
    Source: Saito, *Deep Learning from Scratch 2*, section 6.1; Pascanu, Mikolov, Bengio, 2013.

    Examples
    --------
    >>> import numpy as np
    >>> from rnnfast import optim
    >>> grads = [np.array([3.0, 4.0])]
    >>> optim.clip_by_norm(grads, 1.0), grads[0].round(4)
    (5.0, array([0.6, 0.8]))
    """
    max_norm = _check.values.number("clip_by_norm", "max_norm", max_norm, 0)
    _check.objects.gradients("clip_by_norm", grads)
    flat = [_flat(grad) for grad in grads]
    return _scale_down(grads, flat, _norm(flat), max_norm)


def clip_by_value(grads: Sequence[np.ndarray], limit: float) -> None:
    """Clamp every element to ``[-limit, limit]`` in place; NaN stays NaN, so that later checks find it.

    Parameters
    ----------
    grads : sequence of ndarray
        float32 or float64, any shapes.
    limit : float
        At least 0.

    Examples
    --------
    >>> import numpy as np
    >>> from rnnfast import optim
    >>> grads = [np.array([-3.0, 0.5])]
    >>> optim.clip_by_value(grads, 1.0)
    >>> grads[0]
    array([-1. ,  0.5])
    """
    limit = _check.values.number("clip_by_value", "limit", limit, 0)
    _check.objects.gradients("clip_by_value", grads)
    for grad in grads:
        _apply_in_place(kernels.clamp_in_place, grad, _flat(grad), limit)


def all_finite(grads: Sequence[np.ndarray]) -> bool:
    """Whether no element of any array is NaN or infinite.

    Parameters
    ----------
    grads : sequence of ndarray
        float32 or float64, any shapes; may also be parameters.

    Examples
    --------
    >>> import numpy as np
    >>> from rnnfast import optim
    >>> optim.all_finite([np.ones(3), np.array([np.nan])])
    False
    """
    _check.objects.gradients("all_finite", grads)
    return all(kernels.all_finite(_flat(grad)) for grad in grads)
