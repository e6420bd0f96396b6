"""Populations of escape-noise neurons, compiled: whole populations are integrated in vector instructions, spikes are handled one by one."""

from __future__ import annotations

import numba
import numpy as np

from fitspike.kernels.compiling import cached
from fitspike.kernels.numba_exponential import exp_in_place

BLOCKED = -1e9
"""Potential of a refractory neuron while the kernel runs: its hazard is nil, and it is set back to 0 when it may integrate again."""
BLOCK = 64  # neurons that are searched together for spikes
LOWEST_EXPONENT = -600.0  # exp of it times dt is still a normal number; arithmetic on smaller ones is slow


@cached(numba.njit, nogil=True)
def simulate(
    drive,
    n_steps,
    sizes,
    tau_s,
    rest,
    threshold,
    coupling,
    tau_syn_s,
    refractory_steps,
    dt_s,
    is_recorded,
    generator,
    potential,
    remaining,
    blocked,
    synapse,
    recent,
):
    """Return counts, spike_step, spike_neuron and leave the state in the last five arrays; see `simulate_microscopic`."""
    n_populations, n_neurons = len(sizes), len(potential)
    n_recent = len(recent)
    stride = n_steps // len(drive)
    decay, decay_syn = np.exp(-dt_s / tau_s), np.exp(-dt_s / tau_syn_s)
    end = np.cumsum(sizes)
    counts = np.zeros((n_steps, n_populations), np.int32)
    hazard, scale, spiking = np.zeros(n_neurons), np.zeros(n_neurons), np.zeros(n_neurons, np.int64)
    # Refractory neurons wait in a ring, first in first out, each with the step in which it integrates again.
    waiting, release = np.zeros(n_neurons + 1, np.int64), np.zeros(n_neurons + 1, np.int64)
    head, tail = 0, 0
    for i in np.argsort(blocked):
        if blocked[i] > 0:
            potential[i] = BLOCKED
            waiting[tail], release[tail] = i, blocked[i]
            tail += 1
    step_list, neuron_list = np.zeros(1024, np.int64), np.zeros(1024, np.int64)
    n_events = 0
    for t in range(n_steps):
        while head != tail and release[head] == t:
            potential[waiting[head]] = 0.0
            head = (head + 1) % (n_neurons + 1)
        for b in range(n_populations):
            past = t - n_recent
            count = counts[past, b] if past >= 0 else recent[t, b]
            synapse[b] = decay_syn[b] * synapse[b] + (1.0 - decay_syn[b]) * (count / (sizes[b] * dt_s))
        for m in range(n_populations):
            total = 0.0
            for b in range(n_populations):
                total += coupling[m, b] * synapse[b]
            gain = (1.0 - decay[m]) * (rest[m] + tau_s[m] * (total + drive[t // stride, m]))
            first, last = end[m] - sizes[m], end[m]
            n_spiking = _integrate(
                potential[first:last],
                remaining[first:last],
                hazard[first:last],
                scale[first:last],
                spiking,
                decay[m],
                gain,
                threshold[m],
                dt_s,
            )
            counts[t, m] = n_spiking
            for k in range(n_spiking):
                i = first + spiking[k]
                remaining[i] = generator.standard_exponential()
                if refractory_steps == 0:
                    potential[i] = 0.0
                else:
                    potential[i] = BLOCKED
                    waiting[tail], release[tail] = i, t + 1 + refractory_steps
                    tail = (tail + 1) % (n_neurons + 1)
                if is_recorded[i]:
                    if n_events == len(step_list):
                        step_list = np.concatenate((step_list, np.zeros_like(step_list)))
                        neuron_list = np.concatenate((neuron_list, np.zeros_like(neuron_list)))
                    step_list[n_events], neuron_list[n_events] = t, i
                    n_events += 1
    blocked[:] = 0
    while head != tail:
        i = waiting[head]
        blocked[i], potential[i] = release[head] - n_steps, 0.0
        head = (head + 1) % (n_neurons + 1)
    past = np.concatenate((recent, counts))[n_steps:]
    recent[:] = past
    return counts, step_list[:n_events], neuron_list[:n_events]


@cached(numba.njit, nogil=True)
def _integrate(potential, remaining, hazard, scale, spiking, decay, gain, threshold, dt_s):
    """Move potentials and remaining hazards of one population on by a step; return how many neurons spike, their numbers in `spiking`."""
    n_neurons, n_spiking = len(potential), 0
    for i in range(n_neurons):
        potential[i] = decay * potential[i] + gain
        exponent = potential[i] - threshold
        hazard[i] = exponent if exponent > LOWEST_EXPONENT else LOWEST_EXPONENT
    exp_in_place(hazard, scale)
    for first in range(0, n_neurons, BLOCK):
        last = min(first + BLOCK, n_neurons)
        n_here = 0
        for i in range(first, last):
            remaining[i] -= dt_s * hazard[i]
            n_here += remaining[i] < 0.0
        if n_here > 0:
            for i in range(first, last):
                if remaining[i] < 0.0:
                    spiking[n_spiking] = i
                    n_spiking += 1
    return n_spiking
