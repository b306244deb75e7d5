"""Every error a user can meet is worded here: owner, what was expected, what was received, how to fix it.

Compiled code has no bounds checks, so each array passes one of these functions before a kernel sees it. They
cost about a microsecond and return the array in the one form the kernels compile for: C-contiguous, aligned,
native.
"""

from __future__ import annotations

import codecs
import inspect
import math
import mmap
import os
import re
from collections.abc import Iterable
from typing import Any

import numpy as np

FLOAT_DTYPES = (np.dtype(np.float32), np.dtype(np.float64))


def float_dtype(owner: str, dtype: Any) -> np.dtype:
    """`dtype` as a NumPy dtype, which must be float32 or float64."""
    try:
        found = np.dtype(dtype)
    except TypeError:
        found = None
    if found is None or found not in FLOAT_DTYPES:
        raise TypeError(f"{owner}: dtype must be float32 or float64, got {dtype!r}.")
    return found


def generator(owner: str, rng: Any) -> np.random.Generator:
    """A source of random numbers; a fresh one for None."""
    if rng is None:
        return np.random.default_rng()
    if not isinstance(rng, np.random.Generator):
        raise TypeError(
            f"{owner}: rng must be a numpy.random.Generator, got {type(rng).__name__}; "
            f"pass numpy.random.default_rng(seed)."
        )
    return rng


