"""The wording of errors: owner, what was expected, what was received, how to fix it."""

import importlib
import os

import numpy as np
import pytest

import rnnfast
from rnnfast import data, forecast, interop, models, optim
from rnnfast._check import arrays, objects, values

FLOAT32, FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)


def read_only(array):
    array.flags.writeable = False
    return array


def misaligned(count, dtype):
    return np.zeros(count * dtype.itemsize + 1, np.uint8)[1:].view(dtype)


SHARED = np.zeros((4, 3))

MESSAGES = [
    (
        lambda: arrays.float_dtype("Owner", "float16"),
        TypeError, "Owner: dtype must be float32 or float64, got 'float16'.",
    ),
    (
        lambda: arrays.float_dtype("Owner", "no type"),
        TypeError, "Owner: dtype must be float32 or float64, got 'no type'.",
    ),
    (
        lambda: values.generator("Owner", 3),
        TypeError,
        "Owner: rng must be a numpy.random.Generator, got int; pass numpy.random.default_rng(seed).",
    ),
    (lambda: values.size("Owner", "N", 0), ValueError, "Owner: N must be at least 1, got 0."),
    (lambda: values.size("Owner", "N", 7, maximum=6), ValueError, "Owner: N must be at most 6, got 7."),
    (lambda: values.size("Owner", "N", 1.0), TypeError, "Owner: N must be a whole number, got 1.0."),
    (lambda: values.size("Owner", "N", True), TypeError, "Owner: N must be a whole number, got True."),
    (
        lambda: arrays.shape("Owner", "xs", [1.0], ("N",)),
        TypeError, "Owner: xs must be a NumPy array, got list; pass np.array(xs).",
    ),
    (
        lambda: arrays.shape("Owner", "xs", np.ma.masked_array([1.0]), ("N",)),
        TypeError, "Owner: xs must be a plain NumPy array, got a masked array; fill it first.",
    ),
    (
        lambda: arrays.shape("Owner.forward", "xs", np.zeros((20, 35, 64)), ("N", "T", 100), "why"),
        ValueError, "Owner.forward: xs must be (N, T, 100), got (20, 35, 64); why.",
    ),
    (
        lambda: arrays.shape("Owner", "x", np.zeros(3), ("...", 3)),
        ValueError, "Owner: x must be (..., 3), got (3,).",
    ),
    (lambda: arrays.shape("Owner", "b", np.zeros(()), (4,)), ValueError, "Owner: b must be (4,), got ()."),
    (
        lambda: arrays.floats("Owner", "xs", np.zeros(3), (3,), FLOAT32),
        TypeError,
        "Owner: xs must be float32, the dtype of the parameters, got float64; "
        "convert it with xs.astype(np.float32).",
    ),
    (
        lambda: objects.parameter("Owner", "W", np.zeros((2, 2), int), ("D", "O")),
        TypeError, "Owner: W must be float32 or float64, got int64.",
    ),
    (
        lambda: objects.parameter("Owner", "W", np.zeros(2, ">f4"), (2,)),
        TypeError, "Owner: W must be float32 or float64, got >f4.",
    ),
    (
        lambda: objects.parameter("Owner", "b", np.zeros(2), (2,), FLOAT32),
        TypeError, "Owner: b must be float32 like the other parameters, got float64.",
    ),
    (
        lambda: objects.parameter("Owner", "b", read_only(np.zeros(2)), (2,)),
        ValueError, "Owner: b is read-only, but training writes into it; leave frozen(), or pass b.copy().",
    ),
    (
        lambda: objects.parameter("Owner", "b", misaligned(2, FLOAT64), (2,)),
        ValueError, "Owner: b must be aligned and in native byte order; pass b.copy().",
    ),
    (
        lambda: arrays.ids("Owner", "xs", np.array([[0, 5], [9, 1]]), ("N", "T"), 9),
        IndexError, "Owner: xs must hold ids from 0 to 8, got 9 at (1, 0).",
    ),
    (
        lambda: arrays.ids("Owner", "xs", np.array([0, -2]), ("N",), 9, -1),
        IndexError, "Owner: xs must hold ids from 0 to 8, got -2 at (1,).",
    ),
    (
        lambda: arrays.ids("Owner", "xs", np.array([2**64 - 1], np.uint64), ("N",), 9),
        IndexError, f"Owner: xs must hold ids from 0 to 8, got {2**64 - 1} at (0,).",
    ),
    (
        lambda: arrays.ids("Owner", "ts", np.array([1, 2**64 - 1], np.uint64), ("N",), 9, -1),
        IndexError, f"Owner: ts must hold ids from 0 to 8, got {2**64 - 1} at (1,).",
    ),
    (
        lambda: arrays.ids("Owner", "xs", np.zeros(2), ("N",), 9),
        TypeError, "Owner: xs must hold integers, got float64.",
    ),
    (
        lambda: arrays.out("Owner", np.zeros((2, 3)), (2, 4), FLOAT64),
        ValueError, "Owner: out must be (2, 4), got (2, 3).",
    ),
    (
        lambda: arrays.out("Owner", np.zeros(2), (2,), FLOAT32),
        TypeError, "Owner: out must be float32, got float64.",
    ),
    (
        lambda: arrays.out("Owner", read_only(np.zeros(2)), (2,), FLOAT64),
        ValueError, "Owner: out is read-only; pass a writable array.",
    ),
    (
        lambda: arrays.out("Owner", np.zeros((2, 2)).T, (2, 2), FLOAT64),
        ValueError, "Owner: out must be C-contiguous and aligned; pass np.empty(shape, dtype).",
    ),
    (
        lambda: arrays.out("Owner", SHARED[1:], (3, 3), FLOAT64, np.zeros(2), SHARED[:2]),
        ValueError, "Owner: out shares memory with an input; pass a separate array.",
    ),
    (
        lambda: objects.called_before("Owner.backward", False, "forward"),
        RuntimeError, "Owner.backward: call forward first.",
    ),
    (
        lambda: values.choice("Owner", "activation", "sigmoid", ("tanh", "relu")),
        ValueError, "Owner: activation must be one of tanh, relu, got 'sigmoid'.",
    ),
    (
        lambda: objects.batch("Owner.forward", 20, 10),
        ValueError,
        "Owner.forward: the carried state has 20 rows but the input has 10; "
        "call reset_state() or set_state() before changing the batch size.",
    ),
    (lambda: values.number("Owner", "dout", "1"), TypeError, "Owner: dout must be a number, got '1'."),
    (lambda: values.number("Owner", "dout", np.nan), ValueError, "Owner: dout must be finite, got nan."),
    (lambda: values.number("Owner", "x", -1, low=0), ValueError, "Owner: x must be at least 0, got -1."),
    (lambda: values.number("Owner", "x", 3, 0, 2), ValueError, "Owner: x must be from 0 to 2, got 3."),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "message"), MESSAGES, ids=[m[:60] for _, _, m in MESSAGES])
