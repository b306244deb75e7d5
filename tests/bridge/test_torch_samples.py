"""PyTorch's own samples of its recurrent modules, through each door of the bridge."""

import copy

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("expecttest")  # PyTorch's samples need it

from torch.testing._internal.common_modules import module_db  # noqa: E402
from torch_helpers import CLASSES, OURS, tensors  # noqa: E402

import rnnfast.torch as bridge  # noqa: E402


def results(module, sample):
    """Outputs, final states and every gradient."""
    arguments = sample.forward_input.args
    given = list(tensors(*arguments))
    for tensor in given:
        if tensor.is_leaf:
            tensor.grad = None
    found = list(tensors(module(*arguments, **sample.forward_input.kwargs)))
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(one.shape, generator=generator, dtype=one.dtype) for one in found]
    sum((one * weight).mean() for one, weight in zip(found, weights, strict=True)).backward()
    gradients = [param.grad for param in module.parameters()]
    gradients += [tensor.grad.clone() for tensor in given if tensor.is_leaf and tensor.grad is not None]
    return [one.detach() for one in found] + gradients


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize("cell", CLASSES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("training", [True, False])
def test_every_sample_gives_the_same(cell, dtype, training):
    (info,) = (one for one in module_db if one.module_cls is CLASSES[cell])
    torch.manual_seed(0)
    samples = info.module_inputs_func(info, device="cpu", dtype=dtype, requires_grad=True, training=training)
    assert len(samples) >= 8
    for sample in samples:
        arguments, options = sample.constructor_input.args, sample.constructor_input.kwargs
        module = CLASSES[cell](*arguments, **options).to(dtype).train(training)
        accelerated = copy.deepcopy(module)
        bridge.accelerate(accelerated)
        ours = OURS[cell](*arguments, **options).to(dtype).train(training)
        ours.load_state_dict(module.state_dict())
        expected = results(module, sample)
        with bridge.enable():
            found = [results(copy.deepcopy(module), sample)]
        found += results(accelerated, sample), results(ours, sample)
        for one in found:
            torch.testing.assert_close(one, expected)
