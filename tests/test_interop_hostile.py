"""ONNX files from strangers: a changed file runs or is refused with one type of error, in little memory.

RNNFAST_FUZZ is the number of mutated files, 5,000 by default.
"""

import os
import tracemalloc

import numpy as np
import pytest
from onnx_reference import model, recurrent_model, weights

from rnnfast import CheckpointError
from rnnfast.interop import from_onnx

onnx = pytest.importorskip("onnx")

from onnx import helper, numpy_helper  # noqa: E402

FILES = int(os.environ.get("RNNFAST_FUZZ", "5000"))
SEED = int(os.environ.get("RNNFAST_FUZZ_SEED", "0"))
MEASURED = 5  # memory of every fifth file, since measuring takes twice the time
SLACK = 6 << 20  # beside three times the file: objects, and what is folded
RUN = 1 << 22  # the largest result in a run
WHOLE = [
    -1,
    0,
    1,
    2,
    3,
    7,
    127,
    128,
    2**31 - 1,
    2**31,
    -(2**31),
    2**32,
    2**40,
    2**53,
    2**62,
    2**63 - 1,
    -(2**63),
]
FLOATS = [0.0, -1.0, 0.5, 1e38, float("inf"), float("-inf"), float("nan")]
NAMES = [
    "",
    "x",
    "Y",
    "W",
    "X",
    "y" * 5000,
    "\ud7ff",
    "../../etc/passwd",
    "LSTM",
    "Identity",
    "Expand",
    "Range",
    "Tile",
]


def lstm_file():
    """Two directions with all inputs, as a translation of a layer of PyTorch is written."""
    rng = np.random.default_rng(0)
    given = {
        "X": np.zeros((3, 2, 4), np.float32),
        "sequence_lens": np.zeros(2, np.int32),
        "initial_h": np.zeros((2, 2, 8), np.float32),
        "initial_c": np.zeros((2, 2, 8), np.float32),
    }
    constants = weights("LSTM", rng, 4, 8, 2, peepholes=True)
    return recurrent_model("LSTM", given, constants, direction="bidirectional", hidden_size=8)


def glue_file():
    """Embedding, folded weights, a GRU, shapes that are computed, an output layer."""
    rng = np.random.default_rng(1)
    held = weights("GRU", rng, 4, 8)
    make = helper.make_node
    nodes = [
        make("Gather", ["table", "ids"], ["rows"]),
        make("Transpose", ["rows"], ["X"], perm=[1, 0, 2]),
        *(make("Transpose", [f"W{k}"], [f"w{k}"]) for k in range(2)),
        make("Concat", ["w0", "w1"], ["w"], axis=0),
        make("Unsqueeze", ["w", "zero"], ["W"]),
        make("Shape", ["ids"], ["shape"]),
        make("Slice", ["shape", "zero", "one"], ["N"]),
        make("Concat", ["one", "N", "eight"], ["of state"], axis=0),
        make("ConstantOfShape", ["of state"], ["h"], value=numpy_helper.from_array(np.zeros(1, np.float32))),
        make("Expand", ["h", "of state"], ["h0"]),
        make("GRU", ["X", "W", "R", "B", "", "h0"], ["Y", "Y_h"], hidden_size=8, linear_before_reset=1),
        make("Squeeze", ["Y", "one"], ["hs"]),
        make("Tile", ["hs", "twice"], ["tiled"]),
        make("Split", ["tiled"], ["left", "right"], axis=1),
        make("MatMul", ["left", "out"], ["scores"]),
        make("Softmax", ["scores"], ["p"], axis=-1),
        make("Range", ["start", "limit", "delta"], ["steps"]),
        make("Pad", ["right", "pads"], ["padded"]),
        make("Reshape", ["padded", "flat"], ["q"]),
    ]
    number = np.array
    constants = {
        "table": rng.standard_normal((11, 4)).astype(np.float32),
        **{f"W{k}": part.T.copy() for k, part in enumerate(np.split(held["W"][0], 2))},
        "R": held["R"], "B": held["B"], "out": rng.standard_normal((8, 11)).astype(np.float32),
        "zero": number([0]), "one": number([1]), "eight": number([8]), "twice": number([1, 2, 1]),
        "start": number(0), "limit": number(5), "delta": number(1), "pads": number([0, 0, 1, 0, 0, 1]),
        "flat": number([0, -1]),
    }  # fmt: skip
    like = {"p": np.zeros((1, 1, 1), np.float32), "q": np.zeros((1, 1), np.float32), "steps": number([0])}
    return model(nodes, {"ids": np.zeros((2, 3), np.int64)}, like, constants)


