"""Noise and signal correlations, auto- and cross-correlograms, accumulated chunk by chunk and differentiable in the spikes.

Lags are linear, never circular, and no product crosses a trial. All pair statistics are [post, pre, lag]: entry (i, j, d) relates neuron i
to neuron j d steps earlier.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import torch

from fitspike.errors import InvalidInputError
from fitspike.statistics.accumulate import Groups, Past, add_rows, count_in_windows, ratio_or_nan, window_length, with_past

if TYPE_CHECKING:
    from fitspike.recording.binned import SpikeChunk
    from fitspike.recording.info import DataInfo
    from fitspike.statistics.base import Expected


@dataclass(frozen=True)
class LagSums:
    """Sums over pairs of windows d steps apart, for d = 0 .. n_lags - 1, all float64.

    product (n_lags, n_neurons, n_neurons): later i times earlier j. later, earlier (n_lags, n_groups, n_neurons); n (n_lags, n_groups).
    Where expected counts are given, own (n_groups, n_neurons), sums of counts, square (n_neurons,), sums of their squares, and
    square_excess (n_groups, n_neurons), sums of mean minus sampled squares of single bins, stand for the diagonal of lag 0.
    """

    n_bins: int
    groups: Groups
    product: torch.Tensor
    later: torch.Tensor
    earlier: torch.Tensor
    n: torch.Tensor
    bins_left: Past | None = None
    past: Past | None = None
    own: torch.Tensor | None = None
    square: torch.Tensor | None = None
    square_excess: torch.Tensor | None = None
    excess_left: Past | None = None


def lag_sums(data: DataInfo, centre: str, n_bins: int, n_lags: int) -> LagSums:
    """Return empty sums for windows of `n_bins`, centred as `Groups.of` says."""
    n_neurons = data.n_neurons
    groups = Groups.of(data, centre, n_bins, 2 * n_lags * n_neurons)
    sums = torch.zeros(n_lags, groups.n_groups, n_neurons, dtype=torch.float64)
    return LagSums(
        n_bins,
        groups,
        torch.zeros(n_lags, n_neurons, n_neurons, dtype=torch.float64),
        sums,
        sums,
        torch.zeros(n_lags, groups.n_groups, dtype=torch.float64),
    )


def with_lag_sums(acc: LagSums, spikes: torch.Tensor, chunk: SpikeChunk, expected: Expected | None = None) -> LagSums:
    """Return the sums with all pairs added whose later window this chunk completes.

    Given the expected counts of spikes sampled bin by bin, products are of expected i and expected j at lag 0, where spikes are independent
    given their past, and of expected i and spikes of j at later lags. Windows of several bins take the spikes: within a window the later
    bins depend on the earlier ones.
    """
    found, bins_left = count_in_windows(acc.bins_left, spikes, chunk, acc.n_bins)
    n_lags, n_steps = len(acc.product), found.counts.shape[1]
    index, known = acc.groups.index(chunk, found.first, n_steps, spikes.device)
    values, valid, past = with_past(acc.past, found.counts, found.valid & known, chunk.trial, found.first, n_lags - 1)
    product, later, earlier, n = [], [], [], []
    now, now_valid = values[:, n_lags - 1 :], valid[:, n_lags - 1 :]
    own, square, excess = acc.own, acc.square, acc.square_excess
    is_expected = expected is not None and acc.n_bins == 1
    if expected is not None:
        zeros = torch.zeros_like(acc.later[0])
        own = add_rows(zeros if own is None else own, index, now)
        square = now.square().sum((0, 1)).to(torch.float64) + (0.0 if square is None else square)
        of_windows, excess_left = count_in_windows(acc.excess_left, expected.square - spikes.square(), chunk, acc.n_bins)
        excess = add_rows(zeros if excess is None else excess, index, of_windows.counts * now_valid[..., None])
    else:
        excess_left = None
    if is_expected:
        now = expected.count * now_valid[..., None]
    for lag in range(n_lags):
        then = now if is_expected and lag == 0 else values[:, n_lags - 1 - lag : n_lags - 1 - lag + n_steps]
        both = now_valid & valid[:, n_lags - 1 - lag : n_lags - 1 - lag + n_steps]
        now_here, then_here = now * both[..., None], then * both[..., None]
        product.append(acc.product[lag] + torch.einsum("kti,ktj->ij", now_here, then_here).to(torch.float64))
        later.append(add_rows(acc.later[lag], index, now_here))
        earlier.append(add_rows(acc.earlier[lag], index, then_here))
        n.append(add_rows(acc.n[lag], index, both))
    sums = (torch.stack(parts) for parts in (product, later, earlier, n))
    return LagSums(acc.n_bins, acc.groups, *sums, bins_left, past, own, square, excess, excess_left)


def noise_covariance(acc: LagSums) -> torch.Tensor:
    """Return the covariance within groups, (n_lags, n_neurons, n_neurons), unbiased: sum of centred products over sum of (n - 1).

    The centre is the mean of the very pairs that are multiplied, so trials of different length leave no bias.
    """
    n = acc.n[..., None].clamp_min(1)
    centred = acc.product - torch.einsum("dgi,dgj->dij", acc.later / n, acc.earlier)
    if acc.own is not None:
        own = acc.square - (acc.own.square() / n[0]).sum(0) + (acc.square_excess * (1 - 1 / n[0])).sum(0)
        centred = torch.cat([centred[:1].clone().diagonal_scatter(own[None], dim1=1, dim2=2), centred[1:]])
    return ratio_or_nan(centred, (acc.n - 1).clamp_min(0).sum(1)[:, None, None])


def _scaled(covariance: torch.Tensor, variance: torch.Tensor) -> torch.Tensor:
    """Return covariance (n_neurons, n_neurons, ...) over the root of both variances, NaN where one is not positive."""
    usable = variance > 0
    scale = torch.where(usable, variance, torch.ones_like(variance)).sqrt()
    extra = covariance.dim() - 2
    scale, usable = scale[:, None] * scale, usable[:, None] & usable
    scale, usable = (x.reshape(*x.shape, *[1] * extra) for x in (scale, usable))
    value = covariance / scale
    return torch.where(usable, value, torch.full_like(value, float("nan")))


@dataclass(frozen=True)
class NoiseCorrelation:
    """Return the correlation of trial-to-trial fluctuations: (n_neurons, n_neurons, n_lags), [post, pre, lag], dimensionless.

    C_ij(d) = Cov[n_i(k, w), n_j(k, w - d)] within groups of windows that share a mean, r_ij(d) = C_ij(d) / sqrt(C_ii(0) C_jj(0)).
    Groups are the windows at one place of the repeats of a condition (centre="condition"; the PSTH is removed) or all windows of a trial
    (centre="trial"). Each group of n windows weighs n - 1, which removes the bias of few repeats. Normalised by the noise variance; some
    authors divide by the total variance instead. NaN for a neuron that does not vary. covariance=True returns C, in spikes^2.
    """

    window_ms: float | None = None
    """Default: one bin."""
    n_lags: int = 1
    centre: str = "auto"
    covariance: bool = False

    name: ClassVar[str] = "noise_correlation"
    unit: ClassVar[str] = "1"
    default_distance: ClassVar[str] = "unexplained"
    compares_trials: ClassVar[bool] = True
    is_differentiable: ClassVar[bool] = True
    takes_expected: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.n_lags < 1:
            raise InvalidInputError(f"n_lags={self.n_lags}; use 1 (lag 0 only) or more.")

    def init(self, data: DataInfo) -> LagSums:
        """Return an empty accumulator."""
        return lag_sums(data, self.centre, window_length(self.window_ms, data.dt_ms), self.n_lags)

    def update(self, acc: LagSums, spikes: torch.Tensor, chunk: SpikeChunk, expected: Expected | None = None) -> LagSums:
        """Return the accumulator with spikes (n_trials, n_bins, n_neurons) of one chunk added; chunks of a trial in order."""
        return with_lag_sums(acc, spikes, chunk, expected)

    def finalise(self, acc: LagSums) -> torch.Tensor:
        """Return the correlations; the diagonal at lag 0 is 1."""
        covariance = noise_covariance(acc)
        by_pair = covariance.permute(1, 2, 0)
        return by_pair if self.covariance else _scaled(by_pair, covariance[0].diagonal())


@dataclass(frozen=True)
class SignalCorrelation:
    """Return the correlation of the neurons' PSTHs over conditions and windows: (n_neurons, n_neurons), dimensionless.

    S_ij = Cov over (condition, window) of the mean counts. Means over K trials carry noise of covariance C_ij / K, which adds to S; it is
    subtracted, with the unbiased noise covariance C of `NoiseCorrelation`. NaN where the signal variance left is not positive.
    """

    window_ms: float | None = None
    """Default: one bin."""
    subtract_noise: bool = True

    name: ClassVar[str] = "signal_correlation"
    unit: ClassVar[str] = "1"
    default_distance: ClassVar[str] = "unexplained"
    compares_trials: ClassVar[bool] = True
    is_differentiable: ClassVar[bool] = True
    takes_expected: ClassVar[bool] = True
    needs_repeats: ClassVar[bool] = True

    def init(self, data: DataInfo) -> LagSums:
        """Return an empty accumulator."""
        return lag_sums(data, "condition", window_length(self.window_ms, data.dt_ms), 1)

    def update(self, acc: LagSums, spikes: torch.Tensor, chunk: SpikeChunk, expected: Expected | None = None) -> LagSums:
        """Return the accumulator with spikes (n_trials, n_bins, n_neurons) of one chunk added; chunks of a trial in order."""
        return with_lag_sums(acc, spikes, chunk, expected)

    def finalise(self, acc: LagSums) -> torch.Tensor:
        """Return the correlations."""
        n, total = acc.n[0], acc.later[0]
        used = n > 0
        mean = total[used] / n[used, None]
        centred = mean - mean.mean(0)
        covariance = centred.T @ centred / max(len(mean) - 1, 1)
        if self.subtract_noise:
            # Without `own`: means of expected counts carry the variance of expected counts, not that of the spikes.
            noise = noise_covariance(replace(acc, own=None))[0]
            covariance = covariance - noise * (1 / n[used]).mean()
        return _scaled(covariance, covariance.diagonal())


@dataclass(frozen=True)
class CorrelogramSums:
    """product (n_lags + 1, n_neurons[, n_neurons]); n_pairs (n_lags + 1,); spikes (n_neurons,); n_bins (); all float64."""

    dt_ms: float
    product: torch.Tensor
    n_pairs: torch.Tensor
    spikes: torch.Tensor
    n_bins: torch.Tensor
    past: Past | None = None


def _empty_correlogram(data: DataInfo, max_lag_ms: float, all_pairs: bool) -> CorrelogramSums:
    n_lags = window_length(max_lag_ms, data.dt_ms)
    shape = (n_lags + 1, data.n_neurons, data.n_neurons) if all_pairs else (n_lags + 1, data.n_neurons)
    zeros = (torch.zeros(size, dtype=torch.float64) for size in (shape, (n_lags + 1,), (data.n_neurons,), ()))
    return CorrelogramSums(data.dt_ms, *zeros)


def _added_correlogram(
    acc: CorrelogramSums, spikes: torch.Tensor, chunk: SpikeChunk, equation: str, expected: Expected | None
) -> CorrelogramSums:
    """Return the sums with a chunk's pairs of bins added; lags of a bin or more take the expected counts of the later bin if given."""
    n_lags, n_steps = len(acc.product) - 1, spikes.shape[1]
    values, valid, past = with_past(acc.past, spikes, chunk.mask.to(spikes.device), chunk.trial, chunk.first_bin, n_lags)
    now, now_valid = values[:, n_lags:], valid[:, n_lags:]
    product, n_pairs = [], []
    for lag in range(n_lags + 1):
        earlier = slice(n_lags - lag, n_lags - lag + n_steps)
        last = now if expected is None or lag == 0 else expected.count * now_valid[..., None]
        product.append(torch.einsum(equation, last, values[:, earlier]))  # invalid values are zero
        n_pairs.append((now_valid & valid[:, earlier]).sum())
    return CorrelogramSums(
        acc.dt_ms,
        acc.product + torch.stack(product).to(torch.float64),
        acc.n_pairs + torch.stack(n_pairs),
        acc.spikes + now.sum((0, 1)).to(torch.float64),
        acc.n_bins + now_valid.sum(),
        past,
    )


