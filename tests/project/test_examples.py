"""The scripts in examples/ run and learn: each with a small setting, well above chance or half the input."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import needs_jit

from rnnfast import cells, optim

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SMALL = {  # arguments with which a script runs in a second or two
    "addition": (),
    "delayed_match": ("--trials", "100"),
    "long_memory": ("--sequences", "64"),
    "million_steps": ("--steps", "20000"),
    "simple_rnnlm": (),
    "spiking": ("--trials", "100"),
    "tagger": (),
}
NAMES = tuple(SMALL)

pytestmark = [
    needs_jit,
    pytest.mark.skipif(not EXAMPLES.is_dir(), reason="tests run without the folder examples/ beside them"),
]


def example(name):
    """A script as a module; its `main` is not run."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_script_is_tested():
    elsewhere = ["generate_with_onnxruntime"]  # in test_interop_run.py, since it needs a run
    assert sorted(path.stem for path in EXAMPLES.glob("*.py")) == sorted([*NAMES, *elsewhere])


@pytest.mark.parametrize("name", NAMES)
def test_a_script_says_how_to_run_it_and_runs_from_any_folder(name, tmp_path):
    path = EXAMPLES / f"{name}.py"
    assert f"python examples/{name}.py" in example(name).__doc__
    command = [sys.executable, "-W", "error", str(path), "--epochs", "1", "--seed", "3", *SMALL[name]]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "epoch" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_the_language_model_learns_its_text_by_heart():
    """The frequencies of these words alone give a perplexity of about 180, a recurrent layer that is not
    trained 5.8, one whose steps do not see each other 13."""
    main = example("simple_rnnlm").main
    first, last = main(epochs=1, lines=150), main(epochs=30, lines=150)
    assert first > 200
    assert last < 4.5


def test_addition_carries_over_to_problems_that_were_held_out():
    """No answer can be right that does not come through the state from encoder to decoder."""
    assert example("addition").main(epochs=8) > 0.9


def test_the_gradient_reaches_the_encoder_through_state_and_cell():
    """The slope of the loss along the gradient of the encoder is the norm of that gradient."""
    module = example("addition")
    rng = np.random.default_rng(0)
    questions, answers, _ = module.make_problems(rng)
    model = module.Seq2seq(wordvec_size=16, hidden_size=32, rng=rng)

    def loss():
        return model.forward(questions[::100], answers[::100])

    loss()
    model.backward()
    encoder = [
        (p, g.copy())
        for layer in model.encoder.layers
        for p, g in zip(layer.params, layer.grads, strict=True)
    ]
    expected = optim.global_norm([grad for _, grad in encoder])
    losses = []
    for move in (0.01, -0.02):  # from the middle to one side, then to the other
        for param, grad in encoder:
            param += move / expected * grad
        losses.append(loss())
    actual = (losses[0] - losses[1]) / 0.02
    # The losses, near 2.6, are exact to some 3e-7: 2e-5 of the slope, which is about 0.06.
    assert actual == pytest.approx(expected, rel=2e-3)


def test_the_held_out_problems_are_new_in_both_orders():
    module = example("addition")
    questions, answers, is_new = module.make_problems(np.random.default_rng(0))

    def numbers(ids):
        return tuple(map(int, "".join(module.CHARS[i] for i in ids).split("+")))

    known, new = ({numbers(ids) for ids in questions[rows]} for rows in (~is_new, is_new))
    assert len(known) + len(new) == 10_000
    assert 800 < len(new) < 1200
    assert not new & {(b, a) for a, b in known}
    written = ["".join(module.CHARS[i] for i in ids) for ids in answers]
    assert written == [f"_{sum(numbers(ids)):<3}" for ids in questions]


def test_tags_that_depend_on_both_sides_need_both_directions():
    both, one = example("tagger").main(epochs=3)
    assert both > 0.98
    assert 0.6 < one < 0.9  # it does learn, but half of what it needs is still to come


