"""ONNX graphs that run: `from_onnx`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from rnnfast import _check
from rnnfast.engine.locks import Turn, in_turn
from rnnfast.interop.onnx_described import Homes, described_model
from rnnfast.interop.onnx_folding import compiled, refusals
from rnnfast.interop.onnx_models import model_of
from rnnfast.interop.onnx_program import WRONG, NodeFailed, Program
from rnnfast.interop.onnx_reading import Value, read_file
from rnnfast.interop.onnx_source import METADATA
from rnnfast.layers.bidirectional import Bidirectional
from rnnfast.layers.recurrent import Recurrent
from rnnfast.layers.stack import Stack
from rnnfast.models import RNNLM, SequenceRegressor

# The largest result of an operator, unless the caller allows more.
MEMORY = 1 << 30


class Graph:
    """An ONNX graph that runs here; made by `from_onnx`.

    RNN, LSTM and GRU nodes are computed by the layers of this library, all others by NumPy.

    Attributes
    ----------
    inputs, outputs : list of Value
        Name, dtype and shape of each; a dynamic axis has its name in place of a length.
    layers : dict of str to layer
        The layers of the recurrent nodes by the name of the node: `TimeRNN`, `TimeLSTM`, `TimeGRU`,
        `Recurrent` (with peepholes) or `Bidirectional`. They hold the parameters of the graph and may be
        trained. The layer of a node that reads in reverse reads what has been reversed.
    memory : int
        The largest result of one operator in bytes, 1 GiB at first; a larger one is an error, so that a graph
        from a stranger cannot take all memory. May be set.

    Examples
    --------
    >>> graph = rnnfast.interop.from_onnx("words.onnx")                         # doctest: +SKIP
    >>> graph(ids=np.zeros((1, 5), np.int64), layer0_h=np.zeros((1, 64), np.float32))   # doctest: +SKIP
    {'scores': array(...), 'layer0_h_next': array(...)}
    """

    def __init__(
        self,
        program: Program,
        inputs: list[Value],
        outputs: list[Value],
        refused: str = "",
        path: str | os.PathLike[str] = "",
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        self._program, self._refused, self._turn = program, refused, Turn()
        self._path, self._metadata = path, metadata or {}
        self.inputs, self.outputs = inputs, outputs
        self.layers: dict[str, Recurrent | Bidirectional] = program.layers()
        self.memory = MEMORY

    def __repr__(self) -> str:
        given, made = (", ".join(value.name for value in values) for values in (self.inputs, self.outputs))
        return f"Graph({given} -> {made}; {len(self.layers)} recurrent)"

    @in_turn
    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """All outputs by name.

        Parameters
        ----------
        inputs : dict of str to ndarray
            One array per input of the graph, in its dtype and shape.

        Raises
        ------
        TypeError, ValueError
            An input is missing or unknown, has another dtype or shape, or an operator fails on it; the
            message names the node.
        """
        if self._refused:
            raise _check.not_runnable("Graph.run", self._refused)
        _check.graph_inputs("Graph.run", inputs, (value.name for value in self.inputs))
        for value in self.inputs:
            _check_input(value, inputs[value.name])
        try:
            with np.errstate(all="ignore"):
                return self._program.run(dict(inputs), self.memory)
        except NodeFailed as error:
            raise ValueError(f"Graph.run: {error}.") from None

    def model(self, *, verbose: bool = True) -> RNNLM | SequenceRegressor | Recurrent | Bidirectional | Stack:
        """The model that computes the graph, on copies of its parameters.

        A file of `to_onnx` gives the model that it was made from, but without the dropout of a `Stack`. Any
        other graph of recurrent layers is a layer or a `Stack`; with an embedding before and an affine layer
        after layers of one cell and size, it is an `RNNLM`. Both sides run on random input, and the largest
        difference is printed if `verbose`.

        Raises
        ------
        ValueError
            A node, which is named, has no place in such a model, or the model gives other numbers.
        CheckpointError
            The file says of itself that it is from `to_onnx`, but is damaged, or its cell is not defined.
        """
        return self._modelled("Graph.model", _check.boolean("Graph.model", "verbose", verbose))[0]

    def places(self) -> dict[str, list[tuple[str, tuple[int, ...]]]]:
        """The arrays of the file, name and shape, that hold each parameter of `model`, by its name.

        Parameters of layers are named as in `to_onnx`: ``layer0_Wx``, ``layer0_reverse_Wx``. The list is
        empty for a bias that the file does not have, and has several arrays where the graph joins them.

        Raises
        ------
        ValueError, CheckpointError
            As `model`.
        """
        homes = self._modelled("Graph.places")[1]
        return {name: self._program.homes(values) for name, values in homes.items()}

    def _modelled(self, owner: str, show: bool = False) -> tuple[Any, Homes]:
        """The model, and the constants that hold each parameter."""
        if self._refused:
            raise _check.not_runnable(owner, self._refused)
        if METADATA not in self._metadata:
            return model_of(self._program, self.inputs, self.outputs, show)
        try:
            return described_model(self._program, self._metadata, show)
        except _check.CellMissing as error:
            raise _check.cell_missing(error.name, error.fingerprint, self._path) from None
        except WRONG as error:
            what = f"there is no {error}" if isinstance(error, KeyError) else str(error)
            raise _check.malformed(
                self._path, f"its entry {METADATA} does not fit the graph: {what}"
            ) from None

    def __call__(self, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        """`run` with the inputs as keywords."""
        return self.run(inputs)


def _check_input(value: Value, array: Any) -> None:
    if value.shape is None:
        _check.shape("Graph.run", value.name, array, np.shape(array))
    else:
        expected = tuple(axis if isinstance(axis, int) else axis or "any" for axis in value.shape)
        _check.shape("Graph.run", value.name, array, expected)
    if value.dtype is not None:
        _check.graph_input_dtype("Graph.run", value.name, array.dtype, value.dtype)


def from_onnx(path: str | os.PathLike[str], *, run: bool = True) -> Graph:
    """Read an ONNX file as a graph that runs.

    Recurrent nodes become layers of this library, with all directions, lengths and initial states; nodes of
    constants are computed once. Files are read without the package onnx, and as files from strangers: a
    damaged one costs no more than about three times its size in memory.

    Parameters
    ----------
    path
        The file. Tensors outside of it are read from files in the same folder.
    run : bool
        False reads any graph for its `layers`: what is not served is no error until `run` is called.

    Returns
    -------
    Graph

    Raises
    ------
    CheckpointError
        The file is damaged, or has what is not served: an operator outside the table, another activation of a
        recurrent node, clipping, coupled gates, weights that are no constants. The message names them all.
    OSError
        The file cannot be read.

    Examples
    --------
    >>> import pathlib, tempfile, numpy as np
    >>> content = bytes.fromhex("42021011 3a18 0a0c 0a0178 120179 220454616e68 5a03 0a0178 6203 0a0179")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "tanh.onnx")
    ...     _ = path.write_bytes(content)  # y = Tanh(x)
    ...     graph = from_onnx(path)
    >>> graph.run({"x": np.zeros(3)})
    {'y': array([0., 0., 0.])}
    """
    _check.readable("from_onnx", path)
    try:
        file = read_file(path)
        program = compiled(file)
        inputs, outputs = file.body.inputs, file.body.outputs
    except WRONG as error:
        raise _check.malformed(path, str(error) or type(error).__name__) from None
    refused = refusals(program)
    if run and refused:
        raise _check.malformed(path, refused)
    return Graph(program, inputs, outputs, refused, path, file.metadata)
