"""Language models, and regression on sequences.

* `model.py`: `Model`, a body and an output: the two passes, reading in parts, saving; `body.py`: an embedding
  or nothing, recurrent layers and dropout.
* `language_model.py`: loss, prediction and generation of text; `rnnlm.py`: `RNNLM`, the recurrent language
  model; `cbow.py`: `CBOWLM`, the baseline that forgets the order of words.
* `regressor.py`: `SequenceRegressor`.
* `weights.py`: the layers by name, where parameters start, and the file format, one safetensors file per
model;
  `loading.py`: `load_model`, for any class.
"""

from rnnfast.models.cbow import CBOWLM
from rnnfast.models.loading import load_model
from rnnfast.models.regressor import SequenceRegressor
from rnnfast.models.rnnlm import RNNLM

__all__ = ["CBOWLM", "RNNLM", "SequenceRegressor", "load_model"]
