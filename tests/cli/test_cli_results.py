"""What a run says of itself: tables for narrow terminals, warnings, and progress while a text is read."""

import contextlib
import io
import re

import numpy as np
import pytest
from helpers import needs_jit
from rich.console import Console

from rnnfast.cli import progress, session
from rnnfast.cli.app import app
from rnnfast.cli.progress import LiveReading, PlainProgress, PlainReading, show_reading
from rnnfast.cli.results import Result, show_results
from rnnfast.data import CharTokenizer, Corpus, read_files
from rnnfast.training import load_checkpoint

SMALL = ["--emsize", "6", "--nhid", "6", "--bptt", "5", "--batch-size", "2", "--epochs", "1"]
RESULTS = [
    Result("LSTM, 12 x 1000", 123456.78, 123_456_789, 40, 40, 1_234_567.0),
    Result("CBOW, last 12 words", 77.2, 457_075, 20, 40, 95_000.0),
    Result("unigram, add one", 245.81, 10_000),
]


def shown(width):
    file = io.StringIO()
    show_results(Console(file=file, width=width, highlight=False), RESULTS)
    return file.getvalue()


@pytest.mark.parametrize("width", [50, 60, 80, 120])
def test_nothing_of_the_results_is_cut_or_wrapped(width):
    out = shown(width)
    assert "\u2026" not in out
    assert max(map(len, out.splitlines())) <= width
    for whole in (
        "LSTM, 12 x 1000",
        "CBOW, last 12 words",
        "unigram, add one",
        "123456.78",
        "77.20",
        "245.81",
    ):
        assert whole in out
    for whole in (
        "123,456,789",
        "1,234,567",
        "457,075",
        "10,000",
        "40",
        "best epoch",
        "tokens/s",
        "parameters",
    ):
        assert whole in out
    assert all(word in out for word in ("validation", "perplexity"))


@pytest.mark.parametrize("columns", ["50", "80"])
def test_the_table_of_a_run_fits_the_terminal(tmp_path, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    text = tmp_path / "song.txt"
    text.write_text("you say goodbye and i say hello\n" * 40)
    options = [
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
        "1",
    ]
    out = io.StringIO()
    with contextlib.redirect_stdout(out), pytest.raises(SystemExit) as stop:
        app(["train", str(text), *options, "--save", str(tmp_path / "run")], prog_name="rnnfast")
    assert stop.value.code == 0
    table = out.getvalue().partition("CBOW: 1 epoch in")[2].partition("unigram: each")[0]
    assert "\u2026" not in table
    for whole in ("RNN, 1 x 6", "CBOW, last 2 words", "unigram, add one", "best epoch", "parameters"):
        assert whole in table


def test_an_epoch_that_word_frequencies_beat_is_not_called_the_best():
    file = io.StringIO()
    with PlainProgress(Console(file=file), "GRU", interval=7) as display:
        record = {"epoch": 1, "train_perplexity": 9.0, "valid_perplexity": 314337.0, "improved": True}
        display.epoch(record, 3, 21.5)
        display.epoch({**record, "valid_perplexity": 20.0}, 3, 21.5)
    first, second = file.getvalue().splitlines()
    assert first.endswith("validation 314337.0, worse than the unigram's 21.5")
    assert second.endswith("validation 20.0, the best so far")


@pytest.mark.parametrize(("lr", "warned"), [("0", True), ("0.02", False)])
def test_a_model_that_word_frequencies_beat_is_warned_of_in_one_line(tmp_path, lr, warned):
    text = tmp_path / "song.txt"
    text.write_text("you say goodbye and i say hello\n" * 60)
    options = f"--emsize 8 --nhid 8 --bptt 5 --batch-size 2 --dropout 0 --epochs 6 --lr {lr} --no-baseline"
    out = io.StringIO()
    with contextlib.redirect_stdout(out), pytest.raises(SystemExit) as stop:
        app(["train", str(text), *options.split(), "--save", str(tmp_path / "run")], prog_name="rnnfast")
    assert stop.value.code == 0
    found = re.findall(r"^warning: RNN, 1 x 8: worse than the unigram, .*\.$", out.getvalue(), re.M)
    assert len(found) == warned


@needs_jit
def test_one_unknown_character_does_not_ruin_a_character_model(tmp_path):
    """Its vector, never learned from, was an output weight too, and cost a perplexity of thousands."""
    (tmp_path / "train.txt").write_text("you say goodbye and i say hello\n" * 60)
    (tmp_path / "valid.txt").write_text("you say hello \u2603 and i say goodbye\n" * 4)
    options = (
        "--tokenizer char --cell gru --emsize 32 --nhid 32 --bptt 20 --batch-size 4 --dropout 0 --epochs 12"
    )
    command = ["train", str(tmp_path / "train.txt"), "--valid", str(tmp_path / "valid.txt"), *options.split()]
    with contextlib.redirect_stdout(io.StringIO()), pytest.raises(SystemExit) as stop:
        app([*command, "--no-baseline", "--save", str(tmp_path / "run")], prog_name="rnnfast")
    assert stop.value.code == 0
    model, tokenizer, config = load_checkpoint(tmp_path / "run")
    assert isinstance(tokenizer, CharTokenizer)
    assert not model.config["tied"]
    assert config["valid_perplexity"] < 10


# Reading.


def test_a_terminal_shows_a_bar_while_a_text_is_read(monkeypatch):
    monkeypatch.setattr(progress, "_OFTEN", 10)
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=80)
    text = Corpus.from_lines(["you say goodbye"] * 10, "song.txt")
    with show_reading(console) as reading:
        assert type(reading) is LiveReading
        watched = reading.watch("learning the vocabulary", text)
        seen = []
        for number, piece in enumerate(watched):
            seen.append(piece)
            if number == 5:
                reading._bar.refresh()
        assert (watched.name, watched.size) == ("song.txt", text.size)
    assert seen == list(text)
    plain = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", file.getvalue())
    assert re.search(r"learning the vocabulary .* [56]\d %", plain)


