"""Populations of integrate-and-fire neurons with escape noise, neuron by neuron, exponential integration of membrane and synapse."""

from __future__ import annotations

import math

import numba
import numpy as np


@numba.njit(cache=True)
def simulate(
    drive, drive_stride, sizes, tau, rest, threshold, coupling, tau_syn, refractory_steps, delay_steps, dt, n_steps, recorded, generator
):
    """Return (counts (n_steps, M) uint16, spike_step, spike_neuron) of the recorded neurons.

    I <- e_s I + (1 - e_s) A(previous step); u <- e_m u + (1 - e_m)(rest + tau (sum_b W[m, b] I_b + drive_m)); hazard exp(u - threshold) Hz.
    A neuron spikes when its integrated hazard passes an Exp(1) variate, which is the same law as spiking in a step with probability
    1 - exp(-hazard dt) and needs one variate per spike. drive (n, M), du/dt, row t // drive_stride. recorded (n_neurons,) bool.
    """
    n_pop = len(sizes)
    n_neurons = sizes.sum()
    offset = np.zeros(n_pop + 1, np.int64)
    offset[1:] = np.cumsum(sizes)
    decay, decay_syn = np.exp(-dt / tau), np.exp(-dt / tau_syn)
    counts = np.zeros((n_steps, n_pop), np.uint16)
    synapse = np.zeros(n_pop)
    potential = np.zeros(n_neurons)
    remaining = np.zeros(n_neurons)
    blocked = np.zeros(n_neurons, np.int64)
    for i in range(n_neurons):
        remaining[i] = generator.standard_exponential()
    for m in range(n_pop):
        for i in range(offset[m], offset[m + 1]):
            potential[i] = rest[m] * generator.random()
    step_list = np.zeros(1024, np.int64)
    neuron_list = np.zeros(1024, np.int64)
    n_events = 0
    for t in range(n_steps):
        for b in range(n_pop):
            activity = counts[t - 1 - delay_steps, b] / (sizes[b] * dt) if t - 1 - delay_steps >= 0 else 0.0
            synapse[b] = decay_syn[b] * synapse[b] + (1.0 - decay_syn[b]) * activity
        for m in range(n_pop):
            total = drive[t // drive_stride, m]
            for b in range(n_pop):
                total += coupling[m, b] * synapse[b]
            gain = (1.0 - decay[m]) * (rest[m] + tau[m] * total)
            n_fired = 0
            for i in range(offset[m], offset[m + 1]):
                if blocked[i] > 0:
                    blocked[i] -= 1
                    continue
                u = decay[m] * potential[i] + gain
                potential[i] = u
                remaining[i] -= dt * math.exp(u - threshold[m])
                if remaining[i] < 0.0:
                    remaining[i] = generator.standard_exponential()
                    potential[i] = 0.0
                    blocked[i] = refractory_steps
                    n_fired += 1
                    if recorded[i]:
                        if n_events == len(step_list):
                            step_list = np.concatenate((step_list, np.zeros_like(step_list)))
                            neuron_list = np.concatenate((neuron_list, np.zeros_like(neuron_list)))
                        step_list[n_events] = t
                        neuron_list[n_events] = i
                        n_events += 1
            counts[t, m] = n_fired
    return counts, step_list[:n_events], neuron_list[:n_events]
