"""Layers that act as one: what `Stack` and `Bidirectional` share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from rnnfast import _check
from rnnfast._turns import in_turn
from rnnfast.layers.base import Layer
from rnnfast.layers.carrying import set_states
from rnnfast.layers.dropout import TimeDropout
from rnnfast.state import State, plain


class Composed(Layer):
    """A layer made of others: their parameters and gradients in order, their states, their random numbers."""

    layers: list[Any]
    _dropouts: Sequence[TimeDropout] = ()

    def _compose(self, layers: Sequence[Any]) -> None:
        """Begin with these layers, which must be distinct."""
        _check.distinct(type(self).__name__, layers)
        self.layers = list(layers)
        self._hold(
            [param for layer in layers for param in layer.params],
            [grad for layer in layers for grad in layer.grads],
        )
        self.dtype = layers[0].dtype
        self.input_size = layers[0].input_size
        self._train_flg = True

    @property
    def recurrent(self) -> list[Any]:
        """Each recurrent layer inside, from the first."""
        return [inner for layer in self.layers for inner in getattr(layer, "recurrent", (layer,))]

    # States.

    @in_turn
    def get_state(self) -> tuple[Any, ...]:
        """Copies of the states of all layers, for `set_state`."""
        return tuple(layer.get_state() for layer in self.layers)

    @in_turn
    def set_state(self, state: tuple[Any, ...] | State | None) -> None:
        """Go back to the states of `get_state`, or to a `State`; None is the fresh state."""
        given = plain(state)
        set_states(self.layers, [None] * len(self.layers) if given is None else given)

    @in_turn
    def reset_state(self) -> None:
        """Forget the states of all layers."""
        for layer in self.layers:
            layer.reset_state()

    # Random numbers.

    @property
    def train_flg(self) -> bool:
        """Whether dropout acts and random arguments of cells are drawn, as last set here.

        Setting it sets it in every layer."""
        return self._train_flg

    @train_flg.setter
    def train_flg(self, value: bool) -> None:
        self._train_flg = bool(value)
        for part in (*self._dropouts, *self.layers):
            part.train_flg = self._train_flg

    @property
    def rng_state(self) -> tuple[tuple[int, int], ...]:
        """The seed and the number of what was drawn of each dropout, and of each recurrent layer whose cell
        has random arguments; may be set, to draw on from there."""
        return tuple(place.rng_state for place in self._drawing())

    @rng_state.setter
    def rng_state(self, state: Sequence[tuple[int, int]]) -> None:
        owner, places = f"{type(self).__name__}.rng_state", self._drawing()
        given = _check.entries(owner, "rng_state", state, len(places), "one a dropout or layer that draws")
        checked = [_check.sizes(owner, ("seed", "number"), pair) for pair in given]
        for place, (seed, number) in zip(places, checked, strict=True):
            place.rng_state = seed, number

    def _drawing(self) -> list[Any]:
        """What draws random numbers."""
        return [
            *(dropout for dropout in self._dropouts if dropout.dropout_ratio),
            *(layer for layer in self.recurrent if layer.cell.random),
        ]

    @contextmanager
    def _all_or_nothing(self) -> Iterator[None]:
        """A pass that does not come to its end leaves the states and the random numbers of before."""
        recurrent, drawing = self.recurrent, self._drawing()
        states, drawn = [layer.carried for layer in recurrent], [place.rng_state for place in drawing]
        try:
            yield
        except BaseException:
            for layer, state in zip(recurrent, states, strict=True):
                layer.roll_back(state)
            for place, number in zip(drawing, drawn, strict=True):
                place.rng_state = number
            raise

    # What is checked before the first layer moves on.

    @property
    def given_names(self) -> tuple[str, ...]:
        """The arrays that the cells ask for, each name once."""
        return tuple(dict.fromkeys(name for layer in self.layers for name in layer.given_names))

    def _given_apart(
        self, owner: str, given: Mapping[str, np.ndarray], batch: int, steps: int
    ) -> list[dict[str, np.ndarray]]:
        """The given arrays of each layer, checked."""
        _check.known_arguments(owner, given, self.given_names)
        for layer in self.recurrent:
            for name in layer.given_names:
                _check.given(owner, name, given.get(name), (batch, steps, layer.hidden_size), self.dtype)
        return [{name: given[name] for name in layer.given_names} for layer in self.layers]

    def _check_rows(self, owner: str, batch: int, streams: bool = False) -> None:
        """Every carried state has as many rows as the input."""
        for layer in self.recurrent if batch else ():
            if layer.carried_rows is not None and (layer.stateful or streams):
                _check.batch(owner, layer.carried_rows, batch)