def nested_file():
    """A convolution in a branch of an If, and a Scan in the other."""
    value = helper.make_tensor_value_info
    step = helper.make_graph(
        [helper.make_node("Add", ["h", "x"], ["h2"]), helper.make_node("Tanh", ["h2"], ["o"])],
        "step",
        [value("h", 1, [2, 4]), value("x", 1, [2, 4])],
        [value("h2", 1, [2, 4]), value("o", 1, [2, 4])],
    )  # fmt: skip
    first = helper.make_graph(
        [helper.make_node("Conv", ["xs", "kernel"], ["a"], pads=[1, 1], kernel_shape=[3])],
        "then", [], [value("a", 1, None)],
    )  # fmt: skip
    second = helper.make_graph(
        [helper.make_node("Scan", ["h0", "xs"], ["last", "b"], body=step, num_scan_inputs=1)],
        "else", [], [value("b", 1, None)],
    )  # fmt: skip
    nodes = [helper.make_node("If", ["flag"], ["y"], then_branch=first, else_branch=second)]
    rng = np.random.default_rng(2)
    constants = {
        "kernel": rng.standard_normal((2, 2, 3)).astype(np.float32),
        "h0": np.zeros((2, 4), np.float32),
    }
    xs = np.zeros((3, 2, 4), np.float32)
    return model(nodes, {"xs": xs, "flag": np.array(True)}, {"y": xs}, constants)


SHAPES = {"X": (3, 2, 4), "initial_h": (2, 2, 8), "initial_c": (2, 2, 8), "ids": (2, 3), "xs": (3, 2, 4)}
BASES = {"lstm": lstm_file, "glue": glue_file, "nested": nested_file}


def numbers_of(message):
    """(message, field, place) for every number and text in a protobuf message."""
    for field, value in message.ListFields():
        repeated = not isinstance(value, int | float | str | bytes) and not hasattr(value, "ListFields")
        for place, one in enumerate(value if repeated else [value]):
            if hasattr(one, "ListFields"):
                yield from numbers_of(one)
            else:
                yield message, field, place if repeated else None, one


def replaced(base, rng):
    """The model with one number or text replaced by an extreme one."""
    made = onnx.ModelProto()
    made.CopyFrom(base)
    places = list(numbers_of(made))
    message, field, place, value = places[rng.integers(len(places))]
    kinds = {int: WHOLE, float: FLOATS, str: NAMES}
    if isinstance(value, bytes):
        new = value[: rng.integers(len(value) + 1)]
    else:
        choices = kinds[type(value)]
        new = choices[rng.integers(len(choices))]
    try:
        if place is None:
            setattr(message, field.name, new)
        else:
            getattr(message, field.name)[place] = new
    except (ValueError, TypeError):  # the field is smaller
        message.ClearField(field.name)
    return made.SerializeToString()


def mutated(content, base, rng):
    """One change of a random kind at a random place."""
    place = int(rng.integers(len(content)))
    match rng.integers(8):
        case 0 | 1:
            changed = bytearray(content)
            changed[place] ^= 1 << int(rng.integers(8))
            return bytes(changed)
        case 2:
            return content[:place]
        case 3:
            other, count = int(rng.integers(len(content))), int(rng.integers(1, 500))
            return content[:place] + content[other : other + count] + content[place:]
        case 4:
            changed = bytearray(content)
            patch = rng.integers(256, size=int(rng.integers(1, 16)), dtype=np.uint8).tobytes()
            changed[place : place + len(patch)] = patch
            return bytes(changed)
        case _:
            return replaced(base, rng)


def opened(path):
    """The graph of a file or None, and the message of its error."""
    try:
        return from_onnx(path), ""
    except CheckpointError as error:
        return None, str(error)


def run(graph):
    """Run a graph on small inputs; errors must be of values or of types."""
    graph.memory = RUN
    inputs = {}
    for value in graph.inputs:
        shape = SHAPES.get(value.name) or [
            2 if isinstance(axis, str) else axis % 9 for axis in value.shape or ()
        ]
        inputs[value.name] = np.ones(shape, value.dtype or np.float32)
    try:
        return graph.run(inputs)
    except (ValueError, TypeError):
        return None


