"""Distances between the recorded value of a statistic and its simulated one, over the entries that are finite in the recorded value.

Any curved function of a simulated estimate contains the estimate's own variance, which shrinks with the number of simulated trials and
not with the fit, and which a fit would lower by making trials alike. Two independent estimates a and b, from two halves of the simulated
trials, remove it. Distances made of squares use (a - recorded) (b - recorded), whose mean has no such term (a U-statistic). Divergences D
use 2 D(mean) - (D(a) + D(b)) / 2, whose bias is of second order in 1 / n_trials (a jackknife: the bias of a half is twice that of the
whole). Both may come out below 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

TINY = 1e-6
"""Smallest expected count of a bin inside a logarithm."""

_LOG_FROM = 0.1
"""Part of the recorded value below which differences of logarithms go on in a straight line."""


@dataclass(frozen=True)
class Distance:
    """between(a, b, recorded) -> scalar, of two independent estimates of one value, which may be the same. `of_counts`: values are expected
    counts per bin.
    """

    between: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
    of_counts: bool = False


def _product(a: torch.Tensor, b: torch.Tensor, recorded: torch.Tensor) -> torch.Tensor:
    return (a - recorded) * (b - recorded)


def _mse(a: torch.Tensor, b: torch.Tensor, recorded: torch.Tensor) -> torch.Tensor:
    return _product(a, b, recorded).mean()


def _unexplained(a: torch.Tensor, b: torch.Tensor, recorded: torch.Tensor) -> torch.Tensor:
    spread = (recorded - recorded.mean()).square().sum()
    scale = spread if spread > 0 else recorded.square().sum().clamp_min(1e-300)
    return _product(a, b, recorded).sum() / scale


def _log_mse(a: torch.Tensor, b: torch.Tensor, recorded: torch.Tensor) -> torch.Tensor:
    is_positive = recorded > 0
    if not bool(is_positive.any()):
        return torch.nan_to_num(a).sum() * 0.0
    known = recorded[is_positive]
    first, second = (_extended_log(value[is_positive] / known) for value in ((a,) * 2 if a is b else (a, b)))
    return (first * second).mean()


def _extended_log(ratio: torch.Tensor) -> torch.Tensor:
    """Return the logarithm, continued below `_LOG_FROM` by its tangent: unbiased estimates of few trials may be 0 or negative."""
    return torch.where(ratio > _LOG_FROM, ratio.clamp_min(_LOG_FROM).log(), math.log(_LOG_FROM) + ratio / _LOG_FROM - 1.0)


def _cumulative(a: torch.Tensor, b: torch.Tensor, recorded: torch.Tensor) -> torch.Tensor:
    return _product(a.cumsum(-1), b.cumsum(-1), recorded.cumsum(-1)).mean()


def _debiased(divergence: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Callable[..., torch.Tensor]:
    def between(a: torch.Tensor, b: torch.Tensor, recorded: torch.Tensor) -> torch.Tensor:
        if a is b:
            return divergence(a, recorded)
        return 2.0 * divergence((a + b) / 2.0, recorded) - (divergence(a, recorded) + divergence(b, recorded)) / 2.0

    return between


def _poisson(value: torch.Tensor, recorded: torch.Tensor) -> torch.Tensor:
    rate = value.clamp_min(TINY)
    return (rate - recorded - torch.xlogy(recorded, rate) + torch.xlogy(recorded, recorded)).mean()


def _cross_entropy(value: torch.Tensor, recorded: torch.Tensor) -> torch.Tensor:
    p, q = value.clamp(TINY, 1.0 - TINY), recorded.clamp(0.0, 1.0)
    least = torch.xlogy(q, q) + torch.xlogy(1.0 - q, 1.0 - q)
    return (least - torch.xlogy(q, p) - torch.xlogy(1.0 - q, 1.0 - p)).mean()


DISTANCES: dict[str, Distance] = {
    "mse": Distance(_mse),
    "log_mse": Distance(_log_mse),
    "unexplained": Distance(_unexplained),
    "cumulative": Distance(_cumulative),
    "poisson": Distance(_debiased(_poisson), of_counts=True),
    "cross_entropy": Distance(_debiased(_cross_entropy), of_counts=True),
}
"""By name. mse: mean squared difference. log_mse: of logarithms, which go on as their tangent below a tenth of the recorded value; entries
recorded as 0 are left out. unexplained: the squares' share of the recorded spread over entries; 0 is perfect, 1 is the recorded mean.
cumulative: mean squared difference of the sums along the last axis, for distributions (one-dimensional Cramer distance). poisson,
cross_entropy: Kullback-Leibler divergence of Poisson counts, of spike probabilities, nats per bin and neuron.
"""


def distance(name: str, a: torch.Tensor, b: torch.Tensor, recorded: torch.Tensor) -> torch.Tensor:
    """Return the distance over entries that are finite in all three, 0 where there is none.

    Distances along an axis leave out rows that are not finite everywhere.
    """
    finite = torch.isfinite(a) & torch.isfinite(b) & torch.isfinite(recorded)
    if name == "cumulative":
        finite = finite.all(-1)
    if not bool(finite.any()):
        return torch.nan_to_num(a).sum() * 0.0
    first = a[finite]
    return DISTANCES[name].between(first, first if a is b else b[finite], recorded[finite])
