"""rnnfast: recurrent networks on a CPU, compiled."""


def _bind_source_tree_kernels() -> None:
    """Make `rnnfast.kernels` importable when Python runs in the repository root, next to `kernels/`."""
    import importlib.util
    import sys
    from pathlib import Path

    if importlib.util.find_spec("rnnfast.kernels") is not None:
        return
    root = Path(__file__).resolve().parent.parent
    init = root / "kernels" / "__init__.py"
    if not (init.is_file() and (root / "pyproject.toml").is_file()):
        return
    spec = importlib.util.spec_from_file_location(
        "rnnfast.kernels", init, submodule_search_locations=[str(init.parent)]
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["rnnfast.kernels"] = module
    spec.loader.exec_module(module)
    globals()["kernels"] = module


_bind_source_tree_kernels()
del _bind_source_tree_kernels

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """Import `rnnfast.diagnostics`, `interop`, `sklearn`, `time_layers`, `torch` at first use."""
    if name not in ("diagnostics", "interop", "sklearn", "time_layers", "torch"):
        raise AttributeError(f"module 'rnnfast' has no attribute {name!r}")
    import importlib

    return importlib.import_module(f"rnnfast.{name}")


from rnnfast import cells, heads, optim  # noqa: E402
from rnnfast._check import CheckpointError, CorpusError  # noqa: E402
from rnnfast.book.bi_lstm import TimeBiLSTM  # noqa: E402
from rnnfast.book.binary_loss import TimeSigmoidWithLoss  # noqa: E402
from rnnfast.book.recurrent import GRU, LSTM, RNN  # noqa: E402
from rnnfast.cells import (  # noqa: E402
    CellError,
    bernoulli,
    cell,
    constant,
    given,
    normal,
    scalar,
    unit,
)
from rnnfast.data import CharTokenizer, WhitespaceTokenizer, WordTokenizer  # noqa: E402
from rnnfast.engine.threads import get_num_threads, set_num_threads  # noqa: E402
from rnnfast.layers.affine import TimeAffine  # noqa: E402
from rnnfast.layers.bidirectional import Bidirectional  # noqa: E402
from rnnfast.layers.dropout import TimeDropout  # noqa: E402
from rnnfast.layers.embedding import TimeContextSum, TimeEmbedding  # noqa: E402
from rnnfast.layers.gru import TimeGRU  # noqa: E402
from rnnfast.layers.head import TimeAffineSquaredLoss, TimeAffineWithLoss  # noqa: E402
from rnnfast.layers.loss import TimeAffineSoftmaxWithLoss, TimeSoftmaxWithLoss  # noqa: E402
from rnnfast.layers.lstm import TimeLSTM  # noqa: E402
from rnnfast.layers.recurrent import Recurrent  # noqa: E402
from rnnfast.layers.rnn import TimeRNN  # noqa: E402
from rnnfast.layers.stack import Stack  # noqa: E402
from rnnfast.layers.state import State  # noqa: E402
from rnnfast.models import CBOWLM, RNNLM, SequenceRegressor  # noqa: E402
from rnnfast.training import ExactBPTT, Trainer, TrainingDiverged, TruncatedBPTT, perplexity  # noqa: E402
from rnnfast.training.warmup import warmup  # noqa: E402

__all__ = [
    "CBOWLM",
    "GRU",
    "LSTM",
    "RNN",
    "RNNLM",
    "Bidirectional",
    "CellError",
    "CharTokenizer",
    "CheckpointError",
    "CorpusError",
    "ExactBPTT",
    "Recurrent",
    "SequenceRegressor",
    "Stack",
    "State",
    "TimeAffine",
    "TimeAffineSoftmaxWithLoss",
    "TimeAffineSquaredLoss",
    "TimeAffineWithLoss",
    "TimeBiLSTM",
    "TimeContextSum",
    "TimeDropout",
    "TimeEmbedding",
    "TimeGRU",
    "TimeLSTM",
    "TimeRNN",
    "TimeSigmoidWithLoss",
    "TimeSoftmaxWithLoss",
    "Trainer",
    "TrainingDiverged",
    "TruncatedBPTT",
    "WhitespaceTokenizer",
    "WordTokenizer",
    "bernoulli",
    "cell",
    "cells",
    "constant",
    "get_num_threads",
    "given",
    "heads",
    "normal",
    "optim",
    "perplexity",
    "scalar",
    "set_num_threads",
    "unit",
    "warmup",
]
