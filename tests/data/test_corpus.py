"""Corpora: streamed, split the same way each time, written to disk whole, and refused clearly."""

import os
import re
import sys
import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rnnfast.data import (
    CharTokenizer,
    Corpus,
    CorpusError,
    WindowBatches,
    WordTokenizer,
    corpus,
    default_corpus,
    encode_to_memmap,
    ids_file,
    open_ids,
    read_files,
)
from rnnfast.data.samples import prose_paragraphs


def write(path, content):
    path.write_bytes(content)
    return path


def expected_text(content):
    """The text of one file, by the slow and obvious way."""
    text = content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    return text if text.endswith("\n") or not text else text + "\n"


def test_several_files_are_read_in_order_with_a_line_end_after_each(tmp_path):
    one = write(tmp_path / "1.txt", "caf\u00e9\r\nb\rc".encode())
    two = write(tmp_path / "2.txt", b"")
    three = write(tmp_path / "3.txt", b"\xef\xbb\xbfd\n\ne\n")
    text = read_files([one, str(two), three])
    assert list(text) == ["caf\u00e9\n", "b\n", "c\n", "d\n", "\n", "e\n"]
    assert list(text) == list(text)
    assert list(read_files(str(three))) == ["d\n", "\n", "e\n"]


@pytest.mark.parametrize("read_bytes", [1, 2, 3, 7, 1 << 16])
def test_the_text_does_not_depend_on_the_size_of_reads(tmp_path, monkeypatch, read_bytes):
    monkeypatch.setattr(corpus, "_READ_BYTES", read_bytes)
    monkeypatch.setattr(corpus, "_LONGEST_PIECE", 8)
    content = (
        "\ufeffa \u00e9\u20ac\U0001f600\r\n\r\n long line of words \u00e9\n12345678\n123456789\rx".encode()
    )
    pieces = list(read_files(write(tmp_path / "a", content)))
    assert "".join(pieces) == expected_text(content)
    monkeypatch.setattr(corpus, "_READ_BYTES", 1000)
    assert pieces == list(read_files(tmp_path / "a"))
    assert max(map(len, pieces)) <= 8


@given(st.text(alphabet="ab \r\n\u00e9\u2028\x85\x0b", max_size=200), st.integers(1, 40), st.integers(2, 20))
def test_pieces_make_up_the_text_and_end_behind_spaces_or_lines(tmp_path_factory, text, read_bytes, longest):
    content = (text + "x").encode()
    path = write(tmp_path_factory.mktemp("files") / "a", content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corpus, "_READ_BYTES", read_bytes)
        patch.setattr(corpus, "_LONGEST_PIECE", longest)
        pieces = list(read_files(path))
    assert "".join(pieces) == expected_text(content)
    for piece in pieces:
        assert len(piece) <= longest + 1  # for a supplied line end
        assert piece.endswith((" ", "\n")) or (len(piece) == longest and " " not in piece)
        assert "\n" not in piece[:-1]


def test_a_file_without_line_ends_gives_the_words_of_its_text(tmp_path):
    words = [f"word{n}" for n in range(20_000)]
    text = read_files(write(tmp_path / "a", " ".join(words).encode()))
    tokenizer = WordTokenizer.fit(text)
    actual = np.concatenate(list(tokenizer.encode_pieces(text)))
    expected = [*(tokenizer.token_to_id[word] for word in words), tokenizer.eos_id]
    np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("read_bytes", [1, 5, 1 << 16])
