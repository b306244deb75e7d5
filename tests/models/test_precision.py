"""The option `precision="bfloat16"` of layers, models, the trainer and the command line."""

import json
import pickle

import numpy as np
import pytest
from cli_helpers import rnnfast_command
from helpers import assert_same_bits, relative_distance

import rnnfast
from rnnfast import cells
from rnnfast.models.network import Network
from rnnfast.optim import SGD

IDS = np.arange(400) * 7 % 11


def lm(**options):
    options = {"cell": "lstm", "rng": np.random.default_rng(0), **options}
    return rnnfast.RNNLM(11, 6, 8, **options)


LAYERS = [
    lambda **o: rnnfast.TimeRNN.from_sizes(3, 4, **o),
    lambda **o: rnnfast.TimeLSTM.from_sizes(3, 4, **o),
    lambda **o: rnnfast.TimeGRU.from_sizes(3, 4, **o),
    lambda **o: cells.li_gru.layer(3, 4, **o),
]


@pytest.mark.parametrize("make", LAYERS)
def test_layers_take_it_and_may_change_it(make):
    xs = np.random.default_rng(1).standard_normal((2, 5, 3)).astype(np.float32)
    layer = make(rng=np.random.default_rng(0), precision="BFloat16")
    assert layer.precision == "bfloat16"
    rounded = layer.forward(xs)
    layer.reset_state()
    step = layer.step(xs[:, 0].copy())
    layer.precision = None
    layer.reset_state()
    plain = layer.forward(xs)
    assert 1e-5 < relative_distance(rounded, plain) < 2e-2
    assert_same_bits(plain, make(rng=np.random.default_rng(0)).forward(xs))
    layer.reset_state()
    assert not np.array_equal(layer.step(xs[:, 0].copy()), step)
    layer.precision = "bfloat16"
    layer.reset_state()
    assert_same_bits(layer.step(xs[:, 0].copy()), step)
    assert pickle.loads(pickle.dumps(layer)).precision == "bfloat16"


def test_steps_of_many_rows_follow_it():
    layer = rnnfast.TimeLSTM.from_sizes(8, 32, rng=np.random.default_rng(0))
    x = np.random.default_rng(1).standard_normal((300, 8)).astype(np.float32)
    steps = {}
    for precision in (None, "bfloat16", None):
        layer.precision = precision
        layer.reset_state()
        whole = layer.forward(x[:, None], keep=False)[:, 0]
        layer.reset_state()
        steps[precision] = layer.step(x)
        assert_same_bits(steps[precision], whole)
    assert not np.array_equal(steps[None], steps["bfloat16"])


def test_other_values_and_float64_are_refused_in_one_sentence():
    layer = rnnfast.TimeLSTM.from_sizes(3, 4)
    with pytest.raises(ValueError, match=r"TimeLSTM: precision must be None or .bfloat16., got .half."):
        layer.precision = "half"
    with pytest.raises(ValueError, match="precision must be None"):
        lm(precision=16)
    with pytest.raises(
        TypeError, match=r'RNNLM: precision="bfloat16" needs float32 parameters, got float64\.'
    ):
        lm(precision="bfloat16", dtype=np.float64)
    with pytest.raises(TypeError, match="needs float32 parameters"):
        rnnfast.TimeGRU.from_sizes(3, 4, dtype=np.float64, precision="bfloat16")
    assert layer.precision is None


def test_combined_layers_pass_it_on():
    rng = np.random.default_rng(0)
    halves = [rnnfast.TimeGRU.from_sizes(3, 4, rng=rng) for _ in range(2)]
    stack = rnnfast.Stack([rnnfast.Bidirectional(*halves), rnnfast.TimeLSTM.from_sizes(8, 5, rng=rng)])
    stack.precision = "bfloat16"
    assert {layer.precision for layer in stack.recurrent} == {"bfloat16"}
    assert stack.precision == stack.layers[0].precision == "bfloat16"