def test_an_error_says_who_what_and_how(call, error, message):
    with pytest.raises(error) as caught:
        call()
    assert str(caught.value) == message
    assert type(caught.value) is error


def test_what_is_right_passes_as_the_same_object():
    array = np.zeros((2, 3), np.float32)
    assert arrays.shape("Owner", "xs", array, ("N", 3)) is array
    assert arrays.floats("Owner", "xs", array, ("N", "D"), FLOAT32) is array
    assert arrays.floats("Owner", "x", array, ("...", 3), FLOAT32) is array
    cube = np.zeros((4, 2, 3))
    assert arrays.shape("Owner", "x", cube, ("...", 3)) is cube
    assert objects.parameter("Owner", "W", array.T, (3, 2)).base is array
    assert arrays.out("Owner", array, (2, 3), FLOAT32, np.zeros(3)) is array
    ids = np.array([0, 8, -1])
    assert arrays.ids("Owner", "ts", ids, (3,), 9, -1) is ids
    assert values.size("Owner", "N", np.int32(4)) == 4
    assert type(values.size("Owner", "N", np.int32(4))) is int
    assert arrays.float_dtype("Owner", np.float64) == FLOAT64
    rng = np.random.default_rng(0)
    assert values.generator("Owner", rng) is rng
    assert isinstance(values.generator("Owner", None), np.random.Generator)
    objects.batch("Owner", 3, 3)
    objects.called_before("Owner", True, "forward")


