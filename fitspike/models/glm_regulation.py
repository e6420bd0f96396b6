"""The ceiling on a coupled GLM's drives and the slow gain that follows changes of a neuron's rate, on given spikes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.signal import lfilter

from fitspike.kernels.coupled_drive import Regulation
from fitspike.models.glm_problem import Problem

if TYPE_CHECKING:
    from fitspike.models.coupled_glm import CoupledGLM

GAIN_LIMIT = float(np.log(4.0))
"""The slow gain stays between 1/4 and 4: it follows a drift of the rate, and cannot carry a free run away."""


_SPAN_BINS = 2048
_SAMPLED_DRIVES = 20_000_000


def make_regulation(model: CoupledGLM, ceiling: np.ndarray | None, n_neurons: int, dt_ms: float) -> Regulation | None:
    """Return what a model without open settings does to its drives under a ceiling (n_neurons,), or None if nothing."""
    if ceiling is None and not model.gain_s:
        return None
    fade = float(np.exp(-dt_ms * 1e-3 / model.gain_s)) if model.gain_s else 0.0
    return Regulation(np.full(n_neurons, np.inf) if ceiling is None else np.asarray(ceiling), fade, model.gain_spikes, GAIN_LIMIT)


def training_ceiling(problem: Problem, rows: np.ndarray, quantile: float, targets: np.ndarray | None = None) -> np.ndarray:
    """Return a quantile of the targets' drives (default: all neurons') on the scored bins of the training data, (n_targets,).

    Of long recordings stretches of bins are taken, spread evenly.
    """
    targets = np.arange(problem.layout.n_neurons) if targets is None else targets
    n_bins, n = problem.binned.n_bins_total, len(targets)
    n_parts = -(-n_bins // _SPAN_BINS)
    n_used = min(n_parts, max(8, _SAMPLED_DRIVES // (_SPAN_BINS * n)))
    drives = []
    for part in np.unique(np.linspace(0, n_parts - 1, n_used).round().astype(np.int64)):
        span = range(int(part) * _SPAN_BINS, min((int(part) + 1) * _SPAN_BINS, n_bins))
        drives.append(problem.drives(rows[targets], targets, span)[problem.binned.scored[span.start : span.stop]])
    return np.quantile(np.concatenate(drives), quantile, axis=0).astype(np.float64)


def regulated(low: np.ndarray, spikes: np.ndarray, regulation: Regulation, sums: np.ndarray, emission: str) -> np.ndarray:
    """Return drives that are below the ceiling plus their log gains, (n_trials, n_bins, n_neurons).

    spikes : ndarray, (n_trials, n_bins, n_neurons)
    sums : ndarray, (n_trials, 2, n_neurons), fading sums of counts and of expected counts at the first bin
    """
    return low if not regulation.fade else low + log_gain(low, spikes, regulation, sums, emission)[0]


def fading_sums(values: np.ndarray, start: np.ndarray, fade: float) -> tuple[np.ndarray, np.ndarray]:
    """Return S(t) of S(t + 1) = fade * (S(t) + values(t)) over axis 1, and S after the last bin; S(0) is `start` (n_trials, n_neurons)."""
    later, _ = lfilter([fade], [1.0, -fade], values, axis=1, zi=fade * start[:, None])
    every = np.concatenate([start[:, None], later], axis=1)
    return every[:, :-1], every[:, -1]


def expected_counts(drive: np.ndarray, emission: str) -> np.ndarray:
    """Return the expected counts of drives."""
    return np.exp(drive) if emission == "poisson" else 0.5 * (1.0 + np.tanh(0.5 * drive))


def log_gain(
    low: np.ndarray, spikes: np.ndarray, regulation: Regulation, sums: np.ndarray, emission: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the log gain, where it is within its limit, and the fading sum of expected counts, each as `low`."""
    counted, _ = fading_sums(spikes, sums[:, 0], regulation.fade)
    expected, _ = fading_sums(expected_counts(low, emission), sums[:, 1], regulation.fade)
    gain = np.log((regulation.prior + counted) / (regulation.prior + expected))
    return np.clip(gain, -regulation.limit, regulation.limit), np.abs(gain) <= regulation.limit, expected
