"""Exponential spike traces with a compiled recursion and its hand-written adjoint."""

from __future__ import annotations

import numba
import numpy as np
import torch

from fitspike.kernels.compiling import cached


def supports(device: str = "cpu", dtype: str = "float64", **_: object) -> str | None:
    """Return why this implementation cannot run such a call, or None."""
    if not device.startswith("cpu"):
        return f"runs on the CPU only, not on {device}"
    return None if dtype in ("float32", "float64") else f"takes float32 and float64, not {dtype}"


def spike_trace(spikes: torch.Tensor, decay: torch.Tensor, initial: torch.Tensor) -> torch.Tensor:
    """Return traces (n_trials, n_bins, n_neurons, n_filters); see `fitspike.kernels.spike_trace.spike_trace`."""
    per_neuron = decay.expand(initial.shape[1:])
    return _SpikeTrace.apply(spikes, per_neuron, initial)


class _SpikeTrace(torch.autograd.Function):
    @staticmethod
    def forward(ctx, spikes: torch.Tensor, decay: torch.Tensor, initial: torch.Tensor) -> torch.Tensor:
        trace = torch.empty(*spikes.shape, initial.shape[-1], dtype=initial.dtype)
        _forward(*(x.detach().contiguous().numpy() for x in (spikes.to(initial.dtype), decay, initial)), trace.numpy())
        ctx.save_for_backward(decay, initial, trace)
        return trace

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        decay, initial, trace = ctx.saved_tensors
        to_spikes = torch.zeros(trace.shape[:-1], dtype=trace.dtype)
        to_decay = torch.zeros(initial.shape, dtype=trace.dtype)
        to_initial = torch.zeros_like(initial)
        arguments = (gradient, decay, initial, trace, to_spikes, to_decay, to_initial)
        _backward(*(x.detach().contiguous().numpy() for x in arguments))
        return to_spikes, to_decay.sum(0), to_initial


@cached(numba.njit, nogil=True)
def _forward(spikes: np.ndarray, decay: np.ndarray, initial: np.ndarray, trace: np.ndarray) -> None:
    n_trials, n_bins, n_neurons = spikes.shape
    for k in range(n_trials):
        last = initial[k]
        for t in range(n_bins):
            for i in range(n_neurons):
                for c in range(decay.shape[1]):
                    trace[k, t, i, c] = decay[i, c] * last[i, c] + spikes[k, t, i]
            last = trace[k, t]


@cached(numba.njit, nogil=True)
def _backward(
    gradient: np.ndarray,
    decay: np.ndarray,
    initial: np.ndarray,
    trace: np.ndarray,
    to_spikes: np.ndarray,
    to_decay: np.ndarray,
    to_initial: np.ndarray,
) -> None:
    """Fill the gradients; `to_initial`, zero at first, holds the adjoint of the trace on its way back."""
    n_trials, n_bins, n_neurons, n_filters = trace.shape
    for k in range(n_trials):
        adjoint = to_initial[k]
        for t in range(n_bins - 1, -1, -1):
            before = trace[k, t - 1] if t > 0 else initial[k]
            for i in range(n_neurons):
                total = to_spikes[k, t, i]
                for c in range(n_filters):
                    g = adjoint[i, c] + gradient[k, t, i, c]
                    total += g
                    to_decay[k, i, c] += g * before[i, c]
                    adjoint[i, c] = g * decay[i, c]
                to_spikes[k, t, i] = total
