"""Mesoscopic recursion of finite populations: log-probability with gradient, free simulation.

The one public door to this kernel; arrays in, arrays out, float64. reference.py is the specification, numba_cpu.py the compiled form with
a hand-derived adjoint.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from fitspike.errors import InvalidInputError


@dataclass(frozen=True)
class Constants:
    """Constants of all populations and of the grid.

    tau_s, rest, threshold, tau_syn_s, n_neurons : (n_populations,) float64. rest and threshold are in units of the escape noise; the
    hazard is exp(u - threshold) Hz and the reset is 0. coupling [post, pre] : (n_populations, n_populations). dt_s: bin. n_ages: bins of
    age before the free pool. t_ref_s: absolute refractory time. delay_bins: synaptic delay.
    """

    tau_s: np.ndarray
    rest: np.ndarray
    threshold: np.ndarray
    coupling: np.ndarray
    tau_syn_s: np.ndarray
    n_neurons: np.ndarray
    dt_s: float
    t_ref_s: float = 0.004
    delay_bins: int = 0
    n_ages: int = 0

    def __post_init__(self) -> None:
        n = len(self.tau_s)
        for name in ("tau_s", "rest", "threshold", "tau_syn_s", "n_neurons"):
            value = np.ascontiguousarray(getattr(self, name), dtype=np.float64)
            if value.shape != (n,):
                raise InvalidInputError(f"{name} has shape {value.shape}; expected one value for each of {n} populations.")
            object.__setattr__(self, name, value)
        coupling = np.ascontiguousarray(self.coupling, dtype=np.float64)
        if coupling.shape != (n, n):
            raise InvalidInputError(f"coupling has shape {coupling.shape}; expected [post, pre] with {n} populations.")
        object.__setattr__(self, "coupling", coupling)
        if self.n_ages == 0:
            object.__setattr__(self, "n_ages", max(default_ages(self.tau_s, self.dt_s, self.t_ref_s), self.delay_bins + 1))
        if self.n_ages < max(self.delay_bins, self.first_free_age) + 1:
            raise InvalidInputError(
                f"n_ages={self.n_ages} bins of age are fewer than delay and refractory time need. Use n_ages=0, which chooses them."
            )

    @property
    def first_free_age(self) -> int:
        """Return the first age index whose mid-bin lies after the refractory time."""
        return math.floor(self.t_ref_s / self.dt_s + 1e-9)

    @property
    def first_step_s(self) -> float:
        """Return the time since the end of refractoriness at that age, at most one bin."""
        return (self.first_free_age + 1) * self.dt_s - self.t_ref_s

    @property
    def decays(self) -> np.ndarray:
        """Return the decay of membranes over a bin, of membranes over the first step, and of synapses over a bin, (3, n_populations)."""
        return np.exp(-np.array([self.dt_s / self.tau_s, self.first_step_s / self.tau_s, self.dt_s / self.tau_syn_s]))


def default_ages(tau_s: np.ndarray, dt_s: float, t_ref_s: float) -> int:
    """Return a number of age bins that covers eight membrane time constants beyond the refractory time."""
    return math.ceil(8 * float(np.max(tau_s)) / dt_s) + math.floor(t_ref_s / dt_s + 1e-9) + 1


@dataclass(frozen=True)
class Gradient:
    """Gradients of log p(fractions) + log p(spikes); shapes as their arguments."""

    fractions: np.ndarray
    drive: np.ndarray
    tau_s: np.ndarray
    rest: np.ndarray
    threshold: np.ndarray
    coupling: np.ndarray


def log_prob(
    fractions: np.ndarray,
    spikes: np.ndarray,
    membership: np.ndarray,
    drive_per_s: np.ndarray,
    constants: Constants,
    *,
    first_bin: int = 0,
    with_gradient: bool = True,
    hold_innovations: bool = False,
) -> tuple[float, float, Gradient | None]:
    """Return log p(fractions), log p(spikes | fractions), nats, and a gradient.

    The gradient is that of their sum at fixed fractions; with `hold_innovations` that of log p(spikes | fractions) where the scored
    fractions follow their expectation p, each keeping its innovation (Z - p) / sigma(p): what changed constants do to a simulation whose
    noise stays the same.

    fractions : (n_bins, n_populations), fraction of each population that fires per bin
    spikes : (n_bins, n_observed), 0 or 1
    membership : (n_observed,), population of each observed neuron
    drive_per_s : (n_bins, n_populations), external input, du/dt
    first_bin : bins before this one are history; they are not scored
    """
    from fitspike.kernels.mesoscopic.numba_cpu import log_prob_and_gradient

    c = constants
    out = log_prob_and_gradient(
        np.ascontiguousarray(fractions, dtype=np.float64),
        np.ascontiguousarray(spikes, dtype=np.float64),
        np.asarray(membership, dtype=np.int64),
        np.ascontiguousarray(drive_per_s, dtype=np.float64),
        c.tau_s,
        c.rest,
        c.threshold,
        c.coupling,
        c.tau_syn_s,
        c.n_neurons,
        c.dt_s,
        c.n_ages,
        c.first_free_age,
        c.first_step_s,
        c.delay_bins,
        first_bin,
        with_gradient,
        hold_innovations,
    )
    return out[0], out[1], Gradient(*out[2:]) if with_gradient else None


@dataclass(frozen=True)
class PathState:
    """One path before a bin; arrays as in numba_path. age (n_observed,): bins since each observed
    neuron fired, n_ages for long ago, -1 for unknown."""

    cohort: np.ndarray
    pool: np.ndarray
    synapse: np.ndarray
    newest: int
    age: np.ndarray

    @classmethod
    def start(cls, constants: Constants, n_observed: int) -> PathState:
        """Return the state in which every neuron is at its resting potential and has not fired for long."""
        c, n = constants, len(constants.tau_s)
        pool = np.stack([c.rest, np.ones(n), np.zeros(n)], axis=1)
        return cls(np.zeros((3, n, c.n_ages)), pool, np.zeros(n), 0, np.full(n_observed, c.n_ages))


@dataclass(frozen=True)
class MesoscopicRun:
    """fractions, expected (n_bins, n_populations): fraction that fired per bin and its expectation; spikes (n_bins, n_observed).

    state: after the last bin.
    """

    fractions: np.ndarray
    expected: np.ndarray
    spikes: np.ndarray
    state: PathState


def simulate(
    drive_per_s: np.ndarray,
    constants: Constants,
    normals: np.ndarray,
    *,
    given: np.ndarray | None = None,
    membership: np.ndarray | None = None,
    uniforms: np.ndarray | None = None,
    state: PathState | None = None,
) -> MesoscopicRun:
    """Simulate the populations freely, and observed member neurons beside them.

    drive_per_s, normals : (n_bins, n_populations), external input du/dt and the standard normal variates of the finite-size noise
    given : (n_given, n_populations), fractions of the first bins, taken as they are
    membership, uniforms : (n_observed,) and (n_bins, n_observed); without them no neuron is observed
    state : from the bins before; default: every neuron at rest
    """
    from fitspike.kernels.mesoscopic.numba_cpu import simulate as run

    c = constants
    drive = np.ascontiguousarray(drive_per_s, dtype=np.float64)
    members = np.zeros(0, np.int64) if membership is None else np.asarray(membership, dtype=np.int64)
    before = PathState.start(c, len(members)) if state is None else state
    cohort, pool, synapse, age = (a.copy() for a in (before.cohort, before.pool, before.synapse, before.age))
    fractions, expected, spikes, newest = run(
        np.zeros((0, drive.shape[1])) if given is None else np.ascontiguousarray(given, dtype=np.float64),
        drive,
        np.ascontiguousarray(normals, dtype=np.float64),
        np.zeros((len(drive), 0)) if uniforms is None else np.ascontiguousarray(uniforms, dtype=np.float64),
        members,
        cohort,
        before.newest,
        pool,
        synapse,
        age,
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
    return MesoscopicRun(fractions, expected, spikes, PathState(cohort, pool, synapse, newest, age))
