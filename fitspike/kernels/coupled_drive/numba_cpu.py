"""Coupled drives by adding filters forward in time at every spike, trials in parallel."""

from __future__ import annotations

import math

import numba
import numpy as np

from fitspike.kernels.compiling import cached
from fitspike.kernels.coupled_drive import MAX_EXPECTED, DriveFilters, Driven, Regulation
from fitspike.kernels.point_process import EMISSION_CODES


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
    own, pair, shared = _arrays(filters, base.shape[2])
    decay = np.zeros(0) if filters.decay is None else np.asarray(filters.decay, dtype=np.float64)
    ceiling = np.zeros(0) if regulation is None else np.ascontiguousarray(regulation.ceiling, dtype=np.float64)
    numbers = (0.0, 1.0, 0.0) if regulation is None else (float(regulation.fade), float(regulation.prior), float(regulation.limit))
    before = numba.get_num_threads()
    if threads is not None:
        numba.set_num_threads(max(1, min(threads, numba.config.NUMBA_NUM_THREADS)))
    try:
        limits = (EMISSION_CODES[emission], math.log(MAX_EXPECTED), ceiling, *numbers)
        _run(base, own, pair, shared, decay, past, state, given, clamped, uniforms, limits, sums)
    finally:
        numba.set_num_threads(before)
    return Driven(base, given, state, sums)


def coupled_drive_adjoint(
    residual: np.ndarray, past: np.ndarray, spikes: np.ndarray, filters: DriveFilters
) -> tuple[DriveFilters, np.ndarray]:
    """Return derivatives by the filters and the state; see `fitspike.kernels.coupled_drive.coupled_drive_adjoint`."""
    own, pair, shared = (np.zeros_like(a) for a in _arrays(filters, residual.shape[2]))
    n_filters = 0 if filters.decay is None else len(filters.decay)
    d_state = np.zeros((residual.shape[0], n_filters, residual.shape[2]))
    if filters.decay is None:
        _finite_adjoint(residual, past, spikes, own, pair, shared)
    else:
        _exponential_adjoint(residual, spikes, np.asarray(filters.decay, dtype=np.float64), own, pair, shared, d_state)
    gradient = DriveFilters(
        None if filters.own is None else own,
        None if filters.pair is None else pair,
        None if filters.shared is None else shared,
        filters.decay,
    )
    return gradient, d_state