@pytest.mark.parametrize(
    ("content", "offset", "byte"),
    [
        (b"caf\xe9 noir", 3, "0xE9"),
        (b"ok\n" * 9 + b"\xff", 27, "0xFF"),
        ("\u20ac".encode() * 4 + "\u20ac".encode()[:2], 12, "0xE2"),
        (b"\xef\xbb\xbfab\x80", 5, "0x80"),
    ],
)
def test_bytes_that_are_not_utf8_are_named_with_file_and_place(
    tmp_path, monkeypatch, content, offset, byte, read_bytes
):
    monkeypatch.setattr(corpus, "_READ_BYTES", read_bytes)
    good = write(tmp_path / "good.txt", b"abc\n" * 100)
    text = read_files([good, write(tmp_path / "bad.txt", content)])
    with pytest.raises(CorpusError, match=rf"bad\.txt must be UTF-8 text, but byte {offset} \({byte}\)"):
        WordTokenizer.fit(text)


def test_files_that_cannot_be_used_are_refused_at_once(tmp_path):
    empty = write(tmp_path / "empty.txt", b"")
    with pytest.raises(CorpusError, match=r"missing\.txt does not exist"):
        read_files([empty, tmp_path / "missing.txt"])
    with pytest.raises(CorpusError, match="is a folder; name the text files"):
        read_files(tmp_path)
    with pytest.raises(CorpusError, match=r"empty\.txt: no text"):
        read_files([empty])
    with pytest.raises(CorpusError, match="at least one file is needed"):
        read_files([])


@pytest.mark.skipif(os.name == "nt", reason="POSIX pipes and permissions")
def test_pipes_and_unreadable_files_are_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(CorpusError, match="pipe must be a regular file"):
        read_files(tmp_path / "pipe")
    secret = write(tmp_path / "secret", b"x")
    with pytest.MonkeyPatch.context() as patch:

        def refuse(*arguments, **options):
            raise PermissionError(13, "Permission denied")

        patch.setattr("builtins.open", refuse)
        with pytest.raises(CorpusError, match=r"secret cannot be read \(Permission denied\)"):
            read_files(secret)


def test_white_space_alone_is_an_empty_text_for_words(tmp_path):
    text = read_files(write(tmp_path / "blank.txt", b" \n\t\n"))
    with pytest.raises(CorpusError, match=r"WordTokenizer\.fit: .*blank\.txt has no words"):
        WordTokenizer.fit(text)


@given(
    st.lists(st.sampled_from(["a b c", "", "longer line of text", "x"]), min_size=2, max_size=80),
    st.floats(0.01, 0.9),
)
def test_the_parts_of_a_split_share_nothing_and_together_are_everything(lines, fraction):
    numbered = [f"{n} {line}" if line else line for n, line in enumerate(lines)]
    whole = Corpus.from_lines([line + "\n" for line in numbered])
    train, valid = whole.split(fraction)
    assert sorted([*train, *valid]) == sorted(whole)
    assert list(train) == list(whole.split(fraction)[0])
    for part in (train, valid):
        numbers = [int(piece.split()[0]) for piece in part if piece.strip()]
        assert numbers == sorted(numbers)


@pytest.mark.parametrize("fraction", [0.05, 0.1, 0.3, 0.5])
@pytest.mark.parametrize("lines_a_paragraph", [1, 4, 10**9])
def test_the_held_out_share_is_right_and_spread_over_the_text(fraction, lines_a_paragraph):
    lines = []
    for n in range(20_000):
        lines.append(f"this is line number {n}\n")
        if n % lines_a_paragraph == lines_a_paragraph - 1:
            lines.append("\n")
    whole = Corpus.from_lines(lines)
    train, valid = whole.split(fraction)
    held = [int(line.split()[-1]) for line in valid if line.strip()]
    assert abs(len(held) / 20_000 - fraction) < 0.25 * fraction
    for quarter in range(4):
        share = sum(quarter * 5000 <= n < (quarter + 1) * 5000 for n in held) / 5000
        assert abs(share - fraction) < 0.5 * fraction
    assert abs(train.size + valid.size - whole.size) <= 1
    # Blocks are long enough for a model to use their context.
    runs = 1 + sum(b != a + 1 for a, b in pairwise(held))
    assert 4 <= runs <= 40


