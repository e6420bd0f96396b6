"""Linear rollout bin by bin with torch, differentiable by autograd: the specification."""

from __future__ import annotations

import torch

from fitspike.kernels.linear_rollout import LinearCarry, LinearCoupling, LinearNeuron, Sampling
from fitspike.kernels.linear_rollout.sampling import draw


def linear_rollout(
    neuron: LinearNeuron,
    current: torch.Tensor,
    carry: LinearCarry,
    coupling: LinearCoupling | None,
    sampling: Sampling | None,
    observed: torch.Tensor | None,
    observed_mask: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor, LinearCarry]:
    """Return spikes, drive and carry; see `fitspike.kernels.linear_rollout.linear_rollout`."""
    state, bins_left, spikes, past, trace = carry
    is_reset = torch.tensor(neuron.is_reset, device=current.device)[:, None]  # (n_components, 1)
    is_clamped = observed is not None and (observed_mask is None or bool(observed_mask.all()))
    observed_bins = observed.to(current.dtype).unbind(1) if observed is not None else None
    values = sampling.values.unbind(1) if sampling is not None else None
    all_spikes, all_drives = [], []
    for t, bin_current in enumerate(current.unbind(1)):
        if coupling is not None:
            past, trace, recurrent = _coupling_step(coupling, past, trace, spikes)
            bin_current = bin_current + recurrent
        state, bins_left, drive = _neuron_step(neuron, is_reset, state, bins_left, bin_current, spikes)
        if is_clamped:
            spikes = observed_bins[t]
        else:
            spikes = _Sample.apply(drive, values[t], sampling)
            if observed_bins is not None:
                spikes = torch.where(observed_mask, observed_bins[t], spikes)
        all_spikes.append(spikes)
        all_drives.append(drive)
    stacked = [torch.stack(bins, dim=1) if bins else torch.zeros_like(current) for bins in (all_spikes, all_drives)]
    return *stacked, LinearCarry(state, bins_left, spikes, past, trace)


def _coupling_step(
    coupling: LinearCoupling, past: torch.Tensor, trace: torch.Tensor, spikes: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return past spikes, traces and the current of a bin, given the spikes of the bin before."""
    known = torch.cat([spikes.unsqueeze(1), past], dim=1)  # z(t-1), z(t-2), ...
    arriving = known[:, coupling.n_delay - 1 :]
    trace = coupling.trace_decay * trace + arriving[:, 0].unsqueeze(-1)  # (n_trials, n_pre, n_filters)
    n_lags = coupling.lag_weight.shape[0]
    by_lag = torch.einsum("kli,lij->kj", arriving[:, :n_lags], coupling.lag_weight)
    by_trace = torch.einsum("kic,cij->kj", trace, coupling.trace_weight)
    return known[:, : past.shape[1]], trace, by_lag + by_trace


def _neuron_step(
    neuron: LinearNeuron,
    is_reset: torch.Tensor,
    state: torch.Tensor,
    bins_left: torch.Tensor,
    current: torch.Tensor,
    spikes: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return state, refractory bins left and drive of a bin."""
    z = spikes.unsqueeze(1)  # (n_trials, 1, n_neurons)
    if neuron.reset == "subtract":
        state = torch.where(is_reset, state - neuron.reset_value * z, state)
    elif neuron.reset == "to_value":
        state = torch.where(is_reset, state + (neuron.reset_value - state) * z.clamp(max=1.0), state)
    state = neuron.decay * state + neuron.gain * current.unsqueeze(1) + neuron.jump * z
    drive = (neuron.readout * state).sum(1) + neuron.bias
    if neuron.n_refractory:
        bins_left = torch.where(spikes.detach() > 0, float(neuron.n_refractory), (bins_left - 1.0).clamp_min(0.0))
        drive = torch.where(bins_left > 0, neuron.never_drive, drive)
    return state, bins_left, drive


class _Sample(torch.autograd.Function):
    """Spikes in the forward pass, the pseudo-derivative in the backward pass."""

    @staticmethod
    def forward(ctx, drive: torch.Tensor, values: torch.Tensor, sampling: Sampling) -> torch.Tensor:
        ctx.save_for_backward(drive)
        ctx.slope = sampling.slope
        return draw(drive, values, sampling)

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (drive,) = ctx.saved_tensors
        return gradient * ctx.slope(drive), None, None
