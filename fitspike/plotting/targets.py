"""Outputs of a network over time beside the signals they were trained to become."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fitspike.plotting.style import DATA, MODEL, SERIES, new_figure, styled, time_unit

MOST_CHANNELS = 4


@styled
def draw_targets(time_ms: np.ndarray, output: np.ndarray, target: np.ndarray, weight: np.ndarray, *, is_class: bool) -> Figure:
    """Return outputs and targets, a row for each trial: values over one another, or the classes' probabilities over the right class.

    Parameters
    ----------
    time_ms : ndarray, (n_bins,)
    output, target : ndarray, (n_trials, n_bins, n_out)
    weight : ndarray, (n_trials, n_bins), 0 where nothing is compared
    """
    ms_each, unit = time_unit(time_ms)
    time = time_ms / ms_each
    draw = _draw_classes if is_class else _draw_values
    figure, axes = new_figure(len(output), 1, height_in=0.8 + 1.25 * len(output), sharex=True, sharey=True)
    for trial, one in enumerate(axes[:, 0]):
        draw(one, time, output[trial], target[trial], weight[trial] > 0)
        if len(output) > 1:
            one.set_ylabel(f"trial {trial}", fontsize=8)
    axes[0, 0].legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=MOST_CHANNELS, fontsize=7, borderaxespad=0.1)
    figure.supylabel("probability of class" if is_class else "output (unit of the target)", fontsize=9)
    figure.supxlabel(f"time in trial ({unit})", fontsize=9)
    return figure


def _draw_values(axes: Axes, time: np.ndarray, output: np.ndarray, target: np.ndarray, is_compared: np.ndarray) -> None:
    """Draw the first outputs; several of them in colours of their own."""
    n_shown = min(output.shape[1], MOST_CHANNELS)
    for k in range(n_shown):
        own = {"color": DATA if n_shown == 1 else SERIES[k]}
        name = "" if n_shown == 1 else f" {k}"
        axes.plot(time, np.where(is_compared, target[:, k], np.nan), lw=3.5, alpha=0.35, label=f"target{name}", **own)
        axes.plot(time, output[:, k], lw=1.0, label=f"output{name}", color=MODEL if n_shown == 1 else SERIES[k])


def _draw_classes(axes: Axes, time: np.ndarray, output: np.ndarray, target: np.ndarray, is_compared: np.ndarray) -> None:
    """Draw the probability of each class, and the right one as background where one is asked for."""
    right = np.where(is_compared, target.argmax(-1), -1)
    for k in range(min(output.shape[1], len(SERIES))):
        axes.plot(time, output[:, k], lw=1.0, color=SERIES[k], label=f"class {k}")
        axes.fill_between(time, 0, 1, where=right == k, step="mid", color=SERIES[k], alpha=0.25, lw=0)
    axes.set_ylim(-0.03, 1.03)
