"""`gradcheck` and `gradgradcheck` over the options of PyTorch's recurrent modules, in each form of input."""

import itertools

import pytest

torch = pytest.importorskip("torch")

from torch.nn.utils.rnn import pack_padded_sequence  # noqa: E402
from torch_helpers import CLASSES, OURS, tensors  # noqa: E402

import rnnfast.torch as bridge  # noqa: E402

WIDTH = 2
OPTIONS = [
    {"bias": bias, "num_layers": layers, "bidirectional": both, "batch_first": first}
    for bias, layers, both, first in itertools.product((True, False), (1, 2), (False, True), (False, True))
]
OPTIONS += [{"num_layers": 2, "dropout": 0.5}]
FORMS = ("padded", "packed", "unbatched", "lengths", "resets")


def function_of(module, form, batch=2, steps=3):
    """Outputs and final states, as a function of inputs, states and parameters, and values for these."""
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()

    directions = module.num_layers * (2 if module.bidirectional else 1)
    x = drawn(*((batch, steps) if module.batch_first else (steps, batch)), WIDTH)
    shape = directions, batch, WIDTH
    if form == "unbatched":
        x, shape = drawn(steps, WIDTH), (directions, WIDTH)
    states = [drawn(*shape) for _ in range(2 if module.mode == "LSTM" else 1)]
    names = [name for name, _ in module.named_parameters()]
    options = {
        "lengths": {"lengths": [2, 3]},
        "resets": {"resets": torch.tensor([[False, True, False], [False, False, True]])},
    }.get(form, {})

    def function(x, *others):
        torch.manual_seed(0)
        before = others[: len(states)]
        given = (
            pack_padded_sequence(x, [2, 3], module.batch_first, enforce_sorted=False)
            if form == "packed"
            else x
        )
        params = dict(zip(names, others[len(states) :], strict=True))
        hx = tuple(before) if len(before) > 1 else before[0]
        return tuple(tensors(*torch.func.functional_call(module, params, (given, hx), options)))

    params = [param.detach().clone().requires_grad_() for param in module.parameters()]
    return function, (x, *states, *params)


@pytest.mark.parametrize("cell", [*CLASSES, "relu"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("options", OPTIONS, ids=lambda one: ",".join(f"{k}={v}" for k, v in one.items()))
def test_gradients_and_their_gradients_are_differences(cell, form, options):
    torch.manual_seed(3)
    if cell == "relu":
        cell, options = "rnn", {**options, "nonlinearity": "relu"}
    makers = OURS if form in ("lengths", "resets") else CLASSES
    module = makers[cell](WIDTH, WIDTH, dtype=torch.float64, **options)
    function, leaves = function_of(module, form)
    with bridge.enable():
        assert torch.autograd.gradcheck(function, leaves, fast_mode=form != "padded")
        assert torch.autograd.gradgradcheck(function, leaves, fast_mode=True)
        assert not bridge.report().left
        assert bridge.report().served
