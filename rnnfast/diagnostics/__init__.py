"""Looking into training: what gradients are worth.

* `truncation.py`: how far the gradients of truncated backpropagation are from the exact ones.
"""

from rnnfast.diagnostics.truncation import TruncationBias, truncation_bias

__all__ = ["TruncationBias", "truncation_bias"]
