"""`.ts` files of sequences with classes."""

import numpy as np
import pytest

from rnnfast._check import CorpusError
from rnnfast.data import read_ts

HEADER = "#a comment\n% another\n\n@problemName Walk\n@timeStamps false\n@univariate false\n"


def read(tmp_path, text):
    path = tmp_path / "walk.ts"
    path.write_bytes(text.encode())
    return read_ts(path)


def test_sequences_of_unequal_lengths_with_missing_values_are_read(tmp_path):
    lines = "@classLabel true up down\n@data\n1,2.5,?:-5e-1, 6 ,NaN:up\n\n# between\n4:3:down\n"
    for text in (HEADER + lines, "\ufeff" + (HEADER + lines).replace("\n", "\r\n")):
        xs, labels = read(tmp_path, text)
        assert labels.tolist() == ["up", "down"]
        np.testing.assert_array_equal(xs[0], [[1, -0.5], [2.5, 6], [np.nan, np.nan]])
        np.testing.assert_array_equal(xs[1], [[4, 3]])
        assert xs[0].dtype == np.float64


def test_names_in_the_header_have_any_case_and_classes_need_not_be_listed(tmp_path):
    xs, labels = read(tmp_path, "@PROBLEMNAME x\n@classlabel True\n@Data\n1,2:7\n3:8\n")
    assert labels.tolist() == ["7", "8"]
    assert [x.shape for x in xs] == [(2, 1), (1, 1)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1,2,3\n", "walk.ts: has no line @data, so it is no .ts file"),
        ("@targetLabel true\n@data\n1,2:0.5\n", "has no line @classLabel true"),
        ("@classLabel false\n@data\n1,2\n", "has no line @classLabel true"),
        ("@timeStamps true\n@classLabel true a\n@data\n", "line 1: files with time stamps"),
        ("@classLabel true a b\n@data\n", "has no sequence after @data"),
        (
            "@classLabel true a b\n@data\n1:a\n1:c\n",
            "line 4: the class must be one of .* a, b, got 'c'",
        ),
        ("@classLabel true a b\n@data\n1,2\n", "line 3: the class must be one of"),
        ("@classLabel true\n@data\n1,2\n", "line 3: needs values before its class"),
        ("@classLabel true a b\n@data\n1,x:a\n", "line 3: values must be numbers, got 'x'"),
        ("@classLabel true a b\n@data\n1,,2:a\n", "line 3: values must be numbers"),
        ("@classLabel true a b\n@data\n1,2:1:a\n", r"line 3: has channels of lengths \[2, 1\]"),
        (
            "@classLabel true a b\n@data\n1:2:a\n1:b\n",
            "line 4: must have 2 channels, as the first sequence has, got 1",
        ),
    ],
)
def test_files_that_cannot_be_used_are_named_with_the_line(text, words, tmp_path):
    with pytest.raises(CorpusError, match=words):
        read(tmp_path, text)


def test_a_missing_file_is_an_error_of_the_system(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_ts(tmp_path / "none.ts")
