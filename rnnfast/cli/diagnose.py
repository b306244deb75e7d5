"""`rnnfast diagnose`: how far the gradients of a run reach, and what limits them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from rnnfast import diagnostics
from rnnfast.cells import Cell
from rnnfast.cli import options
from rnnfast.cli.errors import BAD_FILES, counted, fail, one_line
from rnnfast.cli.results import load_run, numbers_table, print_json
from rnnfast.cli.run_folder import PICTURES, VALID, open_run_ids
from rnnfast.diagnostics import GateSaturation, GradientByLag, SpectralRadius, TruncationCurve
from rnnfast.files.atomic import write_atomically
from rnnfast.models import RNNLM

_SEQUENCES = 8  # stretches of text in the batch
_ROWS = 12  # the most in a table


class Finding(NamedTuple):
    """One diagnosis: a table for people, values for programs, and a function that draws it."""

    name: str  # of the picture, without its ending
    title: str
    table: Table
    values: dict[str, Any]
    verdict: Verdict
    draw: Callable[[], Any]


def diagnose(
    run: options.Run,
    lags: Annotated[
        int, options.whole_option("--lags", 1, None, "How many steps to follow gradients back.")
    ] = 50,
    seed: Annotated[int, options.whole_option("--seed", 0, None, "Selects the stretches of text.")] = 0,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="DIR", show_default="the run's folder", help="Folder for the pictures."
        ),
    ] = None,
    cell: options.OwnCell = None,
    last: options.Last = False,
    as_json: options.Json = False,
) -> None:
    """Diagnose a trained model: how far its gradients reach, and what limits them.

    The command reads stretches of the run's validation text. It measures the gradient of one word's loss with
    respect to the states 0, 1, 2 ... words before it, the error of truncated backpropagation, the spectral
    radius of the recurrent weights, and the share of gates that are shut or wide open. It prints a table and
    a sentence for each, then one recommendation, and saves a picture of each in the run's folder.

    Example: [bold]rnnfast diagnose runs/first --lags 100[/bold]
    """
    model, _, config = load_run(run, cell, last=last)
    if not isinstance(model, RNNLM):
        fail(f"{run}: only a recurrent model has gradients through time, and this model is a CBOW.")
    xs, ts = _stretches(run / VALID, model.vocab_size, lags, seed)
    folder = run if out is None else out
    with one_line(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    console = Console(markup=False, highlight=False, stderr=as_json)
    found: dict[str, Any] = {"run": str(run), "pictures": str(folder)}
    judged: list[Verdict] = []
    for finding in _findings(model, xs, ts, lags, config["settings"].get("bptt")):
        with one_line(OSError), write_atomically(folder / f"{finding.name}.png") as file:
            finding.draw().figure.savefig(file, format="png")
        found[finding.name] = {**finding.values, "finding": finding.verdict.finding}
        judged.append(finding.verdict)
        if not as_json:
            console.print(finding.title, soft_wrap=True)
            console.print(finding.table)
            console.print(f"{finding.verdict.finding}\n", soft_wrap=True)
    found["advice"] = joint_advice(judged)
    if as_json:
        print_json(found)
    else:
        console.print(f"advice: {found['advice']}", soft_wrap=True)
        console.print(f"pictures: {folder}", soft_wrap=True)


def _stretches(path: Path, vocab_size: int, lags: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and targets (N, 2 lags) from random places of the validation text."""
    if not path.is_file():
        fail(f"{path} does not exist; diagnose a run that has its validation text.")
    with one_line(*BAD_FILES):
        ids = open_run_ids(path, vocab_size)
    steps = 2 * lags
    if len(ids) <= steps:
        fail(
            f"--lags {lags} needs a validation text of at least {steps + 1} tokens, and {path} has "
            f"{len(ids)}; use fewer lags."
        )
    starts = np.random.default_rng(seed).integers(len(ids) - steps, size=(_SEQUENCES, 1))
    stretches = np.asarray(ids[starts + np.arange(steps + 1)], dtype=np.int64)
    return stretches[:, :-1].copy(), stretches[:, 1:].copy()


