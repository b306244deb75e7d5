"""The decorator that makes a cell from a function, and its errors."""

from __future__ import annotations

import dis
import functools
import inspect
import re
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rnnfast.cells._cell import Cell, Start
from rnnfast.cells._roles import Role
from rnnfast.kernels.cell.definition import ResultError
from rnnfast.kernels.cell.node import FormulaError

PRODUCTS = ("h", "diagonal", None)

# Names that an argument of a step cannot have, with their use in layers or models.
RESERVED = {
    **dict.fromkeys(("Wx", "Wh", "b", "bhh"), "a parameter of layers"),
    **dict.fromkeys(("xs", "x", "lengths", "reset", "out", "keep", "dhs"), "an argument of layers"),
    "words": "the start of word vectors",
    "self": "an argument of layers",
}


class CellError(TypeError):
    """A function is not the step of a cell; the message names the line and the fix.

    Examples
    --------
    >>> import rnnfast
    >>> def steps(a, h):
    ...     return 1.0 if a > 0 else 0.0
    >>> try:
    ...     rnnfast.cell(steps, states=("h",))
    ... except rnnfast.CellError as error:
    ...     print("branch" in str(error))
    True
    """


def cell(
    function: Callable | None = None,
    *,
    states: Sequence[str] = (),
    product: str | None = "h",
    apart: Sequence[str] = (),
    again: Sequence[str] = (),
    start: Mapping[str, Start] | None = None,
    title: str = "",
    forgets: Mapping[str, str] | None = None,
) -> Any:
    """Make a recurrent cell from one step written in Python.

    The function takes the gates, then the states, then keyword arguments whose default is a role (`unit`,
    `scalar`, `constant`, `given`, `normal`, `bernoulli`), and returns the states after the step. Each gate is
    ``x_t Wx + h_{t-1} Wh + b`` in one block of columns; h is the first state and the output. The decorator
    calls the function once, on symbols. It may use arithmetic and the functions of `rnnfast.cells`, but no
    branch on a value.

    Parameters
    ----------
    states : sequence of str
        Names of the states.
    product : {"h", "diagonal", None}
        How h_{t-1} enters the gates: through a matrix Wh (H, G*H), through one weight per unit, Wh (G*H,), or
        not at all.
    apart : sequence of str
        The last gates, whose two products stay separate: `n.x` is ``x Wx + b`` and `n.h` is ``h Wh + bhh``.
    again : sequence of str
        The last gates, whose recurrent operand the step computes: ``n(r * h)`` is ``x Wx + b + (r * h) Wh``.
    start : dict, optional
        Initial values of parameters by name: a number, or a function of the shape and a generator.
    title : str, optional
        Name of the cell in tables and pictures; by default the name of the function.
    forgets : dict, optional
        Gates that control memory, each with the end at which it forgets: "low" (shut) or "high" (open), for
        example ``{"f": "low"}`` for the LSTM. `rnnfast diagnose` reports them.

    Returns
    -------
    Cell

    Raises
    ------
    CellError
        The function is not the step of a cell; one sentence names the line and the reason.

    Examples
    --------
    >>> import numpy as np, rnnfast
    >>> from rnnfast.cells import relu
    >>> @rnnfast.cell(states=("h", "v"))
    ... def leaky(a, h, v, *, alpha=rnnfast.unit(0.1)):
    ...     v = v + alpha * (a - v)
    ...     return relu(v), v
    >>> layer = leaky.layer(3, 8, rng=np.random.default_rng(0))
    >>> layer.forward(np.ones((2, 5, 3), np.float32)).shape
    (2, 5, 8)
    """
    if function is None:
        return functools.partial(
            cell,
            states=states,
            product=product,
            apart=apart,
            again=again,
            start=start,
            title=title,
            forgets=forgets,
        )
    if not inspect.isfunction(function) and not inspect.ismethod(function):
        raise CellError(f"cell: a step must be a function written in Python, got {type(function).__name__}.")
    place = _place(function)
    names = _names(place, "states", states)
    options: dict[str, Any] = {
        "product": product,
        "apart": _names(place, "apart", apart),
        "again": _names(place, "again", again),
        "start": start,
        "title": title,
        "forgets": forgets,
    }
    gates, roles = _signature(function, names)
    _check_options(function, gates, roles, options)
    try:
        return Cell(function, gates, names, roles, **options)
    except FormulaError as error:
        raise CellError(f"{_place(function, error)}: {error}.") from None
    except RecursionError as error:
        raise CellError(
            f"{_place(function, error)}: the step calls itself without end, or deeper than the "
            f"{sys.getrecursionlimit()} calls of Python; use a loop over a number of Python."
        ) from None
    except (TypeError, AttributeError, ValueError, NameError, ArithmeticError) as error:
        raise CellError(
            f"{_place(function, error)}: {_plain(error)}; a step may use arithmetic and functions of "
            "rnnfast.cells."
        ) from error