def _correlogram_hz(acc: CorrelogramSums) -> torch.Tensor:
    """Return E[later earlier] / (E[earlier] dt) in Hz, lag first; NaN where the earlier neuron is silent."""
    # One ratio: the NaN of a lag without pairs inside another ratio would turn every gradient into NaN.
    n_pairs = acc.n_pairs.reshape(-1, *[1] * (acc.product.dim() - 1))
    return ratio_or_nan(acc.product, n_pairs * (acc.spikes / acc.n_bins.clamp_min(1)) * (acc.dt_ms / 1000))


@dataclass(frozen=True)
class Autocorrelogram:
    """Return each neuron's rate d bins after its own spike: (n_neurons, n_lags), lags of 1 bin .. max_lag_ms, Hz.

    A_i(d) = E[n_i(t) n_i(t - d)] / (E[n_i] dt); a Poisson train gives its rate at every lag. NaN for a silent neuron.
    """

    max_lag_ms: float = 100.0

    name: ClassVar[str] = "autocorrelogram"
    unit: ClassVar[str] = "Hz"
    default_distance: ClassVar[str] = "unexplained"
    is_differentiable: ClassVar[bool] = True
    takes_expected: ClassVar[bool] = True

    def init(self, data: DataInfo) -> CorrelogramSums:
        """Return an empty accumulator."""
        return _empty_correlogram(data, self.max_lag_ms, all_pairs=False)

    def update(self, acc: CorrelogramSums, spikes: torch.Tensor, chunk: SpikeChunk, expected: Expected | None = None) -> CorrelogramSums:
        """Return the accumulator with spikes (n_trials, n_bins, n_neurons) of one chunk added; chunks of a trial in order."""
        return _added_correlogram(acc, spikes, chunk, "kti,kti->i", expected)

    def finalise(self, acc: CorrelogramSums) -> torch.Tensor:
        """Return the autocorrelograms."""
        return _correlogram_hz(acc)[1:].T


