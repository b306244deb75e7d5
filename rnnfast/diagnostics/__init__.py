"""Diagnostics of training: errors of gradients, their reach through time, and what limits it.

* `truncation.py`: the error of truncated backpropagation against the exact gradient, for several windows.
* `lags.py`: gradients with respect to earlier states.
* `spectrum.py`: the eigenvalues of recurrent weights.
* `saturation.py`: gates that are shut or wide open.
* `plots.py`: pictures of all of these. `apart.py`: separate layers on a model's parameters.
"""

from rnnfast.diagnostics.lags import GradientByLag, gradient_by_lag
from rnnfast.diagnostics.plots import (
    plot_gate_saturation,
    plot_gradient_by_lag,
    plot_spectral_radius,
    plot_truncation_bias,
)
from rnnfast.diagnostics.saturation import GateSaturation, gate_saturation
from rnnfast.diagnostics.spectrum import SpectralRadius, spectral_radius
from rnnfast.diagnostics.truncation import TruncationCurve, truncation_curve
from rnnfast.training.truncation import TruncationBias, truncation_bias

__all__ = [
    "GateSaturation",
    "GradientByLag",
    "SpectralRadius",
    "TruncationBias",
    "TruncationCurve",
    "gate_saturation",
    "gradient_by_lag",
    "plot_gate_saturation",
    "plot_gradient_by_lag",
    "plot_spectral_radius",
    "plot_truncation_bias",
    "spectral_radius",
    "truncation_bias",
    "truncation_curve",
]
