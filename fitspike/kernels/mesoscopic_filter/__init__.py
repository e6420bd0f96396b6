"""Particle filter over the mesoscopic recursion (bootstrap proposal, systematic resampling)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fitspike.kernels.mesoscopic import Constants


@dataclass(frozen=True)
class FilterRun:
    """log_likelihood: unbiased marginal likelihood estimate, nats. paths (n_paths, n_bins, M) drawn from the smoothing distribution.

    mean, sd (n_bins, M): ancestral mean and standard deviation over all final particles, weighted.
    """

    log_likelihood: float
    paths: np.ndarray
    mean: np.ndarray
    sd: np.ndarray


def run_filter(
    history: np.ndarray,
    spikes: np.ndarray,
    membership: np.ndarray,
    drive_per_s: np.ndarray,
    constants: Constants,
    generator: np.random.Generator,
    *,
    n_particles: int = 150,
    n_paths: int = 2,
) -> FilterRun:
    """Filter one trial. history (n_history, M): fractions of the first bins, taken as given and not scored; other shapes as in log_prob."""
    from fitspike.kernels.mesoscopic_filter.numba_cpu import particle_filter, trace_back

    c = constants
    n_bins, n_populations = drive_per_s.shape
    normals = generator.standard_normal((n_bins, n_particles, n_populations))
    log_likelihood, fractions, ancestors, log_weight = particle_filter(
        np.ascontiguousarray(history, dtype=np.float64),
        np.ascontiguousarray(spikes, dtype=np.float64),
        np.asarray(membership, dtype=np.int64),
        np.ascontiguousarray(drive_per_s, dtype=np.float64),
        normals,
        generator.random(n_bins),
        c.tau_s,
        c.rest,
        c.threshold,
        c.coupling,
        c.tau_syn_s,
        c.n_neurons,
        *c.grid(),
    )
    weight = np.exp(log_weight - log_weight.max())
    weight /= weight.sum()
    chosen = generator.choice(n_particles, size=n_paths, p=weight)
    everyone = trace_back(fractions, ancestors, np.arange(n_particles))
    mean = np.einsum("k,ktm->tm", weight, everyone)
    sd = np.sqrt(np.einsum("k,ktm->tm", weight, (everyone - mean) ** 2))
    return FilterRun(float(log_likelihood), everyone[chosen], mean, sd)
