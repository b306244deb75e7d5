"""What the command line reads and writes besides files: encodings, standard input, JSON, pipes."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from cli_helpers import rnnfast_command

from rnnfast.cli.series_files import read_series
from rnnfast.data import CorpusError, WordTokenizer, encode_to_memmap, read_files
from rnnfast.models import RNNLM
from rnnfast.training import Checkpoint, load_checkpoint

TEXT = "you say goodbye and i say hello . caf\u00e9 hello i do not know why you say goodbye\n" * 12
SMALL = [
    "--emsize",
    "6",
    "--nhid",
    "6",
    "--bptt",
    "5",
    "--batch-size",
    "2",
    "--dropout",
    "0",
    "--epochs",
    "2",
    "--lr",
    "0.01",
]
MODULE = [sys.executable, "-m", "rnnfast"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "song"
    tokenizer = WordTokenizer.fit(TEXT)
    model = RNNLM(tokenizer.vocab_size, 6, 6, rng=np.random.default_rng(0))
    Checkpoint(folder, tokenizer=tokenizer)(model, {"epoch": 1})
    encode_to_memmap(tokenizer, TEXT * 2, folder / "valid.npy")
    return folder


# Encodings.


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1", "utf-8-sig"])
def test_text_is_read_in_the_encoding_that_is_named(tmp_path, encoding):
    path = tmp_path / "song.txt"
    path.write_bytes(TEXT.replace("\n", "\r\n").encode(encoding))
    assert "".join(read_files(path, encoding)) == TEXT


@pytest.mark.parametrize(
    ("content", "mark", "encoding"),
    [
        (TEXT.encode("utf-16"), "FF FE", "utf-16"),
        (b"\xfe\xff" + TEXT.encode("utf-16-be"), "FE FF", "utf-16"),
        (TEXT.encode("utf-32"), "FF FE 00 00", "utf-32"),
    ],
)
def test_a_byte_order_mark_says_which_encoding_to_name(run, tmp_path, content, mark, encoding):
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with pytest.raises(CorpusError, match=rf'UTF-\d\d text.*\({mark}\).*give encoding="{encoding}"'):
        read_files(path)
    for command in (("train", path, "--save", tmp_path / "new"), ("evaluate", run, path)):
        code, _, err = rnnfast_command(*command)
        expected = f"rnnfast: {path} is {encoding.upper()} text, as its byte order mark ({mark}) says; "
        assert (code, err) == (2, f"{expected}give --encoding {encoding}.\n")
    code, out, err = rnnfast_command("evaluate", run, path, "--encoding", encoding)
    assert (code, err) == (0, "")
    assert "unknown tokens   0.00%" in out


def test_the_mark_of_utf8_is_dropped(run, tmp_path):
    path = tmp_path / "notes.txt"
    path.write_bytes(TEXT.encode("utf-8-sig"))
    assert "".join(read_files(path)) == TEXT


def test_bytes_of_another_encoding_are_told_how_to_be_read(run, tmp_path):
    path = tmp_path / "notes.txt"
    path.write_bytes(TEXT.encode("latin-1"))
    code, _, err = rnnfast_command("evaluate", run, path)
    assert (code, err.count("\n")) == (2, 1)
    assert f"{path} must be UTF-8 text, but byte 37 (0xE9)" in err
    assert "--encoding cp1252" in err
    code, _, err = rnnfast_command("evaluate", run, path, "--encoding", "utf-16")
    assert (code, err.count("\n")) == (2, 1)
    assert "--encoding utf-16-le needs no mark" in err or "must be UTF-16 text" in err


@pytest.mark.parametrize("encoding", ["martian", "hex", "rot13", 3])
def test_what_is_no_encoding_of_text_is_refused(tmp_path, encoding):
    (tmp_path / "a").write_text("a")
    with pytest.raises(ValueError, match="encoding must be a text encoding"):
        read_files(tmp_path / "a", encoding)


# Standard input.


def test_train_and_evaluate_read_standard_input(run, tmp_path):
    paths = [tmp_path / "a.txt"]
    paths[0].write_text(TEXT, encoding="utf-8")
    for name, given in (("file", paths), ("stdin", ["-"])):
        command = ("train", *given, *SMALL, "--no-baseline", "--save", tmp_path / name)
        code, out, err = rnnfast_command(*command, given=TEXT.encode())
        assert (code, err) == (0, "")
    assert "standard input: " in out
    models = [load_checkpoint(tmp_path / name).model for name in ("file", "stdin")]
    for one, other in zip(models[0].params, models[1].params, strict=True):
        np.testing.assert_array_equal(one, other)
    outputs = [rnnfast_command("evaluate", run, path, given=TEXT.encode())[1] for path in (paths[0], "-")]
    assert outputs[1] == outputs[0].replace(str(paths[0]), "standard input")


def test_a_text_to_validate_on_may_be_standard_input(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text(TEXT, encoding="utf-8")
    command = ("train", path, "--valid", "-", *SMALL, "--no-baseline", "--save", tmp_path / "run")
    assert rnnfast_command(*command, given=b"you say hello\n")[0] == 0
    assert len(np.load(tmp_path / "run" / "valid.npy")) == 4


def test_standard_input_that_cannot_be_used_is_refused_by_its_name(run):
    assert rnnfast_command("evaluate", run, "-") == (
        2,
        "",
        "rnnfast: standard input: no text (0 bytes).\n",
    )
    code, _, err = rnnfast_command("train", "-", "--valid", "-", given=b"a")
    assert (code, err) == (2, "rnnfast: standard input (-) can be read only once, but is named 2 times.\n")
    code, _, err = rnnfast_command("predict", run, "-", given=b"caf\xe9")
    assert (code, err.count("\n")) == (2, 1)
    assert "standard input must be UTF-8 text, but byte 3 (0xE9)" in err


def test_prompts_may_come_from_standard_input_without_their_line_end(run):
    for command, option in (("predict", ()), ("generate", ("--prompt",))):
        end = ("--seed", 1) if command == "generate" else ()
        expected = rnnfast_command(command, run, *option, "you say", *end)
        for given in (b"you say", b"you say\n", b"you say\r\n", b"\xef\xbb\xbfyou say\n"):
            assert rnnfast_command(command, run, *option, "-", *end, given=given) == expected


# JSON.


def test_evaluate_generate_and_predict_print_one_json_object(run):
    code, out, err = rnnfast_command("evaluate", run, "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert set(found) == {"text", "tokens", "unknown_share", "perplexity", "bits_per_token"}
    assert f"{found['perplexity']:.2f}" in rnnfast_command("evaluate", run)[1]
    say = ("generate", run, "--prompt", "you say", "--seed", 3, "--length", 6)
    found = json.loads(rnnfast_command(*say, "--json")[1])
    assert found == {"prompt": "you say", "text": rnnfast_command(*say)[1].removesuffix("\n")}
    found = json.loads(rnnfast_command("predict", run, "you say", "--top", 2, "--json")[1])
    assert [set(item) for item in found["next"]] == [{"token", "probability"}] * 2
    assert found["next"][0]["probability"] >= found["next"][1]["probability"]


def test_train_prints_its_result_as_json_and_the_rest_on_stderr(tmp_path):
    command = ("train", "-", *SMALL, "--save", tmp_path / "run", "--json")
    code, out, err = rnnfast_command(*command, given=TEXT.encode())
    assert code == 0
    assert "epoch 2/2 done" in err
    found = json.loads(out)
    assert (found["run"], found["text"]) == (str(tmp_path / "run"), "the training part of standard input")
    assert [model["model"] for model in found["models"]] == ["RNN", "CBOW", "unigram"]
    assert found["models"][0]["epochs"] == 2
    metrics = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    for model in found["models"]:
        assert metrics[-1]["valid_perplexity"][model["model"]] == model["valid_perplexity"]
    assert found["sample"]
    code, out, _ = rnnfast_command("train", "--resume", tmp_path / "run", "--json")
    assert code == 0
    assert json.loads(out)["sample"] == found["sample"]


def test_diagnose_prints_its_findings_as_json(run):
    code, out, err = rnnfast_command("diagnose", run, "--lags", 4, "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    names = {"gradient_by_lag", "truncation_bias", "spectral_radius", "gate_saturation"}
    assert set(found) == names | {"run", "pictures", "advice"}
    assert all(found[name]["finding"].endswith(".") for name in names)
    assert found["advice"].endswith(".")
    assert len(found["gradient_by_lag"]["h"][0]) == 5


# Consoles and pipes.


@pytest.fixture(scope="module")
def snow(tmp_path_factory):
    """A run whose words cp1252 cannot say."""
    folder = tmp_path_factory.mktemp("runs") / "snow"
    text = folder.parent / "snow.txt"
    text.write_text("\u96ea \u6708 \u82b1 \u03c9 \u96ea \u6708\n" * 40, encoding="utf-8")
    say = [*MODULE, "train", str(text), *SMALL, "--no-baseline", "--save", str(folder)]
    done = subprocess.run(say, capture_output=True, env={**os.environ, "PYTHONIOENCODING": "cp1252"})
    return folder, done


def test_a_console_that_lacks_letters_shows_their_codes(snow):
    folder, done = snow
    assert (done.returncode, done.stderr) == (0, b"")
    assert rb"\u96ea" in done.stdout
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252"}
    for command in (
        ("generate", folder, "--length", "9", "--prompt", "\u96ea"),
        ("predict", folder, "\u96ea"),
        ("predict", folder, "\u2603"),
    ):
        done = subprocess.run([*MODULE, *map(str, command)], capture_output=True, env=environment)
        assert done.returncode == 0, done.stderr
        assert b"Error" not in done.stderr
        assert re.search(rb"\\u[0-9a-f]{4}", done.stdout + done.stderr)


@pytest.mark.skipif(os.name == "nt", reason="POSIX pipes")
@pytest.mark.parametrize("command", ["generate", "train", "predict"])
def test_a_pipe_that_is_closed_ends_a_command_quietly(run, tmp_path, command):
    text = tmp_path / "song.txt"
    text.write_text(TEXT, encoding="utf-8")
    arguments = {
        "generate": ["generate", str(run), "--length", "100000"],
        "predict": ["predict", str(run), "you"],
        "train": [
            "train",
            str(text),
            *SMALL,
            "--no-baseline",
            "--log-interval",
            "1",
            "--save",
            str(tmp_path / "r"),
        ],
    }[command]
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run([*MODULE, *arguments], stdout=write, stderr=subprocess.PIPE, timeout=120)
    finally:
        os.close(write)
    assert done.stderr == b""


@pytest.mark.parametrize(
    ("text", "ds", "y"),
    [
        ("2024-01-01,1\n2024-01-02,2\n", ["2024-01-01", "2024-01-02"], [1, 2]),
        ("1.5,2024-01-01\n2,2024-01-02\n", ["2024-01-01", "2024-01-02"], [1.5, 2]),
        (
            "2024-01-01 10:00;\n2024-01-01 11:00;2\n",
            ["2024-01-01T10:00:00", "2024-01-01T11:00:00"],
            [np.nan, 2],
        ),
        ("0,1.5\n1,2\n", ["0", "1"], [1.5, 2]),
        ("day,value\n2024-01-01,1\n", ["2024-01-01"], [1]),
        (",0\n2024-01-01,1\n", ["2024-01-01"], [1]),  # as pandas writes a series
        ("2024,y\n2024-01-01,1\n", ["2024-01-01"], [1]),
    ],
)
def test_a_first_row_of_data_is_data(text, ds, y, tmp_path):
    (tmp_path / "one.csv").write_text(text)
    found = read_series(str(tmp_path / "one.csv"), dict.fromkeys(("id", "time", "target")))
    assert found.columns[found.names.time].astype(str).tolist() == ds
    np.testing.assert_array_equal(found.columns[found.names.target], y)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "a,2024-01-01,1\na,2024-01-02,2\n",
            "line 1: is data, not a header; put a line such as unique_id,ds,y",
        ),
        ("2024-01-01,much\n2024-01-02,2\n", "line 1: is data, not a header"),
        ("1.5\n2\n", "line 1: is data, not a header"),
        ("unique_id,ds,y,y\na,2024-01-01,1,2\n", "line 1: has the column y twice; rename one"),
    ],
)
def test_a_first_row_that_is_neither_is_refused(text, words, tmp_path):
    (tmp_path / "one.csv").write_text(text)
    with pytest.raises(CorpusError, match=words):
        read_series(str(tmp_path / "one.csv"), dict.fromkeys(("id", "time", "target")))
