"""Noise correlations at several lags as a loss on freely simulated trials."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch

from fitspike.errors import InvalidInputError, Problems, TooFewTrialsError
from fitspike.losses.base import LossContext, LossTerms
from fitspike.losses.repeats import check_repeats
from fitspike.losses.summary_statistics import halves, recorded_value, simulated_value
from fitspike.statistics.correlations import NoiseCorrelation

if TYPE_CHECKING:
    from fitspike.recording.binned import BinnedSpikes, SpikeChunk

_MOST_NOISE = 4.0
"""Variance of simulated estimates that is taken off, over that of trials with the recorded variances."""


class _Recorded(NamedTuple):
    """covariance (n_neurons, n_neurons, n_lags), spikes^2; weight likewise: 1 / (v_i v_j), 0 where an entry does not count."""

    covariance: torch.Tensor
    weight: torch.Tensor


@dataclass(frozen=True)
class NoiseCorrelationLoss:
    """How badly freely simulated trials share the recording's noise covariances (after Bellec et al. 2021, NeurIPS 34).

    C_ij(d) = Cov[n_i(k, t), n_j(k, t - d)] over trials k of one condition, unbiased. In simulated trials the later factor is the expected
    count given the sampled past (both factors at lag 0), the earlier one the spikes. With v_i = C_ii(0) of the recording,

        loss = sum_{ijd} (A_ij(d) - C_ij(d)) (B_ij(d) - C_ij(d)) / (v_i v_j)  /  sum_{ijd} C_ij(d)^2 / (v_i v_j),

    without the diagonal of lag 0: 0 is perfect, 1 is a model without noise correlations. A and B come from two halves of the simulated
    trials, so that the mean of the loss holds no variance of the simulation; it may fall below 0. That is the square of (A + B) / 2 - C
    less the square of (A - B) / 2, the variance. Activity that runs away in one trial of a batch makes the latter boundless, and a fit
    would be paid for it: no more is taken off than four times the variance of as many trials like the recorded ones.

    n_lags : lags 0 .. n_lags - 1, in bins
    form : "unbiased"; or "published", the mean squared difference of covariances of expected counts over all entries, diagonal included,
        which was used first and is biased: covariances of expected counts at later lags are far smaller than those of spikes
    """

    name: ClassVar[str] = "noise_correlation"
    needs: ClassVar[frozenset[str]] = frozenset({"rollout"})
    n_lags: int = 5
    form: str = "unbiased"

    def __post_init__(self) -> None:
        problems = Problems(f"loss {self.name!r}")
        if self.n_lags < 1:
            problems.add(f"n_lags={self.n_lags}; use 1 (lag 0 only) or more.")
        if self.form not in ("unbiased", "published"):
            problems.add(f"form={self.form!r}; use 'unbiased' or 'published'.")
        problems.raise_if_any()

    @property
    def _statistic(self) -> NoiseCorrelation:
        return NoiseCorrelation(n_lags=self.n_lags, covariance=True)

    def check(self, binned: BinnedSpikes, model: Any) -> None:
        """Raise where there are no repeats, or neurons too few to have correlations."""
        check_repeats(binned, self.name)
        self._statistic.init(binned.info())
        if self.n_lags >= int(binned.bins_per_trial.max(initial=0)):
            raise TooFewTrialsError(f"loss {self.name!r}: n_lags={self.n_lags} reaches past trials of {binned.bins_per_trial.max()} bins.")
        if binned.n_neurons < 2:
            raise TooFewTrialsError(f"loss {self.name!r} compares pairs of neurons, and there is one neuron. Leave this loss out.")

    def record(self, binned: BinnedSpikes) -> _Recorded:
        """Return the covariances of the training data and the weight of each entry; silent neurons weigh nothing."""
        covariance = recorded_value(self._statistic, binned)
        if self.form == "published":
            return _Recorded(covariance, torch.isfinite(covariance).to(covariance.dtype))
        variance = covariance[..., 0].diagonal()
        inverse = torch.where(variance > 0, 1.0 / variance.clamp_min(1e-300), torch.zeros_like(variance))
        weight = (inverse[:, None] * inverse)[..., None].repeat(1, 1, self.n_lags)
        weight[..., 0].fill_diagonal_(0.0)
        weight[~torch.isfinite(covariance)] = 0.0
        return _Recorded(covariance, weight)

    def __call__(self, context: LossContext) -> LossTerms:
        """Return {"noise_correlation": fraction of the recorded covariances' spread that is missed}; spikes^4 in the published form."""
        free, recorded = context.free, context.recorded[self.name]
        truth, weight = (part.to(free.rollout.spikes.device) for part in recorded)
        if self.form == "published":
            value = self._of_expected(free, context)
            return {self.name: _sum(weight * (value - truth).square()) / weight.sum().clamp_min(1.0)}
        if free.chunk.n_trials < 4:
            raise InvalidInputError(
                f"loss {self.name!r} compares two halves of the simulated trials, each of at least two; there are {free.chunk.n_trials}. "
                "Use batch.n_free_trials=4 or more; 20 is usual."
            )
        rows = halves(free)
        a, b = (simulated_value(self._statistic, free, context, half) for half in rows)
        # A half without two trials of any condition has no covariance (NaN): such a batch says nothing, and neither does the other half.
        known = torch.isfinite(a) & torch.isfinite(b)
        a, b = (torch.where(known, half, torch.zeros_like(half)) for half in (a, b))
        weight = weight * known
        missed = _sum(weight * ((a + b) / 2 - truth).square())
        noise = _sum(weight * ((a - b) / 2).square())
        n_products = sum(_degrees_of_freedom(free.chunk.rows(half)) for half in rows) * free.chunk.n_bins
        most = _MOST_NOISE * float((weight > 0).sum()) / max(1, n_products)
        return {self.name: (missed - noise.clamp_max(most)) / _sum(weight * truth.square()).clamp_min(1e-300)}

    def _of_expected(self, free: Any, context: LossContext) -> torch.Tensor:
        """Return the covariances of expected counts at all lags, as if they were the spikes."""
        expected = free.rollout.latents["expected"]
        acc = self._statistic.update(self._statistic.init(context.data), expected.cpu(), free.chunk)
        return self._statistic.finalise(acc).to(expected.device)


def _degrees_of_freedom(chunk: SpikeChunk) -> int:
    """Return the number of trials less the number of means that are taken off them."""
    return chunk.n_trials - len(set(chunk.condition.tolist()))


def _sum(values: torch.Tensor) -> torch.Tensor:
    """Return the sum over finite entries; the others have no gradient."""
    return torch.where(torch.isfinite(values), values, torch.zeros_like(values)).sum()
