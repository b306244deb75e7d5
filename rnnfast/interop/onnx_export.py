"""Layers and models as ONNX files."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import rnnfast
from rnnfast import _check
from rnnfast.data import CharTokenizer, Tokenizer, WordTokenizer
from rnnfast.data.tokenizer import STRAIGHT_QUOTES, WORD
from rnnfast.files.atomic import write_atomically
from rnnfast.heads import Head
from rnnfast.interop.named import (
    BATCH,
    LIMITS,
    STEPS,
    agree,
    computed,
    description_of,
    random_inputs,
    random_words,
)
from rnnfast.interop.onnx_layers import (
    IR_VERSION,
    MOST_BYTES,
    OPSET,
    Direction,
    Placed,
    Steps,
    Writer,
    operator_of,
    write_formula,
    write_layer,
)
from rnnfast.interop.structure import directions
from rnnfast.kernels.cell.node import in_order
from rnnfast.layers.bidirectional import Bidirectional
from rnnfast.layers.recurrent import Recurrent
from rnnfast.layers.stack import Stack
from rnnfast.models.regressor import SequenceRegressor
from rnnfast.models.rnnlm import RNNLM
from rnnfast.training import load_checkpoint

# The entry of a file's metadata that says which model it holds.
METADATA = "rnnfast.model"
# ONNX Runtime approximates tanh and sigmoid in float32: up to 2e-5 of the largest output were measured.
_LIMITS: dict[Any, float] = LIMITS | {np.dtype(np.float32): 1e-4}
KINDS = (Recurrent, Bidirectional, Stack, RNNLM, SequenceRegressor)


class Exported(NamedTuple):
    """The result of an export.

    Attributes
    ----------
    placed : list of Placed
        The home of each parameter: its name, its shape and the initializer of the file.
    difference : float or None
        The largest difference between the file in ONNX Runtime and rnnfast on random input, relative to the
        largest output; None without `check`.
    """

    placed: list[Placed]
    difference: float | None


def to_onnx(
    model: Any, path: str | os.PathLike[str], *, lengths: bool = False, check: bool = True
) -> Exported:
    """Write a layer or a model as an ONNX file.

    The cells of ONNX become its operators RNN, LSTM and GRU; the peephole LSTM is one of them. Every other
    cell becomes a Scan, whose body is the cell's formula in standard operators; random arguments are their
    mean. A file reads one or more sequences of one or more steps. Equal models give equal bytes.

    Parameters
    ----------
    model : Recurrent, Bidirectional, Stack, RNNLM or SequenceRegressor
        A layer of any cell, layers, or a model; the file does not contain its state.
    path
        The file; an older one stays until the new one is complete.
    lengths : bool
        Whether the file has the input `lengths`, int32 (batch,): the steps of each sequence, from 0 to time.
        After its end, `hs` is zero; its final state is that after its last step.
    check : bool
        Whether to run the file in ONNX Runtime first and to compare its outputs with the model's.

    Returns
    -------
    Exported

    Raises
    ------
    TypeError, ValueError
        The model is of another kind, its parameters do not fit a file, or the file computes other numbers
        than the model.
    ModuleNotFoundError
        onnx is not installed or, with `check`, onnxruntime.
    OSError
        The file cannot be written.

    Notes
    -----
    Inputs are `xs` (batch, time, D) or, for words, `ids` (batch, time) in int64. The output is `hs` (batch,
    time, H) of layers, `scores` (batch, time, V) of `RNNLM`. `SequenceRegressor` has one output for each
    value of its `distribution`, such as `mean` and `scale`; the heads `quantiles` and `categorical` have the
    output `scores` (batch, time, P*O).

    Each state is an input (batch, H), and an output after the last step: ``layer0_h`` and ``layer0_h_next``,
    ``layer0_c`` and ``layer0_c_next``, then `layer1` and so on; the layer that reads backwards has
    ``layer0_reverse_h``. Zeros start a sequence, and the outputs of one call continue it in the next. A given
    array of a cell is an input (batch, time, H), for example ``layer0_drive``.

    ONNX Runtime has no operators RNN, LSTM and GRU in float64. A float64 file with them is valid, but it is
    compared in float32, as the same graph with rounded parameters.

    The check starts from zero states and compares outputs, not final states.

    Examples
    --------
    >>> import rnnfast
    >>> from rnnfast.interop import to_onnx
    >>> layer = rnnfast.TimeLSTM.from_sizes(3, 4)
    >>> to_onnx(layer, "lstm.onnx").placed[0]                                   # doctest: +SKIP
    Placed(parameter='layer0_Wx', shape=(3, 16), initializer='layer0_W')
    """
    check = _check.values.boolean("to_onnx", "check", check)
    _check.interop.installed("to_onnx", "onnx", "onnx", *(["onnxruntime"] if check else []))
    source = source_of("to_onnx", model)
    content, placed = written(source, lengths)
    difference = _compared(source, content, lengths) if check else None
    with write_atomically(path) as file:
        file.write(content)
    return Exported(placed, difference)


def _compared(source: Source, content: bytes, lengths: bool) -> float:
    """The largest difference between a file in ONNX Runtime and the model; ValueError if it is too large."""
    import onnxruntime

    if source.dtype == np.float64 and any(operator_of(way.layer.cell) for way in source.ways()):
        source = source.rounded(np.dtype(np.float32))
        content = written(source, lengths)[0]
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    inputs = {}
    for one in session.get_inputs():
        if one.name == "ids":
            assert source.words is not None
            inputs[one.name] = random_words(len(source.words))
        elif one.name == "lengths":
            inputs[one.name] = np.full(BATCH, STEPS, np.int32)
        elif len(one.shape) == 2:
            inputs[one.name] = np.zeros((BATCH, one.shape[1]), source.dtype)
        else:
            inputs[one.name] = random_inputs(one.shape[2], source.dtype)
    names = [one.name for one in session.get_outputs() if not one.name.endswith("_next")]
    theirs = session.run(names, inputs)
    if source.head is not None and names == ["scores"]:
        theirs = list(source.head.values(theirs[0]).values())
    return agree("to_onnx", "ONNX Runtime", computed(source.model), theirs, _LIMITS)


def written(source: Source, lengths: bool) -> tuple[bytes, list[Placed]]:
    """The content of a file, and the home of each parameter."""
    import onnx
    from onnx import helper

    graph = Writer(source.dtype)
    hs, states = _write_layers(graph, source, lengths)
    _write_outputs(graph, source, graph.node("Transpose", hs, perm=[1, 0, 2]))
    for (name, width), value in states.items():
        graph.output(name, value, ("batch", width))
    _check.interop.fits_protobuf("to_onnx", graph.nbytes(), MOST_BYTES)
    model = helper.make_model(
        graph.graph(type(source.model).__name__),
        producer_name="rnnfast",
        producer_version=rnnfast.__version__,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    helper.set_model_props(model, {METADATA: json.dumps(description_of(source.model), sort_keys=True)})
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString(deterministic=True), graph.placed


def _write_layers(graph: Writer, source: Source, lengths: bool) -> tuple[str, dict[tuple[str, int], str]]:
    """The outputs (T, N, H) of the top layer, and the final states by name and width."""
    if source.words is None:
        given = graph.input("xs", ("batch", "time", source.layers[0][0].layer.input_size))
        xs = graph.node("Transpose", given, perm=[1, 0, 2])
    else:
        given = graph.input("ids", ("batch", "time"), np.int64)
        ids = graph.node("Transpose", given, perm=[1, 0])
        xs = graph.node("Gather", graph.parameter("embed_W", source.words), ids)
    steps = _with_lengths(graph, source, xs) if lengths else Steps(xs)
    states: dict[tuple[str, int], str] = {}
    for both in source.layers:
        ways = [_with_inputs(graph, way) for way in both]
        hs, finals = write_layer(graph, ways, steps)
        for way, final in zip(both, finals, strict=True):
            names = [f"{way.of(state)}_next" for state in way.layer.cell.states]
            states |= {(name, way.layer.hidden_size): v for name, v in zip(names, final, strict=True)}
        steps = steps._replace(xs=hs)
    return steps.xs, states


def _with_lengths(graph: Writer, source: Source, xs: str) -> Steps:
    """The sequences (T, N, ...) with an input for their lengths."""
    lengths = graph.input("lengths", ("batch",), np.int32)
    ends = graph.node("Cast", lengths, to=graph.type_of(np.int64))
    are_scans = {operator_of(way.layer.cell) is None for way in source.ways()}
    inside = begun = ""
    if True in are_scans:
        time = graph.node("Gather", graph.node("Shape", xs), graph.integers(0))
        steps = graph.node("Range", graph.integers(0), time, graph.integers(1))
        before = graph.node("Less", graph.node("Unsqueeze", steps, graph.integers([1])), ends)
        inside = graph.node("Unsqueeze", before, graph.integers([2]))
    if False in are_scans:
        begun = graph.node("Greater", graph.node("Unsqueeze", ends, graph.integers([1])), graph.integers(0))
    return Steps(xs, lengths, inside, begun)


def _with_inputs(graph: Writer, way: Way) -> Direction:
    """A layer with inputs for its states and its given arrays."""
    layer, width = way.layer, way.layer.hidden_size
    given = {}
    for name in layer.given_names:
        array = graph.input(way.of(name), ("batch", "time", width))
        given[name] = graph.node("Transpose", array, perm=[1, 0, 2])
    states = [graph.input(way.of(state), ("batch", width)) for state in layer.cell.states]
    return Direction(way.name, layer, states, given)


def _write_outputs(graph: Writer, source: Source, hs: str) -> None:
    """The outputs besides the states, from hidden vectors (N, T, H)."""
    if source.output is None:
        graph.output("hs", hs, ("batch", "time", source.hidden_size))
        return
    W, b = source.output
    weights = (
        graph.node("Transpose", "embed_W", perm=[1, 0]) if source.tied else graph.parameter("output_W", W)
    )
    product = graph.node("MatMul", hs, weights)
    scores = graph.node("Add", product, graph.parameter("output_b", b))
    formulas = None if source.head is None else source.head.formulas()
    if source.head is None or formulas is None:
        graph.output("scores", scores, ("batch", "time", b.size))
        return
    parts = source.head.parameters
    width = b.size // len(parts)
    values = dict(zip(parts, graph.split(scores, [width] * len(parts)), strict=True))
    known = {node: values[node.args[0]] for node in in_order(formulas.values()) if node.op == "input"}
    for name, value in zip(formulas, write_formula(graph, formulas.values(), known), strict=True):
        graph.output(name, value, ("batch", "time", width))


# The parts of a model as they go into a file.


class Way(NamedTuple):
    """A layer in one direction, and the start of its names: "layer0", or "layer0_reverse"."""

    name: str
    layer: Recurrent

    def of(self, name: str) -> str:
        """The name in the file of a state, a given array or a parameter of the layer."""
        return f"{self.name}_{name}"

    def alone(self, dtype: np.dtype) -> Way:
        """The same with memory of its own and means for random arguments, in a dtype."""
        layer = Recurrent(
            self.layer.cell, [param.astype(dtype) for param in self.layer.params], stateful=True
        )
        layer.share_constants(self.layer)
        layer.train_flg = False
        return Way(self.name, layer)


class Source(NamedTuple):
    """What an ONNX file is made from.

    Attributes
    ----------
    model
        The layer or model itself.
    words : ndarray (V, D) or None
        The word vectors, if the model reads ids.
    layers : list of tuples of Way
        From bottom to top, each with one or two directions.
    output : pair of ndarray or None
        The weights (H, P*O) and the bias (P*O,) of the output layer.
    tied : bool
        Whether these weights are the transposed word vectors.
    head : Head or None
        What the scores mean.
    """

    model: Any
    words: np.ndarray | None
    layers: list[tuple[Way, ...]]
    output: tuple[np.ndarray, np.ndarray] | None = None
    tied: bool = False
    head: Head | None = None

    @property
    def dtype(self) -> np.dtype:
        """The dtype of all parameters."""
        return self.layers[0][0].layer.dtype

    def rounded(self, dtype: np.dtype) -> Source:
        """The same in another dtype."""

        def cast(array: np.ndarray) -> np.ndarray:
            return array.astype(dtype)

        return self._replace(
            words=None if self.words is None else cast(self.words),
            layers=[tuple(way.alone(dtype) for way in both) for both in self.layers],
            output=None if self.output is None else (cast(self.output[0]), cast(self.output[1])),
        )

    def ways(self) -> Iterator[Way]:
        """The layers of all directions, from bottom to top."""
        for both in self.layers:
            yield from both

    @property
    def hidden_size(self) -> int:
        """The size of the top layer's output."""
        return sum(way.layer.hidden_size for way in self.layers[-1])


