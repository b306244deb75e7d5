"""Saved models and run folders: exact round trips, and a named reason for everything that is damaged."""

import json
import os
import struct

import numpy as np
import pytest
from safetensors.numpy import load_file, save

from rnnfast._check import CheckpointError
from rnnfast.data import CharTokenizer, WordTokenizer
from rnnfast.models import CBOWLM, RNNLM, load_model
from rnnfast.models.weights import SavedModel
from rnnfast.optim import SGD
from rnnfast.training import Checkpoint, Trainer, TruncatedBPTT, load_checkpoint

TEXT = "you say goodbye and i say hello .\n"


def models():
    rng = np.random.default_rng(0)
    return [
        RNNLM(9, 4, 6, rng=rng),
        RNNLM(9, 5, 5, layers=2, tied=True, dropout=0.3, dtype=np.float64, rng=rng),
        CBOWLM(9, 4, window=3, rng=rng),
    ]


def a_run(folder, **options):
    tokenizer = WordTokenizer.fit(TEXT)
    model = RNNLM(tokenizer.vocab_size, 4, 5, rng=np.random.default_rng(1), **options)
    checkpoint = Checkpoint(folder, tokenizer=tokenizer, settings={"lr": 20.0, "files": ["a.txt"]})
    checkpoint(model, {"epoch": 3, "steps": 12, "valid_perplexity": 7.5, "train_perplexity": float("inf")})
    return model, tokenizer, checkpoint


def test_a_saved_model_comes_back_bit_for_bit(tmp_path):
    for model in models():
        path = tmp_path / "model.safetensors"
        model.save(path)
        for actual in (type(model).load(path), load_model(path)):
            assert type(actual) is type(model)
            assert actual.config == model.config
            assert actual.parameter_names == model.parameter_names
            for one, other in zip(actual.params, model.params, strict=True):
                np.testing.assert_array_equal(one, other)
                assert one.dtype == other.dtype
                assert one.flags.c_contiguous
            ids = np.arange(9)
            assert actual.log_prob(ids) == model.log_prob(ids)
            actual.forward(ids[np.newaxis, :-1], ids[np.newaxis, 1:])
            actual.backward()


def test_saving_twice_gives_the_same_bytes_and_other_readers_agree(tmp_path):
    for model in models():
        for name in ("a", "b"):
            model.save(tmp_path / name)
        assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
        tensors = load_file(tmp_path / "a")
        assert sorted(tensors) == sorted(model.parameter_names)
        for name, param in zip(model.parameter_names, model.params, strict=True):
            np.testing.assert_array_equal(tensors[name], param)


def test_tied_weights_are_stored_once_and_stay_tied(tmp_path):
    model = models()[1]
    model.save(tmp_path / "m")
    assert "output_W" not in load_file(tmp_path / "m")
    actual = RNNLM.load(tmp_path / "m")
    actual.params[0][...] = 0.0
    np.testing.assert_array_equal(actual.predict(np.array([[1]])), np.zeros((1, 1, 9)))


def test_a_transposed_parameter_is_saved_by_value_not_by_memory(tmp_path):
    wanted = models()[0]
    arrays = dict(zip(wanted.parameter_names, map(np.asfortranarray, wanted.params), strict=True))
    model = RNNLM.from_saved(SavedModel(wanted.config, arrays, {}))
    assert not model.params[0].flags.c_contiguous
    model.save(tmp_path / "m")
    np.testing.assert_array_equal(RNNLM.load(tmp_path / "m").params[0], model.params[0])


def test_training_goes_on_after_loading_as_it_would_have_without(tmp_path):
    model = models()[0]
    model.save(tmp_path / "m")
    loaded = RNNLM.load(tmp_path / "m")
    ids = np.random.default_rng(2).integers(9, size=60)
    for each in (model, loaded):
        Trainer(each, SGD(lr=1.0), TruncatedBPTT(5)).fit(ids, epochs=1, batch_size=2)
    for actual, expected in zip(loaded.params, model.params, strict=True):
        np.testing.assert_array_equal(actual, expected)


def test_a_run_comes_back_with_its_tokenizer_and_settings(tmp_path):
    model, tokenizer, _ = a_run(tmp_path / "new" / "run", tied=False)
    run = load_checkpoint(tmp_path / "new" / "run")
    assert run.tokenizer == tokenizer
    assert run.config["settings"] == {"lr": 20.0, "files": ["a.txt"]}
    assert (run.config["epoch"], run.config["steps"], run.config["valid_perplexity"]) == (3, 12, 7.5)
    assert run.config["train_perplexity"] is None
    assert run.config["stopped"] is None
    assert run.model.log_prob([1, 2, 3]) == model.log_prob([1, 2, 3])
    files = sorted(path.name for path in (tmp_path / "new" / "run").iterdir())
    assert files == ["config.json", "model.safetensors", "tokenizer.json"]


