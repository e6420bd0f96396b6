"""Peri-stimulus time histograms of data and model, and how far the model's correlation is from the data's own ceiling."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from fitspike.plotting.style import DATA, MODEL, NEUTRAL, new_figure, note, styled, time_unit

MOST_NEURONS, MOST_CONDITIONS, MOST_POINTS = 4, 4, 150


@styled
def draw_psth(
    time_ms: np.ndarray,
    recorded_hz: np.ndarray,
    model_hz: np.ndarray | None,
    *,
    conditions: np.ndarray,
    neuron_ids: np.ndarray,
    n_trials: np.ndarray,
    ceiling: np.ndarray | None = None,
) -> Figure:
    """Return PSTHs of the neurons with the clearest response: a row for each, a column for each condition.

    Long ones are drawn in means over several of their windows; correlations are those of the windows given.

    Parameters
    ----------
    time_ms : ndarray, (n_times,)
    recorded_hz, model_hz : ndarray, (n_conditions, n_times, n_neurons)
    conditions, n_trials : ndarray, (n_conditions,)
    neuron_ids : ndarray, (n_neurons,)
    ceiling : ndarray, (n_neurons,), optional
        Correlation that a perfect model would reach; given in the row's title and used to choose neurons.
    """
    clarity = recorded_hz.std((0, 1)) if ceiling is None else np.nan_to_num(ceiling) * recorded_hz.std((0, 1))
    neurons = np.argsort(-clarity, kind="stable")[:MOST_NEURONS]
    shown = np.unique(np.linspace(0, len(conditions) - 1, min(MOST_CONDITIONS, len(conditions))).astype(int))
    figure, axes = new_figure(len(neurons), len(shown), height_in=0.7 + 1.25 * len(neurons), sharex=True, sharey="row")
    together = -(-len(time_ms) // MOST_POINTS)
    window_ms = together * float(time_ms[1] - time_ms[0]) if len(time_ms) > 1 else float("nan")
    ms_each, unit = time_unit(time_ms)
    time = _means(time_ms, together) / ms_each
    for row, neuron in enumerate(neurons):
        for column, condition in enumerate(shown):
            one = axes[row, column]
            shown_hz = _means(recorded_hz[condition, :, neuron], together)
            one.fill_between(time, shown_hz, step="mid", color=DATA, alpha=0.3, lw=0, label="data")
            if model_hz is not None:
                one.plot(time, _means(model_hz[condition, :, neuron], together), color=MODEL, lw=1.2, label="model")
            if row == 0 and len(conditions) > 1:
                one.set_title(f"{conditions[condition] or 'all trials'}, {int(n_trials[condition])} trials", fontsize=8)
        axes[row, 0].set_ylim(0, 1.05 * max(one.dataLim.y1 for one in axes[row]) or 1.0)
        label = f"neuron {neuron_ids[neuron]}"
        if model_hz is not None:
            label += f"\nr = {_correlation(recorded_hz[..., neuron], model_hz[..., neuron]):.2f}"
        if ceiling is not None and np.isfinite(ceiling[neuron]):
            label += f" of {ceiling[neuron]:.2f}" if model_hz is not None else f"\nceiling {ceiling[neuron]:.2f}"
        axes[row, 0].set_ylabel(f"{label}\nHz", fontsize=8)
    axes[0, -1].legend(loc="upper right", fontsize=7)
    figure.supxlabel(f"time in trial ({unit})" + (f", means of {window_ms:g} ms" if together > 1 else ""), fontsize=9)
    return figure


@styled
def draw_psth_scores(recorded_hz: np.ndarray, models: dict[str, np.ndarray], ceiling: np.ndarray) -> Figure:
    """Return each neuron's correlation of model and recorded PSTH against the ceiling that the repeats allow.

    recorded_hz and each of `models`: (n_conditions, n_times, n_neurons); ceiling (n_neurons,).
    """
    figure, axes = new_figure(1, len(models), height_in=3.2, width_in=min(7.2, 3.4 * len(models)), sharex=True, sharey=True)
    for one, (name, model_hz) in zip(axes[0], models.items(), strict=True):
        score = np.array([_correlation(recorded_hz[..., i], model_hz[..., i]) for i in range(recorded_hz.shape[-1])])
        usable = np.isfinite(score) & np.isfinite(ceiling)
        if not usable.any():
            note(one, "no neuron with a PSTH that varies")
            continue
        one.plot([0, 1], [0, 1], color=NEUTRAL, lw=0.8, ls="--")
        one.plot(ceiling[usable], score[usable], "o", color=MODEL, ms=4, alpha=0.7, mew=0, rasterized=usable.sum() > 500)
        one.set(title=f"{name}: median {np.median(score[usable]):.2f} of {np.median(ceiling[usable]):.2f}", xlabel="ceiling (correlation)")
        one.set(xlim=(-0.02, 1.02), ylim=(min(-0.05, score[usable].min() - 0.05), 1.02))
    axes[0, 0].set_ylabel("correlation with data")
    return figure


def _means(values: np.ndarray, together: int) -> np.ndarray:
    """Return means of so many neighbouring values each; an incomplete last group is left out."""
    return values[: len(values) // together * together].reshape(-1, together).mean(1)


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    a, b = np.ravel(a).astype(np.float64), np.ravel(b).astype(np.float64)
    a, b = a - a.mean(), b - b.mean()
    scale = np.sqrt((a**2).sum() * (b**2).sum())
    return float((a * b).sum() / scale) if scale > 0 else float("nan")
