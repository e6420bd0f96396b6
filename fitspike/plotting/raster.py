"""Rasters: the same stretch of time in the data and in the simulation, one below the other."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fitspike.plotting.style import DATA, FAINT, MODEL, NEUTRAL, new_figure, styled

RATE_WINDOWS = 200
"""Windows of the population rate below each raster."""
MOST_NAMES = 12
UNLIKE = 10
"""Rates that differ by this factor get scales of their own; a common one would hide the smaller."""


@styled
def draw_raster(
    panels: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]],
    n_neurons: int,
    stop_s: float,
    *,
    trial_start_s: np.ndarray | None = None,
    order: np.ndarray | None = None,
    neuron_ids: np.ndarray | None = None,
) -> Figure:
    """Return rasters one below the other with the population rate under each.

    Parameters
    ----------
    panels : mapping of title to (time_s, neuron, count), each (n_events,)
        The first is drawn as data, the others as model. An event is one tick, whatever its count.
    n_neurons : int
    stop_s : float
        End of the stretch; it starts at 0.
    trial_start_s : ndarray, (n_trials,), optional
        Where trials begin; a thin line marks each but the first.
    order : ndarray of int, (n_neurons,), optional
        Neurons from bottom to top. Default: by rate in the first panel, the slowest at the bottom.
    neuron_ids : ndarray of text, (n_neurons,), optional
        Written at the rows, up to MOST_NAMES neurons; beyond, rows are counted.
    """
    first = next(iter(panels.values()))
    if order is None:
        order = np.argsort(np.bincount(np.asarray(first[1], np.int64), weights=first[2], minlength=n_neurons), kind="stable")
    row = np.empty(n_neurons, np.int64)
    row[np.asarray(order)] = np.arange(n_neurons)
    height = min(3.2, 1.2 + 0.02 * n_neurons)
    ratios = [height, 0.55] * len(panels)
    figure, axes = new_figure(2 * len(panels), 1, height_in=sum(ratios) + 0.5, sharex=True, gridspec_kw={"height_ratios": ratios})
    most = []
    for number, (title, (time, neuron, count)) in enumerate(panels.items()):
        colour = DATA if number == 0 else MODEL
        time, neuron = np.asarray(time, np.float64), np.asarray(neuron, np.int64)
        top, below = axes[2 * number, 0], axes[2 * number + 1, 0]
        _spikes(top, time, row[neuron], n_neurons, height, colour)
        top.set(title=title, ylabel="neuron\n(by rate)" if n_neurons > 1 else "neuron")
        if neuron_ids is not None and n_neurons <= MOST_NAMES:
            top.set_yticks(np.arange(n_neurons), [str(neuron_ids[i])[:12] for i in order], fontsize=7)
        rate, edges = np.histogram(time, bins=RATE_WINDOWS, range=(0, stop_s), weights=count)
        rate = rate / (n_neurons * (edges[1] - edges[0]))
        most.append(max(rate.max(), 1e-9))
        below.stairs(rate, edges, fill=True, color=colour, alpha=0.35, lw=0)
        below.set_ylabel("Hz")
        for at in np.asarray(() if trial_start_s is None else trial_start_s)[1:]:
            for one in (top, below):
                one.axvline(at, color=NEUTRAL if len(trial_start_s) < 30 else FAINT, lw=0.5, zorder=0)
    is_comparable = max(most) < UNLIKE * min(most)
    for one, own in zip(axes[1::2, 0], most, strict=True):
        one.set_ylim(0, 1.05 * (max(most) if is_comparable else own))
    axes[-1, 0].set(xlabel="time (s)", xlim=(0, stop_s))
    return figure


def _spikes(axes: Axes, time: np.ndarray, row: np.ndarray, n_neurons: int, height_in: float, colour: str) -> None:
    """Draw ticks as high as a row, at least 0.7 points, rasterised so that a thousand neurons stay a small file."""
    tick = max(0.7, 0.85 * 72 * height_in / max(n_neurons, 1))
    width = 0.8 if len(time) < 5000 else 0.45
    axes.plot(time, row, "|", color=colour, ms=min(tick, 14), mew=width, rasterized=True)
    axes.set_ylim(-0.7, n_neurons - 0.3)
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.tick_params(labelbottom=False)