def test_an_early_stop_is_saved_beside_the_best_model_not_over_it(tmp_path):
    model, _, checkpoint = a_run(tmp_path)
    best = model.log_prob([1, 2, 3])
    model.params[-1][0] += 1.0
    checkpoint(model, {"epoch": 4, "steps": 14, "stopped": "diverged", "message": "the loss is nan"})
    run = load_checkpoint(tmp_path)
    assert run.model.log_prob([1, 2, 3]) == best
    assert run.config["epoch"] == 3
    assert run.config["stopped"] == {
        "why": "diverged",
        "weights": "last.safetensors",
        "message": "the loss is nan",
        "epoch": 4,
        "steps": 14,
    }
    assert load_checkpoint(tmp_path, last=True).model.log_prob([1, 2, 3]) == model.log_prob([1, 2, 3]) != best


def test_an_early_stop_before_any_save_is_the_model_and_replaces_an_older_run(tmp_path):
    model, tokenizer, checkpoint = a_run(tmp_path)
    checkpoint(model, {"epoch": 4, "stopped": "interrupted"})
    other = RNNLM(tokenizer.vocab_size, 4, 5, rng=np.random.default_rng(9))
    Checkpoint(tmp_path, tokenizer=tokenizer)(other, {"epoch": 1, "steps": 2, "stopped": "interrupted"})
    run = load_checkpoint(tmp_path)
    assert run.config["stopped"]["weights"] == "model.safetensors"
    assert run.model.log_prob([1, 2]) == other.log_prob([1, 2])
    assert not (tmp_path / "last.safetensors").exists()


def test_a_run_without_a_tokenizer_has_none(tmp_path):
    Checkpoint(tmp_path)(CBOWLM(5, 3), {"epoch": 1})
    assert load_checkpoint(tmp_path).tokenizer is None


def test_a_folder_that_cannot_be_written_is_refused_at_once(tmp_path):
    (tmp_path / "file").write_text("in the way")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OSError, match="file"):
            Checkpoint(folder)
    if os.name == "posix" and os.geteuid() != 0:
        (tmp_path / "locked").mkdir(mode=0o500)
        with pytest.raises(OSError, match="locked"):
            Checkpoint(tmp_path / "locked")


def test_settings_that_are_no_json_are_refused_at_once(tmp_path):
    with pytest.raises(TypeError):
        Checkpoint(tmp_path, settings={"rng": np.random.default_rng()})
    for value in (float("nan"), float("inf"), np.float32("nan")):
        with pytest.raises(ValueError, match="Checkpoint: settings must hold JSON values"):
            Checkpoint(tmp_path / "new", settings={"lr": {"first": [value]}})
    assert not (tmp_path / "new").exists()


def test_numpy_numbers_in_settings_and_records_are_saved_as_numbers(tmp_path):
    checkpoint = Checkpoint(tmp_path, settings={"lr": np.float32(0.5), "layers": [np.int64(2)]})
    record = {"epoch": np.int64(3), "steps": np.int32(12), "valid_perplexity": np.float32(7.5)}
    checkpoint(CBOWLM(5, 3), {**record, "train_perplexity": np.float32("inf")})
    checkpoint(CBOWLM(5, 3), {**record, "stopped": "diverged"})
    config = load_checkpoint(tmp_path).config
    assert config["settings"] == {"lr": 0.5, "layers": [2]}
    assert (config["epoch"], config["steps"], config["valid_perplexity"]) == (3, 12, 7.5)
    assert config["train_perplexity"] is None
    assert (config["stopped"]["epoch"], config["stopped"]["steps"]) == (3, 12)


def test_a_record_that_is_no_json_is_refused_before_anything_is_written(tmp_path):
    checkpoint = Checkpoint(tmp_path)
    with pytest.raises(TypeError, match="Checkpoint: record must hold JSON values, got object in it"):
        checkpoint(CBOWLM(5, 3), {"epoch": object()})
    assert not list(tmp_path.iterdir())


def test_a_missing_folder_or_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_checkpoint(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError):
        RNNLM.load(tmp_path / "nowhere")
    a_run(tmp_path)
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).unlink()
        with pytest.raises(CheckpointError, match=f"{name} is missing"):
            load_checkpoint(tmp_path)
        (tmp_path / name).write_bytes(content)
    load_checkpoint(tmp_path)
    with pytest.raises(CheckpointError, match=r"last\.safetensors is missing"):
        load_checkpoint(tmp_path, last=True)


