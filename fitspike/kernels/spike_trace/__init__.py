"""Causal exponential filters of spikes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fitspike.kernels.dispatch import choose

if TYPE_CHECKING:
    import torch


def spike_trace(spikes: torch.Tensor, decay: torch.Tensor, initial: torch.Tensor, *, backend: str = "auto") -> torch.Tensor:
    """Return r_t = decay r_{t-1} + z_t for every trial, neuron and filter, differentiable in all three arguments.

    Parameters
    ----------
    spikes : Tensor, (n_trials, n_bins, n_neurons)
    decay : Tensor, (n_filters,) or (n_neurons, n_filters), per bin
    initial : Tensor, (n_trials, n_neurons, n_filters)
        The trace before the first bin.
    backend : "auto", "numba" or "reference"

    Returns
    -------
    Tensor, (n_trials, n_bins, n_neurons, n_filters)
    """
    facts = {"device": str(spikes.device), "dtype": str(spikes.dtype).removeprefix("torch.")}
    return choose("spike_trace", backend, **facts).load()(spikes, decay, initial)
