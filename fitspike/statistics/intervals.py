"""Interval statistics and the Fano factor, accumulated chunk by chunk.

The interval distribution and the Fano factor are differentiable in the spikes. CV, CV2 and LV are exact values from the spikes without a
gradient (`is_differentiable` False): fit the interval distribution instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch

from fitspike.errors import TooFewTrialsError
from fitspike.statistics.accumulate import Groups, Past, add_rows, count_in_windows, ratio_or_nan, window_length, with_past
from fitspike.statistics.from_events import EventBlock, IntervalSums
from fitspike.units import NS_PER_MS

if TYPE_CHECKING:
    from fitspike.recording.binned import SpikeChunk
    from fitspike.recording.info import DataInfo
    from fitspike.statistics.base import Expected


@dataclass(frozen=True)
class DensitySums:
    """hits (n_neurons, n_lags) float64: intervals of each length in bins."""

    hits: torch.Tensor
    past: Past | None = None


@dataclass(frozen=True)
class ISIDistribution:
    """Return the distribution of intervals of 1 bin .. max_interval_ms: (n_neurons, n_lags), each neuron summing to 1.

    h_i(d) = < z(t - d) prod_{0 < s < d} (1 - z(t - s)) z(t) > over bins of a trial, divided by its sum over d, with z = min(count, 1):
    several spikes of one bin count as one. Longer intervals are left out, and trials of finite length miss more of the long ones: compare
    at equal trial length. NaN for a neuron without an interval.
    """

    max_interval_ms: float = 200.0

    name: ClassVar[str] = "isi_distribution"
    unit: ClassVar[str] = "1"
    default_distance: ClassVar[str] = "cumulative"
    is_differentiable: ClassVar[bool] = True
    takes_expected: ClassVar[str] = "binary"

    def init(self, data: DataInfo) -> DensitySums:
        """Return an empty accumulator."""
        return DensitySums(torch.zeros(data.n_neurons, window_length(self.max_interval_ms, data.dt_ms), dtype=torch.float64))

    def update(self, acc: DensitySums, spikes: torch.Tensor, chunk: SpikeChunk, expected: Expected | None = None) -> DensitySums:
        """Return the accumulator with spikes (n_trials, n_bins, n_neurons) of one chunk added; chunks of a trial in order.

        Expected counts, if given, stand for the spike that ends an interval; they must be at most 1.
        """
        n_lags, n_steps = acc.hits.shape[1], spikes.shape[1]
        present, _, past = with_past(
            acc.past, spikes.clamp(max=1), chunk.mask.to(spikes.device), chunk.trial, chunk.first_bin, n_lags
        )  # bins that are not scored count as empty: no interval starts or ends there
        now = present[:, n_lags:]
        if expected is not None:
            now = expected.count * chunk.mask.to(spikes.device)[..., None]
        nothing_since = torch.ones_like(now)
        hits = []
        for lag in range(1, n_lags + 1):
            then = present[:, n_lags - lag : n_lags - lag + n_steps]
            hits.append((now * nothing_since * then).sum((0, 1)))
            nothing_since = nothing_since * (1 - then)
        return DensitySums(acc.hits + torch.stack(hits, dim=1).to(torch.float64), past)

    def finalise(self, acc: DensitySums) -> torch.Tensor:
        """Return the distributions."""
        return ratio_or_nan(acc.hits, acc.hits.sum(1, keepdim=True))


def _interval_sums(acc: IntervalSums, spikes: torch.Tensor, chunk: SpikeChunk) -> IntervalSums:
    """Return interval sums with the scored spikes of a chunk added, bins as time."""
    counts = (spikes.detach() * chunk.mask.to(spikes.device)[..., None]).round().to(torch.int64)
    row, bin_in_chunk, neuron = (index.cpu().numpy() for index in counts.nonzero(as_tuple=True))
    count = counts[counts > 0].cpu().numpy()
    time_ns = (chunk.first_bin + bin_in_chunk) * round(chunk.dt_ms * NS_PER_MS)
    trials = np.asarray(chunk.trial)
    return acc.added(EventBlock(time_ns, trials[row], neuron, count), trials)


@dataclass(frozen=True)
class ISICV:
    """Return the coefficient of variation of the intervals, sd / mean (ddof = 0): (n_neurons,). NaN without an interval."""

    name: ClassVar[str] = "isi_cv"
    unit: ClassVar[str] = "1"
    default_distance: ClassVar[str] = "mse"
    is_differentiable: ClassVar[bool] = False

    def init(self, data: DataInfo) -> IntervalSums:
        """Return an empty accumulator."""
        return IntervalSums.empty(data.n_neurons)

    def update(self, acc: IntervalSums, spikes: torch.Tensor, chunk: SpikeChunk) -> IntervalSums:
        """Return the accumulator with spikes (n_trials, n_bins, n_neurons) of one chunk added; chunks of a trial in order."""
        return _interval_sums(acc, spikes, chunk)

    def finalise(self, acc: IntervalSums) -> torch.Tensor:
        """Return the coefficients."""
        return torch.as_tensor(acc.finish().cv)


@dataclass(frozen=True)
class CV2:
    """Return the mean of 2 |I' - I| / (I' + I) over neighbouring intervals (Holt, Softky, Koch, Douglas 1996): (n_neurons,)."""

    name: ClassVar[str] = "cv2"
    unit: ClassVar[str] = "1"
    default_distance: ClassVar[str] = "mse"
    is_differentiable: ClassVar[bool] = False

    def init(self, data: DataInfo) -> IntervalSums:
        """Return an empty accumulator."""
        return IntervalSums.empty(data.n_neurons)

    def update(self, acc: IntervalSums, spikes: torch.Tensor, chunk: SpikeChunk) -> IntervalSums:
        """Return the accumulator with spikes (n_trials, n_bins, n_neurons) of one chunk added; chunks of a trial in order."""
        return _interval_sums(acc, spikes, chunk)

    def finalise(self, acc: IntervalSums) -> torch.Tensor:
        """Return the coefficients; NaN with fewer than two intervals in a row."""
        return torch.as_tensor(acc.finish().cv2)


@dataclass(frozen=True)
class LV:
    """Return the local variation, the mean of 3 (I' - I)^2 / (I' + I)^2 (Shinomoto, Shima, Tanji 2003): (n_neurons,)."""

    name: ClassVar[str] = "lv"
    unit: ClassVar[str] = "1"
    default_distance: ClassVar[str] = "mse"
    is_differentiable: ClassVar[bool] = False

    def init(self, data: DataInfo) -> IntervalSums:
        """Return an empty accumulator."""
        return IntervalSums.empty(data.n_neurons)

    def update(self, acc: IntervalSums, spikes: torch.Tensor, chunk: SpikeChunk) -> IntervalSums:
        """Return the accumulator with spikes (n_trials, n_bins, n_neurons) of one chunk added; chunks of a trial in order."""
        return _interval_sums(acc, spikes, chunk)

    def finalise(self, acc: IntervalSums) -> torch.Tensor:
        """Return the local variations; NaN with fewer than two intervals in a row."""
        return torch.as_tensor(acc.finish().lv)


@dataclass(frozen=True)
class CountMoments:
    """n (n_groups,), total and square (n_groups, n_neurons), float64: windows, sums of counts and of their squares.

    square_excess (n_groups, n_neurons): sums of mean minus sampled squares of single bins, where expected counts are given.
    """

    n_bins: int
    groups: Groups
    n: torch.Tensor
    total: torch.Tensor
    square: torch.Tensor
    square_excess: torch.Tensor
    past: Past | None = None
    excess_left: Past | None = None


@dataclass(frozen=True)
class FanoFactor:
    """Return each neuron's count variance over mean: (n_neurons,), dimensionless.

    F = mean over groups of Var[n] / E[n], with variance divided by n_windows - ddof. A group holds the windows at one place of the repeats
    of a condition (centre="condition") or all windows of a trial (centre="trial"); groups without a spike or with fewer than two windows
    are left out. ddof = 0 and one group is what elephant.statistics.fanofactor computes. NaN where no group is left.
    """

    window_ms: float | None = None
    """Default: about 100 ms, in whole bins."""
    ddof: int = 0
    centre: str = "auto"

    name: ClassVar[str] = "fano_factor"
    unit: ClassVar[str] = "1"
    default_distance: ClassVar[str] = "log_mse"
    compares_trials: ClassVar[bool] = True
    is_differentiable: ClassVar[bool] = True
    takes_expected: ClassVar[bool] = True

    def init(self, data: DataInfo) -> CountMoments:
        """Return an empty accumulator.

        Raises
        ------
        TooFewTrialsError
            If no group can hold two windows.
        """
        n_bins = window_length(self.window_ms, data.dt_ms, default_ms=100.0)
        groups = Groups.of(data, self.centre, n_bins, 2 * data.n_neurons)
        most = data.n_trials if groups.by_condition else groups.n_windows
        if most < 2:
            raise TooFewTrialsError(
                f"a Fano factor needs at least two windows of {n_bins * data.dt_ms:g} ms to compare; there are {data.n_trials} trials "
                f"of at most {groups.n_windows} such windows. Use a shorter window_ms, or more trials."
            )
        zeros = torch.zeros(groups.n_groups, data.n_neurons, dtype=torch.float64)
        return CountMoments(n_bins, groups, torch.zeros(groups.n_groups, dtype=torch.float64), zeros, zeros, zeros)

    def update(self, acc: CountMoments, spikes: torch.Tensor, chunk: SpikeChunk, expected: Expected | None = None) -> CountMoments:
        """Return the accumulator with spikes (n_trials, n_bins, n_neurons) of one chunk added; chunks of a trial in order."""
        found, past = count_in_windows(acc.past, spikes, chunk, acc.n_bins)
        index, known = acc.groups.index(chunk, found.first, found.counts.shape[1], spikes.device)
        valid = found.valid & known
        counts = found.counts * valid[..., None]
        excess, excess_left = acc.square_excess, None
        if expected is not None:
            of_windows, excess_left = count_in_windows(acc.excess_left, expected.square - spikes.square(), chunk, acc.n_bins)
            excess = add_rows(excess, index, of_windows.counts * valid[..., None])
        return CountMoments(
            acc.n_bins,
            acc.groups,
            add_rows(acc.n, index, valid),
            add_rows(acc.total, index, counts),
            add_rows(acc.square, index, counts**2),
            excess,
            past,
            excess_left,
        )

    def finalise(self, acc: CountMoments) -> torch.Tensor:
        """Return the Fano factors."""
        n = acc.n[:, None]
        usable = (n > max(self.ddof, 1)) & (acc.total > 0)
        total = torch.where(usable, acc.total, torch.ones_like(acc.total))
        ratio = (
            (acc.square - total**2 / n.clamp_min(1) + acc.square_excess * (1 - 1 / n.clamp_min(1)))
            / (n - self.ddof).clamp_min(1)
            / (total / n.clamp_min(1))
        )
        return ratio_or_nan(torch.where(usable, ratio, torch.zeros_like(ratio)).sum(0), usable.sum(0).to(torch.float64))