def test_a_tokenizer_that_does_not_belong_to_the_model_is_refused(tmp_path):
    _, tokenizer, _ = a_run(tmp_path)
    path = tmp_path / "tokenizer.json"
    content = tokenizer.to_dict()

    def refused(value, message):
        path.write_text(json.dumps(value))
        with pytest.raises(CheckpointError, match=rf"tokenizer\.json: .*{message}"):
            load_checkpoint(tmp_path)

    refused(
        {**content, "tokens": content["tokens"][:-1]}, "has 8 tokens, but the model has a vocabulary of 9"
    )
    refused({**content, "tokens": content["tokens"][::-1]}, "not the tokenizer the model was trained with")
    refused(CharTokenizer.fit("abcdefgh").to_dict(), "")
    for wrong in (
        {},
        {"kind": "word"},
        {**content, "tokens": 3},
        {**content, "tokens": [[1]]},
        {**content, "kind": []},
    ):
        refused(wrong, "not a tokenizer")
    for text in ("", "[]", "{", '{"kind": 1, "kind": 2}', "[" * 100_000):
        path.write_text(text)
        with pytest.raises(CheckpointError, match=r"tokenizer\.json: the file"):
            load_checkpoint(tmp_path)
    with pytest.raises(ValueError, match="the model has a vocabulary of 3 tokens"):
        Checkpoint(tmp_path, tokenizer=tokenizer)(CBOWLM(3, 2), {"epoch": 1})


def test_a_description_that_does_not_belong_to_the_model_is_refused(tmp_path):
    a_run(tmp_path)
    path = tmp_path / "config.json"
    content = json.loads(path.read_text())
    for change, message in [
        ({"format": "rnnfast-2"}, "not the description"),
        ({"settings": 1}, "not the description"),
        ({"model": {**content["model"], "layers": 2}}, "describes another model"),
    ]:
        path.write_text(json.dumps({**content, **change}))
        with pytest.raises(CheckpointError, match=rf"config\.json: {message}"):
            load_checkpoint(tmp_path)


def file_parts(path):
    content = path.read_bytes()
    (size,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + size]), content[8 + size :]


def write_parts(path, header, data):
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def test_a_header_that_lies_is_refused_before_anything_is_allocated(tmp_path):
    path = tmp_path / "m"
    model = models()[0]
    model.save(path)
    header, data = file_parts(path)
    write_parts(path, header, data)
    RNNLM.load(path)

    def refused(message, data=data, **changes):
        changed = {**header, **changes}
        write_parts(path, {name: value for name, value in changed.items() if value is not None}, data)
        with pytest.raises(CheckpointError, match=message) as caught:
            load_model(path)
        assert str(path) in str(caught.value)

    b = header["layer0_b"]
    refused("'layer0_b' is malformed", layer0_b=[1, 2])
    refused("'layer0_b' is malformed", layer0_b={**b, "shape": [-6]})
    refused("'layer0_b' is malformed", layer0_b={**b, "shape": [6.0]})
    refused("'layer0_b' is malformed", layer0_b={**b, "shape": [1] * 9})
    refused("'layer0_b' is malformed", layer0_b={**b, "data_offsets": [0]})
    refused("'layer0_b' is malformed", layer0_b={**b, "data_offsets": [True, 24]})
    refused("'layer0_b' is malformed", layer0_b={**b, "data_offsets": [0, 10**30]})
    refused("must be F32, F64, I64, got 'I32'", layer0_b={**b, "dtype": "I32"})
    refused("must be F32, F64, I64", layer0_b={**b, "dtype": []})
    refused("does not fit its shape", layer0_b={**b, "shape": [10**15]})
    refused(
        "does not fit its shape", layer0_b={**b, "data_offsets": [0, 24]} if b["data_offsets"][0] else None
    )
    refused("the header promises|does not fit", layer0_b=None)
    refused("does not belong to the model", extra={"dtype": "F32", "shape": [0], "data_offsets": [0, 0]})
    refused("cut short or extended", data=data[:-1])
    refused("cut short or extended", data=data + b"\0")
    refused("no rnnfast model in its metadata", __metadata__=None)
    refused("no rnnfast model in its metadata", __metadata__={"rnnfast": 3})
    refused("the metadata is not valid JSON", __metadata__={"rnnfast": "{"})
    refused("the metadata must be a JSON object", __metadata__={"rnnfast": "[]"})
    about = json.loads(header["__metadata__"]["rnnfast"])
    refused(
        "format must be 'rnnfast-1', got 'x'", __metadata__={"rnnfast": json.dumps({**about, "format": "x"})}
    )
    refused("lacks the configuration", __metadata__={"rnnfast": json.dumps({**about, "config": None})})
    refused("lacks the configuration", __metadata__={"rnnfast": json.dumps({**about, "checksum": "1"})})
    refused("lacks the model or the notes", __metadata__={"rnnfast": json.dumps({**about, "config": "{}"})})
    refused("checksum", data=bytes([data[0] ^ 1]) + data[1:])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "GPT"}, "model must be RNNLM or CBOWLM or SequenceRegressor or Network, got 'GPT'"),
        ({"model": ["RNNLM"]}, "model must be RNNLM or CBOWLM"),
        ({"model": "CBOWLM"}, "its configuration is not valid"),
        ({"vocab_size": 10**30}, r"'embed_W' must be \(10+, 4\), got \(9, 4\)"),
        ({"vocab_size": "9"}, "vocab_size must be a whole number"),
        ({"hidden_size": 7}, r"must be \(7, 7\), got \(6, 6\)"),
        ({"layers": 2}, "tensor 'layer1_Wx' is missing"),
        ({"layers": 10**12}, "layers must be at most 1000"),
        ({"cell": "quantum"}, "cell must be one of"),
        ({"dropout": -1}, "dropout must be from 0 to 1"),
        ({"dtype": "float64"}, "must be float64, got float32"),
        ({"dtype": "object"}, "dtype must be float32 or float64"),
        ({"tied": True}, "tied=True needs"),
        ({"color": 1}, "unexpected keyword argument 'color'"),
        ({"two\nlines \ud800 \x1b[2J": 1}, r"argument 'two lines \\ud800 \?\[2J'"),
        ({"hidden_size": 9 * 10**4299, "cell": "lstm"}, "its configuration is not valid"),
        ({"dropout": 10**400}, "its configuration is not valid"),
        ({"cell": "x" * 5000}, r"got 'x+ \.\.\.\.$"),
    ],
)
def test_a_configuration_that_does_not_fit_the_tensors_is_refused(tmp_path, change, message):
    path = tmp_path / "m"
    models()[0].save(path)
    header, data = file_parts(path)
    about = json.loads(header["__metadata__"]["rnnfast"])
    config = json.loads(about["config"])
    config["model"].update(change)
    header["__metadata__"] = {"rnnfast": json.dumps({**about, "config": json.dumps(config)})}
    write_parts(path, header, data)
    with pytest.raises(CheckpointError, match=message):
        load_model(path)


