"""A run folder as an ONNX file with its tokenizer, in Python and by command, used without rnnfast."""

import importlib.util
import json
import re
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from cli_helpers import assert_one_line, rnnfast_command
from helpers import needs_jit

from rnnfast import CBOWLM, RNNLM, CharTokenizer, WordTokenizer
from rnnfast.data import WhitespaceTokenizer
from rnnfast.interop.onnx_export import portable
from rnnfast.training import Checkpoint

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "generate_with_onnxruntime.py"
TEXT = "You say goodbye, and I say hello.\n\nHello, hello! I don\u2019t know why you say goodbye.\n" * 5
TOKENIZERS = {
    "word": WordTokenizer.fit(TEXT),
    "lower": WordTokenizer.fit(TEXT, lower=True, min_count=6),
    "whitespace": WhitespaceTokenizer.fit(TEXT),
    "char": CharTokenizer.fit(TEXT),
}


def encoded(tokenizer, text):
    """The ids of a text as the docstring of `portable` says."""
    text = text.lower() if tokenizer["lower"] else text
    text = unicodedata.normalize(tokenizer["normalize"], text) if tokenizer["normalize"] else text
    for pattern, replacement in tokenizer["replace"]:
        text = re.sub(pattern, replacement, text)
    tokens = tokenizer["tokens"]
    found = re.findall(tokenizer["split"], text)
    return [tokens.index(token) if token in tokens else tokenizer["unknown"] for token in found]


@pytest.mark.parametrize("name", TOKENIZERS)
def test_the_json_of_a_tokenizer_gives_the_same_ids(name):
    tokenizer = TOKENIZERS[name]
    described = json.loads(json.dumps(portable(tokenizer)))
    assert described["kind"] == tokenizer.kind
    texts = [
        TEXT,
        "",
        "\n\n  you\n \n\tSay  \u201chello\u201d don't\n",
        "U.S. 1,000 e.g. 3.14 -- ... john 's well-known <unk> <EOS> caf\u00e9 cafe\u0301 a_b 10:30!",
        "white \x0b space\x1cof \u2003 other\u0085kinds\u2028here",
        "\u2018tis \u02bc '",
    ]
    for text in texts:
        assert encoded(described, text) == tokenizer.encode(text).tolist(), text


def run_folder(path, tokenizer, cell="lstm", kind=RNNLM):
    """A run folder with a model that is not trained, and the model."""
    rng, options = np.random.default_rng(0), {"cell": cell, "layers": 2} if kind is RNNLM else {}
    sizes = (8, 8) if kind is RNNLM else (8,)
    model = kind(tokenizer.vocab_size, *sizes, rng=rng, **options)
    for param in model.params:
        param[...] = rng.standard_normal(param.shape)
    model.params[-1][...] = 0  # with this bias, one word would be the likeliest after all others
    Checkpoint(path, tokenizer=tokenizer)(model, {"epoch": 1})
    return model


