"""`rnnfast diagnose`: how far the gradients of a run reach, and what limits them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from rnnfast import diagnostics
from rnnfast.cli import options, verdicts
from rnnfast.cli.errors import BAD_FILES, fail, one_line
from rnnfast.cli.results import numbers_table, print_json
from rnnfast.cli.run_folder import PICTURES, VALID, open_run_ids
from rnnfast.cli.verdicts import Verdict
from rnnfast.cli.words import load_run
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
    found["advice"] = verdicts.joint_advice(judged)
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
        verdicts.of_lags(by_lag, cell),
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
        verdicts.of_windows(curve, bptt),
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
            verdicts.of_radius(radius, cell),
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
        verdicts.of_gates(gates, cell),
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