def test_paragraphs_stay_whole():
    lines = []
    for n in range(500):
        lines += [f"paragraph {n}\n", f"still {n}\n", "\n"]
    for part in Corpus.from_lines(lines).split(0.2):
        pieces = list(part)
        assert len(pieces) % 3 == 0
        for start in range(0, len(pieces), 3):
            assert pieces[start].split()[1] == pieces[start + 1].split()[1]
            assert pieces[start + 2] == "\n"


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5, float("nan")])
def test_shares_outside_zero_to_one_are_refused(fraction):
    with pytest.raises(ValueError, match=r"^Corpus\.split: fraction must lie between 0 and 1"):
        Corpus.from_lines(["a"]).split(fraction)


def test_a_part_that_stays_empty_is_named(tmp_path):
    train, valid = Corpus.from_lines(["only line"], "song.txt").split()
    tokenizer = WordTokenizer.fit(train)
    with pytest.raises(CorpusError, match=r"the validation part of song\.txt is empty"):
        encode_to_memmap(tokenizer, valid, tmp_path / "valid.npy")
    assert list(tmp_path.iterdir()) == []


def test_the_default_corpus_is_english_and_large_enough():
    text = default_corpus()
    lines = [line for line in text if line.strip()]
    words = " ".join(lines).split()
    assert 30_000 < len(words) < 100_000
    assert sum(line[0].isupper() for line in lines) > 0.9 * len(lines)
    assert sum(line.endswith((".\n", ":\n", ".)\n", "!\n", "?\n")) for line in lines) > 0.99 * len(lines)
    for mark in ("::=", ">>>", "***", "===", "| ", '"', "`", "-["):
        assert not [line for line in lines if mark in line], mark
    assert list(default_corpus()) == list(text)


def test_no_paragraph_of_the_default_corpus_is_both_trained_on_and_held_out():
    def paragraphs(part):
        return {paragraph for paragraph in "".join(part).split("\n\n") if paragraph.strip()}

    train, valid = default_corpus().split()
    assert paragraphs(train)
    assert paragraphs(valid)
    assert not paragraphs(train) & paragraphs(valid)


def test_the_held_out_part_of_the_default_corpus_has_the_words_of_the_other():
    train, valid = default_corpus().split()
    tokenizer = WordTokenizer.fit(train, lower=True)
    ids = np.concatenate(list(tokenizer.encode_pieces(valid)))
    assert np.mean(ids == tokenizer.unk_id) < 0.06
    assert len(ids) > 3500


def test_a_python_without_the_topics_is_told_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    with pytest.raises(CorpusError, match=r"comes without pydoc_data\.topics"):
        default_corpus()


def test_markup_is_removed_and_only_sentences_stay():
    page = (
        'The "with" statement\n********************\n\n   with_stmt ::= "with" expression\n\n'
        'The *target* of a **with** statement is a left-\nhand side, see `here` [1]; call "f()" first.\n\n'
        "* The first item is of some length.\n  It goes on.\n* The second item is long enough.\n\n"
        ">>> print('the code is not kept here.')\n\n"
        "+---+\n| a |\n+---+\n\n"
        "x += 3; y = f(x, y) -> 2 if z.\n\n"
        "term\n   The meaning of the term is here.\n\n"
        "Too short.\n"
    )
    assert list(prose_paragraphs(page)) == [
        "The target of a with statement is a left-hand side, see here; call f first.",
        "The first item is of some length. It goes on.",
        "The second item is long enough.",
        "The meaning of the term is here.",
    ]


