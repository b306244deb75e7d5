"""Weights from the layers of Keras and Flax and to them: outputs, arrays, options."""

import importlib
import os

import numpy as np
import pytest
from cell_cases import make
from helpers import DTYPES
from interop_helpers import (
    FORMS,
    KINDS,
    D,
    H,
    N,
    T,
    assert_close,
    assert_equal_trees,
    assert_same_layer,
    built,
    inputs,
    random_like,
)

from rnnfast import Bidirectional, Stack
from rnnfast.interop import from_flax, from_keras, keras_config, to_flax, to_keras

# Keras reads its variables in a way that NumPy 2 deprecates, and warns where it serializes a lambda.
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The object being serialized includes a `lambda`:UserWarning"),
]
forms = pytest.mark.parametrize(("layers", "directions"), FORMS)
dtypes = pytest.mark.parametrize("dtype", DTYPES)


def options_of(kind):
    """What of the cell the arrays do not tell."""
    return {"activation": "relu"} if kind == "relu" else {}


# Keras.


@pytest.fixture
def keras(monkeypatch):
    os.environ.setdefault("KERAS_BACKEND", "torch")
    found = pytest.importorskip("keras")
    # Keras multiplies matrices of float64 in float32, except with TensorFlow.
    narrowed = importlib.import_module("keras.src.backend.common.dtypes").BIT64_TO_BIT32_DTYPE
    monkeypatch.setitem(narrowed, "float64", "float64")
    return found


def keras_layer(keras, kind, dtype, size=D, directions=1, **options):
    """A layer with random numbers in all arrays."""
    if kind == "relu":
        options["activation"] = "relu"
    if kind == "gru-before":
        options["reset_after"] = False
    name = {"rnn": "SimpleRNN", "relu": "SimpleRNN", "lstm": "LSTM"}.get(kind, "GRU")
    made = getattr(keras.layers, name)(H, return_sequences=True, dtype=dtype.__name__, **options)
    if directions == 2:
        made = keras.layers.Bidirectional(made, dtype=dtype.__name__)
    made.build((N if options.get("stateful") else None, None, size))
    made.set_weights(random_like(made.get_weights(), dtype))
    return made


def summed(array):
    """The biases of z and r of a GRU in one of its two rows; other arrays as they are."""
    if array.shape != (2, 3 * H):
        return array
    made = array.copy()
    made[:, : 2 * H] = [array[:, : 2 * H].sum(0), np.zeros(2 * H)]
    return made


def run_keras(keras, layers, xs):
    for layer in layers:
        xs = layer(xs)
    return keras.ops.convert_to_numpy(xs)


@dtypes
@forms
@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize("kind", KINDS["keras"])
def test_layers_of_keras_compute_the_same_here(keras, kind, use_bias, layers, directions, dtype):
    sizes = [D, *[H * directions] * (layers - 1)]
    made = [keras_layer(keras, kind, dtype, size, directions, use_bias=use_bias) for size in sizes]
    layer = from_keras(made if layers > 1 else made[0])
    expected = run_keras(keras, made, inputs(dtype))
    assert_close(layer.forward(inputs(dtype)), expected)
    options = options_of(kind) | ({"reset_after": False} if kind == "gru-before" else {})
    lists = [one.get_weights() for one in made]
    assert_same_layer(from_keras(lists if layers > 1 else lists[0], **options), layer)
    if use_bias:
        weights = to_keras(layer)
        assert_equal_trees(
            weights if layers > 1 else [weights], [[summed(one) for one in both] for both in lists]
        )


@dtypes
@forms
@pytest.mark.parametrize("kind", KINDS["keras"])
def test_layers_compute_the_same_in_keras_and_come_back(keras, kind, layers, directions, dtype):
    layer = built(kind, dtype, layers, directions)
    configs, weights = keras_config(layer), to_keras(layer)
    if layers == 1:
        configs, weights = [configs], [weights]
    made = [keras.layers.deserialize(config) for config in configs]
    size = D
    for one, arrays in zip(made, weights, strict=True):
        one.build((None, None, size))
        one.set_weights(arrays)
        size = H * directions
    assert_close(layer.forward(inputs(dtype)), run_keras(keras, made, inputs(dtype)))
    assert_same_layer(from_keras(made if layers > 1 else made[0]), layer)


@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("kind", ["rnn", "lstm", "gru-after"])
def test_stateful_layers_of_keras_carry_their_state_here_too(keras, kind, directions):
    theirs = keras_layer(keras, kind, np.float32, D, directions, stateful=True)
    ours = from_keras(theirs)
    config = keras_config(ours)["config"]
    assert config.get("layer", {"config": config})["config"]["stateful"] is True
    for part in (inputs(np.float32), inputs(np.float32)[:, ::-1]):
        assert_close(ours.forward(part), run_keras(keras, [theirs], np.ascontiguousarray(part)))
    assert not from_keras(keras_layer(keras, kind, np.float32, D, directions)).stateful


