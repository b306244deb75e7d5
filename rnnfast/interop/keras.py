"""Keras' recurrent layers and layers of rnnfast, one from the other, on lists of arrays: `from_keras`,
`to_keras`, `keras_config`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from rnnfast import _check, cells
from rnnfast.cells import Cell
from rnnfast.interop.structure import (
    Arrays,
    Layers,
    Sides,
    cell_of,
    cell_with,
    copied_all,
    directions,
    layers_of,
    sides_of,
    with_one_bias,
)
from rnnfast.layers.recurrent import Recurrent
from rnnfast.layers.rnn import ACTIVATIONS

_NAMES = ("kernel", "recurrent_kernel", "bias")
_CLASSES = {
    cells.rnn: "SimpleRNN",
    cells.rnn_relu: "SimpleRNN",
    cells.lstm: "LSTM",
    cells.gru: "GRU",
    cells.gru_after: "GRU",
}


class Options(NamedTuple):
    """What the weights of a layer of Keras do not tell."""

    activation: str
    reset_after: bool | None
    stateful: bool


class Direction(NamedTuple):
    """The arrays of one direction of one layer, in the order of `_NAMES`; `place` names it in errors."""

    place: str
    arrays: Sequence[Any]
    options: Options

    def named(self) -> dict[str, Any]:
        """The arrays by names that are theirs in all layers."""
        return {f"{name} of {self.place}": array for name, array in zip(_NAMES, self.arrays, strict=False)}


def from_keras(
    weights: Any,
    *,
    activation: str = "tanh",
    reset_after: bool | None = None,
    stateful: bool = False,
    dtype: np.typing.DTypeLike | None = None,
) -> Layers:
    """A layer with the weights of Keras' SimpleRNN, LSTM or GRU.

    Keras need not be installed.

    Parameters
    ----------
    weights : list of ndarray, layer of Keras, or list of these
        What `get_weights` of the layer returns: kernel (D, G*H), recurrent_kernel (H, G*H) and, with
        `use_bias`, bias; of `Bidirectional`, those of both directions. The number of gates tells the cell. A
        layer of Keras is read with its options. A list of layers, from bottom to top, makes a `Stack`.
    activation : {"tanh", "relu"}
        That of a SimpleRNN; the layer of Keras knows its own.
    reset_after : bool, optional
        Whether a GRU resets the state after the recurrent product. By default the bias tells, (2, 3*H) or
        (3*H,), and a GRU without a bias is taken as Keras makes it, True.
    stateful : bool
        Whether each `forward` starts from the final state of the one before; the layer of Keras knows it.
    dtype : float32 or float64, optional
        The layer's dtype; that of the weights by default. Weights in float16 or bfloat16 need it.

    Returns
    -------
    layer : TimeRNN, TimeLSTM, TimeGRU, Bidirectional or Stack
        On copies of the weights; two biases of one gate become their sum. The dropout of Keras' layers, which
        acts in their training only, does not travel. `unit_forget_bias` has set an initial value, which is in
        the bias.

    Raises
    ------
    TypeError, ValueError
        An array is of another shape or dtype, or has a NaN or an infinity. An option of a layer of Keras has
        no counterpart: other activations, `go_backwards` outside of `Bidirectional`, or another `merge_mode`
        than ``"concat"``.

    Examples
    --------
    >>> import numpy as np, rnnfast
    >>> rng = np.random.default_rng(0)
    >>> weights = [rng.standard_normal(shape) for shape in ((3, 12), (4, 12), (2, 12))]
    >>> layer = rnnfast.interop.from_keras(weights)
    >>> layer.reset, layer.forward(np.ones((2, 5, 3))).shape
    ('after', (2, 5, 4))
    """
    owner = "from_keras"
    given = Options(
        _check.values.choice(owner, "activation", activation, ACTIVATIONS),
        None if reset_after is None else _check.values.boolean(owner, "reset_after", reset_after),
        _check.values.boolean(owner, "stateful", stateful),
    )
    kind = None if dtype is None else _check.arrays.float_dtype(owner, dtype)
    is_stack = isinstance(weights, list | tuple) and not any(map(_is_array, weights)) and len(weights) > 0
    layers = [
        _read(owner, f"layer {number}" if is_stack else "the layer", one, given)
        for number, one in enumerate(weights if is_stack else [weights])
    ]
    named = {name: array for both in layers for one in both for name, array in one.named().items()}
    copies = copied_all(owner, named, kind)
    sides: Sides = [tuple(_side(owner, one, copies) for one in both) for both in layers]
    return layers_of(owner, "keras", sides, [both[0].options.stateful for both in layers])


def to_keras(layer: Layers) -> list[Any]:
    """The weights of a layer or a stack as Keras' `set_weights` takes them.

    The conversion runs the layer and the equations in Keras' documentation on random input and prints the
    largest difference. Keras need not be installed. `keras_config` describes the layer of Keras.

    Parameters
    ----------
    layer : Recurrent, Bidirectional or Stack
        `TimeRNN`, `TimeLSTM`, `TimeGRU`, or a `Bidirectional` or `Stack` of them.

    Returns
    -------
    weights : list of ndarray, or list of such lists
        kernel (D, G*H), recurrent_kernel (H, G*H) and bias, (2, 3*H) for a GRU with ``reset="after"`` and
        (G*H,) otherwise; of `Bidirectional`, those of both directions. Of a `Stack`, one list a layer.

    Raises
    ------
    ValueError
        Keras has no layer for the cell: peepholes, or your own cell. A parameter has a NaN or an infinity.

    Examples
    --------
    >>> import numpy as np, rnnfast
    >>> layer = rnnfast.TimeGRU.from_sizes(3, 4, rng=np.random.default_rng(0))
    >>> weights = rnnfast.interop.to_keras(layer)
    >>> [array.shape for array in weights]
    [(3, 12), (4, 12), (12,)]
    """
    sides = sides_of("to_keras", "keras", layer)
    made = [[array for side in both for array in _weights(*side)] for both in sides]
    return made if len(made) > 1 else made[0]


def keras_config(layer: Layers) -> Any:
    """The layer of Keras for the weights of `to_keras`, as `keras.layers.deserialize` takes it.

    Parameters
    ----------
    layer : Recurrent, Bidirectional or Stack
        As in `to_keras`.

    Returns
    -------
    config : dict, or list of dict
        For a `Stack`, one a layer. Keras' layers return sequences. Build one with
        ``made.build((None, None, D))`` before `set_weights`, or with the batch size if it is stateful. Keras'
        `Dropout` layers belong between those of a stack.

    Raises
    ------
    ValueError
        As in `to_keras`.

    Examples
    --------
    >>> import numpy as np, rnnfast
    >>> config = rnnfast.interop.keras_config(rnnfast.TimeGRU.from_sizes(3, 4))
    >>> config["class_name"], config["config"]["reset_after"]
    ('GRU', False)
    """
    made = [_config(both) for both in directions("keras_config", layer)]
    return made if len(made) > 1 else made[0]


# From Keras.


def _is_array(value: Any) -> bool:
    return hasattr(value, "dtype") and hasattr(value, "shape")


def _read(owner: str, place: str, given: Any, options: Options) -> list[Direction]:
    """The directions of a layer; `options` are those of a list of arrays."""
    if not isinstance(given, list | tuple):
        return _read_layer(owner, place, given)
    if len(given) not in (2, 3, 4, 6):
        raise _check.interop.keras_weights(owner, place, len(given))
    if len(given) < 4:
        return [Direction(place, given, options)]
    half = len(given) // 2
    return [Direction(place, given[:half], options), Direction(f"{place} (backwards)", given[half:], options)]


def _read_layer(owner: str, place: str, layer: Any, backwards: bool = False) -> list[Direction]:
    """The same of an object of Keras."""
    names = [one.__name__ for one in type(layer).__mro__]
    if "Bidirectional" in names:
        _only(owner, f"merge_mode of {place}", layer.get_config()["merge_mode"], ("concat",))
        back = _read_layer(owner, f"{place} (backwards)", layer.backward_layer, True)
        return [*_read_layer(owner, place, layer.forward_layer), *back]
    if not {"SimpleRNN", "LSTM", "GRU"} & set(names):
        raise TypeError(
            f"{owner}: {place} must be a SimpleRNN, LSTM, GRU or Bidirectional of Keras, or a "
            f"list of its weights, got {type(layer).__name__}."
        )
    config, weights = layer.get_config(), layer.get_weights()
    served = ("tanh", "relu") if "SimpleRNN" in names else ("tanh",)
    _only(owner, f"activation of {place}", config["activation"], served)
    gate = config.get("recurrent_activation", "sigmoid")
    _only(owner, f"recurrent_activation of {place}", gate, ("sigmoid",))
    if config["go_backwards"] != backwards:
        raise _check.interop.reads_backwards(owner, place, backwards)
    if len(weights) not in (2, 3):
        raise _check.interop.keras_weights(owner, place, len(weights))
    options = Options(config["activation"], config.get("reset_after"), config["stateful"])
    return [Direction(place, weights, options)]


def _only(owner: str, name: str, given: Any, served: tuple[str, ...]) -> None:
    if given not in served:
        raise _check.interop.option_not_served(owner, name, given, " or ".join(served))


def _side(owner: str, direction: Direction, arrays: dict[str, np.ndarray]) -> tuple[Cell, Arrays]:
    """One direction of one layer from all arrays by name."""
    name, recurrent, bias = (f"{name} of {direction.place}" for name in _NAMES)
    options = direction.options
    hidden, gates = _check.interop.gates(owner, recurrent, arrays[recurrent], "(H, G*H)")
    columns = gates * hidden
    wx = _check.arrays.shape(owner, name, arrays[name], ("D", columns))
    zeros = np.zeros(columns, wx.dtype)
    if gates != 3:
        bx = _check.arrays.shape(owner, bias, arrays.get(bias, zeros), (columns,))
        return cell_with(gates, options.activation), Arrays(wx, arrays[recurrent], bx, zeros)
    after = options.reset_after
    if after is None:
        after = bias not in arrays or arrays[bias].ndim == 2
    why = f"that of a GRU with reset_after={after}"
    both = arrays.get(bias, np.zeros((2, columns) if after else columns, wx.dtype))
    both = _check.arrays.shape(owner, bias, both, (2, columns) if after else (columns,), why)
    if not after:
        return cells.gru, Arrays(wx, arrays[recurrent], both, zeros)
    return cells.gru_after, with_one_bias(cells.gru_after, Arrays(wx, arrays[recurrent], *both))


# To Keras.


def _weights(cell: Cell, arrays: Arrays) -> list[np.ndarray]:
    """kernel, recurrent_kernel and bias."""
    two = cell is cells.gru_after
    return [arrays.wx, arrays.wh, np.stack([arrays.bx, arrays.bh]) if two else arrays.bx]


def _config(both: tuple[Recurrent, ...]) -> dict[str, Any]:
    """A layer of Keras with one or two directions."""
    made = [_config_of(layer, bool(backwards)) for backwards, layer in enumerate(both)]
    if len(made) == 1:
        return made[0]
    pair = {"layer": made[0], "backward_layer": made[1], "merge_mode": "concat", "dtype": both[0].dtype.name}
    return {"module": "keras.layers", "class_name": "Bidirectional", "config": pair}


def _config_of(layer: Recurrent, backwards: bool) -> dict[str, Any]:
    cell = cell_of("keras_config", "keras", layer.cell)
    config = {
        "units": layer.hidden_size,
        "activation": "relu" if cell is cells.rnn_relu else "tanh",
        "return_sequences": True,
        "stateful": layer.stateful,
        "go_backwards": backwards,
        "dtype": layer.dtype.name,
    }
    if cell in (cells.gru, cells.gru_after):
        config["reset_after"] = cell is cells.gru_after
    return {"module": "keras.layers", "class_name": _CLASSES[cell], "config": config}
