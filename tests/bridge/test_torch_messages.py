"""Errors of the bridge name the wrong sizes and the fix."""

import pytest

torch = pytest.importorskip("torch")

from torch.nn.utils.rnn import pack_sequence  # noqa: E402

import rnnfast  # noqa: E402
import rnnfast.torch as bridge  # noqa: E402
from rnnfast.torch.compiling import LOWEST  # noqa: E402

N, T, D, H = 4, 6, 3, 5
X = torch.zeros(N, T, D)
KERNELS = "lengths and resets need the kernels, which do not serve "
STATE = torch.zeros(1, N, H)

REFUSED = [
    (bridge.LSTM(D, H, batch_first=True), (X[..., :2],), "input must be (N, T, 3), got (4, 6, 2)."),
    (bridge.GRU(D, H), (X[..., :2],), "input must be (T, N, 3), got (4, 6, 2)."),
    (bridge.GRU(D, H), (X[0, :, :2],), "input must be (T, 3), got (6, 2)."),
    (
        bridge.LSTM(D, H, batch_first=True),
        (X, STATE),
        "states must be a tuple (h, c), each (1, 4, 5), got Tensor (1, 4, 5).",
    ),
    (
        bridge.LSTM(D, H, batch_first=True),
        (X, (STATE, STATE[:, 1:])),
        "states must be a tuple (h, c), each (1, 4, 5), got tuple of (1, 4, 5), (1, 3, 5).",
    ),
    (
        bridge.GRU(D, H, batch_first=True, bidirectional=True),
        (X, STATE),
        "states must be a Tensor (2, 4, 5), got Tensor (1, 4, 5).",
    ),
    (bridge.GRU(D, H), (X[0], 3), "states must be a Tensor (1, 5), got int."),
    (
        bridge.GRU(D, H),
        (X.double(),),
        "input, states and parameters must have one dtype, got float64 and float32.",
    ),
    (
        bridge.GRU(D, H).half(),
        (X.half(),),
        KERNELS + "dtype float16; convert layer and input to float32, float64 or bfloat16.",
    ),
    (bridge.GRU(D, H), (X.to("meta"),), KERNELS + "device meta; move layer and input to the CPU."),
    (
        bridge.GRU(D, H),
        (X[:0],),
        KERNELS + "empty input (0, 6, 3); pass at least one sequence and one step.",
    ),
    (
        bridge.LSTM(D, H, proj_size=2),
        (X,),
        KERNELS + "proj_size; without resets, pass a PackedSequence, which PyTorch computes.",
    ),
]


@pytest.mark.parametrize(("layer", "arguments", "sentence"), REFUSED)
def test_calls_with_lengths_say_why_the_kernels_do_not_serve_them(layer, arguments, sentence):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        layer(*arguments, lengths=[1] * N)
    assert str(error.value) == f"rnnfast.torch.{type(layer).__name__}.forward: {sentence}"


def test_autocast_and_changed_parameters_are_named():
    layer = bridge.GRU(D, H)
    with torch.autocast("cpu", dtype=torch.bfloat16), pytest.raises(ValueError, match="autocast; call the"):
        layer(X, lengths=[1] * T)
    layer.bias_hh_l0 = torch.nn.Parameter(torch.zeros(2))
    with pytest.raises(ValueError, match="parameters do not have the shapes of input_size"):
        layer(X, lengths=[1] * T)


def test_unknown_arguments_are_those_of_rnnfast_torch():
    with pytest.raises(TypeError, match=r"^rnnfast\.torch: forward\(\) got an unexpected .* 'reset'"):
        bridge.LSTM(D, H)(X, reset=X)
    with pytest.raises(TypeError, match=r"^rnnfast\.torch\.Recurrent\.forward: .*; did you mean resets\?$"):
        bridge.Recurrent(rnnfast.cells.gru, D, H)(X, reset=X)


def test_a_recurrent_module_says_what_to_pass():
    module = bridge.Recurrent(rnnfast.cells.gru, D, H)
    owner = r"^rnnfast\.torch\.Recurrent\.forward: "
    with pytest.raises(
        TypeError, match=owner + r"states .* \(h,\), each \(num_layers, N, H\); got Tensor\.$"
    ):
        module(X, STATE)
    with pytest.raises(
        TypeError, match=owner + "input .* PackedSequence; pass the padded tensor with lengths=.$"
    ):
        module(pack_sequence([X[0]]))
    with pytest.raises(ValueError, match=owner + "lengths must be from 0 to 4"):
        module(X, lengths=[5] * T)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with pytest.raises(TypeError, match=r"; under autocast, pass input\.to\(torch\.float32\)\.$"):
            module(X.bfloat16())
        assert torch.equal(module(X)[0], module(X)[0])


def forward_mode(module):
    with torch.autograd.forward_ad.dual_level():
        module(torch.autograd.forward_ad.make_dual(X, X))


@pytest.mark.filterwarnings("ignore:.torch.jit.script")
@pytest.mark.parametrize(
    "use",
    [
        lambda module: torch.func.grad(lambda x: module(x)[0].sum())(X),
        lambda module: torch.func.vmap(lambda x: module(x)[0])(X[None]),
        lambda module: torch.export.export(module, (X,)),
        forward_mode,
    ],
)
def test_a_recurrent_module_refuses_transforms_in_one_sentence(use):
    with pytest.raises(RuntimeError) as error:
        use(bridge.Recurrent(rnnfast.cells.gru, D, H))
    assert str(error.value).startswith(
        "rnnfast.torch.Recurrent.forward: torch.func, forward mode, export and"
    )


def test_accelerate_names_cells_and_compile_takes_them():
    model = torch.nn.ModuleDict({"cell": torch.nn.LSTMCell(D, H), "layer": torch.nn.LSTM(D, H)})
    why = "cells run in PyTorch; use torch.nn.RNN, LSTM or GRU"
    assert bridge.accelerate(model) == (["layer"], {"cell": why})
    if tuple(int(part) for part in torch.__version__.split(".")[:2]) >= LOWEST:
        bridge.compile(model, backend="eager")


def test_numpy_layers_name_the_way_for_a_tensor():
    layer = rnnfast.TimeLSTM.from_sizes(D, H)
    with pytest.raises(
        TypeError, match=r"got Tensor; pass xs\.numpy\(\), or use a layer of rnnfast\.torch\.$"
    ):
        layer.forward(X)


def test_an_optimizer_of_pytorch_is_named_in_one_line():
    optimizer = torch.optim.Adam([torch.nn.Parameter(X)])
    with pytest.raises(TypeError) as error:
        rnnfast.Trainer(rnnfast.RNNLM(4, 3, 3), optimizer)
    assert str(error.value) == (
        "Trainer: optimizer must be an object like rnnfast.optim.SGD(), got torch.optim.adam.Adam."
    )
