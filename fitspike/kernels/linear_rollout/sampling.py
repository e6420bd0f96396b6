"""Spikes as a function of drive and given random numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from fitspike.kernels.linear_rollout import Sampling

SEQUENTIAL_LIMIT = 500.0
"""Expected count up to which the Poisson distribution is inverted term by term; exp(-500) is far from underflow."""

MAX_LOG_EXPECTED = 60.0
"""Log of the expected count at which it saturates; exp(60) = 1e26 is finite in float32."""


def draw(drive: torch.Tensor, values: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """Return spikes, in the drive's dtype, at the thresholds or uniforms `values`; see `Sampling`."""
    if sampling.kind == "poisson":
        return poisson_quantile(torch.exp(drive.clamp_max(sampling.log_ceiling)), values).to(drive.dtype)
    if sampling.kind == "logistic":
        values = torch.logit(values)
    elif sampling.kind == "hazard":
        values = torch.log(-torch.log1p(-values)) - sampling.log_bin_s
    return (drive > values).to(drive.dtype)


def poisson_quantile(expected: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
    """Return the smallest count k with P(count <= k) >= uniform, elementwise, float64.

    Up to an expected count of 500 the distribution is summed term by term in float64. Above, the quantile is that of a normal variable
    with the skewness corrected (Cornish-Fisher: m + s z + (z^2 - 1) / 6, rounded), which is within one count of the exact one.
    """
    mean = expected.double()
    target = uniforms.double()
    is_large = mean > SEQUENTIAL_LIMIT
    small_mean = torch.where(is_large, torch.ones_like(mean), mean)
    probability = torch.exp(-small_mean)
    cumulative = probability.clone()
    count = torch.zeros_like(mean)
    # A uniform within rounding of 1 is never reached by the sum; 50 standard deviations above the mean is past every uniform on the grid.
    limit = small_mean + 50.0 * torch.sqrt(small_mean) + 50.0
    is_open = (cumulative < target) & ~is_large
    k = 0
    while bool(is_open.any()):
        k += 1
        probability = probability * small_mean / k
        cumulative = cumulative + probability
        count = count + is_open
        is_open = (cumulative < target) & ~is_large & (count < limit)
    if bool(is_large.any()):
        z = torch.special.ndtri(target.clamp(2.0**-53, 1.0 - 2.0**-53))
        normal = torch.round(mean + torch.sqrt(mean) * z + (z**2 - 1.0) / 6.0).clamp_min(0.0)
        count = torch.where(is_large, normal, count)
    return count
