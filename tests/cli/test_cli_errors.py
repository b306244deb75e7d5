"""What the command line refuses, in the words of the command line: options and files, no functions."""

import re

import numpy as np
import pytest
from cli_helpers import rnnfast_command

import rnnfast
from rnnfast import _check, cells, data, diagnostics, models, optim, training
from rnnfast.cli.experiment import Settings
from rnnfast.data import CharTokenizer, WhitespaceTokenizer, WordTokenizer, encode_to_memmap
from rnnfast.models import RNNLM, SequenceRegressor
from rnnfast.training import Checkpoint

TEXT = "you say goodbye and i say hello . hello hello i do not know why you say goodbye\n" * 12
# What a user of the command line has never called.
FUNCTIONS = {
    name
    for module in (rnnfast, data, diagnostics, models, optim, training)
    for name in module.__all__
    if name not in ("cells", "optim", "perplexity", "warmup", *cells.__all__)  # words of cells: given, unit
}


def refusal(*arguments):
    """The one line on stderr of a command that is refused."""
    code, out, err = rnnfast_command(*arguments)
    assert (code, err.count("\n")) == (2, 1), (out, err)
    assert err.startswith("rnnfast: "), err
    assert not FUNCTIONS & set(re.findall(r"\w+", err)), err
    assert not re.search(r"\b[a-z]+_[a-z_]+ (must|belongs|is)\b", err), err
    return err


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "song"
    tokenizer = WordTokenizer.fit(TEXT)
    model = RNNLM(tokenizer.vocab_size, 4, 4, rng=np.random.default_rng(0))
    Checkpoint(folder, tokenizer=tokenizer)(model, {"epoch": 1})
    encode_to_memmap(tokenizer, TEXT, folder / "valid.npy")
    return folder


WHOLE = {"epochs": 1, "batch-size": 1, "bptt": 1, "emsize": 1, "nhid": 1, "nlayers": 1, "min-count": 1}
WHOLE |= {"max-vocab": 3, "patience": 0, "seed": 0, "window": 1, "log-interval": 1}
NUMBERS = {
    "lr": 0,
    "eps": 0,
    "weight-decay": 0,
    "clip": 0,
    "clip-value": 0,
    "anneal": 1,
    "checkpoint-every": 0,
}
SHARES = ("dropout", "momentum", "beta1", "beta2", "decay-rate")


@pytest.mark.parametrize(("option", "low"), WHOLE.items())
def test_whole_numbers_are_refused_in_one_way(option, low):
    assert refusal("train", f"--{option}", low - 1) == (
        f"rnnfast: --{option} must be at least {low}, got {low - 1}.\n"
    )
    for value in ("many", "1.5", "nan"):
        assert refusal("train", f"--{option}", value) == (
            f"rnnfast: --{option} must be a whole number, got '{value}'.\n"
        )


@pytest.mark.parametrize(("option", "low"), NUMBERS.items())
def test_numbers_are_refused_in_one_way(option, low):
    words = f"rnnfast: --{option} must be"
    assert refusal("train", f"--{option}", low - 0.5) == f"{words} at least {low}, got {low - 0.5}.\n"
    for value in ("nan", "inf", "-inf"):
        assert refusal("train", f"--{option}", value) == f"{words} finite, got {value}.\n"
    assert refusal("train", f"--{option}", "fast") == f"{words} a number, got 'fast'.\n"


@pytest.mark.parametrize("option", SHARES)
@pytest.mark.parametrize("value", ["-0.5", "1.0", "nan", "inf"])
def test_shares_are_refused_in_one_way(option, value):
    expected = f"rnnfast: --{option} must be at least 0 and below 1, got {value}.\n"
    assert refusal("train", f"--{option}", value) == expected