def _findings(model: RNNLM, xs: np.ndarray, ts: np.ndarray, lags: int, bptt: int | None) -> Iterator[Finding]:
    """All diagnoses in turn; `bptt` is the window the model was trained with."""
    layers, cell = [f"layer{index}" for index in range(model.config["layers"])], model.body.cell
    names = [Path(picture).stem for picture in PICTURES]
    by_lag = diagnostics.gradient_by_lag(model, xs, ts, lags)
    if not np.isfinite(by_lag.h_norms).all():
        fail("the gradients are not finite numbers, so the model's parameters are damaged.")
    yield Finding(
        names[0],
        "norm of the gradient with respect to the state k steps before",
        _lag_table(by_lag, layers),
        {state: means.tolist() for state, means in by_lag.means().items()},
        of_lags(by_lag, cell),
        lambda: diagnostics.plot_gradient_by_lag(by_lag),
    )
    curve = diagnostics.truncation_curve(model, xs, ts)
    table = numbers_table("window", "relative error", "cosine")
    for k, error, cosine in zip(*curve, strict=True):
        table.add_row(str(k), f"{error:.3f}", f"{cosine:.4f}")
    yield Finding(
        names[1],
        "truncated against exact gradient",
        table,
        _listed(curve),
        of_windows(curve, bptt),
        lambda: diagnostics.plot_truncation_bias(curve),
    )
    if cell.product:
        radius = diagnostics.spectral_radius(model)
        table = numbers_table("layer", "matrix", "spectral radius", "norm")
        _add_gates(table, layers, radius.gates, radius.radii, radius.norms, "{:.3f}")
        yield Finding(
            names[2],
            "recurrent weights",
            table,
            _listed(radius),
            of_radius(radius, cell),
            lambda: diagnostics.plot_spectral_radius(radius),
        )
    gates = diagnostics.gate_saturation(model, xs)
    table = numbers_table(
        "layer", "units" if len(cell.gates) == 1 else "gate", "at the lower end", "at the upper end"
    )
    _add_gates(table, layers, gates.gates, gates.low, gates.high, "{:.1%}")
    yield Finding(
        names[3],
        "saturated activations",
        table,
        _listed(gates),
        of_gates(gates, cell),
        lambda: diagnostics.plot_gate_saturation(gates),
    )


def _listed(found: Any) -> dict[str, Any]:
    """The arrays of a diagnosis as JSON values, by name."""
    return {name: np.asarray(value).tolist() for name, value in found._asdict().items()}


def _lag_table(found: diagnostics.GradientByLag, layers: list[str]) -> Table:
    """A table of some lags, denser at small lags."""
    columns: dict[str, np.ndarray] = {}
    for state, means in found.means().items():
        columns |= dict(zip([f"{name} {state}" for name in layers], means, strict=True))
    table = numbers_table("lag", *columns)
    most = int(found.lags[-1])
    shown = np.unique(np.append(0, np.geomspace(1, most, _ROWS - 1).round().astype(int)))
    for lag in shown:
        table.add_row(str(lag), *(f"{norms[lag]:.2e}" for norms in columns.values()))
    return table


def _add_gates(
    table: Table,
    layers: list[str],
    gates: tuple[str, ...],
    left: np.ndarray,
    right: np.ndarray,
    wording: str,
) -> None:
    """Add a row for each gate of each layer, with its two numbers (L, G)."""
    for layer, *numbers in zip(layers, left, right, strict=True):
        for gate, a, b in zip(gates, *numbers, strict=True):
            table.add_row(layer, gate, wording.format(a), wording.format(b))


# Verdicts on the tables of `rnnfast diagnose`: a sentence for each, one recommendation, by fixed rules.


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
