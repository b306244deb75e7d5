"""PyTorch's recurrent operators on the kernels, switched on in the dispatcher."""

import contextlib
import copy
import itertools
import threading

import pytest

torch = pytest.importorskip("torch")

from torch_helpers import CLASSES, D, H, assert_close, everything, inputs_of, states_of  # noqa: E402

import rnnfast.torch as bridge  # noqa: E402

OPTIONS = [
    dict(zip(("bias", "num_layers", "bidirectional", "batch_first", "dropout"), values, strict=True))
    for values in itertools.product((True, False), (1, 3), (False, True), (False, True), (0.0, 0.4))
    if values[1] > 1 or not values[4]
]


@pytest.fixture(autouse=True)
def off_at_the_end():
    yield
    bridge.disable()


@pytest.mark.parametrize("cell", [*CLASSES, "relu"])
@pytest.mark.parametrize("lengths", [None, [3, 7, 1, 5, 7], [7] * 5], ids=["whole", "packed", "packed whole"])
def test_every_option_gives_what_pytorch_gives(cell, lengths):
    for options in OPTIONS:
        more = {"nonlinearity": "relu"} if cell == "relu" else {}
        module = CLASSES.get(cell, torch.nn.RNN)(D, H, **options, **more).double()
        x, hx = inputs_of(module), states_of(module, 5)
        expected = everything(module, x, hx, lengths)
        with bridge.enable():
            actual = everything(module, x, hx, lengths)
            assert not bridge.report().left
            assert sum(bridge.report().served.values()) == 1
        assert_close(actual, expected)


@pytest.mark.parametrize("cell", CLASSES)
def test_float32_and_inputs_without_a_batch(cell):
    module = CLASSES[cell](D, H, 2, bidirectional=True)
    x, hx = inputs_of(module, dtype=torch.float32), states_of(module, 5, torch.float32)
    expected = everything(module, x, hx), everything(module, x[:, 0], None)
    with bridge.enable():
        actual = everything(module, x, hx), everything(module, x[:, 0], None)
        assert not bridge.report().left
    for one, other in zip(actual, expected, strict=True):
        assert_close(one, other, 1e-5)


@pytest.mark.parametrize("cell", CLASSES)
@pytest.mark.parametrize("bias", [True, False])
def test_gradients_can_be_differentiated_again(cell, bias):
    """The trap of every such bridge: a second derivative that is wrong without an error."""
    module = CLASSES[cell](2, 3, 2, bidirectional=True, bias=bias).double()
    x, hx = inputs_of(module, 2, 3).requires_grad_(), states_of(module, 2)
    names = [name for name, _ in module.named_parameters()]

    def of(x, *params):
        out, final = torch.func.functional_call(module, dict(zip(names, params, strict=True)), (x, hx))
        return out, *(final if isinstance(final, tuple) else (final,))

    with bridge.enable():
        leaves = (x, *(param.detach().clone().requires_grad_() for param in module.parameters()))
        assert torch.autograd.gradcheck(of, leaves)
        assert torch.autograd.gradgradcheck(of, leaves)
        assert not bridge.report().left


@pytest.mark.parametrize("cell", CLASSES)
def test_a_penalty_on_gradients_of_packed_sequences(cell):
    module = CLASSES[cell](D, H, bidirectional=True).double()

    def penalty():
        x = inputs_of(module).requires_grad_()
        packed = torch.nn.utils.rnn.pack_padded_sequence(x, [2, 7, 4, 1, 5], enforce_sorted=False)
        (dx,) = torch.autograd.grad(module(packed)[0].data.square().sum(), x, create_graph=True)
        module.zero_grad()
        dx.square().sum().backward()
        return [x.grad, *(param.grad.clone() for param in module.parameters())]

    expected = penalty()
    with bridge.enable():
        assert_close(penalty(), expected)


