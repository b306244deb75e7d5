"""Arrays in the forms of PyTorch, Keras and Flax, without these libraries: equations, round trips, what is
found in models, and what is refused."""

import subprocess
import sys
import types

import numpy as np
import pytest
from cell_cases import make
from helpers import DTYPES, assert_same_bits, normal
from interop_helpers import (
    FORMS,
    KINDS,
    D,
    H,
    assert_close,
    assert_same_layer,
    built,
    inputs,
    keras_weights,
    state_dict,
)
from library_formulas import outcome
from rnnfast.kernels.cell import built_in as compiled

from rnnfast import TimeLSTM, cells
from rnnfast.cells import Cell
from rnnfast.interop import from_flax, from_keras, from_torch, keras_config, to_flax, to_keras
from rnnfast.interop.structure import LAYOUTS, Arrays, from_library, parameters, sides_of, to_library

CELL_OF_KIND = {
    "rnn": cells.rnn,
    "relu": cells.rnn_relu,
    "lstm": cells.lstm,
    "gru-before": cells.gru,
    "gru-after": cells.gru_after,
}
LIBRARIES = ("torch", "keras", "flax nnx", "flax linen")
PARTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


# Layouts.


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("library", "kind"),
    [(library, kind) for library in LAYOUTS for kind, one in CELL_OF_KIND.items() if one in LAYOUTS[library]],
)
def test_parameters_come_back_from_each_layout(library, kind, dtype):
    layer = make(kind, D, H, dtype)
    layout = LAYOUTS[library][layer.cell]
    actual = from_library(layer.cell, layout, to_library(layer.cell, layout, parameters(layer)))
    assert list(actual) == list(layer.parameter_names)
    for name, param in parameters(layer).items():
        assert_same_bits(actual[name], param)
        assert not np.may_share_memory(actual[name], param)


# The equations in the documentation of each library.


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("layers", "directions"), FORMS)
@pytest.mark.parametrize(
    ("library", "kind"),
    [(name, kind) for name in LIBRARIES for kind, one in CELL_OF_KIND.items() if one in LAYOUTS[name]],
)
def test_layers_compute_the_equations_of_each_library(library, kind, layers, directions, dtype):
    model = built(kind, dtype, layers, directions)
    for one in getattr(model, "recurrent", [model]):
        if (library, kind) == ("flax nnx", "gru-after"):  # which has no second bias
            one.params[3][...] = 0
    xs = inputs(dtype)
    expected = outcome(library, sides_of("test", library, model), xs)
    assert_close(model.forward(xs), expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("biases", [True, False])
@pytest.mark.parametrize(("layers", "directions"), FORMS)
@pytest.mark.parametrize("gates", [1, 3, 4])
def test_a_state_dict_computes_pytorchs_equations(gates, layers, directions, biases, dtype):
    arrays = state_dict(gates, layers, directions, biases=biases, dtype=dtype)
    cell = {1: cells.rnn, 3: cells.gru_after, 4: cells.lstm}[gates]
    none, sides = np.zeros(gates * H), []
    for k in range(layers):
        ends = [f"_l{k}{end}" for end in ("", "_reverse")[:directions]]
        sides.append([(cell, Arrays(*(arrays.get(f"{part}{end}", none) for part in PARTS))) for end in ends])
    expected = outcome("torch", sides, inputs(dtype))
    assert_close(from_torch(arrays).forward(inputs(dtype)), expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("gates", "two"), [(1, False), (3, False), (3, True), (4, False)])
def test_weights_of_keras_compute_its_equations(gates, two, dtype):
    wx, wh, bias = keras_weights(gates, two=two, dtype=dtype)
    cell = {1: cells.rnn, 3: cells.gru_after if two else cells.gru, 4: cells.lstm}[gates]
    bx, bh = bias if two else (bias, np.zeros_like(bias))
    expected = outcome("keras", [[(cell, Arrays(wx, wh, bx, bh))]], inputs(dtype))
    assert_close(from_keras([wx, wh, bias]).forward(inputs(dtype)), expected)


# Round trips.


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("layers", "directions"), FORMS)
@pytest.mark.parametrize("kind", KINDS["keras"])
def test_layers_come_back_from_keras(kind, layers, directions, dtype):
    layer = built(kind, dtype, layers, directions)
    activation = "relu" if kind == "relu" else "tanh"
    assert_same_layer(from_keras(to_keras(layer), activation=activation), layer)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("layers", "directions"), FORMS)
