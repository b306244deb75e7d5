"""Pictures of all diagnostics; matplotlib is imported when one is drawn."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from rnnfast.diagnostics.lags import GradientByLag
from rnnfast.diagnostics.saturation import GateSaturation
from rnnfast.diagnostics.spectrum import SpectralRadius
from rnnfast.diagnostics.truncation import TruncationCurve

_COLORS = ("#1f5fbf", "#d9822b", "#3a923a", "#8d4bb3", "#c03d3e", "#5f5f5f")
_GREY = "#6b6b6b"
_DASHES = ("--", ":", "-.")


def plot_gradient_by_lag(found: GradientByLag, ax: Any = None) -> Any:
    """Norm of the gradient over the lag on a logarithmic scale, a line for each layer.

    Thin lines are single targets, the bold line is their mean, dashed lines are other states than the output.

    Parameters
    ----------
    found : GradientByLag
    ax : matplotlib axes, optional
        Where to draw; axes of a new figure by default.

    Returns
    -------
    matplotlib axes
        ``plot_gradient_by_lag(found).figure.savefig("gradient.png")`` writes a file.

    Raises
    ------
    ImportError
        matplotlib is not there.

    Examples
    --------
    >>> norms = 0.5 ** np.arange(11.0).reshape(1, 1, 11)
    >>> ax = plot_gradient_by_lag(GradientByLag(np.arange(11), np.array([20]), {"h": norms}))
    >>> ax.get_xlabel()
    'lag k, steps'
    """
    ax = _axes("plot_gradient_by_lag", ax)
    (output, means), *others = found.means().items()
    for index, mean in enumerate(means):
        color = _COLORS[index % len(_COLORS)]
        for norms in found.h_norms[index]:
            ax.plot(found.lags, _positive(norms), color=color, linewidth=0.6, alpha=0.3)
        ax.plot(found.lags, _positive(mean), color=color, linewidth=2.2, label=f"layer{index}, {output}")
        for dashes, (state, values) in zip(itertools.cycle(_DASHES), others, strict=False):
            style = {"color": color, "linewidth": 1.6, "linestyle": dashes, "label": f"layer{index}, {state}"}
            ax.plot(found.lags, _positive(values[index]), **style)
    if (np.nan_to_num(found.h_norms) > 0).any():  # otherwise a logarithmic axis would be empty
        ax.set_yscale("log")
    _finish(ax, "lag k, steps", r"$\|\partial L_t / \partial h_{t-k}\|$", "Gradient by lag")
    return ax


def plot_truncation_bias(found: TruncationCurve, ax: Any = None) -> Any:
    """Relative error of the truncated gradient over the window, and one minus its cosine.

    Parameters
    ----------
    found : TruncationCurve
    ax : matplotlib axes, optional
        Where to draw; axes of a new figure by default.

    Returns
    -------
    matplotlib axes

    Raises
    ------
    ImportError
        matplotlib is not there.

    Examples
    --------
    >>> curve = TruncationCurve(np.array([1, 2, 4]), np.array([0.5, 0.2, 0.1]), np.array([0.9, 0.98, 1.0]))
    >>> plot_truncation_bias(curve).get_xlabel()
    'window k, steps'
    """
    ax = _axes("plot_truncation_bias", ax)
    values = {"relative error": found.relative_errors, "1 - cosine": 1 - found.cosines}
    for color, (label, line) in zip(_COLORS, values.items(), strict=False):
        ax.plot(found.ks, line, color=color, linewidth=2.2, marker="o", markersize=4, label=label)
    ax.set_xscale("log", base=2)
    ax.set_ylim(bottom=0)
    ax.xaxis.set_major_formatter("{x:g}")
    _finish(ax, "window k, steps", "truncated against exact gradient", "Bias of truncation")
    return ax


def plot_spectral_radius(found: SpectralRadius, ax: Any = None) -> Any:
    """A bar for the spectral radius of each recurrent matrix, a mark at its norm, a line at 1.

    Parameters
    ----------
    found : SpectralRadius
    ax : matplotlib axes, optional
        Where to draw; axes of a new figure by default.

    Returns
    -------
    matplotlib axes

    Raises
    ------
    ImportError
        matplotlib is not there.

    Examples
    --------
    >>> ax = plot_spectral_radius(SpectralRadius(("a",), np.array([[0.9]]), np.array([[1.2]])))
    >>> [label.get_text() for label in ax.get_xticklabels()]
    ['layer0 a']
    """
    ax = _axes("plot_spectral_radius", ax)
    places, colors = _bars(ax, found.gates, len(found.radii))
    ax.bar(places, found.radii.ravel(), color=colors, width=0.7, label="spectral radius")
    ax.plot(places, found.norms.ravel(), "_", color=_GREY, markersize=16, label="norm")
    ax.axhline(1.0, color=_GREY, linewidth=1.2, linestyle=(0, (2, 2)))
    _finish(ax, "", "of the recurrent weights", "Spectral radius")
    return ax


def plot_gate_saturation(found: GateSaturation, ax: Any = None) -> Any:
    """A bar for each gate: downwards the share at the lower end of its range, upwards at the upper end.

    Parameters
    ----------
    found : GateSaturation
    ax : matplotlib axes, optional
        Where to draw; axes of a new figure by default.

    Returns
    -------
    matplotlib axes

    Raises
    ------
    ImportError
        matplotlib is not there.

    Examples
    --------
    >>> ax = plot_gate_saturation(GateSaturation(("z", "r", "n"), np.zeros((2, 3)), np.ones((2, 3))))
    >>> len(ax.get_xticklabels())
    6
    """
    ax = _axes("plot_gate_saturation", ax)
    places, colors = _bars(ax, found.gates, len(found.low))
    ax.bar(places, found.high.ravel(), color=colors, width=0.7, label="at the upper end")
    ax.bar(places, -found.low.ravel(), color=colors, width=0.7, alpha=0.5, label="at the lower end")
    ax.axhline(0.0, color=_GREY, linewidth=1.0)
    ax.set_ylim(-1.02, 1.02)
    ax.yaxis.set_major_formatter(lambda share, _: f"{abs(share):.0%}")
    _finish(ax, "", "share of activations", "Saturated units" if len(found.gates) == 1 else "Saturated gates")
    return ax


def _axes(owner: str, ax: Any) -> Any:
    """The caller's axes, or the axes of a new figure that needs no display."""
    if ax is not None:
        return ax
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            f'{owner}: drawing needs matplotlib: pip install "rnnfast[cli]", or, in a clone, '
            'pip install -e ".[cli]"'
        ) from error
    figure = Figure(figsize=(7.2, 4.4), dpi=144, layout="constrained")
    FigureCanvasAgg(figure)
    return figure.add_subplot()


def _positive(values: np.ndarray) -> np.ndarray:
    """The positive values, with gaps elsewhere, for a logarithmic axis."""
    return np.where(np.isfinite(values) & (values > 0), values, np.nan)


def _bars(ax: Any, gates: tuple[str, ...], layers: int) -> tuple[np.ndarray, list[str]]:
    """Places and colors of the bars, one for each gate of each layer, with a gap between layers."""
    names = [(index, gate) for index in range(layers) for gate in gates]
    places = np.array([float(i) + 0.6 * index for i, (index, _) in enumerate(names)])
    ax.set_xticks(places, [f"layer{index} {gate}" for index, gate in names])
    if len(names) > 8:
        ax.tick_params(axis="x", rotation=60)
    return places, [_COLORS[gates.index(gate) % len(_COLORS)] for _, gate in names]


def _finish(ax: Any, xlabel: str, ylabel: str, title: str) -> None:
    """Set the labels and the title, and draw the legend, as in all pictures."""
    ax.set_xlabel(xlabel)
    ax.set_ylabel(ylabel)
    ax.set_title(title, loc="left", fontsize=11)
    ax.grid(axis="y", color="#dddddd", linewidth=0.7)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, fontsize=9)
