"""Models that are one safetensors file: saving and loading, whatever the class."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from rnnfast import _check
from rnnfast._shown import shown
from rnnfast.layers.affine import TimeAffine
from rnnfast.layers.base import Holder
from rnnfast.models.weights import SavedModel, read_weights, write_weights


class StoredModel(Holder):
    """Base of all models: parameters by name, and a configuration to make the model again.

    Reading (`predict`, `losses`, `generate`, ...) works in memory of its own, so that it may come between a
    `forward` and its `backward`.

    Attributes
    ----------
    params, grads : list of ndarray
        Every parameter once, and its gradient. `parameter_names` names them, in the same order.
    config : dict
        The constructor's arguments as JSON values, and the class under "model".
    """

    TAPE = (*Holder.TAPE, "_hs")
    PASSING = (*Holder.PASSING, "_reader", "_affine")

    parameter_names: list[str]
    config: dict[str, Any]
    _hs: tuple[int, ...] | None = None  # shape of the last forward's hidden vectors, for backward
    _reader: Any = None
    _affine: TimeAffine | None = None  # the output layer without a loss

    def __repr__(self) -> str:
        # Options that are off, such as a dropout of 0, are left out.
        values = {name: value for name, value in self.config.items() if value}
        values.pop("model")
        values.pop("dtype")
        return shown(self, values, self.params, count=True)

    # What a subclass gives.

    @classmethod
    def _settings(cls, **arguments: Any) -> dict[str, Any]:
        """The constructor's arguments, checked, as JSON values."""
        raise NotImplementedError

    @classmethod
    def _shapes(cls, config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
        """Name and shape of every parameter, in the order of `params`."""
        raise NotImplementedError

    def _set_up(
        self, config: dict[str, Any], arrays: dict[str, np.ndarray], rng: np.random.Generator
    ) -> None:
        """Make the model around these arrays."""
        raise NotImplementedError

    def _hand_state(self, other: Any) -> None:
        """Let another model on the same parameters go on from where this one is."""
        raise NotImplementedError

    def _state_now(self) -> Any:
        """The carried state itself, not a copy, for `_roll_back`."""
        raise NotImplementedError

    def _roll_back(self, state: Any) -> None:
        """Carry the state of `_state_now` again."""
        raise NotImplementedError

    # What all share.

    def _lend(self) -> Any:
        """A model on the same parameters and in the same state, to read with.

        It has memory of its own. `_hand_state` brings its state back where reading carries the state on.
        """
        if self._reader is None:
            self._reader = self._another()
        self._hand_state(self._reader)
        return self._reader

    def _another(self) -> Any:
        """Another model on the same parameters, with a fresh state and gradients of its own."""
        other = type(self).__new__(type(self))
        arrays = dict(zip(self.parameter_names, self.params, strict=True))
        other._set_up(self.config, arrays, np.random.default_rng(0))
        return other

    def _go_on_from(self, reader: Any) -> None:
        """Carry the state that a reader has come to; an interrupt leaves that of before."""
        state = self._state_now()
        try:
            reader._hand_state(self)
        except BaseException:
            self._roll_back(state)
            raise

    def save(self, path: str | os.PathLike[str], *, notes: dict[str, Any] | None = None) -> None:
        """Write the model to one safetensors file, atomically; tied weights are stored once.

        `notes` are JSON values to keep in the file, for `load_with_notes`.
        """
        write_weights(path, dict(zip(self.parameter_names, self.params, strict=True)), self.config, notes)

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, rng: np.random.Generator | None = None) -> Any:
        """The model a file of `save` holds, with a fresh state.

        Parameters
        ----------
        path
            The file.
        rng : numpy.random.Generator, optional
            Used by dropout when training goes on.

        Raises
        ------
        CheckpointError
            The file is damaged, or holds a model of another class.
        OSError
            The file cannot be read.
        """
        return cls.from_saved(read_weights(path, cls.expected_tensors), rng=rng)

    @classmethod
    def from_saved(cls, saved: SavedModel, *, rng: np.random.Generator | None = None) -> Any:
        """A model around the arrays of a file, the ones `expected_tensors` names; they are not copied."""
        model = cls.__new__(cls)
        arrays = {name: saved.tensors[name] for name in cls._shapes(saved.config)}
        model._set_up(saved.config, arrays, _check.generator(f"{cls.__name__}.load", rng))
        return model

    @classmethod
    def expected_tensors(cls, config: dict[str, Any]) -> tuple[np.dtype, dict[str, tuple[int, ...]]]:
        """dtype, and name to shape of each array, for a saved configuration; ValueError if it is not one."""
        arguments = dict(config)
        kind = arguments.pop("model", None)
        if kind != cls.__name__:
            raise ValueError(f"it describes the model {kind!r}, not {cls.__name__}")
        if cls._settings(**arguments) != config:
            raise ValueError("its values are not those of a saved model")
        return np.dtype(config["dtype"]), cls._shapes(config)
