"""A cell as users write it: equations, the roles of their arguments, and layers made from it."""

from __future__ import annotations

import functools
import hashlib
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from rnnfast import _check
from rnnfast._check.values import nothing_masked
from rnnfast.cells._roles import Role
from rnnfast.kernels.cell.definition import Cell as Equations

# A value, or a function that draws one from a shape and a generator.
Start = float | Callable[[tuple[int, ...], np.random.Generator], np.ndarray]


# Every cell that this program has defined; saved models look for theirs here. The keys are ids, since equal
# cells may be defined and collected separately.
_defined: weakref.WeakValueDictionary[int, Cell] = weakref.WeakValueDictionary()


class Cell:
    """A recurrent cell: one step as equations, from which the compiled layer and its gradient are derived.

    `rnnfast.cell` makes cells; `rnnfast.cells` has the built-in ones.

    Attributes
    ----------
    name : str
    gates, states : tuple of str
        Names of the column blocks of Wx, Wh and b, and of the states; the first state is the output.
    roles : dict of str to Role
        Roles of the keyword arguments of the step.
    product : {"h", "diagonal", None}
        How h_{t-1} enters the gates: through a matrix, through one weight per unit, or not at all.
    fingerprint : str
        A hash of the computation of the cell.
    title : str
        Its name in tables and pictures; by default `name`.
    forgets : dict of str to str
        Gates that control memory, each with the end at which it forgets: "low" (shut) or "high" (open).

    Examples
    --------
    >>> import rnnfast
    >>> cell = rnnfast.cells.leaky
    >>> cell.states, list(cell.roles), cell.product
    (('h', 'v'), ['alpha', 'noise'], 'h')
    >>> cell.layer(input_size=3, hidden_size=8).parameter_names
    ('Wx', 'Wh', 'b', 'alpha')
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
        _defined[id(self)] = self

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
        """The names it can be found by: its own, and the name of its equations."""
        return tuple(dict.fromkeys((self.name, self.step.__name__)))

    @functools.cached_property
    def activations(self) -> dict[str, str]:
        """For each gate that has one, the first sigmoid, tanh or relu applied to its pre-activation."""
        return {gate: node.op for gate, node in self.equations.activations.items()}

    @property
    def is_plain(self) -> bool:
        """Whether the step is just h_t = activation(x_t Wx + h_{t-1} Wh + b), with sigmoid, tanh or relu."""
        made, (first, *others) = self.equations.activations.get(self.gates[0]), self.equations.after
        return not others and made is first and made.args[0] is self.equations.inputs[self.gates[0]]

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
        """A hash of the computation of the cell, independent of its names."""
        roles = [(role.kind, None if role.is_trained else role.value) for role in self.roles.values()]
        return hashlib.sha256(repr((self.equations.fingerprint, self.product, roles)).encode()).hexdigest()

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
        """The initial value of a parameter of a shape such as (D, G*H).

        As in the book, weights are randn / sqrt(fan-in) and biases zero, unless the cell defines others.
        """
        start = self.start.get(name)
        if callable(start):
            return np.asarray(nothing_masked(self.name, f"start of {name}", start(shape, rng)))
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
        precision: str | None = None,
    ) -> Any:
        """A layer of this cell with new parameters.

        Parameters
        ----------
        input_size, hidden_size : int
            D and H.
        rng : numpy.random.Generator, optional
            Source of the weights and of the seed of random arguments; a new one by default.
        dtype : float32 or float64
        stateful : bool
            Whether the state after one `forward` is the initial state of the next.
        precision : "bfloat16", optional
            Round the operands of products to bfloat16; see `TimeLSTM.precision`.

        Returns
        -------
        Recurrent
        """
        import rnnfast

        return rnnfast.Recurrent.of(
            self, input_size, hidden_size, rng=rng, dtype=dtype, stateful=stateful, precision=precision
        )

    def describe(self) -> str:
        """The equations, the derived gradient, the values cached for backward, and operations per unit.

        ``h`` is a state before the step and ``h_t`` after it; ``dh_t`` is the incoming gradient. A value used
        more than once has a name.

        Returns
        -------
        str

        Examples
        --------
        >>> import rnnfast
        >>> print(rnnfast.cells.min_gru.describe())
        min_gru: gates z, n; states h
          Step
            z, n = x_t Wx + b
            sigmoid_z = sigmoid(z)
            t1 = 1 - sigmoid_z
            h_t = t1 * h + sigmoid_z * n
          Gradient of a step
            dz = dh_t * (n - h) * (sigmoid_z * t1)
            dn = dh_t * sigmoid_z
            dh = dh_t * t1
            dx_t = (dz, dn) Wx^T
          Kept for the backward pass
            h_t, sigmoid_z, n
          Operations a unit
            4 forward, 8 backward, and the products
        """
        from rnnfast.cells._describe import described

        return described(self)

    def check(self, *, hidden_size: int = 5, steps: int = 6, rng: np.random.Generator | None = None) -> float:
        """Compare the compiled gradient, in float64, with central differences of the equations.

        In the differences, a `step` has the derivative of its surrogate, `stop_gradient` is constant, and
        `where`, `relu`, `abs`, `maximum` and `minimum` keep the branch of the first run.

        Parameters
        ----------
        hidden_size, steps : int
            Size of the tested layer, and length of its sequences.
        rng : numpy.random.Generator, optional
            Source of its weights, inputs and random arguments.

        Returns
        -------
        float
            The largest relative difference over inputs, initial states, given arrays and parameters, and over
            the outputs themselves; around 1e-9.

        Raises
        ------
        AssertionError
            A gradient or an output differs by more than 1e-5.

        Examples
        --------
        >>> import numpy as np, rnnfast
        >>> rnnfast.cells.rnn.check(rng=np.random.default_rng(0)) < 1e-8
        True
        """
        from rnnfast.cells._check_gradient import largest_difference

        owner = f"{self.name}.check"
        width, length = (
            _check.values.size(owner, "hidden_size", hidden_size),
            _check.values.size(owner, "steps", steps),
        )
        return largest_difference(self, width, length, _check.values.generator(owner, rng))

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
    """The step with one weight per unit between h_{t-1} and each gate."""

    def whole(*arguments: Any, **named: Any) -> Any:
        h = arguments[gates]
        own = [a + named.pop(weight) * h for a, weight in zip(arguments[:gates], weights, strict=True)]
        return step(*own, *arguments[gates:], **named)

    return whole


def defined(name: str, fingerprint: str) -> Cell:
    """The cell with this fingerprint that the program has defined.

    Examples
    --------
    >>> from rnnfast import cells
    >>> cells.defined("leaky", cells.leaky.fingerprint) is cells.leaky
    True
    """
    found = [cell for cell in list(_defined.values()) if cell.fingerprint == fingerprint]
    if not found:
        raise _check.objects.cell_missing(name, fingerprint)
    return next((cell for cell in found if cell.name == name), found[0])
