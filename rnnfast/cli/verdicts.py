"""What the tables of `rnnfast diagnose` mean: a sentence of verdict and one of advice, by fixed rules."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from rnnfast.diagnostics import GateSaturation, GradientByLag, SpectralRadius, TruncationCurve

VANISHED = 0.01  # of the gradient at lag 0; less moves no weight
EXPLODED = 10.0
CLOSE_ENOUGH = 0.1  # relative error of a truncated gradient, the tolerance of `TruncatedBPTT(k1, "auto")`
SATURATED = 0.5  # share of activations at one end
DEAD = 0.9  # share of zeros behind a relu
GATED = ("lstm", "gru")


class Verdict(NamedTuple):
    """A sentence each."""

    finding: str
    advice: str


def of_lags(found: GradientByLag, cell: str, bptt: int | None) -> Verdict:
    """Whether gradients vanish or explode, in the layer in which they last longest."""
    means = found.mean()
    relative = (means / np.maximum(means[:, :1], np.finfo(float).tiny)).max(axis=0)
    most, last = int(np.argmax(relative)), int(found.lags[-1])
    if relative[most] > EXPLODED:
        finding = (
            f"The gradient grows to {relative[most]:.0f} times its size within {most} steps: it explodes."
        )
        return Verdict(finding, "Keep --clip on, and try a lower --lr, or --cell lstm.")
    reach = int(np.flatnonzero(relative >= VANISHED).max(initial=0))
    if reach == last:
        finding = f"After {last} steps {relative[last]:.0%} of the gradient is left: it reaches further."
        return Verdict(finding, _longer(last, bptt))
    finding = f"The gradient falls below {VANISHED:.0%} after {reach} steps: it vanishes."
    if bptt is not None and bptt <= reach:
        return Verdict(finding, f"--bptt {bptt} cuts it off before; try --bptt {reach}.")
    if cell in GATED:
        return Verdict(finding, f"A --bptt above {reach} adds little.")
    return Verdict(finding, "A longer --bptt cannot help; try --cell lstm.")


def _longer(lags: int, bptt: int | None) -> str:
    if bptt is not None and bptt < lags:
        return f"--bptt {bptt} cuts it off; a longer one can help."
    return "A longer --bptt can help; more --lags show how long."


def of_windows(found: TruncationCurve, bptt: int | None) -> Verdict:
    """Which window has nearly the exact gradient."""
    good = np.flatnonzero(found.relative_errors <= CLOSE_ENOUGH)
    if not good.size:
        longest = int(found.ks[-1])
        finding = (
            f"No window of up to {longest} steps comes within {CLOSE_ENOUGH:.0%} of the exact gradient; the "
            f"longest is {found.relative_errors[-1]:.1%} off."
        )
        if bptt is not None and bptt >= longest:
            return Verdict(finding, f"More --lags show whether a --bptt above {bptt} helps.")
        return Verdict(finding, f"Try --bptt {longest} or more, and more --lags here to see further.")
    k = int(found.ks[good[0]])
    finding = f"A window of {k} steps comes within {CLOSE_ENOUGH:.0%} of the exact gradient."
    if bptt is not None and bptt < k:
        return Verdict(finding, f"--bptt {bptt} is too short; try --bptt {k}.")
    if bptt is None:
        return Verdict(finding, f"--bptt {k} is long enough.")
    return Verdict(finding, f"--bptt {bptt} is long enough; a longer one changes little.")


def of_radius(found: SpectralRadius, cell: str) -> Verdict:
    """Whether the recurrent matrices alone make gradients vanish or grow."""
    layer, gate = np.unravel_index(int(np.argmax(found.radii)), found.radii.shape)
    radius, norm = float(found.radii.max()), float(found.norms.max())
    if cell in GATED:
        finding = f"The largest spectral radius is {radius:.2f}, of gate {found.gates[gate]} in layer{layer}."
        return Verdict(finding, "Gates decide beside the matrices, so judge by the table of gradients.")
    if norm < 1:
        finding = f"No step makes a gradient longer than {norm:.2f} times, so gradients must vanish."
        return Verdict(finding, "Try --cell lstm; a longer --bptt cannot help.")
    if radius < 1:
        finding = f"The spectral radius is {radius:.2f}, below 1, so gradients vanish over many steps."
        return Verdict(finding, "Where the text asks for a longer memory, try --cell lstm.")
    finding = f"The spectral radius is {radius:.2f}, at least 1, so gradients can grow."
    return Verdict(finding, "Keep --clip on.")


def of_gates(found: GateSaturation, cell: str) -> Verdict:
    """The gate that stands most in the way of gradients."""
    if cell == "relu":
        share, layer = _most(found.low[:, 0])
        if share > DEAD:
            return Verdict(
                f"{share:.0%} of the units of layer{layer} are zero, and pass no gradient.",
                "Try a lower --lr.",
            )
        return Verdict(f"At most {share:.0%} of the units of a layer are zero.", "Nothing to change.")
    if cell == "rnn":
        share, layer = _most((found.low + found.high)[:, 0])
        if share > SATURATED:
            return Verdict(
                f"{share:.0%} of the units of layer{layer} are at an end of tanh, and pass no gradient.",
                "Try a lower --lr, or more --weight-decay.",
            )
        return Verdict(f"At most {share:.0%} of the units of a layer are saturated.", "Nothing to change.")
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
    return Verdict(f"At most {share:.0%} of the {name} of a layer are {state}.", "Nothing to change.")


def _most(shares: np.ndarray) -> tuple[float, int]:
    """The largest share of all layers, from shares (L,), and its layer."""
    layer = int(np.argmax(shares))
    return float(shares[layer]), layer
