"""Couplings: the matrix [post, pre], filters over lag, stimulus filters, and a comparison with known connections."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fitspike.plotting.style import DATA, DIVERGING, GOOD, MODEL, NEUTRAL, SERIES, new_figure, note, styled, symmetric_limit


@styled
def draw_coupling_matrix(
    weight: np.ndarray,
    *,
    unit: str = "1",
    is_significant: np.ndarray | None = None,
    neuron_ids: np.ndarray | None = None,
    truth: np.ndarray | None = None,
) -> Figure:
    """Return the coupling matrix: row the neuron that receives, column the neuron that sends; red excites, blue inhibits.

    Parameters
    ----------
    weight : ndarray, (n_neurons, n_neurons), [post, pre]
        The diagonal (a neuron's own history) is greyed out.
    unit : str
    is_significant : ndarray of bool, [post, pre], optional
        Marked with a dot, up to 60 neurons; shown as a second matrix beyond.
    truth : ndarray, [post, pre], optional
        Known weights, drawn beside.
    """
    n = len(weight)
    mark_dots = is_significant is not None and n <= 60
    panels: list[tuple[str, np.ndarray]] = [("coupling", weight)]
    if is_significant is not None and not mark_dots:
        panels.append(("significant ones", np.where(is_significant, weight, 0.0)))
    if truth is not None:
        panels.append(("known connections", truth))
    if n > 200:  # a pixel or so per pair: one matrix below the other
        figure, axes = new_figure(len(panels), 1, height_in=6.3 * len(panels), width_in=7.2)
    else:
        width = 4.6 if len(panels) == 1 else 3.9 * len(panels)
        figure, axes = new_figure(1, len(panels), height_in=4.1 if len(panels) == 1 else 3.9, width_in=width)
    for one, (title, matrix) in zip(axes.ravel(), panels, strict=True):
        shown = np.array(matrix, dtype=np.float64)
        np.fill_diagonal(shown, np.nan)
        limit = symmetric_limit(shown)
        image = one.imshow(shown, cmap=DIVERGING, vmin=-limit, vmax=limit, interpolation="nearest", rasterized=True)
        one.set_facecolor("#e5e7eb")
        for spine in one.spines.values():
            spine.set_visible(True)
        bar = figure.colorbar(image, ax=one, shrink=0.8, extend="both")
        bar.set_label(f"weight, summed over lags{f' ({unit})' if unit != '1' else ''}", fontsize=8)
        bar.ax.tick_params(labelsize=7)
        one.set(title=title, xlabel="from (pre)", ylabel="to (post)")
        if neuron_ids is not None and n <= 25:
            names = [str(name)[:8] for name in neuron_ids]
            one.set_xticks(np.arange(n), names, rotation=90 if max(map(len, names)) > 2 else 0, fontsize=6.5)
            one.set_yticks(np.arange(n), names, fontsize=6.5)
    if mark_dots:
        off = np.array(is_significant, dtype=bool) & ~np.eye(n, dtype=bool)
        post, pre = np.nonzero(off)
        axes[0, 0].plot(pre, post, ".", color="black", ms=max(1.2, 90 / max(n, 20)))
        axes[0, 0].set_title(f"coupling (dots: {len(post)} significant)" if len(post) else "coupling (none significant)")
    return figure


@styled
def draw_coupling_filters(lag_ms: np.ndarray, filters: np.ndarray, labels: Sequence[str]) -> Figure:
    """Return small graphs of coupling filters over lag, at most twelve, on one scale.

    lag_ms (n_lags,); filters (n_filters, n_lags); labels: one for each, "post <- pre".
    """
    n = min(len(filters), 12)
    n_columns = min(4, max(n, 1))
    n_rows = -(-max(n, 1) // n_columns)
    figure, axes = new_figure(n_rows, n_columns, height_in=0.6 + 1.3 * n_rows, sharex=True, sharey=True)
    for number, one in enumerate(axes.ravel()):
        if number >= n:
            one.set_axis_off()
            continue
        colour = MODEL if filters[number].sum() >= 0 else DATA
        one.axhline(0, color=NEUTRAL, lw=0.8)
        one.plot(lag_ms, filters[number], color=colour)
        one.set_title(labels[number], fontsize=8)
    if n == 0:
        axes[0, 0].set_axis_on()
        note(axes[0, 0], "no coupling filters")
    figure.supxlabel("lag after the presynaptic spike (ms)", fontsize=9)
    figure.supylabel("change of log rate", fontsize=9)
    return figure


@styled
def draw_history_filters(lag_ms: np.ndarray, filters: np.ndarray) -> Figure:
    """Return the spike-history filters of all neurons with their median; exp of it multiplies the rate. lag_ms (L,); filters (N, L)."""
    figure, axes = new_figure(1, 2, height_in=2.7)
    left, right = axes[0]
    many = len(filters) > 100
    for row in filters:
        left.plot(lag_ms, row, color=DATA, lw=0.6, alpha=0.08 if many else 0.35, rasterized=many)
    if len(filters) > 1:
        left.plot(lag_ms, np.median(filters, axis=0), color="black", lw=1.6, label="median neuron")
        left.legend()
    left.axhline(0, color=NEUTRAL, lw=0.8)
    left.set(title="history filter", xlabel="lag after the neuron's own spike (ms)", ylabel="change of log rate")
    gain = np.exp(np.clip(filters, -20, 20))
    low, middle, high = np.percentile(gain, [10, 50, 90], axis=0)
    right.plot(lag_ms, middle, color=DATA, label="median neuron")
    if len(filters) > 1:
        right.fill_between(lag_ms, low, high, color=DATA, alpha=0.25, lw=0, label="10 to 90 % of neurons")
        right.legend()
    right.axhline(1, color=NEUTRAL, lw=0.8)
    right.set(title="rate after a spike, times", xlabel="lag (ms)", ylabel="factor", ylim=(0, None))
    return figure


@styled
def draw_stimulus_filters(lag_ms: np.ndarray, filters: np.ndarray, name: str, neuron_ids: np.ndarray) -> Figure:
    """Return filters of one signal for the neurons it drives most. lag_ms (L,), negative lags look ahead; filters (N, L, D)."""
    strength = np.sqrt((np.asarray(filters) ** 2).sum((1, 2)))
    chosen = np.argsort(-strength, kind="stable")[:8]
    n_columns = min(4, max(len(chosen), 1))
    n_rows = -(-max(len(chosen), 1) // n_columns)
    figure, axes = new_figure(n_rows, n_columns, height_in=0.8 + 1.35 * n_rows, sharex=True, sharey=True)
    n_channels, has_lags = filters.shape[2], filters.shape[1] > 1
    as_image = n_channels > len(SERIES) and has_lags
    limit = symmetric_limit(filters[chosen])
    for one, i in zip(axes.ravel(), chosen, strict=False):
        if as_image:
            extent = (lag_ms[0], lag_ms[-1], -0.5, n_channels - 0.5)
            image = one.imshow(
                filters[i].T, aspect="auto", cmap=DIVERGING, vmin=-limit, vmax=limit, origin="lower", rasterized=True, extent=extent
            )
            one.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        elif has_lags:
            for channel in range(n_channels):
                one.plot(lag_ms, filters[i, :, channel], color=SERIES[channel % len(SERIES)], label=str(channel))
            one.axhline(0, color=NEUTRAL, lw=0.8, zorder=0)
        else:
            one.bar(np.arange(n_channels), filters[i, 0], color=DATA, width=0.7)
            one.axhline(0, color=NEUTRAL, lw=0.8, zorder=0)
            one.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        one.set_title(str(neuron_ids[i]), fontsize=8)
    if as_image:
        figure.colorbar(image, ax=axes, shrink=0.7, extend="both").set_label("change of log rate", fontsize=8)
    for one in axes.ravel()[len(chosen) :]:
        one.set_axis_off()
    if has_lags and not as_image and n_channels > 1:
        axes[0, 0].legend(title="channel", title_fontsize=7, fontsize=7, ncols=2, handlelength=1.0)
    ahead = "; negative: the signal's future" if np.min(lag_ms) < 0 else ""
    figure.supxlabel(f"lag of {name} (ms){ahead}" if has_lags else f"channel of {name}, at lag {lag_ms[0]:g} ms", fontsize=9)
    figure.supylabel("channel" if as_image else "change of log rate", fontsize=9)
    return figure


@styled
def draw_against_truth(weight: np.ndarray, truth: np.ndarray) -> Figure:
    """Return estimated against known weights of all ordered pairs, and the distribution of estimates by kind. Both [post, pre]."""
    off = ~np.eye(len(weight), dtype=bool)
    estimate, known = weight[off], truth[off]
    figure, axes = new_figure(1, 2, height_in=3.0)
    left, right = axes[0]
    left.plot(known, estimate, ".", color=DATA, ms=3, alpha=0.4, mew=0, rasterized=len(known) > 400)
    left.axhline(0, color=NEUTRAL, lw=0.8, zorder=0)
    left.set(xlabel="known weight", ylabel="estimated weight", title=f"{np.count_nonzero(known)} of {len(known)} pairs connected")
    span = np.percentile(np.abs(estimate), 99.8) or 1.0
    bins = np.linspace(-span, span, 61)
    for chosen, colour, name in ((known == 0, NEUTRAL, "none"), (known > 0, MODEL, "excitatory"), (known < 0, GOOD, "inhibitory")):
        if chosen.any():
            right.hist(np.clip(estimate[chosen], -span, span), bins=bins, density=True, histtype="step", color=colour, label=name, lw=1.4)
    right.set(xlabel="estimated weight", ylabel="density", title="by known connection")
    right.legend()
    return figure
