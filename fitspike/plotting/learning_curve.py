"""How a fit went: the loss over steps, and the held-out score of what was tried before settings were fixed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fitspike.errors import counted
from fitspike.plotting.style import DATA, FAINT, MODEL, NEUTRAL, SERIES, new_figure, note, styled

TERM_NORM = "gradient_norm/"
"""What the names of the terms' gradient norms begin with."""

TITLES = {
    "objective": "objective (nats)",
    "decrement": "Newton decrement (nats)",
    "n_open": "neurons not yet converged",
    "nll": "nll (nats per spike-bin)",
    "validation_nll": "validation nll (nats per spike-bin)",
    "gradient_norm": "length of the gradient",
    "readout_nmse": "readout: squared error / variance",
    "readout_error": "readout: wrong decisions (fraction)",
    "hidden_rate_hz": "rate of hidden neurons (Hz)",
}
"""Titles of logged quantities whose name does not say it all."""


@styled
def draw_learning_curve(step: np.ndarray, terms: Mapping[str, np.ndarray], wall_s: np.ndarray | None = None) -> Figure:
    """Return every logged quantity over the steps, a small graph each; the gradient norms of loss terms share one, to be compared.

    step, wall_s, each of `terms`: (n_points,), NaN where not logged.
    """
    logged = {name: values for name, values in terms.items() if np.isfinite(values).any()}
    of_terms = {name.removeprefix(TERM_NORM): values for name, values in logged.items() if name.startswith(TERM_NORM)}
    shown = {name: values for name, values in logged.items() if not name.startswith(TERM_NORM)}
    n = max(len(shown) + bool(of_terms), 1)
    n_columns = min(3, n)
    n_rows = -(-n // n_columns)
    figure, axes = new_figure(n_rows, n_columns, height_in=0.6 + 2.0 * n_rows, width_in=7.2 if n > 1 else 4.8)
    for one in axes.ravel()[n if logged else 0 :]:
        one.set_axis_off()
    if not logged:
        axes[0, 0].set_axis_on()
        note(axes[0, 0], "no step was logged")
        return figure
    for number, (one, (name, values)) in enumerate(zip(axes.ravel(), shown.items(), strict=False)):
        finite = np.isfinite(values)
        marker = "o" if finite.sum() < 30 else ""
        one.plot(step[finite], values[finite], color=SERIES[number % len(SERIES)], marker=marker, ms=3)
        if (values[finite] > 0).all() and values[finite].max() > 100 * values[finite].min():
            one.set_yscale("log")
        one.set_title(TITLES.get(name, name.replace("_", " ")))
        one.set_xlabel("step")
        one.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    if of_terms:
        _draw_term_norms(axes.ravel()[len(shown)], step, of_terms)
    if wall_s is not None and np.isfinite(wall_s).any():
        figure.suptitle(f"{counted(len(step), 'point')} in {np.nanmax(wall_s):.1f} s", x=0.01, ha="left", fontsize=8, color=NEUTRAL)
    return figure


def _draw_term_norms(axes: Axes, step: np.ndarray, norms: Mapping[str, np.ndarray]) -> None:
    """Draw the gradient norm of each weighted loss term on one logarithmic axis."""
    for number, (name, values) in enumerate(norms.items()):
        usable = np.isfinite(values) & (values > 0)
        marker = "o" if usable.sum() < 30 else ""
        axes.plot(step[usable], values[usable], color=SERIES[number % len(SERIES)], marker=marker, ms=2, label=name.replace("_", " "))
    axes.set_yscale("log")
    axes.set(title="gradient of each weighted term", xlabel="step")
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.legend(fontsize=6, loc="best")


@styled
def draw_selection(stages: Sequence[str], labels: Sequence[str], score: np.ndarray, folds: np.ndarray, is_taken: np.ndarray) -> Figure:
    """Return the validation score of every candidate in the order tried, stage by stage; what was taken is filled.

    Parameters
    ----------
    stages, labels : text for each candidate: what was being chosen, and the values tried
    score : ndarray, (n_candidates,)
        Bits per spike over the validation folds.
    folds : ndarray, (n_candidates, n_folds)
        The same for each fold, NaN where unknown; small ticks.
    is_taken : ndarray of bool, (n_candidates,)
    """
    score, is_taken = np.asarray(score, np.float64), np.asarray(is_taken, bool)
    n = len(score)
    figure, axes = new_figure(1, 1, height_in=0.9 + 0.21 * max(n, 2), width_in=7.2)
    one = axes[0, 0]
    row = np.arange(n)
    for i in row:
        one.plot(folds[i], np.full(folds.shape[1], i), "|", color=NEUTRAL, ms=7, mew=0.9)
    one.plot(score[~is_taken], row[~is_taken], "o", mfc="white", mec=DATA, mew=1.3, ms=6)
    one.plot(score[is_taken], row[is_taken], "o", color=MODEL, ms=7)
    starts = [i for i in row if i == 0 or stages[i] != stages[i - 1]]
    for start, stop in zip(starts, [*starts[1:], n], strict=True):
        if start:
            one.axhline(start - 0.5, color=FAINT, lw=0.8)
        middle = (start + stop - 1) / 2
        one.text(1.01, middle, stages[start], transform=one.get_yaxis_transform(), va="center", fontsize=8, color=NEUTRAL)
    one.set_yticks(row, labels, fontsize=7.5)
    one.set(ylim=(n - 0.4, -0.6), xlabel="bits per spike on validation folds (ticks: each fold; filled: taken)")
    return figure


def selection_rows(selection: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the candidates of a selection table, each with stage, label (the settings that vary in the stage), score, folds, is_taken."""
    rows = list(selection.get("rows", ()))
    values: dict[tuple[str, str], set[str]] = {}
    for row in rows:
        for name, value in row.get("settings", {}).items():
            values.setdefault((row.get("stage", ""), name), set()).add(str(value))
    out = []
    for row in rows:
        stage, settings = row.get("stage", ""), row.get("settings", {})
        varying = {name: value for name, value in settings.items() if len(values[stage, name]) > 1} or settings
        out.append(
            {
                "stage": str(stage),
                "label": ", ".join(f"{name} {_short(value)}" for name, value in varying.items()) or "as given",
                "score": row.get("bits_per_spike"),
                "folds": list(row.get("folds") or ()),
                "is_taken": bool(row.get("taken", False)),
            }
        )
    return out


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)
