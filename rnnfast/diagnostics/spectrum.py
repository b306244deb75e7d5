"""The eigenvalues of recurrent weights: whether a recurrence forgets or explodes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from rnnfast.diagnostics.apart import Apart
from rnnfast.models.model import Model


class SpectralRadius(NamedTuple):
    """Of each recurrent matrix (H, H); L layers, G gates.

    Attributes
    ----------
    gates : tuple of str
        "h" for the RNN; f, g, i, o for the LSTM; z, r, h for the GRU.
    radii : ndarray (L, G)
        The largest absolute value of an eigenvalue.
    norms : ndarray (L, G)
        The largest singular value, never below the radius: the most that one step can make longer.
    """

    gates: tuple[str, ...]
    radii: np.ndarray
    norms: np.ndarray


def spectral_radius(model: Model) -> SpectralRadius:
    """The spectral radius and norm of each recurrent matrix, one a gate.

    In an RNN ``dh_{t-1} = (dh_t f'(h_t)) Wh^T``, ``f' <= 1``: where the norm is below 1, gradients vanish,
    and only where it is above 1 can they explode. A radius below 1 with a larger norm lets them grow for some
    steps. In gated cells the matrices alone do not decide, since the state also passes around them.

    Parameters
    ----------
    model : RNNLM or SequenceRegressor

    Returns
    -------
    SpectralRadius

    Raises
    ------
    TypeError, ValueError
        The model has no recurrent layers, or weights are not finite.

    Source: Pascanu, Mikolov and Bengio, *On the difficulty of training recurrent neural networks*, 2013.

    Examples
    --------
    >>> import rnnfast
    >>> model = rnnfast.RNNLM(7, 4, 2, cell="rnn", rng=np.random.default_rng(0))
    >>> model.params[2][...] = [[0.5, 8.0], [0.0, -0.9]]           # layer0_Wh
    >>> found = spectral_radius(model)
    >>> found.gates, found.radii.round(3), found.norms.round(3)
    (('h',), array([[0.9]]), array([[8.066]]))
    """
    owner = "spectral_radius"
    apart = Apart(owner, model)
    matrices = []
    for name, layer in zip(apart.names, apart.layers, strict=True):
        width = layer.hidden_size
        Wh = layer.params[1].astype(np.float64)
        if not np.isfinite(Wh).all():
            raise ValueError(f"{owner}: {name}_Wh must be finite, got NaN or infinity; the model is damaged.")
        matrices.append(Wh.reshape(width, len(apart.gates), width).swapaxes(0, 1))
    stacked = np.stack(matrices)
    radii = np.abs(np.linalg.eigvals(stacked)).max(axis=-1)
    return SpectralRadius(apart.gates, radii, np.linalg.norm(stacked, 2, axis=(-2, -1)))