@pytest.mark.parametrize("option", ["emsize", "nhid", "nlayers", "window"])
def test_sizes_beyond_any_machine_are_refused_before_they_are_tried(option):
    assert f"--{option} must be at most 1000" in refusal("train", f"--{option}", 10**20)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--cell", "quantum"), "--cell must be one of rnn, relu, lstm, gru, gru_after, leaky, "),
        (("--tied", "--nhid", "9"), "--tied needs --emsize equal to --nhid, got 200 and 9"),
        (
            ("--optimizer", "sgd", "--beta1", "0.5"),
            "--beta1 belongs to --optimizer adamw or adam; leave",
        ),
        (("--eps", "1", "--optimizer", "sgd"), "--eps belongs to --optimizer "),
        (("--lower", "--tokenizer", "char"), "--lower belongs to --tokenizer word; leave it out."),
        (("--min-count", "100000"), "no token occurs 100000 times; lower --min-count, or give more text."),
        (
            ("--bptt", "1000", "--batch-size", "7"),
            "too short: --batch-size 7 and --bptt 1000 need 7001 tokens",
        ),
        (("missing.txt",), "rnnfast: missing.txt does not exist."),
        (("--valid", "missing.txt"), "rnnfast: missing.txt does not exist."),
        (("--encoding", "martian"), "--encoding must be a text encoding, such as utf-8"),
        (("--encoding", "zlib"), "--encoding must be a text encoding, such as utf-8"),
        (("--encoding", "rot13"), "--encoding must be a text encoding, such as utf-8"),
    ],
)
def test_settings_of_train_are_refused_by_the_names_of_their_options(text, tmp_path, options, expected):
    assert expected in refusal("train", text, "--save", tmp_path / "run", *options)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            ("--valid", "x.txt", "--valid-fraction", "0.1"),
            "--valid-fraction has no effect with --valid; leave",
        ),
        (("--no-baseline", "--window", "2"), "--window has no effect with --no-baseline; leave it out."),
        (("--overwrite",), "--overwrite has no effect without --save"),
        (("--encoding", "utf-16"), "--encoding has no effect without files; leave it out."),
    ],
)
def test_an_option_that_another_leaves_without_effect_is_an_error(options, expected):
    assert expected in refusal("train", *options)


def test_the_other_commands_have_no_options_without_effect(run):
    assert "--encoding has no effect" in refusal("evaluate", run, "--encoding", "utf-16")
    assert "--top-k has no effect" in refusal("generate", run, "--temperature", 0, "--top-k", 3)
    assert "--top-p has no effect" in refusal("generate", run, "--temperature", 0, "--top-p", 0.5)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("generate", "--length", "0"), "--length must be at least 1, got 0."),
        (("generate", "--temperature", "nan"), "--temperature must be finite, got nan."),
        (("generate", "--temperature", "-1"), "--temperature must be at least 0, got -1.0."),
        (("generate", "--top-k", "0"), "--top-k must be at least 1, got 0."),
        (("generate", "--top-p", "nan"), "--top-p must be finite, got nan."),
        (("generate", "--top-p", "1.5"), "--top-p must be from 0 to 1, got 1.5."),
        (("generate", "--top-p", "0"), "--top-p must be above 0 and at most 1, got 0.0."),
        (("evaluate", "--last"), "this run did not stop early; leave out --last."),
        (("predict", ""), "the prompt has no words."),
        (("generate", "--seed", "-1"), "--seed must be at least 0, got -1."),
        (("predict", "you", "--top", "0"), "--top must be at least 1, got 0."),
        (("diagnose", "--lags", "0"), "--lags must be at least 1, got 0."),
        (("diagnose", "--lags", "100000"), "use fewer lags"),
        (("diagnose", "--seed", "-1"), "--seed must be at least 0, got -1."),
        (("evaluate", "missing.txt"), "rnnfast: missing.txt does not exist."),
    ],
)
def test_the_other_commands_speak_of_options_too(run, arguments, expected):
    command, *others = arguments
    assert expected in refusal(command, run, *others)


