"""What happens to gradients before the optimiser sees them: merging shared ones, clipping, a health check."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from rnnfast import _check
from rnnfast.kernels import optim as kernels
from rnnfast.layers.base import Workspace


def _storage(array: np.ndarray) -> tuple | None:
    """What identifies the memory of an array: address, dtype, length and stride of axes longer than 1."""
    if not array.size:
        return None
    axes = tuple((n, step) for n, step in zip(array.shape, array.strides, strict=True) if n > 1)
    return array.__array_interface__["data"][0], array.dtype, array.ndim, axes


def merge_shared(
    params: Sequence[np.ndarray], grads: Sequence[np.ndarray], *, workspace: Workspace | None = None
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Name each parameter once: add up the gradients of arrays that share their memory, also transposed.

    The work of the book's `remove_duplicate`, but by memory (address, shape, strides) and not by comparing
    values, and without writing into `grads`.

    Parameters
    ----------
    params, grads : sequence of ndarray
        As many gradients as parameters, of the same shapes.
    workspace : Workspace, optional
        Where sums are kept, so that repeated calls allocate nothing; fresh arrays by default.

    Returns
    -------
    params, grads : list of ndarray
        The first occurrence of each parameter, and its gradient: the very array given where nothing is
        shared, a sum in order of position otherwise.

    Raises
    ------
    TypeError, ValueError
        If the lists do not fit each other.

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
    _check.parameters_and_gradients("merge_shared", params, grads)
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


def _flat(array: np.ndarray) -> np.ndarray:
    """All elements in one row, in the order of memory: a view where there are no gaps, else a copy."""
    array = np.asarray(array)  # a matrix stays one with two axes
    order: Literal["C", "F"] = "F" if array.flags.f_contiguous else "C"
    return _check.kernel_ready(array.reshape(-1, order=order))


def _apply_in_place(kernel: Callable, array: np.ndarray, value: float) -> None:
    """Run an in-place kernel with one scalar over an array of any layout."""
    flat = _flat(array)
    kernel(flat, array.dtype.type(value))
    if not np.may_share_memory(flat, array):
        array[...] = flat.reshape(array.shape)


def global_norm(grads: Sequence[np.ndarray]) -> float:
    """The Euclidean norm of all gradients as one vector, summed in float64; NaN or infinite if an element is.

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
    _check.gradients("global_norm", grads)
    lanes = np.empty(kernels.LANES)
    return math.sqrt(sum(kernels.squared_norm(_flat(grad), lanes) for grad in grads))


def clip_by_norm(grads: Sequence[np.ndarray], max_norm: float) -> float:
    """Scale all gradients in place by ``max_norm / (norm + 1e-6)`` where that is below 1.

    Parameters
    ----------
    grads : sequence of ndarray
        float32 or float64; an array that belongs to two parameters must be named once, see `merge_shared`.
    max_norm : float
        Largest global norm allowed, at least 0.

    Returns
    -------
    norm : float
        The global norm before clipping. If it is NaN or infinite, the gradients are left as they are, so that
        the caller can stop and look at them. (Float64 gradients above 1e154 also have an infinite norm.)

    Raises
    ------
    TypeError, ValueError
        If a gradient is not a writable float array, or `max_norm` is negative or not finite.

    Source: Saito, *Deep Learning from Scratch 2*, section 6.1; Pascanu, Mikolov, Bengio, 2013.

    Examples
    --------
    >>> import numpy as np
    >>> from rnnfast import optim
    >>> grads = [np.array([3.0, 4.0])]
    >>> optim.clip_by_norm(grads, 1.0), grads[0].round(4)
    (5.0, array([0.6, 0.8]))
    """
    max_norm = _check.number("clip_by_norm", "max_norm", max_norm, 0)
    norm = global_norm(grads)
    rate = max_norm / (norm + 1e-6)
    if math.isfinite(norm) and rate < 1:
        for grad in grads:
            _apply_in_place(kernels.scale_in_place, grad, rate)
    return norm


def clip_by_value(grads: Sequence[np.ndarray], limit: float) -> None:
    """Clamp every element to ``[-limit, limit]`` in place; NaN stays NaN, so that it can be found later.

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
    limit = _check.number("clip_by_value", "limit", limit, 0)
    _check.gradients("clip_by_value", grads)
    for grad in grads:
        _apply_in_place(kernels.clamp_in_place, grad, limit)


def all_finite(grads: Sequence[np.ndarray]) -> bool:
    """Whether no element of any array is NaN or infinite.

    Parameters
    ----------
    grads : sequence of ndarray
        float32 or float64, any shapes; parameters may be looked at in the same way.

    Examples
    --------
    >>> import numpy as np
    >>> from rnnfast import optim
    >>> optim.all_finite([np.ones(3), np.array([np.nan])])
    False
    """
    _check.gradients("all_finite", grads)
    return all(kernels.all_finite(_flat(grad)) for grad in grads)