def _names(place: str, kind: str, given: Any) -> tuple[str, ...]:
    names = (given,) if isinstance(given, str) else given
    if not isinstance(names, tuple | list) or not all(isinstance(name, str) for name in names):
        raise CellError(f"{place}: {kind} must be a sequence of names, got {given!r}.")
    return tuple(names)


def _signature(function: Callable, states: tuple[str, ...]) -> tuple[tuple[str, ...], dict[str, Role]]:
    """The gates of a step, and the roles of its keyword arguments."""
    place = _place(function)
    positional: list[str] = []
    roles: dict[str, Role] = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise CellError(f"{place}: every argument of a step must be named, got *{name}.")
        if parameter.kind is parameter.KEYWORD_ONLY:
            if not isinstance(parameter.default, Role):
                raise CellError(
                    f"{place}: the default of {name} must be a role such as rnnfast.unit(0.1), got "
                    f"{'none' if parameter.default is parameter.empty else repr(parameter.default)}."
                )
            roles[name] = parameter.default
        elif parameter.default is not parameter.empty:
            raise CellError(
                f"{place}: the argument {name} has a default, so it must follow a *, as in "
                f"def {function.__name__}(..., *, {name}=...)."
            )
        else:
            positional.append(name)
    if not states or len(set(states)) < len(states):
        raise CellError(
            f'{place}: states must name each state once, as in @rnnfast.cell(states=("h",)), got {states}.'
        )
    if tuple(positional[-len(states) :]) != states or len(positional) == len(states):
        raise CellError(
            f"{place}: the arguments must be at least one gate and then the states {', '.join(states)}, got "
            f"({', '.join(positional)})."
        )
    for name in (*positional, *roles):
        if name in RESERVED:
            raise CellError(
                f"{place}: no argument of a step can be called {name}, which is the name of "
                f"{RESERVED[name]}; choose another."
            )
    return tuple(positional[: -len(states)]), roles


def _check_options(function: Callable, gates: tuple[str, ...], roles: Any, options: dict[str, Any]) -> None:
    """CellError unless the options of `cell` fit the gates."""
    place = _place(function)
    if options["product"] not in PRODUCTS:
        raise CellError(f"{place}: product must be 'h', 'diagonal' or None, got {options['product']!r}.")
    for kind in ("apart", "again"):
        wanted = options[kind]
        if wanted and (options["product"] != "h" or options["apart" if kind == "again" else "again"]):
            raise CellError(f"{place}: {kind} needs product='h', and a cell has only one of apart and again.")
        if wanted and gates[len(gates) - len(wanted) :] != wanted:
            raise CellError(
                f"{place}: {kind} must name the last gates in their order, got {', '.join(wanted)} of "
                f"{', '.join(gates)}."
            )
    for kind in ("start", "forgets"):
        if not isinstance(options[kind] or {}, Mapping):
            raise CellError(f"{place}: {kind} must be a dict, got {type(options[kind]).__name__}.")
    for name, end in (options["forgets"] or {}).items():
        if name not in gates or end not in ("low", "high"):
            raise CellError(
                f"{place}: forgets must give gates of {', '.join(gates)} the end 'low' or 'high', got "
                f"{name!r}: {end!r}."
            )
    known = {"Wx", "Wh", "b", "bhh", "words", *(name for name, role in roles.items() if role.is_trained)}
    for name in options["start"] or {}:
        if name not in known:
            raise CellError(
                f"{place}: start has {name}, which is not a parameter; use {', '.join(sorted(known))}."
            )


def _plain(error: BaseException) -> str:
    """The message of a Python error, with class names replaced by "a value of the step"."""
    return re.sub(r"'?\b(Node|Apart|Again)\b'?( object)?", "a value of the step", str(error))


def _return_lines(code: Any) -> set[int]:
    """The lines of the ``return`` statements of a function."""
    lines, line = set(), code.co_firstlineno
    for instruction in dis.get_instructions(code):
        line = getattr(instruction, "line_number", None) or instruction.starts_line or line
        if instruction.opname in ("RETURN_VALUE", "RETURN_CONST"):
            lines.add(line)
    return lines


def _place(function: Callable, error: BaseException | None = None) -> str:
    """The file and line of a step, or of the error in it."""
    code = function.__code__
    line = code.co_firstlineno
    if isinstance(error, ResultError):
        returns = _return_lines(code)
        line = returns.pop() if len(returns) == 1 else line
    elif error is not None:
        inside = [
            f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == code.co_filename
        ]
        line = next((number for number in reversed(inside) if number and number > line), line)
    return f"cell {function.__name__} ({code.co_filename}, line {line})"
