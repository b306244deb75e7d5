"""Weights in the forms of PyTorch, Keras and Flax, without these libraries: round trips and refusals."""

import subprocess
import sys
from itertools import chain

import numpy as np
import pytest
from cells import make
from helpers import DTYPES, assert_same_bits, normal
from interop_helpers import (
    FORMS,
    KINDS,
    QUIET,
    D,
    H,
    assert_close,
    assert_same_layer,
    built,
    inputs,
    keras_weights,
    state_dict,
)
from rnnfast.kernels.cell import built_in as compiled

from rnnfast import TimeLSTM, cells
from rnnfast.cells import Cell
from rnnfast.interop import formulas, from_flax, from_keras, from_torch, to_flax, to_keras
from rnnfast.interop.agreement import agree
from rnnfast.interop.layouts import LAYOUTS, Arrays, from_library, to_library
from rnnfast.interop.structure import parameters

CELL_OF_KIND = {
    "rnn": cells.rnn,
    "relu": cells.rnn_relu,
    "lstm": cells.lstm,
    "gru-before": cells.gru,
    "gru-after": cells.gru_after,
}


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


@pytest.mark.parametrize(
    ("library", "change"),
    [
        ("torch", {"gates": "iofg"}),
        ("torch", {"negated": "f"}),
        ("keras", {"gates": "fgio"}),
        ("flax nnx", {"gates": "igfo"}),
    ],
)
def test_a_wrong_layout_is_found_on_random_input(library, change, monkeypatch):
    convert = {
        "torch": lambda: from_torch(state_dict(4)),
        "keras": lambda: from_keras(keras_weights(4)),
        "flax nnx": lambda: to_flax(built("lstm", np.float64)),
    }[library]
    convert()
    wrong = LAYOUTS[library][cells.lstm]._replace(**change)
    monkeypatch.setitem(LAYOUTS[library], cells.lstm, wrong)
    with pytest.raises(ValueError, match=r"rnnfast and the equations of .* differ by .* on random input"):
        convert()


def test_the_sign_of_z_and_the_place_of_the_reset_matter(monkeypatch):
    wrong = LAYOUTS["keras"][cells.gru]._replace(negated="")
    monkeypatch.setitem(LAYOUTS["keras"], cells.gru, wrong)
    with pytest.raises(ValueError, match="differ by"):
        from_keras(keras_weights(3))
    after = dict(formulas.FORMULAS["keras"]) | {cells.gru_after: formulas.keras_gru_before}
    monkeypatch.setitem(formulas.FORMULAS, "keras", after)
    with pytest.raises(ValueError, match="differ by"):
        from_keras(keras_weights(3, two=True))


# Round trips.


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("layers", "directions"), FORMS)
@pytest.mark.parametrize("kind", KINDS["keras"])
def test_layers_come_back_from_keras(kind, layers, directions, dtype):
    layer = built(kind, dtype, layers, directions)
    activation = "relu" if kind == "relu" else "tanh"
    assert_same_layer(from_keras(to_keras(layer, **QUIET), activation=activation, **QUIET), layer)


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
    actual = from_flax(to_flax(layer, api, **QUIET), activation=activation, **QUIET)
    if kind == "gru-after" and api == "nnx":
        assert repr(actual) == repr(layer)
        assert_same_bits(actual.forward(inputs(dtype)), layer.forward(inputs(dtype)))
    else:
        assert_same_layer(actual, layer)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("biases", [True, False])
@pytest.mark.parametrize(("layers", "directions"), FORMS)
@pytest.mark.parametrize("gates", [1, 3, 4])
def test_a_state_dict_computes_pytorchs_equations(gates, layers, directions, biases, dtype):
    arrays = state_dict(gates, layers, directions, biases=biases, dtype=dtype)
    actual = from_torch(arrays, **QUIET).forward(inputs(dtype))
    step = {1: formulas.rnn, 3: formulas.gru, 4: formulas.lstm}[gates]
    xs = inputs(dtype).astype(np.float64)
    for k in range(layers):
        outputs = []
        for end, order in (("", 1), ("_reverse", -1))[:directions]:
            wx, wh = (arrays[f"weight_{part}_l{k}{end}"].T for part in ("ih", "hh"))
            none = np.zeros(gates * H)
            bx, bh = (arrays.get(f"bias_{part}_l{k}{end}", none) for part in ("ih", "hh"))
            fresh = (np.zeros((len(xs), H)),) * (2 if gates == 4 else 1)
            hs, _ = formulas.over_time(step, xs[:, ::order], fresh, Arrays(wx, wh, bx, bh))
            outputs.append(hs[:, ::order])
        xs = np.concatenate(outputs, -1)
    assert_close(actual, xs)


def test_the_gates_of_an_own_cell_may_have_other_names():
    mine = Cell(compiled.lstm, ("forget", "new", "enter", "leave"), ("h", "c"), {}, name="mine", title="Mine")
    layer = mine.layer(D, H, rng=np.random.default_rng(0))
    made = from_keras(to_keras(layer, **QUIET), **QUIET)
    assert_same_bits(made.forward(inputs(np.float32)), layer.forward(inputs(np.float32)))


