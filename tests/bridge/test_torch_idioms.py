"""What published programs do with `torch.nn.LSTM`, `GRU` and `RNN`, through each door of the bridge."""

import copy
import io
import subprocess
import sys

import pytest

torch = pytest.importorskip("torch")

from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence  # noqa: E402
from torch_helpers import CLASSES, DOORS, D, H, assert_close, gradients_of, through  # noqa: E402

import rnnfast.torch as bridge  # noqa: E402

HELD = dict(CLASSES)  # as a program holds them from its imports on
every_door = pytest.mark.parametrize("door", DOORS)
every_cell = pytest.mark.parametrize("cell", CLASSES)


# Classes.


class WithLengths(torch.nn.RNNBase):
    """A base class beside `torch.nn.LSTM`, as pytorch-forecasting has it."""

    def forward(self, x, hx=None, lengths=None, enforce_sorted=True):
        if isinstance(x, PackedSequence) or lengths is None:
            return super().forward(x, hx=hx)
        packed = pack_padded_sequence(x, lengths, self.batch_first, enforce_sorted)
        out, states = super().forward(packed, hx=hx)
        return pad_packed_sequence(out, self.batch_first)[0], states


@pytest.mark.parametrize("door", ["enable", "classes"])
@every_cell
def test_a_subclass_with_a_forward_of_its_own(door, cell):
    def program(classes, prepare):
        module = type("Own", (WithLengths, classes[cell]), {})(D, H, batch_first=True, dtype=torch.float64)
        x = torch.randn(3, 7, D, dtype=torch.float64)
        lengths = torch.tensor([2, 7, 4])
        return gradients_of(
            module, *module(x), *module(x, lengths=lengths, enforce_sorted=False), module(x[0])[0]
        )

    assert_close(*through(door, program))


def test_accelerate_leaves_a_subclass_with_a_forward_of_its_own_as_it_is():
    module, x = type("Own", (WithLengths, torch.nn.LSTM), {})(D, H), torch.randn(7, 3, D)
    expected = module(x, lengths=[7, 4, 2])[0]
    assert bridge.accelerate(module) == ([], {"": "Own has a forward of its own"})
    assert torch.equal(module(x, lengths=[7, 4, 2])[0], expected)


class Copied(torch.nn.RNNBase):
    """`torch.nn.LSTM` attribute by attribute, as torchrl has it."""

    def __init__(self, *arguments, **options):
        super().__init__("LSTM", *arguments, **options)


for _name in torch.nn.LSTM.__dict__:
    if _name not in Copied.__dict__:
        setattr(Copied, _name, getattr(torch.nn.LSTM, _name))


@pytest.mark.parametrize("door", ["enable", "accelerate"])
def test_a_copy_of_every_attribute_of_the_class(door):
    def program(classes, prepare):
        module = prepare(Copied(D, H, 2, batch_first=True, dtype=torch.float64))
        assert not isinstance(module, torch.nn.LSTM)
        return gradients_of(module, *module(torch.randn(3, 7, D, dtype=torch.float64)))

    assert_close(*through(door, program))


@every_cell
def test_classes_held_before_and_looked_up_by_name_are_served(cell):
    def program(classes, prepare):
        found = []
        for one in (HELD[cell], getattr(torch.nn, cell.upper()), getattr(torch.nn.modules.rnn, cell.upper())):
            module = one(D, H, dtype=torch.float64)
            assert type(module) == HELD[cell]  # noqa: E721
            found += gradients_of(module, *module(torch.randn(7, 3, D, dtype=torch.float64)))
        if bridge.is_enabled():
            assert sum(bridge.report().served.values()) == 3
        return found

    assert_close(*through("enable", program))


