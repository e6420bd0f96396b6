"""Particle filter over the mesoscopic recursion (bootstrap proposal, systematic resampling)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fitspike.kernels.mesoscopic import Constants


@dataclass
class FilterState:
    """All particles before a bin: potentials, survivals, recent fractions, free pool, synapses; ages of the observed neurons; weights."""

    potential: np.ndarray
    survival: np.ndarray
    history: np.ndarray
    pool: np.ndarray
    synapse: np.ndarray
    newest: int
    age: np.ndarray
    log_weight: np.ndarray

    @classmethod
    def start(cls, constants: Constants, n_observed: int, n_particles: int) -> FilterState:
        """Return particles in which every neuron is in the free pool at rest."""
        c, n = constants, len(constants.tau_s)
        pool = np.zeros((n_particles, n, 3))
        pool[:, :, 0] = c.rest
        pool[:, :, 1] = 1.0
        return cls(
            np.zeros((n_particles, n, c.n_ages)),
            np.zeros((n_particles, n, c.n_ages)),
            np.zeros((n_particles, n, max(c.n_ages, c.delay_bins + 1))),
            pool,
            np.zeros((n_particles, n)),
            0,
            np.full(n_observed, c.n_ages),
            np.zeros(n_particles),
        )


@dataclass(frozen=True)
class FilterRun:
    """log_likelihood (n_bins,): estimate of log p(spikes of the bin | past), nats; its sum is unbiased on the probability scale.

    predicted (n_bins, n_observed): probability of a spike given the past. fractions (n_bins, n_particles, M) and ancestors
    (n_bins, n_particles): the particles as drawn and where each came from. state: after the last bin.
    """

    log_likelihood: np.ndarray
    predicted: np.ndarray
    fractions: np.ndarray
    ancestors: np.ndarray
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


def run_filter(
    spikes: np.ndarray,
    membership: np.ndarray,
    drive_per_s: np.ndarray,
    constants: Constants,
    generator: np.random.Generator,
    *,
    given: np.ndarray | None = None,
    n_particles: int = 150,
    state: FilterState | None = None,
) -> FilterRun:
    """Filter some consecutive bins of one trial.

    given (n_given, M): fractions of the first bins, taken as they are and not scored. state: from the call on the bins before; default the
    start of a trial. Other shapes as in `mesoscopic.log_prob`.
    """
    from fitspike.kernels.mesoscopic_filter.numba_cpu import particle_filter

    c = constants
    n_bins, n_populations = drive_per_s.shape
    if state is None:
        state = FilterState.start(c, spikes.shape[1], n_particles)
    n_particles = len(state.log_weight)
    out = particle_filter(
        np.zeros((0, n_populations)) if given is None else np.ascontiguousarray(given, dtype=np.float64),
        np.ascontiguousarray(spikes, dtype=np.float64),
        np.asarray(membership, dtype=np.int64),
        np.ascontiguousarray(drive_per_s, dtype=np.float64),
        generator.standard_normal((n_bins, n_particles, n_populations)),
        generator.random(n_bins),
        state.potential.copy(),
        state.survival.copy(),
        state.history.copy(),
        state.pool.copy(),
        state.synapse.copy(),
        state.newest,
        state.age.copy(),
        state.log_weight.copy(),
        c.tau_s,
        c.rest,
        c.threshold,
        c.coupling,
        c.tau_syn_s,
        c.n_neurons,
        *c.grid(),
    )
    return FilterRun(*out[:4], FilterState(*out[4:]))
