"""Words and characters: what a token is, which id it gets, and that nothing is lost on the way back."""

import json
import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rnnfast.data import (
    CharTokenizer,
    Corpus,
    CorpusError,
    Tokenizer,
    WordTokenizer,
    join_words,
    split_words,
    tokenizer_from_dict,
    vocabulary,
)
from rnnfast.data.tokenizer import SplitWords

PROSE = st.text(alphabet="ab Z'.,-\n\t\u2019\u00e9e\u03011", max_size=60)


def fitted():
    return [
        WordTokenizer.fit("you say goodbye\n\nI say Hello."),
        WordTokenizer.fit("you say goodbye\n\nI say Hello.", lower=True),
        CharTokenizer.fit("you say goodbye\n\nI say Hello."),
    ]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("", []),
        (" \t ", []),
        ("You say yes, I say no.", ["You", "say", "yes", ",", "I", "say", "no", "."]),
        ("I don't know; it's John's.", ["I", "don't", "know", ";", "it's", "John's", "."]),
        ("I don\u2019t \u201cknow\u201d", ["I", "don't", '"', "know", '"']),
        ("rock'n'roll o'clock", ["rock'n'roll", "o'clock"]),
        (
            "well-known -- or not - word---here",
            ["well-known", "--", "or", "not", "-", "word", "---", "here"],
        ),
        (
            "1,000.50 or 3.14 at 10:30, 50%",
            ["1,000.50", "or", "3.14", "at", "10:30", ",", "50", "%"],
        ),
        ("U.S.A. or U.S.A", ["U.S.A.", "or", "U.S.A"]),
        ("the U.S. and e.g. this", ["the", "U.S.", "and", "e.g.", "this"]),
        ("Wait... what?!", ["Wait", "...", "what", "?", "!"]),
        ('("Yes," he said.)', ["(", '"', "Yes", ",", '"', "he", "said", ".", ")"]),
        ("john 's is n't <unk> <eos>", ["john", "'s", "is", "n't", "<unk>", "<eos>"]),
        ("call object.__init__ at example.com.", ["call", "object.__init__", "at", "example.com", "."]),
        ("cafe\u0301 \u00fcber", ["caf\u00e9", "\u00fcber"]),
        ("and/or $5 <b>", ["and", "/", "or", "$", "5", "<", "b", ">"]),
    ],
)
def test_words_numbers_and_marks_are_told_apart(line, expected):
    assert split_words(line) == expected


@pytest.mark.parametrize(
    "line",
    [
        "You say yes, I say no; why?",
        '"I don\'t know," she said (at 10:30): "50% or $5 and/or 1,000.50!"',
        "He calls it 'the thing' -- or not... \"A well-known one.\"",
        "A list [of 2] {or 3}.",
    ],
)
def test_well_set_english_comes_back_as_it_was(line):
    assert join_words(split_words(line)) == line


def test_words_split_by_others_are_joined_as_they_are_read():
    words = ["john", "'s", "is", "n't", "here", ",", "<unk>", "says", "."]
    assert join_words(words) == "john's isn't here, <unk> says."


@given(PROSE)
def test_splitting_loses_no_character_but_white_space(line):
    composed = unicodedata.normalize("NFC", line).replace("\u2019", "'")
    assert "".join(split_words(line)) == "".join(composed.split())


@given(st.text() | PROSE)
def test_a_line_is_split_as_its_runs_between_white_space_are(line):
    splitter = SplitWords()
    for _ in range(2):  # the second time from memory
        assert splitter.of_line(line) == split_words(line)


def test_remembered_runs_are_forgotten_when_there_are_too_many(monkeypatch):
    monkeypatch.setattr(SplitWords, "_MOST", 3)
    splitter = SplitWords()
    line = "a, b c. d e f, g a, a,"
    assert splitter.of_line(line) == split_words(line)
    assert len(splitter) <= 3


@pytest.mark.parametrize("block", [1, 5, 1 << 13])
def test_ids_do_not_depend_on_how_many_lines_are_worked_on_at_a_time(monkeypatch, block):
    monkeypatch.setattr(vocabulary, "_BLOCK", block)
    lines = ["you say", "goodbye\n", "\n", "x" * 20, " I say hello.\n"]
    for tokenizer in fitted():
        corpus = Corpus("lines", 50, lambda: iter(lines))
        expected = np.concatenate([tokenizer.encode("".join(lines))])
        actual = np.concatenate(list(tokenizer.encode_pieces(corpus)))
        if isinstance(tokenizer, CharTokenizer):
            np.testing.assert_array_equal(actual, expected)
        one_by_one = np.concatenate(list(tokenizer._encoded(iter(lines))))
        np.testing.assert_array_equal(actual, one_by_one)


def test_ids_go_by_frequency_and_then_by_text():
    actual = WordTokenizer.fit(["b c a", "c b", "c"]).id_to_token
    assert actual == ["<unk>", "<eos>", "c", "b", "a"]
    assert CharTokenizer.fit(["bca", "cb", "c"]).id_to_token == ["<unk>", "\n", "c", "b", "a"]


