"""Language models, and regression on sequences.

* `rnnlm.py`: `RNNLM`, the recurrent language model; `cbow.py`: `CBOWLM`, the baseline that forgets the order
  of words.
* `language_model.py`: what both share: loss, prediction, generation, saving; `scoring.py` adds up the losses
  of a text of any length, `sampling.py` draws the next word.
* `regressor.py`: `SequenceRegressor`; `recurrent_model.py`: what it shares with `RNNLM`, among it work on
  parts of a long sequence; `cells.py`: the kinds of recurrent layers.
* `stored.py`: saving and loading; `weights.py`: the file format, one safetensors file a model; `loading.py`:
  `load_model`, whatever the class.
"""

from rnnfast.models.cbow import CBOWLM
from rnnfast.models.loading import load_model
from rnnfast.models.regressor import SequenceRegressor
from rnnfast.models.rnnlm import RNNLM

__all__ = ["CBOWLM", "RNNLM", "SequenceRegressor", "load_model"]
