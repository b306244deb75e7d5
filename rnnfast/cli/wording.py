"""Messages of the library, reworded for the command line: options instead of functions and arguments."""

from __future__ import annotations

import re

# Errors of `_check` read "owner: name must be ..."; the owner is the function that Python called.
_OWNER = re.compile(r"[A-Za-z_][\w.]*: ")
# Arguments with another name on the command line.
_ARGUMENTS = {
    "embed_size": "--emsize",
    "hidden_size": "--nhid",
    "layers": "--nlayers",
    "dtype": "--dtype",
    "time_size": "--bptt",
    "clip_norm": "--clip",
}
# Not English words: always arguments.
_ANYWHERE = ["batch_size", "beta1", "beta2", "bptt", "clip_value", "decay_rate", "eps", "lr", "max_vocab"]
_ANYWHERE += [
    "freq",
    "max_epochs",
    "min_count",
    "precision",
    "season_length",
    "top_k",
    "top_p",
    "valid_fraction",
    "weight_decay",
]
# Also English words: arguments only at the beginning and before an equals sign.
_IN_PLACES = [
    "anneal",
    "blocks",
    "cell",
    "cells",
    "dropout",
    "encoding",
    "head",
    "lags",
    "length",
    "lower",
    "momentum",
    "optimizer",
    "peers",
    "ranks",
    "shapes",
    "target",
    "temperature",
    "threads",
    "tied",
    "tokenizer",
    "window",
]


def in_options(message: str) -> str:
    """A message of `_check` that names options instead of arguments.

    Examples
    --------
    >>> in_options("AdamW: lr must be at least 0, got -1.0.")
    '--lr must be at least 0, got -1.0.'
    >>> in_options("RNNLM: tied=True needs embed_size equal to hidden_size, got 8 and 9.")
    '--tied needs --emsize equal to --nhid, got 8 and 9.'
    """
    owner = _OWNER.match(message)
    message = message[owner.end() :] if owner else message
    for name in sorted({*_ARGUMENTS, *_ANYWHERE, *_IN_PLACES}, key=len, reverse=True):
        option = _ARGUMENTS.get(name, "--" + name.replace("_", "-"))
        at_start = rf"^{name}(?= (?:must|belongs)\b)"
        message = re.sub(at_start, option, message)
        message = re.sub(rf"(?<![\w/.-]){name}=True\b", option, message)
        message = re.sub(rf'(?<![\w/.-]){name}="?([^\s";]+)"?', rf"{option} \1", message)
        if name not in _IN_PLACES and name not in ("layers", "dtype"):
            message = re.sub(rf"(?<![\w/.-]){name}(?![\w/-]|\.\w)", option, message)
    return message


def counted(number: int, noun: str) -> str:
    """A number with its noun in singular or plural.

    Examples
    --------
    >>> counted(1, "epoch"), counted(1200, "step")
    ('1 epoch', '1,200 steps')
    """
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
