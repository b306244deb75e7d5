"""The public names of rnnfast and where they are defined: `__init__.py` imports each at its first use."""

from rnnfast import cells as cells
from rnnfast import diagnostics as diagnostics
from rnnfast import heads as heads
from rnnfast import interop as interop
from rnnfast import optim as optim
from rnnfast import sklearn as sklearn
from rnnfast import time_layers as time_layers
from rnnfast import torch as torch
from rnnfast._check import CheckpointError as CheckpointError
from rnnfast._check import CorpusError as CorpusError
from rnnfast.book.bi_lstm import TimeBiLSTM as TimeBiLSTM
from rnnfast.book.binary_loss import TimeSigmoidWithLoss as TimeSigmoidWithLoss
from rnnfast.book.recurrent import GRU as GRU
from rnnfast.book.recurrent import LSTM as LSTM
from rnnfast.book.recurrent import RNN as RNN
from rnnfast.cells import CellError as CellError
from rnnfast.cells import bernoulli as bernoulli
from rnnfast.cells import cell as cell
from rnnfast.cells import constant as constant
from rnnfast.cells import given as given
from rnnfast.cells import normal as normal
from rnnfast.cells import scalar as scalar
from rnnfast.cells import unit as unit
from rnnfast.data import CharTokenizer as CharTokenizer
from rnnfast.data import WhitespaceTokenizer as WhitespaceTokenizer
from rnnfast.data import WordTokenizer as WordTokenizer
from rnnfast.engine.threads import get_num_threads as get_num_threads
from rnnfast.engine.threads import set_num_threads as set_num_threads
from rnnfast.layers.affine import TimeAffine as TimeAffine
from rnnfast.layers.bidirectional import Bidirectional as Bidirectional
from rnnfast.layers.dropout import TimeDropout as TimeDropout
from rnnfast.layers.embedding import TimeContextSum as TimeContextSum
from rnnfast.layers.embedding import TimeEmbedding as TimeEmbedding
from rnnfast.layers.gru import TimeGRU as TimeGRU
from rnnfast.layers.head import TimeAffineSquaredLoss as TimeAffineSquaredLoss
from rnnfast.layers.head import TimeAffineWithLoss as TimeAffineWithLoss
from rnnfast.layers.loss import TimeAffineSoftmaxWithLoss as TimeAffineSoftmaxWithLoss
from rnnfast.layers.loss import TimeSoftmaxWithLoss as TimeSoftmaxWithLoss
from rnnfast.layers.lstm import TimeLSTM as TimeLSTM
from rnnfast.layers.recurrent import Recurrent as Recurrent
from rnnfast.layers.rnn import TimeRNN as TimeRNN
from rnnfast.layers.stack import Stack as Stack
from rnnfast.layers.state import State as State
from rnnfast.models import CBOWLM as CBOWLM
from rnnfast.models import RNNLM as RNNLM
from rnnfast.models import SequenceRegressor as SequenceRegressor
from rnnfast.training import ExactBPTT as ExactBPTT
from rnnfast.training import Trainer as Trainer
from rnnfast.training import TrainingDiverged as TrainingDiverged
from rnnfast.training import TruncatedBPTT as TruncatedBPTT
from rnnfast.training import perplexity as perplexity
from rnnfast.training.warmup import warmup as warmup

__version__: str
__all__: list[str]
