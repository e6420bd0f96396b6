"""Distances between the recorded value of a statistic and its simulated one, over the entries that are finite in the recorded value.

Any square of a simulated estimate contains the estimate's own variance, which shrinks with the number of simulated trials and not with the
fit. Distances made of squares therefore take two independent estimates a and b (from two halves of the simulated trials) and use
(a - recorded) (b - recorded), whose mean has no such term (a U-statistic). It may come out below 0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

TINY = 1e-6
"""Smallest expected count of a bin inside a logarithm."""


@dataclass(frozen=True)
class Distance:
    """between(a, b, recorded) -> scalar. a and b are two independent estimates where `splits`, else the same. `of_counts`: values are
    expected counts per bin.
    """

    between: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
    splits: bool
    of_counts: bool = False


def _product(a: torch.Tensor, b: torch.Tensor, recorded: torch.Tensor) -> torch.Tensor:
    return (a - recorded) * (b - recorded)


def _mse(a: torch.Tensor, b: torch.Tensor, recorded: torch.Tensor) -> torch.Tensor:
    return _product(a, b, recorded).mean()


def _unexplained(a: torch.Tensor, b: torch.Tensor, recorded: torch.Tensor) -> torch.Tensor:
    spread = (recorded - recorded.mean()).square().sum()
    scale = spread if spread > 0 else recorded.square().sum().clamp_min(1e-300)
    return _product(a, b, recorded).sum() / scale


def _cumulative(a: torch.Tensor, b: torch.Tensor, recorded: torch.Tensor) -> torch.Tensor:
    return _product(a.cumsum(-1), b.cumsum(-1), recorded.cumsum(-1)).mean()


def _poisson(a: torch.Tensor, b: torch.Tensor, recorded: torch.Tensor) -> torch.Tensor:
    rate = a.clamp_min(TINY)
    return (rate - recorded - torch.xlogy(recorded, rate) + torch.xlogy(recorded, recorded)).mean()


def _cross_entropy(a: torch.Tensor, b: torch.Tensor, recorded: torch.Tensor) -> torch.Tensor:
    p, q = a.clamp(TINY, 1.0 - TINY), recorded.clamp(0.0, 1.0)
    least = torch.xlogy(q, q) + torch.xlogy(1.0 - q, 1.0 - q)
    return (least - torch.xlogy(q, p) - torch.xlogy(1.0 - q, 1.0 - p)).mean()


DISTANCES: dict[str, Distance] = {
    "mse": Distance(_mse, splits=True),
    "unexplained": Distance(_unexplained, splits=True),
    "cumulative": Distance(_cumulative, splits=True),
    "poisson": Distance(_poisson, splits=False, of_counts=True),
    "cross_entropy": Distance(_cross_entropy, splits=False, of_counts=True),
}
"""By name. mse: mean squared difference. unexplained: the squares' share of the recorded spread over entries; 0 is perfect, 1 is
the recorded mean. cumulative: mean squared difference of the sums along the last axis, for distributions (one-dimensional Cramer distance).
poisson, cross_entropy: Kullback-Leibler divergence of Poisson counts, of spike probabilities, nats per bin and neuron; 0 is perfect.
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
    return DISTANCES[name].between(a[finite], b[finite], recorded[finite])