def size(owner: str, name: str, value: Any, minimum: int = 1, maximum: int | None = None) -> int:
    """A whole number of at least `minimum`, and at most `maximum` where there is one."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | np.integer):
        raise TypeError(f"{owner}: {name} must be a whole number, got {value!r}.")
    if value < minimum:
        raise ValueError(f"{owner}: {name} must be at least {minimum}, got {value}.")
    if maximum is not None and value > maximum:
        raise ValueError(f"{owner}: {name} must be at most {maximum}, got {value}.")
    return int(value)


def threads(name: str, value: str) -> int:
    """A number of threads from the environment."""
    if not value.isdecimal() or int(value) < 1:
        raise ValueError(
            f"{name} must be a whole number of at least 1, got {value!r}; unset it to use all cores."
        )
    return int(value)


def memory(owner: str, name: str, value: Any) -> int:
    """Bytes from a number, or from a text such as "256MB" (decimal) or "1GiB" (binary)."""
    if not isinstance(value, str):
        return size(owner, name, value)
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kMGT]?)(i?)B\s*", value)
    if found is None:
        raise ValueError(f'{owner}: {name} must be a number of bytes or a text like "256MB", got {value!r}.')
    return int(float(found[1]) * (1024 if found[3] else 1000) ** " kMGT".index(found[2] or " "))


def memory_enough(owner: str, given: int, least: int, what: str) -> None:
    """A limit within which the smallest way of doing something fits."""
    if given < least:
        enough = math.ceil(least / 1e4) / 100  # rounded up, so that the named size is enough
        raise ValueError(
            f"{owner}: memory must be at least {enough:g}MB for {what}, got {given / 1e6:.3g}MB."
        )


def sequence_options(owner: str, model: Any) -> None:
    """Lengths and resets go to models that take them."""
    if not hasattr(model, "predict") or hasattr(model, "vocab_size"):
        raise TypeError(
            f"{owner}: lengths, reset and carry are for a SequenceRegressor; a language model leaves out "
            f"labels of -1."
        )


def sequences_and_targets(owner: str, data: Any) -> tuple[Any, Any]:
    """A pair of arrays (S, T, D), and (S, T, O) or (S, O)."""
    if len(data) != 2:
        raise ValueError(f"{owner}: sequences and targets must be a pair of arrays, got {len(data)}.")
    shapes = [_as_array(owner, name, array).shape for name, array in zip(("xs", "ts"), data, strict=True)]
    fits = len(shapes[0]) == 3 and len(shapes[1]) in (2, 3)
    if fits and 0 in shapes[0][:2]:
        raise ValueError(f"{owner}: at least one step is needed, got xs {_shape_text(shapes[0])}.")
    if fits and shapes[1][:-1] == shapes[0][: len(shapes[1]) - 1]:
        return data
    raise ValueError(
        f"{owner}: sequences and targets must be (S, T, D) and (S, T, O), or (S, O) for the last step, "
        f"got {' and '.join(map(_shape_text, shapes))}."
    )


def text_or_pair(data: Any) -> Any:
    """A list of arrays as a tuple, which is how a pair of sequences and targets is told from a text."""
    is_list = isinstance(data, list) and data and all(isinstance(part, np.ndarray) for part in data)
    return tuple(data) if is_list else data


def kind_of_data(owner: str, name: str, data: Any, model: Any, *, wants_pair: bool) -> None:
    """A text for a language model, sequences with targets for a regression."""
    if isinstance(data, tuple) != wants_pair:
        wanted = "a pair of arrays (sequences, targets)" if wants_pair else "token ids (tokens,)"
        got = f"a tuple of {len(data)}" if isinstance(data, tuple) else f"one {type(data).__name__}"
        raise TypeError(f"{owner}: {name} must be {wanted} for {type(model).__name__}, got {got}.")


def validation_kind(owner: str, is_pair: bool, trains_on_pair: bool) -> None:
    """Validation takes what training takes."""
    kinds = ("a text", "sequences with targets")
    if is_pair != trains_on_pair:
        raise TypeError(f"{owner}: valid must be {kinds[trains_on_pair]} like ids, got {kinds[is_pair]}.")


def order(owner: str, value: Any, count: int) -> np.ndarray:
    """The numbers of `count` sequences, each once."""
    array = ids(owner, "order", value, (count,), count)
    if np.bincount(array, minlength=count).max(initial=0) > 1:
        raise ValueError(f"{owner}: order must name each sequence once.")
    return array


def reads_in_any_order(owner: str, bptt: Any) -> None:
    """Its pass over sequences can follow an order from outside."""
    if "order" not in inspect.signature(bptt.windows).parameters:
        kind = type(bptt).__name__
        raise TypeError(
            f"{owner}: {kind}.windows must take order=, the numbers of the sequences as they are to be read; "
            f"or train with Trainer(shuffle=False)."
        )


def works_in_parts(owner: str, model: Any, kind: type) -> None:
    """A model that can go through a sequence part by part."""
    if not isinstance(model, kind):
        raise TypeError(
            f"{owner}: the model must be an RNNLM or a SequenceRegressor, got {type(model).__name__}; "
            f"TruncatedBPTT(k1) takes any model."
        )


def _shape_text(shape: tuple) -> str:
    inside = ", ".join(str(axis) for axis in shape)
    return f"({inside},)" if len(shape) == 1 else f"({inside})"


def _as_array(owner: str, name: str, value: Any) -> np.ndarray:
    """A plain ndarray; lists are not accepted, since their dtype would be guessed."""
    if not isinstance(value, np.ndarray):
        raise TypeError(f"{owner}: {name} must be a NumPy array, got {type(value).__name__}.")
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{owner}: {name} must be a plain NumPy array, got a masked array; fill it first.")
    if isinstance(value, np.matrix):  # it has other products and always two axes
        raise TypeError(f"{owner}: {name} must be a plain NumPy array, got a matrix; pass np.array({name}).")
    return value


def shape(owner: str, name: str, value: Any, expected: tuple, why: str = "") -> np.ndarray:
    """An array of the `expected` shape, in which a string stands for any length (`("N", "T", 100)`).

    `"..."` in front stands for one or more axes of any length.
    """
    if type(value) is np.ndarray and value.shape == expected:
        return value
    array = _as_array(owner, name, value)
    wanted = expected
    if expected[:1] == ("...",):
        wanted = ("...",) * max(1, array.ndim - len(expected) + 1) + expected[1:]
    if array.ndim == len(wanted):
        for have, want in zip(array.shape, wanted, strict=True):
            if have != want and not isinstance(want, str):
                break
        else:
            return array
    found = _shape_text(array.shape) + (f"; {why}" if why else "")
    raise ValueError(f"{owner}: {name} must be {_shape_text(expected)}, got {found}.")


def float_array(
    owner: str, name: str, value: Any, expected: tuple, dtype: np.dtype, why: str = ""
) -> np.ndarray:
    """An array of floats in the layer's dtype, in any layout and byte order."""
    array = shape(owner, name, value, expected, why)
    if array.dtype != dtype and array.dtype.newbyteorder("=") != dtype:
        raise TypeError(
            f"{owner}: {name} must be {dtype}, the dtype of the parameters, got {array.dtype}; "
            f"convert it with {name}.astype(np.{dtype})."
        )
    return array


def floats(owner: str, name: str, value: Any, expected: tuple, dtype: np.dtype, why: str = "") -> np.ndarray:
    """An input array of floats in the layer's dtype, ready for a kernel (copied only if its layout needs
    it)."""
    array = float_array(owner, name, value, expected, dtype, why)
    return kernel_ready(array) if array.dtype == dtype else array.astype(dtype, order="C")


def kernel_ready(array: np.ndarray) -> np.ndarray:
    """The same values as a writable, C-contiguous, aligned, native ndarray: the one form kernels take."""
    flags = array.flags
    if flags.c_contiguous and flags.aligned and flags.writeable and type(array) is np.ndarray:
        return array
    return np.array(array, dtype=array.dtype.newbyteorder("="), order="C", copy=True, subok=False)


