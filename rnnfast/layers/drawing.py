"""The random numbers of the parts of a `Stack`, a `Bidirectional` or the body of a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rnnfast import _check
from rnnfast.layers.base import Layer
from rnnfast.layers.dropout import TimeDropout


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
