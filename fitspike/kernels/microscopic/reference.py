"""Populations of escape-noise neurons, step by step with numpy: the specification."""

from __future__ import annotations

import numpy as np


def simulate(
    drive: np.ndarray,
    n_steps: int,
    sizes: np.ndarray,
    tau_s: np.ndarray,
    rest: np.ndarray,
    threshold: np.ndarray,
    coupling: np.ndarray,
    tau_syn_s: np.ndarray,
    refractory_steps: int,
    dt_s: float,
    is_recorded: np.ndarray,
    generator: np.random.Generator,
    potential: np.ndarray,
    remaining: np.ndarray,
    blocked: np.ndarray,
    synapse: np.ndarray,
    recent: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return counts, spike_step, spike_neuron and leave the state in the last five arrays; see `simulate_microscopic`."""
    population = np.repeat(np.arange(len(sizes)), sizes)
    decay, decay_syn = np.exp(-dt_s / tau_s), np.exp(-dt_s / tau_syn_s)
    counts = np.zeros((n_steps, len(sizes)), np.int32)
    steps, neurons = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for t in range(n_steps):
        synapse[:] = decay_syn * synapse + (1 - decay_syn) * (recent[0] / (sizes * dt_s))
        gain = (1 - decay) * (rest + tau_s * (coupling @ synapse + drive[t // (n_steps // len(drive))]))
        free = blocked == 0
        potential[free] = decay[population[free]] * potential[free] + gain[population[free]]
        remaining[free] -= dt_s * np.exp(potential[free] - threshold[population[free]])
        fired = np.flatnonzero(free & (remaining < 0))
        blocked[~free] -= 1
        potential[fired] = 0
        blocked[fired] = refractory_steps
        remaining[fired] = [generator.standard_exponential() for _ in fired]
        counts[t] = np.bincount(population[fired], minlength=len(sizes))
        recent[:] = np.concatenate([recent[1:], counts[t : t + 1]])
        shown = fired[is_recorded[fired]]
        steps.append(np.full(len(shown), t))
        neurons.append(shown)
    return counts, np.concatenate(steps), np.concatenate(neurons)
