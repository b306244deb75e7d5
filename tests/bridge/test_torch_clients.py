"""Forecasting libraries on PyTorch give the same with the bridge."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch_helpers import CLASSES, assert_close, gradients_of, tensors, through  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # theirs

QUIET = {
    "accelerator": "cpu",
    "enable_checkpointing": False,
    "enable_model_summary": False,
    "enable_progress_bar": False,
    "logger": False,
}


def series():
    """Two noisy waves, in one table."""
    pandas = pytest.importorskip("pandas")
    rng, t = np.random.default_rng(0), np.arange(60)
    waves = [np.sin(t / 5 + phase) + 0.1 * rng.standard_normal(t.size) for phase in (0, 2)]
    return pandas.DataFrame(
        {"unique_id": np.repeat(["a", "b"], t.size), "ds": np.tile(t, 2), "y": np.concatenate(waves)}
    )


@pytest.mark.parametrize("door", ["enable", "accelerate"])
@pytest.mark.parametrize("name", ["LSTM", "GRU", "RNN"])
def test_neuralforecast(door, name, tmp_path):
    neuralforecast = pytest.importorskip("neuralforecast")
    models = pytest.importorskip("neuralforecast.models")

    def program(classes, prepare):
        model = getattr(models, name)(
            h=4,
            input_size=12,
            encoder_n_layers=2,
            encoder_hidden_size=16,
            encoder_dropout=0.2,
            decoder_hidden_size=8,
            max_steps=8,
            batch_size=2,
            random_seed=1,
            alias="forecast",
            default_root_dir=tmp_path,
            **QUIET,
        )
        forecaster = neuralforecast.NeuralForecast(models=[prepare(model)], freq=1)
        forecaster.fit(series())
        (fitted,) = forecaster.models
        losses = [float(loss) for _, loss in fitted.train_trajectories]
        assert len(losses) == 8
        return [*losses, *forecaster.predict()["forecast"]]

    actual, expected = through(door, program)
    np.testing.assert_allclose(actual, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["RecurrentNetwork", "DeepAR"])
@pytest.mark.parametrize("cell", ["LSTM", "GRU"])
def test_pytorch_forecasting(name, cell, tmp_path):
    library = pytest.importorskip("pytorch_forecasting")
    lightning = pytest.importorskip("lightning.pytorch")

    def program(classes, prepare):
        torch.manual_seed(0)
        data = library.TimeSeriesDataSet(
            series(),
            time_idx="ds",
            target="y",
            group_ids=["unique_id"],
            min_encoder_length=4,  # so that batches are packed
            max_encoder_length=12,
            max_prediction_length=4,
            time_varying_known_reals=["ds"],
            time_varying_unknown_reals=["y"],
        )
        model = getattr(library, name).from_dataset(
            data, cell_type=cell, hidden_size=8, rnn_layers=2, dropout=0.2
        )
        losses = []
        note = lightning.callbacks.LambdaCallback(
            on_train_batch_end=lambda trainer, module, outputs, *_: losses.append(float(outputs["loss"]))
        )
        trainer = lightning.Trainer(
            max_steps=6, callbacks=[note], gradient_clip_val=0.1, default_root_dir=tmp_path, **QUIET
        )
        trainer.fit(model, data.to_dataloader(train=True, batch_size=16, num_workers=0))
        assert len(losses) == 6
        inputs, _ = next(iter(data.to_dataloader(train=False, batch_size=16, num_workers=0)))
        model.eval()
        torch.manual_seed(0)
        with torch.no_grad():
            return [*losses, *model(inputs)["prediction"].flatten().tolist()]

    actual, expected = through("enable", program)
    np.testing.assert_allclose(actual, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("door", ["enable", "classes"])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_the_layers_of_pytorch_forecasting(door, cell):
    rnn = pytest.importorskip("pytorch_forecasting.models.nn.rnn")
    own = rnn.get_rnn(cell.upper())

    def program(classes, prepare):
        kind = own if classes is CLASSES else type("Own", (own, classes[cell]), {})
        module = prepare(kind(3, 5, 2, batch_first=True, dtype=torch.float64))
        x, lengths = torch.randn(4, 6, 3, dtype=torch.float64), torch.tensor([6, 2, 0, 3])
        out, states = module(x, lengths=lengths, enforce_sorted=False)
        return gradients_of(module, *tensors(out, states), *module(x, states))

    assert_close(*through(door, program))