def _arrays(filters: DriveFilters, n_neurons: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return own, pair and shared as float64 arrays, without lags where they are None."""
    shapes = ((n_neurons, 0), (n_neurons, 0, n_neurons), (0, n_neurons))
    parts = (filters.own, filters.pair, filters.shared)
    return tuple(np.zeros(s) if a is None else np.ascontiguousarray(a, dtype=np.float64) for a, s in zip(parts, shapes, strict=True))


@cached(numba.njit, parallel=True, nogil=True)
def _run(base, own, pair, shared, decay, past, state, given, clamped, uniforms, limits, sums):
    for k in numba.prange(base.shape[0]):
        draws = uniforms[k] if uniforms.shape[0] else uniforms[:0].reshape((0, 0))
        if decay.size:
            _exponential_trial(base[k], own, pair, shared, decay, state[k], given[k], clamped, draws, limits, sums[k])
        else:
            _finite_trial(base[k], own, pair, shared, past[k], given[k], clamped, draws, limits, sums[k])


@cached(numba.njit, nogil=True)
def _finite_trial(drive, own, pair, shared, past, counts, clamped, uniforms, limits, sums):
    n_bins, n_past = drive.shape[0], past.shape[0]
    for s in range(n_past):
        _push(drive, s - n_past, past[s], own, pair, shared)
    for t in range(n_bins):
        _decide(drive[t], counts[t], clamped, uniforms, t, limits, sums)
        _push(drive, t, counts[t], own, pair, shared)


@cached(numba.njit, nogil=True)
def _push(drive, s, counts, own, pair, shared):
    """Add to the drives after bin `s` (negative: before the first one) what its counts add."""
    n_bins, n_neurons = drive.shape
    total = 0.0
    for j in range(n_neurons):
        count = counts[j]
        if count == 0:
            continue
        total += count
        for t in range(max(0, s + 1), min(n_bins, s + 1 + pair.shape[1])):
            row = pair[j, t - s - 1]
            out = drive[t]
            for i in range(n_neurons):
                out[i] += count * row[i]
        for t in range(max(0, s + 1), min(n_bins, s + 1 + own.shape[1])):
            drive[t, j] += count * own[j, t - s - 1]
    if total != 0:
        for t in range(max(0, s + 1), min(n_bins, s + 1 + shared.shape[0])):
            for i in range(n_neurons):
                drive[t, i] += total * shared[t - s - 1, i]


@cached(numba.njit, nogil=True)
def _exponential_trial(drive, own, pair, shared, decay, state, counts, clamped, uniforms, limits, sums):
    n_bins, n_neurons = drive.shape
    for t in range(n_bins):
        for f in range(decay.size):
            for i in range(n_neurons):
                drive[t, i] += state[f, i]
        _decide(drive[t], counts[t], clamped, uniforms, t, limits, sums)
        total = 0.0
        for f in range(decay.size):
            for i in range(n_neurons):
                state[f, i] *= decay[f]
        for j in range(n_neurons):
            count = counts[t, j]
            if count == 0:
                continue
            total += count
            for f in range(pair.shape[1]):
                for i in range(n_neurons):
                    state[f, i] += count * pair[j, f, i]
            for f in range(own.shape[1]):
                state[f, j] += count * own[j, f]
        if total != 0:
            for f in range(shared.shape[0]):
                for i in range(n_neurons):
                    state[f, i] += total * shared[f, i]


@cached(numba.njit, nogil=True)
def _decide(drive, counts, clamped, uniforms, t, limits, sums):
    """Regulate the drives of one bin, sample the neurons that are not clamped from them, and bring the fading sums up to date."""
    emission, highest, ceiling, fade, prior, limit = limits
    for i in range(drive.size):
        if ceiling.size:
            drive[i] = min(drive[i], ceiling[i])
            if fade > 0.0:
                expected = math.exp(drive[i]) if emission == 0 else 1.0 / (1.0 + math.exp(-drive[i]))
                gain = math.log((prior + sums[0, i]) / (prior + sums[1, i]))
                drive[i] += min(max(gain, -limit), limit)
                sums[1, i] = fade * (sums[1, i] + expected)
        if uniforms.shape[0]:
            _sample(drive, counts, clamped, uniforms, t, i, emission, highest)
        if fade > 0.0:
            sums[0, i] = fade * (sums[0, i] + counts[i])


@cached(numba.njit, nogil=True)
def _sample(drive, counts, clamped, uniforms, t, i, emission, highest):
    """Sample neuron i from its drive unless it is clamped."""
    if emission == 0:
        drive[i] = min(drive[i], highest)
    if not clamped[i]:
        u = uniforms[t, i]
        if emission == 1:
            counts[i] = 1.0 if drive[i] > math.log(u) - math.log1p(-u) else 0.0
        else:
            mean = math.exp(drive[i])
            probability = math.exp(-mean)
            cumulative = probability
            k = 0
            limit = mean + 50.0 * math.sqrt(mean) + 50.0
            while cumulative < u and k < limit:
                k += 1
                probability *= mean / k
                cumulative += probability
            counts[i] = k


@cached(numba.njit, nogil=True)
def _finite_adjoint(residual, past, spikes, own, pair, shared):
    n_trials, n_bins, n_neurons = residual.shape
    n_past = past.shape[1]
    for k in range(n_trials):
        for s in range(-n_past, n_bins):
            counts = past[k, s + n_past] if s < 0 else spikes[k, s]
            total = 0.0
            for j in range(n_neurons):
                count = counts[j]
                if count == 0:
                    continue
                total += count
                for t in range(max(0, s + 1), min(n_bins, s + 1 + pair.shape[1])):
                    for i in range(n_neurons):
                        pair[j, t - s - 1, i] += count * residual[k, t, i]
                for t in range(max(0, s + 1), min(n_bins, s + 1 + own.shape[1])):
                    own[j, t - s - 1] += count * residual[k, t, j]
            if total != 0:
                for t in range(max(0, s + 1), min(n_bins, s + 1 + shared.shape[0])):
                    for i in range(n_neurons):
                        shared[t - s - 1, i] += total * residual[k, t, i]


@cached(numba.njit, nogil=True)
def _exponential_adjoint(residual, spikes, decay, own, pair, shared, d_state):
    n_trials, n_bins, n_neurons = residual.shape
    for k in range(n_trials):
        back = d_state[k]
        for t in range(n_bins - 1, -1, -1):
            total = 0.0
            for j in range(n_neurons):
                count = spikes[k, t, j]
                if count == 0:
                    continue
                total += count
                for f in range(pair.shape[1]):
                    for i in range(n_neurons):
                        pair[j, f, i] += count * back[f, i]
                for f in range(own.shape[1]):
                    own[j, f] += count * back[f, j]
            if total != 0:
                for f in range(shared.shape[0]):
                    for i in range(n_neurons):
                        shared[f, i] += total * back[f, i]
            for f in range(decay.size):
                for i in range(n_neurons):
                    back[f, i] = back[f, i] * decay[f] + residual[k, t, i]
