"""Whole populations, most of whose neurons were not recorded: couplings, inferred and free activity, dwell times, answers to pulses."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from fitspike.plotting.style import DATA, DIVERGING, MODEL, NEUTRAL, SERIES, new_figure, styled, symmetric_limit


def _colour(m: int) -> str:
    return SERIES[m % len(SERIES)]


@styled
def draw_population_activity(
    names: Sequence[str],
    latent_s: np.ndarray,
    latent_hz: np.ndarray,
    latent_sd_hz: np.ndarray | None,
    free_s: np.ndarray,
    free_hz: np.ndarray,
    smoothing_s: float = 0.02,
) -> Figure:
    """Return inferred activity with its uncertainty above, and the fitted populations running freely below.

    Parameters
    ----------
    latent_s, free_s : ndarray, (n_bins,), time, s
    latent_hz, latent_sd_hz, free_hz : ndarray, (n_bins, n_populations), Hz
    smoothing_s : sd of the Gaussian with which the traces are drawn, since noise from bin to bin hides their course
    """
    from scipy.ndimage import gaussian_filter1d

    figure, axes = new_figure(2, 1, height_in=4.4, sharey=True)
    for one, time_s, rate_hz, spread in ((axes[0, 0], latent_s, latent_hz, latent_sd_hz), (axes[1, 0], free_s, free_hz, None)):
        width = max(smoothing_s / float(np.median(np.diff(time_s))), 1e-6)
        for m, name in enumerate(names):
            drawn = gaussian_filter1d(rate_hz[:, m], width)
            one.plot(time_s, drawn, color=_colour(m), lw=1.0, label=str(name), rasterized=len(drawn) > 20_000)
            if spread is not None:
                wide = gaussian_filter1d(spread[:, m], width)
                one.fill_between(time_s, np.maximum(drawn - wide, 0), drawn + wide, color=_colour(m), alpha=0.2, lw=0)
        one.set(ylabel="population rate (Hz)", xlim=(time_s[0], time_s[-1]), ylim=(0, None))
    axes[0, 0].set_title("inferred from the recorded spikes; band: one standard deviation of a bin")
    axes[1, 0].set(title="the fitted populations running freely", xlabel="time (s)")
    axes[0, 0].legend(loc="upper right", ncols=min(len(names), 4))
    return figure


@styled
def draw_population_coupling(coupling: np.ndarray, sd: np.ndarray | None, names: Sequence[str]) -> Figure:
    """Return the couplings between populations [post, pre] with their standard errors written in."""
    n = len(coupling)
    figure, axes = new_figure(1, 1, height_in=max(2.6, 0.7 * n + 1.2), width_in=max(3.8, 0.95 * n + 2.0))
    one = axes[0, 0]
    limit = symmetric_limit(coupling, 100)
    image = one.imshow(coupling, cmap=DIVERGING, vmin=-limit, vmax=limit)
    bar = figure.colorbar(image, ax=one, shrink=0.8)
    bar.set_label("coupling (noise units / s per Hz)", fontsize=8)
    for spine in one.spines.values():
        spine.set_visible(True)
    for post in range(n if n <= 10 else 0):
        for pre in range(n):
            text = f"{coupling[post, pre]:.4g}"
            if sd is not None and coupling[post, pre] != 0:
                text += f"\n± {sd[post, pre]:.2g}" if np.isfinite(sd[post, pre]) else "\n± ?"
            bright = abs(coupling[post, pre]) > 0.6 * limit
            one.text(pre, post, text, ha="center", va="center", fontsize=7, color="white" if bright else "black")
    one.set(xlabel="from (pre)", ylabel="to (post)")
    one.set_xticks(range(n), [str(name)[:14] for name in names], rotation=30 if max(map(len, names)) > 4 else 0, fontsize=8)
    one.set_yticks(range(n), [str(name)[:14] for name in names], fontsize=8)
    return figure


@styled
def draw_dwell_times(inferred_s: np.ndarray, free_s: np.ndarray) -> Figure:
    """Return the share of dwell times that last longer, inferred and free; (n_dwells,) s each."""
    figure, axes = new_figure(1, 1, height_in=2.6, width_in=4.6)
    one = axes[0, 0]
    for values, colour, label in ((inferred_s, DATA, "inferred"), (free_s, MODEL, "free run")):
        if len(values):
            ordered = np.sort(values)
            share = 1.0 - np.arange(len(ordered) + 1) / len(ordered)
            one.step(np.concatenate([[0.0], ordered]), share, where="post", color=colour, label=f"{label}, {len(values)} dwells")
    one.set(xlabel="time between changes of the leading population (s)", ylabel="share that lasts longer", xlim=(0, None), ylim=(0, 1.02))
    one.legend()
    return figure


@styled
def draw_pulse_responses(
    names: Sequence[str], time_ms: np.ndarray, response_hz: np.ndarray, pulse_ms: float, amplitude_per_s: float
) -> Figure:
    """Return the mean activity of all populations around a pulse of input to each; response_hz (target, n_bins, n_populations)."""
    n = len(names)
    columns = min(n, 3)
    rows = -(-n // columns)
    figure, axes = new_figure(rows, columns, height_in=2.2 * rows + 0.4, sharex=True, sharey=True)
    for target, one in enumerate(axes.ravel()):
        if target >= n:
            one.set_visible(False)
            continue
        one.axvspan(0, pulse_ms, color=NEUTRAL, alpha=0.15, lw=0)
        for m, name in enumerate(names):
            one.plot(time_ms, response_hz[target, :, m], color=_colour(m), lw=1.1, label=str(name))
        one.set(title=f"pulse to {names[target]}", xlim=(time_ms[0], time_ms[-1]), ylim=(0, None))
        if target % columns == 0:
            one.set_ylabel("population rate (Hz)")
        if target + columns >= n:
            one.set_xlabel("time from the pulse (ms)")
    axes[0, 0].legend(loc="upper right", fontsize=7)
    figure.suptitle(f"{amplitude_per_s:g} noise units / s for {pulse_ms:g} ms", fontsize=8.5, x=0.01, ha="left", color=NEUTRAL)
    return figure
