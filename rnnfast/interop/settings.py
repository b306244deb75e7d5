"""What a model is besides its parameters: dropout, carried state, head; and what a format does not keep."""

from __future__ import annotations

from typing import Any, NamedTuple

from rnnfast import cells
from rnnfast.cells import Cell
from rnnfast.interop.named import layers_by_name, settings_of_dropout
from rnnfast.models.model import Model
from rnnfast.models.regressor import SequenceRegressor


class Settings(NamedTuple):
    """What a model is besides its parameters and its cells."""

    dropout: float
    per_step: bool
    stateful: bool
    head: str = "squared"
    precision: str | None = None


def cells_of(model: Any) -> list[Cell]:
    """The cells of all layers."""
    layers = model.body.layers if isinstance(model, Model) else layers_by_name(model).values()
    return [layer.cell for layer in layers]


def settings_of(model: Any) -> Settings:
    """The settings of a model or of layers; the state of a model is always carried."""
    if isinstance(model, Model):
        head = model.head.name if isinstance(model, SequenceRegressor) else "squared"
        return Settings(model.config["dropout"], True, False, head, model.precision)
    stateful = any(layer.stateful for layer in layers_by_name(model).values())
    precisions = [layer.precision for layer in layers_by_name(model).values() if layer.precision]
    return Settings(
        **settings_of_dropout(model), stateful=stateful, precision=precisions[0] if precisions else None
    )


def lost_settings(model: Any, again: Any, ending: str) -> list[str]:
    """A sentence for each setting of a model that the one from its file does not have."""
    own = settings_of(model)
    kept = Settings(0.0, True, False, own.head) if again is None else settings_of(again)
    lost = [
        f"{name}={value} is not stored in a {ending} file"
        for name, value, other in zip(Settings._fields, own, kept, strict=True)
        if value != other
    ]
    if ending == ".pt" and cells.rnn_relu in cells_of(model):
        lost.append("the activation relu is not stored in a .pt file, which needs the cell relu to be read")
    return lost
