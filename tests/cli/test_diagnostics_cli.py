"""`rnnfast diagnose` from a run folder to tables and pictures, and what it refuses."""

import re
import shutil

import matplotlib.image
import numpy as np
import pytest
from cli_helpers import rnnfast_command

from rnnfast import CBOWLM, RNNLM, WordTokenizer
from rnnfast.data import encode_to_memmap
from rnnfast.diagnostics import (
    gate_saturation,
    gradient_by_lag,
    plot_gate_saturation,
    spectral_radius,
    truncation_curve,
)
from rnnfast.training import Checkpoint, load_checkpoint

TEXT = "you say goodbye and i say hello . hello hello i do not know why you say goodbye\n" * 12
PICTURES = ["gate_saturation.png", "gradient_by_lag.png", "spectral_radius.png", "truncation_bias.png"]


def make_run(folder, model):
    tokenizer = WordTokenizer.fit(TEXT)
    Checkpoint(folder, tokenizer=tokenizer)(model(tokenizer.vocab_size), {"epoch": 1})
    return np.array(encode_to_memmap(tokenizer, TEXT, folder / "valid.npy"), np.int64)


def lively(words):
    rng = np.random.default_rng(1)
    model = RNNLM(words, 6, 6, cell="lstm", layers=2, rng=rng, dtype=np.float64)
    for param in model.params:
        param[...] = rng.standard_normal(param.shape)
    return model


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "song"
    return folder, make_run(folder, lively)


def rows_of(out, first_cells):
    """The rows of a table that begin with these words, as lists of words."""
    return [line.split() for line in out.splitlines() if re.match(rf"^ +{first_cells} ", line)]


def test_the_tables_are_what_the_functions_find_and_the_pictures_lie_in_the_run(run):
    folder, ids = run
    before = {path.name for path in folder.iterdir()}
    code, out, err = rnnfast_command("diagnose", folder, "--lags", 6, "--seed", 3)
    assert (code, err) == (0, "")
    assert out.rstrip().endswith(str(folder))
    assert len(re.findall("^advice: ", out, re.MULTILINE)) == 1
    assert sorted({path.name for path in folder.iterdir()} - before) == PICTURES
    for name in PICTURES:
        pixels = matplotlib.image.imread(folder / name)[..., :3]
        assert (np.abs(pixels * 255 - (0x1F, 0x5F, 0xBF)).max(axis=-1) < 8).sum() > 100, name
    starts = np.random.default_rng(3).integers(len(ids) - 12, size=(8, 1))
    text = ids[starts + np.arange(13)]
    xs, ts = text[:, :-1].copy(), text[:, 1:].copy()
    model = load_checkpoint(folder).model
    found = gradient_by_lag(model, xs, ts, 6)
    for lag in range(7):
        numbers = [f"{mean[lag]:.2e}" for mean in (*found.means()["h"], *found.means()["c"])]
        assert [str(lag), *numbers] in rows_of(out, lag)
    curve = truncation_curve(model, xs, ts)
    for k, error, cosine in zip(*curve, strict=True):
        assert [str(k), f"{error:.3f}", f"{cosine:.4f}"] in rows_of(out, k)
    radius, gates = spectral_radius(model), gate_saturation(model, xs)
    for layer in range(2):
        for place, gate in enumerate("fgio"):
            norms = [f"{values[layer, place]:.3f}" for values in (radius.radii, radius.norms)]
            shares = [f"{values[layer, place]:.1%}" for values in (gates.low, gates.high)]
            expected = [[f"layer{layer}", gate, *numbers] for numbers in (norms, shares)]
            assert rows_of(out, f"layer{layer} +{gate}") == expected


def test_a_seed_repeats_and_another_folder_may_take_the_pictures(run, tmp_path):
    folder, _ = run
    say = ("diagnose", folder, "--lags", 4, "--out", tmp_path / "new" / "place")
    outputs = [rnnfast_command(*say, "--seed", seed)[1] for seed in (1, 1, 2)]
    assert outputs[0] == outputs[1] != outputs[2]
    assert sorted(path.name for path in (tmp_path / "new" / "place").iterdir()) == PICTURES


def test_help_says_what_diagnose_does():
    code, out, _ = rnnfast_command("diagnose", "--help")
    assert code == 0
    for option in ("--lags", "--seed", "--out", "--last"):
        assert option in out
    assert "diagnose" in rnnfast_command("--help")[1]


def assert_refused(arguments, words):
    code, out, err = rnnfast_command("diagnose", *arguments)
    assert (code, out) == (2, ""), out
    assert err.count("\n") == 1, err
    assert words in err


def test_what_cannot_be_diagnosed_is_refused_in_one_line(run, tmp_path):
    folder, ids = run
    assert_refused((tmp_path / "nowhere",), "nowhere")
    assert_refused((folder, "--last"), "this run did not stop early; leave out --last.")
    assert_refused((folder, "--lags", 0), "--lags")
    assert_refused((folder, "--lags", len(ids)), f"has {len(ids)}; use fewer lags")
    (tmp_path / "file").write_text("")
    assert_refused(
        (folder, "--lags", 4, "--out", tmp_path / "file"), f"{tmp_path / 'file'} is a file, not a folder."
    )
    shutil.copytree(folder, tmp_path / "run")
    (tmp_path / "run" / "valid.npy").unlink()
    assert_refused((tmp_path / "run",), "valid.npy does not exist")
    make_run(tmp_path / "cbow", lambda words: CBOWLM(words, 3))
    assert_refused((tmp_path / "cbow",), "only a recurrent model")


@pytest.mark.parametrize("value", [np.nan, 1e300])
@pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered")
def test_a_damaged_model_is_told_in_one_line(tmp_path, value):
    def damaged(words):
        model = lively(words)
        for param in model.params:
            param[...] = value
        return model

    make_run(tmp_path / "run", damaged)
    assert_refused((tmp_path / "run", "--lags", 4), "parameters are damaged")


def test_the_activations_of_a_plain_network_are_units_and_not_gates(tmp_path):
    make_run(tmp_path / "run", lambda words: RNNLM(words, 6, 6, rng=np.random.default_rng(1)))
    code, out, err = rnnfast_command("diagnose", tmp_path / "run", "--lags", 4)
    assert (code, err) == (0, "")
    assert re.search(r"layer +units +at the lower end", out)
    picture = plot_gate_saturation(
        gate_saturation(load_checkpoint(tmp_path / "run").model, np.zeros((1, 5), int))
    )
    assert picture.get_title(loc="left") == "Saturated units"
