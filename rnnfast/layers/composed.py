"""Layers combined into one: the base of `Stack` and `Bidirectional`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from rnnfast import _check
from rnnfast.engine.locks import in_turn
from rnnfast.layers.carrying import set_states
from rnnfast.layers.drawing import Drawing
from rnnfast.layers.state import State, plain


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
