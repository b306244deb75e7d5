"""The command line: runs that work, input that cannot, and runs that stop before their end."""

import io
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from cli_helpers import rnnfast_command
from helpers import sends_interrupts
from rich.console import Console
from rnnfast.kernels import _jit

import rnnfast.cli
from rnnfast.cli.app import app
from rnnfast.cli.experiment import OPTIMIZER_OPTIONS, OPTIMIZERS, WEIGHT_DECAY, Experiment, Settings
from rnnfast.cli.progress import LiveProgress, PlainProgress, clock, compilations
from rnnfast.cli.results import stream_text
from rnnfast.data import CharTokenizer, WordTokenizer
from rnnfast.training import Progress, load_checkpoint, perplexity

TEXT = (
    "You say goodbye and I say hello.\n\nHello, hello! I don't know why you say goodbye, I say hello.\n\n"
    * 12
)
SMALL = ("--emsize", "8", "--nhid", "8", "--bptt", "7", "--batch-size", "4", "--dropout", "0", "--lr", "0.01")
MODULE = [sys.executable, "-m", "rnnfast"]


def metrics_of(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def trained(tmp_path_factory, text):
    """A run folder, and what training it said."""
    folder = tmp_path_factory.mktemp("runs") / "song"
    options = (*SMALL, "--epochs", "6", "--log-interval", "10", "--save", folder)
    code, out, err = rnnfast_command("train", text, *options)
    assert (code, err) == (0, "")
    return folder, out


def test_training_leaves_a_complete_run_folder(trained):
    folder, _ = trained
    expected = {"model.safetensors", "tokenizer.json", "config.json", "metrics.jsonl", "learning_curve.png"}
    expected |= {"train.npy", "valid.npy", "cbow", "settings.json", "training.safetensors"}
    assert {path.name for path in folder.iterdir()} == expected
    model, tokenizer, config = load_checkpoint(folder)
    assert (model.config["model"], model.config["hidden_size"]) == ("RNNLM", 8)
    assert "goodbye" in tokenizer.token_to_id
    assert config["settings"]["lr"] == 0.01
    assert config["settings"]["tied"] is True
    assert load_checkpoint(folder / "cbow").model.config["model"] == "CBOWLM"


def test_training_writes_plain_lines_where_there_is_no_terminal(trained):
    folder, out = trained
    assert "\x1b" not in out
    for epoch in range(1, 7):
        assert (
            len(re.findall(rf"^RNN +epoch {epoch}/6 done: perplexity [\d.]+, validation [\d.]+", out, re.M))
            == 1
        )
    assert re.search(
        r"^RNN +epoch \d/6, window \d+/\d+: perplexity [\d.]+, [\d,]+ tokens/s, \d+:\d\d left$", out, re.M
    )
    for name in ("RNN", "CBOW", "unigram"):
        assert re.search(rf"^ +{name}.* \d+\.\d\d ", out, re.M), name
    assert "the RNN writes:" in out
    assert str(folder) in out


def test_metrics_hold_the_settings_progress_epochs_and_the_result(trained):
    folder, out = trained
    lines = metrics_of(folder)
    assert [line["event"] for line in lines[:1] + lines[-1:]] == ["start", "result"]
    assert lines[0]["settings"]["nhid"] == 8
    assert lines[0]["train_tokens"] > lines[0]["valid_tokens"] > 0
    for model in ("RNN", "CBOW"):
        epochs = [line for line in lines if line["event"] == "epoch" and line["model"] == model]
        assert [line["epoch"] for line in epochs] == list(range(1, len(epochs) + 1))
        assert epochs[-1]["valid_perplexity"] < epochs[0]["valid_perplexity"]
        best = min(line["valid_perplexity"] for line in epochs)
        assert lines[-1]["valid_perplexity"][model] == best
        assert f"{best:.2f}" in out
        steps = [line["step"] for line in lines if line["event"] == "progress" and line["model"] == model]
        assert steps == list(range(10, epochs[-1]["steps"] + 1, 10))


def test_the_table_tells_the_perplexity_of_the_model_that_was_saved(trained):
    folder, _ = trained
    valid = np.load(folder / "valid.npy")
    for name, place in (("RNN", folder), ("CBOW", folder / "cbow")):
        expected = metrics_of(folder)[-1]["valid_perplexity"][name]
        assert perplexity(load_checkpoint(place).model, valid) == expected


def test_the_learning_curve_is_a_picture_with_curves_in_both_colors(trained):
    pixels = matplotlib.image.imread(trained[0] / "learning_curve.png")[..., :3]
    assert pixels.shape[0] > 400
    assert pixels.shape[1] > 700
    for color in ((0x1F, 0x5F, 0xBF), (0xD9, 0x82, 0x2B)):
        assert (np.abs(pixels * 255 - color).max(axis=-1) < 8).sum() > 300


def test_the_same_seed_gives_the_same_numbers_and_another_seed_others(text, tmp_path):
    found = []
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        options = (*SMALL, "--dropout", "0.3", "--epochs", "2", "--seed", seed, "--save", tmp_path / name)
        assert rnnfast_command("train", text, *options)[0] == 0
        epochs = [line for line in metrics_of(tmp_path / name) if line["event"] == "epoch"]
        weights = (tmp_path / name / "model.safetensors").read_bytes()
        found.append(([(e["model"], e["train_perplexity"], e["valid_perplexity"]) for e in epochs], weights))
    assert found[0] == found[1]
    assert found[0][0] != found[2][0]
    assert found[0][1] != found[2][1]


def test_characters_a_file_to_validate_on_and_no_baseline(text, tmp_path):
    valid = tmp_path / "valid.txt"
    valid.write_text("I say hello.\n")
    folder = tmp_path / "run"
    options = ("--tokenizer", "char", "--valid", valid, "--no-baseline", "--epochs", "1", "--save", folder)
    code, out, err = rnnfast_command("train", text, *SMALL, *options)
    assert (code, err) == (0, "")
    assert "CBOW" not in out
    assert not (folder / "cbow").exists()
    assert len(np.load(folder / "valid.npy")) == 13
    assert isinstance(load_checkpoint(folder).tokenizer, CharTokenizer)
    code, out, _ = rnnfast_command("generate", folder, "--length", "9", "--seed", "1")
    assert (code, len(out)) == (0, 10)


def test_evaluate_scores_files_and_the_runs_own_validation_text(trained, text):
    folder, _ = trained
    model, tokenizer, _ = load_checkpoint(folder)
    code, out, err = rnnfast_command("evaluate", folder, text, text)
    assert (code, err) == (0, "")
    ids = tokenizer.encode(TEXT + TEXT)
    expected = perplexity(model, ids)
    values = dict(re.findall(r"^(\w[\w ]*?) {2,}([\d.,]+)%?$", out, re.M))
    assert values["tokens"].replace(",", "") == str(len(ids))
    assert values["perplexity"] == f"{expected:.2f}"
    assert values["bits per token"] == f"{math.log2(expected):.3f}"
    assert values["unknown tokens"] == f"{100 * (ids == tokenizer.unk_id).mean():.2f}"
    code, out, _ = rnnfast_command("evaluate", folder)
    assert f"{metrics_of(folder)[-1]['valid_perplexity']['RNN']:.2f}" in out


def test_generate_goes_on_from_the_prompt_and_a_seed_repeats_it(trained):
    folder, _ = trained
    say = ("generate", folder, "--prompt", "You say", "--length", "12", "--temperature", "1.5")
    code, first, err = rnnfast_command(*say, "--seed", "3")
    assert (code, err) == (0, "")
    assert first.startswith("you say ")
    assert rnnfast_command(*say, "--seed", "3")[1] == first
    assert rnnfast_command(*say, "--seed", "4")[1] != first
    greedy = [
        rnnfast_command(*say, "--seed", seed, *only)
        for seed, only in ((1, ("--top-k", 1)), (2, ("--top-p", 0.01)))
    ]
    assert greedy[0][1] == greedy[1][1]


def test_generate_without_a_prompt_begins_after_a_line_end_it_does_not_print(trained):
    folder, _ = trained
    model, tokenizer, _ = load_checkpoint(folder)
    rng = np.random.default_rng(2)
    drawn = model.generate_iter([tokenizer.eos_id], 5, skip_ids=[tokenizer.unk_id], rng=rng)
    text = tokenizer.decode([tokenizer.eos_id, *drawn])
    assert text.startswith("\n")
    assert rnnfast_command("generate", folder, "--length", "5", "--seed", "2") == (0, text[1:] + "\n", "")


def test_predict_lists_the_likeliest_words_in_order(trained):
    folder, _ = trained
    model, tokenizer, _ = load_checkpoint(folder)
    code, out, err = rnnfast_command("predict", folder, "You say", "--top", "3")
    assert (code, err) == (0, "")
    proba = model.next_proba([tokenizer.eos_id, *tokenizer.encode("You say")])  # as at the start of a line
    rows = re.findall(r"^ +(\S+) +(0\.\d{4}) *$", out, re.M)
    expected = [(tokenizer.id_to_token[i], f"{proba[i]:.4f}") for i in np.argsort(-proba, kind="stable")[:3]]
    assert rows == expected


def test_words_the_model_does_not_know_are_named(trained):
    code, out, err = rnnfast_command("predict", trained[0], "you Whisper and mumble")
    assert code == 0
    assert "probability" in out
    assert err == "warning: not in the model's vocabulary: mumble, whisper\n"


def test_a_stream_of_words_is_the_decoded_text():
    rng = np.random.default_rng(0)
    for tokenizer in (WordTokenizer.fit(TEXT), CharTokenizer.fit(TEXT)):
        ids = [int(index) for index in rng.integers(1, tokenizer.vocab_size, 300)]
        pieces = list(stream_text(tokenizer, np.array(ids[:4]), ids[4:]))
        assert len(pieces) == 297
        assert "".join(pieces) == tokenizer.decode(ids)


# What cannot be used.


def assert_refused(arguments, *words):
    code, out, err = rnnfast_command(*arguments)
    assert code == 2, (out, err)
    assert err.count("\n") == 1, err
    assert err.startswith("rnnfast"), err
    assert "Traceback" not in err
    assert "epoch" not in out
    for word in words:
        assert str(word) in err


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (("--epochs", "0"), "--epochs"),
        (("--epochs", "many"), "--epochs"),
        (("--batch-size", "-1"), "--batch-size"),
        (("--batch-size", "100000"), "too short"),
        (("--bptt", "100000"), "too short"),
        (("--lr", "-1"), "lr must be"),
        (("--lr", "nan"), "lr must be"),
        (("--lr", "fast"), "--lr"),
        (("--dropout", "1.5"), "dropout must be"),
        (("--valid-fraction", "1"), "--valid-fraction must"),
        (("--min-count", "100000"), "lower --min-count"),
        (("--anneal", "0.5"), "--anneal"),
        (("--clip", "nan"), "clip"),
        (("--clip-value", "nan"), "clip"),
        (("--anneal", "nan"), "anneal"),
        (("--weight-decay", "-1"), "--weight-decay"),
        (("--tied", "--nhid", "9"), "--tied needs --emsize"),
        (("--tokenizer", "syllable"), "tokenizer must be"),
        (("--cell", "quantum"), "cell must be"),
        (("--optimizer", "luck"), "optimizer must be"),
        (("--momentum", "0.9"), "--momentum belongs to --optimizer nesterov or momentum"),
        (("--optimizer", "sgd", "--weight-decay", "0.1"), "--weight-decay belongs to --optimizer adamw"),
        (("--optimizer", "momentum", "--beta1", "0.9"), "--beta1 belongs to --optimizer adamw or adam"),
        (("--optimizer", "adam", "--decay-rate", "0.9"), "--decay-rate belongs to --optimizer rmsprop"),
        (("--beta2", "1"), "beta2 must be"),
        (("--eps", "nan"), "eps must be"),
        (("--dtype", "int8"), "dtype must be"),
        (("--window", "0"), "--window"),
        (("--seed", "-1"), "--seed"),
        (("--speed", "9"), "No such option"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(text, tmp_path, options, word):
    save = tmp_path / "deep" / "run"
    assert_refused(("train", text, *SMALL, "--save", save, *options), word)
    assert not save.parent.exists()


def test_text_that_cannot_be_used_is_refused_and_nothing_is_left_behind(text, tmp_path):
    save = tmp_path / "deep" / "run"
    files = {
        "empty": b"",
        "blank": b"\n \n",
        "latin1": b"caf\xe9 au lait " * 99,
        "short": b"three little words\n",
    }
    paths = {name: tmp_path / f"{name}.txt" for name in (*files, "missing")}
    for name, content in files.items():
        paths[name].write_bytes(content)
    words = {
        "empty": "empty.txt",
        "blank": "has no words",
        "latin1": "UTF-8",
        "short": "too short",
        "missing": "missing.txt",
    }
    for name, word in words.items():
        assert_refused(("train", paths[name], "--min-count", "1", "--save", save), word)
        assert not save.parent.exists()
    for name in ("empty", "latin1", "missing"):
        assert_refused(("train", text, *SMALL, "--valid", paths[name], "--save", save), f"{name}.txt")
        assert not save.parent.exists()


def test_a_folder_that_cannot_be_made_is_refused(text, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    assert_refused(("train", text, *SMALL, "--save", blocked / "run"), blocked)
    assert_refused(("train", text, *SMALL, "--save", blocked), blocked)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root can write everywhere")
def test_a_folder_that_cannot_be_written_is_refused(text, tmp_path):
    tmp_path.chmod(0o500)
    assert_refused(("train", text, *SMALL, "--save", tmp_path), tmp_path)


def test_an_earlier_run_is_neither_overwritten_nor_lost_to_bad_text(trained, text, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(trained[0], folder)
    (folder / "gradient_by_lag.png").write_bytes(b"a picture of the earlier model")
    before = contents(folder)
    assert_refused(("train", text, *SMALL, "--save", folder), "already has a run", folder)
    bad = tmp_path / "bad.txt"
    bad.write_bytes(TEXT.encode() + b"\xff")
    assert_refused(("train", bad, *SMALL, "--save", folder, "--overwrite"), "UTF-8")
    assert contents(folder) == before
    code, _, err = rnnfast_command(
        "train", text, *SMALL, "--epochs", "1", "--no-baseline", "--save", folder, "--overwrite"
    )
    assert (code, err) == (0, "")
    assert contents(folder) != before
    assert list((folder / "cbow").iterdir()) == []
    assert not (folder / "gradient_by_lag.png").exists()


def test_files_that_no_run_has_left_are_not_overwritten(text, tmp_path):
    (tmp_path / "config.json").write_text('{"mine": 1}')
    for flags in ((), ("--overwrite",)):
        assert_refused(("train", text, *SMALL, "--save", tmp_path, *flags), "config.json")
    assert contents(tmp_path) == {Path("config.json"): b'{"mine": 1}'}


def test_a_run_with_another_cell_is_called_by_its_name(text, tmp_path):
    folder = tmp_path / "run"
    options = (*SMALL, "--model", "LSTM", "--epochs", "1", "--save", folder)
    code, out, err = rnnfast_command("train", text, *options)
    assert (code, err) == (0, "")
    assert "LSTM, 1 x 8" in out
    assert load_checkpoint(folder).model.config["cell"] == "lstm"
    assert (folder / "learning_curve.png").stat().st_size > 1000


def test_a_run_folder_that_is_missing_or_damaged_is_refused(trained, text, tmp_path):
    for command in (("evaluate", text), ("generate",), ("predict", "you say")):
        assert_refused((command[0], tmp_path / "nowhere", *command[1:]), "nowhere")
    weights = (trained[0] / "model.safetensors").read_bytes()
    damages = {
        "model.safetensors": (weights[: len(weights) // 2], None),
        "tokenizer.json": (b'{"kind": "word", "tokens": ["other"]}', b"{", None),
        "config.json": (b"[]", None),
    }
    for name, replacements in damages.items():
        for content in replacements:
            folder = tmp_path / "damaged"
            shutil.copytree(trained[0], folder)
            (folder / name).unlink()
            if content is not None:
                (folder / name).write_bytes(content)
            assert_refused(("predict", folder, "you say"), name)
            shutil.rmtree(folder)


def test_what_the_other_commands_cannot_use_is_refused(trained, text, tmp_path):
    folder, _ = trained
    short = tmp_path / "short.txt"
    short.write_text("hello")
    short_of_words = tmp_path / "blank.txt"
    short_of_words.write_text("\n")
    assert_refused(("evaluate", folder, tmp_path / "missing.txt"), "missing.txt")
    assert_refused(("evaluate", folder, short_of_words), "has no words")
    assert_refused(("evaluate", folder / "cbow"), "valid.npy does not exist")
    assert_refused(("evaluate", folder, text, "--last"), "leave out --last")
    assert_refused(("evaluate",), "RUN")
    assert_refused(("generate", folder, "--prompt", " "), "no words")
    assert_refused(("generate", folder, "--temperature", "-1"), "temperature must be")
    assert_refused(("generate", folder, "--top-p", "0"), "--top-p must be above 0")
    assert_refused(("generate", folder, "--top-k", "0"), "--top-k")
    assert_refused(("predict", folder), "PROMPT")
    assert_refused(("predict", folder, ""), "no words")
    assert_refused(("warmup", "--dtype", "float16"), "dtype must be")
    assert_refused(("dance",), "dance")


@pytest.mark.parametrize("value", [np.nan, 1e38])
@pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered")
def test_a_damaged_model_is_told_in_one_line(trained, tmp_path, value):
    folder = tmp_path / "run"
    shutil.copytree(trained[0], folder)
    model, tokenizer, _ = load_checkpoint(folder)
    for param in model.params:
        param[...] = value
    model.save(folder / "model.safetensors", notes={"tokenizer": tokenizer.fingerprint()})
    assert_refused(("generate", folder, "--prompt", "you say"), "scores are not finite")
    assert_refused(("predict", folder, "you say"), "scores are not finite")
    if np.isnan(value):
        assert_refused(("evaluate", folder), "perplexity is not a number")


# Runs that stop early.


def test_a_run_that_diverges_names_the_step_and_keeps_the_last_good_parameters(text, tmp_path):
    folder = tmp_path / "run"
    options = ("--optimizer", "sgd", "--lr", "1e30", "--clip", "0", "--epochs", "3", "--save", folder)
    with np.errstate(over="ignore", invalid="ignore"):  # plain Python warns of what it overflows
        code, out, err = rnnfast_command("train", text, *SMALL, *options)
    assert code == 1
    assert err.count("\n") == 1
    assert re.search(r"step \d+", err)
    assert str(folder) in err
    assert metrics_of(folder)[-1]["why"] == "diverged"
    model = load_checkpoint(folder).model
    assert all(np.isfinite(param).all() for param in model.params)
    assert "CBOW" not in out


@sends_interrupts
def test_ctrl_c_saves_the_run(text, tmp_path):
    folder = tmp_path / "run"
    command = [
        *MODULE,
        "train",
        str(text),
        *SMALL,
        "--epochs",
        "100000",
        "--patience",
        "0",
        "--save",
        str(folder),
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        for line in process.stdout:
            if "epoch 2/" in line:
                break
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.stdout.close()
        process.stderr.close()
    assert process.returncode == 130
    assert err.count("\n") == 1, err
    assert f"the run is saved in {folder}" in err
    assert metrics_of(folder)[-1]["why"] == "interrupted"
    assert (folder / "learning_curve.png").stat().st_size > 10_000
    code, out, _ = rnnfast_command("evaluate", folder, text)
    assert code == 0
    assert "perplexity" in out


@pytest.mark.parametrize("stopped", ["CBOW", "before anything"])
def test_ctrl_c_in_another_part_of_the_run_says_what_was_kept(text, tmp_path, monkeypatch, stopped):
    folder, fit = tmp_path / "run", Experiment.fit

    def fit_until_ctrl_c(experiment, trainer):
        if stopped == "before anything" or trainer.model.config["model"] == "CBOWLM":
            raise KeyboardInterrupt
        return fit(experiment, trainer)

    monkeypatch.setattr(Experiment, "fit", fit_until_ctrl_c)
    code, _, err = rnnfast_command("train", text, *SMALL, "--epochs", "1", "--save", folder)
    assert code == 130
    assert err.count("\n") == 1
    assert ("the run is saved" if stopped == "CBOW" else "nothing had been learned") in err
    assert (folder / "learning_curve.png").exists() == (stopped == "CBOW")


def test_ctrl_c_elsewhere_ends_a_command_in_one_line(trained, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("rnnfast.cli.models.load_run", interrupted)
    assert rnnfast_command("predict", trained[0], "you say") == (130, "", "rnnfast: interrupted.\n")


def test_ctrl_c_while_the_command_is_imported_ends_in_one_line(monkeypatch, capsys):
    class Interrupted:
        def __getattr__(self, name):
            raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, "rnnfast.cli.app", Interrupted())
    with pytest.raises(SystemExit) as exit_info:
        rnnfast.cli.main()
    assert (exit_info.value.code, capsys.readouterr()) == (130, ("", "rnnfast: interrupted.\n"))


def test_a_full_disk_while_training_is_said_in_one_line(text, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device", "/disk/model.safetensors")

    monkeypatch.setattr("rnnfast.training.checkpoint.Checkpoint.__call__", full)
    code, _, err = rnnfast_command("train", text, *SMALL, "--epochs", "1", "--save", tmp_path / "run")
    assert code == 1
    assert err == "rnnfast: /disk/model.safetensors: No space left on device.\n"


@pytest.mark.parametrize("error", [ValueError, TypeError, IndexError])
def test_a_mistake_of_the_program_keeps_its_traceback(text, tmp_path, monkeypatch, error):
    def broken(*_):
        raise error("a bug")

    monkeypatch.setattr(Experiment, "fit", broken)
    with pytest.raises(error, match="a bug"):
        app(["train", str(text), *SMALL, "--save", str(tmp_path / "run")])


# Help, progress, compilation.


def test_help_explains_every_command_and_option():
    result = subprocess.run([*MODULE, "--help"], capture_output=True, text=True, check=True)
    for name in ("train", "convert", "evaluate", "export", "generate", "predict", "warmup"):
        assert name in result.stdout
        code, out, _ = rnnfast_command(name, "--help")
        assert code == 0
        assert f"rnnfast {name}" in out
        assert not {"files", "run", "prompt"} & set(re.findall(r"\w+", out.splitlines()[1]))
    code, out, _ = rnnfast_command()
    assert code == 0
    assert "Usage" in out
    code, out, _ = rnnfast_command("--version")
    assert out == f"rnnfast {rnnfast.__version__}\n"


def test_the_help_of_train_shows_the_flags_and_their_defaults():
    out = rnnfast_command("train", "--help")[1]
    flags = "emsize nhid nlayers bptt clip dropout tied epochs batch-size lr seed save cell optimizer"
    flags += " clip-value anneal min-count max-vocab lower valid valid-fraction window no-baseline dtype"
    flags += " log-interval tokenizer model momentum beta1 beta2 eps decay-rate weight-decay"
    for flag in flags.split():
        assert re.search(rf"--{flag}\b", out), flag
    for group in ("Text", "Model", "Training", "Baseline", "Output"):
        assert f" {group} " in out
    joined = re.sub(r"[\s│]+", " ", out)
    for name, (_, rate) in OPTIMIZERS.items():
        assert f"{name} {rate:g}" in joined
    assert f"[default: {Settings().nhid}]" in joined


def test_without_the_extras_the_command_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setattr(rnnfast.cli, "_NEEDED", ("typer", "no_such_package"))
    with pytest.raises(SystemExit) as exit_info:
        rnnfast.cli.main()
    assert exit_info.value.code == 2
    assert capsys.readouterr().err == (
        'rnnfast: the command line needs no_such_package: pip install "rnnfast[cli]", or, in a clone, '
        'pip install -e ".[cli]"\n'
    )


def some_progress(**changes):
    values = {
        "epoch": 2,
        "epochs": 3,
        "window": 5,
        "windows": 9,
        "step": 14,
        "steps": 27,
        "tokens": 700,
        "loss": 2.0,
    }
    values |= {"train_perplexity": 12.34, "grad_norm": 0.5, "learning_rate": 0.1, "tokens_per_second": 4321.0}
    return Progress(**(values | {"seconds": 7.0, "seconds_left": 83.0} | changes))


def test_a_terminal_shows_epoch_perplexity_speed_and_time_left_as_it_goes():
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=100, highlight=False)
    with LiveProgress(console, "RNN", interval=200) as display:
        display.window(some_progress())
        display._bar.refresh()
        display.epoch({"epoch": 2, "train_perplexity": 12.3, "valid_perplexity": 15.0, "improved": True}, 3)
    shown = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", file.getvalue())
    for expected in ("epoch 2/3", "perplexity 12.3", "4,321 tokens/s", "1:23 left", "validation 15.0"):
        assert expected in shown


def test_plain_progress_is_said_now_and_then():
    file = io.StringIO()
    with PlainProgress(Console(file=file), "RNN", interval=7) as display:
        for step in range(1, 15):
            display.window(some_progress(step=step, seconds_left=None if step == 7 else 59.6))
    first, second = file.getvalue().splitlines()
    assert first.endswith("perplexity 12.3, 4,321 tokens/s")
    assert second.endswith("4,321 tokens/s, 1:00 left")
    assert clock(3600) == "1:00:00"


@pytest.mark.skipif(_jit.jit_is_disabled(), reason="nothing is compiled")
def test_compiling_is_announced_once_and_only_when_it_happens():
    said = []
    first, second = _jit.inner(lambda x: x + 1), _jit.inner(lambda x: x + 2)
    with compilations(lambda: said.append("compiling")) as compiled:
        assert said == []
        first(1)
        second(1)
        second(1)
    assert said == ["compiling"]
    assert compiled.count >= 2
    with compilations(lambda: said.append("again")):
        second(1)
    assert said == ["compiling"]


def compiled_kernels():
    """Every function with a disk cache of its own, so one that Python calls, by name."""
    found = {}
    for name, module in sorted(sys.modules.items()):
        if name.startswith("rnnfast.kernels."):
            for own, value in vars(module).items():
                is_kernel = getattr(getattr(value, "stats", None), "cache_path", None)
                if is_kernel and value.__module__ == name:
                    found[f"{name}.{own}"] = value
    return found


def is_compiled_for_float32(kernel):
    """Whether a signature takes float32, or no floats at all."""
    return any("float32" in str(kinds) or "float" not in str(kinds) for kinds in kernel.signatures)


@pytest.mark.skipif(_jit.jit_is_disabled(), reason="nothing is compiled")
def test_after_warmup_no_kernel_is_left_to_compile():
    code, out, err = rnnfast_command("warmup", "--dtype", "float32")
    assert (code, err) == (0, "")
    assert re.search(r"ready after \d+\.\d s", out)
    folder = Path(re.search(r"cached in (.+)$", out, re.M)[1])
    assert folder.is_dir()
    kernels = compiled_kernels()
    assert len(kernels) > 20
    left = {name for name, kernel in kernels.items() if not is_compiled_for_float32(kernel)}
    for_tests_and_benchmarks = {
        f"product.{name}" for name in ("gemm.gemm_forward", "gemm.pack_forward", "peak.fma_chains")
    }
    always_double = {"elementwise.noise.uniform_rows"} | {
        f"losses.quantiles.{name}_quantiles" for name in ("normal", "student_t", "negative_binomial")
    }
    in_bfloat16 = {
        "losses.fused_loss.rounded_affine_softmax_loss",
        "recurrence.groups.rounded_group_gradients",
    }
    others = for_tests_and_benchmarks | always_double | in_bfloat16
    assert left <= {f"rnnfast.kernels.{name}" for name in others}
    assert all(kernels[f"rnnfast.kernels.{name}"].signatures for name in always_double)


def test_every_optimizer_can_be_made_by_its_name():
    for name, (kind, rate) in OPTIMIZERS.items():
        optimizer = Settings(optimizer=name).resolved().make_optimizer()
        assert type(optimizer) is kind
        assert optimizer.lr == rate
        given = {option: 0.5 for option in OPTIMIZER_OPTIONS if option in kind.hyperparameters}
        optimizer = Settings(optimizer=name, **given).resolved().make_optimizer()
        assert {option: getattr(optimizer, option) for option in given} == given
    assert Settings().resolved().make_optimizer().weight_decay == WEIGHT_DECAY


def test_cells_may_be_called_as_in_word_language_model(text, tmp_path):
    cells = {"LSTM": "lstm", "RNN_TANH": "rnn", "rnn_relu": "relu", "Gru": "gru"}
    options = (*SMALL, "--epochs", "1", "--no-baseline", "--optimizer", "momentum", "--momentum", "0.5")
    for flag, (given, cell) in zip(("--model", "--cell") * 2, cells.items(), strict=True):
        folder = tmp_path / cell
        assert rnnfast_command("train", text, *options, flag, given, "--save", folder)[0] == 0
        model, _, config = load_checkpoint(folder)
        assert (model.config["cell"], config["settings"]["momentum"]) == (cell, 0.5)


def test_importing_the_entry_point_does_not_import_the_extras():
    code = "import sys, rnnfast.cli; assert not {'typer', 'rich', 'matplotlib'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("command", [(), *((name,) for name in ("train", "evaluate", "diagnose", "bench"))])
def test_the_help_shows_no_type_for_a_flag(command):
    code, out, err = rnnfast_command(*command, "--help")
    assert (code, err) == (0, "")
    assert "--help" in out
    assert "bool" not in out.lower()