@dataclass(frozen=True)
class CrossCorrelogram:
    """Return the rate of `post` d bins after a spike of `pre`: (n_neurons, n_neurons, n_lags + 1), [post, pre, lag], Hz.

    M_ij(d) = E[n_i(t) n_j(t - d)] / (E[n_j] dt) for d = 0 .. max_lag_ms. Negative lags are the transposed entry, rescaled by the rates.
    NaN where `pre` is silent.
    """

    max_lag_ms: float = 20.0

    name: ClassVar[str] = "cross_correlogram"
    unit: ClassVar[str] = "Hz"
    default_distance: ClassVar[str] = "unexplained"
    is_differentiable: ClassVar[bool] = True
    takes_expected: ClassVar[bool] = True

    def init(self, data: DataInfo) -> CorrelogramSums:
        """Return an empty accumulator."""
        return _empty_correlogram(data, self.max_lag_ms, all_pairs=True)

    def update(self, acc: CorrelogramSums, spikes: torch.Tensor, chunk: SpikeChunk, expected: Expected | None = None) -> CorrelogramSums:
        """Return the accumulator with spikes (n_trials, n_bins, n_neurons) of one chunk added; chunks of a trial in order."""
        return _added_correlogram(acc, spikes, chunk, "kti,ktj->ij", expected)

    def finalise(self, acc: CorrelogramSums) -> torch.Tensor:
        """Return the cross-correlograms."""
        return _correlogram_hz(acc).permute(1, 2, 0)
