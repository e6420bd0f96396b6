"""Particle filter over the mesoscopic recursion (bootstrap proposal, systematic resampling)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fitspike.kernels.mesoscopic import Constants, PathState


@dataclass(frozen=True)
class FilterState:
    """All particles before a bin: arrays as in mesoscopic.numba_path with the particle as first axis.

    newest, age (n_observed,) are common to all particles; log_weight (n_particles,).
    """

    cohort: np.ndarray
    pool: np.ndarray
    synapse: np.ndarray
    newest: int
    age: np.ndarray
    log_weight: np.ndarray

    @classmethod
    def start(cls, constants: Constants, n_observed: int, n_particles: int) -> FilterState:
        """Return particles in which every neuron is at its resting potential and has not fired for long."""
        one = PathState.start(constants, n_observed)
        cohort, pool, synapse = (np.repeat(a[None], n_particles, axis=0) for a in (one.cohort, one.pool, one.synapse))
        return cls(cohort, pool, synapse, one.newest, one.age, np.zeros(n_particles))


@dataclass(frozen=True)
class FilterRun:
    """log_likelihood (n_bins,): estimate of log p(spikes of the bin | past), nats; its sum is unbiased on the probability scale.

    predicted (n_bins, n_observed): probability of a spike given the clamped neurons' past. spikes (n_bins, n_observed): as observed, or
    drawn where a neuron was not clamped. fractions (n_bins, n_particles, M) and ancestors (n_bins, n_particles): the particles as drawn
    and where each came from. filtered (n_bins, M): mean fractions given the spikes up to and including each bin. state: after the last bin.
    """

    log_likelihood: np.ndarray
    predicted: np.ndarray
    spikes: np.ndarray
    fractions: np.ndarray
    ancestors: np.ndarray
    filtered: np.ndarray
    state: FilterState

    def smoothed(self, generator: np.random.Generator, n_paths: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return paths (n_paths, n_bins, M) of the smoothing distribution, its mean and its sd (n_bins, M), by ancestral tracing."""
        from fitspike.kernels.mesoscopic_filter.numba_cpu import trace_back

        log_weight = self.state.log_weight
        weight = np.exp(log_weight - log_weight.max())
        weight /= weight.sum()
        chosen = generator.choice(len(weight), size=n_paths, p=weight)
        everyone = trace_back(self.fractions, self.ancestors, np.arange(len(weight)))
        mean = np.einsum("k,ktm->tm", weight, everyone)
        return everyone[chosen], mean, np.sqrt(np.einsum("k,ktm->tm", weight, (everyone - mean) ** 2))


@dataclass(frozen=True)
class FilterNoise:
    """What decides a filter's draws: normals (n_bins, n_particles, M) of the fractions, uniforms (n_bins,) of the resampling."""

    normals: np.ndarray
    uniforms: np.ndarray

    @classmethod
    def draw(cls, generator: np.random.Generator, n_bins: int, n_particles: int, n_populations: int) -> FilterNoise:
        """Return fresh noise."""
        return cls(generator.standard_normal((n_bins, n_particles, n_populations)), generator.random(n_bins))


def run_filter(
    spikes: np.ndarray,
    membership: np.ndarray,
    drive_per_s: np.ndarray,
    constants: Constants,
    noise: FilterNoise,
    *,
    given: np.ndarray | None = None,
    is_clamped: np.ndarray | None = None,
    neuron_uniforms: np.ndarray | None = None,
    state: FilterState | None = None,
) -> FilterRun:
    """Filter some consecutive bins of one trial.

    given (n_given, M): fractions of the first bins, taken as they are and not scored. is_clamped (n_observed,) bool: neurons whose spikes
    are known, default all; the others are drawn with neuron_uniforms (n_bins, n_observed). state: from the call on the bins before;
    default the start of a trial. Other shapes as in `mesoscopic.log_prob`.
    """
    from fitspike.kernels.mesoscopic_filter.numba_cpu import particle_filter

    c = constants
    n_populations = drive_per_s.shape[1]
    if state is None:
        state = FilterState.start(c, spikes.shape[1], noise.normals.shape[1])
    cohort, pool, synapse, age, log_weight = (a.copy() for a in (state.cohort, state.pool, state.synapse, state.age, state.log_weight))
    *out, newest = particle_filter(
        np.zeros((0, n_populations)) if given is None else np.ascontiguousarray(given, dtype=np.float64),
        np.ascontiguousarray(spikes, dtype=np.float64),
        np.asarray(membership, dtype=np.int64),
        np.ascontiguousarray(drive_per_s, dtype=np.float64),
        noise.normals,
        noise.uniforms,
        np.ones(spikes.shape[1], dtype=bool) if is_clamped is None else is_clamped,
        np.zeros(spikes.shape) if neuron_uniforms is None else neuron_uniforms,
        cohort,
        state.newest,
        pool,
        synapse,
        age,
        log_weight,
        c.decays,
        c.tau_s,
        c.rest,
        c.threshold,
        c.coupling,
        c.n_neurons,
        c.dt_s,
        c.first_free_age,
        c.delay_bins,
    )
    return FilterRun(*out, FilterState(cohort, pool, synapse, newest, age, log_weight))
