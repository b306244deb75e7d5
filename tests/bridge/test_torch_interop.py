"""Weights from PyTorch's modules and to them: outputs, arrays, options."""

import warnings

import numpy as np
import pytest
from cell_cases import make
from helpers import DTYPES, assert_same_bits
from interop_helpers import (
    FORMS,
    KINDS,
    D,
    H,
    assert_close,
    assert_equal_trees,
    assert_same_layer,
    built,
    inputs,
    random_like,
)

from rnnfast import Bidirectional, Stack, cells
from rnnfast.interop import from_torch, to_torch

forms = pytest.mark.parametrize(("layers", "directions"), FORMS)
dtypes = pytest.mark.parametrize("dtype", DTYPES)


torch = pytest.importorskip("torch")


def class_of(kind):
    """The name of a class of PyTorch, and its options."""
    name = {"rnn": "RNN", "relu": "RNN", "lstm": "LSTM", "gru-after": "GRU"}[kind]
    return name, {"nonlinearity": "relu"} if kind == "relu" else {}


def torch_module(kind, dtype, layers=1, directions=1, **options):
    """A module with random numbers in all arrays."""
    name, own = class_of(kind)
    module = getattr(torch.nn, name)(
        D,
        H,
        num_layers=layers,
        bidirectional=directions == 2,
        dtype=getattr(torch, dtype.__name__),
        **own,
        **options,
    )
    filled(module)
    return module


def filled(module):
    parameters = list(module.parameters())
    with torch.no_grad():
        for parameter, array in zip(parameters, random_like(parameters, np.float64), strict=True):
            parameter[...] = torch.from_numpy(array)


def run_torch(module, xs):
    with torch.no_grad():
        if not getattr(module, "batch_first", True):
            return module(torch.from_numpy(xs).transpose(0, 1))[0].transpose(0, 1).numpy()
        return module(torch.from_numpy(xs))[0].numpy()


@dtypes
@forms
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("kind", KINDS["torch"])
def test_modules_of_pytorch_compute_the_same_here(kind, batch_first, bias, layers, directions, dtype):
    module = torch_module(kind, dtype, layers, directions, bias=bias, batch_first=batch_first)
    layer = from_torch(module)
    expected = run_torch(module, inputs(dtype))
    assert_close(layer.forward(inputs(dtype)), expected)
    nonlinearity = "relu" if kind == "relu" else "tanh"
    for state in (module.state_dict(), {k: v.numpy() for k, v in module.state_dict().items()}):
        assert_same_layer(from_torch(state, nonlinearity=nonlinearity), layer)


@dtypes
@forms
@pytest.mark.parametrize("kind", KINDS["torch"])
def test_layers_compute_the_same_in_pytorch_and_come_back(kind, layers, directions, dtype):
    layer = built(kind, dtype, layers, directions)
    before = torch.get_rng_state()
    module = to_torch(layer)
    assert torch.equal(torch.get_rng_state(), before)
    assert module.training
    assert module.batch_first
    assert_close(layer.forward(inputs(dtype)), run_torch(module, inputs(dtype)))
    assert_same_layer(from_torch(module), layer)
    again = to_torch(from_torch(module))
    assert_equal_trees(dict(again.state_dict()), dict(module.state_dict()))
    xs = torch.from_numpy(inputs(dtype)).requires_grad_()
    module(xs)[0].sum().backward()  # it trains
    assert all(parameter.grad is not None for parameter in module.parameters())


@dtypes
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", KINDS["torch"])
def test_cells_of_pytorch_compute_the_same_here(kind, bias, dtype):
    name, options = class_of(kind)
    cell = getattr(torch.nn, f"{name}Cell")(D, H, bias=bias, dtype=getattr(torch, dtype.__name__), **options)
    filled(cell)
    layer = from_torch(cell)
    assert_same_layer(from_torch(cell.state_dict(), **options), layer)
    state, expected = None, []
    with torch.no_grad():
        for x in torch.from_numpy(inputs(dtype)).unbind(1):
            state = cell(x, state)
            expected.append((state[0] if name == "LSTM" else state).numpy())
    assert_close(layer.forward(inputs(dtype)), np.stack(expected, 1))


def test_dropout_travels_to_pytorch_and_back():
    module = to_torch(built("gru-after", np.float32, 3, dropout=0.25))
    assert module.dropout == 0.25
    stack = from_torch(module)
    assert [drop.dropout_ratio for drop in stack.dropouts] == [0.25] * 2
    assert to_torch(built("gru-after", np.float32)).dropout == 0
    locked = Stack(built("rnn", np.float32, 2).layers, 0.5, per_step=False)
    with pytest.raises(ValueError, match="to_torch: PyTorch draws a dropout mask for every step"):
        to_torch(locked)


@pytest.mark.parametrize("training", [False, True])
def test_dropout_is_on_or_off_as_it_was(training):
    stack = from_torch(torch_module("lstm", np.float32, 2).train(training))
    assert stack.train_flg is training
    assert to_torch(stack).training is training


