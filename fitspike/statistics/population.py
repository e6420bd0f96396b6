"""Statistics of the population as a whole: power spectrum of its rate, number of dimensions of its counts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch

from fitspike.errors import InvalidInputError, TooFewTrialsError
from fitspike.statistics.accumulate import Groups, Past, add_rows, ratio_or_nan, whole_windows, window_length
from fitspike.statistics.correlations import LagSums, lag_sums, noise_covariance, with_lag_sums

if TYPE_CHECKING:
    from fitspike.recording.binned import SpikeChunk
    from fitspike.recording.info import DataInfo
    from fitspike.statistics.base import Expected


@dataclass(frozen=True)
class SpectrumSums:
    """Sums over segments by group, float64: power, excess (n_groups, n_frequencies), amplitude (n_groups, n_frequencies, 2), n (n_groups,).

    excess: what the mean squares of single counts are above the sampled ones, times their share in the power.
    """

    n_bins: int
    dt_ms: float
    groups: Groups
    power: torch.Tensor
    excess: torch.Tensor
    amplitude: torch.Tensor
    n: torch.Tensor
    past: Past | None = None
    excess_left: Past | None = None


@dataclass(frozen=True)
class PopulationSpectrum:
    """Return the power spectral density of the population rate: (n_frequencies,), Hz (that is Hz^2 / Hz).

    S(f) = <|FFT of w (R - its mean)|^2> scaled as a density (Welch 1967, Hann window w, no overlap), over segments of `segment_ms`, at
    frequencies 1, 2, ... over the segment; R is the rate averaged over neurons. Where trials repeat a stimulus, R's mean over them (its
    PSTH) is taken off, with n - 1 of n segments; elsewhere each segment's own mean. Independent neurons leave the floor <rate> / n_neurons,
    so compare networks of equal size.
    """

    segment_ms: float | None = None
    """Default: about 2 s, at most the shortest trial."""

    name: ClassVar[str] = "population_spectrum"
    unit: ClassVar[str] = "Hz"
    default_distance: ClassVar[str] = "log_mse"
    compares_trials: ClassVar[bool] = True
    is_differentiable: ClassVar[bool] = True
    takes_expected: ClassVar[bool] = True

    def init(self, data: DataInfo) -> SpectrumSums:
        """Return an empty accumulator.

        Raises
        ------
        InvalidInputError
            If a segment has fewer than 4 bins, or no trial is as long as one.
        """
        shortest = int(np.min(data.bins_per_trial, initial=1 << 40))
        n_bins = min(window_length(self.segment_ms, data.dt_ms, default_ms=2000.0), shortest)
        if self.segment_ms is not None:
            n_bins = window_length(self.segment_ms, data.dt_ms)
        if n_bins < 4 or n_bins > int(np.max(data.bins_per_trial, initial=0)):
            raise InvalidInputError(
                f"a spectrum of segments of {n_bins} bins of {data.dt_ms:g} ms: they need at least 4 bins and must fit into a trial "
                f"(up to {int(np.max(data.bins_per_trial, initial=0))} bins). Choose segment_ms."
            )
        groups = Groups.of(data, "auto", n_bins, 3 * (n_bins // 2))
        zeros = torch.zeros(groups.n_groups, n_bins // 2, dtype=torch.float64)
        return SpectrumSums(
            n_bins, data.dt_ms, groups, zeros, zeros, torch.zeros(*zeros.shape, 2, dtype=torch.float64), zeros.new_zeros(groups.n_groups)
        )

    def update(self, acc: SpectrumSums, spikes: torch.Tensor, chunk: SpikeChunk, expected: Expected | None = None) -> SpectrumSums:
        """Return the accumulator with spikes (n_trials, n_bins, n_neurons) of one chunk added; chunks of a trial in order."""
        values, whole, first, past = whole_windows(acc.past, spikes.mean(-1, keepdim=True), chunk, acc.n_bins)
        excess_left = None
        if expected is not None:
            above = (expected.square - spikes.square()).sum(-1, keepdim=True) / spikes.shape[-1] ** 2
            above, _, _, excess_left = whole_windows(acc.excess_left, above, chunk, acc.n_bins)
        if not values.shape[1]:
            return replace(acc, past=past, excess_left=excess_left)
        index, known = acc.groups.index(chunk, first, values.shape[1], spikes.device)
        used = (whole & known).to(torch.float64)
        rate = values[..., 0].to(torch.float64) * (1000.0 / acc.dt_ms)
        found = _amplitudes(rate)
        excess = acc.excess
        if expected is not None:
            # |sum_t a_t(f) R_t|^2 holds R_t^2 with the weight |a_t(f)|^2.
            share = _amplitudes(torch.eye(acc.n_bins, dtype=torch.float64, device=rate.device)).abs().square()  # (n_bins, n_frequencies)
            above = above[..., 0].to(torch.float64) * (1000.0 / acc.dt_ms) ** 2
            excess = add_rows(excess, index, (above @ share) * used[..., None])
        amplitude = torch.view_as_real(found) * used[..., None, None]
        return replace(
            acc,
            power=add_rows(acc.power, index, amplitude.square().sum(-1)),
            amplitude=add_rows(acc.amplitude, index, amplitude),
            excess=excess,
            n=add_rows(acc.n, index, used),
            past=past,
            excess_left=excess_left,
        )

    def finalise(self, acc: SpectrumSums) -> torch.Tensor:
        """Return the density; NaN without a whole segment."""
        power, n = acc.power + acc.excess, acc.n
        if acc.groups.by_condition:
            power = power - (acc.amplitude.square().sum(-1) + acc.excess) / n.clamp_min(1)[:, None]
            n = (n - 1).clamp_min(0)
        window = torch.hann_window(acc.n_bins, periodic=True, dtype=torch.float64)
        scale = 2.0 / (float(window.square().sum()) * 1000.0 / acc.dt_ms)
        one_sided = torch.full((power.shape[1],), scale, dtype=torch.float64)
        if acc.n_bins % 2 == 0:
            one_sided[-1] = scale / 2  # the highest frequency of an even number of bins stands once
        return ratio_or_nan(power.sum(0) * one_sided.to(power.device), n.sum())


def _amplitudes(rate: torch.Tensor) -> torch.Tensor:
    """Return the Fourier amplitudes (..., n_frequencies) of segments (..., n_bins), their means taken off, under a Hann window."""
    n_bins = rate.shape[-1]
    window = torch.hann_window(n_bins, periodic=True, dtype=torch.float64, device=rate.device)
    return torch.fft.rfft((rate - rate.mean(-1, keepdim=True)) * window, dim=-1)[..., 1 : n_bins // 2 + 1]


@dataclass(frozen=True)
class ParticipationRatio:
    """Return the number of dimensions of the counts' covariance C: (), dimensionless.

    PR = (tr C)^2 / tr(C C): n_neurons for independent neurons of one variance, 1 where all move together. C is the unbiased covariance
    within groups of `NoiseCorrelation`. Few windows make PR too small: compare at an equal number of trials.
    """

    window_ms: float | None = None
    """Default: about 100 ms, in whole bins."""
    centre: str = "auto"

    name: ClassVar[str] = "participation_ratio"
    unit: ClassVar[str] = "1"
    default_distance: ClassVar[str] = "log_mse"
    compares_trials: ClassVar[bool] = True
    is_differentiable: ClassVar[bool] = True
    takes_expected: ClassVar[bool] = True

    def init(self, data: DataInfo) -> LagSums:
        """Return an empty accumulator.

        Raises
        ------
        TooFewTrialsError
            If no trial is as long as a window.
        """
        n_bins = window_length(self.window_ms, data.dt_ms, default_ms=100.0)
        if n_bins > int(np.max(data.bins_per_trial, initial=0)):
            raise TooFewTrialsError(f"no trial is as long as the window of {n_bins * data.dt_ms:g} ms. Choose a shorter window_ms.")
        return lag_sums(data, self.centre, n_bins, 1)

    def update(self, acc: LagSums, spikes: torch.Tensor, chunk: SpikeChunk, expected: Expected | None = None) -> LagSums:
        """Return the accumulator with spikes (n_trials, n_bins, n_neurons) of one chunk added; chunks of a trial in order."""
        return with_lag_sums(acc, spikes, chunk, expected)

    def finalise(self, acc: LagSums) -> torch.Tensor:
        """Return the ratio; NaN where nothing varies."""
        covariance = noise_covariance(acc)[0]
        return ratio_or_nan(covariance.diagonal().sum().square(), covariance.square().sum())
