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
    u,
    s,
    history,
    pool,
    synapse,
    newest,
    age,
    log_weight,
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
    """Return (log_likelihood (n_bins,), predicted (n_bins, n_observed), fractions (n_bins, n_particles, M), ancestors, and the state).

    Each bin: weight by the observed spikes given the past, draw the fractions, resample systematically when the effective number of
    particles falls below half. given (n_given, M) fixes the first bins, without likelihood. normals (n_bins, n_particles, M),
    uniforms (n_bins,) decide all draws. predicted: probability of a spike given the past alone. The state arrays u .. synapse (first
    axis the particle), age (n_observed,) and log_weight (n_particles,) are those before the first bin and may be overwritten.
    """
    n_bins, n_particles, n_pop = normals.shape
    n_obs = spikes.shape[1]
    q_age, q_pool, p = np.zeros((n_pop, n_ages)), np.zeros(n_pop), np.zeros(n_pop)
    fractions = np.zeros((n_bins, n_particles, n_pop))
    ancestors = np.zeros((n_bins, n_particles), np.int64)
    predicted = np.zeros((n_bins, n_obs))
    log_likelihood = np.zeros(n_bins)
    before, weight, chosen = np.zeros(n_particles), np.zeros(n_particles), np.zeros(n_particles, np.int64)
    for t in range(n_bins):
        place = newest
        is_given = t < given.shape[0]
        highest = log_weight.max()
        before[:] = np.exp(log_weight - highest)
        log_normaliser = highest + math.log(before.sum())
        before /= before.sum()
        for k in range(n_particles):
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
            gained = 0.0
            for i in range(n_obs):
                m = membership[i]
                q = q_age[m, age[i]] if age[i] < n_ages else q_pool[m]
                predicted[t, i] += before[k] * -math.expm1(-q)
                if spikes[t, i] > 0:
                    if q <= 0.0:
                        q = dt * math.exp(-threshold[m])
                    gained += math.log(-math.expm1(-q))
                else:
                    gained -= q
            for m in range(n_pop):
                if is_given:
                    fractions[t, k, m] = given[t, m]
                else:
                    sd = math.sqrt((p[m] + FLOOR_HZ * dt) / n_neurons[m])
                    fractions[t, k, m] = min(max(p[m] + sd * normals[t, k, m], FRACTION_MIN), 1.0)
            if not is_given:
                log_weight[k] += gained
            place = advance(u[k], s[k], history[k], newest, pool[k], q_age, q_pool, fractions[t, k])
            ancestors[t, k] = k
        newest = place
        for i in range(n_obs):
            age[i] = 0 if spikes[t, i] > 0 else min(age[i] + 1, n_ages)
        if is_given:
            continue
        highest = log_weight.max()
        total, squares = 0.0, 0.0
        for k in range(n_particles):
            weight[k] = math.exp(log_weight[k] - highest)
            total += weight[k]
            squares += weight[k] * weight[k]
        log_likelihood[t] = highest + math.log(total) - log_normaliser
        if total * total / squares < 0.5 * n_particles:
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
    return log_likelihood, predicted, fractions, ancestors, u, s, history, pool, synapse, newest, age, log_weight


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