def parameter(
    owner: str, name: str, value: Any, expected: tuple, dtype: np.dtype | None = None
) -> np.ndarray:
    """A parameter array, kept as the very object that was given, since optimisers update it in place."""
    array = shape(owner, name, value, expected)
    if dtype is None and array.dtype not in FLOAT_DTYPES:
        raise TypeError(f"{owner}: {name} must be float32 or float64, got {array.dtype}.")
    if dtype is not None and array.dtype != dtype:
        raise TypeError(f"{owner}: {name} must be {dtype} like the other parameters, got {array.dtype}.")
    if not array.flags.writeable:
        raise ValueError(f"{owner}: {name} is read-only, but training writes into it; pass {name}.copy().")
    if not (array.flags.aligned and array.dtype.isnative):
        raise ValueError(f"{owner}: {name} must be aligned and in native byte order; pass {name}.copy().")
    return array


def ids(
    owner: str, name: str, value: Any, expected: tuple, upper: int, also: int | None = None
) -> np.ndarray:
    """Token ids as int64 with every value in [0, upper), or equal to `also` (a label to ignore)."""
    array = shape(owner, name, value, expected)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{owner}: {name} must hold integers, got {array.dtype}.")
    if array.size:  # looked at in their own type: as int64, 2**64 - 1 would be -1
        low, high = int(array.min()), int(array.max())
        if low < 0 or high >= upper:
            wrong = (array < 0) | (array >= upper)
            if also is not None:
                wrong &= array != also
            if wrong.any():
                where = tuple(int(axis) for axis in np.argwhere(wrong)[0])
                raise IndexError(
                    f"{owner}: {name} must hold ids from 0 to {upper - 1}, "
                    f"got {int(array[where])} at {where}."
                )
    return kernel_ready(array.astype(np.int64, copy=False))


def out(owner: str, value: Any, expected: tuple, dtype: np.dtype, *inputs: np.ndarray) -> np.ndarray:
    """A caller's output array: right shape and dtype, C-contiguous, writable, apart from the inputs."""
    array = shape(owner, "out", value, expected)
    if array.dtype != dtype:
        raise TypeError(f"{owner}: out must be {dtype}, got {array.dtype}.")
    flags = array.flags
    if not flags.writeable:
        raise ValueError(f"{owner}: out is read-only; pass a writable array.")
    if not (flags.c_contiguous and flags.aligned):
        raise ValueError(f"{owner}: out must be C-contiguous and aligned; pass np.empty(shape, dtype).")
    for given in inputs:
        if np.may_share_memory(array, given):
            raise ValueError(f"{owner}: out shares memory with an input; pass an array of its own.")
    return array


def gradient_of(owner: str, name: str, value: Any, param: np.ndarray, *others: np.ndarray) -> np.ndarray:
    """An array of the caller's for the gradient of a parameter: like it, contiguous or the transpose of such
    an array, and in memory of its own."""
    array = parameter(owner, name, value, param.shape, param.dtype)
    if not (array.flags.c_contiguous or array.flags.f_contiguous):
        raise ValueError(f"{owner}: {name} must be contiguous, or the transpose of a contiguous array.")
    if any(np.may_share_memory(array, other) for other in (param, *others)):
        raise ValueError(f"{owner}: {name} shares memory with a parameter; pass an array of its own.")
    return array


def apart(owner: str, name: str, array: np.ndarray, grads: Iterable[np.ndarray]) -> None:
    """What `backward` reads lies apart from the gradients that it overwrites meanwhile."""
    if any(np.may_share_memory(array, grad) for grad in grads):
        raise ValueError(
            f"{owner}: {name} shares memory with grads, which backward overwrites; pass {name}.copy()."
        )


def numbers(owner: str, name: str, value: np.ndarray) -> np.ndarray:
    """An array of real numbers or of True and False."""
    if value.dtype.kind not in "biuf":
        raise TypeError(f"{owner}: {name} must hold numbers, got {value.dtype}.")
    return value


def one_hot(owner: str, name: str, value: np.ndarray) -> np.ndarray:
    """The place of the single 1 in each row (..., V), as int64 (...)."""
    labels = np.asarray(numbers(owner, name, value).argmax(axis=-1))
    ones = np.take_along_axis(value, labels[..., np.newaxis], axis=-1)[..., 0] == 1
    # Each row has a 1, and as many elements as rows are not 0. Floats are compared first, which takes half of
    # the time: 4.3 and 9.0 ms for (20, 35, 10000) float32.
    nonzero = value != 0 if value.dtype.kind == "f" else value
    if not ones.all() or np.count_nonzero(nonzero) != labels.size:
        wrong = ~ones | (np.count_nonzero(value, axis=-1) != 1)
        where = tuple(int(axis) for axis in np.argwhere(wrong)[0])
        raise ValueError(
            f"{owner}: {name} of the shape of the scores must be one-hot, a single 1 and else 0 in each row, "
            f"got another row at {where}; pass ids {_shape_text(labels.shape)} to leave positions out."
        )
    return labels.astype(np.int64, copy=False)


