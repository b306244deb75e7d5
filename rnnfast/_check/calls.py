"""Calls that come too early, from another thread, or that an object cannot do."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any


def called_before(owner: str, ready: bool, first: str) -> None:
    """Guard for methods that need another one first (`backward` after `forward`)."""
    if not ready:
        raise RuntimeError(f"{owner}: call {first} first.")


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


def no_stream(owner: str) -> TypeError:
    """The error of `step` where the end of the sequence must be known."""
    return TypeError(f"{owner} cannot step: it reads sequences from their end too; use forward.")


def fixed(owner: str, name: str) -> TypeError:
    """The error of replacing an array that stays for the life of its owner."""
    return TypeError(
        f"{owner}: {name} cannot be replaced, since the arrays stay for its life; write into them, "
        f"{name}[0][...] = values."
    )


def known_arguments(owner: str, given: Iterable[str], known: Sequence[str]) -> None:
    """Keyword arguments whose names depend on the cell."""
    for name in given:
        if name not in known:
            raise TypeError(f"{owner}: there is no argument {name}; there is {', '.join(known) or 'none'}.")


def in_order(owner: str, names: Sequence[str], values: Sequence[Any], named: dict[str, Any]) -> list[Any]:
    """Values by position or by name, one for each of the names; None for those left out."""
    known_arguments(owner, named, names)
    if len(values) > len(names) or any(name in named for name in names[: len(values)]):
        raise TypeError(
            f"{owner}: takes {', '.join(names)}, each once, got {len(values)} and {', '.join(named)}."
        )
    return [*values, *(named.get(name) for name in names[len(values) :])]


def pickled(owner: str, state: dict[str, Any], *needed: str) -> None:
    """A pickle holds what this version puts into one."""
    if not all(name in state for name in needed):
        raise TypeError(f"{owner}: the pickle is of another version of rnnfast; keep models with save().")


def not_copied(owner: str, why: str) -> TypeError:
    """The error of what cannot be copied or pickled."""
    return TypeError(f"{owner} cannot be copied or pickled: {why}.")
