"""Particle filter over the mesoscopic recursion: paths of the spike fractions given a few observed spike trains."""

from __future__ import annotations

import math

import numba
import numpy as np

from fitspike.kernels.compiling import cached
from fitspike.kernels.mesoscopic.numba_path import advance, expect, hazard_of, next_age
from fitspike.kernels.mesoscopic.reference import FLOOR_HZ, FRACTION_MIN


@cached(numba.njit, nogil=True)
def particle_filter(
    given,
    spikes,
    membership,
    drive,
    normals,
    uniforms,
    is_clamped,
    neuron_uniforms,
    cohort,
    newest,
    pool,
    synapse,
    age,
    log_weight,
    decays,
    tau,
    rest,
    threshold,
    coupling,
    n_neurons,
    dt,
    first,
    delay,
):
    """Return the arrays of FilterRun in its order, and the slot of the newest cohort.

    Each bin: weight by the clamped neurons' spikes given the past, draw the fractions, resample systematically when the effective number
    of particles falls below half. given (n_given, M) fixes the first bins, without likelihood. normals (n_bins, n_particles, M),
    uniforms (n_bins,) decide all draws. predicted: probability of a spike given the past of the clamped neurons alone; neurons that are
    not clamped are like any of their population, and fire by their own age and neuron_uniforms (n_bins, n_observed). The state before the
    first bin is overwritten by that after the last: cohort, pool, synapse as in numba_path with the particle as first axis, age
    (n_observed,), log_weight (n_particles,).
    """
    n_bins, n_particles, n_pop = normals.shape
    n_obs, n_ages = len(membership), cohort.shape[3]
    q, stay, scratch = np.zeros((n_pop, n_ages)), np.zeros((n_pop, n_ages)), np.zeros(n_pop * n_ages)
    q_pool, stay_pool, p = np.zeros(n_pop), np.zeros(n_pop), np.zeros(n_pop)
    fractions = np.zeros((n_bins, n_particles, n_pop))
    ancestors = np.zeros((n_bins, n_particles), np.int32)
    predicted, fired = np.zeros((n_bins, n_obs)), spikes.copy()
    filtered = np.zeros((n_bins, n_pop))
    log_likelihood, own = np.zeros(n_bins), np.zeros(n_obs)
    before, weight, chosen = np.zeros(n_particles), np.zeros(n_particles), np.zeros(n_particles, np.int64)
    for t in range(n_bins):
        place = newest
        own[:] = 0.0
        is_given = t < given.shape[0]
        highest = log_weight.max()
        before[:] = np.exp(log_weight - highest)
        log_normaliser = highest + math.log(before.sum())
        before /= before.sum()
        for k in range(n_particles):
            expect(
                cohort[k],
                newest,
                pool[k],
                synapse[k],
                drive[t],
                decays,
                tau,
                rest,
                threshold,
                coupling,
                dt,
                first,
                delay,
                q,
                stay,
                scratch,
                q_pool,
                stay_pool,
                p,
            )
            gained = 0.0
            for i in range(n_obs):
                m = membership[i]
                hazard = hazard_of(age[i], newest, m, q, q_pool, p)
                if not is_clamped[i]:
                    predicted[t, i] += before[k] * p[m]
                    own[i] += before[k] * -math.expm1(-hazard)
                    continue
                predicted[t, i] += before[k] * -math.expm1(-hazard)
                if spikes[t, i] > 0:
                    if hazard <= 0.0:
                        hazard = dt * math.exp(-threshold[m])
                    gained += math.log(-math.expm1(-hazard))
                else:
                    gained -= hazard
            for m in range(n_pop):
                if is_given:
                    fractions[t, k, m] = given[t, m]
                else:
                    sd = math.sqrt((p[m] + FLOOR_HZ * dt) / n_neurons[m])
                    fractions[t, k, m] = min(max(p[m] + sd * normals[t, k, m], FRACTION_MIN), 1.0)
            if not is_given:
                log_weight[k] += gained
            place = advance(cohort[k], newest, pool[k], stay, stay_pool, fractions[t, k])
            ancestors[t, k] = k
        newest = place
        for i in range(n_obs):
            if not is_clamped[i]:
                fired[t, i] = 1.0 if neuron_uniforms[t, i] < own[i] else 0.0
            age[i] = next_age(age[i], fired[t, i] > 0, n_ages)
        if is_given:
            filtered[t] = given[t]
            continue
        highest = log_weight.max()
        total, squares = 0.0, 0.0
        for k in range(n_particles):
            weight[k] = math.exp(log_weight[k] - highest)
            total += weight[k]
            squares += weight[k] * weight[k]
        for k in range(n_particles):
            for m in range(n_pop):
                filtered[t, m] += weight[k] / total * fractions[t, k, m]
        log_likelihood[t] = highest + math.log(total) - log_normaliser
        if total * total / squares < 0.5 * n_particles:
            at, summed = 0, weight[0] / total
            for k in range(n_particles):
                point = (k + uniforms[t]) / n_particles
                while summed < point and at < n_particles - 1:
                    at += 1
                    summed += weight[at] / total
                chosen[k] = at
            _copy_chosen(cohort, pool, synapse, chosen, ancestors[t])
            log_weight[:] = 0.0
    return log_likelihood, predicted, fired, fractions, ancestors, filtered, newest


@cached(numba.njit, nogil=True)
def _copy_chosen(cohort, pool, synapse, chosen, ancestor):
    """Replace particles that were not chosen by copies of those chosen more than once; note in `ancestor` where each came from."""
    n_particles = len(chosen)
    n_offspring = np.zeros(n_particles, np.int64)
    for k in range(n_particles):
        n_offspring[chosen[k]] += 1
    at = 0
    for k in range(n_particles):
        while n_offspring[at] <= 1 and at < n_particles - 1:
            at += 1
        if n_offspring[k] == 0:
            cohort[k] = cohort[at]
            pool[k] = pool[at]
            synapse[k] = synapse[at]
            n_offspring[at] -= 1
            ancestor[k] = at


@cached(numba.njit, nogil=True)
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