def called_before(owner: str, ready: bool, first: str) -> None:
    """Guard for methods that need another one first (`backward` after `forward`)."""
    if not ready:
        raise RuntimeError(f"{owner}: call {first} first.")


def fixed(owner: str, name: str) -> TypeError:
    """The error of replacing an array that stays for the life of its owner."""
    return TypeError(
        f"{owner}: {name} cannot be replaced, since the arrays stay for its life; write into them, "
        f"{name}[0][...] = values."
    )


def pickled(owner: str, state: dict[str, Any], *needed: str) -> None:
    """A pickle holds what this version puts into one."""
    if not all(name in state for name in needed):
        raise TypeError(f"{owner}: the pickle is of another version of rnnfast; keep models with save().")


def another_thread(owner: str) -> RuntimeError:
    """The error of training one object from two threads."""
    return RuntimeError(
        f"{owner}: another thread trains it; wait for it, or work with a copy (copy.deepcopy)."
    )


def forward_elsewhere(owner: str) -> RuntimeError:
    """The error of a `backward` whose `forward` was called in another thread."""
    return RuntimeError(
        f"{owner}: another thread called forward last; call forward and backward in one thread, or give each "
        f"thread a copy (copy.deepcopy)."
    )


def choice(owner: str, name: str, value: Any, allowed: tuple[str, ...]) -> str:
    """One of a few words, all in lower case; given in upper case they are the same."""
    found = value.lower() if isinstance(value, str) else value
    if found not in allowed:
        raise ValueError(f"{owner}: {name} must be one of {', '.join(allowed)}, got {value!r}.")
    return found


def batch(owner: str, carried: int, received: int) -> None:
    """A carried state must have as many rows as the input."""
    if carried != received:
        raise ValueError(
            f"{owner}: the carried state has {carried} rows but the input has {received}; "
            f"call reset_state() or set_state() before changing the batch size."
        )


def lengths(owner: str, value: Any, batch: int, steps: int) -> np.ndarray:
    """The length of each of `batch` sequences, from 0 to `steps`, as int64."""
    array = _as_array(owner, "lengths", np.asanyarray(value))
    if array.dtype.kind not in "iu" and array.size:
        raise TypeError(f"{owner}: lengths must hold integers, got {array.dtype}.")
    if array.shape != (batch,):
        raise ValueError(
            f"{owner}: lengths must be {_shape_text((batch,))}, one a row of the batch, "
            f"got {_shape_text(array.shape)}."
        )
    wrong = np.flatnonzero((array < 0) | (array > steps))
    if wrong.size:
        raise ValueError(
            f"{owner}: lengths must be from 0 to {steps}, the steps of the input, "
            f"got {array[wrong[0]]} at {wrong[0]}."
        )
    return array.astype(np.int64)


def mask(owner: str, name: str, value: Any, expected: tuple) -> np.ndarray:
    """An array of True and False."""
    array = shape(owner, name, value, expected)
    if array.dtype != np.bool_:
        raise TypeError(f"{owner}: {name} must hold True and False, got {array.dtype}.")
    return kernel_ready(array)


def instances(owner: str, values: Any, kinds: type | tuple[type, ...]) -> None:
    """At least one object, all of these classes (or of one derived from them)."""
    names = [kind.__name__ for kind in (kinds if isinstance(kinds, tuple) else (kinds,))]
    values = list(values) if isinstance(values, list | tuple) else [values]
    if not values:
        raise ValueError(f"{owner}: at least one layer is needed, got none.")
    for value in values:
        if not isinstance(value, kinds):
            raise TypeError(f"{owner}: layers must be {' or '.join(names)}, got {type(value).__name__}.")


def equal(owner: str, what: str, first: Any, second: Any) -> None:
    """Two things that must be the same."""
    if first != second:
        raise ValueError(f"{owner}: {what} must be equal, got {first} and {second}.")


def binary(owner: str, name: str, value: Any, expected: tuple) -> np.ndarray:
    """Labels that are 0 or 1, of any numeric type."""
    array = shape(owner, name, value, expected)
    wrong = (array != 0) & (array != 1)
    if wrong.any():
        where = tuple(int(axis) for axis in np.argwhere(wrong)[0])
        raise ValueError(f"{owner}: {name} must hold 0 and 1, got {array[where]} at {where}.")
    return array


def offers(owner: str, name: str, value: Any, attributes: tuple[str, ...], like: str) -> None:
    """An object, not a class, that has these attributes."""
    if isinstance(value, type) or not all(hasattr(value, attribute) for attribute in attributes):
        raise TypeError(f"{owner}: {name} must be an object like {like}, got {value!r:.60}.")