@every_door
def test_initializers_that_ask_for_the_class(door):
    def initialize(module):
        if "LSTM" in type(module).__name__ and isinstance(module, torch.nn.LSTM):
            for name, param in module.named_parameters():
                torch.nn.init.orthogonal_(param) if "weight" in name else torch.nn.init.ones_(param)

    def program(classes, prepare):
        model = torch.nn.Sequential(classes["lstm"](D, H, dtype=torch.float64))
        prepare(model)
        model.apply(initialize)
        return gradients_of(model, *model(torch.randn(7, 3, D, dtype=torch.float64)))

    assert_close(*through(door, program))


@pytest.mark.filterwarnings("ignore:torch.ao.quantization:DeprecationWarning", "ignore:.*quant")
@pytest.mark.parametrize("door", ["enable", "accelerate"])
def test_quantize_dynamic_gives_pytorch_s_own_answer(door):
    from torch.ao.nn.quantized import dynamic
    from torch.ao.quantization import quantize_dynamic

    def program(classes, prepare):
        model, x = torch.nn.ModuleDict({"rnn": classes["lstm"](D, H)}), torch.randn(7, 3, D)
        prepare(model)
        out = model["rnn"](x)[0]
        quantized = quantize_dynamic(model, {torch.nn.LSTM})
        assert type(quantized["rnn"]) is dynamic.LSTM
        assert torch.equal(model["rnn"](x)[0], out)
        return [quantized["rnn"](x)[0]]

    (actual,), (expected,) = through(door, program)
    assert torch.equal(actual, expected)


# Parameters.


@every_door
@every_cell
def test_parametrizations(door, cell):
    def program(classes, prepare):
        module = classes[cell](D, H, dtype=torch.float64)
        for name in ("weight_ih_l0", "weight_hh_l0"):
            torch.nn.utils.parametrizations.weight_norm(module, name)
        prepare(module)
        optimizer, found = torch.optim.SGD(module.parameters(), 0.1), []
        for _ in range(3):
            found += [one.clone() for one in gradients_of(module, *module(torch.randn(7, 3, D).double()))]
            optimizer.step()
        return found

    assert_close(*through(door, program))


@every_door
@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
def test_the_old_weight_norm(door):
    def program(classes, prepare):
        module = prepare(
            torch.nn.utils.weight_norm(classes["gru"](D, H, dtype=torch.float64), "weight_hh_l0")
        )
        optimizer, found = torch.optim.SGD(module.parameters(), 0.1), []
        for _ in range(3):
            found += [one.clone() for one in gradients_of(module, *module(torch.randn(7, 3, D).double()))]
            optimizer.step()
        torch.nn.utils.remove_weight_norm(module, "weight_hh_l0")
        return found + gradients_of(module, *module(torch.randn(7, 3, D).double()))

    assert_close(*through(door, program))


class WeightDrop(torch.nn.Module):
    """Dropout of a recurrent matrix, as in AWD-LSTM."""

    def __init__(self, module):
        super().__init__()
        self.module = module
        weight = module.weight_hh_l0
        del module._parameters["weight_hh_l0"]
        self.weight_raw = torch.nn.Parameter(weight.data)
        module.weight_hh_l0 = weight.data.clone()
        module.flatten_parameters = lambda: None

    def forward(self, *arguments):
        self.module.weight_hh_l0 = torch.nn.functional.dropout(self.weight_raw, 0.5, self.training)
        return self.module(*arguments)


@every_door
@every_cell
def test_weight_drop(door, cell):
    def program(classes, prepare):
        model, found = WeightDrop(classes[cell](D, H, dtype=torch.float64)), []
        prepare(model)
        for train in (True, True, False):
            model.train(train)
            found += [one.clone() for one in gradients_of(model, *model(torch.randn(7, 3, D).double()))]
        return found

    assert_close(*through(door, program))


@every_door
@every_cell
def test_functional_calls(door, cell):
    def program(classes, prepare):
        module, x = prepare(classes[cell](D, H, 2, dtype=torch.float64)), torch.randn(7, 3, D).double()
        others = {name: (2 * param.detach()).requires_grad_() for name, param in module.named_parameters()}
        out, _ = torch.func.functional_call(module, others, (x,))
        found = [out, *torch.autograd.grad(out.square().sum(), list(others.values()))]
        return found + gradients_of(module, *module(x))

    assert_close(*through(door, program))


