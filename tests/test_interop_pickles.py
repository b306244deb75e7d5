"""Pickles of NumPy arrays: what NumPy writes is read, and other things are refused by name."""

import base64
import os
import pickle
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from helpers import assert_same_bits
from pickle_helpers import ARRAY, FLOAT, ORDER, SLACK, state, text, u32, u64, written

from rnnfast import CheckpointError
from rnnfast.interop.pickles import read_arrays

PROTOCOLS = range(6)


def arrays():
    """Every dtype, order and kind of shape."""
    rng = np.random.default_rng(0)
    kinds = "f2 f4 f8 >f2 >f4 >f8 i1 i2 i4 i8 u1 u2 u4 u8 >i2 >u8"
    made = [(100 * rng.standard_normal((5, 7))).astype("i8").astype(kind) for kind in kinds.split()]
    floats = rng.standard_normal((4, 5, 6))
    made += [floats.transpose(2, 0, 1), np.asfortranarray(floats), floats[::2], floats[0].T]
    every_byte = np.arange(256, dtype=np.uint8).repeat(300).view("f4")  # longer than a piece
    return [*made, every_byte, np.array(3.0), np.empty((0, 4), "f4"), np.empty((3, 0), order="F")]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_numpy_writes_is_read(protocol, tmp_path):
    expected = arrays()
    path = written(tmp_path, pickle.dumps(expected, protocol))
    for actual, array in zip(read_arrays(path), expected, strict=True):
        assert actual.dtype.isnative
        assert actual.flags.writeable
        assert actual.flags.f_contiguous >= array.flags.f_contiguous
        assert_same_bits(actual, array.astype(array.dtype.newbyteorder("=")))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_nested_lists_are_read_in_order_and_a_shared_array_is_one_array(protocol, tmp_path):
    one, two = np.ones(2, "f4"), np.zeros((2, 3), "f8")
    for content, order in (([], []), (one, [one]), ([(one, [two, ()]), one], [one, two, one])):
        actual = read_arrays(written(tmp_path, pickle.dumps(content, protocol)))
        assert [array.tobytes() for array in actual] == [array.tobytes() for array in order]
    assert actual[0] is actual[2]


