"""The file format: what the safetensors library writes and reads, in no more memory than the arrays have."""

import json
import os
import subprocess
import sys
import zlib

import numpy as np
import pytest
from helpers import peak_of, takes_minutes_interpreted
from safetensors.numpy import load_file, save, save_file

from rnnfast import RNNLM, State, Trainer, TruncatedBPTT
from rnnfast._check import CheckpointError
from rnnfast.files.tensors import Spec, read_tensors, write_tensors
from rnnfast.models.loading import load_model
from rnnfast.optim import Adam

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="limits and measures of a Linux process")


def specs_of(tensors):
    return {name: Spec(array.dtype.newbyteorder("="), array.shape) for name, array in tensors.items()}


def samples():
    rng = np.random.default_rng(0)
    yield {}
    yield {"a": np.zeros((0, 3), np.float32)}
    yield {"number": np.array(2.5), "b": np.arange(7), "a": np.float32([[1, -0.0, np.nan, np.inf]])}
    yield {name: rng.standard_normal((5, 4, 3)).astype(kind) for name, kind in (("z", "f4"), ("y", "f8"))}
    wide = rng.standard_normal((300, 700))
    yield {"transposed": wide.T, "strided": wide[::3, ::-2], "axes": wide.reshape(30, 10, 700).swapaxes(0, 2)}
    yield {"swapped": wide.astype(">f4"), "swapped.T": wide.astype(">f4").T, "ids": np.arange(9, dtype=">i8")}


@pytest.mark.parametrize("tensors", [*samples()])
def test_a_file_is_read_by_the_library_and_has_its_bytes(tensors, tmp_path):
    path = tmp_path / "file"
    write_tensors(path, "form", tensors, {"one": "\u00e9\n"})
    plain = {
        name: np.array(array, array.dtype.newbyteorder("="), order="C") for name, array in tensors.items()
    }
    read = load_file(path)
    assert sorted(read) == sorted(tensors)
    for name, array in plain.items():
        assert (read[name].shape, read[name].dtype) == (array.shape, array.dtype)
        assert read[name].tobytes() == array.tobytes()
    content = path.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    if tensors:  # safetensors 0.4.3 writes a broken header for none
        assert content == save(plain, metadata=header["__metadata__"])


@pytest.mark.parametrize("tensors", [*samples()])
def test_a_file_comes_back_as_it_was(tensors, tmp_path):
    write_tensors(tmp_path / "file", "form", tensors, {"one": 1})
    description, actual = read_tensors(tmp_path / "file", "form", lambda found: specs_of(tensors))
    assert description == {"one": 1}
    for name, array in tensors.items():
        np.testing.assert_array_equal(actual[name], array)
        assert actual[name].dtype.isnative
        assert actual[name].flags.c_contiguous


def test_a_file_the_library_wrote_is_read(tmp_path):
    tensors = {"a": np.arange(6.0).reshape(2, 3), "b": np.float32([1, 2])}
    text = json.dumps({"one": 1})
    crc = zlib.crc32(text.encode())
    for name, array in tensors.items():
        crc = zlib.crc32(array.tobytes(), zlib.crc32(f"{name} {array.shape} {array.dtype}".encode(), crc))
    about = {"format": "form", "config": text, "checksum": crc}
    save_file(tensors, tmp_path / "file", metadata={"rnnfast": json.dumps(about)})
    description, actual = read_tensors(tmp_path / "file", "form", lambda found: specs_of(tensors))
    assert description == {"one": 1}
    assert all(np.array_equal(actual[name], array) for name, array in tensors.items())


def test_an_array_of_another_type_is_refused_before_a_file_is_made(tmp_path):
    with pytest.raises(TypeError, match="b must be float32, float64 or int64, got float16"):
        write_tensors(tmp_path / "file", "form", {"a": np.ones(2), "b": np.ones(2, np.float16)}, {})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("transposed", [False, True])
def test_writing_takes_no_second_copy_and_reading_takes_one(tmp_path, transposed):
    values = np.ones((2000, 1000), np.float32)
    tensors = {"a": values.T if transposed else values, "b": values}
    path = tmp_path / "file"
    assert peak_of(lambda: write_tensors(path, "form", tensors, {})) < 0.2 * values.nbytes
    peak = peak_of(lambda: read_tensors(path, "form", lambda found: specs_of(tensors)))
    assert peak < 2.2 * values.nbytes


def test_a_model_and_a_state_are_saved_and_read_without_further_copies(tmp_path):
    model = RNNLM(5000, 100, 100, rng=np.random.default_rng(0))
    size = sum(param.nbytes for param in model.params)
    model.save(tmp_path / "once")
    assert peak_of(lambda: model.save(tmp_path / "model")) < 0.2 * size
    assert peak_of(lambda: RNNLM.load(tmp_path / "model")) < 2.2 * size  # with the gradients
    state = State((np.ones((500, 1000)), np.ones((500, 1000))))
    assert peak_of(lambda: state.save(tmp_path / "state")) < 0.2 * 8_000_000
    assert peak_of(lambda: State.load(tmp_path / "state")) < 1.2 * 8_000_000


