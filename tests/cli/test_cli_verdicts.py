"""What `rnnfast diagnose` concludes from its tables, and what it advises."""

import numpy as np
import pytest

import rnnfast
from rnnfast.cells import READY, relu, sigmoid, tanh
from rnnfast.cli import diagnose
from rnnfast.diagnostics import GateSaturation, GradientByLag, SpectralRadius, TruncationCurve

CELLS = {cell.name: cell for cell in READY}


@rnnfast.cell(states=("y",))
def mixed(stay, new, mute, y):
    """A user's own cell, which does not say what forgets."""
    return sigmoid(stay) * y + tanh(new) * relu(mute)


CELLS["mixed"] = mixed


def lags(*layers):
    """Norms of layers (L, K + 1) as a finding."""
    norms = np.array(layers, float)[:, np.newaxis]
    return GradientByLag(np.arange(norms.shape[-1]), np.array([0]), {"h": norms})


def curve(*errors):
    ks = 2 ** np.arange(len(errors))
    return TruncationCurve(ks, np.array(errors), 1 - np.array(errors))


FALLING = lags([2.0 * 0.1**k for k in range(6)])


BEYOND = "Each word more than 2 steps back has under 1% of the last word's effect."


@pytest.mark.parametrize(
    ("found", "cell", "finding", "advice"),
    [
        (FALLING, "rnn", BEYOND, "For a memory beyond 2 steps, try --cell lstm."),
        (FALLING, "lstm", BEYOND, ""),
        (lags([1, 0, 0, 0], [1, 0.9, 0.8, 0.5]), "rnn", "After 3 steps 50% of the", ""),
        (
            lags([1, 5, 25, 1]),
            "rnn",
            "grows to 25 times its size within 2 steps: it explodes",
            "Keep --clip on",
        ),
        (lags([0, 0, 0]), "rnn", "Each word more than 0 steps back", "--cell lstm"),
    ],
)
def test_gradients_that_vanish_last_or_explode(found, cell, finding, advice):
    actual = diagnose.of_lags(found, CELLS[cell])
    assert finding in actual.finding
    assert advice in actual.advice
    assert bool(actual.advice) == bool(advice)


@pytest.mark.parametrize(
    ("found", "bptt", "finding", "advice"),
    [
        (curve(0.9, 0.5, 0.1, 0.01), 35, "A window of 4 steps comes within 10%", ""),
        (curve(0.9, 0.5, 0.1, 0.01), 2, "A window of 4 steps", "--bptt 2 is short; try --bptt 4."),
        (curve(0.9, 0.5, 0.1), None, "A window of 4 steps", ""),
        (curve(0.9, 0.5), 1, "No window of up to 2 steps comes within 10%", "Try --bptt 2 or more"),
        (curve(0.9, 0.105), 2, "the longest is 10.5% off.", "More --lags show whether a --bptt above 2"),
    ],
)
def test_windows_that_are_long_enough_or_not(found, bptt, finding, advice):
    actual = diagnose.of_windows(found, bptt)
    assert finding in actual.finding
    assert advice in actual.advice
    assert bool(actual.advice) == bool(advice)


def test_one_advice_follows_from_all_findings_and_none_contradicts_another():
    short = diagnose.of_windows(curve(0.9, 0.5, 0.3, 0.1), 5)
    vanishing = diagnose.of_lags(FALLING, CELLS["rnn"])
    for verdict in (vanishing, short):
        assert "vanish" not in verdict.finding
        assert "cannot help" not in verdict.advice
    advice = diagnose.joint_advice([vanishing, short])
    assert "try --bptt 8." in advice
    assert "try --cell lstm." in advice
    exploding = diagnose.of_lags(lags([1, 5, 25, 1]), CELLS["rnn"])
    assert diagnose.joint_advice([short, exploding, vanishing]) == exploding.advice
    assert diagnose.joint_advice([diagnose.Verdict("All is well.")]) == "Nothing to change."