def test_what_kernels_cannot_read_is_copied_and_left_alone():
    plain = np.arange(12.0).reshape(3, 4)
    spread = misaligned(12, FLOAT64).reshape(3, 4)
    spread[...] = plain
    for array in (
        plain.T.copy().T,
        plain.astype(">f8"),
        read_only(plain.copy()),
        spread,
        plain.view(np.recarray),
    ):
        ready = arrays.floats("Owner", "xs", array, (3, 4), FLOAT64)
        np.testing.assert_array_equal(ready, plain)
        assert ready.flags.c_contiguous
        assert ready.flags.aligned
        assert ready.flags.writeable
        assert ready.dtype.isnative
        assert type(ready) is np.ndarray
        assert not np.shares_memory(ready, array)


def test_ids_of_every_integer_type_become_int64():
    for kind in (np.int8, np.uint8, np.int32, np.uint64, ">i4"):
        ready = arrays.ids("Owner", "xs", np.array([[1, 2]], kind), (1, "T"), 3)
        assert ready.dtype == np.int64
        assert ready.dtype.isnative
        np.testing.assert_array_equal(ready, [[1, 2]])
    assert arrays.ids("Owner", "xs", np.zeros((0, 3), int), ("N", "T"), 1).shape == (0, 3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: optim.Adam(learning_rate=0.1),
            "Adam: arguments are lr, beta1, beta2, eps, got learning_rate; use lr.",
        ),
        (lambda: optim.AdamW(wd=0.1), "AdamW: arguments are lr, beta1, beta2, eps, weight_decay, got wd."),
        (
            lambda: optim.RMSprop(alpha=0.9),
            "RMSprop: arguments are lr, decay_rate, eps, got alpha; use decay_rate.",
        ),
        (
            lambda: rnnfast.TimeDropout(p=0.5),
            "TimeDropout: arguments are dropout_ratio, per_step, rng, got p; use dropout_ratio.",
        ),
        (lambda: rnnfast.RNNLM(9, 8, 8, num_layers=2), ", got num_layers; use layers."),
        (lambda: rnnfast.RNNLM(ntoken=9, embed_size=8, hidden_size=8), ", got ntoken; use vocab_size."),
        (lambda: rnnfast.SequenceRegressor(3, 4, 1, seed=0), ", got seed; use rng."),
        (lambda: rnnfast.Trainer(None, None, epochs=3), ", precision, got epochs."),
    ],
)
def test_another_name_of_an_argument_is_answered_by_ours(call, message):
    with pytest.raises(TypeError) as caught:
        call()
    assert str(caught.value).endswith(message)


def test_a_constructor_with_any_keywords_takes_them():
    class Own(optim.SGD):
        def __init__(self, **options):
            super().__init__(options["rate"])

    assert Own(rate=0.5).lr == 0.5


READERS = {
    "RNNLM.load": rnnfast.RNNLM.load,
    "CBOWLM.load": rnnfast.CBOWLM.load,
    "SequenceRegressor.load": rnnfast.SequenceRegressor.load,
    "load_model": models.load_model,
    "State.load": rnnfast.State.load,
    "RNNForecaster.load": forecast.RNNForecaster.load,
    "load": interop.load,
    "convert": lambda path: interop.convert(path, "k.npz"),
    "from_onnx": interop.from_onnx,
    "from_book": interop.from_book,
    "read_ts": data.read_ts,
}


@pytest.mark.parametrize("owner", READERS)
def test_a_path_that_cannot_be_read_is_a_sentence(owner, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ending = {"from_onnx": "onnx", "from_book": "pkl", "read_ts": "ts"}.get(owner, "safetensors")
    said = f"{owner}: path must name a file, got "
    path = str(tmp_path / f"no model.{ending}")
    for name, where in ((path, ""), (os.path.basename(path), f"; relative paths begin at {tmp_path}")):
        with pytest.raises(FileNotFoundError) as caught:
            READERS[owner](name)
        assert str(caught.value) == f"{said}{name!r}, which does not exist; check its spelling{where}."
    os.mkdir(path)
    with pytest.raises(OSError, match="is a folder; name a file in it") as caught:
        READERS[owner](path)
    assert str(caught.value).startswith(said)


def test_an_estimator_of_a_path_that_cannot_be_read_is_a_sentence(tmp_path):
    pytest.importorskip("sklearn")
    classifier = importlib.import_module("rnnfast.sklearn").RNNClassifier
    with pytest.raises(FileNotFoundError, match=r"RNNClassifier\.load: path must name a file"):
        classifier.load(tmp_path / "no model")