# [np.arange(3, dtype="f2"), np.array([[1, 2], [3, 4]], ">f4", order="F")], by NumPy 1.26.0.
NUMPY_1 = [
    (
        "KGxwMApjbnVtcHkuY29yZS5tdWx0aWFycmF5Cl9yZWNvbnN0cnVjdApwMQooY251bXB5Cm5kYXJyYXkKcDIKKEkwCnRwMwpj"
        "X2NvZGVjcwplbmNvZGUKcDQKKFZiCnA1ClZsYXRpbjEKcDYKdHA3ClJwOAp0cDkKUnAxMAooSTEKKEkzCnRwMTEKY251bXB5"
        "CmR0eXBlCnAxMgooVmYyCnAxMwpJMDAKSTAxCnRwMTQKUnAxNQooSTMKVjwKcDE2Ck5OTkktMQpJLTEKSTAKdHAxNwpiSTAw"
        "Cmc0CihWXHUwMDAwXHUwMDAwXHUwMDAwPFx1MDAwMEAKcDE4Cmc2CnRwMTkKUnAyMAp0cDIxCmJhZzEKKGcyCihJMAp0cDIy"
        "Cmc4CnRwMjMKUnAyNAooSTEKKEkyCkkyCnRwMjUKZzEyCihWZjQKcDI2CkkwMApJMDEKdHAyNwpScDI4CihJMwpWPgpwMjkK"
        "Tk5OSS0xCkktMQpJMAp0cDMwCmJJMDEKZzQKKFY/gFx1MDAwMFx1MDAwMEBAXHUwMDAwXHUwMDAwQFx1MDAwMFx1MDAwMFx1"
        "MDAwMECAXHUwMDAwXHUwMDAwCnAzMQpnNgp0cDMyClJwMzMKdHAzNApiYS4="
    ),
    (
        "XXEAKGNudW1weS5jb3JlLm11bHRpYXJyYXkKX3JlY29uc3RydWN0CnEBKGNudW1weQpuZGFycmF5CnECKEsAdHEDY19jb2Rl"
        "Y3MKZW5jb2RlCnEEKFgBAAAAYnEFWAYAAABsYXRpbjFxBnRxB1JxCHRxCVJxCihLAShLA3RxC2NudW1weQpkdHlwZQpxDChY"
        "AgAAAGYycQ1JMDAKSTAxCnRxDlJxDyhLA1gBAAAAPHEQTk5OSv////9K/////0sAdHERYkkwMApoBChYBgAAAAAAADwAQHES"
        "aAZ0cRNScRR0cRViaAEoaAIoSwB0cRZoCHRxF1JxGChLAShLAksCdHEZaAwoWAIAAABmNHEaSTAwCkkwMQp0cRtScRwoSwNY"
        "AQAAAD5xHU5OTkr/////Sv////9LAHRxHmJJMDEKaAQoWBIAAAA/woAAAEBAAABAAAAAQMKAAABxH2gGdHEgUnEhdHEiYmUu"
    ),
    (
        "gAJdcQAoY251bXB5LmNvcmUubXVsdGlhcnJheQpfcmVjb25zdHJ1Y3QKcQFjbnVtcHkKbmRhcnJheQpxAksAhXEDY19jb2Rl"
        "Y3MKZW5jb2RlCnEEWAEAAABicQVYBgAAAGxhdGluMXEGhnEHUnEIh3EJUnEKKEsBSwOFcQtjbnVtcHkKZHR5cGUKcQxYAgAA"
        "AGYycQ2JiIdxDlJxDyhLA1gBAAAAPHEQTk5OSv////9K/////0sAdHERYoloBFgGAAAAAAAAPABAcRJoBoZxE1JxFHRxFWJo"
        "AWgCSwCFcRZoCIdxF1JxGChLAUsCSwKGcRloDFgCAAAAZjRxGomIh3EbUnEcKEsDWAEAAAA+cR1OTk5K/////0r/////SwB0"
        "cR5iiGgEWBIAAAA/woAAAEBAAABAAAAAQMKAAABxH2gGhnEgUnEhdHEiYmUu"
    ),
    (
        "gANdcQAoY251bXB5LmNvcmUubXVsdGlhcnJheQpfcmVjb25zdHJ1Y3QKcQFjbnVtcHkKbmRhcnJheQpxAksAhXEDQwFicQSH"
        "cQVScQYoSwFLA4VxB2NudW1weQpkdHlwZQpxCFgCAAAAZjJxCYmIh3EKUnELKEsDWAEAAAA8cQxOTk5K/////0r/////SwB0"
        "cQ1iiUMGAAAAPABAcQ50cQ9iaAFoAksAhXEQaASHcRFScRIoSwFLAksChnETaAhYAgAAAGY0cRSJiIdxFVJxFihLA1gBAAAA"
        "PnEXTk5OSv////9K/////0sAdHEYYohDED+AAABAQAAAQAAAAECAAABxGXRxGmJlLg=="
    ),
    (
        "gASV5gAAAAAAAABdlCiMFW51bXB5LmNvcmUubXVsdGlhcnJheZSMDF9yZWNvbnN0cnVjdJSTlIwFbnVtcHmUjAduZGFycmF5"
        "lJOUSwCFlEMBYpSHlFKUKEsBSwOFlGgEjAVkdHlwZZSTlIwCZjKUiYiHlFKUKEsDjAE8lE5OTkr/////Sv////9LAHSUYolD"
        "BgAAADwAQJR0lGJoA2gGSwCFlGgIh5RSlChLAUsCSwKGlGgNjAJmNJSJiIeUUpQoSwOMAT6UTk5OSv////9K/////0sAdJRi"
        "iEMQP4AAAEBAAABAAAAAQIAAAJR0lGJlLg=="
    ),
    (
        "gAWVzgAAAAAAAABdlCiMEm51bXB5LmNvcmUubnVtZXJpY5SMC19mcm9tYnVmZmVylJOUKJYGAAAAAAAAAAAAADwAQJSMBW51"
        "bXB5lIwFZHR5cGWUk5SMAmYylImIh5RSlChLA4wBPJROTk5K/////0r/////SwB0lGJLA4WUjAFDlHSUUpRoAyiWEAAAAAAA"
        "AAA/gAAAQEAAAEAAAABAgAAAlGgHjAJmNJSJiIeUUpQoSwOMAT6UTk5OSv////9K/////0sAdJRiSwJLAoaUjAFGlHSUUpRl"
        "Lg=="
    ),
]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_files_of_numpy_1_are_read(protocol, tmp_path):
    half, single = read_arrays(written(tmp_path, base64.b64decode(NUMPY_1[protocol])))
    assert_same_bits(half, np.arange(3, dtype=np.float16))
    assert_same_bits(single, np.array([[1, 2], [3, 4]], np.float32))


