"""Looking into training: what gradients are worth, how far they reach, and what stands in their way.

* `truncation.py`: how far the gradients of truncated backpropagation are from the exact ones.
* `windows.py`: the same over the length of the window.
* `lags.py`: how much of a gradient arrives at states that lie back in time.
* `spectrum.py`: the eigenvalues of recurrent weights.
* `saturation.py`: gates that are shut or wide open.
* `plots.py`: the pictures of all of these. `apart.py`: a model's layers, apart from what it carries.
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
from rnnfast.diagnostics.truncation import TruncationBias, truncation_bias
from rnnfast.diagnostics.windows import TruncationCurve, truncation_curve

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
