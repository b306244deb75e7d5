"""Layers combined into one: the base of `Stack` and `Bidirectional`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from rnnfast import _check
from rnnfast.engine.locks import in_turn
from rnnfast.layers.base import Layer
from rnnfast.layers.carrying import set_states
from rnnfast.layers.dropout import TimeDropout
from rnnfast.layers.state import State, plain

# The random numbers of the parts of a `Stack`, a `Bidirectional` or the body of a model.


class Drawing(Layer):
    """A layer made of parts, some of which draw random numbers."""

    owner: str  # for errors
    layers: list[Any]
    dropouts: Sequence[TimeDropout] = ()

    @property
    def recurrent(self) -> list[Any]:
        """Each recurrent layer inside, from the first."""
        return [inner for layer in self.layers for inner in getattr(layer, "recurrent", (layer,))]

    def parts(self) -> list[Any]:
        """Each layer and each dropout."""
        return [*self.layers, *self.dropouts]

    def freezing_parts(self) -> list[Any]:
        """Itself and each recurrent layer."""
        return [self, *self.recurrent]

    @property
    def drawing(self) -> list[Any]:
        """Each dropout, and each recurrent layer whose cell has random arguments."""
        return [
            *(dropout for dropout in self.dropouts if dropout.dropout_ratio),
            *(layer for layer in self.recurrent if layer.cell.random),
        ]

    @property
    def rng_state(self) -> tuple[tuple[int, int], ...]:
        """The seed and the count of draws of each part that draws random numbers; may be set."""
        return tuple(place.rng_state for place in self.drawing)

    @rng_state.setter
    def rng_state(self, state: Sequence[tuple[int, int]]) -> None:
        owner, places = f"{self.owner}.rng_state", self.drawing
        given = _check.objects.entries(
            owner, "rng_state", state, len(places), "one per dropout or layer that draws"
        )
        checked = [_check.values.sizes(owner, ("seed", "counter"), pair) for pair in given]
        for place, (seed, counter) in zip(places, checked, strict=True):
            place.rng_state = seed, counter


class Composed(Drawing):
    """A layer made of layers: their parameters and gradients in order, their states and random numbers."""

    def _compose(self, layers: Sequence[Any]) -> None:
        """Set the layers, which must be distinct."""
        self.owner = type(self).__name__
        _check.objects.distinct(self.owner, layers)
        self.layers = list(layers)
        self._hold(
            [param for layer in layers for param in layer.params],
            [grad for layer in layers for grad in layer.grads],
        )
        self.dtype = layers[0].dtype
        self.input_size = layers[0].input_size
        self._train_flg = True

    # States.

    @in_turn
    def get_state(self) -> tuple[Any, ...]:
        """Copies of the states of all layers, for `set_state`."""
        return tuple(layer.get_state() for layer in self.layers)

    @in_turn
    def set_state(self, state: tuple[Any, ...] | State | None) -> None:
        """Set a `State`, or the states of `get_state`; None is the fresh state."""
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
        """Whether dropout is on and random arguments of cells are drawn.

        Setting it sets it in every layer."""
        return self._train_flg

    @train_flg.setter
    def train_flg(self, value: bool) -> None:
        self._train_flg = bool(value)
        for part in (*self.dropouts, *self.layers):
            part.train_flg = self._train_flg

    @property
    def precision(self) -> str | None:
        """The precision of products, as of one recurrent layer; setting it sets it in every layer."""
        return self.recurrent[0].precision

    @precision.setter
    def precision(self, value: str | None) -> None:
        for layer in self.recurrent:
            layer.precision = value

    @contextmanager
    def _all_or_nothing(self) -> Iterator[None]:
        """Restore the states and the random numbers if the pass does not finish."""
        recurrent, drawing = self.recurrent, self.drawing
        states, drawn = [layer.carried for layer in recurrent], [place.rng_state for place in drawing]
        try:
            yield
        except BaseException:
            for layer, state in zip(recurrent, states, strict=True):
                layer.roll_back(state)
            for place, number in zip(drawing, drawn, strict=True):
                place.rng_state = number
            raise

    # Checks before any layer changes its state.

    @property
    def given_names(self) -> tuple[str, ...]:
        """The names of the cells' given arrays, each once."""
        return tuple(dict.fromkeys(name for layer in self.layers for name in layer.given_names))

    def _given_apart(
        self, owner: str, given: Mapping[str, np.ndarray], batch: int, steps: int
    ) -> list[dict[str, np.ndarray]]:
        """The checked given arrays of each layer."""
        _check.objects.known_arguments(owner, given, self.given_names)
        for layer in self.recurrent:
            for name in layer.given_names:
                _check.arrays.given(
                    owner, name, given.get(name), (batch, steps, layer.hidden_size), self.dtype
                )
        return [{name: given[name] for name in layer.given_names} for layer in self.layers]

    def _check_rows(self, owner: str, batch: int, streams: bool = False) -> None:
        """Check that every carried state has as many rows as the input."""
        for layer in self.recurrent if batch else ():
            if layer.carried_rows is not None and (layer.stateful or streams):
                _check.objects.batch(owner, layer.carried_rows, batch)
