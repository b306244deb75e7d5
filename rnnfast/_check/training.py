"""Checks of training: data, corpora, vocabularies, runs, and processes."""

from __future__ import annotations

import codecs
import importlib.util
import inspect
import os
from typing import Any

import numpy as np

from rnnfast._check.arrays import as_array, ids, shape_text
from rnnfast._check.errors import CheckpointError, CorpusError, OtherData
from rnnfast._check.values import size


def text_or_pair(data: Any) -> Any:
    """A list of arrays as a tuple; a tuple is a pair of sequences and targets, anything else is a text."""
    is_list = isinstance(data, list) and data and all(isinstance(part, np.ndarray) for part in data)
    return tuple(data) if is_list else data


def parts_of_sequences(owner: str, data: Any) -> tuple[Any, Any, Any, Any]:
    """Inputs, targets, lengths and weights of a pair or of `Sequences`."""
    if len(data) not in (2, 4):
        raise ValueError(f"{owner}: sequences and targets must be a pair of arrays, got {len(data)}.")
    return (*data, None, None)[:4]


def list_of_arrays(owner: str, name: str, arrays: Any) -> list[np.ndarray]:
    """At least one array (T_i, ...), all with the same dtype and the same size behind the first axis."""
    if not len(arrays):
        raise ValueError(f"{owner}: {name} must have at least one sequence, got an empty list.")
    arrays = [as_array(owner, f"{name}[{index}]", array) for index, array in enumerate(arrays)]
    for index, array in enumerate(arrays):
        if array.ndim != arrays[0].ndim or not array.ndim or array.shape[1:] != arrays[0].shape[1:]:
            wanted = shape_text(("T", *arrays[0].shape[1:]))
            raise ValueError(f"{owner}: {name}[{index}] must be {wanted}, got {shape_text(array.shape)}.")
        if array.dtype != arrays[0].dtype:
            raise TypeError(
                f"{owner}: {name}[{index}] must be {arrays[0].dtype} like the first, got {array.dtype}."
            )
    return arrays


def equal_lengths(owner: str, name: str, found: np.ndarray, lengths: np.ndarray) -> None:
    """Targets or weights of each step have as many steps as their sequence."""
    wrong = np.flatnonzero(found != lengths) if found.shape == lengths.shape else np.arange(1)
    if wrong.size:
        at = wrong[0]
        raise ValueError(
            f"{owner}: {name}[{at}] must have {lengths[at]} steps like its sequence, got {found[at]}."
        )


def sequences_and_targets(owner: str, data: Any) -> tuple[Any, Any]:
    """A pair of arrays (S, T, D), and (S, T, O) or (S, O)."""
    shapes = []
    for name, array in zip(("xs", "ts"), data, strict=True):
        shapes.append(array.shape if hasattr(array, "lengths") else as_array(owner, name, array).shape)
    fits = len(shapes[0]) == 3 and len(shapes[1]) in (2, 3)
    if fits and 0 in shapes[0][:2]:
        raise ValueError(f"{owner}: at least one step is needed, got xs {shape_text(shapes[0])}.")
    if fits and shapes[1][:-1] == shapes[0][: len(shapes[1]) - 1]:
        return data
    raise ValueError(
        f"{owner}: sequences and targets must be (S, T, D) and (S, T, O), or (S, O) for the last step, "
        f"got {' and '.join(map(shape_text, shapes))}."
    )


def kind_of_data(owner: str, name: str, data: Any, model: Any, *, wants_pair: bool) -> None:
    """A text for a language model, sequences with targets for a regression."""
    if isinstance(data, tuple) != wants_pair:
        wanted = "a pair of arrays (sequences, targets)" if wants_pair else "token ids (tokens,)"
        got = f"a tuple of {len(data)}" if isinstance(data, tuple) else f"one {type(data).__name__}"
        raise TypeError(f"{owner}: {name} must be {wanted} for {type(model).__name__}, got {got}.")


