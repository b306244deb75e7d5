"""Training: how gradients flow through time, the loop around it, and what is saved.

* `bptt.py`: `TruncatedBPTT` reads a text window by window and cuts gradients some steps back; `exact.py`:
  `ExactBPTT` carries them through the whole text in little memory.
* `trainer.py`: `Trainer`, with clipping, validation and annealing; `progress.py`: its reports; `safety.py`:
  protection of the parameters from Ctrl-C and exploding updates.
* `checkpointing.py`: the state of training in one file, for resuming. `checkpoint.py`: run folders.
* `processes.py`: what one process decides, and several together; how a batch is cut into blocks of rows.
* `fitting.py`: `perplexity` and the other measures. `truncation.py`: the bias of truncated gradients.
"""

from rnnfast.training.bptt import TruncatedBPTT
from rnnfast.training.checkpoint import Checkpoint, Run, load_checkpoint
from rnnfast.training.exact import ExactBPTT
from rnnfast.training.fitting import perplexity
from rnnfast.training.progress import Progress
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


def __getattr__(name: str) -> object:
    """`Ranks`, imported where it is used."""
    if name != "Ranks":
        raise AttributeError(f"module 'rnnfast.training' has no attribute {name!r}")
    from rnnfast.distributed.ranks import Ranks

    return Ranks
