"""What `rnnfast diagnose` concludes from its tables, and what it advises."""

import numpy as np
import pytest

from rnnfast.cli import verdicts
from rnnfast.diagnostics import GateSaturation, GradientByLag, SpectralRadius, TruncationCurve


def lags(*layers):
    """Norms of layers (L, K + 1) as a finding."""
    norms = np.array(layers, float)[:, np.newaxis]
    return GradientByLag(np.arange(norms.shape[-1]), np.array([0]), norms, None)


def curve(*errors):
    ks = 2 ** np.arange(len(errors))
    return TruncationCurve(ks, np.array(errors), 1 - np.array(errors))


FALLING = lags([2.0 * 0.1**k for k in range(6)])


@pytest.mark.parametrize(
    ("found", "cell", "bptt", "finding", "advice"),
    [
        (
            FALLING,
            "rnn",
            35,
            "falls below 1% after 2 steps: it vanishes",
            "A longer --bptt cannot help; try --cell lstm.",
        ),
        (FALLING, "lstm", 35, "falls below 1% after 2 steps", "A --bptt above 2 adds little."),
        (FALLING, "rnn", 1, "falls below 1% after 2 steps", "--bptt 1 cuts it off before; try --bptt 2."),
        (
            lags([1, 0, 0, 0], [1, 0.9, 0.8, 0.5]),
            "rnn",
            35,
            "After 3 steps 50% of the",
            "more --lags show how long",
        ),
        (
            lags([1, 0.9, 0.8, 0.5]),
            "gru",
            2,
            "it reaches further",
            "--bptt 2 cuts it off; a longer one can help.",
        ),
        (
            lags([1, 5, 25, 1]),
            "rnn",
            35,
            "grows to 25 times its size within 2 steps: it explodes",
            "Keep --clip on",
        ),
        (lags([0, 0, 0]), "rnn", None, "falls below 1% after 0 steps", "--cell lstm"),
    ],
)
def test_gradients_that_vanish_last_or_explode(found, cell, bptt, finding, advice):
    actual = verdicts.of_lags(found, cell, bptt)
    assert finding in actual.finding
    assert advice in actual.advice


@pytest.mark.parametrize(
    ("found", "bptt", "finding", "advice"),
    [
        (curve(0.9, 0.5, 0.1, 0.01), 35, "A window of 4 steps comes within 10%", "--bptt 35 is long enough"),
        (curve(0.9, 0.5, 0.1, 0.01), 2, "A window of 4 steps", "--bptt 2 is too short; try --bptt 4."),
        (curve(0.9, 0.5, 0.1), None, "A window of 4 steps", "--bptt 4 is long enough."),
        (curve(0.9, 0.5), 1, "No window of up to 2 steps comes within 10%", "Try --bptt 2 or more"),
        (curve(0.9, 0.105), 2, "the longest is 10.5% off.", "More --lags show whether a --bptt above 2"),
    ],
)
def test_windows_that_are_long_enough_or_not(found, bptt, finding, advice):
    actual = verdicts.of_windows(found, bptt)
    assert finding in actual.finding
    assert advice in actual.advice


@pytest.mark.parametrize(
    ("cell", "radius", "norm", "finding", "advice"),
    [
        ("rnn", 0.5, 0.9, "gradients must vanish", "try --cell lstm"),
        ("rnn", 0.8, 2.0, "below 1, so gradients vanish over many steps", "--cell lstm"),
        ("relu", 1.2, 2.0, "at least 1, so gradients can grow", "Keep --clip on."),
        ("lstm", 1.2, 2.0, "1.20, of gate g in layer1", "judge by the table of gradients"),
    ],
)
def test_recurrent_weights(cell, radius, norm, finding, advice):
    gates = ("f", "g", "i", "o") if cell == "lstm" else ("h",)
    radii = np.full((2, len(gates)), 0.1)
    norms = np.full((2, len(gates)), 0.2)
    place = 1, len(gates) // 4  # g of the LSTM
    radii[place], norms[place] = radius, norm
    actual = verdicts.of_radius(SpectralRadius(gates, radii, norms), cell)
    assert finding in actual.finding
    assert advice.lower() in actual.advice.lower()


@pytest.mark.parametrize(
    ("cell", "gate", "low", "high", "finding"),
    [
        ("rnn", "h", 0.3, 0.4, "70% of the units of layer1 are at an end of tanh"),
        ("rnn", "h", 0.1, 0.1, "At most 20% of the units of a layer are saturated."),
        ("relu", "h", 0.95, 0.0, "95% of the units of layer1 are zero"),
        ("relu", "h", 0.5, 0.0, "At most 50% of the units of a layer are zero."),
        ("lstm", "f", 0.6, 0.0, "60% of the forget gates of layer1 are shut"),
        ("lstm", "f", 0.0, 0.9, "At most 0% of the forget gates of a layer are shut."),
        ("gru", "z", 0.0, 0.8, "80% of the update gates of layer1 are wide open"),
        ("gru", "z", 0.9, 0.0, "At most 0% of the update gates of a layer are wide open."),
    ],
)
def test_gates_that_stand_in_the_way(cell, gate, low, high, finding):
    gates = {"lstm": ("f", "g", "i", "o"), "gru": ("z", "r", "h")}.get(cell, ("h",))
    lows, highs = np.zeros((2, len(gates))), np.zeros((2, len(gates)))
    lows[1, gates.index(gate)], highs[1, gates.index(gate)] = low, high
    actual = verdicts.of_gates(GateSaturation(gates, lows, highs), cell)
    assert finding in actual.finding
    assert (actual.advice == "Nothing to change.") == actual.finding.startswith("At most")