def validation_kind(owner: str, is_pair: bool, trains_on_pair: bool) -> None:
    """Validation data are of the same kind as training data."""
    kinds = ("a text", "sequences with targets")
    if is_pair != trains_on_pair:
        raise TypeError(f"{owner}: valid must be {kinds[trains_on_pair]} like ids, got {kinds[is_pair]}.")


def axes_of_targets(owner: str, ts: Any, axes: int) -> None:
    """Targets of sequences (S, O), or of every step (S, T, O)."""
    if len(ts.shape) != axes:
        wanted = "(S, O), one for each sequence" if axes == 2 else "(S, T, O), one for each step"
        raise ValueError(f"{owner}: ts must be {wanted}, got {shape_text(ts.shape)}.")


def order(owner: str, value: Any, count: int) -> np.ndarray:
    """The numbers of `count` sequences, each exactly once."""
    array = ids(owner, "order", value, (count,), count)
    if np.bincount(array, minlength=count).max(initial=0) > 1:
        raise ValueError(f"{owner}: order must name each sequence once.")
    return array


def _windows_take(owner: str, bptt: Any, argument: str, meaning: str) -> None:
    """The `windows` method of a user's own BPTT takes this argument."""
    if argument not in inspect.signature(bptt.windows).parameters:
        raise TypeError(f"{owner}: {type(bptt).__name__}.windows must take {argument}=, {meaning}.")


def reads_in_any_order(owner: str, bptt: Any) -> None:
    """The BPTT can read sequences in a given order."""
    meaning = "the sequence numbers in reading order; or train with Trainer(shuffle=False)"
    _windows_take(owner, bptt, "order", meaning)


def can_go_on(owner: str, bptt: Any) -> None:
    """The BPTT can begin a pass over the data in the middle."""
    _windows_take(owner, bptt, "passed", "the number of windows of the pass already read")


def tokens_enough(owner: str, ids: np.ndarray, batch_size: int, time_size: int) -> None:
    """Each row of a batch must fill at least one window, and each input token needs a next token."""
    needed = batch_size * time_size + 1
    if len(ids) < needed:
        if batch_size == 1:
            fix = "give more text"
        else:
            fix = "give more text, or make the batch or the window smaller"
        raise CorpusError(
            f"{owner}: the text is too short for batch size {batch_size} and window {time_size}: "
            f"{needed} tokens are needed, got {len(ids)}; {fix}."
        )


def run_tokens(owner: str, name: str, tokens: int, batch_size: int, bptt: int) -> None:
    """A text of a run has enough tokens; a text that is only scored has `batch_size` and `bptt` 1."""
    needed = batch_size * bptt + 1
    if tokens < needed == 2:
        raise CorpusError(f"{owner}: {name} must have at least 2 tokens, got {tokens}; give more text.")
    if tokens < needed:
        raise CorpusError(
            f"{owner}: {name} is too short: batch_size {batch_size} and bptt {bptt} need {needed} tokens, "
            f"got {tokens}; lower one of them, or give more text."
        )


def data_not_finite(epoch: int, step: int, name: str, place: tuple[int, ...], value: Any) -> str:
    """The error for data with a NaN or an infinite number."""
    where = f"sequence {place[0]}" + (f" at step {place[1]}" if len(place) == 3 else "")
    return (
        f"training stopped in epoch {epoch} at step {step}: the {name} are not finite: {value:g} in {where}; "
        f"the parameters of the last good step are kept. Leave such sequences out, or fill the gaps."
    )


def text(owner: str, name: str, value: Any) -> str:
    """A string."""
    if not isinstance(value, str):
        raise TypeError(f"{owner}: {name} must be str, got {type(value).__name__}.")
    return value


def texts(owner: str, value: Any) -> Any:
    """A string or an iterable of strings; paths are a likely mistake."""
    if isinstance(value, bytes | bytearray) or not hasattr(value, "__iter__"):
        raise TypeError(
            f"{owner}: texts must be a string, strings or a corpus, got {type(value).__name__}; "
            f"read files with read_files(paths)."
        )
    return value


