"""A network for whole sequences: recurrent layers in one or both directions, pooling, and a head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from rnnfast import _check
from rnnfast.cells import Cell
from rnnfast.data.batching import SequenceRows
from rnnfast.data.sequences import Sequences, fitting
from rnnfast.engine.locks import in_turn
from rnnfast.heads.definition import Head, head_of, saved_head
from rnnfast.layers.bidirectional import Bidirectional
from rnnfast.layers.head import TimeAffineWithLoss
from rnnfast.layers.recurrent import Recurrent
from rnnfast.layers.window import Blocks, Part
from rnnfast.models.encoder import POOLINGS, Encoder, Pooling
from rnnfast.models.model import Model
from rnnfast.models.weights import MOST_LAYERS, cell_of, saved_cell


class Network(Model):
    """A model that reads each sequence from its first to its last step.

    `Trainer` trains it with `TruncatedBPTT(k1)`, where `k1` is at least the length of the longest sequence.

    Parameters
    ----------
    input_size, hidden_size, output_size : int
        D, H and O.
    cell : str or Cell
        The recurrent layers, as in `RNNLM`.
    layers : int
        The number of stacked recurrent layers.
    bidirectional : bool
        Whether each layer also reads backwards; its outputs are then (N, T, 2 H).
    dropout : float
        Share of units dropped in training, before each recurrent layer and before the output layer.
    pooling : {"last", "mean", "max"} or None
        One vector for each sequence: the final states of both directions, or the mean or the maximum over
        its steps. With None, targets belong to every step.
    head : str or Head
        The loss and the kind of prediction.
    rng : numpy.random.Generator, optional
        Draws the weights and the dropped units.
    dtype : float32 or float64
    precision : "bfloat16", optional
        Round the operands of products to bfloat16; see the attribute.

    Examples
    --------
    >>> import numpy as np
    >>> from rnnfast.heads import categorical
    >>> from rnnfast.models.network import Network
    >>> network = Network(3, 8, 1, head=categorical(4), pooling="mean", bidirectional=True)
    >>> xs = np.ones((2, 5, 3), np.float32)
    >>> loss = network.forward(xs, np.array([[3], [0]], np.float32), lengths=[5, 2])
    >>> network.backward()
    >>> network.distribution(xs)["probabilities"].shape
    (2, 4)
    """

    output: TimeAffineWithLoss
    body: Encoder
    reads_whole = True  # windows must not cut a sequence

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        output_size: int,
        *,
        cell: str | Cell = "gru",
        layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        pooling: Pooling | None = "last",
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
            bidirectional=bidirectional,
            dropout=dropout,
            pooling=pooling,
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
        bidirectional: Any,
        dropout: Any,
        pooling: Any,
        dtype: Any,
        head: Any,
    ) -> dict[str, Any]:
        owner = cls.__name__
        return {
            "model": owner,
            "input_size": _check.values.size(owner, "input_size", input_size),
            "hidden_size": _check.values.size(owner, "hidden_size", hidden_size),
            "output_size": _check.values.size(owner, "output_size", output_size),
            "cell": saved_cell(owner, cell),
            "layers": _check.values.size(owner, "layers", layers, 1, MOST_LAYERS),
            "bidirectional": _check.values.boolean(owner, "bidirectional", bidirectional),
            "dropout": _check.values.number_below(owner, "dropout", dropout, 0, 1),
            "pooling": None if pooling is None else _check.values.choice(owner, "pooling", pooling, POOLINGS),
            "dtype": _check.arrays.float_dtype(owner, dtype).name,
            "head": saved_head(owner, head_of(owner, head)),
        }

    @classmethod
    def _shapes(cls, config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
        cell, head = cell_of(cls.__name__, config["cell"]), head_of(cls.__name__, config["head"])
        depth = config["input_size"]
        shapes: dict[str, tuple[int, ...]] = {}
        for names in _names_of_layers(config):
            for name in names:
                own = cell.shapes(depth, config["hidden_size"])
                shapes |= {f"{name}_{part}": shape for part, shape in own.items()}
            depth = len(names) * config["hidden_size"]
        outputs = len(head.parameters) * config["output_size"]
        return {**shapes, "output_W": (depth, outputs), "output_b": (outputs,)}

    def _build(self, arrays: dict[str, np.ndarray], rng: np.random.Generator) -> None:
        owner, config = type(self).__name__, self.config
        cell, layers = cell_of(owner, config["cell"]), []
        for names in _names_of_layers(config):
            both = [_layer(cell, name, arrays, rng) for name in names]
            layers.append(Bidirectional(*both) if len(both) == 2 else both[0])
        self.body = Encoder(owner, layers, config["pooling"], config["dropout"], rng)
        self.head = head_of(owner, config["head"])
        self.output = TimeAffineWithLoss(arrays["output_W"], arrays["output_b"], self.head)

    def _inputs(self, method: str, xs: Any, carry: bool = True) -> np.ndarray:
        owner, expected = self._owner(method), ("N", "T", self.config["input_size"])
        xs = _check.arrays.floats(owner, "xs", xs, expected, self.dtype, "the last axis is input_size")
        if not xs.shape[1]:
            raise ValueError(
                f"{owner}: at least one step is needed, got xs {_check.arrays.shape_text(xs.shape)}."
            )
        return xs

    def _whole(self, method: str, xs: Any, lengths: Any) -> tuple[np.ndarray, Part]:
        """Checked inputs, and the part that holds all their steps."""
        xs = self._inputs(method, xs)
        batch, steps, _ = xs.shape
        if lengths is not None:
            lengths = _check.arrays.lengths(self._owner(method), lengths, batch, steps)
        return xs, Part(0, steps, steps, lengths)

    def _scoring(self, part: Part, weights: Any) -> dict[str, Any]:
        """The options of the output: with pooling, each sequence is one step."""
        return {"weights": weights, "lengths": None if self.config["pooling"] else part.lengths}

    def forward(
        self,
        xs: np.ndarray,
        ts: np.ndarray,
        *,
        lengths: Any = None,
        weights: Any = None,
        blocks: Blocks | None = None,
    ) -> float:
        """The mean loss of the head.

        Parameters
        ----------
        xs : ndarray (N, T, D)
            Inputs, in the dtype of the parameters; kept for `backward`.
        ts : ndarray (N, O), or (N, T, O) without pooling
            Targets, in the same dtype.
        lengths : sequence of N ints, optional
            Steps of each sequence, T by default; later steps are neither read nor scored.
        weights : ndarray (N,), or also (N, T) without pooling, optional
            Weights in the mean, at least 0; 1 by default. Targets of weight 0 are not read.
        blocks : Blocks, optional
            The blocks of rows whose gradients are summed apart, as `Trainer` cuts them.
        """
        with self._turn:
            self.claim("forward")
            xs, part = self._whole("forward", xs, lengths)
            shape = xs.shape[:1] if self.config["pooling"] else xs.shape[:2]
            expected = (*shape, self.config["output_size"])
            _check.arrays.float_array(self._owner("forward"), "ts", ts, expected, self.dtype)
            return self._forward(xs, ts, part._replace(blocks=blocks), **self._scoring(part, weights))

    @in_turn
    def scores(self, xs: np.ndarray, *, lengths: Any = None) -> np.ndarray:
        """The scores of the output layer for sequences `xs` (N, T, D), without dropout: (N, P*O), or
        (N, T, P*O) without pooling."""
        xs, part = self._whole("scores", xs, lengths)
        found = super().scores(self.reader().body.read(xs, drop=False, keep=False, part=part))
        return found[:, 0] if self.config["pooling"] else found

    def distribution(self, xs: np.ndarray, *, lengths: Any = None) -> dict[str, np.ndarray]:
        """The parameters of the head's distribution by name, arrays (N, ...) or (N, T, ...); arguments are as
        in `scores`."""
        return self.head.values(self.scores(xs, lengths=lengths))

    @in_turn
    def evaluate(
        self, xs: Any, ts: Any, *, lengths: Any = None, weights: Any = None, batch_size: int = 64
    ) -> float:
        """The mean loss on sequences without dropout, `batch_size` at a time; arguments as in `Sequences`."""
        owner = self._owner("evaluate")
        data = self.check_sequences(owner, xs, ts, lengths, weights)
        batches, total, scored = (
            SequenceRows(data, _check.values.size(owner, "batch_size", batch_size)),
            0.0,
            0.0,
        )
        with self.reading() as reader:
            for x, t, own, scale, *_ in batches:
                x, part = self._whole("evaluate", np.array(x[:, :]), own)
                t = np.array(t[:, :])
                hs = reader.body.read(x, drop=False, keep=False, part=part)
                options = self._scoring(part, scale)
                total += float(reader.output.losses(hs, t, **options).sum())
                if scale is not None:
                    scale = _check.arrays.weights(owner, scale, hs.shape[:2], self.dtype)
                seen = Part(0, hs.shape[1], hs.shape[1], options["lengths"], weights=scale)
                scored += reader.output.scored(t, [seen])
        return reader.output.mean(np.array([total]), scored)

    def check_sequences(
        self, owner: str, xs: Any, ts: Any, lengths: Any = None, weights: Any = None
    ) -> Sequences:
        """The checked `Sequences`; an error of `owner` unless sequences `xs` (S, T, D) and targets `ts`, (S,
        O), or (S, T, O) without pooling, fit the model in shape and dtype."""
        sizes = {name: self.config[name] for name in ("input_size", "output_size")}
        data = fitting(owner, (xs, ts, lengths, weights), sizes, self.dtype)
        _check.training.axes_of_targets(owner, data.ts, 2 if self.config["pooling"] else 3)
        return data


def _names_of_layers(config: Mapping[str, Any]) -> list[list[str]]:
    """Names of the layers from bottom to top, with those that read backwards."""
    ways = ("", "reverse") if config["bidirectional"] else ("",)
    return [[f"layer{layer}{way}" for way in ways] for layer in range(config["layers"])]


def _layer(cell: Cell, name: str, arrays: Mapping[str, np.ndarray], rng: np.random.Generator) -> Recurrent:
    return Recurrent(cell, [arrays[f"{name}_{part}"] for part in cell.shapes(1, 1)], rng=rng)
