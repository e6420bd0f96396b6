"""Firing rate, PSTH and population rate, accumulated chunk by chunk and differentiable in the spikes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from fitspike.statistics.accumulate import Groups, Past, add_rows, count_in_windows, ratio_or_nan, window_length

if TYPE_CHECKING:
    from fitspike.recording.binned import SpikeChunk
    from fitspike.recording.info import DataInfo
    from fitspike.statistics.base import Expected


@dataclass(frozen=True)
class RateSums:
    """Spikes (n_groups, n_neurons) and windows (n_groups,) per group, float64."""

    dt_ms: float
    n_bins: int
    groups: Groups
    spikes: torch.Tensor
    n_windows: torch.Tensor
    past: Past | None = None


def _added(acc: RateSums, spikes: torch.Tensor, chunk: SpikeChunk) -> RateSums:
    """Return the sums with the whole windows of a chunk added."""
    found, past = count_in_windows(acc.past, spikes, chunk, acc.n_bins)
    index, known = acc.groups.index(chunk, found.first, found.counts.shape[1], found.counts.device)
    valid = found.valid & known
    return RateSums(
        acc.dt_ms,
        acc.n_bins,
        acc.groups,
        add_rows(acc.spikes, index, found.counts * valid[..., None]),
        add_rows(acc.n_windows, index, valid),
        past,
    )


def _empty(data: DataInfo, groups: Groups, n_bins: int) -> RateSums:
    zeros = torch.zeros(groups.n_groups, data.n_neurons, dtype=torch.float64)
    return RateSums(data.dt_ms, n_bins, groups, zeros, torch.zeros(groups.n_groups, dtype=torch.float64))


@dataclass(frozen=True)
class FiringRate:
    """Return each neuron's spikes over the scored time: (n_neurons,), Hz."""

    name: ClassVar[str] = "firing_rate"
    unit: ClassVar[str] = "Hz"
    default_distance: ClassVar[str] = "poisson"
    is_differentiable: ClassVar[bool] = True
    takes_expected: ClassVar[bool] = True

    def init(self, data: DataInfo) -> RateSums:
        """Return an empty accumulator."""
        return _empty(data, Groups(by_condition=False, n_groups=1, n_windows=0, n_conditions=0), n_bins=1)

    def update(self, acc: RateSums, spikes: torch.Tensor, chunk: SpikeChunk, expected: Expected | None = None) -> RateSums:
        """Return the accumulator with spikes, or their expected counts, (n_trials, n_bins, n_neurons) of one chunk added."""
        spikes = spikes if expected is None else expected.count
        valid = chunk.mask.to(spikes.device)
        total = (spikes * valid[..., None]).sum((0, 1)).to(torch.float64)
        return RateSums(acc.dt_ms, 1, acc.groups, acc.spikes + total, acc.n_windows + valid.sum())

    def finalise(self, acc: RateSums) -> torch.Tensor:
        """Return the rates; NaN without scored bins."""
        return ratio_or_nan(acc.spikes, acc.n_windows[:, None] * acc.dt_ms / 1000)[0]


@dataclass(frozen=True)
class PSTH:
    """Return the mean rate over the trials of each condition: (n_conditions, n_windows, n_neurons), Hz.

    m_c(w, i) = mean over trials k of condition c of n_i(k, w) / window. Trials without a condition count only where no trial has one.
    Windows that lie partly in a warm-up or past a trial's end are left out; NaN where no trial is left. Where beginnings of trials were cut
    off, trials that start at different bins of their original ones count as conditions of their own.
    """

    window_ms: float | None = None
    """Default: one bin."""

    name: ClassVar[str] = "psth"
    unit: ClassVar[str] = "Hz"
    default_distance: ClassVar[str] = "poisson"
    is_differentiable: ClassVar[bool] = True
    takes_expected: ClassVar[bool] = True
    needs_repeats: ClassVar[bool] = True

    def init(self, data: DataInfo) -> RateSums:
        """Return an empty accumulator."""
        n_bins = window_length(self.window_ms, data.dt_ms)
        return _empty(data, Groups.of(data, "condition", n_bins, data.n_neurons), n_bins)

    def update(self, acc: RateSums, spikes: torch.Tensor, chunk: SpikeChunk, expected: Expected | None = None) -> RateSums:
        """Return the accumulator with spikes, or their expected counts, (n_trials, n_bins, n_neurons) added; chunks of a trial in order."""
        return _added(acc, spikes if expected is None else expected.count, chunk)

    def finalise(self, acc: RateSums) -> torch.Tensor:
        """Return the PSTH."""
        rate = ratio_or_nan(acc.spikes, acc.n_windows[:, None] * (acc.n_bins * acc.dt_ms / 1000))
        return rate.reshape(-1, acc.groups.n_windows, rate.shape[-1])


@dataclass(frozen=True)
class PopulationRate:
    """Return the PSTH averaged over neurons: (n_conditions, n_windows), Hz."""

    window_ms: float | None = None
    """Default: one bin."""

    name: ClassVar[str] = "population_rate"
    unit: ClassVar[str] = "Hz"
    default_distance: ClassVar[str] = "poisson"
    is_differentiable: ClassVar[bool] = True
    takes_expected: ClassVar[bool] = True
    needs_repeats: ClassVar[bool] = True

    def init(self, data: DataInfo) -> RateSums:
        """Return an empty accumulator."""
        n_bins = window_length(self.window_ms, data.dt_ms)
        acc = _empty(data, Groups.of(data, "condition", n_bins, 1), n_bins)
        return RateSums(acc.dt_ms, n_bins, acc.groups, acc.spikes[:, :1], acc.n_windows)

    def update(self, acc: RateSums, spikes: torch.Tensor, chunk: SpikeChunk, expected: Expected | None = None) -> RateSums:
        """Return the accumulator with spikes, or their expected counts, (n_trials, n_bins, n_neurons) added; chunks of a trial in order."""
        return _added(acc, (spikes if expected is None else expected.count).mean(-1, keepdim=True), chunk)

    def finalise(self, acc: RateSums) -> torch.Tensor:
        """Return the population rate."""
        rate = ratio_or_nan(acc.spikes, acc.n_windows[:, None] * (acc.n_bins * acc.dt_ms / 1000))
        return rate.reshape(-1, acc.groups.n_windows)