def encoding(owner: str, value: Any) -> str:
    """The name of an encoding of text, in Python's spelling."""
    try:
        codecs.getincrementaldecoder(value)
        "a".encode(value)  # a LookupError for encodings that are not of text, such as hex or zlib
        return codecs.lookup(value).name
    except (LookupError, TypeError, ValueError):
        pass
    raise ValueError(
        f"{owner}: encoding must be a text encoding, such as utf-8, utf-16 or cp1252, got {value!r}."
    )


def corpus_files(owner: str, names: list[str], titles: list[str] | None = None) -> int:
    """Total size of the files in bytes; each must be a regular, readable file."""
    if not names:
        raise CorpusError(f"{owner}: at least one file is needed, got none.")
    total, titles = 0, titles or names
    for name, title in zip(names, titles, strict=True):
        if os.path.isdir(name):
            raise CorpusError(f"{owner}: {title} is a folder; name the text files in it.")
        if not os.path.exists(name):
            raise CorpusError(f"{owner}: {title} does not exist.")
        if not os.path.isfile(name):
            raise CorpusError(
                f"{owner}: {title} must be a regular file, as it is read several times; save its text first."
            )
        try:
            with open(name, "rb"):
                total += os.path.getsize(name)
        except OSError as error:
            raise CorpusError(f"{owner}: {title} cannot be read ({error.strerror}).") from None
    if not total:
        raise CorpusError(f"{owner}: {', '.join(titles)}: no text (0 bytes).")
    return total


def not_text(owner: str, name: str, encoding: str, offset: int, byte: int) -> CorpusError:
    """The error for bytes that an encoding cannot decode."""
    return CorpusError(
        f"{owner}: {name} must be {encoding.upper()} text, but byte {offset} (0x{byte:02X}) is not part of "
        f'any character; name its encoding, for example encoding="cp1252" for a file from Windows.'
    )


def read_once(count: int) -> None:
    """Standard input is named at most once."""
    if count > 1:
        raise CorpusError(f"standard input (-) can be read only once, but is named {count} times.")


def some_tokens(owner: str, name: str, count: int, *, held_out: bool = False) -> None:
    """A text must have at least one token; the held-out part of a short text has none."""
    if not count and held_out:
        raise CorpusError(
            f"{owner}: {name} is empty: the text is too short to hold out a part of it; "
            f"give more text, or a separate validation text."
        )
    if not count:
        raise CorpusError(f"{owner}: {name.removeprefix('the training part of ')} has no words.")


def ids_file(owner: str, name: str, problem: object, fix: str) -> CorpusError:
    """The error for a file that is damaged or does not contain token ids."""
    return CorpusError(f"{owner}: {name} is not a whole file of token ids ({problem}); {fix}.")


def tokens_of_vocabulary(owner: str, tokens: list, special: tuple[str, ...], longest: int | None) -> None:
    """Ordinary tokens: distinct strings, none special, none longer than `longest` characters."""
    seen = set(special)
    for token in tokens:
        if not isinstance(token, str) or not token:
            raise ValueError(f"{owner}: tokens must be non-empty strings, got {token!r}.")
        if token in seen:
            raise ValueError(
                f"{owner}: each token must appear once and none be special, got {token!r} again."
            )
        if longest is not None and len(token) > longest:
            raise ValueError(f"{owner}: tokens must have at most {longest} character, got {token!r}.")
        seen.add(token)


def tokenizer_dict(owner: str, value: Any, kinds: tuple[str, ...]) -> dict:
    """A tokenizer as JSON values: a dictionary with a known `kind` and a list `tokens`."""
    if not isinstance(value, dict):
        raise ValueError(f"{owner}: a saved tokenizer is a dictionary, got {type(value).__name__}.")
    if value.get("kind") not in kinds:
        known = " or ".join(repr(kind) for kind in kinds)
        raise ValueError(f"{owner}: kind must be {known}, got {value.get('kind')!r}.")
    if not isinstance(value.get("tokens"), list):
        raise ValueError(f"{owner}: tokens must be a list, got {value.get('tokens')!r:.40}.")
    return value