@pytest.mark.parametrize(
    ("cell", "radius", "norm", "finding"),
    [
        ("rnn", 0.5, 0.9, "Each step shrinks a gradient to at most 0.90 times"),
        ("rnn", 0.8, 2.0, "below 1: many steps shrink gradients"),
        ("rnn", 1.2, 2.0, "at least 1: without activations gradients would not vanish; the slope of tanh"),
        ("relu", 1.2, 2.0, "the share of units above zero decides too"),
        ("lstm", 1.2, 2.0, "1.20, of gate g in layer1; the rest of the cell decides too"),
        ("leaky", 0.5, 0.9, "0.50, of gate a in layer1; the rest of the cell decides too"),
        ("ind_rnn", 1.5, 1.5, "1.50, of gate a in layer1; the rest of the cell decides too"),
    ],
)
def test_recurrent_weights(cell, radius, norm, finding):
    gates = CELLS[cell].gates
    radii = np.full((2, len(gates)), 0.1)
    norms = np.full((2, len(gates)), 0.2)
    place = 1, len(gates) // 4  # g of the LSTM
    radii[place], norms[place] = radius, norm
    actual = diagnose.of_radius(SpectralRadius(gates, radii, norms), CELLS[cell])
    assert finding in actual.finding
    assert actual.advice == ""


@pytest.mark.parametrize(
    ("cell", "gate", "low", "high", "finding"),
    [
        ("rnn", "a", 0.3, 0.4, "70% of the units of layer1 are at an end of tanh"),
        ("rnn", "a", 0.1, 0.1, "At most 20% of the units of a layer are saturated."),
        ("relu", "a", 0.95, 0.0, "95% of the units of layer1 are zero"),
        ("relu", "a", 0.5, 0.0, "At most 50% of the units of a layer are zero."),
        ("lstm", "f", 0.6, 0.0, "60% of the forget gates (f) of layer1 are shut"),
        ("lstm", "f", 0.0, 0.9, "At most 0% of the forget gates (f) of a layer are shut."),
        ("gru", "z", 0.0, 0.8, "80% of the update gates (z) of layer1 are wide open"),
        ("gru", "z", 0.9, 0.0, "At most 0% of the update gates (z) of a layer are wide open."),
        (
            "li_gru",
            "z",
            0.7,
            0.0,
            "70% of the forget gates (z) of layer1 are shut: the layer",
        ),
        ("leaky", "a", 0.95, 0.0, "95% of the units of layer1 are zero"),
        ("slstm", "o", 0.2, 0.4, "60% of the activations of gate o of layer1 are at an end of sigmoid"),
        ("slstm", "z", 0.2, 0.1, "At most 30% of the activations of gate z of a layer are saturated."),
        ("mixed", "stay", 0.9, 0.0, "90% of the activations of gate stay of layer1 are at an end of sigmoid"),
        ("mixed", "new", 0.3, 0.3, "60% of the activations of gate new of layer1 are at an end of tanh"),
        ("mixed", "mute", 0.95, 0.0, "95% of the activations of gate mute of layer1 are zero"),
        ("mixed", "mute", 0.85, 0.0, "At most 85% of the activations of gate mute of a layer are zero."),
    ],
)
def test_gates_that_stand_in_the_way(cell, gate, low, high, finding):
    gates = tuple(CELLS[cell].activations)
    lows, highs = np.zeros((2, len(gates))), np.zeros((2, len(gates)))
    lows[1, gates.index(gate)], highs[1, gates.index(gate)] = low, high
    actual = diagnose.of_gates(GateSaturation(gates, lows, highs), CELLS[cell])
    assert finding in actual.finding
    assert (actual.advice == "") == actual.finding.startswith("At most")


def test_a_cell_without_an_activation_has_no_verdict_on_its_gates():
    none = GateSaturation((), np.zeros((2, 0)), np.zeros((2, 0)))
    expected = "No gate of this cell goes into a sigmoid, a tanh or a relu."
    assert diagnose.of_gates(none, CELLS["lif"]) == diagnose.Verdict(expected)
