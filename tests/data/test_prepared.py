"""Text that others have prepared: nothing is split again, and perplexities are those of published models."""

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import rnnfast
from rnnfast.cli.app import app
from rnnfast.cli.experiment import Settings
from rnnfast.data import WhitespaceTokenizer, WordTokenizer, tokenizer_from_dict
from rnnfast.training import load_checkpoint

ROOT = Path(__file__).resolve().parents[2]
PREPARED = " mr. <unk> is chairman of <unk> n.v. the dutch publishing group \n rudolph <unk> N years old \n"


def test_what_white_space_separates_stays_whole_and_each_line_end_is_eos():
    tokenizer = WhitespaceTokenizer.fit(PREPARED)
    expected = (
        "mr. <unk> is chairman of <unk> n.v. the dutch publishing group <eos> rudolph <unk> N years old <eos>"
    )
    assert [tokenizer.id_to_token[i] for i in tokenizer.encode(PREPARED)] == expected.split()
    assert set(tokenizer.id_to_token) == set(expected.split())
    assert tokenizer.id_to_token[:2] == ["<unk>", "<eos>"]
    assert (tokenizer.encode("<unk> never-seen") == tokenizer.unk_id).all()


def test_the_ids_are_those_of_the_book():
    """`load_data` of *Deep Learning from Scratch 2*: each line end is <eos>, then split."""
    words = PREPARED.replace("\n", "<eos>").strip().split()
    tokenizer = WhitespaceTokenizer.fit(PREPARED)
    assert [tokenizer.id_to_token[i] for i in tokenizer.encode(PREPARED)] == words


def test_blank_lines_count_as_in_word_language_model():
    tokenizer = WhitespaceTokenizer(["a"])
    np.testing.assert_array_equal(tokenizer.encode("\na\n \n"), [1, 2, 1, 1])


@given(st.text(alphabet="aN. <>\n\u00e9", max_size=60))
def test_decoding_gives_the_words_and_lines_back(text):
    tokenizer = WhitespaceTokenizer.fit(text + " a")
    decoded = tokenizer.decode(tokenizer.encode(text))
    assert [line.split() for line in decoded.split("\n")] == [line.split() for line in text.split("\n")]


@given(st.lists(st.text(alphabet="ab \n", max_size=12), max_size=5))
def test_encoding_piece_by_piece_equals_encoding_the_whole(texts):
    whole = "".join(text if text.endswith("\n") or not text else text + "\n" for text in texts)
    tokenizer = WhitespaceTokenizer(["a", "ab"])
    actual = np.concatenate([np.empty(0, np.int64), *tokenizer.encode_pieces(texts)])
    np.testing.assert_array_equal(actual, tokenizer.encode(whole))


def test_it_is_saved_loaded_and_told_from_others():
    tokenizer = WhitespaceTokenizer.fit(PREPARED)
    saved = json.loads(json.dumps(tokenizer.to_dict()))
    assert saved["kind"] == "whitespace"
    for actual in (tokenizer_from_dict(saved), WhitespaceTokenizer.from_dict(saved)):
        assert actual == tokenizer
        assert type(actual) is WhitespaceTokenizer
    assert tokenizer.fingerprint() != WordTokenizer(saved["tokens"]).fingerprint()
    with pytest.raises(ValueError, match="kind must be 'word', got 'whitespace'"):
        WordTokenizer.from_dict(saved)
    assert rnnfast.WhitespaceTokenizer is WhitespaceTokenizer


def test_the_vocabulary_of_a_prepared_text_is_kept_whole_by_default():
    assert Settings(tokenizer="whitespace").resolved().min_count == 1
    assert Settings().resolved().min_count == 2
    assert not Settings(tokenizer="whitespace").resolved().lower
    assert Settings().resolved().lower


def test_words_are_tied_and_characters_are_not():
    assert [Settings(tokenizer=kind).resolved().tied for kind in ("word", "whitespace", "char")] == [
        True,
        True,
        False,
    ]
    assert Settings(tokenizer="char", tied=True).resolved().tied
    assert not Settings(nhid=9).resolved().tied


def test_the_recipe_for_the_penn_treebank_runs_on_a_small_prepared_text(tmp_path):
    """Every option of the recipe in the documentation, with smaller sizes."""
    page = (ROOT / "docs" / "guides" / "command-line.md").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in page.splitlines() if line.startswith("rnnfast train ptb.train.txt")]
    assert len(lines) == 2
    rng = np.random.default_rng(0)
    words = np.array(["mr.", "<unk>", "N", "the", "n.v.", "of", "'s", "n't"])
    for part in ("train", "valid", "test"):
        text = "".join(" " + " ".join(words[rng.integers(8, size=12)]) + " \n" for _ in range(80))
        (tmp_path / f"ptb.{part}.txt").write_text(text)
    smaller = {"--emsize": "6", "--nhid": "6", "--epochs": "2"}
    for number, line in enumerate(lines):
        given = line.split()[1:]
        for option, value in smaller.items():
            given[given.index(option) + 1] = value
        given[given.index("--save") + 1] = str(tmp_path / f"run{number}")
        given = [str(tmp_path / part) if part.startswith("ptb.") else part for part in given]
        out = io.StringIO()
        with contextlib.redirect_stdout(out), pytest.raises(SystemExit) as stop:
            app(given, prog_name="rnnfast")
        assert stop.value.code == 0
        run = load_checkpoint(tmp_path / f"run{number}")
        assert run.tokenizer.vocab_size == 9
        assert run.config["settings"]["tokenizer"] == "whitespace"
        out = io.StringIO()
        with contextlib.redirect_stdout(out), pytest.raises(SystemExit):
            app(["evaluate", str(tmp_path / f"run{number}"), str(tmp_path / "ptb.test.txt"), "--json"])
        found = json.loads(out.getvalue())
        assert found["tokens"] == 80 * 13
        assert found["perplexity"] < 14