def test_without_a_terminal_only_large_texts_are_announced():
    file = io.StringIO()
    with show_reading(Console(file=file, width=80)) as reading:
        assert type(reading) is PlainReading
        small, large = Corpus("a.txt", 1000, lambda: iter(())), Corpus("b.txt", 2 * 10**8, lambda: iter(()))
        assert reading.watch("encoding", small) is small
        assert reading.watch("encoding", large) is large
    assert file.getvalue() == "encoding: b.txt, 200 MB\n"


def test_every_pass_over_the_text_is_watched(tmp_path, monkeypatch):
    seen = []

    def watch(self, what, text):
        seen.append((what, text.name))
        return text

    monkeypatch.setattr(PlainReading, "watch", watch)
    text = tmp_path / "song.txt"
    text.write_text("you say goodbye and i say hello\n" * 40)
    options = [
        "--emsize",
        "6",
        "--nhid",
        "6",
        "--bptt",
        "5",
        "--batch-size",
        "2",
        "--epochs",
        "1",
        "--no-baseline",
    ]
    with contextlib.redirect_stdout(io.StringIO()), pytest.raises(SystemExit):
        app(["train", str(text), *options, "--save", str(tmp_path / "run")], prog_name="rnnfast")
    learned, judged = (f"the {part} part of {text}" for part in ("training", "validation"))
    assert seen == [("learning the vocabulary", learned), ("encoding", learned), ("encoding", judged)]
    assert np.array_equal(list(read_files(text)), ["you say goodbye and i say hello\n"] * 40)


def test_a_network_of_relu_units_is_called_so_everywhere(tmp_path, monkeypatch):
    titles = []
    drawn = session.draw_learning_curve
    monkeypatch.setattr(
        session, "draw_learning_curve", lambda *given: (titles.append(given[3]), drawn(*given))
    )
    text = tmp_path / "song.txt"
    text.write_text("you say goodbye and i say hello\n" * 40)
    out = io.StringIO()
    with contextlib.redirect_stdout(out), pytest.raises(SystemExit) as stop:
        app(["train", str(text), *SMALL, "--cell", "relu", "--no-baseline", "--save", str(tmp_path / "run")])
    assert stop.value.code == 0
    for words in (
        "RNN (relu) epoch 1/1 done",
        "RNN (relu): 1 epoch in",
        "RNN (relu), 1 x 6",
        "RNN (relu) writes:",
    ):
        assert words in out.getvalue()
    assert titles == [f"Perplexity by epoch: {text}"]