@pytest.mark.parametrize("gates", [1, 3, 4])
def test_weights_that_multiply_rounding_are_compared_in_float64(gates, capsys):
    """With these, float32 itself is off by 1e-3 and more after a few steps."""
    rng, width = np.random.default_rng(0), 512
    shapes = {"weight_ih": (gates * width, D), "weight_hh": (gates * width, width)}
    shapes |= {"bias_ih": (gates * width,), "bias_hh": (gates * width,)}
    layer = from_torch({name: normal(rng, shape, np.float32) for name, shape in shapes.items()})
    assert " in float64 differ by at most " in capsys.readouterr().out
    assert layer.dtype == np.float32
    to_keras(layer)
    assert " in float64 differ by at most " in capsys.readouterr().out


@pytest.mark.parametrize("size", [1e-6, 1e-3, 1, 30])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_swapped_gate_is_found_whatever_the_size_of_the_weights(dtype, size, monkeypatch):
    wide = np.random.default_rng(0)
    shapes = ((D, 400), (100, 400), (400,))
    weights = [dtype(size) * normal(wide, shape, dtype) for shape in shapes]
    layer = from_keras(weights, **QUIET)
    wrong = LAYOUTS["keras"][cells.lstm]._replace(gates="figo")
    monkeypatch.setitem(LAYOUTS["keras"], cells.lstm, wrong)
    for convert in (lambda: from_keras(weights), lambda: to_keras(layer)):
        with pytest.raises(
            ValueError, match=r"differ by .* of the largest output on random input, more than"
        ):
            convert()


@pytest.mark.parametrize("gates", [1, 3, 4])
def test_large_weights_in_deep_stacks_are_converted(gates):
    """With these, float64 itself is off by 1e-4 and more after a few steps."""
    rng, width, weights = np.random.default_rng(0), 100, []
    for depth in (D, 2 * width, 2 * width):
        shapes = ((depth, gates * width), (width, gates * width), (gates * width,)) * 2
        weights.append([5 * normal(rng, shape, np.float64) for shape in shapes])
    made = to_keras(from_keras(weights, **QUIET), **QUIET)
    assert all(map(np.array_equal, chain(*made), chain(*weights)))


def test_the_limit_is_a_share_of_the_largest_output(capsys):
    small = np.full((2, 3, 4), 2.0**-10, np.float32)
    assert agree("mine", "yours", [small * np.float32(1 + 2.0**-20)], [small]) == 2.0**-20
    told = "mine: rnnfast and yours differ by at most 9.5e-07 of the largest output on random input\n"
    assert capsys.readouterr().out == told
    with pytest.raises(ValueError, match=r"mine: rnnfast and yours differ by 9.8e-04 of the largest output"):
        agree("mine", "yours", [small * np.float32(1 + 2.0**-10)], [small])


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


def test_a_conversion_prints_the_largest_difference(capsys):
    layer = from_torch(state_dict(1, 2))
    assert capsys.readouterr().out.startswith(
        "from_torch: rnnfast and the equations of torch.nn.RNN differ by at most "
    )
    to_keras(layer)
    assert "to_keras: rnnfast and the equations of keras.layers.SimpleRNN differ" in capsys.readouterr().out
    to_flax(layer, "linen", verbose=False)
    assert capsys.readouterr().out == ""


def test_layers_are_on_copies_of_the_weights():
    given = state_dict(1)
    for array in given.values():
        array.flags.writeable = False
    layer = from_torch(given, **QUIET)
    assert not any(np.may_share_memory(p, a) for p in layer.params for a in given.values())
    made = to_keras(layer, **QUIET)
    flax = to_flax(layer, **QUIET)["cell"]
    written = [*made, flax["dense_i"]["kernel"], flax["dense_h"]["kernel"], flax["dense_i"]["bias"]]
    assert not any(np.may_share_memory(p, a) for p in layer.params for a in written)


def test_a_conversion_leaves_state_and_random_numbers_alone():
    stack = built("lstm", np.float64, 2, stateful=True, dropout=0.5)
    stack.forward(inputs(np.float64))
    state, drawn = stack.get_state(), stack.rng_state
    to_keras(stack, **QUIET)
    assert stack.rng_state == drawn
    for before, after in zip(state, stack.get_state(), strict=True):
        for one, other in zip(before, after, strict=True):
            assert_same_bits(one, other)


def test_dtype_converts_and_halves_need_it():
    wide = state_dict(4)
    assert from_torch(wide, dtype="float32", **QUIET).dtype == np.float32
    halves = {name: array.astype(np.float16) for name, array in wide.items()}
    with pytest.raises(TypeError, match=r"weight_ih_l0 must be float32 or float64, got float16; pass dtype="):
        from_torch(halves)
    layer = from_torch(halves, dtype=np.float32, **QUIET)
    assert layer.dtype == np.float32
    mixed = wide | {"bias_hh_l0": wide["bias_hh_l0"].astype(np.float32)}
    with pytest.raises(
        TypeError, match=r"bias_hh_l0 must be float64, .*, got float32; pass dtype=np.float64 "
    ):
        from_torch(mixed)
    assert from_torch(mixed, dtype=np.float64, **QUIET).dtype == np.float64


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
    to_flax(layer, **QUIET)
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
