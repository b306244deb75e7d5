"""Numbers and words given to options: read here, so that every release of typer refuses them in one way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import typer

from rnnfast import _check
from rnnfast.cli.own_cells import cell_name

_OWNER = "option"  # what `_check` calls the one who asks; left out again


class BadOption(typer.BadParameter):
    """A value that an option cannot take, as a whole sentence."""

    def format_message(self) -> str:
        """The sentence, without typer's words around it."""
        return self.message


def whole(option: str, low: int, high: int | None = None) -> Callable[[Any], int]:
    """What reads a whole number of at least `low`, and at most `high` where there is a limit.

    Examples
    --------
    >>> whole("--epochs", 1)("3")
    3
    >>> whole("--epochs", 1)("0")
    Traceback (most recent call last):
    rnnfast.cli.numbers.BadOption: --epochs must be at least 1, got 0.
    """
    return _reader(int, lambda value: _check.size(_OWNER, option, value, low, high))


def number(option: str, low: float) -> Callable[[Any], float]:
    """What reads a finite number of at least `low`.

    Examples
    --------
    >>> number("--lr", 0.0)("nan")
    Traceback (most recent call last):
    rnnfast.cli.numbers.BadOption: --lr must be finite, got nan.
    """
    return _reader(float, lambda value: _check.number(_OWNER, option, value, low))


def share(option: str) -> Callable[[Any], float]:
    """What reads a number between 0 and 1, both excluded."""
    return _reader(float, lambda value: _check.fraction(_OWNER, option, value))


def share_or_all(option: str) -> Callable[[Any], float]:
    """What reads a number above 0 and at most 1."""

    def check(value: Any) -> float:
        found = _check.number(_OWNER, option, value, 0.0, 1.0)
        if not found:
            raise BadOption(f"{option} must be above 0 and at most 1, got {value}.")
        return found

    return _reader(float, check)


def below_one(option: str) -> Callable[[Any], float]:
    """What reads a number from 0 to below 1."""
    return _reader(float, lambda value: _check.number_below(_OWNER, option, value, 0, 1))


def word(option: str, *allowed: str) -> Callable[[Any], str]:
    """What reads one of a few words, in upper or lower case.

    Examples
    --------
    >>> word("--optimizer", "adam", "sgd")("SGD")
    'sgd'
    """
    return _reader(str, lambda value: _check.choice(_OWNER, option, value, allowed))


def cell(option: str) -> Callable[[Any], str]:
    """What reads the name of a ready cell, or `module:name` for one of the user's own.

    Examples
    --------
    >>> cell("--cell")("RNN_TANH")
    'rnn'
    """
    return _reader(str, lambda value: cell_name(_OWNER, option, value))


def own_cell(option: str) -> Callable[[Any], str]:
    """What reads `module:name` for a cell of the user's own."""

    def check(value: Any) -> str:
        if ":" not in value:
            raise BadOption(f"{option} must be module:name of a cell of your own, got {value!r}.")
        return cell_name(_OWNER, option, value)

    return _reader(str, check)


def _reader(kind: type, check: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def read(text: Any) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = text  # which the check refuses
        try:
            return check(value)
        except (TypeError, ValueError) as error:
            raise BadOption(str(error).removeprefix(f"{_OWNER}: ")) from None

    return read
