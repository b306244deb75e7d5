"""`rnnfast convert`: the table, its JSON, and refusals in one line."""

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cli_helpers import assert_one_line, rnnfast_command

import rnnfast
from rnnfast.interop import save
from rnnfast.interop.book import to_book

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def book(tmp_path):
    """A file of `BetterRnnlm`, in its float16."""
    model = rnnfast.RNNLM(11, 5, 5, cell="lstm", layers=2, tied=True, rng=np.random.default_rng(0))
    path = tmp_path / "BetterRnnlm.pkl"
    to_book(model, path)
    return path


def test_the_table_tells_where_each_parameter_came_from_and_went(book, tmp_path):
    target = tmp_path / "model.safetensors"
    code, out, err = rnnfast_command("convert", book, target)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].startswith(
        "RNNLM(vocab_size=11, embed_size=5, hidden_size=5, cell='lstm', layers=2, tied"
    )
    rows = [" ".join(line.split()) for line in lines]
    assert "BetterRnnlm.pkl parameter model.safetensors" in rows
    assert "[0] (11, 5) embed_W embed_W (11, 5)" in rows
    assert "[7] (5, 11)" in rows  # the same weights once more
    assert "[2] (5, 20) layer0_Wh layer0_Wh (5, 20)" in rows
    assert "[8] (11,) output_b output_b (11,)" in rows
    assert rows[-1] == "largest difference on random input: 0.0e+00"
    assert rnnfast.RNNLM.load(target).tied


def test_json_holds_the_table(book, tmp_path):
    code, out, err = rnnfast_command("convert", book, tmp_path / "model.npz", "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert (found["in"], found["out"]) == (str(book), str(tmp_path / "model.npz"))
    assert found["largest_difference"] == 0
    assert found["parameters"][0] == {
        "parameter": "embed_W",
        "shape": [11, 5],
        "in": [{"name": "[0]", "shape": [11, 5]}, {"name": "[7]", "shape": [5, 11]}],
        "out": [{"name": "embed_W", "shape": [11, 5]}],
    }


def test_what_is_not_stored_is_a_note(tmp_path):
    model = rnnfast.RNNLM(11, 3, 4, dropout=0.5, rng=np.random.default_rng(0))
    model.save(tmp_path / "model.safetensors")
    note = "dropout=0.5 is not stored in a .pkl file"
    code, out, err = rnnfast_command("convert", tmp_path / "model.safetensors", tmp_path / "a.pkl")
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == f"note: {note}"
    out = rnnfast_command("convert", tmp_path / "model.safetensors", tmp_path / "b.pkl", "--json")[1]
    assert json.loads(out)["notes"] == [note]


def test_it_works_in_a_narrow_pipe(book, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "rnnfast", "convert", str(book), str(tmp_path / "model.npz")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "COLUMNS": "60"},
    )
    assert "\x1b" not in done.stdout
    assert "layer1_Wh" in done.stdout
    assert done.stdout.endswith("largest difference on random input: 0.0e+00\n")


def test_a_file_is_replaced_only_with_overwrite(book, tmp_path):
    target = tmp_path / "model.npz"
    target.write_bytes(b"mine")
    assert_one_line(("convert", book, target), target, "already exists", "--overwrite")
    assert target.read_bytes() == b"mine"
    assert rnnfast_command("convert", book, target, "--overwrite")[0] == 0
    before = target.read_bytes()
    assert rnnfast_command("convert", target, target, "--overwrite")[0] == 0
    assert target.read_bytes() == before


def test_the_cell_may_be_named(tmp_path):
    model = rnnfast.RNNLM(11, 3, 4, cell="relu", rng=np.random.default_rng(0))
    np.savez(tmp_path / "arrays.npz", **dict(zip(model.parameter_names, model.params, strict=True)))
    for cell, name in ((None, "rnn"), ("relu", "relu")):
        target = tmp_path / f"{name}.safetensors"
        options = () if cell is None else ("--cell", cell)
        assert rnnfast_command("convert", tmp_path / "arrays.npz", target, *options)[0] == 0
        assert rnnfast.RNNLM.load(target).config["cell"] == name
    assert_one_line(("convert", "a.npz", "b.npz", "--cell", "other"), "--cell must be one of rnn")


def test_errors_are_one_line(book, tmp_path):
    target = tmp_path / "model.npz"
    assert_one_line(("convert", book, tmp_path / "model.h5"), "model.h5 must end in .safetensors, .onnx,")
    assert_one_line(("convert", tmp_path / "run", target), "run must end in")
    assert_one_line(("convert", tmp_path / "none.npz", target), "none.npz: No such file or directory.")
    assert_one_line(("convert", book, tmp_path / "none" / "model.npz"), "none/model.npz: No such file or")
    assert_one_line(("convert", book), "Missing argument 'OUT'")
    for ending in (".safetensors", ".npz", ".pkl"):
        damaged = tmp_path / f"damaged{ending}"
        damaged.write_bytes(b"damaged")
        assert_one_line(("convert", damaged, target), f"{damaged}: ")
    rnnfast.CBOWLM(11, 5).save(tmp_path / "cbow.safetensors")
    assert_one_line(("convert", tmp_path / "cbow.safetensors", target), "a CBOWLM has no other format")
    assert not target.exists()
    model = rnnfast.RNNLM(11, 3, 4, cell="gru_after", rng=np.random.default_rng(0))
    model.save(tmp_path / "gru.safetensors")
    assert_one_line(
        ("convert", tmp_path / "gru.safetensors", tmp_path / "gru.pkl"), "the book", "the cell gru_after"
    )


@contextlib.contextmanager
def disk_with(nbytes):
    """No file may become longer, as on a disk with this much room."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (nbytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("room", [0, 10_000])
@pytest.mark.parametrize("ending", ["safetensors", "npz", "pt", "pkl", "onnx"])
def test_a_full_disk_is_one_line_and_leaves_nothing(ending, room, tmp_path):
    for module in {"pt": ["torch"], "onnx": ["onnx", "onnxruntime"]}.get(ending, []):
        pytest.importorskip(module)
    model = rnnfast.RNNLM(50, 32, 32, rng=np.random.default_rng(0))
    source = tmp_path / ("model.npz" if ending == "safetensors" else "model.safetensors")
    save(model, source)
    with disk_with(room):
        assert_one_line(["convert", source, tmp_path / f"k.{ending}"], f"{tmp_path / 'k'}.{ending}: ")
    assert list(tmp_path.iterdir()) == [source]
