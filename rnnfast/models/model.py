"""A model: an input with layers above it, and an output; its state, its two passes, and its file."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from threading import get_ident
from typing import Any

import numpy as np

from rnnfast import _check
from rnnfast.cells import Cell
from rnnfast.data.batching import SequenceRows
from rnnfast.engine.arrays import shown
from rnnfast.engine.locks import in_turn, turn_of
from rnnfast.layers.affine import TimeAffine
from rnnfast.layers.base import Holder, Precise
from rnnfast.layers.carrying import Constants
from rnnfast.layers.frozen import lifted
from rnnfast.layers.state import plain
from rnnfast.layers.window import Blocks, Part, Reduction
from rnnfast.models.weights import SavedModel, initial_values, read_weights, write_weights


class Model(Holder):
    """A body that computes hidden vectors from inputs, and an output that computes losses from them.

    The body carries the state. `predict`, `losses`, `generate` and the like use separate memory, so they may
    be called between a `forward` and its `backward`. Models with recurrent layers can also be read in parts:
    see `read_part`.

    Attributes
    ----------
    params, grads : list of ndarray
        Every parameter once, and its gradient. `parameter_names` holds the names in the same order.
    config : dict
        The constructor's arguments as JSON values, and the class under "model".
    train_flg : bool
        Whether `forward` drops units. No other method drops units.
    precision : str or None
        The precision of products of the recurrent layers and of a softmax output: None, that of the
        parameters, or "bfloat16" (see `TimeLSTM.precision`). It may be set, and is saved.
    body : Body
        The input and the layers above it.
    output : TimeAffineSoftmaxWithLoss or TimeAffineSquaredLoss
        The output layer.
    tied : bool
        Whether the output adds the gradient of its weights to the body's gradient of the same array.
    """

    TAPE = (*Holder.TAPE, "_hs", "_blocks")
    PASSING = (*Holder.PASSING, "_reader", "_affine")

    parameter_names: list[str]
    config: dict[str, Any]
    body: Any
    output: Any
    tied: bool = False
    train_flg: bool = True
    _hs: tuple[int, ...] | None = None  # shape of the last forward's hidden vectors, for backward
    _blocks: Blocks | None = None  # those of the last forward
    _reader: Any = None
    _affine: TimeAffine | None = None  # the output layer without a loss

    def __repr__(self) -> str:
        # Options that are off, such as a dropout of 0, are not shown.
        values = {name: value for name, value in self.config.items() if value}
        values.pop("model")
        values.pop("dtype")
        return shown(self, values, self.params, count=True)

    # The parts that a subclass defines.

    @classmethod
    def _settings(cls, **arguments: Any) -> dict[str, Any]:
        """The constructor's arguments, checked, as JSON values."""
        raise NotImplementedError

    @classmethod
    def _shapes(cls, config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
        """Name and shape of every parameter, in the order of `params`."""
        raise NotImplementedError

    def _build(self, arrays: dict[str, np.ndarray], rng: np.random.Generator) -> None:
        """Make `body` and `output` around these arrays."""
        raise NotImplementedError

    def _inputs(self, method: str, xs: Any, carry: bool = True) -> np.ndarray:
        """Checked inputs (N, T) or (N, T, D); with `carry`, also checked against the state."""
        raise NotImplementedError

    # Construction.

    def _begin(
        self, config: dict[str, Any], rng: np.random.Generator | None, cell: Cell | None = None
    ) -> None:
        """A new model, with fresh parameters."""
        rng = _check.values.generator(type(self).__name__, rng)
        dtype = np.dtype(config["dtype"])
        shapes = self._shapes(config).items()
        arrays = {name: initial_values(name, shape, rng, cell).astype(dtype) for name, shape in shapes}
        self._set_up(config, arrays, rng)

    def _set_up(
        self, config: dict[str, Any], arrays: dict[str, np.ndarray], rng: np.random.Generator
    ) -> None:
        self.config = config
        self.parameter_names = list(arrays)
        self._build(arrays, rng)
        self._hold(list(arrays.values()), [*self.body.grads, *self.output.grads[1 if self.tied else 0 :]])
        self._set_precision(config.get("precision"))

    @classmethod
    def _around(cls, config: dict[str, Any], arrays: dict[str, np.ndarray], rng: np.random.Generator) -> Any:
        """A model on these arrays, without a copy."""
        self = cls.__new__(cls)
        self._set_up(config, arrays, rng)
        return self

    @property
    def dtype(self) -> np.dtype:
        """The dtype of the parameters."""
        return self._weights[0].dtype

    @property
    def precision(self) -> str | None:
        """The precision of products: None, that of the parameters, or "bfloat16"; it may be set."""
        return self.config.get("precision")

    @precision.setter
    @in_turn
    def precision(self, value: str | None) -> None:
        found = _check.values.precision(type(self).__name__, value, self.dtype)
        self.config = {name: told for name, told in self.config.items() if name != "precision"}
        if found is not None:
            self.config["precision"] = found
        self._set_precision(found)
        self._reader = None

    def _set_precision(self, value: str | None) -> None:
        for layer in (*getattr(self.body, "recurrent", ()), self.output):
            if isinstance(layer, Precise):
                layer.precision = value

    def _owner(self, method: str) -> str:
        return f"{type(self).__name__}.{method}"

    # The two passes.

    def _forward(
        self, xs: np.ndarray, ts: np.ndarray, part: Part | None = None, *, fresh: bool = False, **options: Any
    ) -> float:
        """The loss of checked inputs and targets; errors leave the state unchanged."""
        blocks = None if part is None else part.blocks
        self._hs, state, drawn = None, self.body.carried, self.body.rng_state
        try:
            if fresh:
                self.body.reset_state()
            hs = self.body.read(xs, drop=self.train_flg, part=part)
            if blocks is None:
                loss = self.output.forward(hs, ts, **options)
            else:
                loss = self.output.forward_by_blocks(hs, ts, blocks, options)
        except BaseException:
            self.body.roll_back(state)
            self.body.rng_state = drawn
            raise
        self._made_by = get_ident()
        if not xs.size:
            self.body.roll_back(state)
        self._hs, self._blocks = hs.shape, blocks
        return loss

    def backward(self) -> None:
        """Fill `grads` with the gradients of the last `forward`'s loss; they end at its first step.

        Raises
        ------
        RuntimeError
            There was no `forward`, or another thread called it.
        """
        with self._turn:
            self._claim_tape()
            _check.objects.called_before(self._owner("backward"), self._hs is not None, "forward")
            assert self._hs is not None
            dhs = self.output.input_gradient(out=self.body.gradients_of_outputs(*self._hs[:2]))
            if self._blocks is None:
                self.body.backpropagate(dhs)
            else:
                reduction = Reduction(self._blocks)
                reduction.begin(self.output.made)
                self.body.backpropagate(dhs, blocks=self._blocks, reduction=reduction)
                reduction.finish()
            self.output.parameter_gradients(adds=self.tied)

    def forget_window(self) -> None:
        """Drop the last `forward`, so that `backward` is no longer possible."""
        self._hs = None

    def tape(self) -> Any:
        """What `backward` needs from the last `forward` except the output's cache, for `restore_tape`."""
        return super().tape(), self.body.tape()

    def restore_tape(self, tape: Any) -> None:
        """Put a tape back; None for a blank one."""
        own, body = (None, None) if tape is None else tape
        super().restore_tape(own)
        self.body.restore_tape(body)

    # A model read in parts.

    def read_part(
        self, xs: Any, part: Part, *, drop: bool, keep: bool = True, method: str = "forward"
    ) -> np.ndarray:
        """Hidden vectors (N, steps, H) of a part of inputs (N, T, ...); advances the carried state.

        Inputs are checked. Afterwards `backward` is not possible: `body.backpropagate` takes its place, part
        by part, with the gradients from `output` after `score_part`. Arguments are those of `Body.read`.
        """
        self._hs = None
        return self.body.read(self._inputs(method, part.of(xs)), drop=drop, keep=keep, part=part)

    def score_part(
        self, hs: np.ndarray, ts: Any, part: Part, sums: np.ndarray, scored: int, adds: bool
    ) -> bool:
        """`score` of the output for the last part read, from hidden vectors (N, steps, H) and targets of the
        whole sequence (N, T, ...)."""
        owner = self._owner("forward")
        return self.output.score(owner, hs, ts, part, self.body.time_blocks, sums, scored, adds)

    # Reading in separate memory.

    def reader(self) -> Any:
        """A model on the same parameters, in the same state and with its own memory, for reading.

        Each call returns the same object. `body.copy_state` copies an advanced state back.
        """
        if self._reader is None:
            self._reader = self.another()
        self._reader.body.copy_state(self.body)
        return self._reader

    def another(self) -> Any:
        """A new model on the same parameters, with a fresh state and its own gradients."""
        arrays = dict(zip(self.parameter_names, self.params, strict=True))
        with lifted(self.params):
            other = self._around(self.config, arrays, np.random.default_rng(0))
        other.body.share_constants(self.body)
        return other

    def scores(self, hs: np.ndarray) -> np.ndarray:
        """The output layer's scores for hidden vectors (..., H), without a loss."""
        return self._scoring_layer().forward(hs)

    def _scoring_layer(self) -> TimeAffine:
        if self._affine is None:
            with lifted(self.output.params):
                self._affine = TimeAffine(*self.output.params)
        return self._affine

    # Weights that do not change.

    def parts(self) -> list[Holder]:
        """The body and the output."""
        return [self.body, self.output]

    def freezing_parts(self) -> list[Holder]:
        """The model, its reader, and the layers of both that pack weights."""
        with self._turn:
            return [*self._packing_parts(), *self.reader()._packing_parts()]

    def _packing_parts(self) -> list[Holder]:
        return [self, *getattr(self.body, "recurrent", ()), self.output, self._scoring_layer()]

    @contextmanager
    def reading(self) -> Iterator[Any]:
        """The `reader` for several calls, which packs the weights once; other threads wait meanwhile.

        Parameters are not protected: no code of the user may run inside.
        """
        with self._turn:
            reader = self.reader()
            with self._freezing([*reader._packing_parts(), self._scoring_layer()]) as freeze:
                freeze.is_on = True
                yield reader

    # The state carried from call to call.

    @in_turn
    def get_state(self) -> Any:
        """A copy of the carried state, for `set_state`: ids (N, window - 1) of a `CBOWLM`, else a tuple of
        arrays (N, H) per layer; None if it is fresh."""
        return self.body.get_state()

    @in_turn
    def set_state(self, state: Any) -> None:
        """Set the carried state to a `State` or a state of `get_state`; None is the fresh state.

        Raises
        ------
        TypeError, ValueError
            The number of layers or arrays, a shape or a dtype is wrong. The model's state is unchanged.
        """
        self.claim("set_state")
        self.body.set_state(plain(state))

    @property
    def rng_state(self) -> tuple[tuple[int, int], ...]:
        """The seed and the number of draws of each dropout and of each layer whose cell has random arguments;
        setting it continues from there."""
        return self.body.rng_state

    @rng_state.setter
    def rng_state(self, state: Sequence[tuple[int, int]]) -> None:
        self.body.rng_state = state

    @in_turn
    def reset_state(self) -> None:
        """Forget the past: the next call starts from a fresh state."""
        self.claim("reset_state")
        self.body.reset_state()

    # Saving and loading.

    def save(self, path: str | os.PathLike[str], *, notes: dict[str, Any] | None = None) -> None:
        """Write the model to one safetensors file, atomically; tied weights are stored once.

        `notes` are JSON values stored in the file, for `load_with_notes`.
        """
        arrays = dict(zip(self.parameter_names, self.params, strict=True))
        write_weights(path, arrays, self.config, notes, self.constants)

    @property
    def constants(self) -> list[Constants]:
        """The constants of each layer's cell; they may be set, and are saved. [] if there are none."""
        found = self.body.constants
        return found if any(found) else []

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, rng: np.random.Generator | None = None) -> Any:
        """Load a model from a file of `save`, with a fresh state.

        Parameters
        ----------
        path
            The file.
        rng : numpy.random.Generator, optional
            Used by dropout in further training.

        Raises
        ------
        CheckpointError
            The file is damaged or holds a model of another class, or the program has not defined the model's
            cell. The message names the file.
        OSError
            The file cannot be read.
        """
        _check.training.readable(f"{cls.__name__}.load", path)
        return cls.from_saved(read_weights(path, cls.expected_tensors), rng=rng)

    @classmethod
    def from_saved(cls, saved: SavedModel, *, rng: np.random.Generator | None = None) -> Any:
        """A model on the arrays of a file, named as in `expected_tensors`; they are not copied."""
        arrays = {name: saved.tensors[name] for name in cls._shapes(saved.config)}
        model = cls._around(saved.config, arrays, _check.values.generator(f"{cls.__name__}.load", rng))
        if saved.constants:
            model.body.constants = saved.constants
        return model

    @classmethod
    def expected_tensors(cls, config: dict[str, Any]) -> tuple[np.dtype, dict[str, tuple[int, ...]]]:
        """The dtype, and each array's name and shape, for a saved configuration; ValueError if invalid."""
        arguments = dict(config)
        kind, precision = arguments.pop("model", None), arguments.pop("precision", None)
        if kind != cls.__name__:
            raise ValueError(f"it describes the model {kind!r}, not {cls.__name__}")
        if cls._settings(**arguments) != {"model": kind, **arguments}:
            raise ValueError("its values are not those of a saved model")
        dtype = np.dtype(config["dtype"])
        if precision is not None:
            _check.values.precision(cls.__name__, precision, dtype)
        return dtype, cls._shapes(config)


