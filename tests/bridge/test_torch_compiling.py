"""`rnnfast.torch.compile`: recurrent layers inside one graph."""

import copy
import io
import os
import random

import pytest

torch = pytest.importorskip("torch")

from torch_helpers import CLASSES, D, H, assert_close, everything, inputs_of, states_of, tensors  # noqa: E402

import rnnfast  # noqa: E402
import rnnfast.torch as bridge  # noqa: E402
from rnnfast.layers import plans  # noqa: E402
from rnnfast.torch import operators  # noqa: E402
from rnnfast.torch.compiling import LOWEST  # noqa: E402

if tuple(int(part) for part in torch.__version__.split(".")[:2]) < LOWEST:
    with pytest.raises(RuntimeError, match="needs PyTorch 2"):
        bridge.compile(torch.nn.GRU(2, 2))
    pytest.skip("the compiler of this PyTorch is too old", allow_module_level=True)

# The compiler's own words about itself.
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("fresh_compiler")]

OPTIONS = [
    {},
    {"batch_first": True, "num_layers": 2, "bidirectional": True},
    {"bias": False, "bidirectional": True},
    {"num_layers": 3, "batch_first": True},
]


@pytest.fixture
def fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize("cell", CLASSES)
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_outputs_states_and_gradients_are_pytorch_s(cell, options, backend):
    module = CLASSES[cell](D, H, dtype=torch.float64, **options)
    cases = [(inputs_of(module, batch), states_of(module, batch) if given else None)
             for batch, given in ((5, True), (5, False), (3, True), (8, True))]  # fmt: skip
    expected = [everything(module, *case) for case in cases]
    compiled = bridge.compile(module, backend=backend)
    for case, wanted in zip(cases, expected, strict=True):
        assert_close(everything(compiled, *case), wanted)
    with torch.no_grad():
        assert_close([compiled(*cases[0])[0]], expected[0][:1])


class Tagger(torch.nn.Module):
    """A random model: an input layer or words, recurrent layers with functions between them, an output."""

    def __init__(self, rng):
        super().__init__()
        width, self.axis = rng.choice([3, 5]), rng.choice([0, 1])
        self.words = torch.nn.Embedding(11, width) if rng.random() < 0.3 else None
        self.first = torch.nn.Linear(D, width)
        self.layers, self.between = (
            torch.nn.ModuleList(),
            rng.choice(["tanh", "relu", "layer_norm", "residual"]),
        )
        for _ in range(rng.randint(1, 3)):
            options = {"bidirectional": rng.random() < 0.4, "bias": rng.random() < 0.8}
            options |= {"num_layers": rng.randint(1, 2), "batch_first": self.axis == 0}
            cell = rng.choice([*CLASSES.values(), bridge.LSTM, bridge.GRU])
            self.layers.append(cell(width, rng.randint(2, 9), **options))
            width = self.layers[-1].hidden_size * (2 if options["bidirectional"] else 1)
        self.last, self.pooled = torch.nn.Linear(width, 2), rng.random() < 0.5

    def forward(self, x):
        h = self.first(x) if self.words is None else self.words(x[..., 0].abs().mul(3).long().clamp(max=10))
        for layer in self.layers:
            out, _ = layer(h)
            if self.between == "layer_norm":
                out = torch.nn.functional.layer_norm(out, out.shape[-1:])
            elif self.between == "residual" and out.shape == h.shape:
                out = out + h
            else:
                out = torch.tanh(out) if self.between == "tanh" else torch.relu(out)
            h = out
        h = self.last(h)
        return h.mean(1 - self.axis) if self.pooled else h


@pytest.mark.parametrize("seed", range(int(os.environ.get("RNNFAST_MODELS", "4"))))
def test_random_models_in_one_graph(seed):
    rng = random.Random(seed)
    torch.manual_seed(seed)
    model = Tagger(rng).double()
    compiled = bridge.compile(copy.deepcopy(model), backend=rng.choice(["eager", "aot_eager"]))
    for shape in ((4, 6, D), (2, 3, D)):
        x = torch.randn(shape, dtype=torch.float64)
        grads = []
        for one in (model, compiled):
            one.zero_grad()
            out = one(x)
            out.square().sum().backward()
            grads.append([out, *(p.grad if p.grad is not None else p * 0 for p in one.parameters())])
        assert_close(*grads)


