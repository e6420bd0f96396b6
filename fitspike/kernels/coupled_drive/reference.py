"""Coupled drives as a plain loop over bins and lags."""

from __future__ import annotations

import numpy as np
import torch

from fitspike.kernels.coupled_drive import MAX_EXPECTED, DriveFilters, Driven, Regulation


def coupled_drive(
    base: np.ndarray,
    filters: DriveFilters,
    past: np.ndarray,
    state: np.ndarray,
    given: np.ndarray,
    clamped: np.ndarray,
    uniforms: np.ndarray,
    emission: str,
    regulation: Regulation | None,
    sums: np.ndarray,
    threads: int | None,
) -> Driven:
    """Return drives and spikes; see `fitspike.kernels.coupled_drive.coupled_drive`."""
    n_bins, n_past = base.shape[1], past.shape[1]
    counts = np.concatenate([past, given], axis=1)
    drive = base
    for t in range(n_bins):
        if filters.decay is not None:
            drive[:, t] += state.sum(axis=1)
        else:
            for lag in range(1, min(filters.n_lags, t + n_past) + 1):
                drive[:, t] += _added(filters, counts[:, n_past + t - lag], lag - 1)
        if regulation is not None:
            drive[:, t], expected = _regulated(drive[:, t], sums, regulation, emission)
        if len(uniforms):
            drive[:, t] = np.minimum(drive[:, t], _highest(emission))
            sampled = _sample(drive[:, t], uniforms[:, t], emission)
            counts[:, n_past + t] = np.where(clamped, counts[:, n_past + t], sampled)
        if regulation is not None and regulation.fade > 0.0:
            sums = regulation.fade * (sums + np.stack([counts[:, n_past + t], expected], axis=1))
        if filters.decay is not None:
            added = [_added(filters, counts[:, n_past + t], f) for f in range(len(filters.decay))]
            state = state * filters.decay[None, :, None] + np.stack(added, axis=1)
    return Driven(drive, counts[:, n_past:], state, sums)


def coupled_drive_adjoint(
    residual: np.ndarray, past: np.ndarray, spikes: np.ndarray, filters: DriveFilters
) -> tuple[DriveFilters, np.ndarray]:
    """Return derivatives by autograd; see `fitspike.kernels.coupled_drive.coupled_drive_adjoint`."""
    n_trials, n_bins, n_neurons = residual.shape
    n_past = past.shape[1]
    leaf = {name: getattr(filters, name) for name in ("own", "pair", "shared")}
    leaf = {name: torch.tensor(v, requires_grad=True) for name, v in leaf.items() if v is not None}
    counts = torch.tensor(np.concatenate([past, spikes], axis=1))
    n_filters = 0 if filters.decay is None else len(filters.decay)
    start = torch.zeros(n_trials, n_filters, n_neurons, dtype=torch.float64, requires_grad=True)
    decay = None if filters.decay is None else torch.tensor(filters.decay)
    total, state = start.sum() * 0.0, start
    for t in range(n_bins):
        if decay is not None:
            drive = state.sum(1)
            state = state * decay[None, :, None] + torch.stack([_added_torch(leaf, counts[:, n_past + t], f) for f in range(n_filters)], 1)
        else:
            lags = range(1, min(filters.n_lags, t + n_past) + 1)
            drive = sum((_added_torch(leaf, counts[:, n_past + t - lag], lag - 1) for lag in lags), torch.zeros(n_trials, n_neurons))
        total = total + (torch.tensor(residual[:, t]) * drive).sum()
    total.backward()
    gradient = {name: (torch.zeros_like(v) if v.grad is None else v.grad).numpy() for name, v in leaf.items()}
    return DriveFilters(gradient.get("own"), gradient.get("pair"), gradient.get("shared"), filters.decay), start.grad.numpy()


def _added(filters: DriveFilters, counts: np.ndarray, place: int) -> np.ndarray:
    """Return what counts (n_trials, n_neurons) add at lag (or filter) number `place`."""
    leaf = {name: torch.tensor(getattr(filters, name)) for name in ("own", "pair", "shared") if getattr(filters, name) is not None}
    return _added_torch(leaf, torch.tensor(counts), place).numpy()


def _added_torch(leaf: dict[str, torch.Tensor], counts: torch.Tensor, place: int) -> torch.Tensor:
    added = torch.zeros_like(counts)
    if "own" in leaf and place < leaf["own"].shape[1]:
        added = added + counts * leaf["own"][:, place]
    if "pair" in leaf and place < leaf["pair"].shape[1]:
        added = added + counts @ leaf["pair"][:, place]
    if "shared" in leaf and place < leaf["shared"].shape[0]:
        added = added + counts.sum(1, keepdim=True) * leaf["shared"][place]
    return added


def _regulated(drive: np.ndarray, sums: np.ndarray, regulation: Regulation, emission: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the regulated drive and the counts expected before the gain, both (n_trials, n_neurons)."""
    low = np.minimum(drive, regulation.ceiling)
    expected = np.exp(low) if emission == "poisson" else 1.0 / (1.0 + np.exp(-low))
    if regulation.fade == 0.0:
        return low, expected
    gain = np.log((regulation.prior + sums[:, 0]) / (regulation.prior + sums[:, 1]))
    return low + np.clip(gain, -regulation.limit, regulation.limit), expected


def _highest(emission: str) -> float:
    return float(np.log(MAX_EXPECTED)) if emission == "poisson" else np.inf


def _sample(drive: np.ndarray, uniforms: np.ndarray, emission: str) -> np.ndarray:
    if emission == "bernoulli":
        return (drive > np.log(uniforms) - np.log1p(-uniforms)).astype(np.float64)
    mean = np.exp(drive)
    probability = np.exp(-mean)
    cumulative, count = probability.copy(), np.zeros_like(mean)
    is_open = cumulative < uniforms
    k = 0
    while is_open.any() and k < 50 * MAX_EXPECTED:
        k += 1
        probability = probability * mean / k
        cumulative = cumulative + probability
        count = count + is_open
        is_open = is_open & (cumulative < uniforms) & (k < mean + 50.0 * np.sqrt(mean) + 50.0)
    return count
