"""The layers below the output of a network for whole sequences: recurrent, dropout, pooling."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from rnnfast.layers.bidirectional import Bidirectional
from rnnfast.layers.carrying import Constants
from rnnfast.layers.composed import Drawing
from rnnfast.layers.dropout import TimeDropout
from rnnfast.layers.recurrent import Recurrent
from rnnfast.layers.window import Blocks, Part, Place, Reduction

# One vector for a whole sequence from the outputs of its steps.


Pooling = Literal["last", "mean", "max"]
POOLINGS: tuple[Pooling, ...] = ("last", "mean", "max")


def pool(kind: Pooling, hs: np.ndarray, lengths: np.ndarray, ahead: int) -> tuple[np.ndarray, Any]:
    """Vectors (N, 1, H) from outputs (N, T, H), zero after each end, and what `spread` needs.

    "last" is the final state: the last step of the first `ahead` columns and the first step of the others,
    which were read backwards. A sequence of length 0 gives zeros.
    """
    if kind == "last":
        places = np.arange(len(hs)), lengths - 1
        return np.concatenate((hs[places][:, :ahead], hs[:, 0, ahead:]), axis=-1)[:, np.newaxis], places
    if kind == "mean":
        shares = (1 / np.maximum(lengths, 1)).astype(hs.dtype)[:, np.newaxis, np.newaxis]
        return hs.sum(axis=1, keepdims=True, dtype=np.float64).astype(hs.dtype) * shares, shares
    inside = (np.arange(hs.shape[1]) < lengths[:, np.newaxis])[..., np.newaxis]
    largest = np.where(inside, hs, -np.inf).max(axis=1, keepdims=True)
    chosen = (hs == largest) & inside
    return np.where(lengths[:, np.newaxis, np.newaxis] > 0, largest, 0).astype(hs.dtype), chosen


def spread(kind: Pooling, dpooled: np.ndarray, kept: Any, dhs: np.ndarray, ahead: int) -> None:
    """Fill the gradients (N, T, H) of the outputs from those (N, 1, H) of the vectors.

    Equal largest values share the gradient of "max".
    """
    if kind == "last":
        dhs[...] = 0
        dhs[..., :ahead][kept] = dpooled[:, 0, :ahead]
        dhs[:, 0, ahead:] = dpooled[:, 0, ahead:]
    elif kind == "mean":
        dhs[...] = dpooled * kept
    else:
        count = np.maximum(kept.sum(axis=1, keepdims=True), 1).astype(dhs.dtype)
        np.multiply(kept, dpooled / count, out=dhs)


class Encoder(Drawing):
    """Stacked layers with dropout before each and after the last, and one vector for each sequence.

    It serves `Model` as a `Body` does, but reads every sequence from its first to its last step: there is no
    state.

    Parameters
    ----------
    owner : str
        The model's name, for errors.
    layers : list of Recurrent or Bidirectional
        The layers from bottom to top.
    pooling : {"last", "mean", "max"} or None
        None keeps the outputs of every step.
    dropout : float
    rng : numpy.random.Generator
        Draws the dropped units.
    """

    TAPE = (*Drawing.TAPE, "_kept")
    _kept: Any = None  # steps, and what the gradient of the pooling needs
    carried = carried_rows = None

    def __init__(
        self,
        owner: str,
        layers: Sequence[Recurrent | Bidirectional],
        pooling: Pooling | None,
        dropout: float,
        rng: np.random.Generator,
    ) -> None:
        self.owner, self.layers, self.pooling = owner, list(layers), pooling
        self.dropouts = [TimeDropout(dropout, rng=rng) for _ in [*layers, None]] if dropout else []
        self.dtype, top = layers[0].dtype, layers[-1]
        self.hidden_size = top.hidden_size
        self._ahead = top.layer_forward.hidden_size if isinstance(top, Bidirectional) else top.hidden_size
        self._hold(
            [param for layer in layers for param in layer.params],
            [grad for layer in layers for grad in layer.grads],
        )

    def read(self, xs: np.ndarray, *, drop: bool, keep: bool = True, part: Part) -> np.ndarray:
        """Hidden vectors (N, T, H), or (N, 1, H) with pooling, of checked sequences (N, T, D).

        `part` holds the lengths. Without `keep`, the layers cache no activations.
        """
        (batch, steps, _), hs = xs.shape, xs
        for place, layer in enumerate(self.layers):
            hs = self._dropped(place, hs, drop, part)
            layer.train_flg = drop
            out = self._take(f"hs{place}", batch, steps, layer.hidden_size)
            hs = layer.read(hs, out, keep=keep, lengths=part.lengths, place=part.place, blocks=part.blocks)
        if self.pooling is not None:
            hs, kept = pool(self.pooling, hs, part.ends(batch), self._ahead)
            self._kept = steps, kept
        return self._dropped(len(self.layers), hs, drop, part)

    def backpropagate(
        self, dhs: np.ndarray, *, blocks: Blocks | None = None, reduction: Reduction | None = None
    ) -> None:
        """Fill the gradients of the last `read` from those of its hidden vectors; they are complete when the
        reduction is finished. They are added by the `blocks` of `read`."""
        dhs = self._undropped(len(self.layers), dhs)
        if self.pooling is not None:
            steps, kept = self._kept
            dpooled, dhs = dhs, self._take("dwhole", len(dhs), steps, self.hidden_size)
            spread(self.pooling, dpooled, kept, dhs, self._ahead)
        for place in reversed(range(len(self.layers))):
            layer = self.layers[place]
            out = self._take(f"dxs{place}", *dhs.shape[:2], layer.input_size)
            dhs = layer.backward(dhs, out=out)
            if reduction is not None:
                layer.reduce(reduction)
            dhs = self._undropped(place, dhs)

    def gradients_of_outputs(self, batch: int, steps: int) -> np.ndarray:
        """Memory for the gradients that `backpropagate` takes."""
        return self._take("dhs", batch, steps, self.hidden_size)

    def _dropped(self, number: int, hs: np.ndarray, drop: bool, part: Part) -> np.ndarray:
        if not self.dropouts:
            return hs
        place = Place(0, hs.shape[1], part.place.row)
        return self.dropouts[number].read(hs, hs if drop and number else None, drop=drop, place=place)

    def _undropped(self, place: int, dhs: np.ndarray) -> np.ndarray:
        return self.dropouts[place].backward(dhs, out=dhs) if self.dropouts else dhs

    def _take(self, name: str, *shape: int) -> np.ndarray:
        return self._workspace.take(name, shape, self.dtype)

    # There is no state.

    def roll_back(self, state: None) -> None:
        """Do nothing."""

    def copy_state(self, other: Encoder) -> None:
        """Do nothing."""

    def get_state(self) -> None:
        """None."""

    def set_state(self, state: Any) -> None:
        """None is the only state."""
        if state is not None:
            raise TypeError(
                f"{self.owner}.set_state: the model reads whole sequences and carries no state; pass None."
            )

    # Constants of cells.

    def share_constants(self, other: Encoder) -> None:
        """Use the constants of another encoder's layers, including values set later."""
        for layer, own in zip(self.recurrent, other.recurrent, strict=True):
            layer.share_constants(own)

    @property
    def constants(self) -> list[Constants]:
        """The constants of each recurrent layer's cell, from bottom to top; may be set."""
        return [layer.constants for layer in self.recurrent]

    @constants.setter
    def constants(self, values: Sequence[Mapping[str, float]]) -> None:
        for layer, own in zip(self.recurrent, values, strict=True):
            layer.constants = own