@pytest.mark.parametrize("cell", CLASSES)
def test_unbatched_inputs(cell):
    module = CLASSES[cell](D, H, dtype=torch.float64)
    x = torch.randn(7, D, dtype=torch.float64)
    expected = module(x)[0]
    assert_close([bridge.compile(module, backend="aot_eager")(x)[0]], [expected])


def gradients(module, x, options):
    """Outputs, final states and gradients."""
    module.zero_grad()
    x = x.clone().requires_grad_()
    found = list(tensors(*module(x, **options)))
    sum(one.square().sum() for one in found).backward()
    return [*(one.detach() for one in found), x.grad, *(param.grad.clone() for param in module.parameters())]


@pytest.mark.parametrize("cell", CLASSES)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_lengths_and_resets_are_inputs_of_the_graph(cell, bidirectional):
    torch.manual_seed(0)
    module = getattr(bridge, cell.upper())(D, H, bidirectional=bidirectional, dtype=torch.float64)
    plain, x = copy.deepcopy(module), inputs_of(module)
    compiled = bridge.compile(module, backend="aot_eager")
    for seed in range(2):
        generator = torch.Generator().manual_seed(seed)
        lengths = torch.randint(1, 8, (5,), generator=generator)
        resets = torch.rand(5, 7, generator=generator) < 0.3
        for options in ({"lengths": lengths}, {"resets": resets}, {"lengths": lengths, "resets": resets}):
            assert_close(gradients(compiled, x, options), gradients(plain, x, options))


def test_a_model_with_other_layers_goes_through_the_default_backend():
    torch.manual_seed(0)

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.cell = torch.nn.Embedding(11, 8), torch.nn.LSTM(8, 16, batch_first=True)
            self.out = torch.nn.Linear(16, 11)

        def forward(self, ids):
            return self.out(self.cell(self.embedding(ids))[0].relu())

    model, ids = Model(), torch.randint(11, (4, 9))

    def gradients(used):
        model.zero_grad()
        torch.nn.functional.cross_entropy(used(ids).flatten(0, 1), ids.flatten()).backward()
        return [param.grad.clone() for param in model.parameters()]

    expected, compiled = gradients(model), bridge.compile(model)
    assert_close(gradients(compiled), expected, 1e-5)
    assert bridge.restore(model) == ["cell"]


@pytest.mark.parametrize("cell", CLASSES)
def test_gradients_taken_twice_where_blocks_are_made_again(cell, monkeypatch):
    monkeypatch.setattr(plans, "KEPT_BYTES", 0)
    module = CLASSES[cell](D, H, dtype=torch.float64)
    x = torch.randn(150, 20, D, dtype=torch.float64)
    params = list(module.parameters())
    expected = torch.autograd.grad(module(x)[0].square().sum(), params)
    loss = bridge.compile(module, backend="eager")(x)[0].square().sum()
    for _ in range(2):
        assert_close(torch.autograd.grad(loss, params, retain_graph=True), expected)


@pytest.mark.parametrize("cell", CLASSES)
def test_pytorch_s_own_check_of_operators(cell):
    module = CLASSES[cell](D, H)
    states = states_of(module, 2, torch.float32)
    states = [one[:1].requires_grad_() for one in (states if cell == "lstm" else (states,))]
    x = torch.randn(3, 2, D, requires_grad=True)
    name = module.mode.lower()
    arguments = (x, module._flat_weights, states, None, None, name, False, False, True)
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    assert set(torch.library.opcheck(operators.recurrence, arguments, test_utils=checks).values()) == {
        "SUCCESS"
    }


def test_gradients_of_gradients_are_an_error():
    module, x = torch.nn.GRU(D, H), torch.randn(3, 2, D)
    out = bridge.compile(module, backend="eager")(x)[0]
    (grad,) = torch.autograd.grad(out.sum(), [module.weight_hh_l0], create_graph=True)
    with pytest.raises(RuntimeError, match="autograd"):
        torch.autograd.grad(grad.sum(), [module.weight_hh_l0])


