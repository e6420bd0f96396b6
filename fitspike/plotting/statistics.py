"""Data against free simulation: rates, irregularity, correlations, population rate; intervals; time rescaling; scores per neuron."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fitspike.errors import counted
from fitspike.plotting.style import DATA, FAINT, GOOD, MODEL, NEUTRAL, identity_line, log_ticks, new_figure, new_mosaic, note, styled

KS_95 = 1.36
"""The Kolmogorov-Smirnov statistic stays below this over sqrt(n) in 95 of 100 samples from the right distribution (large n)."""
MANY = 400
TRACE_POINTS, LAG_POINTS, BANDS = 300, 25, 31


@styled
def draw_data_against_simulation(recorded: Mapping[str, np.ndarray], simulated: Mapping[str, np.ndarray]) -> Figure:
    """Return a panel of what the free simulation should share with the data.

    Both mappings are summaries (`fitspike.statistics.summary`): rate_hz, interval_cv, fano (n_neurons,), noise_correlation (M, M),
    population_rate_hz (W,) with population_window_ms, population_frequency_hz and population_power (F,), autocorrelogram_hz (n_neurons, L)
    with autocorrelogram_lag_ms.
    """
    rows = [["rate", "cv", "fano"], ["correlation", "spectrum", "autocorrelogram"], ["trace"] * 3]
    figure, axes = new_mosaic(rows, height_in=6.8, height_ratios=[1, 1, 0.7])
    rate = recorded["rate_hz"], simulated["rate_hz"]
    log = bool((rate[0] > 0).any() and (rate[1] > 0).any() and rate[0].max() > 5 * max(rate[0][rate[0] > 0].min(), 1e-3))
    _scatter(axes["rate"], *rate, "rate (Hz)", log=log)
    _scatter(axes["cv"], recorded["interval_cv"], simulated["interval_cv"], "CV of intervals")
    _scatter(axes["fano"], recorded["fano"], simulated["fano"], f"Fano factor, {float(recorded['count_window_ms']):g} ms")
    upper = np.triu_indices(len(recorded["noise_correlation"]), 1)
    _scatter(axes["correlation"], recorded["noise_correlation"][upper], simulated["noise_correlation"][upper], "noise correlation")
    _spectra(axes["spectrum"], recorded, simulated)
    _autocorrelograms(axes["autocorrelogram"], recorded, simulated)
    _traces(axes["trace"], recorded, simulated)
    return figure


def _scatter(axes: Axes, x: np.ndarray, y: np.ndarray, what: str, *, log: bool = False) -> None:
    """Draw simulated against recorded values; above MANY points as a density."""
    x, y = np.ravel(x), np.ravel(y)
    usable = np.isfinite(x) & np.isfinite(y) & ((x > 0) & (y > 0) if log else True)
    if not usable.any():
        axes.set_title(what)
        axes.set_box_aspect(1)
        note(axes, "nothing to compare")
        return
    if log:
        axes.set(xscale="log", yscale="log")
    a, b = x[usable], y[usable]
    if len(a) > MANY and not log:
        values = np.concatenate([a, b])
        low, high = np.percentile(values, [0.1, 99.9])
        axes.hist2d(a, b, bins=60, range=[[low, high]] * 2, cmap="Oranges", norm="log", rasterized=True)
        identity_line(axes, np.array([low, high]), np.array([low, high]))
    else:
        axes.plot(a, b, "o", color=MODEL, ms=3.5, alpha=0.6, mew=0, rasterized=len(a) > MANY)
        identity_line(axes, a, b)
    left_out = np.count_nonzero(np.isfinite(x) & ~usable)
    if log:
        log_ticks(axes.xaxis)
        log_ticks(axes.yaxis)
    axes.set(title=what + (f" ({left_out} at 0)" if left_out and log else ""), xlabel="data", ylabel="simulation")
    axes.set_box_aspect(1)


def _spectra(axes: Axes, recorded: Mapping[str, np.ndarray], simulated: Mapping[str, np.ndarray]) -> None:
    for summary, colour, name in ((recorded, DATA, "data"), (simulated, MODEL, "simulation")):
        # the last frequency is half the sampling rate, where a spectral estimate has half its power
        frequency, power = summary["population_frequency_hz"][:-1], summary["population_power"][:-1]
        if len(frequency) and (power > 0).any():
            bands = np.unique(np.geomspace(1, len(frequency) + 1, BANDS).astype(int)) - 1
            width = np.diff(np.append(bands[:-1], len(frequency)))
            mean = [np.add.reduceat(values, bands[:-1]) / width for values in (frequency, power)] if len(bands) > 1 else [frequency, power]
            axes.loglog(*mean, color=colour, label=name)
    if not axes.lines:
        note(axes, "trials too short\nfor a spectrum")
        return
    axes.set(title="population rate: spectrum", xlabel="frequency (Hz)", ylabel="power (Hz$^2$/Hz)")
    log_ticks(axes.yaxis)
    axes.set_box_aspect(1)


def _autocorrelograms(axes: Axes, recorded: Mapping[str, np.ndarray], simulated: Mapping[str, np.ndarray]) -> None:
    for summary, colour in ((recorded, DATA), (simulated, MODEL)):
        usable = (summary["rate_hz"] > 0) & np.isfinite(summary["autocorrelogram_hz"]).all(-1)
        if usable.any() and len(summary["autocorrelogram_lag_ms"]):
            weight = summary["rate_hz"][usable]
            relative = np.average(summary["autocorrelogram_hz"][usable] / weight[:, None], axis=0, weights=weight)
            together = max(1, len(relative) // LAG_POINTS)
            lag, relative = (
                values[: len(values) // together * together].reshape(-1, together).mean(1)
                for values in (summary["autocorrelogram_lag_ms"], relative)
            )
            axes.plot(lag, relative, color=colour, marker="" if len(relative) > 20 else "o", ms=3)
    if not axes.lines:
        note(axes, "trials too short\nfor autocorrelograms")
        return
    axes.axhline(1, color=NEUTRAL, lw=0.8, ls="--", zorder=0)
    axes.set(title="autocorrelogram", xlabel="lag (ms)", ylabel="rate after a spike / rate", ylim=(0, None), xlim=(0, None))
    axes.set_box_aspect(1)


def _traces(axes: Axes, recorded: Mapping[str, np.ndarray], simulated: Mapping[str, np.ndarray]) -> None:
    window_ms = float(recorded["population_window_ms"])
    length = min(len(recorded["population_rate_hz"]), len(simulated["population_rate_hz"]))
    together = max(1, -(-length // TRACE_POINTS))
    for summary, colour, name in ((recorded, DATA, "data"), (simulated, MODEL, "simulation")):
        trace = summary["population_rate_hz"][: length // together * together].reshape(-1, together).mean(1)
        axes.plot(np.arange(len(trace)) * together * window_ms / 1000, trace, color=colour, lw=1.0, alpha=0.9, label=name)
    axes.set(title=f"population rate, means of {together * window_ms:g} ms", xlabel="time (s)", ylabel="Hz", ylim=(0, None))
    axes.margins(x=0.01)
    axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.1, ncols=2)


@styled
def draw_intervals(recorded: Mapping[str, np.ndarray], simulated: Mapping[str, np.ndarray] | None) -> Figure:
    """Return the interval distribution, pooled over neurons, and each neuron's CV2 and LV, which slow changes of rate leave alone.

    Summaries with interval_edges_ms (H + 1,), interval_histogram (n_neurons, H), interval_cv2 and interval_lv (n_neurons,).
    """
    figure, axes = new_figure(1, 3, height_in=2.9, gridspec_kw={"width_ratios": [1.7, 1, 1]})
    longest = 0.0
    for summary, colour, name in ((recorded, DATA, "data"), (simulated, MODEL, "simulation")):
        if summary is None or not summary["interval_histogram"].sum():
            continue
        edges, counts = summary["interval_edges_ms"][1:], summary["interval_histogram"].sum(0)[1:]
        density = counts / counts.sum() / np.diff(np.log10(edges)) if counts.sum() else counts
        longest = max(longest, edges[np.flatnonzero(counts)[-1] + 1] if counts.sum() else 0.0)
        axes[0, 0].stairs(density, edges, color=colour, label=name, lw=1.3)
    if not axes[0, 0].patches:
        note(axes[0, 0], "no intervals")
    else:
        axes[0, 0].set_xscale("log")
        axes[0, 0].set(title="intervals, all neurons", xlabel="interval (ms)", ylabel="share per decade", ylim=(0, None))
        axes[0, 0].set_xlim(right=max(longest, 2 * recorded["interval_edges_ms"][1]))
        axes[0, 0].legend()
    for one, name, title in ((axes[0, 1], "interval_cv2", "CV2"), (axes[0, 2], "interval_lv", "LV")):
        if simulated is None:
            values = recorded[name][np.isfinite(recorded[name])]
            one.hist(values, bins=20, color=DATA, alpha=0.5)
            one.set(title=title, ylabel="neurons")
        else:
            _scatter(one, recorded[name], simulated[name], title)
    return figure


@styled
def draw_time_rescaling(quantile: np.ndarray, cdf: np.ndarray, statistic: np.ndarray, n_intervals: np.ndarray) -> Figure:
    """Return the Kolmogorov-Smirnov plot of time-rescaled intervals, and each neuron's distance over its 95 % bound.

    Parameters
    ----------
    quantile : ndarray, (Q,)
        Distribution function under the model: uniform if the model is right.
    cdf : ndarray, (n_neurons, Q)
        Empirical distribution of the rescaled intervals at `quantile`.
    statistic : ndarray, (n_neurons,)
        Largest distance over all intervals, which the distribution at a few quantiles understates.
    n_intervals : ndarray, (n_neurons,)
    """
    usable = np.isfinite(statistic)
    figure, axes = new_figure(1, 2, height_in=3.3, width_in=7.2)
    if not usable.any():
        note(axes[0, 0], "no neuron with intervals to rescale")
        axes[0, 1].remove()
        return figure
    distance = statistic * np.sqrt(n_intervals) / KS_95
    inside = usable & (distance <= 1)
    left, right = axes[0]
    for chosen, colour, name in ((inside, GOOD, "inside its band"), (usable & ~inside, MODEL, "outside")):
        rows = np.flatnonzero(chosen)
        for number, i in enumerate(rows):
            left.plot(quantile, cdf[i], color=colour, lw=0.7, alpha=max(0.15, min(0.85, 20 / usable.sum())), rasterized=usable.sum() > 100,
                      label=f"{name}: {len(rows)}" if number == 0 else None)  # fmt: skip
    typical = float(np.median(n_intervals[usable]))
    band = KS_95 / np.sqrt(typical)
    left.plot([0, 1], [0, 1], color="black", lw=0.8)
    for shift in (-band, band):
        left.plot([0, 1], [shift, 1 + shift], color="black", lw=0.8, ls="--")
    left.set(xlim=(0, 1), ylim=(0, 1), xlabel="expected under the model", ylabel="rescaled intervals")
    left.set_title(f"95 % band for {typical:.0f} intervals")
    left.set_box_aspect(1)
    is_above = float(np.nanmean(cdf[usable] - quantile)) > 0
    legend = left.legend(loc="lower right" if is_above else "upper left")  # the corner that the curves leave free
    for handle in legend.get_lines():
        handle.set(alpha=1, linewidth=1.6)
    ordered = np.sort(distance[usable])
    right.plot(np.arange(1, len(ordered) + 1), ordered, "o", color=NEUTRAL, ms=3.5, mew=0)
    right.axhline(1, color="black", lw=0.8, ls="--")
    right.set(
        xlim=(0.5, len(ordered) + 0.5),
        ylim=(0, max(1.3, 1.05 * ordered[-1])),
        xlabel="neurons, by distance",
        ylabel="KS distance / 95 % bound",
    )
    right.set_title(f"{inside.sum()} of {counted(int(usable.sum()), 'neuron')} inside")
    right.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    return figure


@styled
def draw_neuron_scores(bits_per_spike: np.ndarray, error: np.ndarray | None, neuron_ids: np.ndarray, n_spikes: np.ndarray) -> Figure:
    """Return held-out bits per spike of each neuron, sorted: bars with names up to 40 neurons, a curve beyond.

    All arrays (n_neurons,); `error` is the standard error, NaN where unknown.
    """
    usable = np.flatnonzero(np.isfinite(bits_per_spike))
    order = usable[np.argsort(bits_per_spike[usable])]
    score = bits_per_spike[order]
    spread = np.full(len(order), np.nan) if error is None else error[order]
    if len(order) <= 40:
        figure, axes = new_figure(1, 2, height_in=max(2.4, 0.7 + 0.17 * len(order)), gridspec_kw={"width_ratios": [1.5, 1]})
        left, right = axes[0]
        left.barh(np.arange(len(order)), score, color=np.where(score >= 0, DATA, MODEL), height=0.72, alpha=0.85)
        left.errorbar(score, np.arange(len(order)), xerr=np.nan_to_num(spread), fmt="none", ecolor="black", elinewidth=0.8)
        left.set_yticks(np.arange(len(order)), [str(name)[:16] for name in neuron_ids[order]], fontsize=7)
        left.axvline(0, color="black", lw=0.8)
        left.set(xlabel="held-out bits per spike", ylabel="neuron", ylim=(-0.6, len(order) - 0.4))
    else:
        figure, axes = new_figure(1, 2, height_in=2.9, gridspec_kw={"width_ratios": [1.5, 1]})
        left, right = axes[0]
        left.fill_between(np.arange(len(order)), score - np.nan_to_num(spread), score + np.nan_to_num(spread), color=FAINT, lw=0)
        left.plot(np.arange(len(order)), score, color=DATA)
        left.axhline(0, color="black", lw=0.8)
        left.set(xlabel="neurons, by score", ylabel="held-out bits per spike", xlim=(0, len(order) - 1))
    left.set_title(f"{np.count_nonzero(score > 0)} of {len(order)} above the mean-rate model")
    right.semilogx(np.maximum(n_spikes[order], 1), score, "o", color=DATA, ms=3.5, alpha=0.6, mew=0, rasterized=len(order) > MANY)
    right.axhline(0, color="black", lw=0.8)
    right.set(xlabel="spikes scored", ylabel="bits per spike")
    log_ticks(right.xaxis)
    return figure