def test_after_disable_the_dispatcher_is_as_before():
    module = torch.nn.LSTM(D, H)
    x = inputs_of(module, dtype=torch.float32)
    before = torch._C._dispatch_dump("aten::lstm.input"), module(x)[0]
    with bridge.enable() as enabled:
        assert bridge.is_enabled()
        assert repr(enabled) == "rnnfast.torch is enabled"
        assert torch._C._dispatch_dump("aten::lstm.input") != before[0]
        with bridge.enable():
            module(x)
        assert bridge.is_enabled()
    assert not bridge.is_enabled()
    assert torch._C._dispatch_dump("aten::lstm.input") == before[0]
    assert torch.equal(module(x)[0], before[1])


def autocast(module, x):
    with torch.autocast("cpu", torch.bfloat16):
        return module(x)[0]


def functional(module, x):
    return torch.func.grad(lambda one: module(one)[0].square().sum())(x)


def forward_mode(module, x):
    with torch.autograd.forward_ad.dual_level():
        return module(torch.autograd.forward_ad.make_dual(x, torch.ones_like(x)))[0]


def answer(use, module, x):
    """The outputs, or the words of PyTorch's error: oneDNN has no bfloat16 LSTM without AVX-512."""
    try:
        return use(module, x)
    except RuntimeError as error:
        return str(error)


@pytest.mark.parametrize(
    ("made", "use", "why"),
    [
        (lambda: torch.nn.GRU(D, H).half(), lambda m, x: m(x.half())[0], "dtype float16"),
        (lambda: torch.nn.LSTM(D, H, proj_size=2), lambda m, x: m(x)[0], "proj_size"),
        (lambda: torch.nn.LSTM(D, H), autocast, "autocast"),
        (lambda: torch.nn.RNN(D, H), functional, "torch.func transform"),
        (lambda: torch.nn.GRU(D, H), forward_mode, "forward-mode differentiation"),
        (lambda: torch.nn.GRU(D, H), lambda m, x: m(x[:, :0])[0], "empty input"),
    ],
    ids=["float16", "projections", "autocast", "func.grad", "forward mode", "no sequences"],
)
@pytest.mark.filterwarnings("ignore:LSTM with projections", "ignore:.torch.jit.script")
def test_what_is_not_served_is_pytorch_s_own_answer(made, use, why):
    module, x = made(), torch.randn(7, 5, D)
    expected = answer(use, module, x)
    with bridge.enable():
        actual = answer(use, module, x)
        found = bridge.report()
    assert torch.equal(actual, expected) if torch.is_tensor(expected) else actual == expected
    assert not found.served
    assert {reason for _, reason in found.left} == {why}
    assert why in str(found)


def test_errors_are_pytorch_s_own():
    module, weights = torch.nn.GRU(D, H), [torch.randn(3 * H, D), torch.randn(3 * H, H)]
    calls = (
        lambda: module(torch.randn(7, 5, D + 1)),
        lambda: module(torch.randn(7, 5, D), torch.randn(1, 4, H)),
        lambda: torch.gru(
            torch.randn(7, 5, D), torch.randn(1, 3, H), weights, False, 1, 0.0, True, False, False
        ),
    )
    for call in calls:
        with pytest.raises(RuntimeError) as expected:
            call()
        with bridge.enable(), pytest.raises(RuntimeError) as actual:
            call()
        assert str(actual.value) == str(expected.value)


# As training programs use it.


@pytest.mark.parametrize("cell", CLASSES)
def test_several_calls_before_the_first_backward_and_two_backwards_of_one(cell):
    def gradients():
        torch.manual_seed(0)
        module = CLASSES[cell](D, D, 2, batch_first=True)
        x = torch.randn(3, 9, D)
        once = module(x)[0]
        loss = (module(once)[0] + once).square().sum()
        loss.backward(retain_graph=True)
        loss.backward()
        with pytest.raises(RuntimeError, match="second time"):
            loss.backward()
        return [param.grad for param in module.parameters()]

    expected = gradients()
    with bridge.enable():
        assert_close(gradients(), expected, 1e-5)


@pytest.mark.parametrize("cell", CLASSES)
@pytest.mark.parametrize("name", ["weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0", "x"])
def test_what_changes_in_place_before_backward_is_an_error(cell, name):
    """Of biases, too, which PyTorch's GRU and RNN do not read in their backward passes."""
    module, x = CLASSES[cell](D, H), torch.randn(7, 5, D)
    with bridge.enable():
        out = module(x)[0].sum()
        with torch.no_grad():
            (x if name == "x" else getattr(module, name)).add_(1)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            out.backward()