def same_vocabulary(owner: str, expected: list[str], received: list[str]) -> None:
    """Two vocabularies, as tokens in the order of their ids, must be equal."""
    if expected == received:
        return
    for token_id, pair in enumerate(zip(expected, received, strict=False)):
        if pair[0] != pair[1]:
            difference = f"id {token_id} is {pair[0]!r} in one and {pair[1]!r} in the other"
            break
    else:
        difference = "one has more tokens than the other"
    raise CorpusError(
        f"{owner}: the vocabulary must be the one the model was trained with, {len(expected)} tokens, "
        f"got one of {len(received)}; {difference}. Use the tokenizer saved in the checkpoint."
    )


def same_tokenizer(owner: str, expected: dict, received: dict) -> None:
    """Two tokenizers must split text in the same way (kind, lower case)."""
    if expected != received:
        raise CorpusError(
            f"{owner}: the tokenizer must be the one the model was trained with, {expected}, got {received}."
        )


def malformed(path: Any, reason: str) -> CheckpointError:
    """The error for a malformed file.

    The reason may quote the file, so it is cut to one line of printable ASCII.
    """
    plain = " ".join(reason.encode("ascii", "backslashreplace").decode().split())
    plain = "".join(c if c.isprintable() else "?" for c in plain)
    return CheckpointError(f"{path}: {plain if len(plain) <= 300 else plain[:300] + ' ...'}.")


def readable(owner: str, path: Any) -> None:
    """A file that a user names can be read; if not, an OSError of the same kind, whose cause is the
    system's."""
    try:
        with open(path, "rb"):
            return
    except OSError as error:
        found = error
    if isinstance(found, FileNotFoundError):
        problem, fix = "does not exist", "check its spelling"
        if not os.path.isabs(path):
            fix += f"; relative paths begin at {os.getcwd()}"
    elif os.path.isdir(path):
        problem, fix = "is a folder", "name a file in it"
    else:
        problem, fix = f"cannot be read ({found.strerror})", "check its permissions"
    told = f"{owner}: path must name a file, got {os.fspath(path)!r}, which {problem}; {fix}."
    raise type(found)(told) from found


def run_in_the_way(folder: Any, name: str) -> FileExistsError:
    """The error for a folder that holds an earlier run."""
    return FileExistsError(
        f"{folder}: this folder already has a run ({name}); choose another folder, or --overwrite the run."
    )


def run_under_way(folder: Any) -> OSError:
    """The error for a folder in which another process trains."""
    return OSError(f"{folder}: another process is training in this folder; wait for it, or stop it.")


def same_option(folder: Any, option: str, was: Any, now: Any) -> None:
    """A run continues with the options it began with."""
    if was == now:
        return
    told = f"{option} was {_told(was)}" if was not in (None, []) else f"{option} was not given"
    raise CheckpointError(
        f"{told} when the run in {folder} began, and is {_told(now)} now; leave it out to continue that "
        f"run, or begin another."
    )


def _told(value: Any) -> str:
    """A value as typed on the command line."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _run_value(value: Any) -> Any:
    """A value of a run as errors show it; a cell is shown by its name and the start of its fingerprint."""
    if isinstance(value, dict) and set(value) == {"name", "fingerprint"}:
        return f"{value['name']!s:.80} ({value['fingerprint']!s:.12})"
    return value


def _are_equal(was: Any, now: Any) -> bool:
    """Whether two values of a run are equal; cells are compared by fingerprint, not by name."""
    cells = isinstance(was, dict) and isinstance(now, dict) and "fingerprint" in was
    return was["fingerprint"] == now.get("fingerprint") if cells else was == now


def same_run(owner: str, path: Any, saved: dict, given: dict) -> None:
    """A run continues with the settings it began with."""
    for name in sorted({*saved, *given}, key=str):
        was, now = saved.get(name), given.get(name)
        if not _are_equal(was, now):
            if name in ("text", "sequences", "valid"):
                error = OtherData(f"{owner}: {name} has changed, so the run in {path} cannot continue.")
                error.name = name
                raise error
            what = f"{_run_value(now)!r} and not {_run_value(was)!r}"
            raise CheckpointError(f"{owner}: {name} is {what}, so the run in {path} cannot continue.")


def more_epochs(name: str, path: Any, epochs: int, reached: int) -> None:
    """A run continues to an epoch not yet passed; `name` is the caller's name for the number of epochs."""
    if epochs < reached:
        raise CheckpointError(
            f"{name} must be at least {reached}, which the run in {path} has reached, got {epochs}."
        )


