"""What the tests of `rnnfast.torch` share: modules, inputs, doors, and all that a pass gives."""

import contextlib

import torch
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

import rnnfast.torch as bridge

CLASSES = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU, "rnn": torch.nn.RNN}
OURS = {"lstm": bridge.LSTM, "gru": bridge.GRU, "rnn": bridge.RNN}
DOORS = ["enable", "accelerate", "classes"]
D, H = 4, 6


def states_of(module, batch, dtype=torch.float64, seed=0):
    """Initial states, as the module takes them."""
    generator = torch.Generator().manual_seed(seed)
    shape = module.num_layers * (2 if module.bidirectional else 1), batch, module.hidden_size
    one, two = (torch.randn(shape, generator=generator, dtype=dtype) for _ in range(2))
    return (one, two) if module.mode == "LSTM" else one


def inputs_of(module, batch=5, steps=7, dtype=torch.float64, seed=1):
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, steps) if module.batch_first else (steps, batch)
    return torch.randn(*shape, module.input_size, generator=generator, dtype=dtype)


def tensors(*values):
    """Every tensor in nested tuples and packed sequences."""
    for value in values:
        if isinstance(value, PackedSequence):
            yield value.data
        elif isinstance(value, tuple):
            yield from tensors(*value)
        elif value is not None:
            yield value


def everything(module, x, hx=None, lengths=None, seed=3, **options):
    """Outputs, final states and every gradient of a pass, and the seed of dropout set before it."""
    module.zero_grad()
    x = x.clone().requires_grad_()
    leaves = [state.clone().requires_grad_() for state in tensors(hx)]
    given = (
        x if lengths is None else pack_padded_sequence(x, lengths, module.batch_first, enforce_sorted=False)
    )
    torch.manual_seed(seed)
    out, final = module(
        given, (tuple(leaves) if len(leaves) > 1 else leaves[0]) if leaves else None, **options
    )
    found = list(tensors(out, final))
    generator = torch.Generator().manual_seed(seed)
    weights = [torch.randn(one.shape, generator=generator, dtype=one.dtype) for one in found]
    sum((one * weight).sum() for one, weight in zip(found, weights, strict=True)).backward()
    gradients = [x.grad, *(leaf.grad for leaf in leaves), *(param.grad for param in module.parameters())]
    return [one.detach().clone() for one in (*found, *gradients)]


def gradients_of(module, *results):
    """The results, and the gradients of every parameter that the sum of their squares gives."""
    module.zero_grad()
    found = list(tensors(*results))
    sum(one.square().sum() for one in found).backward()
    return [one.detach() for one in found] + [param.grad for param in module.parameters()]


def assert_close(actual, expected, tolerance=1e-10):
    assert len(actual) == len(expected)
    for one, other in zip(actual, expected, strict=True):
        assert one.shape == other.shape
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


def through(door, program):
    """What `program(classes, prepare)` gives with PyTorch alone, and through a door.

    The program makes its modules of `classes` and passes each through `prepare`.
    """
    torch.manual_seed(0)
    expected = program(CLASSES, same)
    torch.manual_seed(0)
    before = sum(bridge.report().served.values())
    with bridge.enable() if door == "enable" else contextlib.nullcontext():
        if door == "enable":
            before = 0  # it counts anew
        actual = program(
            OURS if door == "classes" else CLASSES, accelerated if door == "accelerate" else same
        )
        assert sum(bridge.report().served.values()) > before
    return actual, expected


def same(module):
    return module


def accelerated(module):
    assert bridge.accelerate(module).done
    return module
