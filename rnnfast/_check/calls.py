"""Checks of calls: calls made too early, from another thread, or not supported by the object."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any


def called_before(owner: str, ready: bool, first: str) -> None:
    """Guard for methods that must follow another one (`backward` after `forward`)."""
    if not ready:
        raise RuntimeError(f"{owner}: call {first} first.")


def another_thread(owner: str) -> RuntimeError:
    """The error for training one object from two threads."""
    return RuntimeError(
        f"{owner}: another thread is training it; wait for that, or use a copy (copy.deepcopy)."
    )


def no_stream(owner: str) -> TypeError:
    """The error for `step` of a layer that also reads sequences backwards."""
    return TypeError(f"{owner} cannot step: it also reads sequences backwards; use forward.")


def fixed(owner: str, name: str) -> TypeError:
    """The error for replacing an array that its owner keeps for life."""
    return TypeError(
        f"{owner}: {name} cannot be replaced, since its arrays are permanent; write into them, "
        f"{name}[0][...] = values."
    )


# What others call an argument, where the nearest spelling is another one or none.
_OTHER_NAMES = {
    "alpha": "decay_rate",
    "betas": "beta1",
    "epochs": "",
    "epsilon": "eps",
    "learning_rate": "lr",
    "nhid": "hidden_size",
    "ninp": "embed_size",
    "ntoken": "vocab_size",
    "p": "dropout_ratio",
    "random_state": "rng",
    "rho": "decay_rate",
    "seed": "rng",
    "units": "hidden_size",
}


def knows_arguments(method: Callable[..., None]) -> Callable[..., None]:
    """Decorate an `__init__`: the TypeError for an unknown keyword names the argument that was meant."""
    code = method.__code__
    names = code.co_varnames[1 : code.co_argcount + code.co_kwonlyargcount]
    if code.co_flags & inspect.CO_VARKEYWORDS:
        return method

    @functools.wraps(method)
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        for name in kwargs:
            if name not in names:
                owner, near = type(self).__name__, difflib.get_close_matches(name, names, 1)
                other = _OTHER_NAMES.get(name, near[0] if near else "")
                meant = f"; use {other}" if other in names else ""
                raise TypeError(f"{owner}: arguments are {', '.join(names)}, got {name}{meant}.")
        method(self, *args, **kwargs)

    return init


def known_arguments(owner: str, given: Iterable[str], known: Sequence[str]) -> None:
    """Keyword arguments whose names depend on the cell."""
    for name in given:
        if name not in known:
            others = known if "resets" in known else (*known, "lengths", "reset")
            near = difflib.get_close_matches(name, others, 1)
            taken = f"it takes {', '.join(known)}." if known else "the cell has no arguments of its own."
            hint = f"did you mean {near[0]}?" if near else taken
            raise TypeError(f"{owner}: unknown argument {name}; {hint}")


def in_order(owner: str, names: Sequence[str], values: Sequence[Any], named: dict[str, Any]) -> list[Any]:
    """Values given by position or by name, in the order of `names`; None for each that is missing."""
    known_arguments(owner, named, names)
    if len(values) > len(names) or any(name in named for name in names[: len(values)]):
        raise TypeError(
            f"{owner}: takes {', '.join(names)}, each once, got {len(values)} and {', '.join(named)}."
        )
    return [*values, *(named.get(name) for name in names[len(values) :])]


def pickled(owner: str, state: dict[str, Any], *needed: str) -> None:
    """A pickle has every entry that this version writes."""
    if not all(name in state for name in needed):
        raise TypeError(f"{owner}: another version of rnnfast wrote this pickle; keep models with save().")
