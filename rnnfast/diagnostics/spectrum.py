"""The eigenvalues of recurrent weights: whether a recurrence forgets or explodes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from rnnfast.diagnostics.apart import Apart
from rnnfast.models.model import Model


class SpectralRadius(NamedTuple):
    """Spectral radius and norm of each recurrent matrix (H, H); L layers, G gates.

    Attributes
    ----------
    gates : tuple of str
        The gates of the cell.
    radii : ndarray (L, G)
        The largest absolute value of an eigenvalue.
    norms : ndarray (L, G)
        The largest singular value, never below the radius: the largest growth in one step.

    Examples
    --------
    >>> import numpy as np, rnnfast
    >>> from rnnfast.diagnostics import spectral_radius
    >>> found = spectral_radius(rnnfast.RNNLM(9, 4, 4, rng=np.random.default_rng(0)))
    >>> found.radii.shape, bool((found.radii <= found.norms).all())
    ((1, 1), True)
    """

    gates: tuple[str, ...]
    radii: np.ndarray
    norms: np.ndarray


def spectral_radius(model: Model) -> SpectralRadius:
    """The spectral radius and norm of each recurrent matrix, one per gate.

    In an RNN ``dh_{t-1} = (dh_t f'(h_t)) Wh^T``, ``f' <= 1``: gradients vanish if the norm is below 1, and
    can explode only if it is above 1. With a radius below 1 and a norm above 1 they may grow for some steps.
    In gated cells the matrices alone do not decide, since the state also passes around them. One recurrent
    weight per unit counts as a diagonal matrix.

    Parameters
    ----------
    model : RNNLM or SequenceRegressor
        With a cell that has recurrent weights.

    Returns
    -------
    SpectralRadius

    Raises
    ------
    TypeError, ValueError
        The model has no recurrent layers, its cell has no recurrent weights, or weights are not finite.

    Notes
    -----
    Source: Pascanu, Mikolov and Bengio, *On the difficulty of training recurrent neural networks*, 2013.

    Examples
    --------
    >>> import rnnfast
    >>> model = rnnfast.RNNLM(7, 4, 2, cell="rnn", rng=np.random.default_rng(0))
    >>> model.params[2][...] = [[0.5, 8.0], [0.0, -0.9]]           # layer0_Wh
    >>> found = spectral_radius(model)
    >>> found.gates, found.radii.round(3), found.norms.round(3)
    (('a',), array([[0.9]]), array([[8.066]]))
    """
    owner = "spectral_radius"
    apart = Apart(owner, model)
    cell = apart.cell
    if not cell.product:
        raise ValueError(
            f"{owner}: the cell {cell.name} has no recurrent weights; gradient_by_lag shows its memory."
        )
    blocks = []
    for name, layer in zip(apart.names, apart.layers, strict=True):
        Wh = layer.params[layer.parameter_names.index("Wh")].astype(np.float64)
        if not np.isfinite(Wh).all():
            raise ValueError(f"{owner}: {name}_Wh must be finite, got NaN or infinity; the model is damaged.")
        blocks.append(np.stack(np.split(Wh, len(cell.gates), axis=-1)))
    stacked = np.stack(blocks)
    if cell.product == "diagonal":
        largest = np.abs(stacked).max(axis=-1)
        return SpectralRadius(cell.gates, largest, largest)
    radii = np.abs(np.linalg.eigvals(stacked)).max(axis=-1)
    return SpectralRadius(cell.gates, radii, np.linalg.norm(stacked, 2, axis=(-2, -1)))