def distinct(owner: str, layers: Any) -> None:
    """A layer keeps what its backward needs, so each place needs a layer of its own; arrays may be shared."""
    if len({id(layer) for layer in layers}) != len(layers):
        raise ValueError(f"{owner}: each layer may stand in one place only; make another on the same params.")


def no_stream(owner: str) -> TypeError:
    """The error of `step` where the end of the sequence must be known."""
    return TypeError(f"{owner} cannot step: it reads sequences from their end too; use forward.")


def absent(owner: str, name: str, value: Any, needs: str) -> None:
    """An argument that belongs to another setting."""
    if value is not None:
        raise ValueError(f"{owner}: {name} belongs to {needs}; leave it out.")


class CheckpointError(ValueError):
    """A model or run that is damaged, incomplete, not from rnnfast or not the one meant; it says why.

    Examples
    --------
    >>> import pathlib, tempfile, rnnfast
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "model.safetensors")
    ...     _ = path.write_bytes(b"else")
    ...     try:
    ...         rnnfast.RNNLM.load(path)
    ...     except rnnfast.CheckpointError as error:
    ...         print("too short for a safetensors file" in str(error))
    True
    """


class OtherData(CheckpointError):
    """A run cannot go on, as the data named `name` are not those it began with."""

    name = ""


def malformed(path: Any, reason: str) -> CheckpointError:
    """The error for a file that cannot be what it should be, to be raised by the reader.

    The reason may quote the file, so it is cut to one line of printable ASCII.
    """
    plain = " ".join(reason.encode("ascii", "backslashreplace").decode().split())
    plain = "".join(c if c.isprintable() else "?" for c in plain)
    return CheckpointError(f"{path}: {plain if len(plain) <= 300 else plain[:300] + ' ...'}.")


class CorpusError(ValueError):
    """Text, files of text or a vocabulary that cannot be used; said before training starts.

    Examples
    --------
    >>> raise CorpusError("the text is empty")
    Traceback (most recent call last):
    rnnfast._check.CorpusError: the text is empty
    """