def test_tensors_that_the_kernels_do_not_serve_are_pytorch_s_own():
    """Of the device meta, complex and in float16."""
    for device, dtype in (("meta", torch.float32), ("cpu", torch.complex64), ("cpu", torch.float16)):
        for cell in CLASSES:
            module = CLASSES[cell](D, H, device=device, dtype=dtype)
            x = torch.randn(7, 5, D, device=device).to(dtype)
            results = []
            for enabled in (False, True):
                with bridge.enable() if enabled else contextlib.nullcontext():
                    try:
                        out, _ = module(x)
                        results.append(
                            (out.device.type, out.dtype, out.shape, None if device == "meta" else out)
                        )
                    except (RuntimeError, NotImplementedError) as error:
                        results.append(str(error))
            theirs, ours = results
            assert str(theirs) == str(ours), (device, dtype, cell)
    with torch.device("meta"), bridge.enable():
        assert torch.nn.LSTM(D, H)(torch.randn(7, 5, D))[0].shape == (7, 5, H)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_gradients(mode):
    module, x = torch.nn.LSTM(D, H, 2), torch.randn(7, 5, D)
    with mode():
        expected = module(x)[0]
        with bridge.enable():
            actual = module(x)[0]
            assert bridge.report().served == {"lstm": 1}
    torch.testing.assert_close(actual, expected)


def test_a_training_run_has_the_same_losses():
    def losses():
        torch.manual_seed(0)
        model = torch.nn.LSTM(D, H, 2, dropout=0.3, batch_first=True)
        head = torch.nn.Linear(H, 1)
        params = [*model.parameters(), *head.parameters()]
        optimizer = torch.optim.Adam(params, 1e-2)
        found = []
        for _ in range(30):
            x = torch.randn(6, 11, D)
            loss = (head(model(x)[0][:, -1]) - x.mean((1, 2))[:, None]).square().mean()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(params, 1.0)
            optimizer.step()
            found.append(loss.item())
        return found

    expected = losses()
    with bridge.enable():
        actual = losses()
    assert actual == pytest.approx(expected, rel=1e-4)


def test_threads_train_models_of_their_own():
    def gradients(seed):
        generator = torch.Generator().manual_seed(seed)
        module = copy.deepcopy(shared)
        for _ in range(20):
            module.zero_grad()
            module(torch.randn(7, 5, D, generator=generator))[0].square().sum().backward()
        return [param.grad for param in module.parameters()]

    shared = torch.nn.LSTM(D, H)
    expected = [gradients(seed) for seed in range(4)]
    found = {}
    with bridge.enable():
        threads = [
            threading.Thread(target=lambda seed=seed: found.update({seed: gradients(seed)}))
            for seed in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for seed, one in enumerate(expected):
        assert_close(found[seed], one, 1e-4)


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # PyTorch 2.15's own
def test_torch_compile_runs_with_its_graph_break():
    module, x = torch.nn.GRU(D, H), torch.randn(7, 5, D)
    expected = module(x)[0]
    with bridge.enable():
        actual = torch.compile(lambda one: module(one)[0] * 1.0, backend="eager")(x)
        torch.testing.assert_close(actual, expected)
        assert bridge.report().served


@pytest.mark.parametrize("cell", CLASSES)
@pytest.mark.parametrize("depth", [1, 16, 40])
def test_parameters_have_the_same_gradients_where_inputs_have_none(cell, depth):
    module = CLASSES[cell](depth, 24, num_layers=2)
    x = torch.randn(6, 3, depth)

    def gradients(wanted):
        module.zero_grad()
        given = x.clone().requires_grad_(wanted)
        module(given)[0].square().sum().backward()
        assert (given.grad is not None) is wanted
        return [param.grad.clone() for param in module.parameters()]

    expected = gradients(True)
    with bridge.enable():
        with_them, without = gradients(True), gradients(False)
    assert_close(with_them, expected, 1e-4)
    for one, other in zip(with_them, without, strict=True):
        assert torch.equal(one, other)
        assert one.is_contiguous()
