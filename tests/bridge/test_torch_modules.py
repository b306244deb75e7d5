"""`rnnfast.torch`: the subclasses, single models, and scripts."""

import copy
import io
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch_helpers import CLASSES, OURS, D, H, assert_close, everything, inputs_of, states_of  # noqa: E402

import rnnfast.torch as bridge  # noqa: E402


def pair(cell, *arguments, **options):
    """Our module and that of PyTorch, with the same parameters."""
    torch.manual_seed(0)
    ours = OURS[cell](*arguments, **options).double()
    torch.manual_seed(0)
    theirs = CLASSES[cell](*arguments, **options).double()
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(one, other)
    return ours, theirs


@pytest.mark.parametrize("cell", OURS)
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("lengths", [None, [3, 7, 1, 5, 7]], ids=["whole", "packed"])
def test_the_subclasses_are_those_of_pytorch(cell, batch_first, lengths):
    ours, theirs = pair(cell, D, H, 2, bidirectional=True, dropout=0.3, batch_first=batch_first)
    x, hx = inputs_of(theirs), states_of(theirs, 5)
    assert_close(everything(ours, x, hx, lengths), everything(theirs, x, hx, lengths))
    assert_close(everything(ours, x[0]), everything(theirs, x[0]))
    assert list(ours.state_dict()) == list(theirs.state_dict())
    theirs.load_state_dict(ours.state_dict())


@pytest.mark.parametrize("cell", OURS)
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_lengths_are_what_packing_is(cell, batch_first, bidirectional):
    ours, theirs = pair(cell, D, H, 2, bidirectional=bidirectional, batch_first=batch_first)
    lengths = [3, 7, 1, 5, 7]
    x, hx = inputs_of(theirs), states_of(theirs, 5)
    packed = torch.nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first, enforce_sorted=False)
    out, final = theirs(packed, hx)
    out = torch.nn.utils.rnn.pad_packed_sequence(out, batch_first)[0]
    for given in (lengths, np.array(lengths), torch.tensor(lengths)):
        actual, state = ours(x, hx, lengths=given)
        assert_close([actual, *state], [out, *final])
    ours(x, hx, lengths=lengths)[0].square().sum().backward()
    out.square().sum().backward()
    assert_close([param.grad for param in ours.parameters()], [param.grad for param in theirs.parameters()])


@pytest.mark.parametrize("cell", OURS)
@pytest.mark.parametrize("batch_first", [False, True])
def test_a_reset_begins_a_new_sequence(cell, batch_first):
    ours, theirs = pair(cell, D, H, batch_first=batch_first)
    x, hx = inputs_of(theirs), states_of(theirs, 5)
    resets = torch.zeros(5, 7, dtype=torch.bool)
    resets[2, 3] = resets[4, 0] = True
    out, final = ours(x, hx, resets=resets)
    ours.zero_grad()
    out.square().sum().backward()
    axis = 1 if batch_first else 0
    steps, state = [], hx
    for t, one in enumerate(x.split(1, axis)):
        kept = ~resets[:, t, None]
        state = tuple(part * kept for part in state) if cell == "lstm" else state * kept
        made, state = theirs(one, state)
        steps.append(made)
    expected = torch.cat(steps, axis)
    expected.square().sum().backward()
    assert_close([out, *final], [expected, *state])
    assert_close([param.grad for param in ours.parameters()], [param.grad for param in theirs.parameters()])


def test_resets_backwards_begin_behind_them():
    ours, _ = pair("gru", D, H, bidirectional=True, batch_first=True)
    x, resets = inputs_of(ours), torch.zeros(5, 7, dtype=torch.bool)
    resets[:, 3] = True
    out, _ = ours(x, resets=resets)
    parts = [ours(part)[0] for part in (x[:, :3], x[:, 3:])]
    assert_close([out], [torch.cat(parts, 1)])


def test_lengths_and_resets_are_refused_where_they_cannot_be():
    layer, x = bridge.GRU(D, H), torch.zeros(7, 5, D)
    packed = torch.nn.utils.rnn.pack_padded_sequence(x, [7] * 5)
    with pytest.raises(ValueError, match=r"^rnnfast\.torch\.GRU\.forward: a PackedSequence has"):
        layer(packed, lengths=[1] * 5)
    with pytest.raises(ValueError, match="lengths and resets need the kernels, which do not"):
        layer.half()(x.half(), lengths=[1] * 5)
    with pytest.raises(ValueError, match=r"rnnfast\.torch\.LSTM\.forward: lengths"):
        bridge.LSTM(D, H)(x, lengths=[8] * 5)
    for resets in (torch.zeros(5, 7), torch.zeros(7, 5, dtype=torch.bool)):
        with pytest.raises(
            (TypeError, ValueError), match=r"resets must (be bool|have the shape \(N, T\) = \(5, 7\))"
        ):
            bridge.LSTM(D, H)(x, resets=resets)


