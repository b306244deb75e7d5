"""Training data: text as batches of token ids, without loading the whole text, and sequences of vectors.

Text is processed in four steps, one file each:

* `corpus.py`: a `Corpus` streams text from files (`read_files`) or from memory, and splits off a validation
  part. `samples.py` has the default text (`default_corpus`).
* `tokenizer.py`: `WordTokenizer` and `CharTokenizer` learn a vocabulary and convert text to ids and back.
  `WhitespaceTokenizer` is for text that is already split into words. `vocabulary.py` is their base.
* `ids_file.py`: `encode_to_memmap` writes the ids to a memory-mapped file, `open_ids` opens it again.
* `batching.py`: `WindowBatches` cuts ids into windows for training, `evaluation_windows` for scoring.

`sequences.py` has `Sequences`, vectors with targets; `batching.py` has their batches too. `ts_files.py` reads
sequences with classes from `.ts` files.

Unusable data raise a `CorpusError` before training starts.

>>> train, valid = default_corpus().split()
>>> tokenizer = WordTokenizer.fit(train, min_count=2, lower=True)
>>> tokenizer.decode(tokenizer.encode("The value of the expression is returned."))
'the value of the expression is returned.'
"""

from rnnfast._check import CorpusError
from rnnfast.data.batching import WindowBatches, evaluation_windows
from rnnfast.data.corpus import Corpus, read_files
from rnnfast.data.ids_file import encode_to_memmap, open_ids
from rnnfast.data.samples import default_corpus, mauna_loa_co2
from rnnfast.data.sequences import Sequences
from rnnfast.data.tokenizer import (
    CharTokenizer,
    WhitespaceTokenizer,
    WordTokenizer,
    join_words,
    split_words,
    tokenizer_from_dict,
)
from rnnfast.data.ts_files import read_ts
from rnnfast.data.vocabulary import Tokenizer

__all__ = [
    "CharTokenizer",
    "Corpus",
    "CorpusError",
    "Sequences",
    "Tokenizer",
    "WhitespaceTokenizer",
    "WindowBatches",
    "WordTokenizer",
    "default_corpus",
    "encode_to_memmap",
    "evaluation_windows",
    "join_words",
    "mauna_loa_co2",
    "open_ids",
    "read_files",
    "read_ts",
    "split_words",
    "tokenizer_from_dict",
]
