"""Files from strangers: any mutation of a saved file loads equal or is a CheckpointError, in little memory.

RNNFAST_FUZZ is the number of mutated files, 1,500 by default; the full run has 20,000.
"""

import json
import os
import struct
import tracemalloc

import numpy as np
import pytest

from rnnfast import RNNLM, State, Trainer, TruncatedBPTT
from rnnfast._check import CheckpointError
from rnnfast.models import load_model
from rnnfast.models.loading import expected_tensors
from rnnfast.models.weights import read_weights
from rnnfast.optim import Adam
from rnnfast.training.checkpointing import read_training

FILES = int(os.environ.get("RNNFAST_FUZZ", "1500"))
SEED = int(os.environ.get("RNNFAST_FUZZ_SEED", "0"))
# The arrays of a model alone: a model has gradients and scratch of its own beside them.
LOADERS = {
    "model": lambda path: read_weights(path, expected_tensors),
    "state": State.load,
    "training": read_training,
}
KINDS = tuple(LOADERS)
SLACK = 64 << 10  # what Python itself takes to open a file and raise an error


def saved(kind, path):
    """Write a file of 160 to 350 kB; what reads such a file into comparable values."""
    rng = np.random.default_rng(1)
    words, width = (300, 32) if kind == "training" else (1000, 48)
    model = RNNLM(words, width, width, cell="lstm", tied=True, dropout=0.1, rng=rng)
    if kind == "model":
        model.save(path)

        def read(path):
            loaded = load_model(path)
            return [loaded.config, *(param.tobytes() for param in loaded.params)]
    elif kind == "state":
        State(tuple((rng.standard_normal((80, 64)), rng.standard_normal((80, 64))) for _ in range(2))).save(
            path
        )

        def read(path):
            loaded = State.load(path)
            return [repr(loaded), *(array.tobytes() for array in loaded.arrays)]
    else:
        trainer = Trainer(model, Adam(), TruncatedBPTT(10))
        trainer.fit(rng.integers(300, size=41), epochs=2, batch_size=2, checkpoint_file=path)

        def read(path):
            about, arrays, history = read_training(path)
            return [about, history, *(array.tobytes() for array in arrays.values())]

    return read


def lying(content, rng):
    """The file with one thing in its header changed, the header's length made to fit."""
    (size,) = struct.unpack("<Q", content[:8])
    header, data = json.loads(content[8 : 8 + size]), content[8 + size :]
    numbers = [-1, 0, 1, 7, 2**31, 2**53, 2**62, 2**63, 2**64, 10**40, 0.5, 1e308, True, None, "4", [], {}]
    numbers += ["F32", "F64", "I64", "BOOL", [2, 3], [0, 2**40], {"a": 1}, "x" * 1000, "\ud800\n", [[[[]]]]]
    value = numbers[rng.integers(len(numbers))]
    names = [name for name in header if name != "__metadata__"]
    name = names[rng.integers(len(names))]
    about = json.loads(header["__metadata__"]["rnnfast"])
    described = json.loads(about["config"])
    match rng.integers(6):
        case 0:
            header[name][("dtype", "shape", "data_offsets")[rng.integers(3)]] = value
        case 1:
            field = header[name][("shape", "data_offsets")[rng.integers(2)]]
            if field:
                field[rng.integers(len(field))] = value
        case 2:
            header[str(value)] = header.pop(name)
        case 3:
            about[("format", "config", "checksum")[rng.integers(3)]] = value
        case 4:
            place, key = described, None
            while isinstance(place, dict) and place:  # somewhere in the description
                parent, key = place, sorted(place)[rng.integers(len(place))]
                place = parent[key]
            parent[key] = value
        case 5:
            other = names[rng.integers(len(names))]
            header[name], header[other] = header[other], header[name]
    if not isinstance(about["config"], str) or rng.integers(2):
        about["config"] = json.dumps(described) if isinstance(about["config"], str) else about["config"]
    header["__metadata__"]["rnnfast"] = json.dumps(about)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def mutated(content, rng):
    """One change of a random kind at a random place; half of them in the header, where they harm most."""
    head = 8 + struct.unpack("<Q", content[:8])[0]
    place = int(rng.integers(head if rng.integers(2) else len(content)))
    match rng.integers(8):
        case 0 | 1:
            content = bytearray(content)
            content[place] ^= 1 << int(rng.integers(8))
        case 2:
            content = content[:place]
        case 3:
            other, count = int(rng.integers(len(content))), int(rng.integers(1, 5000))
            content = content[:place] + content[other : other + count] + content[place:]
        case 4:
            content = content[:place] + content[place + int(rng.integers(1, 5000)) :]
        case 5:
            content = bytearray(content)
            patch = rng.integers(256, size=int(rng.integers(1, 16)), dtype=np.uint8).tobytes()
            content[place : place + len(patch)] = patch
        case _:
            return lying(content, rng)
    return bytes(content)


@pytest.mark.parametrize("kind", KINDS)
def test_a_mutated_file_is_refused_or_equal_and_takes_less_than_twice_its_memory(kind, tmp_path):
    path, rng = tmp_path / "file", np.random.default_rng([SEED, KINDS.index(kind)])
    read = saved(kind, path)
    original = path.read_bytes()
    expected = read(path)
    refused = equal = 0
    worst = 0.0
    for _ in range(-(-FILES // len(KINDS))):
        content = mutated(original, rng)
        path.write_bytes(content)
        size = len(content)
        del content
        tracemalloc.start()
        actual, message = None, ""
        try:
            actual = LOADERS[kind](path)
        except CheckpointError as error:
            message = str(error)
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert peak < 2 * size + SLACK
        worst = max(worst, peak / max(size, SLACK))
        if actual is None:
            assert str(path) in message
            assert message.isprintable()  # one line, whatever the file says
            refused += 1
        else:
            del actual
            assert read(path) == expected
            equal += 1
    print(f"{kind}: {refused} refused, {equal} equal, worst memory {worst:.2f} of the file")
    assert refused > 0.9 * FILES / len(KINDS)
    path.write_bytes(original)
    assert read(path) == expected


def test_every_flipped_bit_of_the_data_is_found(tmp_path):
    path = tmp_path / "file"
    State(np.arange(12.0).reshape(3, 4)).save(path)
    original = path.read_bytes()
    for bit in range(8 * (len(original) - 96), 8 * len(original)):
        content = bytearray(original)
        content[bit // 8] ^= 1 << bit % 8
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match="the checksum does not match"):
            State.load(path)