def test_warmup_speaks_of_options_too():
    assert "--dtype must be one of float32, float64, got 'float16'." in refusal(
        "warmup", "--dtype", "float16"
    )


def test_a_file_with_too_few_tokens_is_named(run, tmp_path):
    short = tmp_path / "short.txt"
    short.write_text("")
    assert f"{short}: no text" in refusal("evaluate", run, short)
    Checkpoint(tmp_path / "char", tokenizer=(char := CharTokenizer.fit("ab")))(
        RNNLM(char.vocab_size, 2, 2), {"epoch": 1}
    )
    encode_to_memmap(char, ["\n"], tmp_path / "char" / "valid.npy")
    assert "valid.npy must have at least 2 tokens, got 1." in refusal("evaluate", tmp_path / "char")


def test_words_of_a_few_may_be_written_in_upper_case(text, tmp_path):
    options = "--cell LSTM --optimizer Adam --tokenizer WORD --dtype Float64 --emsize 4 --nhid 4 --epochs 1"
    command = ("train", text, *options.split(), "--batch-size", 2, "--bptt", 5, "--no-baseline")
    code, out, err = rnnfast_command(*command, "--save", tmp_path / "run")
    assert (code, err) == (0, "")
    assert "LSTM, 1 x 4" in out


def test_python_takes_words_in_upper_case_too():
    assert RNNLM(5, 4, 4, cell="LSTM").config["cell"] == "lstm"
    assert SequenceRegressor(3, 4, 1, cell="Gru").config["cell"] == "gru"
    assert rnnfast.TimeRNN.from_sizes(3, 4, activation="ReLU").activation == "relu"
    assert Settings(optimizer="AdamW", tokenizer="Char").resolved().tokenizer == "char"
    with pytest.raises(ValueError, match=r"cell must be one of rnn, relu, lstm, gru, .*, got 'LSTN'"):
        RNNLM(5, 4, 4, cell="LSTN")
    with pytest.raises(ValueError, match="word must be one of a, b, got None"):
        _check.values.choice("x", "word", None, ("a", "b"))


@pytest.mark.parametrize("arguments", [("generate",), ("train", "--epochs"), ("bench", "--shapes")])
def test_a_missing_argument_points_to_the_help_of_its_command(arguments):
    code, _, err = rnnfast_command(*arguments)
    assert code == 2
    assert err.endswith(f"; see rnnfast {arguments[0]} --help.\n")


@pytest.mark.parametrize("command", [(), ("train",), ("generate",)])
def test_help_has_a_short_option_too(command):
    code, out, err = rnnfast_command(*command, "-h")
    assert (code, err) == (0, "")
    assert out == rnnfast_command(*command, "--help")[1]


def test_a_run_is_not_saved_where_a_file_lies_nor_from_a_text_without_words(text, tmp_path):
    assert refusal("train", text, "--save", text) == f"rnnfast: {text} is a file, not a folder.\n"
    blank = tmp_path / "blank.txt"
    blank.write_text(" \n \n" * 30)
    assert f"rnnfast: {blank} has no words" in refusal("train", blank, "--save", tmp_path / "run")


def test_only_words_that_are_unknown_to_a_model_are_warned_of(tmp_path):
    tokenizer = WhitespaceTokenizer.fit("the <unk> N of a day")
    model = RNNLM(tokenizer.vocab_size, 2, 2, rng=np.random.default_rng(0))
    Checkpoint(tmp_path, tokenizer=tokenizer)(model, {"epoch": 1})
    assert rnnfast_command("predict", tmp_path, "the <unk> N")[2] == ""
    expected = "warning: not in the model's vocabulary: zebra\n"
    assert rnnfast_command("predict", tmp_path, "the <unk> zebra")[2] == expected
    char = CharTokenizer.fit("ab")
    Checkpoint(tmp_path / "char", tokenizer=char)(RNNLM(char.vocab_size, 2, 2), {"epoch": 1})
    assert "the prompt has no characters." in refusal("predict", tmp_path / "char", "")
