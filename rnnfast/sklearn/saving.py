"""An estimator as one safetensors file: its network, and the rest as JSON."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from sklearn.base import is_regressor

from rnnfast import _check
from rnnfast.cells import Cell
from rnnfast.models.network import Network
from rnnfast.models.weights import cell_of, read_weights
from rnnfast.sklearn.inputs import Scaling

# Fitted attributes that are JSON values, where they exist.
_PLAIN = ("loss_curve_", "validation_loss_curve_", "n_iter_", "n_channels_", "n_features_in_", "n_outputs_")
_SCALINGS = ("scaling_", "target_scaling_")


def save_estimator(estimator: Any, path: str | os.PathLike[str]) -> None:
    """Write a fitted estimator."""
    owner, fitted = f"{type(estimator).__name__}.save", vars(estimator)
    notes: dict[str, Any] = {"estimator": type(estimator).__name__, "parameters": _parameters(estimator)}
    notes["fitted"] = {name: fitted[name] for name in (*_PLAIN, "_is_flat") if name in fitted}
    notes["scalings"] = {name: fitted[name].saved() for name in _SCALINGS if name in fitted}
    if "classes_" in fitted:
        notes["classes"] = _labels_to_json(owner, estimator.classes_)
    if "feature_names_in_" in fitted:
        notes["feature_names"] = [str(name) for name in estimator.feature_names_in_]
    estimator.network_.save(path, notes=notes)


def load_estimator(kind: type, path: str | os.PathLike[str]) -> tuple[Any, Network]:
    """The estimator of a file of `save_estimator`, but for its network, and the network."""
    saved = read_weights(path, Network.expected_tensors)
    try:
        estimator, network = _estimator(kind, saved.notes), Network.from_saved(saved)
        if not _fits(estimator, network):
            raise ValueError("its values do not fit the network")
        return estimator, network
    except (TypeError, ValueError, LookupError, AttributeError) as error:
        raise _check.training.malformed(path, f"holds no {kind.__name__} ({error})") from None


def _estimator(kind: type, notes: dict[str, Any]) -> Any:
    if notes.get("estimator") != kind.__name__:
        raise ValueError(f"it holds {notes.get('estimator')!r:.60}, not {kind.__name__}")
    given = dict(notes["parameters"])
    if isinstance(given["cell"], dict):
        given["cell"] = cell_of(kind.__name__, given["cell"])
    if isinstance(given.get("class_weight"), list):
        given["class_weight"] = dict(given["class_weight"])
    estimator = kind(**given)
    for name, value in notes["fitted"].items():
        if name in (*_PLAIN, "_is_flat"):
            setattr(estimator, name, value)
    for name in _SCALINGS:
        if name in notes["scalings"]:
            setattr(estimator, name, Scaling.from_saved(notes["scalings"][name]))
    if "classes" in notes:
        estimator.classes_ = np.array(notes["classes"]["labels"], np.dtype(notes["classes"]["dtype"]))
    if "feature_names" in notes:
        estimator.feature_names_in_ = np.array(notes["feature_names"], object)
    return estimator


def _fits(estimator: Any, network: Network) -> bool:
    """Whether an estimator has all that it needs to read with the network."""
    scaling, config = estimator.scaling_, network.config
    head, outputs = estimator.head_and_outputs()
    if is_regressor(estimator) and len(estimator.target_scaling_.mean) != outputs:
        return False
    sizes = (len(scaling.mean), scaling.channels, outputs)
    return head == network.head and sizes == (
        estimator.n_channels_,
        config["input_size"],
        config["output_size"],
    )


def _parameters(estimator: Any) -> dict[str, Any]:
    """The parameters as JSON values."""
    given = estimator.get_params(deep=False)
    given["callbacks"] = given["ranks"] = None
    if isinstance(given["cell"], Cell):
        given["cell"] = estimator.network_.config["cell"]
    if not isinstance(given["random_state"], int | np.integer):
        given["random_state"] = None
    if isinstance(given.get("class_weight"), dict):
        owner = f"{type(estimator).__name__}.save"
        given["class_weight"] = [
            [_plain(owner, label), float(weight)] for label, weight in given["class_weight"].items()
        ]
    return {name: value.item() if isinstance(value, np.generic) else value for name, value in given.items()}


def _labels_to_json(owner: str, labels: np.ndarray) -> dict[str, Any]:
    dtype = labels.dtype.str if labels.dtype != object else "object"
    return {"dtype": dtype, "labels": [_plain(owner, label) for label in labels]}


def _plain(owner: str, label: Any) -> Any:
    value = label.item() if isinstance(label, np.generic) else label
    if not isinstance(value, str | int | float | bool):
        raise ValueError(f"{owner}: classes must be str, int, float or bool, got {type(value).__name__}.")
    return value