def example():
    spec = importlib.util.spec_from_file_location("generate_with_onnxruntime", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@needs_jit
@pytest.mark.skipif(not EXAMPLE.is_file(), reason="tests run without the folder examples/ beside them")
@pytest.mark.parametrize("cell", ["lstm", "gru", "slstm"])
@pytest.mark.parametrize("name", TOKENIZERS)
def test_onnx_runtime_alone_writes_the_same_text(name, cell, tmp_path):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from rnnfast.interop import export_run

    tokenizer = TOKENIZERS[name]
    model = run_folder(tmp_path / "run", tokenizer, cell)
    assert export_run(tmp_path / "run", tmp_path / "model.onnx").difference < 1e-4
    texts = []
    for prompt in ("You say hello", "I don't know why", "hello", "", "goodbye, Hello\n\nI"):
        actual = example().main(tmp_path / "model.onnx", prompt, length=15, temperature=0)
        read = [tokenizer.eos_id, *tokenizer.encode(prompt)]
        expected = model.generate(read, 15, temperature=0, skip_ids=(tokenizer.unk_id,))
        assert actual == expected
        texts.append(tuple(actual))
    assert len(set(texts)) > 2  # they depend on the words before
    assert len({index for text in texts for index in text}) > 2


@needs_jit
@pytest.mark.skipif(not EXAMPLE.is_file(), reason="tests run without the folder examples/ beside them")
def test_the_script_runs_and_says_how(tmp_path):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    run_folder(tmp_path / "run", TOKENIZERS["word"])
    assert rnnfast_command("export", tmp_path / "run", tmp_path / "model.onnx")[0] == 0
    assert "python examples/generate_with_onnxruntime.py model.onnx" in example().__doc__
    command = [sys.executable, "-W", "error", EXAMPLE, "model.onnx", "--prompt", "you say", "--length", "5"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("you say ")
    assert len(done.stdout.split(" ")) == 7


@needs_jit
def test_the_command_prints_where_each_parameter_went(tmp_path):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    model = run_folder(tmp_path / "run", TOKENIZERS["word"])
    told = ("export", tmp_path / "run", tmp_path / "model.onnx")
    code, out, err = rnnfast_command(*told)
    assert (code, err) == (0, "")
    assert re.search(r"^ +layer1_Wh +8 x 32 +layer1_R *$", out, re.MULTILINE)
    assert re.search(r"^largest difference to ONNX Runtime: \d\.\de-0\d$", out, re.MULTILINE)
    for name in model.parameter_names:
        assert name in out
    written = (tmp_path / "model.onnx").read_bytes()
    assert_one_line(told, "model.onnx: this file already exists; choose another one, or --overwrite it.")
    code, out, err = rnnfast_command(*told, "--json", "--overwrite")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert [row["parameter"] for row in found["parameters"]] == model.parameter_names
    assert {row["parameter"]: row["shape"] for row in found["parameters"]}["layer0_Wx"] == [8, 32]
    assert 0 < found["largest_difference"] < 1e-4
    assert Path(found["tokenizer"]) == tmp_path / "model.tokenizer.json"
    assert (tmp_path / "model.onnx").read_bytes() == written
    assert {path.name for path in tmp_path.iterdir()} == {"run", "model.onnx", "model.tokenizer.json"}


def test_what_cannot_be_exported_is_one_line(tmp_path, monkeypatch):
    run_folder(tmp_path / "run", TOKENIZERS["word"])
    with monkeypatch.context() as patch:
        patch.setattr("importlib.util.find_spec", lambda name: None)
        assert_one_line(("export", tmp_path / "run", tmp_path / "m.onnx"), "pip install 'rnnfast[onnx]'")
    assert_one_line(("export", tmp_path / "none", tmp_path / "m.onnx"), "there is no such run folder")
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    assert_one_line(("export", tmp_path / "run", tmp_path / "no" / "m.onnx"), "No such file")
    run_folder(tmp_path / "cbow", TOKENIZERS["word"], kind=CBOWLM)
    assert_one_line(("export", tmp_path / "cbow", tmp_path / "m.onnx"), "RNNLM", "got CBOWLM")
    assert not list(tmp_path.glob("*.onnx"))


def test_files_that_exist_or_belong_to_the_run_stay(tmp_path):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    run, path = tmp_path / "run", tmp_path / "model.onnx"
    run_folder(run, TOKENIZERS["word"])
    assert_one_line(("export", run, tmp_path / "model.safetensors"), "must end in .onnx.")
    assert_one_line(("export", run, tmp_path / "model"), "must end in .onnx.")
    (tmp_path / "model.tokenizer.json").write_bytes(b"mine")
    assert_one_line(("export", run, path), "model.tokenizer.json: this file already exists")
    path.symlink_to(run / "model.safetensors")
    before = (run / "model.safetensors").read_bytes()
    assert_one_line(("export", run, path, "--overwrite"), "model.onnx: this is a file of the run")
    path.unlink()
    (tmp_path / "model.tokenizer.json").unlink()
    (tmp_path / "model.tokenizer.json").symlink_to(run / "config.json")
    assert_one_line(("export", run, path, "--overwrite"), "model.tokenizer.json: this is a file of the run")
    assert not path.exists()
    assert (run / "model.safetensors").read_bytes() == before


@needs_jit
def test_a_run_without_a_tokenizer_has_one_file(tmp_path):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    model = RNNLM(7, 4, 4, cell="gru", rng=np.random.default_rng(0))
    Checkpoint(tmp_path / "run")(model, {"epoch": 1})
    for options in ((), ("--overwrite", "--json")):
        code, out, err = rnnfast_command("export", tmp_path / "run", tmp_path / "model.onnx", *options)
        assert (code, err) == (0, "")
        assert {path.name for path in tmp_path.iterdir()} == {"run", "model.onnx"}
    assert json.loads(out)["tokenizer"] is None
    code, out, err = rnnfast_command("export", tmp_path / "run", tmp_path / "other.onnx")
    assert "tokenizer:" not in out
    assert (tmp_path / "other.onnx").read_bytes() == (tmp_path / "model.onnx").read_bytes()
