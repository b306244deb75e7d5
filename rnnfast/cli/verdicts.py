"""What the tables of `rnnfast diagnose` mean: a sentence for each, and one joint advice, by fixed rules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from rnnfast.cli.wording import counted
from rnnfast.diagnostics import GateSaturation, GradientByLag, SpectralRadius, TruncationCurve

VANISHED = 0.01  # of the gradient at lag 0; less moves no weight
EXPLODED = 10.0
CLOSE_ENOUGH = 0.1  # relative error of a truncated gradient, the tolerance of `TruncatedBPTT(k1, "auto")`
SATURATED = 0.5  # share of activations at one end
DEAD = 0.9  # share of zeros behind a relu
GATED = ("lstm", "gru")


class Verdict(NamedTuple):
    """What a table shows, and what to change; "" where nothing is."""

    finding: str
    advice: str = ""
    comes_first: bool = False  # before it is followed, other advice is of no use


def joint_advice(verdicts: Sequence[Verdict]) -> str:
    """One advice from all verdicts."""
    first = [verdict.advice for verdict in verdicts if verdict.comes_first]
    return (
        " ".join(first or [verdict.advice for verdict in verdicts if verdict.advice]) or "Nothing to change."
    )


def of_lags(found: GradientByLag, cell: str) -> Verdict:
    """Whether gradients vanish or explode, in the layer in which they last longest."""
    means = found.mean()
    relative = (means / np.maximum(means[:, :1], np.finfo(float).tiny)).max(axis=0)
    most, last = int(np.argmax(relative)), int(found.lags[-1])
    if relative[most] > EXPLODED:
        return Verdict(
            f"The gradient grows to {relative[most]:.0f} times its size within {counted(most, 'step')}: it "
            f"explodes.",
            "Keep --clip on, and try a lower --lr, or --cell lstm.",
            comes_first=True,
        )
    reach = int(np.flatnonzero(relative >= VANISHED).max(initial=0))
    if reach == last:
        return Verdict(
            f"After {counted(last, 'step')} {relative[last]:.0%} of the gradient is left: it reaches further."
        )
    steps = counted(reach, "step")
    finding = f"Each word more than {steps} back has under {VANISHED:.0%} of the last word's effect."
    if cell in GATED:
        return Verdict(finding)
    return Verdict(finding, f"For a memory beyond {steps}, try --cell lstm.")


def of_windows(found: TruncationCurve, bptt: int | None) -> Verdict:
    """Which window has nearly the exact gradient."""
    good = np.flatnonzero(found.relative_errors <= CLOSE_ENOUGH)
    if not good.size:
        longest = int(found.ks[-1])
        finding = (
            f"No window of up to {counted(longest, 'step')} comes within {CLOSE_ENOUGH:.0%} of the exact "
            f"gradient; the longest is {found.relative_errors[-1]:.1%} off."
        )
        if bptt is not None and bptt >= longest:
            return Verdict(finding, f"More --lags show whether a --bptt above {bptt} helps.")
        return Verdict(finding, f"Try --bptt {longest} or more, and more --lags here to see further.")
    k = int(found.ks[good[0]])
    finding = f"A window of {counted(k, 'step')} comes within {CLOSE_ENOUGH:.0%} of the exact gradient."
    if bptt is not None and bptt < k:
        return Verdict(
            finding, f"Small effects add up over a window, so --bptt {bptt} is short; try --bptt {k}."
        )
    return Verdict(finding)


def of_radius(found: SpectralRadius, cell: str) -> Verdict:
    """What the recurrent matrices alone do to gradients; the activations between them change it."""
    layer, gate = np.unravel_index(int(np.argmax(found.radii)), found.radii.shape)
    radius, norm = float(found.radii.max()), float(found.norms.max())
    if cell in GATED:
        return Verdict(
            f"The largest spectral radius is {radius:.2f}, of gate {found.gates[gate]} in layer{layer}; the "
            f"gates decide too, so judge by the table of gradients."
        )
    if norm < 1:
        return Verdict(f"Each step shrinks a gradient to at most {norm:.2f} times its size.")
    if radius < 1:
        return Verdict(f"The spectral radius is {radius:.2f}, below 1: many steps shrink gradients.")
    slope = "slope of tanh" if cell == "rnn" else "share of units above zero"
    return Verdict(
        f"The spectral radius is {radius:.2f}, at least 1: without activations gradients would not vanish; "
        f"the {slope} decides too."
    )


def of_gates(found: GateSaturation, cell: str) -> Verdict:
    """The gate that stands most in the way of gradients."""
    if cell == "relu":
        share, layer = _most(found.low[:, 0])
        if share > DEAD:
            return Verdict(
                f"{share:.0%} of the units of layer{layer} are zero, and pass no gradient.",
                "Try a lower --lr.",
            )
        return Verdict(f"At most {share:.0%} of the units of a layer are zero.")
    if cell == "rnn":
        share, layer = _most((found.low + found.high)[:, 0])
        if share > SATURATED:
            return Verdict(
                f"{share:.0%} of the units of layer{layer} are at an end of tanh, and pass no gradient.",
                "Try a lower --lr, or more --weight-decay.",
            )
        return Verdict(f"At most {share:.0%} of the units of a layer are saturated.")
    # What cuts the past off: a shut forget gate, or an open update gate, as h = (1 - z) h_prev + z h_hat.
    gate, ends = ("f", found.low) if cell == "lstm" else ("z", found.high)
    share, layer = _most(ends[:, found.gates.index(gate)])
    name = "forget gates" if cell == "lstm" else "update gates"
    state = "shut" if cell == "lstm" else "wide open"
    if share > SATURATED:
        return Verdict(
            f"{share:.0%} of the {name} of layer{layer} are {state}: the layer forgets at once.",
            "The text may need no longer memory; otherwise try a lower --lr or a longer --bptt.",
        )
    return Verdict(f"At most {share:.0%} of the {name} of a layer are {state}.")


def _most(shares: np.ndarray) -> tuple[float, int]:
    """The largest share of all layers, from shares (L,), and its layer."""
    layer = int(np.argmax(shares))
    return float(shares[layer]), layer