@pytest.mark.parametrize("api", ["nnx", "linen"])
@pytest.mark.parametrize("kind", KINDS["flax"])
def test_layers_come_back_from_flax(kind, api, layers, directions, dtype):
    layer = built(kind, dtype, layers, directions)
    for one in getattr(layer, "recurrent", [layer]):
        if kind == "gru-after" and api == "nnx":
            one.params[3][...] = 0
    activation = "relu" if kind == "relu" else "tanh"
    actual = from_flax(to_flax(layer, api), activation=activation)
    if kind == "gru-after" and api == "nnx":
        assert repr(actual) == repr(layer)
        assert_same_bits(actual.forward(inputs(dtype)), layer.forward(inputs(dtype)))
    else:
        assert_same_layer(actual, layer)


def test_the_gates_of_an_own_cell_may_have_other_names():
    mine = Cell(compiled.lstm, ("forget", "new", "enter", "leave"), ("h", "c"), {}, name="mine", title="Mine")
    layer = mine.layer(D, H, rng=np.random.default_rng(0))
    made = from_keras(to_keras(layer))
    assert_same_bits(made.forward(inputs(np.float32)), layer.forward(inputs(np.float32)))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_array_that_is_not_finite_is_named(value):
    weights = keras_weights(4)
    weights[1][1, 2] = value
    with pytest.raises(
        ValueError, match=r"from_keras: recurrent_kernel of the layer must be finite, got .* at \[1, 2"
    ):
        from_keras(weights)
    layer = built("lstm", np.float32, 2, 2)
    layer.layers[1].layer_backward.params[2][3] = value
    with pytest.raises(
        ValueError, match=r"to_keras: b of layer 1 \(backwards\) must be finite, got .* at \[3\]"
    ):
        to_keras(layer)


# What a conversion says, and what it leaves alone.


def test_layers_are_on_copies_of_the_weights():
    given = state_dict(1)
    for array in given.values():
        array.flags.writeable = False
    layer = from_torch(given)
    assert not any(np.may_share_memory(p, a) for p in layer.params for a in given.values())
    made = to_keras(layer)
    flax = to_flax(layer)["cell"]
    written = [*made, flax["dense_i"]["kernel"], flax["dense_h"]["kernel"], flax["dense_i"]["bias"]]
    assert not any(np.may_share_memory(p, a) for p in layer.params for a in written)


def test_a_conversion_leaves_state_and_random_numbers_alone():
    stack = built("lstm", np.float64, 2, stateful=True, dropout=0.5)
    stack.forward(inputs(np.float64))
    state, drawn = stack.get_state(), stack.rng_state
    to_keras(stack)
    assert stack.rng_state == drawn
    for before, after in zip(state, stack.get_state(), strict=True):
        for one, other in zip(before, after, strict=True):
            assert_same_bits(one, other)


def test_dtype_converts_and_halves_need_it():
    wide = state_dict(4)
    assert from_torch(wide, dtype="float32").dtype == np.float32
    halves = {name: array.astype(np.float16) for name, array in wide.items()}
    with pytest.raises(TypeError, match=r"weight_ih_l0 must be float32 or float64, got float16; pass dtype="):
        from_torch(halves)
    layer = from_torch(halves, dtype=np.float32)
    assert layer.dtype == np.float32
    mixed = wide | {"bias_hh_l0": wide["bias_hh_l0"].astype(np.float32)}
    with pytest.raises(
        TypeError, match=r"bias_hh_l0 must be float64, .*, got float32; pass dtype=np.float64 "
    ):
        from_torch(mixed)
    assert from_torch(mixed, dtype=np.float64).dtype == np.float64


# Layers that a library does not have.


@pytest.mark.parametrize("library", ["keras", "flax nnx", "flax linen"])
def test_layers_without_a_counterpart_are_refused_by_name(library):
    convert, options = (to_keras, {}) if library == "keras" else (to_flax, {"api": library[5:]})
    owner, called = convert.__name__, "Keras" if library == "keras" else "Flax"
    for name, why in (
        ("peephole_lstm", f"{called} has no layer for the cell peephole_lstm, which lets its gates read the"),
        ("leaky", f"no layer of {called} is known to compute the cell leaky"),
    ):
        layer = getattr(cells, name).layer(D, H)
        with pytest.raises(ValueError, match=f"{owner}: {why}"):
            convert(layer, **options)
    if library != "keras":
        with pytest.raises(ValueError, match="has no layer for the cell gru, which resets the state before"):
            convert(built("gru-before", np.float32, 2, 2), **options)
    with pytest.raises(
        TypeError, match=f"{owner}: layers must be Recurrent or Bidirectional or Stack, got list"
    ):
        convert([TimeLSTM.from_sizes(2, 2)], **options)


