"""A cell as users write and see it: equations, the roles of their arguments, and the layers made of them."""

from __future__ import annotations

import functools
import hashlib
import inspect
import traceback
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from rnnfast import _check
from rnnfast.cells._roles import Role
from rnnfast.kernels.cell import Cell as Equations
from rnnfast.kernels.expression import FormulaError

PRODUCTS = ("h", "diagonal", None)

# A value or what draws one from a shape and a generator.
Start = float | Callable[[tuple[int, ...], np.random.Generator], np.ndarray]


# Every cell that this program has defined, by fingerprint: a saved model finds its own here.
_defined: weakref.WeakValueDictionary[str, Cell] = weakref.WeakValueDictionary()


class CellError(TypeError):
    """A function is no step of a cell; the message names the line and what to write instead."""


class Cell:
    """A recurrent cell: one step as equations, from which the compiled layer and its gradient follow.

    Made by `rnnfast.cell`; `rnnfast.cells` has ready ones.

    Attributes
    ----------
    name : str
    gates, states : tuple of str
        Names of the blocks of columns of Wx, Wh and b, and of the states; the first state is the output.
    roles : dict of str to Role
        What the keyword arguments of the step are.
    product : {"h", "diagonal", None}
        How h_{t-1} enters the gates: by a matrix, by one weight a unit, or not at all.
    fingerprint : str
        A hash of what the cell computes.
    title : str
        What tables and pictures call it; the name by default.
    forgets : dict of str to str
        Gates that decide over memory, each with the end at which it forgets: "low" (shut) or "high" (open).
    """

    def __init__(
        self,
        step: Callable,
        gates: Sequence[str],
        states: Sequence[str],
        roles: Mapping[str, Role],
        *,
        name: str = "",
        product: str | None = "h",
        apart: Sequence[str] = (),
        again: Sequence[str] = (),
        start: Mapping[str, Start] | None = None,
        title: str = "",
        forgets: Mapping[str, str] | None = None,
    ) -> None:
        self.step, self.name = step, name or step.__name__
        self.title, self.forgets = title or self.name, dict(forgets or {})
        self.gates, self.states, self.roles = tuple(gates), tuple(states), dict(roles)
        self.product, self.apart, self.again = product, tuple(apart), tuple(again)
        self.start = dict(start or {})
        self.__doc__ = step.__doc__
        self.equations = self._equations()
        _defined.setdefault(self.fingerprint, self)

    def _equations(self) -> Equations:
        diagonal = [f"Wh.{gate}" for gate in self.gates] if self.product == "diagonal" else []
        units = [name for name, role in self.roles.items() if not role.is_row]
        return Equations(
            self.name,
            _with_diagonal(self.step, len(self.gates), diagonal) if diagonal else self.step,
            self.gates,
            self.states,
            product=self.product == "h",
            apart=self.apart,
            again=self.again,
            units=[*diagonal, *units],
            trained=[*diagonal, *(name for name in units if self.roles[name].is_trained)],
            given=self.rows,
            wanted=[name for name in self.rows if self.roles[name].kind == "given"],
        )

    @property
    def names(self) -> tuple[str, ...]:
        """What it may be called where a name is asked for: its own, and that of its equations."""
        return tuple(dict.fromkeys((self.name, self.step.__name__)))

    @functools.cached_property
    def activations(self) -> dict[str, str]:
        """Of each gate that has one, the first sigmoid, tanh or relu that its pre-activation goes into."""
        return {gate: node.op for gate, node in self.equations.activations.items()}

    @property
    def is_plain(self) -> bool:
        """Whether h_t = activation(x_t Wx + h_{t-1} Wh + b) is all of it, with sigmoid, tanh or relu."""
        made, (first, *others) = self.equations.activations.get(self.gates[0]), self.equations.after
        return not others and made is first and made.args == (self.equations.inputs[self.gates[0]],)

    @functools.cached_property
    def rows(self) -> tuple[str, ...]:
        """Arguments with a value for each sequence and step."""
        return tuple(name for name, role in self.roles.items() if role.is_row)

    @property
    def random(self) -> tuple[str, ...]:
        """Arguments that are random numbers."""
        return tuple(name for name, role in self.roles.items() if role.is_random)

    @functools.cached_property
    def fingerprint(self) -> str:
        """A hash of what the cell computes: equal for two that say the same, whatever their names."""
        fixed = [(role.kind, role.value) for role in self.roles.values() if not role.is_trained]
        return hashlib.sha256(repr((self.equations.fingerprint, self.product, fixed)).encode()).hexdigest()

    def shapes(self, input_size: int, hidden_size: int) -> dict[str, tuple[int, ...]]:
        """Name and shape of each parameter of a layer, in the order of `params`."""
        cols = len(self.gates) * hidden_size
        shapes: dict[str, tuple[int, ...]] = {"Wx": (input_size, cols)}
        if self.product:
            shapes["Wh"] = (hidden_size, cols) if self.product == "h" else (cols,)
        shapes["b"] = (cols,)
        if self.apart:
            shapes["bhh"] = (len(self.apart) * hidden_size,)
        for name, role in self.roles.items():
            if role.is_trained:
                shapes[name] = (hidden_size,) if role.kind == "unit" else (1,)
        return shapes

    def initial(self, name: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        """What a parameter starts from: as in the book, weights randn / sqrt(fan-in) and biases zero, unless the
        cell says otherwise."""
        start = self.start.get(name)
        if callable(start):
            return np.asarray(start(shape, rng))
        if start is not None:
            return np.full(shape, start)
        if name in self.roles:
            return np.full(shape, self.roles[name].value)
        if len(shape) == 1 and name != "Wh":
            return np.zeros(shape)
        return rng.standard_normal(shape) / np.sqrt(shape[0] if len(shape) > 1 else 1)

    def layer(
        self,
        input_size: int,
        hidden_size: int,
        *,
        rng: np.random.Generator | None = None,
        dtype: np.typing.DTypeLike = np.float32,
        stateful: bool = False,
    ) -> Any:
        """A layer of this cell with fresh parameters.

        Parameters
        ----------
        input_size, hidden_size : int
            D and H.
        rng : numpy.random.Generator, optional
            Source of the weights and of the seed of random arguments; a fresh one by default.
        dtype : float32 or float64
        stateful : bool
            Whether the state after one `forward` is the initial state of the next.

        Returns
        -------
        Recurrent
        """
        from rnnfast.layers.recurrent import Recurrent

        return Recurrent.of(self, input_size, hidden_size, rng=rng, dtype=dtype, stateful=stateful)

    def describe(self) -> str:
        """The equations, the derived gradient, what is kept for the backward pass, and operations a unit."""
        from rnnfast.cells._describe import described

        return described(self)

    def check(self, *, hidden_size: int = 5, steps: int = 6, rng: np.random.Generator | None = None) -> float:
        """Compare the derived gradient with central differences in float64.

        Parameters
        ----------
        hidden_size, steps : int
            Size of the layer that is tried, and length of its sequences.
        rng : numpy.random.Generator, optional
            Source of its weights and inputs.

        Returns
        -------
        float
            The largest relative difference over inputs, states and parameters. It is around 1e-9, unless a
            branch of `where`, `relu` or `abs` changed between the two sides of a difference. A `step`, whose
            surrogate derivative no difference can show, is left out.

        Raises
        ------
        AssertionError
            A gradient differs by more than 1e-5.
        """
        from rnnfast.cells._check_gradient import largest_difference

        return largest_difference(self, hidden_size, steps, _check.generator(f"{self.name}.check", rng))

    def __repr__(self) -> str:
        return f"<cell {self.name}({', '.join((*self.gates, *self.states, *self.roles))})>"

    def __reduce__(self) -> Any:
        return defined, (self.name, self.fingerprint)

    def __copy__(self) -> Cell:
        return self

    def __deepcopy__(self, known: Any) -> Cell:
        return self  # a value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Cell) and (self.name, self.fingerprint) == (other.name, other.fingerprint)

    def __hash__(self) -> int:
        return hash((self.name, self.fingerprint))


def _with_diagonal(step: Callable, gates: int, weights: Sequence[str]) -> Callable:
    """The step with one weight a unit between h_{t-1} and each gate."""

    def whole(*arguments: Any, **named: Any) -> Any:
        h = arguments[gates]
        own = [a + named.pop(weight) * h for a, weight in zip(arguments[:gates], weights, strict=True)]
        return step(*own, *arguments[gates:], **named)

    return whole


def cell(
    function: Callable | None = None,
    *,
    states: Sequence[str],
    product: str | None = "h",
    apart: Sequence[str] = (),
    again: Sequence[str] = (),
    start: Mapping[str, Start] | None = None,
    title: str = "",
    forgets: Mapping[str, str] | None = None,
) -> Any:
    """Make a recurrent cell of one step written in Python.

    The function takes the gates, then the states, then keyword arguments whose default is a role (`unit`,
    `scalar`, `constant`, `given`, `normal`, `bernoulli`), and returns the states after the step. Each gate is
    ``x_t Wx + h_{t-1} Wh + b`` in one block of columns, with h the first state, which is the output too. The
    function runs once, here, on symbols: it may use arithmetic and the functions of `rnnfast.cells`, and has no
    branch on a value.

    Parameters
    ----------
    states : sequence of str
        Names of the states.
    product : {"h", "diagonal", None}
        How h_{t-1} enters the gates: by a matrix Wh (H, G*H), by one weight a unit, Wh (G*H,), or not at all.
    apart : sequence of str
        Gates whose two products stay apart, the last ones: `n.x` is ``x Wx + b`` and `n.h` is ``h Wh + bhh``.
    again : sequence of str
        Gates whose product waits for an operand that the step makes, the last ones: ``n(r * h)`` is
        ``x Wx + b + (r * h) Wh``.
    start : dict, optional
        What parameters start from, by name: a number, or a function of the shape and a generator.
    title : str, optional
        What tables and pictures call the cell; its name by default.
    forgets : dict, optional
        Gates that decide over memory, each with the end at which it forgets: "low" (shut) or "high" (open), as
        ``{"f": "low"}`` of the LSTM. `rnnfast diagnose` looks at them.

    Returns
    -------
    Cell

    Raises
    ------
    CellError
        The function says what a cell cannot: in one sentence, with its line.

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
        return functools.partial(cell, states=states, product=product, apart=apart, again=again, start=start,
                                 title=title, forgets=forgets)  # fmt: skip
    options: dict[str, Any] = {"product": product, "apart": _names(apart), "again": _names(again)}
    options |= {"start": start, "title": title, "forgets": forgets}
    gates, roles = _signature(function, _names(states))
    _check_options(function, gates, roles, options)
    try:
        return Cell(function, gates, _names(states), roles, **options)
    except FormulaError as error:
        raise CellError(f"{_place(function, error)}: {error}.") from None
    except (TypeError, AttributeError, ValueError, NameError, ArithmeticError) as error:
        raise CellError(f"{_place(function, error)}: {error}; a step is arithmetic and functions of rnnfast.cells.") from error


def _names(given: Any) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given)


def _signature(function: Callable, states: tuple[str, ...]) -> tuple[tuple[str, ...], dict[str, Role]]:
    """The gates and the roles of a step."""
    place = _place(function)
    positional: list[str] = []
    roles: dict[str, Role] = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise CellError(f"{place}: every argument of a step needs a name of its own, got *{name}.")
        if parameter.kind is parameter.KEYWORD_ONLY:
            if not isinstance(parameter.default, Role):
                raise CellError(
                    f"{place}: the default of {name} must be a role such as rnnfast.unit(0.1), got "
                    f"{'none' if parameter.default is parameter.empty else repr(parameter.default)}."
                )
            roles[name] = parameter.default
        else:
            positional.append(name)
    if not states or len(set(states)) < len(states):
        raise CellError(f"{place}: states must name each state once, got {states}.")
    if tuple(positional[-len(states) :]) != states or len(positional) == len(states):
        raise CellError(
            f"{place}: the arguments must be at least one gate and then the states {', '.join(states)}, got "
            f"({', '.join(positional)})."
        )
    taken = {"Wx", "Wh", "b", "bhh", "xs", "lengths", "reset", "out", "keep", "x", "dhs"}
    for name in (*positional, *roles):
        if name in taken:
            raise CellError(f"{place}: {name} is the name of something else of every layer; choose another.")
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
    for name, end in (options["forgets"] or {}).items():
        if name not in gates or end not in ("low", "high"):
            raise CellError(
                f"{place}: forgets must give gates of {', '.join(gates)} the end 'low' or 'high', got "
                f"{name!r}: {end!r}."
            )
    known = {"Wx", "Wh", "b", "bhh", "words", *(name for name, role in roles.items() if role.is_trained)}
    for name in options["start"] or {}:
        if name not in known:
            raise CellError(f"{place}: start has {name}, which is no parameter; there are {', '.join(sorted(known))}.")


def _place(function: Callable, error: BaseException | None = None) -> str:
    """The file and line of a step, or of the error in it."""
    code = function.__code__
    line = code.co_firstlineno
    if error is not None:
        inside = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == code.co_filename]
        line = next((number for number in reversed(inside) if number and number > line), line)
    return f"cell {function.__name__} ({code.co_filename}, line {line})"


def defined(name: str, fingerprint: str) -> Cell:
    """The cell with this fingerprint that the program has defined."""
    found = _defined.get(fingerprint)
    if found is None:
        raise _check.cell_missing(name, fingerprint)
    return found