def fraction(owner: str, name: str, value: Any) -> float:
    """A number between 0 and 1, both excluded."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | np.floating | np.integer):
        raise TypeError(f"{owner}: {name} must be a number between 0 and 1, got {value!r}.")
    if not 0 < value < 1:
        raise ValueError(f"{owner}: {name} must lie between 0 and 1, both excluded, got {value}.")
    return float(value)


def text(owner: str, name: str, value: Any) -> str:
    """A string."""
    if not isinstance(value, str):
        raise TypeError(f"{owner}: {name} must be str, got {type(value).__name__}.")
    return value


def texts(owner: str, value: Any) -> Any:
    """A string or something that gives strings; paths are a likely mistake."""
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
        "a".encode(value)  # a LookupError for an encoding of something else, such as hex or zlib
        return codecs.lookup(value).name
    except (LookupError, TypeError, ValueError):
        pass
    raise ValueError(
        f"{owner}: encoding must be that of a text, such as utf-8, utf-16 or cp1252, got {value!r}."
    )


def corpus_files(owner: str, names: list[str], titles: list[str] | None = None) -> int:
    """Size in bytes of all these files, each of which must be a regular file that can be read."""
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
        raise CorpusError(f"{owner}: {', '.join(titles)}: no text in there (0 bytes).")
    return total


def not_text(owner: str, name: str, encoding: str, offset: int, byte: int) -> CorpusError:
    """The error for bytes that are no text in an encoding."""
    return CorpusError(
        f"{owner}: {name} must be {encoding.upper()} text, but byte {offset} (0x{byte:02X}) is not part of "
        f'any character; name its encoding, for example encoding="cp1252" where it is from Windows.'
    )


def other_encoding(owner: str, name: str, encoding: str, mark: bytes) -> CorpusError:
    """The error for a file that says itself that it is not in UTF-8."""
    return CorpusError(
        f"{owner}: {name} is {encoding.upper()} text, as its byte order mark ({mark.hex(' ').upper()}) says; "
        f'give encoding="{encoding}".'
    )


def unmarked(owner: str, name: str, encoding: str, problem: str) -> CorpusError:
    """The error for a file without the byte order mark that its encoding asks for."""
    return CorpusError(
        f'{owner}: {name} is not {encoding.upper()} text ({problem}); encoding="{encoding}-le" needs no mark.'
    )


def read_once(count: int) -> None:
    """Standard input is named once at most."""
    if count > 1:
        raise CorpusError(f"standard input (-) can be read once only, and it is named {count} times.")


def no_effect(option: str, when: str) -> ValueError:
    """The error for an option that another one leaves without effect."""
    return ValueError(f"{option} has no effect {when}; leave it out.")


def some_tokens(owner: str, name: str, count: int, *, held_out: bool = False) -> None:
    """A text must have at least one token; a part that was held out has none where the text is short."""
    if not count and held_out:
        raise CorpusError(
            f"{owner}: {name} is empty: the text is too short to hold out a part of it; "
            f"give more text, or another text to validate on."
        )
    if not count:
        raise CorpusError(f"{owner}: {name.removeprefix('the training part of ')} has no words.")


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
    """A text of a run has enough tokens; one to score has a batch and a window of 1."""
    needed = batch_size * bptt + 1
    if tokens < needed == 2:
        raise CorpusError(f"{owner}: {name} must have at least 2 tokens, got {tokens}; give more text.")
    if tokens < needed:
        raise CorpusError(
            f"{owner}: {name} is too short: batch_size {batch_size} and bptt {bptt} need {needed} tokens, "
            f"got {tokens}; lower one of them, or give more text."
        )


def ids_1d(owner: str, name: str, value: Any) -> np.ndarray:
    """Token ids in one row of any integer type, memory-mapped or not; never copied."""
    array = shape(owner, name, value, ("tokens",))
    if array.dtype.kind not in "iu":
        raise TypeError(f"{owner}: {name} must hold integers, got {array.dtype}.")
    return array.view(np.ndarray)


def whole_file(owner: str, *arrays: Any) -> None:
    """A memory-mapped file still has its length; reading beyond its end would end the process.

    Called before each window is read, which leaves the moments in between: a file may be cut short then.
    """
    for array in arrays:
        base, start = array, 0
        while isinstance(base, np.ndarray):
            start = getattr(base, "offset", start)
            base = base.base
        if isinstance(base, mmap.mmap):
            end = start - start % mmap.ALLOCATIONGRANULARITY + len(base)
            if base.size() < end:
                raise CorpusError(
                    f"{owner}: the memory-mapped file was cut short while it is read: {end} bytes were "
                    f"mapped, {base.size()} are left; leave files alone that training reads, or pass "
                    f"np.array(ids)."
                )


def ids_file(owner: str, name: str, problem: object, fix: str) -> CorpusError:
    """The error for a file of token ids that is damaged or something else."""
    return CorpusError(f"{owner}: {name} is not a whole file of token ids ({problem}); {fix}.")


def token_id(owner: str, value: int, upper: int) -> IndexError:
    """The error for an id that no token has."""
    return IndexError(f"{owner}: ids must be from 0 to {upper - 1}, got {value}.")


def tokens_of_vocabulary(owner: str, tokens: list, special: tuple[str, ...], longest: int | None) -> None:
    """Ordinary tokens: strings, each once, none of them special, none longer than `longest` characters."""
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
    """Two vocabularies, tokens in the order of their ids, must agree."""
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


def vocabulary_size(owner: str, expected: int, received: int) -> None:
    """A model and a tokenizer must have equally many tokens."""
    if expected != received:
        raise CorpusError(
            f"{owner}: the model has a vocabulary of {expected} tokens, got a tokenizer of {received}; "
            f"use the tokenizer saved in the checkpoint."
        )


def same_tokenizer(owner: str, expected: dict, received: dict) -> None:
    """Two tokenizers must cut text in the same way (kind, lower case)."""
    if expected != received:
        raise CorpusError(
            f"{owner}: the tokenizer must be the one the model was trained with, {expected}, got {received}."
        )


def frequent_tokens(owner: str, count: int, min_count: int) -> None:
    """Some token must occur `min_count` times."""
    if not count:
        raise CorpusError(f"{owner}: no token occurs {min_count} times; lower min_count, or give more text.")


def window_number(owner: str, window: int, count: int) -> IndexError:
    """The error for a window that is not there."""
    return IndexError(f"{owner}: windows are numbered 0 to {count - 1}, got {window}.")


def no_default_corpus(owner: str) -> CorpusError:
    """The error where the standard library lacks its documentation."""
    return CorpusError(
        f"{owner}: this Python comes without pydoc_data.topics, the default text; name text files instead."
    )


def number(owner: str, name: str, value: Any, low: float = -np.inf, high: float = np.inf) -> float:
    """A finite number from `low` to `high`, both included."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | np.integer | np.floating):
        raise TypeError(f"{owner}: {name} must be a number, got {value!r}.")
    if not np.isfinite(value):
        raise ValueError(f"{owner}: {name} must be finite, got {value}.")
    if not low <= value <= high:
        limits = f"from {low:g} to {high:g}" if high < np.inf else f"at least {low:g}"
        raise ValueError(f"{owner}: {name} must be {limits}, got {value}.")
    return float(value)


