"""The base of all optimizers: checks, state by position, saving."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any, Literal

import numpy as np

from rnnfast import _check
from rnnfast.engine.arrays import Seen, shown


class _Flat:
    """A parameter, its gradient and state, flattened in the order of the parameter's memory, so that a
    transposed view works. Arrays with gaps are copied."""

    def __init__(
        self, param: np.ndarray, grad: np.ndarray, state: list[np.ndarray], order: Literal["C", "F"]
    ) -> None:
        self.param = _check.arrays.kernel_ready(param.reshape(-1, order=order))
        self.grad = _check.arrays.kernel_ready(grad.reshape(-1, order=order))
        self.state, self._whole, self._order = state, param, order
        self._is_view = np.may_share_memory(self.param, param)
        self.copies = not (self._is_view and np.may_share_memory(self.grad, grad))

    def write_back(self) -> None:
        """Write a copy of the parameter back."""
        if not self._is_view:
            self._whole[...] = self.param.reshape(self._whole.shape, order=self._order)


class Optimizer:
    """The base of all optimizers: checks, state by position, saving. Subclasses define `_step`.

    Attributes
    ----------
    lr : float
        Learning rate; may be changed at any time.
    steps : int
        The number of updates so far.

    Notes
    -----
    `AdaGrad`, `RMSprop`, `Adam` and `AdamW` square the gradient in the dtype of the parameter. In float32,
    the square of an element above 1.8e19 is infinite: `AdaGrad` and `RMSprop` then never change this
    parameter again, `Adam` and `AdamW` make it NaN at the next update. Clip gradients that may grow so large;
    `global_norm` sums in float64 and stays finite.

    Examples
    --------
    >>> from rnnfast import optim
    >>> optimizer = optim.Adam(lr=0.01)
    >>> isinstance(optimizer, optim.Optimizer), optimizer.steps
    (True, 0)
    """

    hyperparameters: tuple[str, ...] = ("lr",)
    slots: tuple[str, ...] = ()

    def __init_subclass__(cls) -> None:
        """Let errors about arguments of the constructor name those there are."""
        super().__init_subclass__()
        if "__init__" in cls.__dict__:
            cls.__init__ = _check.objects.knows_arguments(cls.__init__)  # type: ignore[method-assign]

    def __init__(self, lr: float) -> None:
        self.lr = lr
        self.steps = 0
        self._state: dict[str, list[np.ndarray]] = {}
        self._seen = Seen()

    def __repr__(self) -> str:
        return shown(self, {name: getattr(self, name) for name in self.hyperparameters})

    def __copy__(self) -> Optimizer:
        """An independent optimizer: with shared arrays, each would change the other's state."""
        return deepcopy(self)

    @property
    def lr(self) -> float:
        """Learning rate."""
        return self._lr

    @lr.setter
    def lr(self, value: float) -> None:
        self._lr = _check.values.number(type(self).__name__, "lr", value, 0)

    def update(self, params: Sequence[np.ndarray], grads: Sequence[np.ndarray]) -> None:
        """Change each parameter in place along its gradient.

        Parameters
        ----------
        params, grads : sequence of ndarray
            One gradient per parameter, of the same shape and dtype, float32 or float64. Views such as `W.T`
            are allowed. `grads` is only read.

        Raises
        ------
        TypeError, ValueError
            If `grads` or the optimizer's state do not match `params`. Nothing is changed.
        """
        owner = f"{type(self).__name__}.update"
        lists = isinstance(params, list | tuple) and isinstance(grads, list | tuple)
        given = [*params, *grads] if lists else []
        flat = self._seen.of(given)
        if flat is None or not all(param.flags.writeable for param in params):
            flat = self._flat(owner, params, grads)
            if not any(one.copies for one in flat):
                self._seen.keep(given, flat)
        self.steps += 1
        for one in flat:
            self._step(one.grad, one.state, one.param)
            one.write_back()

    def _flat(self, owner: str, params: Sequence[np.ndarray], grads: Sequence[np.ndarray]) -> list[_Flat]:
        """Each parameter with its gradient and state, checked, as flat arrays."""
        _check.objects.parameters_and_gradients(owner, params, grads)
        # The same memory, without the behavior of array subclasses.
        params, grads = list(map(np.asarray, params)), list(map(np.asarray, grads))
        if self.slots and not self._state:
            self._state = {slot: [np.zeros_like(param) for param in params] for slot in self.slots}
        for arrays in self._state.values():
            _check.objects.same_parameters(owner, arrays, params)
        found = []
        for i, (param, grad) in enumerate(zip(params, grads, strict=True)):
            order: Literal["C", "F"] = (
                "F" if param.flags.f_contiguous and not param.flags.c_contiguous else "C"
            )
            for slot in self.slots:
                self._state[slot][i] = np.asarray(self._state[slot][i], order=order)
            state = [self._state[slot][i].reshape(-1, order=order) for slot in self.slots]
            found.append(_Flat(param, grad, state, order))
        return found

    def _step(self, grad: np.ndarray, state: list[np.ndarray], param: np.ndarray) -> None:
        """Update one flat parameter and its state, one array per slot, from its gradient."""
        raise NotImplementedError

    def state_dict(self, *, copy: bool = True) -> dict[str, dict[str, Any]]:
        """Everything needed to continue: ``{"scalars": JSON values, "arrays": {"m.0": ndarray, ...}}``.

        Arrays are named by slot and position of the parameter. They are C-contiguous copies; without `copy`,
        they are the optimizer's own arrays, which the next `update` changes.
        """
        scalars: dict[str, Any] = {"name": type(self).__name__, "steps": self.steps}
        scalars.update({name: getattr(self, name) for name in self.hyperparameters})
        arrays = {
            f"{slot}.{i}": np.array(array, order="C") if copy else array
            for slot, kept in self._state.items()
            for i, array in enumerate(kept)
        }
        return {"scalars": scalars, "arrays": arrays}

    def load_state_dict(self, state: dict[str, dict[str, Any]], *, copy: bool = True) -> None:
        """Restore a `state_dict` of the same class: hyperparameters, learning rate, arrays.

        Without `copy`, the arrays become the optimizer's own.

        Raises
        ------
        TypeError, ValueError
            If `state` comes from another class or is incomplete. Shapes are checked at the next `update`.
        """
        owner = f"{type(self).__name__}.load_state_dict"
        scalars = ("steps", *self.hyperparameters)
        count = _check.objects.optimizer_state(owner, state, type(self).__name__, scalars, self.slots)
        given = state["scalars"]
        restored = type(self)(**{name: given[name] for name in self.hyperparameters})
        restored.steps = _check.values.size(owner, "steps", given["steps"], minimum=0)
        if count:
            taken = np.array if copy else np.asarray
            restored._state = {
                slot: [taken(state["arrays"][f"{slot}.{i}"], order="C") for i in range(count)]
                for slot in self.slots
            }
        self.__dict__.update(restored.__dict__)
