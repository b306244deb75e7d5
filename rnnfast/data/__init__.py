"""Text for language models: from files to batches of token ids, never all of it in memory.

A text passes through here in four steps, one file each:

* `corpus.py`: a `Corpus` streams text, from files (`read_files`) or from memory, and splits off a validation
  part; `python_manual.py` has the text to train on when none is given (`default_corpus`).
* `tokenizer.py`: `WordTokenizer` and `CharTokenizer` learn a vocabulary and turn text to ids and back, and so
  does `WhitespaceTokenizer` in `prepared.py`, for text that is split into words already; `vocabulary.py` has
  what they share, `words.py` says where words begin and end.
* `ids_file.py`: `encode_to_memmap` writes the ids to a memory-mapped file, `open_ids` opens it again.
* `batching.py`: `WindowBatches` cuts ids to windows for training, `evaluation_windows` for scoring.

What cannot be used is refused with a `CorpusError` before training starts.

>>> train, valid = default_corpus().split()
>>> tokenizer = WordTokenizer.fit(train, min_count=2, lower=True)
>>> tokenizer.decode(tokenizer.encode("The value of the expression is returned."))
'the value of the expression is returned.'
"""

from rnnfast._check import CorpusError
from rnnfast.data.batching import WindowBatches, evaluation_windows
from rnnfast.data.corpus import Corpus, read_files
from rnnfast.data.ids_file import encode_to_memmap, open_ids
from rnnfast.data.prepared import WhitespaceTokenizer
from rnnfast.data.python_manual import default_corpus
from rnnfast.data.tokenizer import CharTokenizer, WordTokenizer, tokenizer_from_dict
from rnnfast.data.vocabulary import Tokenizer
from rnnfast.data.words import join_words, split_words

__all__ = [
    "CharTokenizer",
    "Corpus",
    "CorpusError",
    "Tokenizer",
    "WhitespaceTokenizer",
    "WindowBatches",
    "WordTokenizer",
    "default_corpus",
    "encode_to_memmap",
    "evaluation_windows",
    "join_words",
    "open_ids",
    "read_files",
    "split_words",
    "tokenizer_from_dict",
]
