"""How a fit went: the loss over steps, and the held-out score of what was tried before settings were fixed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fitspike.plotting.style import DATA, MODEL, NEUTRAL, SERIES, new_figure, note, styled


@styled
def draw_learning_curve(step: np.ndarray, terms: Mapping[str, np.ndarray], wall_s: np.ndarray | None = None) -> Figure:
    """Return every logged quantity over the steps, a small graph each. step, wall_s, each of `terms`: (n_points,), NaN where not logged."""
    shown = {name: values for name, values in terms.items() if np.isfinite(values).any()}
    n = max(len(shown), 1)
    n_columns = min(3, n)
    n_rows = -(-n // n_columns)
    figure, axes = new_figure(n_rows, n_columns, height_in=0.6 + 2.0 * n_rows, width_in=7.2 if n > 1 else 4.8)
    for one in axes.ravel()[len(shown) :]:
        one.set_axis_off()
    if not shown:
        axes[0, 0].set_axis_on()
        note(axes[0, 0], "no step was logged")
        return figure
    for number, (one, (name, values)) in enumerate(zip(axes.ravel(), shown.items(), strict=False)):
        finite = np.isfinite(values)
        marker = "o" if finite.sum() < 30 else ""
        one.plot(step[finite], values[finite], color=SERIES[number % len(SERIES)], marker=marker, ms=3)
        if (values[finite] > 0).all() and values[finite].max() > 100 * values[finite].min():
            one.set_yscale("log")
        one.set_title(name.replace("_", " "))
        one.set_xlabel("step")
        one.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    if wall_s is not None and np.isfinite(wall_s).any():
        figure.suptitle(f"{len(step)} points in {np.nanmax(wall_s):.1f} s", x=0.01, ha="left", fontsize=8, color=NEUTRAL)
    return figure


@styled
def draw_selection(
    labels: Sequence[str], score: np.ndarray, error: np.ndarray | None, chosen: int | None, *, penalty: np.ndarray | None = None
) -> Figure:
    """Return the cross-validated score of every candidate tried on the training data, the chosen one marked.

    Parameters
    ----------
    labels : one for each candidate; candidates of equal label form one line over the penalty
    score, error : ndarray, (n_candidates,)
        Held-out bits per spike of the validation folds and its standard error.
    chosen : int or None
    penalty : ndarray, (n_candidates,), optional
        Strength of the penalty, drawn on a logarithmic axis. Without it, or where it never varies, one bar a candidate.
    """
    score = np.asarray(score, np.float64)
    spread = np.zeros(len(score)) if error is None else np.nan_to_num(np.asarray(error, np.float64))
    names = list(dict.fromkeys(labels))
    has_path = penalty is not None and len(np.unique(np.asarray(penalty)[np.isfinite(score)])) > 1
    if has_path:
        figure, axes = new_figure(1, 1, height_in=3.1, width_in=6.4)
        one = axes[0, 0]
        floor = np.min(penalty[penalty > 0]) / 10 if (penalty > 0).any() else 1.0
        for number, name in enumerate(names):
            rows = np.flatnonzero((np.array(labels) == name) & np.isfinite(score))
            rows = rows[np.argsort(penalty[rows])]
            colour = SERIES[number % len(SERIES)]
            one.errorbar(np.maximum(penalty[rows], floor), score[rows], yerr=spread[rows], color=colour, marker="o", ms=3.5, elinewidth=0.8,
                         label=name, capsize=2)  # fmt: skip
        if chosen is not None:
            one.plot(max(penalty[chosen], floor), score[chosen], "o", ms=11, mfc="none", mec="black", mew=1.4, label="chosen")
        one.set_xscale("log")
        one.set(xlabel="penalty" + (" (leftmost: none)" if (penalty == 0).any() else ""), ylabel="bits per spike, validation folds")
        one.legend(loc="best")
        return figure
    order = np.argsort(np.where(np.isfinite(score), score, -np.inf), kind="stable")
    figure, axes = new_figure(1, 1, height_in=0.8 + 0.22 * max(len(score), 2), width_in=6.4)
    one = axes[0, 0]
    colours = [MODEL if i == chosen else DATA for i in order]
    one.barh(np.arange(len(order)), np.nan_to_num(score[order]), xerr=spread[order], color=colours, height=0.7, ecolor="black", alpha=0.85)
    one.set_yticks(np.arange(len(order)), [labels[i] + (" (chosen)" if i == chosen else "") for i in order], fontsize=8)
    one.axvline(0, color="black", lw=0.8)
    one.set(xlabel="bits per spike, validation folds")
    return figure
