"""The reverse recursion compiled, for neurons whose entries of state do not act on one another; `adjoint._reference` says what it is."""

from __future__ import annotations

import numba
import numpy as np
import torch

from fitspike.plugin import cached
from fitspike_eprop.local import LocalDerivatives


def run(
    local: LocalDerivatives,
    slope: torch.Tensor,
    drive_signal: torch.Tensor,
    spike_signal: torch.Tensor,
    weight: torch.Tensor | None,
    last_state: torch.Tensor,
    last_spikes: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return drive, current, state and spikes of `adjoint.Adjoint`."""
    dtype = np.float32 if slope.dtype == torch.float32 else np.float64
    by_entry = [_plain(value.transpose(-1, -2), dtype) for value in (local.state_state, local.state_current, local.state_spike)]
    by_entry.append(_plain(local.drive_state.transpose(-1, -2), dtype))
    by_neuron = [_plain(value, dtype) for value in (local.drive_current, local.drive_spike)]
    signals = [_plain(value, dtype) for value in (slope, drive_signal, spike_signal)]
    state = _plain(last_state.transpose(-1, -2), dtype).copy()  # (n_trials, S, n_neurons)
    spikes = _plain(last_spikes, dtype).copy()
    matrix = np.zeros((0, 0), dtype=dtype) if weight is None else _plain(weight, dtype)
    drive, current = np.empty(slope.shape, dtype=dtype), np.empty(slope.shape, dtype=dtype)
    free = np.ones((1, 1, slope.shape[-1]), bool) if local.free is None else np.ascontiguousarray(local.free.cpu().numpy())
    _recursion(*by_entry, *by_neuron, free, *signals, matrix, state, spikes, drive, current)
    return torch.as_tensor(drive), torch.as_tensor(current), torch.as_tensor(state).transpose(-1, -2), torch.as_tensor(spikes)


def _plain(value: torch.Tensor, dtype: type) -> np.ndarray:
    """Return a contiguous array of this type."""
    return np.ascontiguousarray(value.detach().cpu().numpy(), dtype=dtype)


@cached(numba.njit, nogil=True, error_model="numpy", fastmath={"contract"})
def _recursion(
    state_state, state_current, state_spike, drive_state, drive_current, drive_spike, free, slope, drive_signal, spike_signal, weight,
    state, spikes, drive, current,
):  # fmt: skip
    """Fill drive and current (n_trials, n_bins, n_neurons), and move state and spikes from after the last bin to before the first."""
    n_trials, n_bins, n_neurons = slope.shape
    n_state = state.shape[1]
    is_recurrent = weight.shape[0] > 0
    now, others = np.zeros((n_trials, n_neurons), slope.dtype), np.zeros((n_trials, n_neurons), slope.dtype)
    passed = np.zeros(n_neurons, slope.dtype)
    for t in range(n_bins - 1, -1, -1):
        for b in range(n_trials):
            q, g, z = drive[b, t], current[b, t], spikes[b]
            of_current = drive_current[min(b, drive_current.shape[0] - 1), min(t, drive_current.shape[1] - 1)]
            of_spike = drive_spike[min(b, drive_spike.shape[0] - 1), min(t, drive_spike.shape[1] - 1)]
            of_drive = drive_signal[min(b, drive_signal.shape[0] - 1), min(t, drive_signal.shape[1] - 1)]
            of_spikes = spike_signal[min(b, spike_signal.shape[0] - 1), min(t, spike_signal.shape[1] - 1)]
            passes = free[min(b, free.shape[0] - 1), min(t, free.shape[1] - 1)]
            for n in range(n_neurons):
                q[n] = of_drive[n] + slope[b, t, n] * (of_spikes[n] + z[n] + others[b, n])
                passed[n] = q[n] if passes[n] else 0.0
            for n in range(n_neurons):
                g[n] = of_current[n] * passed[n]
                z[n] = of_spike[n] * passed[n]
            for d in range(n_state):
                m = state[b, d]
                decay = state_state[min(b, state_state.shape[0] - 1), min(t, state_state.shape[1] - 1), d]
                gain = state_current[min(b, state_current.shape[0] - 1), min(t, state_current.shape[1] - 1), d]
                jump = state_spike[min(b, state_spike.shape[0] - 1), min(t, state_spike.shape[1] - 1), d]
                read = drive_state[min(b, drive_state.shape[0] - 1), min(t, drive_state.shape[1] - 1), d]
                for n in range(n_neurons):
                    g[n] += gain[n] * m[n]
                    z[n] += jump[n] * m[n]
                    m[n] = decay[n] * m[n] + read[n] * passed[n]
            if is_recurrent:
                for n in range(n_neurons):
                    now[b, n] = g[n]
        if is_recurrent:
            np.dot(now, weight, others)