@every_door
@every_cell
def test_lists_of_weights_and_flattening_before_each_call(door, cell):
    def program(classes, prepare):
        module, found = prepare(classes[cell](D, H, 2, bidirectional=True, dtype=torch.float64)), []
        assert module._flat_weights_names == [name for name, _ in module.named_parameters()]
        optimizer = torch.optim.SGD(module.parameters(), 0.1)
        for step in range(4):
            if step == 2:
                module.float().double()  # other memory, rounded
            module.flatten_parameters()
            x = torch.randn(7, 3, D).to(module.all_weights[0][0].dtype)
            found += [one.clone() for one in gradients_of(module, *module(x))]
            optimizer.step()
        listed = [param for layer in module.all_weights for param in layer]
        assert all(one is other for one, other in zip(listed, module.parameters(), strict=True))
        return found

    assert_close(*through(door, program))


@every_door
def test_slices_of_the_two_biases_are_written_and_packed_sequences_rebuilt(door):
    def program(classes, prepare):
        layers = torch.nn.ModuleList(
            [classes["lstm"](D, H, bidirectional=True), classes["lstm"](2 * H, H, bidirectional=True)]
        )
        layers.double()
        prepare(layers)
        x, found = torch.randn(7, 4, D).double(), []
        for value in (1.0, -2.0):
            with torch.no_grad():
                for layer in layers:
                    layer.bias_ih_l0[H : 2 * H] = value
                    layer.bias_hh_l0[H : 2 * H] = 0
                    layer.bias_hh_l0_reverse[:H].fill_(value)
            packed = pack_padded_sequence(x, [2, 7, 4, 1], enforce_sorted=False)
            states = []
            for layer in layers:
                packed, final = layer(packed)
                dropped = torch.nn.functional.dropout(packed.data, 0.3)
                packed = PackedSequence(
                    dropped, packed.batch_sizes, packed.sorted_indices, packed.unsorted_indices
                )
                states += final
            results = gradients_of(layers, pad_packed_sequence(packed)[0], *states)
            found += [one.clone() for one in results]
        return found

    assert_close(*through(door, program))


# Files.

LOADED = """
import sys, torch
module, x = torch.load(sys.argv[1], weights_only=False)
assert type(module["rnn"]) is torch.nn.LSTM
torch.save(module["rnn"](x)[0], sys.argv[1])
assert not any(name.startswith("rnnfast") for name in sys.modules)
"""


@pytest.mark.parametrize("door", ["enable", "accelerate"])
def test_files_of_whole_models_load_where_rnnfast_was_never_imported(door, tmp_path):
    def program(classes, prepare):
        model, x = (
            torch.nn.ModuleDict({"rnn": classes["lstm"](D, H, dtype=torch.float64)}),
            torch.randn(7, 3, D),
        )
        prepare(model)
        x = x.double()
        model["rnn"](x)[0].sum().backward()
        torch.save((model, x), tmp_path / "model")
        subprocess.run([sys.executable, "-c", LOADED, str(tmp_path / "model")], check=True, timeout=120)
        return [torch.load(tmp_path / "model").detach()]

    assert_close(*through(door, program))


@every_door
def test_twins_of_loaded_models_are_models_of_their_own(door):
    def program(classes, prepare):
        model, x = (
            torch.nn.ModuleDict({"rnn": classes["gru"](D, H, dtype=torch.float64)}),
            torch.randn(7, 3, D),
        )
        prepare(model)
        file, x = io.BytesIO(), x.double()
        torch.save(model, file)
        file.seek(0)
        loaded = torch.load(file, weights_only=False)
        if door == "accelerate":
            bridge.accelerate(loaded)
        twin = copy.deepcopy(loaded)
        with torch.no_grad():
            twin["rnn"].weight_hh_l0.zero_()
        return [one["rnn"](x)[0].detach() for one in (model, loaded, twin)]

    assert_close(*through(door, program))