@pytest.mark.parametrize("write_tokens", [1, 4, 1 << 14])
def test_ids_in_a_file_equal_ids_in_memory(tmp_path, monkeypatch, write_tokens):
    monkeypatch.setattr(ids_file, "_WRITE_TOKENS", write_tokens)
    text = ["you say goodbye\n", "\n", "and i say hello .\n"]
    for tokenizer in (WordTokenizer.fit(text), CharTokenizer.fit(text)):
        actual = encode_to_memmap(tokenizer, text, tmp_path / "ids.npy")
        expected = tokenizer.encode("".join(text))
        assert isinstance(actual, np.memmap)
        assert actual.dtype == np.uint16
        assert not actual.flags.writeable
        np.testing.assert_array_equal(actual, expected)
        np.testing.assert_array_equal(open_ids(str(tmp_path / "ids.npy")), expected)
        np.testing.assert_array_equal(np.load(tmp_path / "ids.npy"), expected)
    assert [path.name for path in tmp_path.iterdir()] == ["ids.npy"]


@pytest.mark.parametrize(("vocab_size", "dtype"), [(65_536, np.uint16), (65_537, np.uint32)])
def test_two_bytes_are_used_as_long_as_the_last_id_fits(tmp_path, vocab_size, dtype):
    tokenizer = WordTokenizer(f"w{n}" for n in range(vocab_size - 2))
    last = tokenizer.id_to_token[-1]
    actual = encode_to_memmap(tokenizer, last, tmp_path / "ids.npy")
    assert actual.dtype == dtype
    assert actual.tolist() == [vocab_size - 1, 1]


def test_a_failure_while_encoding_leaves_the_old_file(tmp_path):
    tokenizer = WordTokenizer(["a"])
    path = tmp_path / "ids.npy"
    encode_to_memmap(tokenizer, "a a", path)
    bad = read_files(write(tmp_path / "bad.txt", b"a a\n" * 100_000 + b"\xff"))
    with pytest.raises(CorpusError, match=re.escape("byte 400000 (0xFF)")):
        encode_to_memmap(tokenizer, bad, path)
    assert open_ids(path).tolist() == [2, 2, 1]
    assert sorted(item.name for item in tmp_path.iterdir()) == ["bad.txt", "ids.npy"]


def test_files_that_hold_no_ids_are_refused(tmp_path):
    path = tmp_path / "ids.npy"
    with pytest.raises(CorpusError, match=r"ids\.npy does not exist"):
        open_ids(path)
    encode_to_memmap(WordTokenizer(["a"]), "a a a", path)
    whole = path.read_bytes()
    others = [whole[:-1], whole[:100], whole[:5], b"text", b"\x93NUMPY\x01\x00"]
    for number, array in enumerate((np.zeros(3), np.zeros((2, 2), np.uint16), np.array(["a"], object))):
        np.save(tmp_path / f"{number}.npy", array, allow_pickle=True)
        others.append((tmp_path / f"{number}.npy").read_bytes())
    for content in others:
        path.write_bytes(content)
        with pytest.raises(CorpusError, match=r"ids\.npy is not a whole file of token ids"):
            open_ids(path)


@pytest.mark.parametrize("line_ends", [True, False])
def test_memory_does_not_grow_with_the_length_of_the_text(tmp_path, line_ends):
    rng = np.random.default_rng(1)

    def peak(lines):
        path = tmp_path / "large.txt"
        with open(path, "wb") as file:
            for _ in range(lines):
                words = rng.integers(0, 1000, 150).astype("U3")
                file.write((" ".join(words) + ("\n" if line_ends else " ")).encode())
        tracemalloc.start()
        train, valid = read_files(path).split()
        tokenizer = WordTokenizer.fit(train)
        encode_to_memmap(tokenizer, valid, tmp_path / "valid.npy")
        ids = encode_to_memmap(tokenizer, train, tmp_path / "train.npy")
        assert sum(xs.size for xs, _ in WindowBatches(ids, 20, 35)) > 0.85 * lines * 150
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return highest

    peak(100)  # first calls import and compile things
    small, large = peak(300), peak(2000)
    assert large < 1.1 * small
    assert large < 1_000_000 < (tmp_path / "large.txt").stat().st_size
