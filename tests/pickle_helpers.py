"""Pickles of arrays, by hand."""

# Python's own objects: up to 2**15 values of the machine, and what opens a file and raises an error.
SLACK = 4 << 20


def written(tmp_path, content):
    path = tmp_path / "Rnnlm.pkl"
    path.write_bytes(content)
    return path


def u32(number):
    return number.to_bytes(4, "little")


def u64(number):
    return number.to_bytes(8, "little")


def text(word):
    return b"\x8c" + bytes([len(word)]) + word


ARRAY = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85C\x01btR"
FLOAT = b"cnumpy\ndtype\n(" + text(b"f4") + b"K\x00K\x01tR"
ORDER = b"(K\x03" + text(b"<") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
DATA = b"C\x08" + bytes(8)  # two float32


def state(shape=b"K\x02\x85", dtype=FLOAT, order=b"\x89", data=DATA, version=b"K\x01"):
    return b"(" + version + shape + dtype + order + data + b"tb"
