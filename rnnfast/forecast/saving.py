"""A fitted forecaster as one safetensors file: the network, its recipe, and what it knows of each series."""

from __future__ import annotations

import inspect
import json
import os
from typing import Any

import numpy as np

from rnnfast import _check
from rnnfast.files.tensors import Spec, read_tensors, write_tensors
from rnnfast.forecast.data import Arrays, Frames
from rnnfast.forecast.fitted import Fitted, Group
from rnnfast.forecast.fitting import Trained
from rnnfast.forecast.frames import Grid, Names
from rnnfast.forecast.panel import Column
from rnnfast.forecast.preprocessing import History, Preprocessing, Scale
from rnnfast.forecast.reading import Reading
from rnnfast.heads.definition import saved_head
from rnnfast.layers.state import State, packed, specs, unpacked
from rnnfast.models.regressor import SequenceRegressor
from rnnfast.models.weights import SavedModel, saved_cell, saved_constants

FORMAT = "rnnfast-forecaster-1"
_WIDE, _WHOLE = np.dtype(np.float64), np.dtype(np.int64)


def settings_of(owner: str, forecaster: Any) -> dict[str, Any]:
    """The constructor's arguments as JSON values; the defaults of those that serve only its process."""
    unsaved = ("callbacks", "on_update", "ranks")
    names = [name for name in inspect.signature(type(forecaster)).parameters if name not in unsaved]
    settings = {name: getattr(forecaster, name) for name in names}
    settings["cell"], settings["head"] = (
        saved_cell(owner, forecaster.cell),
        saved_head(owner, forecaster.head),
    )
    return settings


def write_forecaster(
    path: str | os.PathLike[str], settings: dict[str, Any], kind: Arrays | Frames, trained: Trained
) -> None:
    """Write a forecaster atomically; `settings` are those of `settings_of`."""
    fitted, group = trained.fitted, trained.group
    model, recipe = fitted.model, fitted.recipe
    outline, states = packed(group.reading.state)
    arrays = {
        **{f"model.{name}": param for name, param in zip(model.parameter_names, model.params, strict=True)},
        **states,
        "location": group.scale.location,
        "scale": group.scale.scale,
        "recent": group.reading.past.recent.astype(_WIDE),
        "observed": group.reading.past.observed.astype(_WHOLE),
        "positions": group.reading.past.positions,
        "phases": group.phases,
        "static": group.static,
        "errors": fitted.errors,
        "ids": _as_numbers(json.dumps(group.ids)),
    }
    description = {
        "settings": settings,
        "model": model.config,
        "constants": [dict(values) for values in model.constants] or None,
        "recipe": {**recipe._asdict(), "grid": list(recipe.grid)},
        "futures": [list(column) for column in fitted.futures],
        "statics": [list(column) for column in fitted.statics],
        "single": kind.single if isinstance(kind, Arrays) else None,
        "frame": [list(kind.names), kind.backend, kind.unit] if isinstance(kind, Frames) else None,
        "state": outline,
        "history": trained.history,
        "seed": trained.seed,
    }
    write_tensors(path, FORMAT, arrays, description)


def read_forecaster(path: str | os.PathLike[str]) -> tuple[dict[str, Any], Arrays | Frames, Trained]:
    """The settings, the kind of data and the trained parts of a file of `write_forecaster`.

    Raises
    ------
    CheckpointError
        The file is damaged, or holds no forecaster.
    OSError
        The file cannot be read.
    """
    _check.training.readable("RNNForecaster.load", path)
    described, arrays = read_tensors(path, FORMAT, _specs)
    try:
        return _rebuilt(described, arrays)
    except (TypeError, ValueError, LookupError) as error:
        raise _check.training.malformed(path, f"holds no forecaster ({error})") from None


def _specs(described: dict[str, Any]) -> dict[str, Spec]:
    config = described["model"]
    dtype, shapes = SequenceRegressor.expected_tensors(config)
    saved_constants(config, described["constants"])
    recipe = _recipe(described)
    expected = {f"model.{name}": Spec(dtype, shape) for name, shape in shapes.items()}
    expected |= specs(described["state"])
    expected |= {name: Spec(_WIDE, (-1,)) for name in ("location", "scale", "errors")}
    expected |= {name: Spec(_WHOLE, (-1,)) for name in ("observed", "positions", "phases", "ids")}
    static = sum(Column(*column).width for column in described["statics"])
    return {**expected, "recent": Spec(_WIDE, (-1, recipe.before + 1)), "static": Spec(_WIDE, (-1, static))}


def _recipe(described: dict[str, Any]) -> Preprocessing:
    values = dict(described["recipe"])
    waves = [(float(period), int(number)) for period, number in values.pop("waves")]
    return Preprocessing(**{**values, "grid": Grid(*values["grid"]), "waves": waves})


def _rebuilt(
    described: dict[str, Any], arrays: dict[str, np.ndarray]
) -> tuple[dict[str, Any], Arrays | Frames, Trained]:
    config = described["model"]
    tensors = {
        name.removeprefix("model."): array for name, array in arrays.items() if name.startswith("model.")
    }
    constants = saved_constants(config, described["constants"])
    model = SequenceRegressor.from_saved(SavedModel(config, tensors, {}, constants))
    columns = [[Column(*column) for column in described[name]] for name in ("futures", "statics")]
    futures, statics = ([_column(one) for one in part] for part in columns)
    fitted = Fitted(model, _recipe(described), futures, statics, arrays["errors"])
    ids = json.loads(_as_text(arrays["ids"]))
    counts = {
        name: len(arrays[name])
        for name in ("location", "scale", "recent", "observed", "positions", "phases", "static")
    }
    if set(counts.values()) != {len(ids)}:
        raise ValueError("its arrays differ in the number of series")
    state = State(
        unpacked(described["state"], {name: one for name, one in arrays.items() if name.startswith("state.")})
    )
    past = History(arrays["recent"], arrays["observed"] > 0, arrays["positions"])
    scale = Scale(arrays["location"], arrays["scale"])
    group = Group(ids, Reading(state, past), scale, arrays["phases"], arrays["static"])
    kind: Arrays | Frames
    if described["frame"] is None:
        kind = Arrays(bool(described["single"]))
    else:
        names, backend, unit = described["frame"]
        kind = Frames(Names(*names), str(backend), str(unit))
    return described["settings"], kind, Trained(fitted, group, described["history"], int(described["seed"]))


def _column(column: Column) -> Column:
    """A column from a file, where tuples are lists."""
    return column._replace(categories=tuple(column.categories))


def _as_numbers(text: str) -> np.ndarray:
    """A text of any length as int64, for a tensor."""
    data = text.encode("ascii")
    return np.frombuffer(data + b" " * (-len(data) % 8), np.dtype("<i8"))


def _as_text(numbers: np.ndarray) -> str:
    return numbers.astype("<i8").tobytes().decode("ascii")
