"""Time-rescaling test of goodness of fit with the correction for bins of finite width."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import kstwo

from fitspike.rng import Stream

BAND_95 = 1.36
"""D sqrt(n) of the one-sample Kolmogorov-Smirnov test at 5 % for large n."""


@dataclass(frozen=True, eq=False)
class RescaledEvents:
    """Events of one chunk or of all: for each, its trial, neuron and count, and where it lies in rescaled time.

    `before` is the integral of the trial's conditional intensity up to the start of the event's bin, `width` that over its bin.
    """

    trial: np.ndarray
    neuron: np.ndarray
    count: np.ndarray
    before: np.ndarray
    width: np.ndarray


@dataclass(frozen=True, eq=False)
class RescalingTest:
    """Kolmogorov-Smirnov test of each neuron's rescaled intervals against the exponential distribution, all (n_neurons,).

    statistic: largest distance between empirical and expected distribution function. band: 1.36 / sqrt(n_intervals), the 95 % bound.
    p_value: exact two-sided. NaN with fewer than two intervals. `cdf` (n_neurons, n_quantiles): empirical distribution function of
    z = 1 - exp(-interval) at `quantile` (n_quantiles,), which is a straight line for a perfect model.
    """

    statistic: np.ndarray
    p_value: np.ndarray
    n_intervals: np.ndarray
    quantile: np.ndarray
    cdf: np.ndarray

    @property
    def band(self) -> np.ndarray:
        """Return the 95 % bound of the statistic."""
        return BAND_95 / np.sqrt(np.where(self.n_intervals > 1, self.n_intervals, np.nan))

    @property
    def is_inside(self) -> np.ndarray:
        """Return 1 where the statistic lies inside the 95 % band, 0 where outside, NaN where there is none, (n_neurons,)."""
        return np.where(np.isfinite(self.statistic), (self.statistic <= self.band).astype(np.float64), np.nan)


def bin_integral(expected: np.ndarray, *, is_binary: bool) -> np.ndarray:
    """Return the integral of the conditional intensity over each bin from its expected count.

    A bin with spike probability p is empty with the probability exp(-q) of a Poisson process with q = -log(1 - p) (Haslinger, Pipa,
    Brown 2010, Neural Computation 22:2477, eq. 2.12); the expected count of a Poisson bin is that integral itself.
    """
    if not is_binary:
        return expected
    # 1 - 1e-12: a model sure of a spike has an infinite integral; 27.6 keeps its rescaled time finite.
    return -np.log1p(-np.minimum(expected, 1.0 - 1e-12))


def rescaled_intervals(events: RescaledEvents, totals: np.ndarray, n_neurons: int, *, is_binary: bool, stream: Stream) -> list[np.ndarray]:
    """Return each neuron's intervals in rescaled time; for the true model they are independent and exponential with mean 1.

    Trials are joined end to end in rescaled time, where the process has rate 1 throughout, so that an interval cut by a trial's end goes
    on in the next trial and only the one cut by the last end is lost.

    Binary bins: a spike lies at -log(1 - u (1 - exp(-q))) within its bin, u uniform, the moment of the first event given that there is
    one; what remains of the bin after it is not counted (Haslinger et al. 2010, eq. 2.15-2.16). Poisson bins: the count spikes lie
    independently and uniformly within the bin's integral, which is exact for a Poisson process.

    Parameters
    ----------
    events : RescaledEvents
    totals : ndarray, (n_trials, n_neurons)
        Integral of the intensity over each whole trial.
    """
    offset = np.concatenate([np.zeros((1, n_neurons)), np.cumsum(totals, axis=0)])[:-1]
    order = np.lexsort((events.before, events.trial, events.neuron))
    trial, neuron = events.trial[order], events.neuron[order].astype(np.int64)
    count = events.count[order].astype(np.int64)
    start = offset[trial, neuron] + events.before[order]
    width = events.width[order].astype(np.float64)
    draw = stream.numpy()
    if is_binary:
        within = -np.log1p(-draw.random(len(start)) * -np.expm1(-width))
        skipped = width - within
        lost = np.cumsum(skipped) - skipped  # rescaled time discarded after all earlier spikes
        position = start + within
    else:
        owner = np.repeat(np.arange(len(start)), count)
        position = start[owner] + draw.random(len(owner)) * width[owner]
        neuron = neuron[owner]
        order = np.lexsort((position, neuron))
        position, neuron, lost = position[order], neuron[order], np.zeros(len(owner))
    edges = np.searchsorted(neuron, np.arange(n_neurons + 1))
    intervals = []
    for i in range(n_neurons):
        part = slice(edges[i], edges[i + 1])
        kept = position[part] - (lost[part] - lost[edges[i]] if edges[i] < edges[i + 1] else 0.0)
        intervals.append(np.diff(kept, prepend=0.0))
    return intervals


def ks_test(intervals: list[np.ndarray], n_quantiles: int = 101) -> RescalingTest:
    """Return the test of each neuron's rescaled intervals against the exponential distribution of mean 1."""
    quantile = np.linspace(0.0, 1.0, n_quantiles)
    n_neurons = len(intervals)
    statistic, p_value = np.full(n_neurons, np.nan), np.full(n_neurons, np.nan)
    cdf = np.full((n_neurons, n_quantiles), np.nan)
    for i, gaps in enumerate(intervals):
        n = len(gaps)
        if n < 2:
            continue
        z = np.sort(-np.expm1(-gaps))
        rank = np.arange(n + 1) / n
        statistic[i] = max((rank[1:] - z).max(), (z - rank[:-1]).max())
        p_value[i] = kstwo.sf(statistic[i], n)
        cdf[i] = np.searchsorted(z, quantile, side="right") / n
    return RescalingTest(statistic, p_value, np.array([len(gaps) for gaps in intervals]), quantile, cdf)