@given(st.lists(st.sampled_from(["x y", "y z.", "Z", "", "x"]), min_size=1).filter(any))
def test_the_vocabulary_does_not_depend_on_the_order_or_the_packing_of_lines(lines):
    expected = WordTokenizer.fit(lines)
    assert WordTokenizer.fit(reversed(lines)) == expected
    assert WordTokenizer.fit("\n".join(lines)) == expected
    assert WordTokenizer.fit(line + "\n" for line in lines) == expected


def test_token_to_id_is_the_inverse_of_id_to_token():
    for tokenizer in fitted():
        assert tokenizer.vocab_size == len(tokenizer.id_to_token) == len(tokenizer.token_to_id)
        assert [tokenizer.token_to_id[token] for token in tokenizer.id_to_token] == list(
            range(tokenizer.vocab_size)
        )
        assert (tokenizer.unk_id, tokenizer.eos_id) == (0, 1)


def test_one_eos_follows_each_line_that_is_not_blank():
    tokenizer = WordTokenizer(["a", "b"])
    actual = tokenizer.encode("\n \na b\n\n\t\n b\n")
    np.testing.assert_array_equal(actual, [2, 3, 1, 3, 1])
    assert actual.dtype == np.int64


def test_a_prompt_without_a_line_end_stays_open():
    for tokenizer in fitted():
        assert tokenizer.encode("you say")[-1] != tokenizer.eos_id
        assert tokenizer.encode("you say\n")[-1] == tokenizer.eos_id
        assert tokenizer.encode("").shape == (0,)


def test_a_line_in_several_pieces_gets_one_eos():
    pieces = ["a ", "b ", "\n", "\n", "a", "\nb\n"]
    corpus = Corpus("pieces", 10, lambda: iter(pieces))
    actual = np.concatenate(list(WordTokenizer(["a", "b"]).encode_pieces(corpus)))
    np.testing.assert_array_equal(actual, [2, 3, 1, 2, 1, 3, 1])


@given(st.lists(st.text(alphabet="ab.\n \r\u2028\x1c", max_size=12), max_size=5))
def test_encoding_piece_by_piece_equals_encoding_the_whole(texts):
    whole = "".join(text if text.endswith("\n") or not text else text + "\n" for text in texts)
    for tokenizer in (WordTokenizer(["a", "ab", "."]), CharTokenizer("ab. \r")):
        parts = list(tokenizer.encode_pieces(texts))
        actual = np.concatenate([np.empty(0, np.int64), *parts])
        np.testing.assert_array_equal(actual, tokenizer.encode(whole))


def test_unknown_words_become_unk():
    tokenizer = WordTokenizer.fit("you say goodbye and i say hello .", min_count=2)
    np.testing.assert_array_equal(tokenizer.encode("i say <unk>"), [0, 2, 0])
    assert tokenizer.decode([0, 2, 0]) == "<unk> say <unk>"


def test_max_vocab_counts_the_special_tokens_and_keeps_the_most_frequent():
    tokenizer = WordTokenizer.fit("a b b c c c", max_vocab=4)
    assert tokenizer.id_to_token == ["<unk>", "<eos>", "c", "b"]
    assert CharTokenizer.fit("abbccc", max_vocab=3).id_to_token == ["<unk>", "\n", "c"]


def test_special_tokens_in_the_text_get_their_own_ids():
    tokenizer = WordTokenizer.fit("a <unk> b <eos> a")
    assert tokenizer.id_to_token == ["<unk>", "<eos>", "a", "b"]
    np.testing.assert_array_equal(tokenizer.encode("a <unk> b <eos>"), [2, 0, 3, 1])


def test_lower_case_is_applied_in_fitting_and_in_encoding():
    tokenizer = WordTokenizer.fit("The the THE end", lower=True)
    assert tokenizer.id_to_token == ["<unk>", "<eos>", "the", "end"]
    np.testing.assert_array_equal(tokenizer.encode("THE End"), [2, 3])
    assert len(WordTokenizer.fit("The the THE end").id_to_token) == 6


def test_decoding_words_gives_lines():
    tokenizer = WordTokenizer.fit("you say yes.\nI say no!\n")
    text = "you say yes.\nI say no!\n"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.decode(tokenizer.encode(text).tolist()) == text
    assert tokenizer.decode([]) == ""


@given(st.text())
def test_characters_come_back_exactly(text):
    tokenizer = CharTokenizer(sorted(set(text) - {"\n"}))
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert len(tokenizer.encode(text)) == len(text)


def test_the_line_end_is_a_character_and_known_even_if_unseen():
    tokenizer = CharTokenizer.fit("ab")
    np.testing.assert_array_equal(tokenizer.encode("a\n\nb"), [2, 1, 1, 3])
    assert tokenizer.decode(tokenizer.encode("a?\n")) == "a\ufffd\n"