# One model.


def tagger():
    torch.manual_seed(0)
    return torch.nn.ModuleDict(
        {
            "embedding": torch.nn.Embedding(20, D),
            "lstm": torch.nn.LSTM(D, H, 2, bidirectional=True, batch_first=True),
            "head": torch.nn.Linear(2 * H, 3),
        }
    )


def scores(model, ids):
    return model["head"](model["lstm"](model["embedding"](ids))[0])


def test_accelerate_keeps_the_model_and_restore_gives_it_back():
    model, ids = tagger(), torch.randint(20, (4, 9))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    keys, expected = list(model.state_dict()), scores(model, ids)
    assert bridge.accelerate(model) == (["lstm"], {})
    assert bridge.accelerate(model) == (["lstm"], {})
    torch.testing.assert_close(scores(model, ids), expected)
    assert type(model["lstm"]) is torch.nn.LSTM
    assert list(model.state_dict()) == keys
    scores(model, ids).sum().backward()
    optimizer.step()
    changed = scores(model, ids)
    twin = copy.deepcopy(model)
    twin["lstm"].weight_hh_l0.data.zero_()
    torch.testing.assert_close(scores(model, ids), changed)
    assert not torch.allclose(scores(twin, ids), changed)
    assert bridge.restore(model) == ["lstm"]
    assert "forward" not in model["lstm"].__dict__
    torch.testing.assert_close(scores(model, ids), changed)


def test_files_of_an_accelerated_model_name_pytorch_only():
    model, file = tagger(), io.BytesIO()
    bridge.accelerate(model)
    torch.save(model, file)
    assert b"rnnfast" not in file.getvalue()
    assert b"rnnfast" not in pickle.dumps(model)
    loaded = pickle.loads(pickle.dumps(model))
    ids = torch.randint(20, (4, 9))
    torch.testing.assert_close(scores(loaded, ids), scores(model, ids))
    assert bridge.accelerate(loaded) == (["lstm"], {})


def test_what_is_no_model_is_refused():
    with pytest.raises(TypeError, match=r"^accelerate: expected a torch\.nn\.Module, got list\.$"):
        bridge.accelerate([torch.nn.GRU(D, H)])
    assert "proj_size" in bridge.accelerate(torch.nn.LSTM(D, H, proj_size=2)).left[""]


def test_accelerate_says_what_it_left():
    class Own(torch.nn.LSTM):
        def forward(self, x, lengths):
            return super().forward(x)[0] * lengths

    model = torch.nn.ModuleDict({"own": Own(D, H), "ours": bridge.GRU(D, H), "replaced": torch.nn.GRU(D, H)})
    model["replaced"].forward = lambda x: x
    assert bridge.accelerate(model).left == {
        "own": "Own has a forward of its own",
        "ours": "a class of rnnfast.torch needs no acceleration",
        "replaced": "its forward was replaced",
    }


# Scripts.

SCRIPT = """
import sys, torch
torch.manual_seed(0)
print(sys.argv[1:], __name__)
x = torch.randn(7, 5, 4)
module = torch.nn.LSTM(4, 6)
module(x)[0].sum().backward()
torch.nn.GRU(4, 6).half()(x.half())
"""


def run(*arguments, cwd, **environment):
    return subprocess.run(
        [sys.executable, "-m", "rnnfast.torch", *arguments],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )


def test_a_script_stays_as_it_is(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    done = run("script.py", "--rate", "1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "['--rate', '1'] __main__\n"
    assert done.stderr == ("rnnfast.torch: calls served: 1 lstm; left to PyTorch: 1 gru (dtype float16)\n")
    done = run("-m", "script", cwd=tmp_path, RNNFAST_VERBOSE="1")
    assert done.stdout == "[] __main__\n"
    assert "rnnfast.torch: lstm (7, 5, 4) served\n" in done.stderr
    assert "rnnfast.torch: gru (7, 5, 4) left to PyTorch: dtype float16\n" in done.stderr


def test_the_command_says_how_it_is_used(tmp_path):
    done = run(cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: python -m rnnfast.torch")
    done = run("--help", cwd=tmp_path)
    assert done.returncode == 0
    assert done.stdout.startswith("usage: python -m rnnfast.torch (script.py | -m module) [arguments]\n")
    assert done.stderr == ""
    done = run("none.py", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("rnnfast.torch: there is no file none.py; usage: ")


def test_an_older_pytorch_is_refused_in_one_sentence():
    code = "import torch; del torch.library.get_kernel; import rnnfast.torch"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    version = torch.__version__
    assert done.stderr.endswith(f"ImportError: rnnfast.torch needs PyTorch 2.9 or newer, got {version}.\n")