@pytest.mark.parametrize("kind", BASES)
def test_a_mutated_file_runs_or_is_refused_in_less_than_three_times_its_memory(kind, tmp_path):
    base = BASES[kind]()
    original, path = base.SerializeToString(), tmp_path / "file.onnx"
    rng = np.random.default_rng([SEED, list(BASES).index(kind)])
    counts = {"refused": 0, "loaded": 0, "run": 0}
    peak = 0
    path.write_bytes(original)
    assert run(from_onnx(path)) is not None
    for index in range(-(-FILES // len(BASES))):
        content = mutated(original, base, rng)
        path.write_bytes(content)
        if index % MEASURED:
            graph, message = opened(path)
        else:
            tracemalloc.start()
            graph, message = opened(path)
            peak = max(peak, tracemalloc.get_traced_memory()[1] - 3 * len(content))
            tracemalloc.stop()
        if graph is None:
            assert str(path) in message
            assert len(message) < 600
            counts["refused"] += 1
        else:
            counts["loaded"] += 1
            counts["run"] += run(graph) is not None
    print(kind, len(original), counts, peak)
    assert peak < SLACK
    assert min(counts.values()) > 100


def varint(value):
    found = b""
    while value > 127:
        found += bytes([value & 127 | 128])
        value >>= 7
    return found + bytes([value])


def field(number, content):
    return varint(number << 3 | 2) + varint(len(content)) + content


def file_of(graph):
    return field(8, b"\x10\x11") + field(7, graph)  # operators of version 17


def crafted():
    """Files whose objects or arrays would be many times as large as the file, or that do not end."""
    nested = b""
    for _ in range(5000):
        nested = field(
            1, field(4, b"If") + field(5, field(1, b"then_branch") + field(6, nested) + b"\xa0\x01\x05")
        )
    shared = field(5, b"\x08\x01\x08\x80\x20\x08\x80\x20\x10\x01" + field(8, b"R") + field(9, bytes(4 << 24)))
    gru = field(1, b"X") + field(1, b"R") + field(1, b"R") + field(4, b"RNN")
    tensor = b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\x7f\x10\x01" + field(8, b"W")
    large = b"\x08\x02\x10\x07" + field(9, np.array([1 << 20, 1 << 20]).tobytes())
    value = field(5, field(1, b"value") + b"\xa0\x01\x04" + field(5, large))
    ones = field(1, field(4, b"Constant") + field(2, b"n") + value)
    return {
        "empty nodes": field(1, b"") * (1 << 20),
        "empty inputs": field(1, field(1, b"") * (1 << 20)),
        "empty constants": field(5, b"") * (1 << 20),
        "small varints": field(5, b"\x08\x80\x80\x40\x10\x07" + field(7, b"\x01" * (1 << 20))),
        "one by one": field(5, b"\x10\x01" + b"\x25\0\0\0\0" * (1 << 18)),
        "deep": nested,
        "unknown fields": field(99, b"") * (1 << 18),
        "a huge shape": field(5, tensor),
        "a shape of no bytes": field(5, tensor[:9] + b"\x08\x00" + tensor[9:]),
        "weights for many": field(11, field(1, b"X")) + shared + b"".join(
            field(1, gru + field(2, f"y{k}".encode())) for k in range(1000)) + field(12, field(1, b"y1")),
        "a huge result": ones + field(1, field(1, b"n") + field(2, b"y") + field(4, b"ConstantOfShape"))
        + field(12, field(1, b"y")),
        "an endless number": b"\x08" + b"\xff" * (1 << 20),
    }  # fmt: skip


CRAFTED = crafted()


@pytest.mark.parametrize("name", CRAFTED)
def test_crafted_files_take_little_time_and_memory(name, tmp_path):
    path = tmp_path / "file.onnx"
    content = file_of(CRAFTED[name])
    path.write_bytes(content)
    tracemalloc.start()
    graph, _ = opened(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    print(name, len(content), peak / len(content), peak, graph)
    assert peak < 3 * len(content) + SLACK
    assert graph is None or run(graph) is None


@pytest.mark.parametrize(
    "location", ["../weights", "/etc/passwd", "", ".", "missing", "a/b", "c:\\d", "pipe", "link"]
)
def test_external_tensors_are_read_from_the_folder_of_the_file_alone(location, tmp_path):
    made = external(lstm_file(), location)
    folder = tmp_path / "inner"
    folder.mkdir()
    (tmp_path / "weights").write_bytes(bytes(1 << 16))
    if hasattr(os, "mkfifo"):
        os.mkfifo(folder / "pipe")
        (folder / "link").symlink_to(tmp_path / "weights")
    (folder / "model.onnx").write_bytes(made.SerializeToString())
    with pytest.raises(CheckpointError, match="beside the model"):
        from_onnx(folder / "model.onnx")


def external(made, location, **more):
    """The model with its first constant in another file."""
    tensor = made.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in {"location": location, **more}.items():
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    return made


def test_an_external_tensor_is_read(tmp_path):
    whole = lstm_file()
    raw = whole.graph.initializer[0].raw_data
    onnx.save(whole, tmp_path / "whole.onnx")
    (tmp_path / "weights").write_bytes(b"before" + raw)
    made = external(whole, "weights", offset="6", length=str(len(raw)))
    (tmp_path / "model.onnx").write_bytes(made.SerializeToString())
    first, second = (run(from_onnx(tmp_path / name)) for name in ("whole.onnx", "model.onnx"))
    assert all((first[name] == second[name]).all() for name in first)
    for offset, length in (("7", str(len(raw))), ("-1", "9"), ("6", "9"), ("x", "9"), ("9" * 30, "9")):
        entries = made.graph.initializer[0].external_data
        entries[1].value, entries[2].value = offset, length
        (tmp_path / "model.onnx").write_bytes(made.SerializeToString())
        with pytest.raises(CheckpointError):
            from_onnx(tmp_path / "model.onnx")