class Calls:
    """Pickled, a call of any function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


HARM = {
    "os.system": (Calls(os.system, "touch harm"), f"it names {os.system.__module__}.system"),
    "eval": (Calls(eval, "open('harm', 'w')"), "builtins.*eval|__builtin__.eval"),
    "a function inside a list": ([np.ones(2), Calls(print, "harm")], "names .*print"),
    "a class": ([Path("harm")], "names pathlib"),
    "a dict": ({"word_vecs": np.ones(2)}, "opcode EMPTY_DICT|opcode DICT"),
    "a set": ({1, 2}, "opcode EMPTY_SET|names .*set"),
    "a text": (["harm"], "holds a text"),
    "bytes": ([b"harm"], "holds bytes"),
    "a number": ([1], "holds 1"),
    "a float": ([1.5], "opcode (BIN)?FLOAT"),
    "none": (None, "holds None"),
    "objects": ([np.array([print, None])], "dtype O8"),
    "texts": ([np.array(["harm"])], "dtype U4"),
    "fields": ([np.zeros(2, [("a", "f4")])], "dtype V4"),
    "dates": ([np.zeros(2, "M8[s]")], "dtype M8"),
    "booleans": ([np.zeros(2, bool)], "dtype b1"),
    "complex numbers": ([np.zeros(2, complex)], "dtype c16"),
    "a scalar": ([np.float32(1)], "names numpy.*scalar"),
    "a dtype": ([np.dtype("f4")], "holds the dtype float32"),
    "a subclass": ([np.ma.zeros(2)], "names numpy.ma"),
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", HARM)
def test_other_objects_are_refused_by_name(name, protocol, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    value, words = HARM[name]
    path = written(tmp_path, pickle.dumps(value, protocol))
    with pytest.raises(CheckpointError, match=words) as error:
        read_arrays(path)
    assert str(error.value).startswith(f"{path}: not a pickle of NumPy arrays alone (")
    assert str(error.value).isprintable()
    assert list(tmp_path.iterdir()) == [path]


CRAFTED = {
    "an empty file": (b"", "cut short"),
    "no stop": (b"]", "cut short"),
    "more after the stop": (b"]." + b"].", "goes on after"),
    "two values": (b"]].", "goes on after"),
    "an open mark": (b"(].", "goes on after"),
    "no value": (b".", "lacks its operand"),
    "no mark": (b"t.", "lacks its mark"),
    "an operand below the mark": (b"](a.", "lacks its operand"),
    "an unknown opcode": (b"\xff.", "0xff"),
    "LONG_BINPUT of 2**31": (b"]r" + u32(2**31) + b"j" + u32(2**31 - 1) + b".", "place 2147483647 of"),
    "PUT of 10**19": (b"]p" + b"9" * 19 + b"\ng0\n.", "place 0 of its memo"),
    "PUT of -1": (b"]p-1\ng1\n.", "place 1 of its memo"),
    "PUT of a million digits": (b"]p" + b"9" * 10**6 + b"\n.", "too long"),
    "BINBYTES8 of 2**62": (b"\x8e" + u64(2**62) + b".", "cut short"),
    "BYTEARRAY8 of 2**62": (b"\x96" + u64(2**62) + b".", "cut short"),
    "BINUNICODE8 of 2**64 - 1": (b"\x8d" + u64(2**64 - 1) + b".", "cut short"),
    "BINUNICODE of 2**32 - 1": (b"X" + u32(2**32 - 1) + b".", "cut short"),
    "FRAME of 2**63": (b"\x80\x04\x95" + u64(2**63) + b"N.", "holds None"),
    "LONG1 of 255 bytes": (b"\x8a\xff" + b"\x01" * 255 + b".", "it holds [0-9]+"),
    "LONG4 of 2**31": (b"\x8b" + u32(2**31) + b".", "opcode LONG4"),
    "INT of a million digits": (b"I" + b"9" * 10**6 + b"\n.", "too long"),
    "INT of a word": (b"I1_0\n.", "'1_0' is not a number"),
    "EXT1": (b"\x82\x01.", "opcode EXT1"),
    "EXT2": (b"\x83\x01\x01.", "opcode EXT2"),
    "EXT4": (b"\x84" + u32(2**31) + b".", "opcode EXT4"),
    "PERSID": (b"Pharm\n.", "opcode PERSID"),
    "BINPERSID": (b"NQ.", "opcode BINPERSID"),
    "INST": (b"(ios\nsystem\n.", "opcode INST"),
    "OBJ": (b"(cos\nsystem\no.", "names os.system"),
    "NEWOBJ": (b"cnumpy\nndarray\n)\x81.", "opcode NEWOBJ"),
    "NEXT_BUFFER": (b"\x97.", "opcode NEXT_BUFFER"),
    "DUP": (b"]2.", "opcode DUP"),
    "a name in pieces": (text(b"os") + text(b"system") + b"\x93.", "names os.system"),
    "a name with dots": (text(b"numpy") + text(b"ndarray.tofile") + b"\x93.", "names numpy.ndarray.tofile"),
    "a name that is a number": (b"K\x01K\x01\x93.", "in place of a name"),
    "a name of two lines": (text(b"os\n\x1b[2J") + text(b"system") + b"\x93.", "names"),
    "a call of a list": (b"])R.", "calls a list"),
    "a call without a tuple": (b"cnumpy\ndtype\n]R.", "calls the name dtype"),
    "bytes of a number": (b"c__builtin__\nbytes\nK\x09\x85R.", "calls bytes as NumPy does not"),
    "another codec": (b"c_codecs\nencode\n" + text(b"x") + text(b"zip") + b"\x86R.", "calls encode as"),
    "an ndarray": (b"cnumpy\nndarray\nJ\xff\xff\xff\x7f\x85R.", "calls ndarray as NumPy does not"),
    "an array without values": (ARRAY + b".", "no values"),
    "an array filled twice": (ARRAY + state() + state() + b".", "sets the state of an array"),
    "a version of tomorrow": (ARRAY + state(version=b"K\x02") + b".", "sets the state of an array"),
    "a list as the values": (ARRAY + state(data=b"]") + b".", "a list in place of the values"),
    "a text as the values": (ARRAY + state(data=text(bytes(8))) + b".", "a text in place of the values"),
    "an array as the values": (ARRAY + state(data=ARRAY) + b".", "an array in place of the values"),
    "a dtype without a byte order": (ARRAY + state(dtype=FLOAT + ORDER.replace(b"<", b"!")) + b".", "dtype"),
    "a number as the dtype": (ARRAY + state(dtype=b"K\x01") + b".", "sets the state of an array"),
    "too few values": (ARRAY + state(shape=b"K\x03\x85") + b".", "do not fill its shape"),
    "too many values": (ARRAY + state(shape=b")") + b".", "do not fill its shape"),
    "a negative axis": (ARRAY + state(shape=b"J\xfe\xff\xff\xff\x85") + b".", "no valid shape"),
    "an axis that is true": (ARRAY + state(shape=b"\x88\x85") + b".", "no valid shape"),
    "an axis of 2**62": (ARRAY + state(shape=b"\x8a\x08" + u64(2**62) + b"\x85") + b".", "more bytes than"),
    "an axis of 2**70": (ARRAY + state(shape=b"\x8a\x09" + u64(0) + b"\x40\x85") + b".", "no valid shape"),
    "0 times 2**62": (
        ARRAY + state(b"(K\x00" + 9 * (b"\x8a\x08" + u64(2**62)) + b"t", data=b"C\x00") + b".",
        "too big|too large|maximum",
    ),
    "33 axes": (ARRAY + state(shape=b"(" + b"K\x01" * 33 + b"t") + b".", "no valid shape"),
    "a text beyond latin-1": (
        ARRAY + state(data=b"c_codecs\nencode\nV\\u20ac12345678\n" + text(b"latin1") + b"\x86R") + b".",
        "latin-1",
    ),
    "a text cut short": (
        ARRAY + state(data=b"c_codecs\nencode\nV1234567\\u00\n" + text(b"latin1") + b"\x86R") + b".",
        "unicode",
    ),
    "half a character": (
        ARRAY + state(data=b"c_codecs\nencode\n" + text(b"1234567\xc3") + text(b"latin1") + b"\x86R") + b".",
        "utf-8",
    ),
    "a list in itself": (b"]q\x00h\x00a.", "too deep"),
    "lists of lists of lists": (
        b"(]" + b"".join(b"q%c(" % n + b"h%c" % n * 40 + b"l" for n in range(1, 90)) + b"l.",
        "too deep or too long",
    ),
    "a million lists": (b"(" + b"]" * 10**6 + b"l.", "more than 32768 opcodes"),
    "a million marks": (b"(" * 10**6 + b".", "more than 32768 opcodes"),
    "a million memos": (b"]" + b"\x94" * 10**6 + b".", "more than 32768 opcodes"),
    "a list 16,000 deep": (b"]" * 16000 + b"a" * 15999 + b".", "too deep"),
    "a tuple 30,000 deep": (b"N" + b"\x85" * 30000 + b".", "too deep"),
    "one text for many arrays": (
        b"(C\x80" + bytes(128) + b"q\x00" + (ARRAY + state(shape=b"K\x20\x85", data=b"h\x00")) * 300 + b"l.",
        "holds bytes|more bytes than",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CRAFTED)
def test_crafted_files_are_refused_in_one_sentence_and_little_memory(name, tmp_path):
    content, words = CRAFTED[name]
    path = written(tmp_path, content)
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError, match=words) as error:
            read_arrays(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert str(error.value).startswith(f"{path}: not a pickle of NumPy arrays alone (")
    assert str(error.value).isprintable()
    assert peak < 2 * len(content) + SLACK


def test_the_parts_of_crafted_files_make_an_array(tmp_path):
    [array] = read_arrays(written(tmp_path, ARRAY + state(dtype=FLOAT + ORDER) + b"."))
    assert_same_bits(array, np.zeros(2, np.float32))


def test_a_file_that_is_missing_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_arrays(tmp_path / "none.pkl")