def source_of(owner: str, model: Any) -> Source:
    """The parts of a layer or a model; TypeError for others."""
    if isinstance(model, RNNLM | SequenceRegressor):
        return _of_model(model)
    if not isinstance(model, Recurrent | Bidirectional | Stack):
        raise _check.interop.not_exported(owner, model, KINDS)
    return Source(model, None, _named(directions(owner, model)))


def _of_model(model: RNNLM | SequenceRegressor) -> Source:
    words = model.body.embedding
    W, b = model.output.params
    return Source(
        model,
        None if words is None else words.params[0],
        _named([(layer,) for layer in model.body.layers]),
        (W, b),
        model.tied,
        model.head if isinstance(model, SequenceRegressor) else None,
    )


def _named(layers: Sequence[tuple[Recurrent, ...]]) -> list[tuple[Way, ...]]:
    return [
        tuple(Way(f"layer{place}{end}", one) for end, one in zip(("", "_reverse"), both, strict=False))
        for place, both in enumerate(layers)
    ]


# A run folder as an ONNX file with its tokenizer beside it, for programs without rnnfast.


def export_run(
    folder: str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    last: bool = False,
) -> Exported:
    """Write the model of a run folder as an ONNX file, and its tokenizer as JSON beside it.

    Parameters
    ----------
    folder
        Written by `rnnfast train` or `Checkpoint`.
    path
        The ONNX file. The tokenizer of ``model.onnx`` goes to ``model.tokenizer.json``.
    last : bool
        The last good parameters of a run that stopped early, instead of its best model.

    Returns
    -------
    Exported

    Raises
    ------
    CheckpointError
        A file of the folder is missing, damaged or from another run.
    TypeError, ValueError, ModuleNotFoundError, OSError
        As `to_onnx`.

    Examples
    --------
    >>> from rnnfast.interop import export_run
    >>> export_run("runs/first", "model.onnx")                                  # doctest: +SKIP
    """
    model, tokenizer, _ = load_checkpoint(folder, last=last)
    return export_with_tokenizer(model, tokenizer, path)


