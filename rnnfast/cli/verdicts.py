"""Verdicts on the tables of `rnnfast diagnose`: a sentence for each, one recommendation, by fixed rules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from rnnfast.cells import Cell
from rnnfast.cli.wording import counted
from rnnfast.diagnostics import GateSaturation, GradientByLag, SpectralRadius, TruncationCurve

VANISHED = 0.01  # of the gradient at lag 0; a smaller gradient hardly moves a weight
EXPLODED = 10.0
CLOSE_ENOUGH = 0.1  # relative error of a truncated gradient, the tolerance of `TruncatedBPTT(k1, "auto")`
SATURATED = 0.5  # share of activations at one end
DEAD = 0.9  # share of zeros behind a relu


class Verdict(NamedTuple):
    """The meaning of a table, and what to change; "" for nothing."""

    finding: str
    advice: str = ""
    comes_first: bool = False  # other advice is useless before this one is followed


def joint_advice(verdicts: Sequence[Verdict]) -> str:
    """One advice from all verdicts."""
    first = [verdict.advice for verdict in verdicts if verdict.comes_first]
    return (
        " ".join(first or [verdict.advice for verdict in verdicts if verdict.advice]) or "Nothing to change."
    )


def of_lags(found: GradientByLag, cell: Cell) -> Verdict:
    """Whether gradients vanish or explode, judged by the layer where they last longest."""
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
    if cell.forgets:  # it has a memory cell already
        return Verdict(finding)
    return Verdict(finding, f"For a memory beyond {steps}, try --cell lstm.")


def of_windows(found: TruncationCurve, bptt: int | None) -> Verdict:
    """The shortest window whose gradient is close to the exact one."""
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


def of_radius(found: SpectralRadius, cell: Cell) -> Verdict:
    """The effect of the recurrent matrices alone on gradients; the activations between them change it."""
    layer, gate = np.unravel_index(int(np.argmax(found.radii)), found.radii.shape)
    radius, norm = float(found.radii.max()), float(found.norms.max())
    if not cell.is_plain:
        return Verdict(
            f"The largest spectral radius is {radius:.2f}, of gate {found.gates[gate]} in layer{layer}; the "
            f"rest of the cell decides too, so judge by the table of gradients."
        )
    if norm < 1:
        return Verdict(f"Each step shrinks a gradient to at most {norm:.2f} times its size.")
    if radius < 1:
        return Verdict(f"The spectral radius is {radius:.2f}, below 1: many steps shrink gradients.")
    (kind,) = cell.activations.values()
    slope = "share of units above zero" if kind == "relu" else f"slope of {kind}"
    return Verdict(
        f"The spectral radius is {radius:.2f}, at least 1: without activations gradients would not vanish; "
        f"the {slope} decides too."
    )


def of_gates(found: GateSaturation, cell: Cell) -> Verdict:
    """The worst gate: among the gates that can cut off the past if there are any, otherwise among all."""
    deciding = [gate for gate in found.gates if gate in cell.forgets]
    if deciding:
        return _of_memory(found, cell, deciding)
    if not found.gates:
        return Verdict("No gate of this cell goes into a sigmoid, a tanh or a relu.")
    worst = max(found.gates, key=lambda gate: _in_the_way(found, cell, gate)[0])
    excess, share, layer = _in_the_way(found, cell, worst)
    units = "units" if len(cell.gates) == 1 else f"activations of gate {worst}"
    kind = cell.activations[worst]
    if kind == "relu":
        if excess > 0:
            return Verdict(
                f"{share:.0%} of the {units} of layer{layer} are zero, and pass no gradient.",
                "Try a lower --lr.",
            )
        return Verdict(f"At most {share:.0%} of the {units} of a layer are zero.")
    if excess > 0:
        return Verdict(
            f"{share:.0%} of the {units} of layer{layer} are at an end of {kind}, and pass no gradient.",
            "Try a lower --lr, or more --weight-decay.",
        )
    return Verdict(f"At most {share:.0%} of the {units} of a layer are saturated.")


def _in_the_way(found: GateSaturation, cell: Cell, gate: str) -> tuple[float, float, int]:
    """The excess of the share of a gate that passes no gradient; that share, and its layer."""
    place = found.gates.index(gate)
    is_relu = cell.activations[gate] == "relu"
    share, layer = _most(found.low[:, place] if is_relu else (found.low + found.high)[:, place])
    return share - (DEAD if is_relu else SATURATED), share, layer


def _of_memory(found: GateSaturation, cell: Cell, deciding: Sequence[str]) -> Verdict:
    """The gate that cuts off the past: a shut forget gate, or an open update gate."""

    def cut_off(gate: str) -> tuple[float, int]:
        ends = found.low if cell.forgets[gate] == "low" else found.high
        return _most(ends[:, found.gates.index(gate)])

    worst = max(deciding, key=lambda gate: cut_off(gate)[0])
    share, layer = cut_off(worst)
    name, state = ("forget", "shut") if cell.forgets[worst] == "low" else ("update", "wide open")
    gates = f"{name} gates ({worst})"
    if share > SATURATED:
        return Verdict(
            f"{share:.0%} of the {gates} of layer{layer} are {state}: the layer forgets at once.",
            "The text may need no longer memory; otherwise try a lower --lr or a longer --bptt.",
        )
    return Verdict(f"At most {share:.0%} of the {gates} of a layer are {state}.")


def _most(shares: np.ndarray) -> tuple[float, int]:
    """The largest of the shares (L,) of all layers, and its layer."""
    layer = int(np.argmax(shares))
    return float(shares[layer]), layer