def test_the_tags_say_what_stands_before_and_after():
    module = example("tagger")
    words, tags, lengths = module.make_sentences(np.random.default_rng(0), 50)
    for sentence, given, length in zip(words.tolist(), tags.tolist(), lengths, strict=True):
        inside = sentence[:length]
        expected = [
            (module.LEFT in inside[:t]) + 2 * (module.RIGHT in inside[t + 1 :]) for t in range(length)
        ]
        assert given[:length] == expected
        assert set(given[length:]) <= {module.IGNORED}
        assert set(sentence[length:]) <= {module.PADDING}


def test_a_sum_of_two_numbers_far_back_is_learned_from_exact_gradients_only():
    """Always saying 1 has an error of 1/6."""
    truncated, exact = example("long_memory").main(
        epochs=4, steps=60, window=15, sequences=1600, hidden_size=24
    )
    assert 0.12 < truncated < 0.25
    assert exact < 0.03


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("long_memory", {"steps": 20, "window": 5, "sequences": 96, "hidden_size": 4}),
        ("delayed_match", {"trials": 500, "hidden_size": 16}),
    ],
)
def test_a_seed_repeats_an_example(name, sizes):
    first, second = (example(name).main(epochs=2, seed=3, **sizes) for _ in range(2))
    assert first == second


def test_a_mark_lies_before_every_truncated_gradient():
    xs, ts = example("long_memory").make_sequences(np.random.default_rng(0), 200, 200)
    assert (xs[:, :10, 1].sum(axis=1) == 1).all()
    assert (xs[:, 10:100, 1].sum(axis=1) == 1).all()
    assert not xs[:, 100:, 1].any()
    np.testing.assert_allclose((xs[:, :, 0] * xs[:, :, 1]).sum(axis=1), ts[:, 0], rtol=1e-6)


def test_a_long_series_is_learned_from_a_file_within_the_memory_asked_for():
    losses, plan = example("million_steps").main(steps=30_000, epochs=4, hidden_size=16, memory="3MB")
    assert losses[-1] < 0.9 * losses[0]
    assert plan.chunks > 3
    assert plan.memory <= 3_000_000


def test_two_stimuli_are_compared_across_a_delay():
    """Half of the trials match, so always saying one of the two is right in half of them."""
    accuracies = example("delayed_match").main()
    assert accuracies[0] < 0.8
    assert accuracies[-1] > 0.95


def test_the_comparison_needs_the_sample_that_is_long_gone():
    module = example("delayed_match")
    xs, ts, match = module.make_trials(np.random.default_rng(0), 400)
    assert 150 < match.sum() < 250
    assert not ts[:, : module.TEST].any()
    seen = [xs[:, first:last].mean(axis=1) for first, last in ((5, 13), (33, 45))]
    same = np.array([np.corrcoef(*pair)[0, 1] for pair in zip(*seen, strict=True)])
    assert same[match].min() > 0.9 > 0.7 > same[~match].max()
    assert abs(xs[:, module.DELAY : module.TEST].mean()) < 0.01  # nothing to see in between


def test_the_cell_of_the_example_is_the_ready_one():
    assert example("delayed_match").leaky.fingerprint == cells.leaky.fingerprint


def test_spike_patterns_are_told_apart_by_surrogate_gradients():
    """One class in four is right by chance."""
    assert example("spiking").main(epochs=6)[-1] > 0.85


def test_spike_patterns_differ_in_times_and_not_in_numbers():
    module = example("spiking")
    times = np.sort(module.make_patterns(np.random.default_rng(0)), axis=-1)
    assert np.diff(times, axis=-1).min() >= 5  # moved by up to 2 steps, no two spikes meet
    assert times.min() >= 2
    assert times.max() < module.STEPS - 2
    assert (times[0] != times[1]).any()


@pytest.mark.parametrize("name", ["delayed_match", "long_memory", "spiking"])
def test_a_picture_is_drawn_where_it_is_asked_for(name, tmp_path):
    path = tmp_path / "picture.png"
    small = {"long_memory": {"sequences": 64, "steps": 60, "window": 15}}.get(name, {"trials": 100})
    example(name).main(epochs=1, plot=path, **small)
    assert path.read_bytes().startswith(b"\x89PNG")