def test_the_gru_of_nnx_has_no_recurrent_bias():
    layer = built("gru-after", np.float32)
    message = (
        "to_flax: flax nnx has no place for the recurrent bias bhh of a GRU, and it is not zero; PyTorch,"
    )
    with pytest.raises(ValueError, match=message):
        to_flax(layer)
    layer.params[3][...] = 0
    to_flax(layer)
    with pytest.raises(ValueError, match="to_flax: api must be one of nnx, linen, got 'jax'"):
        to_flax(layer, "jax")


def test_conversions_import_no_library():
    code = """
import sys, rnnfast
rnnfast.interop.from_keras, rnnfast.interop.from_flax, rnnfast.interop.from_torch
assert not {"torch", "keras", "flax", "jax"} & set(sys.modules)
sys.modules["torch"] = None
try:
    rnnfast.interop.to_torch(rnnfast.TimeRNN.from_sizes(2, 2))
except ModuleNotFoundError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "to_torch needs torch: pip install 'rnnfast[torch]'.\n"


# PyTorch by names.


def test_a_layer_is_found_in_the_state_dict_of_a_model():
    model = {"embed.weight": np.zeros((7, D)), **state_dict(4, 2, prefix="net.rnn."), "out.bias": np.zeros(2)}
    expected = from_torch(state_dict(4, 2))
    for prefix in ("", "net", "net.rnn", "net.rnn."):
        assert_same_layer(from_torch(model, prefix=prefix), expected)


def test_the_arrays_of_a_cell_have_no_number():
    arrays = {name.removesuffix("_l0"): array for name, array in state_dict(3).items()}
    assert_same_layer(from_torch(arrays), from_torch(state_dict(3)))


def test_an_rnn_in_a_state_dict_may_be_a_relu():
    assert from_torch(state_dict(1), nonlinearity="relu").activation == "relu"


def without(arrays, name):
    return {key: value for key, value in arrays.items() if key != name}


BOTH = {**state_dict(4, prefix="encoder."), **state_dict(4, prefix="decoder.")}
TWO = state_dict(4, 2)


@pytest.mark.parametrize(
    ("arrays", "options", "message"),
    [
        (BOTH, {}, "from_torch: found several recurrent layers: encoder, decoder; choose one with prefix=."),
        (
            BOTH,
            {"prefix": "en"},
            "from_torch: no recurrent layer found under en; expected an RNN, LSTM or GRU",
        ),
        ({"out.weight": np.zeros(2)}, {}, "from_torch: no recurrent layer found; expected"),
        (without(TWO, "weight_hh_l1"), {}, "from_torch: the array weight_hh_l1 is missing."),
        (without(TWO, "bias_hh_l0"), {}, "from_torch: the array bias_hh_l0 is missing."),
        (without(state_dict(4, 1, 2), "weight_ih_l0"), {}, "from_torch: the array weight_ih_l0 is missing."),
        (TWO | {"weight_ih_l900": np.zeros(2)}, {}, "from_torch: the array weight_ih_l0 is missing"),
        (TWO | {"weight_xx_l0": np.zeros(2)}, {}, "from_torch: weight_xx_l0 is an array too many;"),
        (TWO | {"weight_ih": np.zeros(2)}, {}, "from_torch: weight_ih is an array too many;"),
        (
            TWO | {"weight_hr_l0": np.zeros((2, H))},
            {},
            "from_torch: weight_hr_l0 is a projection (proj_size)",
        ),
        (TWO | {"bias_ih_l1": np.zeros(15)}, {}, "from_torch: bias_ih_l1 must be (16,), got (15,)"),
        (
            TWO | {"weight_ih_l1": np.zeros((16, 5))},
            {},
            "from_torch: weight_ih_l1 must be (16, 4), got (16, 5)",
        ),
        (TWO | {"weight_ih_l0": np.zeros(16)}, {}, "from_torch: weight_ih_l0 must be (16, D), got (16,)"),
        (
            TWO | {"weight_hh_l0": np.zeros((8, H))},
            {},
            "weight_hh_l0 must be (G*H, H) with 1, 3 or 4 gates G, got (8",
        ),
        (TWO, {"nonlinearity": "elu"}, "from_torch: nonlinearity must be one of tanh, relu, got 'elu'"),
        ([1], {}, "from_torch: source must be an object like torch.nn.LSTM or its state_dict, got [1]"),
        (TWO | {"bias_hh_l1": [0.0] * 16}, {}, "from_torch: bias_hh_l1 must be a NumPy array, got list"),
        (
            TWO | {"bias_hh_l1": np.zeros(16, int)},
            {},
            "from_torch: bias_hh_l1 must be float32 or float64, got int64.",
        ),
        (TWO, {"dtype": "float16"}, "from_torch: dtype must be float32 or float64"),
    ],
)
def test_what_is_no_recurrent_layer_of_pytorch_is_one_sentence(arrays, options, message):
    with pytest.raises((TypeError, ValueError)) as error:
        from_torch(arrays, **options)
    assert str(error.value).startswith(message) or message in str(error.value)


# Keras by lists and by objects.


def layer_of_keras(name, weights, **config):
    """An object with what is read of a layer of Keras."""
    usual = {"activation": "tanh", "go_backwards": False, "stateful": False}
    gates = {} if name == "SimpleRNN" else {"recurrent_activation": "sigmoid"}
    kind = type(
        name, (), {"get_weights": lambda self: weights, "get_config": lambda self: usual | gates | config}
    )
    return kind()


def bidirectional_of_keras(ahead, back, merge_mode="concat"):
    kind = type("Bidirectional", (), {"get_config": lambda self: {"merge_mode": merge_mode}})
    made = kind()
    made.forward_layer, made.backward_layer = ahead, back
    return made


@pytest.mark.parametrize("biases", [True, False])
def test_the_bias_of_a_gru_tells_where_it_resets(biases):
    before, after = keras_weights(3, biases=biases), keras_weights(3, biases=biases, two=True)
    assert from_keras(after).reset == "after"
    assert from_keras(before, reset_after=False).reset == "before"
    assert from_keras(before).reset == ("before" if biases else "after")


def test_options_of_keras_travel():
    layer = from_keras(layer_of_keras("SimpleRNN", keras_weights(1), activation="relu", stateful=True))
    assert (layer.activation, layer.stateful) == ("relu", True)
    assert keras_config(layer)["config"] | {"dtype": ""} == {
        "units": H,
        "activation": "relu",
        "return_sequences": True,
        "stateful": True,
        "go_backwards": False,
        "dtype": "",
    }
    unlike = [
        layer_of_keras("LSTM", keras_weights(4)),
        layer_of_keras("GRU", keras_weights(3), reset_after=False, go_backwards=True),
    ]
    both = from_keras(bidirectional_of_keras(*unlike))
    config = keras_config(both)["config"]
    assert [config[key]["class_name"] for key in ("layer", "backward_layer")] == ["LSTM", "GRU"]
    assert [config[key]["config"]["go_backwards"] for key in ("layer", "backward_layer")] == [False, True]
    assert config["backward_layer"]["config"]["reset_after"] is False
    assert_same_layer(from_keras([*keras_weights(4), *keras_weights(3)]), both)


def test_a_list_of_layers_of_keras_is_a_stack():
    above = [normal(np.random.default_rng(1), shape, np.float64) for shape in ((H, 12), (4, 12), (2, 12))]
    stack = from_keras([layer_of_keras("LSTM", keras_weights(4)), above])
    assert [type(one).__name__ for one in stack.layers] == ["TimeLSTM", "TimeGRU"]
    assert [one["class_name"] for one in keras_config(stack)] == ["LSTM", "GRU"]
    assert [one["class_name"] for one in keras_config(built("rnn", np.float32, 2, 2))] == [
        "Bidirectional"
    ] * 2


LSTM = keras_weights(4)


@pytest.mark.parametrize(
    ("weights", "options", "message"),
    [
        (
            [],
            {},
            "from_keras: the weights of the layer must be kernel, recurrent_kernel and perhaps bias, or",
        ),
        (LSTM[:1], {}, "from_keras: the weights of the layer must be kernel, recurrent_kernel"),
        ([LSTM, LSTM[:1]], {}, "from_keras: the weights of layer 1 must be kernel, recurrent_kernel"),
        ([LSTM[0], LSTM[1], np.zeros(15)], {}, "from_keras: bias of the layer must be (16,), got (15,)."),
        (
            [*LSTM, LSTM[0], LSTM[1], np.zeros(15)],
            {},
            "from_keras: bias of the layer (backwards) must be (16,)",
        ),
        ([LSTM[0][:, :8], *LSTM[1:]], {}, "from_keras: kernel of the layer must be (D, 16), got (3, 8)."),
        (
            [LSTM[0], LSTM[1][:, :8]],
            {},
            "from_keras: recurrent_kernel of the layer must be (H, G*H) with 1, 3 or 4",
        ),
        (
            keras_weights(3),
            {"reset_after": True},
            "must be (2, 12), got (12,); that of a GRU with reset_after=True.",
        ),
        (
            keras_weights(3, two=True),
            {"reset_after": False},
            "must be (12,), got (2, 12); that of a GRU with",
        ),
        (LSTM, {"activation": "elu"}, "from_keras: activation must be one of tanh, relu, got 'elu'."),
        (LSTM, {"stateful": 1}, "from_keras: stateful"),
        (
            [LSTM[0], LSTM[1], np.zeros(16, int)],
            {},
            "from_keras: bias of the layer must be float32 or float64, got int",
        ),
        (
            [LSTM, LSTM],
            {},
            "from_keras: the input size of layer 1 must be 4, what layer 0 puts out, got 3.",
        ),
        (
            [*LSTM, np.zeros((5, 16)), *LSTM[1:]],
            {},
            "from_keras: the input size of layer 0 (backwards) must be 3, the input size of the other",
        ),
        (
            3,
            {},
            "from_keras: the layer must be a SimpleRNN, LSTM, GRU or Bidirectional of Keras, or a list",
        ),
        (
            layer_of_keras("Dense", LSTM),
            {},
            "from_keras: the layer must be a SimpleRNN, LSTM, GRU or Bidirectional",
        ),
        (layer_of_keras("LSTM", []), {}, "got 0 arrays; a layer has them once it is built."),
        (
            layer_of_keras("LSTM", LSTM, activation="relu"),
            {},
            "from_keras: activation of the layer must be tanh, got 'relu'; no layer of rnnfast has that.",
        ),
        (
            [layer_of_keras("GRU", LSTM, recurrent_activation="hard_sigmoid")],
            {},
            "from_keras: recurrent_activation of layer 0 must be sigmoid, got 'hard_sigmoid'; no layer",
        ),
        (
            layer_of_keras("LSTM", LSTM, go_backwards=True),
            {},
            "from_keras: go_backwards must be False in the layer, got True; rnnfast reads forwards; convert",
        ),
        (
            bidirectional_of_keras(layer_of_keras("LSTM", LSTM), layer_of_keras("LSTM", LSTM)),
            {},
            "from_keras: go_backwards must be True in the layer (backwards), got False; as backward_layer of",
        ),
        (
            bidirectional_of_keras(layer_of_keras("LSTM", LSTM), layer_of_keras("LSTM", LSTM), "sum"),
            {},
            "from_keras: merge_mode of the layer must be concat, got 'sum'; no layer of rnnfast has that.",
        ),
    ],
)
def test_what_is_no_recurrent_layer_of_keras_is_one_sentence(weights, options, message):
    with pytest.raises((TypeError, ValueError)) as error:
        from_keras(weights, **options)
    assert message in str(error.value)


# Flax by names.


def linen(kind="gru-after", layers=1, directions=1, seed=0):
    return to_flax(built(kind, np.float64, layers, directions), "linen")


def nnx_of(made):
    """The mapping of `nnx.LSTMCell` from that of linen."""
    return {"if_" if name == "if" else name: part for name, part in made.items()}


@pytest.mark.parametrize("kind", KINDS["flax"])
def test_a_cell_is_found_in_wrappers_and_beside_what_is_no_array(kind):
    layer, cell = built(kind, np.float64), linen(kind)["cell"]
    options = {"activation": "relu"} if kind == "relu" else {}
    model = {
        "params": {"embed": {"embedding": np.zeros((3, 2))}, "RNN_0": {"cell": cell, "rngs": {"count": 0}}}
    }
    for params in (
        cell,
        {"cell": cell},
        model,
        types.MappingProxyType(model),
        [cell],
        {"x": {**cell, "rngs": {}}},
    ):
        assert_same_layer(from_flax(params, **options), layer)
    assert_same_layer(from_flax(nnx_of(cell), **options), layer)


def test_layers_of_a_list_or_a_sequential_are_a_stack():
    stack, made = built("lstm", np.float64, 3, 2), linen("lstm", 3, 2)
    parts = list(made.values())
    by_number = {"layers": dict(enumerate(parts)) | {7: {"rngs": {"count": 0}}}}
    backwards = {name: made[name] for name in reversed(made)}
    eleven = {f"layers_{3 * k + 1}": part for k, part in enumerate(parts)}  # 10 does not come before 4
    for params in (made, parts, by_number, backwards, eleven):
        assert_same_layer(from_flax(params), stack)


def test_directions_may_be_named_by_hand():
    both = linen("rnn", 1, 2)
    cells = {"SimpleCell_0": both["forward_rnn"]["cell"], "SimpleCell_1": both["backward_rnn"]["cell"]}
    with pytest.raises(
        ValueError, match=r"found several recurrent layers: SimpleCell_0, SimpleCell_1; pass one"
    ):
        from_flax(cells)
    named = {"forward_rnn": cells["SimpleCell_0"], "backward_rnn": cells["SimpleCell_1"]}
    assert_same_layer(from_flax(named), built("rnn", np.float64, 1, 2))


GRU, CELL = linen()["cell"], linen("lstm")["cell"]
NNX = to_flax(built("lstm", np.float64))["cell"]
KERNEL = {"kernel": np.zeros((H, H))}


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (
            {},
            "from_flax: no recurrent layer found; expected the parameters of an LSTM, GRU or",
        ),
        (3, "from_flax: no recurrent layer found;"),
        ([], "from_flax: no recurrent layer found;"),
        (without(CELL, "ho"), "from_flax: the array ho/kernel is missing."),
        ({"a": CELL | {"hf": KERNEL}}, "from_flax: the array a/hf/bias is missing."),
        ([GRU | {"in": KERNEL}], "from_flax: the array 0/in/bias is missing."),
        (CELL | {"ii": KERNEL | {"bias": np.zeros(H)}}, "from_flax: ii/bias is an array too many;"),
        (
            NNX | {"dense_i": {**NNX["dense_i"], "bias": np.zeros(16)}},
            "from_flax: dense_i/bias is an array too many;",
        ),
        (CELL | {"hx": KERNEL}, "from_flax: hx is an array too many;"),
        (CELL | {"ii": np.zeros(3)}, "from_flax: ii is an array too many;"),
        (CELL | {"hf": CELL["hf"] | {"scale": 1}}, "from_flax: hf/scale is an array too many;"),
        (
            CELL | {"hf": {"kernel": np.zeros((H, 5)), "bias": np.zeros(H)}},
            "from_flax: hf/kernel must be (4, 4), got",
        ),
        (
            CELL | {"hf": {"kernel": np.zeros((H, H)), "bias": np.zeros(5)}},
            "from_flax: hf/bias must be (4,), got (5,).",
        ),
        (CELL | {"ig": {"kernel": np.zeros((5, H))}}, "from_flax: ig/kernel must be (3, 4), got (5, 4)."),
        (
            NNX | {"dense_h": {"kernel": np.zeros((H, 8))}},
            "from_flax: dense_h/kernel must be (H, G*H) with 1, 3 or 4",
        ),
        (
            {"if": KERNEL, "in": KERNEL, "hf": KERNEL, "hn": KERNEL},
            "from_flax: the mapping is a MGUCell, which no",
        ),
        (
            {"layers_0": GRU, "layers_1": KERNEL, "layers_2": GRU},
            "from_flax: layers_1 is not a recurrent layer; pass",
        ),
        (
            {"forward_rnn": [], "encoder": GRU, "decoder": GRU},
            "found several recurrent layers: encoder, decoder;",
        ),
        (
            [GRU | {"hn": {"kernel": [[0.0]], "bias": np.zeros(H)}}],
            "from_flax: 0/hn/kernel must be a NumPy array",
        ),
    ],
)
def test_what_is_no_recurrent_layer_of_flax_is_one_sentence(params, message):
    with pytest.raises((TypeError, ValueError)) as error:
        from_flax(params)
    assert message in str(error.value)