def id_sequence(owner: str, name: str, value: Any, upper: int) -> np.ndarray:
    """Token ids in one row, from a list or an array, as int64 with every value in [0, upper)."""
    array = _as_array(owner, name, np.asanyarray(value))
    if not array.size and array.ndim == 1:
        return np.zeros(0, dtype=np.int64)
    return ids(owner, name, array, ("tokens",), upper)


def boolean(owner: str, name: str, value: Any) -> bool:
    """True or False."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{owner}: {name} must be True or False, got {value!r}.")
    return bool(value)


def above(owner: str, name: str, value: Any, low: float) -> float | None:
    """A finite number greater than `low`, or None."""
    if value is None:
        return None
    if number(owner, name, value, low) == low:
        raise ValueError(f"{owner}: {name} must be above {low:g}, or None, got {value}.")
    return float(value)


def ids_in_vocabulary(owner: str, name: str, value: np.ndarray, upper: int) -> None:
    """Every id of a long text, which may be a memory map, is in [0, upper); read in pieces."""
    piece = 1 << 20
    for start in range(0, len(value), piece):
        whole_file(owner, value)
        part = value[start : start + piece]
        if part.min() < 0 or part.max() >= upper:
            wrong = int(np.flatnonzero((part < 0) | (part >= upper))[0])
            raise IndexError(
                f"{owner}: {name} must hold ids from 0 to {upper - 1}, "
                f"got {int(part[wrong])} at {start + wrong}."
            )


def number_below(owner: str, name: str, value: Any, low: float, limit: float) -> float:
    """A number of at least `low` and strictly below `limit`."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | np.integer | np.floating):
        raise TypeError(f"{owner}: {name} must be a number, got {value!r}.")
    if not low <= value < limit:
        raise ValueError(f"{owner}: {name} must be at least {low:g} and below {limit:g}, got {value}.")
    return float(value)


def sizes(owner: str, names: tuple[str, ...], values: Any) -> tuple[int, ...]:
    """A tuple or list with one whole number of at least 0 for each name."""
    if not isinstance(values, tuple | list) or len(values) != len(names):
        raise TypeError(f"{owner}: expected ({', '.join(names)}), got {values!r}.")
    return tuple(size(owner, name, value, minimum=0) for name, value in zip(names, values, strict=True))


def gradients(owner: str, grads: Any) -> None:
    """A list of float arrays that can be changed in place."""
    if not isinstance(grads, list | tuple):
        raise TypeError(f"{owner}: grads must be a list of arrays, got {type(grads).__name__}.")
    for i, grad in enumerate(grads):
        parameter(owner, f"grads[{i}]", grad, np.shape(grad))


def parameters_and_gradients(owner: str, params: Any, grads: Any) -> None:
    """Two lists of equally many arrays, each gradient of the shape and dtype of its parameter."""
    for name, value in (("params", params), ("grads", grads)):
        if not isinstance(value, list | tuple):
            raise TypeError(f"{owner}: {name} must be a list of arrays, got {type(value).__name__}.")
    if len(params) != len(grads):
        raise ValueError(
            f"{owner}: one gradient a parameter, got {len(params)} params and {len(grads)} grads."
        )
    for i, (param, grad) in enumerate(zip(params, grads, strict=True)):
        parameter(owner, f"params[{i}]", param, np.shape(param))
        shape(owner, f"grads[{i}]", grad, param.shape, f"params[{i}] has that shape")
        if grad.dtype != param.dtype:
            raise TypeError(f"{owner}: grads[{i}] must be {param.dtype} like params[{i}], got {grad.dtype}.")


def same_parameters(owner: str, expected: list[np.ndarray], params: Any) -> None:
    """The parameters an optimiser has kept state for: as many as before, with the same shapes and dtypes."""
    if len(expected) != len(params):
        raise ValueError(
            f"{owner}: the state belongs to {len(expected)} params, got {len(params)}; "
            f"use one optimiser a model, and a new one when the model changes."
        )
    for i, (state, param) in enumerate(zip(expected, params, strict=True)):
        if state.shape != param.shape or state.dtype != param.dtype:
            raise ValueError(
                f"{owner}: params[{i}] must be {_shape_text(state.shape)} {state.dtype} as its state is, "
                f"got {_shape_text(param.shape)} {param.dtype}; use a new optimiser when the model changes."
            )


