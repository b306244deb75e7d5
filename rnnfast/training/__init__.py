"""Training: how gradients flow through time, the loop around it, and what is saved.

* `bptt.py`: `TruncatedBPTT` walks a model along a text and stops gradients some steps back; `exact.py`:
  `ExactBPTT` takes them through the whole of it in little memory.
* `trainer.py`: `Trainer`, with clipping, validation and annealing; `progress.py`: what it reports;
  `safety.py`: how Ctrl-C and exploding updates leave the parameters whole.
* `keeper.py`: the state of training in one file, from which it goes on.
* `evaluation.py`: `perplexity`. `checkpoint.py`: run folders.
"""

from rnnfast.training.bptt import TruncatedBPTT
from rnnfast.training.checkpoint import Checkpoint, Run, load_checkpoint
from rnnfast.training.evaluation import perplexity
from rnnfast.training.exact import ExactBPTT
from rnnfast.training.progress import Progress
from rnnfast.training.safety import TrainingDiverged
from rnnfast.training.trainer import Trainer

__all__ = [
    "Checkpoint",
    "ExactBPTT",
    "Progress",
    "Run",
    "Trainer",
    "TrainingDiverged",
    "TruncatedBPTT",
    "load_checkpoint",
    "perplexity",
]
