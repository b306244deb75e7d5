"""Checks of arguments. Their errors name the owner, the expected value, the received value and the fix.

One module a subject; the rest of the library says `_check.module.name`.
"""

from rnnfast._check import arrays as arrays
from rnnfast._check import interop as interop
from rnnfast._check import objects as objects
from rnnfast._check import series as series
from rnnfast._check import training as training
from rnnfast._check import values as values
from rnnfast._check.errors import CellMissing as CellMissing
from rnnfast._check.errors import CheckpointError as CheckpointError
from rnnfast._check.errors import CorpusError as CorpusError
from rnnfast._check.errors import OtherData as OtherData