def optimizer_state(
    owner: str, state: Any, name: str, scalars: tuple[str, ...], slots: tuple[str, ...]
) -> int:
    """A `state_dict` of the optimiser `name`, with nothing missing; how many parameters it covers."""
    if not isinstance(state, dict) or set(state) != {"scalars", "arrays"}:
        raise TypeError(f"{owner}: expected a dict with 'scalars' and 'arrays' as state_dict() returns it.")
    given = state["scalars"].get("name")
    if given != name:
        raise ValueError(f"{owner}: expected the state of {name}, got that of {given}; load it into {given}.")
    wrong = {"name", *scalars} ^ set(state["scalars"])
    if wrong:
        expected = ", ".join(("name", *scalars))
        raise ValueError(
            f"{owner}: scalars must be {expected}; missing or unknown: {', '.join(sorted(wrong))}."
        )
    count = -(-len(state["arrays"]) // max(1, len(slots)))
    wrong = {f"{slot}.{i}" for slot in slots for i in range(count)} ^ set(state["arrays"])
    if wrong:
        raise ValueError(
            f"{owner}: arrays must be named slot.position, with no gaps; "
            f"missing or unknown: {', '.join(sorted(wrong))}."
        )
    for key, array in state["arrays"].items():
        _as_array(owner, key, array)
        float_dtype(owner, array.dtype)
    return count


def run_in_the_way(folder: Any, name: str) -> FileExistsError:
    """The error for a folder that holds an earlier run."""
    return FileExistsError(
        f"{folder}: there is a run in this folder already ({name}); choose another, or --overwrite a run."
    )


def same_option(folder: Any, option: str, was: Any, now: Any) -> None:
    """A run goes on with the options it began with."""
    if was == now:
        return
    told = f"{option} was {_told(was)}" if was not in (None, []) else f"{option} was not given"
    raise CheckpointError(
        f"{told} when the run in {folder} began, and is {_told(now)} now; leave it out to go on with that "
        f"run, or begin another."
    )


def _told(value: Any) -> str:
    """A value of the command line as it is typed."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def data_not_finite(epoch: int, step: int, name: str, place: tuple[int, ...], value: Any) -> str:
    """The error for data in which a number is NaN or infinite."""
    where = f"sequence {place[0]}" + (f" at step {place[1]}" if len(place) == 3 else "")
    return (
        f"training stopped in epoch {epoch} at step {step}: the {name} are not finite: {value:g} in {where}; "
        f"the parameters of the last good step are kept. Leave such sequences out, or fill the gaps."
    )


def same_run(owner: str, path: Any, saved: dict, given: dict) -> None:
    """A run goes on with the settings it began with."""
    for name in sorted({*saved, *given}, key=str):
        was, now = saved.get(name), given.get(name)
        if was != now:
            if name in ("text", "sequences", "valid"):
                error = OtherData(f"{owner}: {name} is another, so the run in {path} cannot go on.")
                error.name = name
                raise error
            what = f"{now!r} and not {was!r}"
            raise CheckpointError(f"{owner}: {name} is {what}, so the run in {path} cannot go on.")


def changed_ids(path: Any) -> CheckpointError:
    """The error for an encoded text of a run that is not the one it began with."""
    return CheckpointError(f"{path} was changed since the run began; train again with --overwrite.")


def can_go_on(owner: str, bptt: Any) -> None:
    """Its pass over the data can begin in the middle."""
    if "passed" not in inspect.signature(bptt.windows).parameters:
        kind = type(bptt).__name__
        raise TypeError(f"{owner}: {kind}.windows must take passed=, how many windows of a pass lie behind.")


def far_enough(owner: str, path: Any, epochs: int, reached: int) -> None:
    """A run goes on to an epoch that is not behind it."""
    if epochs < reached:
        raise CheckpointError(f"{owner}: epochs must be at least {reached}, where {path} is already.")


def not_copied(owner: str, why: str) -> TypeError:
    """The error of what cannot be copied or pickled."""
    return TypeError(f"{owner} cannot be copied or pickled: {why}.")


def more_epochs(folder: Any, epochs: int, reached: int) -> None:
    """A run goes on to an epoch that is not behind it, as `--epochs` says it."""
    if epochs < reached:
        raise CheckpointError(
            f"--epochs must be at least {reached}, which the run in {folder} has reached, got {epochs}."
        )


def lost_training(folder: Any, name: str, run: Any) -> CheckpointError:
    """The error for a run that has a model, but no file that says where training stands."""
    return CheckpointError(f"{folder} has no {name} to go on from; train anew with --save {run} --overwrite.")


def run_under_way(folder: Any) -> OSError:
    """The error for a folder in which another process trains."""
    return OSError(f"{folder}: another process is training in this folder; wait for it, or stop it.")


def entries(owner: str, name: str, value: Any, count: int, what: str) -> tuple:
    """A tuple or list of `count` things, a part of what `get_state` gives."""
    start = f"{owner}: {name}, as get_state() returns it, must be a tuple of {count} ({what}), got"
    if not isinstance(value, tuple | list):
        raise TypeError(f"{start} {type(value).__name__}.")
    if len(value) != count:
        raise ValueError(f"{start} {len(value)}.")
    return tuple(value)