# Score a text of any length as one stream, and sequences part by part.


def total_loss(model: Any, ids: np.ndarray, chunk: int) -> float:
    """Sum of `-log P(ids[t] | ids[:t])` for t >= 1, from a fresh state; the model's state is unchanged.

    The text is read as one stream, `chunk` words at a time. The losses are added one by one in float64, so
    the order of the sum does not depend on `chunk`. `ids` may be a memory map.
    """
    with model.reading() if isinstance(model, Model) else turn_of(model) as reader:
        read = model.losses
        if isinstance(model, Model):
            model, read = reader, partial(_losses, reader)
        kept = model.get_state()
        total = 0.0
        try:
            model.reset_state()
            for start in range(0, len(ids) - 1, chunk):
                _check.arrays.whole_file("perplexity", ids)
                block = np.array(ids[start : start + chunk + 1], dtype=np.int64)
                losses = read(block[np.newaxis, :-1], block[np.newaxis, 1:])[0]
                total = float(np.add.accumulate(np.concatenate(([total], losses)))[-1])
        finally:
            model.set_state(kept)
    return total


def _losses(reader: Model, xs: np.ndarray, ts: np.ndarray) -> np.ndarray:
    """The losses (N, T) of a text, in the reader's own memory."""
    part = Part(0, xs.shape[1], xs.shape[1])
    hs = reader.read_part(xs, part, drop=False, keep=False, method="losses")
    return reader.output.part_losses(f"{type(reader).__name__}.losses", hs, ts, part, None)


def mean_error(model: Any, rows: SequenceRows, chunk: int) -> float:
    """The mean loss of a `SequenceRegressor` over batches of sequences from fresh states, without dropout.

    `chunk` steps are read at a time; the model's state is unchanged.
    """
    kept, owner = model.get_state(), f"{type(model).__name__}.forward"
    total, scored = 0.0, 0.0
    try:
        for x, t, lengths, weights, *_ in rows:
            batch, steps = x.shape[:2]
            if weights is not None:
                weights = _check.arrays.weights(owner, weights, (batch, steps), model.dtype)
            model.reset_state()
            parts = [
                Part(start, min(start + chunk, steps), steps, lengths, weights=weights)
                for start in range(0, steps, chunk)
            ]
            for part in parts:
                _check.arrays.whole_file("evaluate", x, t)
                hs = model.read_part(x, part, drop=False, keep=False)
                losses = model.output.part_losses(owner, hs, t, part, model.body.time_blocks)
                total += float(losses.sum())
            scored += model.output.scored(t, parts)
    finally:
        model.set_state(kept)
    return model.output.mean(np.array([total]), scored)