def test_a_model_of_another_class_is_refused(tmp_path):
    CBOWLM(5, 3).save(tmp_path / "m")
    with pytest.raises(CheckpointError, match="describes the model 'CBOWLM', not RNNLM"):
        RNNLM.load(tmp_path / "m")


def test_files_that_are_something_else_are_refused(tmp_path):
    path = tmp_path / "m"
    for content, message in [
        (b"", "too short for a safetensors file"),
        (b"\0" * 7, "too short"),
        (b"\xff" * 100, "not a safetensors file of rnnfast"),
        (struct.pack("<Q", 1 << 62), "not a safetensors file"),
        (struct.pack("<Q", 2) + b"\xff\xff", "the header is not valid JSON"),
        (struct.pack("<Q", 2) + b"[]", "the header must be a JSON object"),
        (struct.pack("<Q", 200_000) + b'{"a":' * 10_000 + b" " * 150_000, "the header is not valid JSON"),
        (save({"W": np.zeros(3)}), "no rnnfast model in its metadata"),
        (struct.pack("<Q", 1 << 21) + b" " * (1 << 21), "its header would take 2097152 bytes"),
        (
            struct.pack("<Q", 200_000) + b'{"a":[' + b"{}," * 66_000 + b" " * 1994,
            "its header has too many parts",
        ),
    ]:
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=message):
            load_model(path)


def test_a_mutated_file_is_refused_or_gives_the_same_model(tmp_path):
    model = models()[0]
    path = tmp_path / "m"
    model.save(path)
    original = path.read_bytes()
    rng = np.random.default_rng(3)
    refused = 0
    for trial in range(3000):
        content = bytearray(original)
        # Half of the changes hit the header, where they do the most harm.
        place = int(rng.integers(len(content) if trial % 2 else 900))
        match trial % 5:
            case 0:
                content[place] ^= 1 << int(rng.integers(8))
            case 1:
                content[place] = int(rng.integers(256))
            case 2:
                del content[place:]
            case 3:
                del content[place : place + int(rng.integers(1, 20))]
            case 4:
                other = int(rng.integers(len(content)))
                content[place:place] = content[other : other + int(rng.integers(1, 40))]
        path.write_bytes(content)
        try:
            loaded = load_model(path)
        except CheckpointError as error:
            refused += "\n" not in str(error)
            continue
        assert loaded.config == model.config
        for actual, expected in zip(loaded.params, model.params, strict=True):
            np.testing.assert_array_equal(actual, expected)
    assert refused > 2500
