"""Parsers of numbers and words given to options; with them, errors are the same in every release of typer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import typer

from rnnfast import _check
from rnnfast.cli.own_cells import cell_name

_OWNER = "option"  # the owner in messages of `_check`, removed again here


class BadOption(typer.BadParameter):
    """An invalid value of an option, reported in a whole sentence."""

    def format_message(self) -> str:
        """The sentence alone, without typer's prefix."""
        return self.message


def whole(option: str, low: int, high: int | None = None) -> Callable[[Any], int]:
    """A parser of whole numbers of at least `low` and, unless it is None, at most `high`.

    Examples
    --------
    >>> whole("--epochs", 1)("3")
    3
    >>> whole("--epochs", 1)("0")
    Traceback (most recent call last):
    rnnfast.cli.numbers.BadOption: --epochs must be at least 1, got 0.
    """
    return _reader(int, lambda value: _check.values.size(_OWNER, option, value, low, high))


def number(option: str, low: float) -> Callable[[Any], float]:
    """A parser of finite numbers of at least `low`.

    Examples
    --------
    >>> number("--lr", 0.0)("nan")
    Traceback (most recent call last):
    rnnfast.cli.numbers.BadOption: --lr must be finite, got nan.
    """
    return _reader(float, lambda value: _check.values.number(_OWNER, option, value, low))


def share(option: str) -> Callable[[Any], float]:
    """A parser of numbers between 0 and 1, both excluded."""
    return _reader(float, lambda value: _check.values.fraction(_OWNER, option, value))


def between(option: str, low: float, high: float) -> Callable[[Any], float]:
    """A parser of numbers between `low` and `high`, both excluded."""

    def check(value: Any) -> float:
        found = _check.values.number(_OWNER, option, value, low, high)
        if not low < found < high:
            raise BadOption(f"{option} must be between {low:g} and {high:g}, got {value}.")
        return found

    return _reader(float, check)


def share_or_all(option: str) -> Callable[[Any], float]:
    """A parser of numbers above 0 and at most 1."""

    def check(value: Any) -> float:
        found = _check.values.number(_OWNER, option, value, 0.0, 1.0)
        if not found:
            raise BadOption(f"{option} must be above 0 and at most 1, got {value}.")
        return found

    return _reader(float, check)


def below_one(option: str) -> Callable[[Any], float]:
    """A parser of numbers of at least 0 and below 1."""
    return _reader(float, lambda value: _check.values.number_below(_OWNER, option, value, 0, 1))


def word(option: str, *allowed: str) -> Callable[[Any], str]:
    """A parser of the `allowed` words, in upper or lower case.

    Examples
    --------
    >>> word("--optimizer", "adam", "sgd")("SGD")
    'sgd'
    """
    return _reader(str, lambda value: _check.values.choice(_OWNER, option, value, allowed))


def cell(option: str) -> Callable[[Any], str]:
    """A parser of names of built-in cells, or `module:name` of a user's own cell.

    Examples
    --------
    >>> cell("--cell")("RNN_TANH")
    'rnn'
    """
    return _reader(str, lambda value: cell_name(_OWNER, option, value))


def own_cell(option: str) -> Callable[[Any], str]:
    """A parser of `module:name` of a user's own cell."""

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
            value = text  # the check refuses it
        try:
            return check(value)
        except (TypeError, ValueError) as error:
            raise BadOption(str(error).removeprefix(f"{_OWNER}: ")) from None

    return read