def test_the_first_forget_bias_of_keras_is_in_the_bias(keras):
    for is_one in (True, False):
        theirs = keras.layers.LSTM(H, unit_forget_bias=is_one, return_sequences=True)
        theirs.build((None, None, D))
        layer = from_keras(theirs)
        np.testing.assert_array_equal(layer.params[2], np.repeat([float(is_one), 0.0], [H, 3 * H]))
        assert_close(layer.forward(inputs(np.float32)), run_keras(keras, [theirs], inputs(np.float32)))


def test_dropout_of_keras_acts_in_its_training_only(keras):
    theirs = keras_layer(keras, "gru-after", np.float32, dropout=0.5, recurrent_dropout=0.25)
    layer = from_keras(theirs)
    assert_close(layer.forward(inputs(np.float32)), run_keras(keras, [theirs], inputs(np.float32)))


def test_directions_of_keras_may_differ(keras):
    layer = Bidirectional(
        make("lstm", D, H, np.float32, stateful=False), make("gru-before", D, 5, np.float32, stateful=False)
    )
    theirs = keras.layers.deserialize(keras_config(layer))
    theirs.build((N, None, D))
    theirs.set_weights(to_keras(layer))
    assert_close(layer.forward(inputs(np.float32)), run_keras(keras, [theirs], inputs(np.float32)))
    assert_same_layer(from_keras(theirs), layer)


@pytest.mark.parametrize(
    ("make_layer", "message"),
    [
        (
            lambda layers: layers.LSTM(H, activation="relu"),
            "activation of the layer must be tanh, got 'relu'",
        ),
        (
            lambda layers: layers.GRU(H, recurrent_activation="hard_sigmoid"),
            "recurrent_activation of the layer must be sigmoid, got 'hard_sigmoid'",
        ),
        (
            lambda layers: layers.LSTM(H, go_backwards=True),
            "go_backwards must be False in the layer, got True",
        ),
        (
            lambda layers: layers.Bidirectional(layers.LSTM(H), merge_mode="ave"),
            "merge_mode of the layer must be concat, got 'ave'",
        ),
        (
            lambda layers: layers.LSTM(H, activation=lambda x: x),
            "activation of the layer must be tanh, got a function of your own; no layer of rnnfast",
        ),
        (
            lambda layers: layers.LSTM(H, activation=layers.LeakyReLU()),
            "activation of the layer must be tanh, got a LeakyReLU; no layer of rnnfast",
        ),
        (
            lambda layers: layers.Dense(H),
            "the layer must be a SimpleRNN, LSTM, GRU or Bidirectional of Keras",
        ),
    ],
)
def test_options_of_keras_without_a_counterpart_are_refused_by_name(keras, make_layer, message):
    theirs = make_layer(keras.layers)
    theirs.build((None, None, D))
    with pytest.raises((TypeError, ValueError), match="from_keras: ") as error:
        from_keras(theirs)
    assert message in str(error.value)
    with pytest.raises(ValueError, match="a layer has them once it is built"):
        from_keras(keras.layers.LSTM(H))


# Flax.


@pytest.fixture
def jax():
    pytest.importorskip("flax")
    import jax

    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield jax
    jax.config.update("jax_enable_x64", before)


few_forms = pytest.mark.parametrize(("layers", "directions"), [(1, 1), (2, 2), (3, 1)])  # each is compiled
FLAX_CELLS = ("OptimizedLSTMCell", "LSTMCell", "GRUCell", "SimpleCell")


def random_tree(jax, tree):
    leaves, form = jax.tree.flatten(tree)
    arrays = random_like(leaves, np.dtype(leaves[0].dtype).type)
    return jax.tree.unflatten(form, [jax.numpy.asarray(array) for array in arrays])


def wrapped(module, cell, layers, directions):
    """An RNN, a Bidirectional or a Sequential of nnx or linen; `cell(size)` makes a cell."""
    sizes = [D, *[H * directions] * (layers - 1)]
    made = [[module.RNN(cell(size)) for _ in range(directions)] for size in sizes]
    made = [module.Bidirectional(*both) if directions == 2 else both[0] for both in made]
    if layers == 1:
        return made[0]
    return module.Sequential(made) if module.__name__.endswith("linen") else module.Sequential(*made)


@dtypes
@few_forms
@pytest.mark.parametrize("name", FLAX_CELLS)
def test_modules_of_nnx_compute_the_same_here(jax, name, layers, directions, dtype):
    from flax import nnx

    rngs = nnx.Rngs(0)

    def cell(size):
        return getattr(nnx, name)(size, H, dtype=dtype, param_dtype=dtype, rngs=rngs)

    module = wrapped(nnx, cell, layers, directions)
    nnx.update(module, random_tree(jax, nnx.state(module, nnx.Param)))
    layer = from_flax(nnx.state(module))
    assert_close(layer.forward(inputs(dtype)), np.asarray(module(inputs(dtype))))
    pure = nnx.to_pure_dict(nnx.state(module, nnx.Param))
    assert_same_layer(from_flax(pure), layer)
    if name != "LSTMCell":  # whose numbers to_flax gives to OptimizedLSTMCell
        made = to_flax(layer)
        assert_equal_trees(made, jax.tree.map(np.asarray, pure))
        nnx.update(module, jax.tree.map(np.zeros_like, pure))
        nnx.update(module, made)
        assert_close(layer.forward(inputs(dtype)), np.asarray(module(inputs(dtype))))