def test_tensors_are_copied():
    module = torch_module("lstm", np.float32)
    layer = from_torch(module)
    expected = [param.copy() for param in layer.params]
    with torch.no_grad():
        for parameter in module.parameters():
            parameter *= 3
    for param, before in zip(layer.params, expected, strict=True):
        assert_same_bits(param, before)
    made = to_torch(layer)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter *= 3
    for param, before in zip(layer.params, expected, strict=True):
        assert_same_bits(param, before)


def test_the_recurrent_layer_of_a_model_is_found():
    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = torch.nn.Embedding(5, D)
            self.encoder = torch_module("relu", np.float64)
            self.head = torch.nn.ModuleDict({"cell": torch.nn.GRUCell(D, H)})

    model = Model()
    assert_same_layer(from_torch(model, prefix="encoder"), from_torch(model.encoder))
    assert_same_layer(from_torch(model, prefix="head"), from_torch(model.head["cell"]))
    with pytest.raises(ValueError, match=r"found several recurrent layers: encoder, head\.cell; choose one"):
        from_torch(model)
    with pytest.raises(ValueError, match="no recurrent layer found; expected an RNN, LSTM or GRU of PyTorch"):
        from_torch(torch.nn.Linear(2, 2))


def test_normalised_weights_are_read_as_they_are_used():
    module = torch.nn.LSTM(D, H)
    torch.nn.utils.parametrizations.weight_norm(module, "weight_hh_l0")
    assert_close(from_torch(module).forward(inputs(np.float32)), run_torch(module, inputs(np.float32)))


def test_modules_of_rnnfast_torch_are_read_like_those_of_pytorch():
    served = pytest.importorskip("rnnfast.torch")
    module = served.GRU(D, H, bidirectional=True)
    plain = torch.nn.GRU(D, H, bidirectional=True)
    plain.load_state_dict(module.state_dict())
    assert_same_layer(from_torch(module), from_torch(plain))


def test_modules_whose_weights_cannot_be_read_say_what_to_pass():
    module = torch.nn.LSTM(D, H)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # both are deprecated
        scripted = torch.jit.script(torch.nn.Sequential(module))
        small = torch.ao.quantization.quantize_dynamic(torch.nn.Sequential(module), {torch.nn.LSTM})
    with pytest.raises(
        TypeError, match=r"from_torch: source is a TorchScript module; pass its state_dict\(\)"
    ):
        from_torch(scripted)
    assert_same_layer(from_torch(scripted.state_dict()), from_torch(module))
    with pytest.raises(TypeError, match="source is a quantized module; pass what it was before quantization"):
        from_torch(small)
    with pytest.raises(ValueError, match="weight_ih_l0 is on the device meta, which holds no numbers; load"):
        from_torch(torch.nn.LSTM(D, H, device="meta"))


def test_what_pytorch_has_and_rnnfast_not_is_refused():
    with pytest.raises(ValueError, match=r"from_torch: weight_hr_l0 is a projection \(proj_size\)"):
        from_torch(torch.nn.LSTM(D, H, proj_size=2))
    with pytest.raises(TypeError, match="weight_ih_l0 must be float32 or float64, got bfloat16; pass dtype"):
        from_torch(torch.nn.GRU(D, H, dtype=torch.bfloat16))
    assert from_torch(torch.nn.GRU(D, H, dtype=torch.bfloat16), dtype="float32").dtype == np.float32


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (
            lambda: built("gru-before", np.float32),
            "PyTorch has no layer for the cell gru, which resets the state before",
        ),
        (
            lambda: cells.peephole_lstm.layer(D, H),
            "PyTorch has no layer for the cell peephole_lstm, which lets its",
        ),
        (
            lambda: cells.leaky.layer(D, H),
            "no layer of PyTorch is known to compute the cell leaky.",
        ),
        (
            lambda: Stack([make("rnn", D, H, np.float32), make("lstm", H, H, np.float32)]),
            "all layers of one torch.nn.RNN have the same cell, got lstm in layer 1 and rnn in layer 0;",
        ),
        (
            lambda: Stack([make("rnn", D, H, np.float32), make("relu", H, H, np.float32)]),
            "all layers of one torch.nn.RNN have the same cell, got relu in layer 1 and rnn in layer 0;",
        ),
        (
            lambda: Stack([make("rnn", D, H, np.float32), make("rnn", H, 5, np.float32)]),
            "all layers of one torch.nn.RNN have the same hidden size, got 5 in layer 1 and 4 in layer 0;",
        ),
        (
            lambda: Stack([built("lstm", np.float32, 1, 2), make("lstm", 2 * H, H, np.float32)]),
            "have the same number of directions, got 1 in layer 1 and 2 in layer 0;",
        ),
        (
            lambda: Bidirectional(make("lstm", D, H, np.float32), make("lstm", D, 5, np.float32)),
            "the same hidden size, got 5 in layer 0 (backwards) and 4 in layer 0;",
        ),
    ],
)
def test_what_one_module_of_pytorch_cannot_be_is_one_sentence(layer, message):
    with pytest.raises(ValueError, match="to_torch: ") as error:
        to_torch(layer())
    assert message in str(error.value)
