"""Training: how gradients flow through time, the loop around it, and what is saved.

* `bptt.py`: `TruncatedBPTT` reads a text window by window and cuts gradients some steps back; `exact.py`:
  `ExactBPTT` carries them through the whole text in little memory.
* `trainer.py`: `Trainer`, with clipping, validation and annealing; `progress.py`: its reports; `safety.py`:
  protection of the parameters from Ctrl-C and exploding updates.
* `keeper.py`: the state of training in one file, for resuming.
* `ranks.py`: `Ranks`, the processes that train one model together; `exchanges.py`: how they exchange arrays;
  `batch_blocks.py`: the rows of each; `alike.py`: what they decide together; `lost_ranks.py` and `guard.py`:
  the end of all when one is lost.
* `evaluation.py`: `perplexity`. `checkpoint.py`: run folders.
"""

from rnnfast.training.bptt import TruncatedBPTT
from rnnfast.training.checkpoint import Checkpoint, Run, load_checkpoint
from rnnfast.training.evaluation import perplexity
from rnnfast.training.exact import ExactBPTT
from rnnfast.training.progress import Progress
from rnnfast.training.ranks import Ranks
from rnnfast.training.safety import StopTraining, TrainingDiverged
from rnnfast.training.trainer import Trainer

__all__ = [
    "Checkpoint",
    "ExactBPTT",
    "Progress",
    "Ranks",
    "Run",
    "StopTraining",
    "Trainer",
    "TrainingDiverged",
    "TruncatedBPTT",
    "load_checkpoint",
    "perplexity",
]
