"""Particle filter over the mesoscopic recursion: paths of the spike fractions given a few observed spike trains."""

from __future__ import annotations

import math

import numba
import numpy as np

from fitspike.kernels.mesoscopic.numba_cpu import advance, expect
from fitspike.kernels.mesoscopic.reference import FLOOR_HZ, FRACTION_MIN


@numba.njit(cache=True)
def particle_filter(
    given,
    spikes,
    membership,
    drive,
    normals,
    uniforms,
    tau,
    rest,
    threshold,
    coupling,
    tau_syn,
    n_neurons,
    dt,
    n_ages,
    first,
    first_step,
    delay,
):
    """Return (log_likelihood, fractions (n_bins, n_particles, M), ancestors (n_bins, n_particles), log_weights (n_particles,)).

    Each bin: weight by the observed spikes given the past, draw the fractions, resample systematically when the effective number of
    particles falls below half. given (n_history, M) fixes the first bins, without likelihood. normals (n_bins, n_particles, M),
    uniforms (n_bins,) decide all draws.
    """
    n_bins, n_particles, n_pop = normals.shape
    n_obs = spikes.shape[1]
    n_ring = max(n_ages, delay + 1)
    u, s = np.zeros((n_particles, n_pop, n_ages)), np.zeros((n_particles, n_pop, n_ages))
    history = np.zeros((n_particles, n_pop, n_ring))
    pool = np.zeros((n_particles, n_pop, 3))
    pool[:, :, 0] = rest
    pool[:, :, 1] = 1.0
    synapse = np.zeros((n_particles, n_pop))
    q_age, q_pool, p = np.zeros((n_pop, n_ages)), np.zeros(n_pop), np.zeros(n_pop)
    age = np.full(n_obs, n_ages)
    fractions = np.zeros((n_bins, n_particles, n_pop))
    ancestors = np.zeros((n_bins, n_particles), np.int64)
    log_weight = np.zeros(n_particles)
    weight = np.zeros(n_particles)
    chosen = np.zeros(n_particles, np.int64)
    log_likelihood = 0.0
    newest = 0
    for t in range(n_bins):
        place = newest
        is_given = t < given.shape[0]
        for k in range(1 if is_given else n_particles):
            expect(
                u[k],
                s[k],
                history[k],
                newest,
                pool[k],
                synapse[k],
                drive[t],
                tau,
                rest,
                threshold,
                coupling,
                tau_syn,
                dt,
                first,
                first_step,
                delay,
                q_age,
                q_pool,
                p,
            )
            if is_given:
                for m in range(n_pop):
                    fractions[t, :, m] = given[t, m]
            else:
                for i in range(n_obs):
                    m = membership[i]
                    q = q_age[m, age[i]] if age[i] < n_ages else q_pool[m]
                    if spikes[t, i] > 0:
                        if q <= 0.0:
                            q = dt * math.exp(-threshold[m])
                        log_weight[k] += math.log(-math.expm1(-q))
                    else:
                        log_weight[k] -= q
                for m in range(n_pop):
                    sd = math.sqrt((p[m] + FLOOR_HZ * dt) / n_neurons[m])
                    fractions[t, k, m] = min(max(p[m] + sd * normals[t, k, m], FRACTION_MIN), 1.0)
            place = advance(u[k], s[k], history[k], newest, pool[k], q_age, q_pool, fractions[t, k])
        newest = place
        for i in range(n_obs):
            age[i] = 0 if spikes[t, i] > 0 else min(age[i] + 1, n_ages)
        for k in range(n_particles):
            ancestors[t, k] = k
        if is_given:
            if t == given.shape[0] - 1:
                for k in range(1, n_particles):
                    u[k], s[k], history[k], pool[k], synapse[k] = u[0], s[0], history[0], pool[0], synapse[0]
            continue
        highest = log_weight.max()
        total, squares = 0.0, 0.0
        for k in range(n_particles):
            weight[k] = math.exp(log_weight[k] - highest)
            total += weight[k]
            squares += weight[k] * weight[k]
        if total * total / squares < 0.5 * n_particles:
            log_likelihood += highest + math.log(total / n_particles)
            at, summed = 0, weight[0] / total
            for k in range(n_particles):
                point = (k + uniforms[t]) / n_particles
                while summed < point and at < n_particles - 1:
                    at += 1
                    summed += weight[at] / total
                chosen[k] = at
                ancestors[t, k] = at
            u, s, history, pool, synapse = u[chosen], s[chosen], history[chosen], pool[chosen], synapse[chosen]
            log_weight[:] = 0.0
    highest = log_weight.max()
    log_likelihood += highest + math.log(np.exp(log_weight - highest).mean())
    return log_likelihood, fractions, ancestors, log_weight


@numba.njit(cache=True)
def trace_back(fractions, ancestors, final):
    """Return the paths (len(final), n_bins, M) that end in the given particles."""
    n_bins, _, n_pop = fractions.shape
    paths = np.zeros((len(final), n_bins, n_pop))
    for r in range(len(final)):
        k = final[r]
        for t in range(n_bins - 1, -1, -1):
            k = ancestors[t, k]
            for m in range(n_pop):
                paths[r, t, m] = fractions[t, k, m]
    return paths
