"""Age-structured recursion of finite homogeneous populations of escape-noise integrate-and-fire neurons, in readable torch.

Wang, Schmutz, Bellec, Gerstner 2022, "Mesoscopic modeling of hidden spiking neurons", NeurIPS; finite-size theory: Schwalger, Deger,
Gerstner 2017, PLoS Comput. Biol. 13:e1005507. Ours deviates in three places: the membrane is integrated exactly (the published code uses
forward Euler), ages beyond the grid are kept in a free pool (the published code drops them), and p is clipped to [1e-6, 1 - 1e-6].
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch

LOG_HAZARD_CAP = 8.0
P_MIN, P_MAX = 1e-6, 1.0 - 1e-6
VARIANCE_TINY = 1e-12
FLOOR_HZ = 0.1
FRACTION_MIN = 1e-5


@dataclass(frozen=True)
class Grid:
    """Bin width and age grid. `n_ages` counts bins of age before the free pool; delays are whole bins, one per presynaptic population."""

    dt_s: float
    n_ages: int
    t_ref_s: float = 0.004
    delay_bins: int = 0

    @property
    def first_free_age(self) -> int:
        """Return the first age index whose mid-bin lies after the refractory time."""
        return math.floor(self.t_ref_s / self.dt_s + 1e-9)

    @property
    def first_step_s(self) -> float:
        """Return the time since the end of refractoriness at that age: (age + 1) dt - t_ref, a fraction of a bin."""
        return (self.first_free_age + 1) * self.dt_s - self.t_ref_s


class Population(NamedTuple):
    """Constants of all populations. tau_s, rest, threshold, tau_syn_s, n_neurons: (n_populations,); coupling [post, pre].

    Membrane potential is in units of the threshold softness: the hazard is exp(u - threshold) in Hz.
    """

    tau_s: torch.Tensor
    rest: torch.Tensor
    threshold: torch.Tensor
    coupling: torch.Tensor
    tau_syn_s: torch.Tensor
    n_neurons: torch.Tensor


class MesoState(NamedTuple):
    """State before a bin, first axis a path. potential, survival: (n_paths, M, n_ages); the rest (n_paths, M).

    fractions (n_paths, M, n_ages) are the last spike fractions, newest first; delayed (n_paths, M, delay_bins + 1) likewise.
    """

    potential: torch.Tensor
    survival: torch.Tensor
    fractions: torch.Tensor
    delayed: torch.Tensor
    pool_potential: torch.Tensor
    pool_mass: torch.Tensor
    pool_variance: torch.Tensor
    synapse_hz: torch.Tensor


def initial_state(population: Population, grid: Grid, n_paths: int) -> MesoState:
    """Return the state in which every neuron is in the free pool at its resting potential and nothing has fired."""
    n_populations = population.tau_s.shape[0]
    zeros = population.tau_s.new_zeros(n_paths, n_populations)
    ages = population.tau_s.new_zeros(n_paths, n_populations, grid.n_ages)
    delayed = population.tau_s.new_zeros(n_paths, n_populations, grid.delay_bins + 1)
    return MesoState(ages, ages, ages, delayed, zeros + population.rest, zeros + 1.0, zeros, zeros)


class Expectation(NamedTuple):
    """What a bin's past says of it: p (n_paths, M), q_age (n_paths, M, n_ages), q_pool (n_paths, M), and the updates yet to be applied."""

    p: torch.Tensor
    q_age: torch.Tensor
    q_pool: torch.Tensor
    potential: torch.Tensor
    pool_potential: torch.Tensor
    synapse_hz: torch.Tensor
    total_mass: torch.Tensor
    firing_mass: torch.Tensor