def test_the_state_of_an_optimizer_is_given_and_taken_without_copies_where_that_is_wanted():
    params = [np.ones((300, 1000)), np.ones((1000, 300)).T]
    optimizer, other = Adam(), Adam()
    optimizer.update(params, [np.ones((300, 1000))] * 2)
    own = optimizer.state_dict(copy=False)
    assert all(own["arrays"][f"m.{i}"] is optimizer._state["m"][i] for i in (0, 1))
    assert not np.shares_memory(optimizer.state_dict()["arrays"]["m.0"], own["arrays"]["m.0"])
    other.load_state_dict(own, copy=False)
    assert other._state["m"][0] is own["arrays"]["m.0"]
    other.load_state_dict(own)
    assert not np.shares_memory(other._state["m"][0], own["arrays"]["m.0"])


LIMITED = """
import resource, sys
import numpy as np
from rnnfast import RNNLM, Trainer, TruncatedBPTT, optim
from rnnfast.training.checkpointing import Checkpointing
from rnnfast.training.progress import Meter

model = RNNLM(20_000, 512, 512, tied=False, rng=np.random.default_rng(0))
size = sum(param.nbytes for param in model.params)
trainer = Trainer(model, optim.Adam(), TruncatedBPTT(5))
trainer.optimizer.update(model.params, [np.ones_like(param) for param in model.params])
trainer.last_good.keep()
keeper = Checkpointing(trainer, sys.argv[1] + "/training", 0.0, np.arange(9), None, 2)
keeper.mark(Meter(1, 1, 1), 0)
RNNLM(5, 4, 4).save(sys.argv[1] + "/small")  # what saving imports
now = 1024 * int(next(line for line in open("/proc/self/status") if line.startswith("VmSize")).split()[1])
resource.setrlimit(resource.RLIMIT_AS, (now + size // 5, resource.getrlimit(resource.RLIMIT_AS)[1]))
model.save(sys.argv[1] + "/model")
keeper.write()
print(size)
"""


@takes_minutes_interpreted
@LINUX
def test_a_process_with_a_fifth_of_the_parameters_to_spare_saves_model_and_training(tmp_path):
    run = [sys.executable, "-c", LIMITED, str(tmp_path)]
    done = subprocess.run(run, capture_output=True, text=True, env={**os.environ, "RNNFAST_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-2000:]
    size = int(done.stdout)
    assert size > 80_000_000
    assert (tmp_path / "model").stat().st_size >= size
    assert (tmp_path / "training").stat().st_size >= 4 * size


def test_a_damaged_value_is_still_found(tmp_path):
    write_tensors(tmp_path / "file", "form", {"a": np.ones((300, 700)).T}, {})
    content = bytearray((tmp_path / "file").read_bytes())
    content[-5] ^= 1
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(CheckpointError, match="checksum"):
        read_tensors(tmp_path / "file", "form", lambda found: {"a": Spec(np.dtype(float), (700, 300))})


def damaged(path, how):
    content = path.read_bytes()
    path.unlink()
    if how == "folder":
        path.mkdir()
    changed = {
        "empty": b"",
        "truncated": content[: len(content) // 2],
        "random": np.random.default_rng(0).bytes(len(content)),
    }
    if how in changed:
        path.write_bytes(changed[how])


@pytest.mark.parametrize("how", ["missing", "empty", "truncated", "random", "folder"])
def test_a_damaged_file_is_named_by_whatever_reads_it(tmp_path, how):
    model, ids = RNNLM(5, 4, 4, rng=np.random.default_rng(0)), np.arange(101) % 5
    trainer = Trainer(model, Adam(), TruncatedBPTT(10))
    for name in ("model", "state", "training"):
        path = tmp_path / name
        if name == "model":
            model.save(path)
        elif name == "state":
            State((np.ones((2, 3)),)).save(path)
        else:
            trainer.fit(ids, epochs=1, batch_size=2, checkpoint_file=path)
        damaged(path, how)
    before = [param.copy() for param in model.params]
    again = {"epochs": 1, "batch_size": 2, "checkpoint_file": tmp_path / "training", "resume": True}
    readers = {
        "model": lambda: (RNNLM.load(tmp_path / "model"), load_model(tmp_path / "model")),
        "state": lambda: State.load(tmp_path / "state"),
        "training": lambda: trainer.fit(ids, **again),
    }
    for name, read in readers.items():
        if (name, how) == ("training", "missing"):
            continue  # a run that was killed before there was one begins again
        with pytest.raises((CheckpointError, OSError), match=name) as caught:
            read()
        assert "\n" not in str(caught.value)
    assert all(np.array_equal(a, b) for a, b in zip(model.params, before, strict=True))
