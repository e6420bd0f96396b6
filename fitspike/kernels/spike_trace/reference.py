"""Exponential spike traces, bin by bin with torch: the specification."""

from __future__ import annotations

import torch


def spike_trace(spikes: torch.Tensor, decay: torch.Tensor, initial: torch.Tensor) -> torch.Tensor:
    """Return traces (n_trials, n_bins, n_neurons, n_filters); see `fitspike.kernels.spike_trace.spike_trace`."""
    trace = initial
    traces = []
    for bin_spikes in spikes.unbind(1):
        trace = decay * trace + bin_spikes.unsqueeze(-1)  # (n_trials, n_neurons, n_filters)
        traces.append(trace)
    if not traces:
        return initial.new_zeros(initial.shape[0], 0, *initial.shape[1:])
    return torch.stack(traces, dim=1)