def export_with_tokenizer(model: Any, tokenizer: Tokenizer | None, path: str | os.PathLike[str]) -> Exported:
    """`to_onnx`, and the tokenizer, if there is one, as JSON at `tokenizer_path`."""
    exported = to_onnx(model, path)
    if tokenizer is not None:
        with write_atomically(tokenizer_path(path)) as file:
            file.write(json.dumps(portable(tokenizer), indent=1, ensure_ascii=False).encode())
    return exported


def tokenizer_path(path: str | os.PathLike[str]) -> Path:
    """The path of the tokenizer of an ONNX file.

    Examples
    --------
    >>> tokenizer_path("model.onnx").name
    'model.tokenizer.json'
    """
    return Path(path).with_suffix(".tokenizer.json")


def portable(tokenizer: Tokenizer) -> dict[str, Any]:
    """All that is needed to turn text into ids, as JSON values.

    Returns
    -------
    dict
        "kind" is "word", "whitespace" or "char". "tokens" are all tokens in the order of ids; "unknown" and
        "line_end" are the ids of the unknown token and of a line end. A text becomes tokens in four steps: it
        is turned to lower case if "lower" is true; it is brought to the Unicode form "normalize" unless that
        is null; matches of regular expressions become other text, for each pair in "replace"; the matches of
        the regular expression "split" are the tokens. "between" stands between tokens in readable text.

    Examples
    --------
    >>> from rnnfast import CharTokenizer
    >>> portable(CharTokenizer("ab"))["tokens"]
    ['<unk>', '\\n', 'a', 'b']
    """
    is_word = isinstance(tokenizer, WordTokenizer)
    is_char = isinstance(tokenizer, CharTokenizer)
    return {
        "kind": tokenizer.kind,
        "tokens": tokenizer.id_to_token,
        "unknown": tokenizer.unk_id,
        "line_end": tokenizer.eos_id,
        "lower": isinstance(tokenizer, WordTokenizer) and tokenizer.lower,
        "normalize": "NFC" if is_word else None,
        "replace": [] if is_char else _words() if is_word else [[r"\n", " <eos> "]],
        "split": r"[\s\S]" if is_char else _pattern() if is_word else r"\S+",
        "between": "" if is_char else " ",
    }


def _words() -> list[list[str]]:
    """Line ends after lines that are not blank, and straight quotes."""
    quotes = [[chr(curly), str(straight)] for curly, straight in STRAIGHT_QUOTES.items()]
    return [[r"^\s+", ""], [r"\s*\n\s*", " <eos> "], *quotes]


def _pattern() -> str:
    """The pattern of words on one line, without spaces and comments."""
    return "(?i)" + re.sub(r"\s|#[^\n]*", "", WORD.pattern)
