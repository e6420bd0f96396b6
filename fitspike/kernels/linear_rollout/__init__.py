"""Rollout of neurons that are linear between spikes, with or without coupling: clamped, free or mixed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from fitspike.kernels.dispatch import choose
from fitspike.kernels.linear_rollout.sampling import MAX_LOG_EXPECTED

if TYPE_CHECKING:
    import torch


class LinearNeuron(NamedTuple):
    """n_components state components s per neuron; z are the spikes of the previous bin.

    s~ = s, s - reset_value z ("subtract") or s + (reset_value - s) min(z, 1) ("to_value"), the last two where `is_reset`;
    s' = decay s~ + gain current + jump z;    drive = sum over components of readout s' + bias.
    In the `n_refractory` bins after a spike the drive is `never_drive`.

    decay, gain, jump, readout, reset_value : Tensor, (n_components, n_neurons). bias : Tensor, (n_neurons,). is_reset : one per component.
    """

    decay: torch.Tensor
    gain: torch.Tensor
    jump: torch.Tensor
    readout: torch.Tensor
    bias: torch.Tensor
    reset_value: torch.Tensor
    reset: str
    is_reset: tuple[bool, ...]
    n_refractory: int
    never_drive: float


class LinearCoupling(NamedTuple):
    """Current from spikes, as finite filters, exponential filters, or both.

    I_j(t) = sum_{l, i} lag_weight[l, i, j] z_i(t - n_delay - l) + sum_{c, i} trace_weight[c, i, j] r_{c,i}(t)
    r_{c,i}(t) = trace_decay_c r_{c,i}(t-1) + z_i(t - n_delay)

    lag_weight : Tensor, (n_lags, n_pre, n_post). trace_weight : Tensor, (n_filters, n_pre, n_post). trace_decay : Tensor, (n_filters,), no
    gradient. n_delay >= 1, bins.
    """

    lag_weight: torch.Tensor
    trace_weight: torch.Tensor
    trace_decay: torch.Tensor
    n_delay: int


class Slope(NamedTuple):
    """Closed form of a pseudo-derivative as a function of the drive u, which compiled code can work out for itself.

    "logistic": scale p (1 - p), p = 1 / (1 + exp(-u)). "triangle": scale max(0, 1 - |u|). "exponential": scale exp(u). "hazard": scale
    h exp(-h), h = exp(u + log_bin_s). 0 where u > ceiling, except for "hazard", where u + log_bin_s saturates there.
    """

    form: str
    scale: float
    ceiling: float
    log_bin_s: float = 0.0


class Sampling(NamedTuple):
    """How spikes are sampled. `values` (n_trials, n_bins, n_neurons) decide them; slope(drive) is the pseudo-derivative.

    kind "threshold": a spike where the drive exceeds `values`. The others take uniforms. "logistic": a spike where the drive exceeds
    logit(uniform). "hazard": where it exceeds log(-log(1 - uniform)) - log_bin_s. "poisson": the Poisson distribution of mean
    exp(min(drive, log_ceiling)), inverted. closed_slope : the same as `slope`, for code that cannot call it.
    """

    kind: str
    values: torch.Tensor
    slope: Callable[[torch.Tensor], torch.Tensor]
    log_ceiling: float = MAX_LOG_EXPECTED
    log_bin_s: float = 0.0
    closed_slope: Slope | None = None


class LinearCarry(NamedTuple):
    """What one chunk hands to the next, differentiable but for bins_left.

    state : (n_trials, n_components, n_neurons). bins_left, spikes : (n_trials, n_neurons), of the last bin. past : (n_trials, n_past,
    n_neurons), the spikes before those of the last bin, the latest first, n_past = n_delay - 1 + n_lags. trace : (n_trials, n_neurons,
    n_filters).
    """

    state: torch.Tensor
    bins_left: torch.Tensor
    spikes: torch.Tensor
    past: torch.Tensor
    trace: torch.Tensor


def linear_rollout(
    neuron: LinearNeuron,
    current: torch.Tensor,
    carry: LinearCarry,
    *,
    coupling: LinearCoupling | None = None,
    sampling: Sampling | None = None,
    observed: torch.Tensor | None = None,
    observed_mask: torch.Tensor | None = None,
    backend: str = "auto",
) -> tuple[torch.Tensor, torch.Tensor, LinearCarry]:
    """Return spikes and drive, (n_trials, n_bins, n_neurons), and the carry, differentiable.

    Gradients are those of current, neuron, coupling weights and carry.

    Parameters
    ----------
    current : Tensor, (n_trials, n_bins, n_neurons)
    sampling : needed unless every neuron is observed
    observed, observed_mask : spikes (n_trials, n_bins, n_neurons) and which neurons (n_neurons,) are clamped to them; without a mask all
    backend : "auto", "numba" or "reference"
    """
    facts = {"device": str(current.device), "dtype": str(current.dtype).removeprefix("torch.")}
    run = choose("linear_rollout", backend, **facts).load()
    return run(neuron, current, carry, coupling, sampling, observed, observed_mask)