def expect(state: MesoState, drive_per_s: torch.Tensor, population: Population, grid: Grid) -> Expectation:
    """Return the expected fraction p of each population that fires in this bin.

    p = clip(sum_a P_a m_a + P_f x + Lambda (1 - X)), Lambda = (sum_a P_a v_a + P_f z) / (sum_a v_a + z)   (Schwalger et al. 2017, Eq. 16)

    with m = S Z(t-1-a), v = (1 - S) m, X = sum m + x. `drive_per_s` (n_paths, M) is external input, du/dt.
    """
    dt, tau = grid.dt_s, population.tau_s
    decay, decay_syn = torch.exp(-dt / tau), torch.exp(-dt / population.tau_syn_s)
    decay_first = torch.exp(-grid.first_step_s / tau)
    synapse = decay_syn * state.synapse_hz + (1 - decay_syn) * state.delayed[..., grid.delay_bins] / dt
    target = population.rest + tau * (synapse @ population.coupling.T + drive_per_s)  # (n_paths, M)
    first = grid.first_free_age
    potential = torch.cat(
        [
            torch.zeros_like(state.potential[..., :first]),
            ((1 - decay_first) * target)[..., None],
            decay[:, None] * state.potential[..., first + 1 :] + ((1 - decay) * target)[..., None],
        ],
        dim=-1,
    )
    pool_potential = decay * state.pool_potential + (1 - decay) * target
    is_free = torch.arange(grid.n_ages) >= first
    q_age = torch.where(is_free, dt * torch.exp((potential - population.threshold[:, None]).clamp(max=LOG_HAZARD_CAP)), 0.0)
    q_pool = dt * torch.exp((pool_potential - population.threshold).clamp(max=LOG_HAZARD_CAP))
    fire_age, fire_pool = -torch.expm1(-q_age), -torch.expm1(-q_pool)
    mass = state.survival * state.fractions
    variance = (1 - state.survival) * mass
    firing = (fire_age * mass).sum(-1) + fire_pool * state.pool_mass
    total = mass.sum(-1) + state.pool_mass
    all_variance = variance.sum(-1) + state.pool_variance
    weighted = (fire_age * variance).sum(-1) + fire_pool * state.pool_variance
    has_variance = all_variance > VARIANCE_TINY
    rate = torch.where(has_variance, weighted / torch.where(has_variance, all_variance, 1.0), 0.0)
    p = (firing + rate * (1 - total)).clamp(P_MIN, P_MAX)
    return Expectation(p, q_age, q_pool, potential, pool_potential, synapse, total, firing)


def advance(state: MesoState, expectation: Expectation, fraction: torch.Tensor) -> MesoState:
    """Return the state after a bin in which `fraction` (n_paths, M) of each population fired."""
    fire_pool = -torch.expm1(-expectation.q_pool)
    survived = state.survival * torch.exp(-expectation.q_age)
    leaving = survived[..., -1] * state.fractions[..., -1]
    stays = 1 - fire_pool
    variance = stays**2 * state.pool_variance + fire_pool * stays * state.pool_mass + (1 - survived[..., -1]) * leaving
    newest = fraction[..., None]
    return MesoState(
        torch.cat([torch.zeros_like(newest), expectation.potential[..., :-1]], dim=-1),
        torch.cat([torch.ones_like(newest), survived[..., :-1]], dim=-1),
        torch.cat([newest, state.fractions[..., :-1]], dim=-1),
        torch.cat([newest, state.delayed[..., :-1]], dim=-1),
        expectation.pool_potential,
        stays * state.pool_mass + leaving,
        variance,
        expectation.synapse_hz,
    )


def fraction_variance(p: torch.Tensor, population: Population, grid: Grid) -> torch.Tensor:
    """Return the variance p / N + 0.1 Hz dt / N of the fraction that fires, (..., M)."""
    return (p + FLOOR_HZ * grid.dt_s) / population.n_neurons


def log_prob(
    fractions: torch.Tensor,
    spikes: torch.Tensor,
    membership: torch.Tensor,
    drive_per_s: torch.Tensor,
    population: Population,
    grid: Grid,
    first_bin: int = 0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return log p(fractions) and log p(spikes | fractions) of each path, two tensors (n_paths,), nats, from `first_bin` on.

    fractions : (n_paths, n_bins, M), fraction of each population that fires in the bin
    spikes : (n_paths, n_bins, n_observed), 0 or 1
    membership : (n_observed,) int64, the population of each observed neuron
    drive_per_s : (n_paths, n_bins, M)
    """
    n_paths = fractions.shape[0]
    state = initial_state(population, grid, n_paths)
    age = torch.full(spikes.shape[::2], grid.n_ages)  # (n_paths, n_observed), n_ages means: in the pool
    log_floor = -population.threshold + math.log(grid.dt_s)
    log_fractions = fractions.new_zeros(n_paths)
    log_spikes = fractions.new_zeros(n_paths)
    for bin_number, (fraction, spike, drive) in enumerate(zip(fractions.unbind(1), spikes.unbind(1), drive_per_s.unbind(1), strict=True)):
        expectation = expect(state, drive, population, grid)
        if bin_number >= first_bin:
            variance = fraction_variance(expectation.p, population, grid)
            log_fractions = log_fractions - (
                0.5 * (fraction - expectation.p) ** 2 / variance + 0.5 * torch.log(2 * math.pi * variance)
            ).sum(-1)
            q_all = torch.cat([expectation.q_age, expectation.q_pool[..., None]], dim=-1)  # (n_paths, M, n_ages + 1)
            q = q_all[:, membership].gather(-1, age[..., None])[..., 0]
            # A binned spike inside the refractory time is possible; it costs as much as one at the reset potential.
            q_spike = torch.where(q > 0, q, torch.exp(log_floor)[membership])
            log_spikes = log_spikes + torch.where(spike > 0, torch.log(-torch.expm1(-q_spike)), -q).sum(-1)
        state = advance(state, expectation, fraction)
        age = torch.where(spike > 0, 0, (age + 1).clamp(max=grid.n_ages))
    return log_fractions, log_spikes