@dtypes
@few_forms
@pytest.mark.parametrize("name", FLAX_CELLS)
def test_modules_of_linen_compute_the_same_here(jax, name, layers, directions, dtype):
    import flax.linen as nn

    module = wrapped(
        nn, lambda size: getattr(nn, name)(H, dtype=dtype, param_dtype=dtype), layers, directions
    )
    variables = random_tree(jax, module.init(jax.random.key(0), inputs(dtype)))
    layer = from_flax(variables["params"])
    assert_same_layer(from_flax(variables), layer)
    expected = np.asarray(module.apply(variables, inputs(dtype)))
    assert_close(layer.forward(inputs(dtype)), expected)
    made = to_flax(layer, "linen")
    assert jax.tree.structure(made) == jax.tree.structure(variables["params"])
    for one, other in zip(jax.tree.leaves(made), jax.tree.leaves(variables["params"]), strict=True):
        np.testing.assert_array_equal(one, other)
    assert np.array_equal(np.asarray(module.apply({"params": made}, inputs(dtype))), expected)


@dtypes
@pytest.mark.parametrize("api", ["nnx", "linen"])
@pytest.mark.parametrize("kind", KINDS["flax"])
def test_layers_compute_the_same_in_flax(jax, kind, api, dtype):
    import flax.linen as nn
    from flax import nnx

    layers = directions = 2
    layer = built(kind, dtype, layers, directions)
    if (kind, api) == ("gru-after", "nnx"):
        for one in getattr(layer, "recurrent", [layer]):
            one.params[3][...] = 0
    name = {"lstm": "OptimizedLSTMCell", "gru-after": "GRUCell"}.get(kind, "SimpleCell")
    options = {"dtype": dtype, "param_dtype": dtype}
    if kind == "relu":
        options["activation_fn"] = nnx.relu
    params, xs = to_flax(layer, api), inputs(dtype)
    if api == "linen":
        module = wrapped(nn, lambda size: getattr(nn, name)(H, **options), layers, directions)
        actual = module.apply({"params": params}, xs)
    else:
        rngs = nnx.Rngs(0)
        module = wrapped(
            nnx, lambda size: getattr(nnx, name)(size, H, rngs=rngs, **options), layers, directions
        )
        nnx.update(module, params)
        actual = module(xs)
    assert_close(layer.forward(xs), np.asarray(actual))


def test_cells_in_models_of_linen_are_found_by_name(jax):
    import flax.linen as nn

    class Model(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.RNN(nn.OptimizedLSTMCell(H))(x)
            x = nn.Bidirectional(nn.RNN(nn.GRUCell(H)), nn.RNN(nn.GRUCell(H)))(x)
            return nn.Dense(2)(x), x

    model = Model()
    variables = random_tree(jax, model.init(jax.random.key(0), inputs(np.float32)))
    params = variables["params"]
    with pytest.raises(ValueError, match=r"several recurrent layers: .*GRUCell_0, .*GRUCell_1"):
        from_flax(variables)
    both = {"forward_rnn": params["GRUCell_0"], "backward_rnn": params["GRUCell_1"]}
    layer = from_flax([params["OptimizedLSTMCell_0"], both])
    assert isinstance(layer, Stack)
    assert_close(layer.forward(inputs(np.float32)), np.asarray(model.apply(variables, inputs(np.float32))[1]))


def test_modules_of_flax_say_what_to_pass(jax):
    import flax.linen as nn
    from flax import nnx

    module = nnx.GRUCell(D, H, rngs=nnx.Rngs(0))
    with pytest.raises(TypeError, match=r"from_flax: params is a module; pass nnx\.state\(module\)\."):
        from_flax(module)
    with pytest.raises(TypeError, match=r"from_flax: 1 is a module; pass nnx\.state\(module\)\."):
        from_flax([nnx.state(module), module])
    with pytest.raises(TypeError, match=r'from_flax: params is a module; pass variables\["params"\]\.'):
        from_flax(nn.GRUCell(H))


def test_the_minimal_gated_unit_of_flax_is_refused(jax):
    import flax.linen as nn

    variables = nn.RNN(nn.MGUCell(H)).init(jax.random.key(0), np.ones((N, T, D), np.float32))
    with pytest.raises(
        ValueError, match="from_flax: params/cell is a MGUCell, which no layer of rnnfast computes"
    ):
        from_flax(variables)