def test_a_model_rounds_its_layers_and_its_softmax_and_saves_it(tmp_path):
    model = lm(precision="bfloat16")
    assert model.body.layers[0].precision == model.output.precision == model.precision == "bfloat16"
    assert "precision='bfloat16'" in repr(model)
    xs, ts = IDS[:40].reshape(2, 20), IDS[1:41].reshape(2, 20)
    loss, plain = model.forward(xs, ts), lm().forward(xs, ts)
    assert 0 < abs(loss - plain) < 1e-3
    model.save(tmp_path / "model.safetensors")
    again = rnnfast.RNNLM.load(tmp_path / "model.safetensors")
    assert again.precision == "bfloat16"
    assert again.forward(xs, ts) == loss
    again.precision = None
    assert "precision" not in again.config
    again.reset_state()
    assert again.forward(xs, ts) == plain
    lm().save(tmp_path / "plain.safetensors")
    assert rnnfast.RNNLM.load(tmp_path / "plain.safetensors").precision is None


def test_methods_that_read_use_the_precision_of_the_model():
    model, xs = lm(precision="bfloat16"), IDS[:40].reshape(2, 20)
    rounded = model.predict(xs)
    model.precision = None
    model.reset_state()
    plain = model.predict(xs)
    assert 1e-5 < relative_distance(rounded, plain) < 2e-2


def test_other_models_take_it():
    kwargs = {"rng": np.random.default_rng(0), "precision": "bfloat16"}
    for model in (
        rnnfast.CBOWLM(11, 6, **kwargs),
        rnnfast.SequenceRegressor(3, 4, 2, **kwargs),
        Network(3, 4, 2, bidirectional=True, **kwargs),
    ):
        assert model.precision == "bfloat16"
        assert {layer.precision for layer in getattr(model.body, "recurrent", ())} <= {"bfloat16"}


def test_the_trainer_sets_it_and_a_run_resumes_with_it(tmp_path):
    file = tmp_path / "state"

    def trainer(epochs, **options):
        model = lm()
        trained = rnnfast.Trainer(model, SGD(lr=1.0), rnnfast.TruncatedBPTT(10), **options)
        trained.fit(IDS, epochs=epochs, batch_size=4, checkpoint_file=file, resume=file.exists())
        return model

    whole = trainer(4, precision="bfloat16")
    file.unlink()
    trainer(2, precision="bfloat16")
    with pytest.raises(rnnfast.CheckpointError, match="precision"):
        trainer(4)
    resumed = trainer(4, precision="bfloat16")
    for one, other in zip(whole.params, resumed.params, strict=True):
        assert_same_bits(one, other)
    file.unlink()
    assert 0 < relative_distance(whole.params[0], trainer(4).params[0]) < 0.1


def test_exact_gradients_over_chunks_have_the_bits_of_one_window():
    model, chunked = lm(precision="bfloat16"), lm(precision="bfloat16")
    for one, bptt in ((model, rnnfast.ExactBPTT()), (chunked, rnnfast.ExactBPTT(chunk=128))):
        rnnfast.Trainer(one, SGD(lr=1.0), bptt).fit(np.tile(IDS, 8), epochs=1, batch_size=2)
    for one, other in zip(model.params, chunked.params, strict=True):
        assert_same_bits(one, other)


def test_the_command_line_takes_it(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("one two three four five six seven eight nine ten\n" * 60)
    run = tmp_path / "run"
    options = ["--nhid", "8", "--emsize", "8", "--epochs", "1", "--no-baseline", "--min-count", "1"]
    train = ["train", str(text), "--save", str(run), *options]
    code, out, err = rnnfast_command(*train, "--precision", "bfloat16")
    assert (code, err) == (0, ""), (out, err)
    assert json.loads((run / "config.json").read_text())["settings"]["precision"] == "bfloat16"
    assert rnnfast.RNNLM.load(run / "model.safetensors").precision == "bfloat16"
    code, out, err = rnnfast_command(*train, "--overwrite", "--precision", "bfloat16", "--dtype", "float64")
    assert code != 0
    assert "needs float32 parameters" in err
    code, out, err = rnnfast_command("train", "--precision", "float16")
    assert code != 0
    assert "--precision must be one of bfloat16" in " ".join(err.split())