@pytest.mark.parametrize(
    ("layer", "why"),
    [
        (torch.nn.LSTM(3, 4, proj_size=2), "the kernels have no projections"),
        (bridge.LSTM(3, 4, proj_size=2), "the kernels have no projections"),
        (
            bridge.Recurrent(rnnfast.cells.gru, 3, 4),
            "use accelerate, or torch.nn.LSTM or GRU, instead of Recurrent",
        ),
    ],
)
def test_what_a_graph_cannot_hold_is_named_and_nothing_changes(layer, why):
    model = torch.nn.ModuleDict({"a": torch.nn.LSTM(3, 4), "b": layer, "c": torch.nn.GRU(3, 4)})
    bridge.accelerate(model["c"])
    with pytest.raises(ValueError, match=f"layer 'b' cannot be in the graph: {why}"):
        bridge.compile(model)
    assert "forward" not in model["a"].__dict__
    assert "forward" in model["c"].__dict__
    with pytest.raises(TypeError, match="got function"):
        bridge.compile(lambda x: x)


@pytest.mark.parametrize(
    "lengths", [[1], [7, 6, 5], [[7], [6], [5], [4], [3]], [8, 1, 1, 1, 1], [-1, 1, 1, 1, 1]]
)
@pytest.mark.parametrize("kind", [torch.int64, torch.float32])
def test_bad_lengths_are_refused_in_a_graph(lengths, kind):
    compiled = bridge.compile(bridge.GRU(D, H), backend="aot_eager")
    with pytest.raises((TypeError, ValueError), match="lengths must"):
        compiled(torch.zeros(7, 5, D), lengths=torch.tensor(lengths, dtype=kind))


@pytest.mark.parametrize("shape", [(7, 5), (2, 2), (5, 9), (5,)])
def test_bad_resets_are_refused_in_a_graph(shape):
    compiled = bridge.compile(bridge.GRU(D, H), backend="aot_eager")
    with pytest.raises(ValueError, match="resets must have the shape"):
        compiled(torch.zeros(7, 5, D), resets=torch.zeros(shape, dtype=torch.bool))
    with pytest.raises(TypeError, match="resets must be bool"):
        compiled(torch.zeros(7, 5, D), resets=torch.zeros(5, 7))


@pytest.mark.parametrize("cell", CLASSES)
def test_other_calls_of_the_same_shape_leave_the_tape_of_a_graph_alone(cell):
    torch.manual_seed(0)
    module, other = (CLASSES[cell](D, H, dtype=torch.float64) for _ in range(2))
    x, params = torch.randn(7, 5, D, dtype=torch.float64), list(module.parameters())
    expected = torch.autograd.grad(module(x)[0].square().sum(), params)
    compiled = bridge.compile(module, backend="aot_eager")
    bridge.accelerate(other)
    other(x)[0].sum().backward()
    loss = compiled(x)[0].square().sum()
    for _ in range(3):
        other(x + 1)[0].sum().backward()
    assert_close(torch.autograd.grad(loss, params), expected)


@pytest.mark.parametrize("cell", CLASSES)
def test_functional_calls_go_with_the_parameters_they_are_given(cell):
    module, x = CLASSES[cell](D, H), torch.randn(3, 2, D)
    own = {name: param.detach().clone() for name, param in module.named_parameters()}
    others = {name: torch.randn_like(param) for name, param in own.items()}

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.cell = module

        def forward(self, x, params):
            return torch.func.functional_call(self.cell, params, (x,))[0]

    expected = [torch.func.functional_call(module, params, (x,))[0] for params in (own, others)]
    compiled = bridge.compile(Model(), backend="aot_eager")
    assert_close([compiled(x, own), compiled(x, others)], expected, 1e-5)
    torch.func.functional_call(module, others, (x,))
    assert_close([bridge.compile(module, backend="aot_eager")(x)[0]], expected[:1], 1e-5)