@pytest.mark.parametrize("tokenizer", fitted(), ids=["word", "lower", "char"])
def test_the_json_form_gives_back_an_equal_tokenizer(tokenizer):
    saved = json.loads(json.dumps(tokenizer.to_dict()))
    for actual in (tokenizer_from_dict(saved), type(tokenizer).from_dict(saved)):
        assert actual == tokenizer
        assert hash(actual) == hash(tokenizer)
        assert actual.fingerprint() == tokenizer.fingerprint()
        assert actual.to_dict() == tokenizer.to_dict()
        assert type(actual) is type(tokenizer)
        tokenizer.check_same(actual)


def test_different_tokenizers_differ_in_equality_and_fingerprint():
    different = [
        WordTokenizer(["a", "b"]),
        WordTokenizer(["b", "a"]),
        WordTokenizer(["a"]),
        WordTokenizer(["a", "b"], lower=True),
        CharTokenizer(["a", "b"]),
    ]
    assert len({tokenizer.fingerprint() for tokenizer in different}) == len(different)
    for i, one in enumerate(different):
        for other in different[i + 1 :]:
            assert one != other
            with pytest.raises(CorpusError):
                one.check_same(other)
    assert different[0] != "a"


def test_a_different_vocabulary_is_described_by_sizes_and_first_difference():
    with pytest.raises(CorpusError, match=r"4 tokens, got one of 3; id 2 is 'a' in one and 'b' in the other"):
        WordTokenizer(["a", "b"]).check_same(WordTokenizer(["b"]))
    with pytest.raises(CorpusError, match=r"^rnnfast train: .* got one of 3; one has more tokens"):
        WordTokenizer(["a", "b"]).check_same(WordTokenizer(["a"]), owner="rnnfast train")
    with pytest.raises(CorpusError, match=r"'lower': True.*'lower': False"):
        WordTokenizer(["a"], lower=True).check_same(WordTokenizer(["a"]))


@pytest.mark.parametrize("cls", [WordTokenizer, CharTokenizer])
@pytest.mark.parametrize("texts", ["", "\n\n", [], ["", ""], iter(())])
def test_a_text_without_tokens_is_refused(cls, texts):
    with pytest.raises(CorpusError, match=f"^{cls.__name__}.fit: the text has no words"):
        cls.fit(texts)


def test_a_min_count_that_nothing_reaches_is_refused():
    with pytest.raises(CorpusError, match="no token occurs 3 times; lower min_count"):
        WordTokenizer.fit("a a b", min_count=3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"min_count": 0}, "WordTokenizer.fit: min_count must be at least 1, got 0"),
        ({"max_vocab": 2}, "WordTokenizer.fit: max_vocab must be at least 3, got 2"),
    ],
)
def test_limits_that_make_no_sense_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        WordTokenizer.fit("a", **arguments)


@pytest.mark.parametrize("texts", [b"a", 3, ["a", 3]])
def test_anything_but_strings_is_a_type_error(texts):
    with pytest.raises(TypeError, match="must be"):
        WordTokenizer.fit(texts)
    with pytest.raises(TypeError, match=r"WordTokenizer\.encode: text must be str"):
        WordTokenizer(["a"]).encode(texts)


@pytest.mark.parametrize("index", [-1, 4, 1000])
def test_ids_outside_the_vocabulary_are_an_index_error(index):
    for tokenizer in (WordTokenizer(["a", "b"]), CharTokenizer("ab")):
        with pytest.raises(IndexError, match=rf"decode: ids must be from 0 to 3, got {index}\."):
            tokenizer.decode([0, index])


@pytest.mark.parametrize(
    "saved",
    [
        None,
        [],
        {},
        {"kind": "bytes", "tokens": []},
        {"kind": "word"},
        {"kind": "word", "tokens": "ab"},
        {"kind": "word", "tokens": ["a", "a"]},
        {"kind": "word", "tokens": ["<eos>"]},
        {"kind": "word", "tokens": [""]},
        {"kind": "word", "tokens": [1]},
        {"kind": "char", "tokens": ["ab"]},
        {"kind": "char", "tokens": ["\n"]},
    ],
)
def test_a_damaged_json_form_is_refused(saved):
    with pytest.raises(ValueError, match=r"^(tokenizer_from_dict|WordTokenizer|CharTokenizer)"):
        tokenizer_from_dict(saved)


def test_each_class_refuses_the_json_form_of_the_other():
    with pytest.raises(ValueError, match="kind must be 'word', got 'char'"):
        WordTokenizer.from_dict(CharTokenizer("a").to_dict())


def test_counting_forgets_the_rarest_words_when_there_are_too_many(monkeypatch):
    monkeypatch.setattr(vocabulary, "_MOST_COUNTED", 50)
    lines = [f"often often again{n % 20} rare{n}" for n in range(1000)]
    tokenizer = WordTokenizer.fit(lines)
    assert tokenizer.vocab_size <= 52
    assert tokenizer.id_to_token[2] == "often"
    assert {f"again{n}" for n in range(20)} <= set(tokenizer.id_to_token)


def test_both_are_tokenizers():
    assert isinstance(WordTokenizer([]), Tokenizer)
    assert isinstance(CharTokenizer([]), Tokenizer)
    assert repr(CharTokenizer("ab")) == "<CharTokenizer with 4 tokens>"
