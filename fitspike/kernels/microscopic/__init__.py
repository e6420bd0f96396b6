"""Populations of integrate-and-fire neurons with escape noise, neuron by neuron: the ground truth of the mesoscopic model.

reference.py is the specification, numba_cpu.py the compiled form: the same spikes from the same generator.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fitspike.errors import InvalidInputError, Problems
from fitspike.kernels.dispatch import choose
from fitspike.kernels.mesoscopic import Constants as PopulationConstants

LONGEST_AGE_S = 10.0
"""Ages at the start are drawn up to here; neurons below about 1 Hz would need longer ones, and a run-in."""


@dataclass(frozen=True, eq=False)
class MicroscopicState:
    """A network before a step; neurons are numbered population after population.

    potential (n_neurons,), 0 while refractory; remaining (n_neurons,): integrated hazard that is left before the next spike;
    blocked_steps (n_neurons,) int64: refractory steps to come; synapse_hz (n_populations,); recent (delay_bins + 1, n_populations)
    int32: spikes of each population in the last steps, oldest first.
    """

    potential: np.ndarray
    remaining: np.ndarray
    blocked_steps: np.ndarray
    synapse_hz: np.ndarray
    recent: np.ndarray

    def copied(self) -> MicroscopicState:
        """Return a state whose arrays are its own."""
        return MicroscopicState(*(value.copy() for value in vars(self).values()))


@dataclass(frozen=True, eq=False)
class MicroscopicRun:
    """What a network did, and where it stands.

    counts (n_steps, n_populations) int32: spikes of each whole population per step. spike_step, spike_neuron (n_spikes,) int64: the
    recorded neurons' spikes in order of time. state: after the last step.
    """

    counts: np.ndarray
    spike_step: np.ndarray
    spike_neuron: np.ndarray
    state: MicroscopicState


def start_microscopic(
    constants: PopulationConstants, generator: np.random.Generator, rates_hz: np.ndarray | None = None
) -> MicroscopicState:
    """Return the state in which a network begins.

    rates_hz : (n_populations,), optional
        Synapses are those of populations that have long fired at these rates, and each neuron's age since its last spike is drawn from
        the survival probability at that constant input. Without rates, synapses are silent and potentials uniform between reset and rest.

    Raises
    ------
    InvalidInputError
        If there is not one non-negative rate for each population.
    """
    c, sizes, n_refractory = constants, _sizes(constants), _refractory_steps(constants)
    n = int(sizes.sum())
    remaining = generator.standard_exponential(n)
    potential, blocked = np.zeros(n), np.zeros(n, np.int64)
    ends = np.cumsum(sizes)
    if rates_hz is None:
        uniform = generator.random(n)
        for m, end in enumerate(ends):
            members = slice(end - sizes[m], end)
            potential[members] = c.rest[m] * uniform[members]
        return MicroscopicState(potential, remaining, blocked, np.zeros(len(sizes)), np.zeros((c.delay_bins + 1, len(sizes)), np.int32))
    rates = np.asarray(rates_hz, dtype=np.float64)
    if rates.shape != sizes.shape or not (rates >= 0).all():
        raise InvalidInputError(f"rates_hz={rates_hz} is no start; expected a rate in Hz, 0 or more, for each of {len(sizes)} populations.")
    free_steps = np.arange(round(LONGEST_AGE_S / c.dt_s) - n_refractory)
    for m, end in enumerate(ends):
        # Age a, in steps: refractory for a < n_refractory, then f = a - n_refractory steps of integration at constant input.
        limit = c.rest[m] + c.tau_s[m] * (c.coupling[m] @ rates)
        after = -limit * np.expm1(-free_steps * (c.dt_s / c.tau_s[m]))  # u after f steps
        survival = np.exp(-c.dt_s * np.concatenate([[0.0], np.cumsum(np.exp(after[1:] - c.threshold[m]))]))
        mass = np.concatenate([np.ones(n_refractory), survival])
        age = np.searchsorted(np.cumsum(mass) / mass.sum(), generator.random(sizes[m]), side="right")
        members = slice(end - sizes[m], end)
        blocked[members] = np.maximum(n_refractory - age, 0)
        potential[members] = after[np.maximum(age - n_refractory, 0)]
    recent = np.repeat(np.rint(rates * sizes * c.dt_s)[None].astype(np.int32), c.delay_bins + 1, axis=0)
    return MicroscopicState(potential, remaining, blocked, rates.copy(), recent)


def simulate_microscopic(
    drive_per_s: np.ndarray,
    constants: PopulationConstants,
    generator: np.random.Generator,
    *,
    recorded: np.ndarray,
    n_steps: int | None = None,
    state: MicroscopicState | None = None,
    backend: str = "auto",
) -> MicroscopicRun:
    """Simulate every neuron of every population with steps of `constants.dt_s`.

    I_b <- e_b I_b + (1 - e_b) A_b(t - 1 - delay),    u_i <- E u_i + (1 - E) (rest + tau (sum_b coupling[m, b] I_b + drive_m))

    with e = exp(-dt / tau_syn), E = exp(-dt / tau) and A the rate of a whole population in one step, so that results do not depend on the
    step. A neuron spikes in a step with probability 1 - exp(-dt exp(u_i - threshold)); it does so when its integrated hazard passes an
    Exp(1) variate, which is the same law for one variate per spike. Then u_i is 0 and stays so for exactly t_ref / dt steps. A run cut
    into pieces, each started from the state and generator of the one before, gives the spikes of the whole run.

    Parameters
    ----------
    drive_per_s : (n, n_populations), external input du/dt; each row is held for n_steps / n steps
    recorded : neurons whose spikes are returned; neurons are numbered population after population
    state : default: `start_microscopic(constants, generator)`
    backend : "auto", "numba" or "reference"

    Raises
    ------
    InvalidInputError
        If the refractory time is no whole number of steps, n_steps no multiple of the rows of the drive, or a recorded neuron not there.
    """
    c, sizes, n_refractory = constants, _sizes(constants), _refractory_steps(constants)
    drive = np.ascontiguousarray(drive_per_s, dtype=np.float64)
    recorded = np.asarray(recorded, dtype=np.int64)
    n, n_steps = int(sizes.sum()), len(drive) if n_steps is None else n_steps
    found = Problems("microscopic simulation")
    if drive.ndim != 2 or drive.shape[1] != len(sizes) or not len(drive):
        found.add(f"drive_per_s has shape {drive.shape}; expected (n, {len(sizes)}), a column for each population.")
    elif n_steps % len(drive):
        found.add(f"n_steps={n_steps} is no multiple of the {len(drive)} rows of the drive.")
    if recorded.size and not (0 <= recorded.min() and recorded.max() < n):
        found.add(f"recorded neurons run from {recorded.min()} to {recorded.max()}; the network has neurons 0 to {n - 1}.")
    found.raise_if_any()
    after = (start_microscopic(c, generator) if state is None else state).copied()
    is_recorded = np.zeros(n, dtype=bool)
    is_recorded[recorded] = True
    run = choose("microscopic", backend).load()
    out = run(
        drive,
        n_steps,
        sizes,
        c.tau_s,
        c.rest,
        c.threshold,
        c.coupling,
        c.tau_syn_s,
        n_refractory,
        c.dt_s,
        is_recorded,
        generator,
        after.potential,
        after.remaining,
        after.blocked_steps,
        after.synapse_hz,
        after.recent,
    )
    return MicroscopicRun(*out, after)


def _sizes(constants: PopulationConstants) -> np.ndarray:
    return np.rint(constants.n_neurons).astype(np.int64)


def _refractory_steps(constants: PopulationConstants) -> int:
    steps = constants.t_ref_s / constants.dt_s
    if abs(steps - round(steps)) > 1e-6:
        raise InvalidInputError(
            f"t_ref_s={constants.t_ref_s} is no whole number of steps of {constants.dt_s} s. Choose a step that divides it."
        )
    return round(steps)