def blocks(owner: str, number: Any) -> int | None:
    """A number of blocks, a power of two; None to let the batch size decide."""
    if number is None:
        return None
    number = size(owner, "blocks", number)
    if number & (number - 1):
        raise ValueError(f"{owner}: blocks must be a power of two such as 4 or 8, got {number}.")
    return number


def ranks_divide_blocks(owner: str, ranks: int, number: int, batch_size: int, least: int) -> None:
    """Every rank has the same number of blocks; `least` rows are those of a block by default."""
    if number % ranks:
        blocks = "1 block" if number == 1 else f"{number} blocks"
        start = "start 1 process" if number == 1 else f"start at most {number}"
        larger = f", or take {least * ranks} rows or more" if ranks <= 8 else ""
        raise ValueError(
            f"{owner}: a batch of {batch_size} rows has {blocks}, too few for {ranks} ranks; {start}, or "
            f"begin a run with blocks={ranks}{larger}."
        )


def failed_on_rank_0(function: Any) -> RuntimeError:
    """The error for a function that only rank 0 calls."""
    name = getattr(function, "__name__", type(function).__name__)
    return RuntimeError(f"Trainer.fit: {name} failed on rank 0.")


def other_rank_failed(path: Any) -> CheckpointError:
    """The error for a file that another rank cannot resume from."""
    return CheckpointError(f"{path}: another rank cannot resume from it.")


def mpi(owner: str) -> Any:
    """The module mpi4py.MPI; ImportError names the missing package."""
    if importlib.util.find_spec("mpi4py") is None:
        raise ImportError(f"{owner} needs mpi4py: pip install 'rnnfast[mpi]'.")
    try:
        return importlib.import_module("mpi4py.MPI")
    except (ImportError, RuntimeError):
        raise ImportError(
            f"{owner} needs an MPI library, which mpi4py does not find: pip install mpich, or load a module."
        ) from None


def number_of_ranks(owner: str, size: int) -> None:
    """Ranks are added in pairs, and pairs of pairs."""
    if size & (size - 1):
        below = 1 << (size.bit_length() - 1)
        raise ValueError(
            f"{owner}: the number of ranks must be a power of two, got {size}; start {below} or {2 * below}."
        )


def exchanged(owner: str, array: Any) -> np.ndarray:
    """A flat view of an array that is summed in place."""
    is_array = isinstance(array, np.ndarray)
    if is_array and array.dtype in (np.float32, np.float64) and array.dtype.isnative:
        if array.flags.carray:
            return array.reshape(-1)
        raise ValueError(f"{owner}: arrays must be C-contiguous, aligned and writable.")
    given = f"{array.dtype}" if is_array else type(array).__name__
    raise TypeError(f"{owner}: arrays must be float32 or float64 arrays, got {given}.")


def other_mpi(launched: Any, found: Any) -> ValueError:
    """The error for an mpi4py that does not know the processes; both are pairs (rank, size)."""
    return ValueError(
        f"this process was started as rank {launched[0]} of {launched[1]}, but for mpi4py it is rank "
        f"{found[0]} of {found[1]}: mpi4py was built for another MPI; use the mpiexec of that MPI, or build "
        f"mpi4py for this one."
    )
