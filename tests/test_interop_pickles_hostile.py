"""Hostile pickles: mutated files, and big ones in a process of their own.

RNNFAST_FUZZ_PICKLES is the number of mutated files.
"""

import os
import pickle
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from pickle_helpers import ARRAY, FLOAT, SLACK, u64

from rnnfast import CheckpointError
from rnnfast.interop.pickles import read_arrays

ROOT = Path(__file__).resolve().parents[1]
FILES = int(os.environ.get("RNNFAST_FUZZ_PICKLES", "5000"))


@pytest.fixture
def traced():
    tracemalloc.start()
    yield
    tracemalloc.stop()


def mutated(content, others, rng):
    """One to three changes of random kinds at random places."""
    content = bytearray(content)
    for _ in range(rng.integers(1, 4)):
        place = int(rng.integers(len(content) + 1))
        match rng.integers(7):
            case 0 | 1:
                content[place : place + 1] = [int(rng.integers(256))]
            case 2 if place < len(content):
                content[place] ^= 1 << int(rng.integers(8))
            case 3:
                del content[place:]
            case 4:
                del content[place : place + int(rng.integers(1, 100))]
            case 5:
                other = others[rng.integers(len(others))]
                start = int(rng.integers(len(other)))
                content[place:place] = other[start : start + int(rng.integers(1, 1000))]
            case _:
                extreme = (0, 1, 2**7, 2**15, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63, 2**64 - 1)
                number = extreme[rng.integers(len(extreme))]
                code = b"XB\x8d\x8e\x96\x95rjJK\x8a\x8c\x8b"[rng.integers(13)]
                content[place : place + int(rng.integers(2))] = (
                    bytes([code]) + u64(number)[: 1 << rng.integers(4)]
                )
    return bytes(content)  # fmt: skip


def test_mutated_files_are_refused_or_read_in_little_memory_and_time(tmp_path, traced):
    rng = np.random.default_rng(0)
    made = [rng.standard_normal((4, 6)).astype("f2"), np.ones((3, 2), "f8", order="F"), np.zeros(600, "f4")]
    originals = [pickle.dumps(made, protocol) for protocol in range(6)]
    refused, worst, slowest = 0, 0, 0.0
    path = tmp_path / "Rnnlm.pkl"
    for number in range(FILES):
        content = mutated(originals[number % len(originals)], originals, rng)
        path.write_bytes(content)
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        started, found, message = time.perf_counter(), [], str(path)
        try:
            found = read_arrays(path)
        except CheckpointError as error:
            message = str(error)
            refused += 1
        slowest = max(slowest, time.perf_counter() - started)
        worst = max(worst, tracemalloc.get_traced_memory()[1] - before - 2 * len(content))
        assert message.startswith(str(path))
        assert message.isprintable()
        assert sum(array.nbytes for array in found) <= len(content)
        assert all(array.dtype.kind in "fiu" for array in found)
    print(f"{FILES} files: {refused} refused, at most 2 times the file + {worst} bytes, {slowest:.3f} s")
    assert worst < 1 << 19
    assert refused > FILES // 3  # flipped bits of the values cannot be found
    assert slowest < 5


# Forked for each file, since the peak of a process never falls.
BIG = """
import os, pickle, resource, sys
import numpy as np
from rnnfast import CheckpointError
from rnnfast.interop.pickles import read_arrays

SIZE, path = 12 << 20, sys.argv[1]
repeated = [b"(", b"]", b")", b"N", b"]\\x94", b"]\\x94h\\x00a", b"]q\\x00]q\\x01", b"K\\x01"]
repeated += [b"\\x85", b"I7\\n"]

def content(number):
    values = np.random.default_rng(0).standard_normal(SIZE // 4, dtype=np.float32)
    if number < 6:
        return pickle.dumps([values, values[:100]], number)
    if number == 6:
        return pickle.dumps([values.astype(">f4").reshape(2, -1).T], 5)
    if number < 7 + len(repeated):
        unit = repeated[number - 7]
        return b"](N" + unit * (SIZE // len(unit))
    emoji = "\\U0001f600".encode()
    text = b"X" + SIZE.to_bytes(4, "little") + emoji * (SIZE // 4) + b"X\\x06\\0\\0\\0latin1\\x86R"
    return [
        text + b".",
        ARRAY + b"(K\\x01J" + SIZE.to_bytes(4, "little") + b"\\x85" + FLOAT.replace(b"f4", b"u1") + b"\\x89"
        + b"c_codecs\\nencode\\n" + text + b"tb.",
        b"V" + b"\\\\u00e9" * (SIZE // 6) + b"\\n.",
        b"I" + b"7" * SIZE + b"\\n.",
        b"c" + b"a" * SIZE + b"\\nb\\n.",
    ][number - 7 - len(repeated)]

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

def forked(call):
    process = os.fork()
    if process == 0:
        call()
        sys.stdout.flush()
        os._exit(0)
    assert os.waitpid(process, 0)[1] == 0

def write(number):
    with open(path, "wb") as file:
        file.write(content(number))

def read(number):
    before = peak()
    try:
        read_arrays(path)
        word = "read"
    except CheckpointError as error:
        word = str(error)[len(path):].replace(" ", "-")
    print(number, os.path.getsize(path), peak() - before, word)

for number in range(22):
    forked(lambda: write(number))
    forked(lambda: read(number))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
def test_the_memory_of_a_process_stays_below_twice_the_file(tmp_path):
    code = f"ARRAY, FLOAT = {ARRAY!r}, {FLOAT!r}\n{BIG}"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "big.pkl")],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    lines = [line.split() for line in done.stdout.splitlines()]
    print(done.stdout)
    assert len(lines) == 22
    for number, size, grown, word in lines:
        assert int(grown) < 2 * int(size) + SLACK, (number, word)
        assert (word == "read") == (int(number) < 7)
