"""Regression on sequences: recurrent layers, an affine layer, and the loss of a head."""

from __future__ import annotations

from typing import Any

import numpy as np

from rnnfast import _check
from rnnfast.cells import Cell
from rnnfast.data.batching import SequenceRows
from rnnfast.data.sequences import Sequences, fitting
from rnnfast.engine.locks import in_turn
from rnnfast.heads.definition import Head, head_of, saved_head
from rnnfast.layers.head import TimeAffineWithLoss
from rnnfast.layers.window import Blocks, Part
from rnnfast.models.body import Body
from rnnfast.models.model import Model, mean_error
from rnnfast.models.weights import MOST_LAYERS, cell_of, recurrent_layers, recurrent_shapes, saved_cell


class SequenceRegressor(Model):
    """Regression on sequences of vectors: recurrent layers, then `hs W + b`; the loss is that of a head.

    Targets belong to every step, or only to the last step of each sequence.

    Parameters
    ----------
    input_size, hidden_size, output_size : int
        D, H and O.
    cell : str or Cell
        The recurrent layer, as in `RNNLM`.
    layers : int
        The number of stacked recurrent layers.
    dropout : float
        Share of units dropped in training, before each recurrent layer and before the output layer.
    head : str or Head
        One of `rnnfast.heads`, or its name: the loss and the kind of prediction; squared error by default.
    rng : numpy.random.Generator, optional
        Draws the weights and the dropped units.
    dtype : float32 or float64
        The dtype of the parameters and all results.
    precision : "bfloat16", optional
        Round the operands of products to bfloat16; see the attribute.

    Attributes
    ----------
    params, grads : list of ndarray
        Every parameter once, and its gradient; the array objects never change.
    parameter_names : list of str
        Their names, in the same order.
    train_flg : bool
        Whether `forward` drops units; `predict` never does.

    Raises
    ------
    ValueError, TypeError
        A size below 1, an unknown cell, or a dropout outside its range.

    Examples
    --------
    >>> import rnnfast
    >>> model = rnnfast.SequenceRegressor(3, 8, 1, rng=np.random.default_rng(0))
    >>> xs, ts = np.ones((2, 5, 3), np.float32), np.ones((2, 5, 1), np.float32)
    >>> loss = model.forward(xs, ts)
    >>> model.backward()
    >>> model.predict(xs).shape
    (2, 5, 1)
    >>> model = rnnfast.SequenceRegressor(3, 8, 1, head="gaussian", rng=np.random.default_rng(0))
    >>> sorted(model.distribution(xs))
    ['mean', 'scale']
    """

    output: TimeAffineWithLoss

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        output_size: int,
        *,
        cell: str | Cell = "lstm",
        layers: int = 1,
        dropout: float = 0.0,
        head: str | Head = "squared",
        rng: np.random.Generator | None = None,
        dtype: np.typing.DTypeLike = np.float32,
        precision: str | None = None,
    ) -> None:
        config = self._settings(
            input_size=input_size,
            hidden_size=hidden_size,
            output_size=output_size,
            cell=cell,
            layers=layers,
            dropout=dropout,
            dtype=dtype,
            head=head,
        )
        self._begin(config, rng, cell_of(type(self).__name__, cell))
        self.precision = precision

    @classmethod
    def _settings(  # type: ignore[override]
        cls,
        *,
        input_size: Any,
        hidden_size: Any,
        output_size: Any,
        cell: Any,
        layers: Any,
        dropout: Any,
        dtype: Any,
        head: Any = "squared",
    ) -> dict[str, Any]:
        owner = cls.__name__
        entry = saved_head(owner, head_of(owner, head))
        return {
            "model": owner,
            "input_size": _check.values.size(owner, "input_size", input_size),
            "hidden_size": _check.values.size(owner, "hidden_size", hidden_size),
            "output_size": _check.values.size(owner, "output_size", output_size),
            "cell": saved_cell(owner, cell),
            "layers": _check.values.size(owner, "layers", layers, 1, MOST_LAYERS),
            "dropout": _check.values.number_below(owner, "dropout", dropout, 0, 1),
            "dtype": _check.arrays.float_dtype(owner, dtype).name,
            **({} if entry == "squared" else {"head": entry}),  # files from before heads have no entry
        }

    @classmethod
    def _shapes(cls, config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
        head = head_of(cls.__name__, config.get("head", "squared"))
        width, outputs = config["hidden_size"], len(head.parameters) * config["output_size"]
        shapes = recurrent_shapes(
            cell_of(cls.__name__, config["cell"]), config["layers"], config["input_size"], width
        )
        return {**shapes, "output_W": (width, outputs), "output_b": (outputs,)}

    def _build(self, arrays: dict[str, np.ndarray], rng: np.random.Generator) -> None:
        owner = type(self).__name__
        layers = recurrent_layers(cell_of(owner, self.config["cell"]), self.config["layers"], arrays, rng)
        self.body = Body(owner, None, layers, self.config["dropout"], rng)
        self.head = head_of(owner, self.config.get("head", "squared"))
        self.output = TimeAffineWithLoss(arrays["output_W"], arrays["output_b"], self.head)

    def _inputs(self, method: str, xs: Any, carry: bool = True) -> np.ndarray:
        owner = self._owner(method)
        expected = ("N", "T", self.config["input_size"])
        xs = _check.arrays.floats(owner, "xs", xs, expected, self.dtype, "the last axis is input_size")
        carried = self.body.carried_rows if carry else None
        if carried is not None and xs.size:
            _check.objects.batch(owner, carried, xs.shape[0])
        return xs

    def _whole(self, method: str, xs: np.ndarray, lengths: Any, reset: Any) -> Part:
        """The whole sequence as a part, with checked options."""
        batch, steps, _ = xs.shape
        if lengths is not None:
            lengths = _check.arrays.lengths(self._owner(method), lengths, batch, steps)
        if reset is not None:
            reset = _check.arrays.mask(self._owner(method), "reset", reset, (batch, steps))
        return Part(0, steps, steps, lengths, reset=reset)

    def forward(
        self,
        xs: np.ndarray,
        ts: np.ndarray,
        *,
        lengths: Any = None,
        reset: Any = None,
        weights: Any = None,
        carry: bool = False,
        blocks: Blocks | None = None,
    ) -> float:
        """The mean loss of the head; by default, the mean squared error of the predictions.

        Parameters
        ----------
        xs : ndarray (N, T, D)
            Inputs, in the dtype of the parameters; kept for `backward`.
        ts : ndarray (N, T, O), or (N, O) for the last step of each sequence
            Targets, in the same dtype.
        lengths : sequence of N ints, optional
            Steps of each sequence, T by default; later steps are neither read nor scored.
        reset : ndarray of bool (N, T), optional
            True sets the state to zero before that step.
        weights : ndarray (N, T) or (N,), optional
            Weights of the steps or of the sequences in the mean, at least 0; 1 by default. Targets of weight
            0 are not read and may be NaN.
        carry : bool
            Start from the state after the last call; by default the state is fresh. `backward` always ends
            at the first step of this call.
        blocks : Blocks, optional
            The blocks of rows whose gradients are summed apart, as `Trainer` cuts them.

        Returns
        -------
        float
            The weighted mean over all scored steps and outputs.
        """
        with self._turn:
            self.claim("forward")
            xs = self._inputs("forward", xs, _check.values.boolean(self._owner("forward"), "carry", carry))
            part = self._whole("forward", xs, lengths, reset)._replace(blocks=blocks)
            outputs = self.config["output_size"]
            shape = (xs.shape[0], outputs) if np.ndim(ts) == 2 else (*xs.shape[:2], outputs)
            _check.arrays.floats(self._owner("forward"), "ts", ts, shape, self.dtype)
            options = {"lengths": part.lengths, "weights": weights}
            return self._forward(xs, ts, part, fresh=not carry, **options)

    def predict(
        self, xs: np.ndarray, *, lengths: Any = None, reset: Any = None, carry: bool = False
    ) -> np.ndarray:
        """Point predictions (N, T, O) for inputs `xs` (N, T, D), without dropout.

        `lengths` and `reset` are as in `forward`. By default the sequences start fresh, and the carried state
        is unchanged; with `carry`, they start from the carried state and advance it.
        """
        return self.distribution(xs, lengths=lengths, reset=reset, carry=carry)["mean"]

    @in_turn
    def distribution(
        self, xs: np.ndarray, *, lengths: Any = None, reset: Any = None, carry: bool = False
    ) -> dict[str, np.ndarray]:
        """The parameters of the head's distribution by name, arrays (N, T, O); arguments as in `predict`.

        "mean" is the point prediction; "quantiles" of the head `quantiles` is (levels, N, T, O).
        """
        xs = self._inputs("predict", xs, _check.values.boolean(self._owner("predict"), "carry", carry))
        if carry:
            self.claim("predict")
        part = self._whole("predict", xs, lengths, reset)
        body = self.reader().body
        if not carry:
            body.reset_state()
        predictions = self.head.values(self.scores(body.read(xs, drop=False, keep=False, part=part)))
        if carry:
            self.body.copy_state(body)
        return predictions

    @in_turn
    def evaluate(
        self, xs: Any, ts: Any, *, lengths: Any = None, weights: Any = None, batch_size: int = 64
    ) -> float:
        """The mean loss on sequences, from fresh states and without dropout; arguments as in `Sequences`.

        `batch_size` sequences are read at a time, long ones part by part, so memory maps work. The carried
        state is unchanged.
        """
        owner = self._owner("evaluate")
        data = self.check_sequences(owner, xs, ts, lengths, weights)
        size = _check.values.size(owner, "batch_size", batch_size)
        chunk = 512 * max(1, 4096 // (512 * min(size, len(data.xs))))
        with self.reading() as reader:
            return mean_error(reader, SequenceRows(data, size), chunk)

    def check_sequences(
        self, owner: str, xs: Any, ts: Any, lengths: Any = None, weights: Any = None
    ) -> Sequences:
        """The checked `Sequences`; an error of `owner` unless sequences `xs` (S, T, D) and targets `ts`, (S,
        T, O) or (S, O), fit the model in shape and dtype; memory maps are not read."""
        sizes = {name: self.config[name] for name in ("input_size", "output_size")}
        return fitting(owner, (xs, ts, lengths, weights), sizes, self.dtype)