@pytest.mark.parametrize("cell", CLASSES)
@pytest.mark.parametrize("first", [False, True])
def test_dropout_has_pytorch_s_masks_where_the_backend_has_its_generator(cell, first):
    module = CLASSES[cell](D, H, 3, dropout=0.4, batch_first=first, dtype=torch.float64)
    x = inputs_of(module)
    expected = everything(module, x)
    compiled = bridge.compile(module, backend="aot_eager")
    assert_close(everything(compiled, x), expected)
    compiled.eval()
    assert torch.equal(compiled(x)[0], compiled(x)[0])


def dtype_of(module, x):
    """The outputs' dtype, or the words of PyTorch's error: oneDNN has no bfloat16 LSTM without AVX-512."""
    try:
        return module(x)[0].dtype
    except RuntimeError as error:
        return str(error)


@pytest.mark.parametrize("cell", CLASSES)
def test_what_the_kernels_do_not_serve_is_pytorch_s_own_answer(cell):
    module, x = CLASSES[cell](D, H), torch.randn(7, 5, D)
    packed = torch.nn.utils.rnn.pack_sequence([torch.randn(4, D), torch.randn(2, D)])
    expected = module(packed)[0].data
    compiled = bridge.compile(module, backend="eager", fullgraph=False)
    with torch.no_grad():
        assert_close([compiled(packed)[0].data], [expected], 1e-5)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert dtype_of(compiled, x) == dtype_of(module, x)
    for shape in ((0, 5, D), (7, 5, D + 1), (2, 7, 5, D)):
        with pytest.raises(Exception):  # noqa: B017, PT011 - PyTorch's, in the words of its compiler
            compiled(torch.zeros(shape))
    with pytest.raises(Exception, match="lengths and resets need the kernels"):
        bridge.compile(bridge.GRU(D, H), backend="eager")(x.bfloat16(), lengths=[7] * 5)


class Twice(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.cell, self.other = torch.nn.GRU(D, D), torch.nn.GRU(D, D)
        self.other.weight_hh_l0 = self.cell.weight_hh_l0

    def forward(self, x):
        return self.other(self.cell(self.cell(x)[0])[0])[0]


def test_layers_used_twice_tied_copied_and_pickled():
    model, x = Twice(), torch.randn(3, 2, D)
    params = list(model.parameters())
    expected = torch.autograd.grad(model(x).square().sum(), params)
    compiled = bridge.compile(model, backend="aot_eager", dynamic=True)
    assert_close(torch.autograd.grad(compiled(x).square().sum(), params), expected, 1e-5)
    for again in (copy.deepcopy(compiled), torch.load(saved(compiled), weights_only=False)):
        torch._dynamo.reset()
        assert_close([again(x)], [model(x)], 1e-5)
        assert list(again.state_dict()) == list(compiled.state_dict())


def saved(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return file


@pytest.mark.parametrize("make", [torch.nn.LSTM, bridge.LSTM])
def test_exported_programs_hold_pytorch_s_own_operators(make):
    module, x = make(D, H), torch.randn(3, 2, D)
    if make is torch.nn.LSTM:
        bridge.accelerate(module)
    program = torch.export.export(module, (x,))
    assert "rnnfast" not in str(program.graph)
    file = io.BytesIO()
    torch.export.save(program, file)
    assert_close([program.module()(x)[0]], [module(x)[0]], 1e-5)


@pytest.mark.parametrize("cell", CLASSES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_signs_of_weights_changed_between_calls_are_seen(cell, dtype):
    module, x = CLASSES[cell](256, 512, dtype=dtype), torch.randn(3, 2, 256, dtype=dtype)
    plain, compiled = copy.deepcopy(module), bridge.compile(module, backend="eager")
    with torch.no_grad():
        for part in (slice(None), slice(2), (slice(None), 3)):
            before = [compiled(x)[0] for _ in range(2)]
            for one in (module, plain):
                one.weight_hh_l0[part].neg_()
            assert not torch.equal(compiled(x)[0], before[1])
            assert_close([compiled(x)[0]], [plain(x)[0]], 1e-5)
