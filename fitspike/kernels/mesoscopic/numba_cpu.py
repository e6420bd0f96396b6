"""The mesoscopic recursion compiled: value and hand-derived adjoint, one path after another.

The same numbers as reference.py; the adjoint follows the recursion backwards with a tape of potential, survival and the per-bin sums.
"""

from __future__ import annotations

import math

import numba
import numpy as np

from fitspike.kernels.compiling import cached
from fitspike.kernels.mesoscopic.numba_path import advance, expect, hazard_of, next_age
from fitspike.kernels.mesoscopic.reference import FLOOR_HZ, FRACTION_MIN, LOG_HAZARD_CAP, P_MAX, P_MIN, VARIANCE_TINY


@cached(numba.njit, nogil=True)
def log_prob_and_gradient(
    fractions,
    spikes,
    membership,
    drive,
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
    first_bin,
    with_gradient,
    hold_innovations,
):
    """One path: (log_fractions, log_spikes, gradients).

    The gradients are those of log_fractions + log_spikes at fixed fractions or, with hold_innovations, those of log_spikes where the scored
    fractions move with their expectation, each keeping its standardised innovation (Z - p) / sigma(p).
    """
    n_bins, n_pop = fractions.shape
    n_obs = spikes.shape[1]
    decay, decay_first, decay_syn = np.exp(-dt / tau), np.exp(-first_step / tau), np.exp(-dt / tau_syn)
    # tape
    u_tape = np.zeros((n_bins + 1, n_pop, n_ages))  # potential before the bin's update
    s_tape = np.zeros((n_bins + 1, n_pop, n_ages))
    h_tape = np.zeros((n_bins + 1, n_pop))
    x_tape = np.zeros((n_bins + 1, n_pop))
    z_tape = np.zeros((n_bins + 1, n_pop))
    i_tape = np.zeros((n_bins + 1, n_pop))
    q_tape = np.zeros((n_bins, n_pop, n_ages))
    qf_tape = np.zeros((n_bins, n_pop))
    p_tape = np.zeros((n_bins, n_pop))
    raw_tape = np.zeros((n_bins, n_pop))
    rate_tape = np.zeros((n_bins, n_pop))
    total_tape = np.zeros((n_bins, n_pop))
    variance_tape = np.zeros((n_bins, n_pop))
    age_tape = np.zeros((n_bins, n_obs), np.int64)
    target = np.zeros(n_pop)
    age = np.full(n_obs, n_ages)
    log_fractions = 0.0
    log_spikes = 0.0
    for m in range(n_pop):
        h_tape[0, m] = rest[m]
        x_tape[0, m] = 1.0
    for t in range(n_bins):
        for b in range(n_pop):
            arrived = fractions[t - 1 - delay, b] if t - 1 - delay >= 0 else 0.0
            i_tape[t + 1, b] = decay_syn[b] * i_tape[t, b] + (1.0 - decay_syn[b]) * arrived / dt
        for m in range(n_pop):
            total_input = drive[t, m]
            for b in range(n_pop):
                total_input += coupling[m, b] * i_tape[t + 1, b]
            target[m] = rest[m] + tau[m] * total_input
            pool = decay[m] * h_tape[t, m] + (1.0 - decay[m]) * target[m]
            h_tape[t + 1, m] = pool
            qf = dt * math.exp(min(pool - threshold[m], LOG_HAZARD_CAP))
            pf = -math.expm1(-qf)
            qf_tape[t, m] = qf
            x, z = x_tape[t, m], z_tape[t, m]
            firing, total, all_variance, weighted = pf * x, x, z, pf * z
            for a in range(n_ages):
                if a < first:
                    u = 0.0
                    q = 0.0
                else:
                    if a == first:
                        u = (1.0 - decay_first[m]) * target[m]
                    else:
                        u = decay[m] * u_tape[t, m, a] + (1.0 - decay[m]) * target[m]
                    q = dt * math.exp(min(u - threshold[m], LOG_HAZARD_CAP))
                q_tape[t, m, a] = q
                fire = -math.expm1(-q)
                survival = s_tape[t, m, a]
                mass = survival * fractions[t - 1 - a, m] if t - 1 - a >= 0 else 0.0
                variance = (1.0 - survival) * mass
                firing += fire * mass
                total += mass
                all_variance += variance
                weighted += fire * variance
                if a + 1 < n_ages:
                    u_tape[t + 1, m, a + 1] = u
                    s_tape[t + 1, m, a + 1] = survival * (1.0 - fire)
                else:
                    last = survival * (1.0 - fire)
            s_tape[t + 1, m, 0] = 1.0
            leaving = last * fractions[t - n_ages, m] if t - n_ages >= 0 else 0.0
            stays = 1.0 - pf
            z_tape[t + 1, m] = stays * stays * z + pf * stays * x + (1.0 - last) * leaving
            x_tape[t + 1, m] = stays * x + leaving
            rate = weighted / all_variance if all_variance > VARIANCE_TINY else 0.0
            raw = firing + rate * (1.0 - total)
            p = min(max(raw, P_MIN), P_MAX)
            raw_tape[t, m], p_tape[t, m] = raw, p
            rate_tape[t, m], total_tape[t, m], variance_tape[t, m] = rate, total, all_variance
            if t >= first_bin:
                sigma2 = (p + FLOOR_HZ * dt) / n_neurons[m]
                difference = fractions[t, m] - p
                log_fractions -= 0.5 * difference * difference / sigma2 + 0.5 * math.log(2.0 * math.pi * sigma2)
        for i in range(n_obs):
            a = age[i]
            age_tape[t, i] = a
            m = membership[i]
            if t >= first_bin:
                q = q_tape[t, m, a] if a < n_ages else qf_tape[t, m]
                if spikes[t, i] > 0:
                    if q <= 0.0:
                        q = dt * math.exp(-threshold[m])
                    log_spikes += math.log(-math.expm1(-q))
                else:
                    log_spikes -= q
            age[i] = 0 if spikes[t, i] > 0 else min(a + 1, n_ages)

    g_fractions = np.zeros((n_bins, n_pop))
    g_drive = np.zeros((n_bins, n_pop))
    g_tau, g_rest, g_threshold = np.zeros(n_pop), np.zeros(n_pop), np.zeros(n_pop)
    g_coupling = np.zeros((n_pop, n_pop))
    if not with_gradient:
        return log_fractions, log_spikes, g_fractions, g_drive, g_tau, g_rest, g_threshold, g_coupling

    u_bar, s_bar = np.zeros((n_pop, n_ages + 1)), np.zeros((n_pop, n_ages + 1))
    h_bar, x_bar, z_bar, i_bar = np.zeros(n_pop), np.zeros(n_pop), np.zeros(n_pop), np.zeros(n_pop)
    q_observed, qf_observed = np.zeros((n_pop, n_ages)), np.zeros(n_pop)
    target_bar = np.zeros(n_pop)
    d_decay = np.exp(-dt / tau) * dt / tau**2  # d decay / d tau
    d_first = np.exp(-first_step / tau) * first_step / tau**2
    for t in range(n_bins - 1, -1, -1):
        q_observed[:] = 0.0
        qf_observed[:] = 0.0
        if t >= first_bin:
            for i in range(n_obs):
                a, m = age_tape[t, i], membership[i]
                q = q_tape[t, m, a] if a < n_ages else qf_tape[t, m]
                if spikes[t, i] > 0:
                    if q <= 0.0:
                        q = dt * math.exp(-threshold[m])
                        g_threshold[m] -= q * math.exp(-q) / -math.expm1(-q)
                        continue
                    change = math.exp(-q) / -math.expm1(-q)
                else:
                    change = -1.0
                if a < n_ages:
                    q_observed[m, a] += change
                else:
                    qf_observed[m] += change
        for m in range(n_pop):
            p, raw = p_tape[t, m], raw_tape[t, m]
            rate, total, all_variance = rate_tape[t, m], total_tape[t, m], variance_tape[t, m]
            g = 0.0
            if t >= first_bin:
                sigma2 = (p + FLOOR_HZ * dt) / n_neurons[m]
                difference = fractions[t, m] - p
                slope = 1.0 / n_neurons[m]
                if hold_innovations:
                    # Later bins have added all they owe to this bin's fraction: Z = p + sigma(p) xi, xi held.
                    if fractions[t, m] > FRACTION_MIN:
                        g = g_fractions[t, m] * (1.0 + 0.5 * slope * difference / sigma2)
                else:
                    g_fractions[t, m] -= difference / sigma2
                    g = difference / sigma2 - 0.5 * slope * (1.0 / sigma2 - difference * difference / (sigma2 * sigma2))
                if not P_MIN < raw < P_MAX:
                    g = 0.0
            d_rate = g * (1.0 - total)
            d_total = -g * rate
            d_weighted, d_variance = 0.0, 0.0
            if all_variance > VARIANCE_TINY:
                d_weighted = d_rate / all_variance
                d_variance = -d_rate * rate / all_variance
            qf = qf_tape[t, m]
            pf = -math.expm1(-qf)
            stays = 1.0 - pf
            x, z = x_tape[t, m], z_tape[t, m]
            xb, zb = x_bar[m], z_bar[m]
            target_bar[m] = 0.0
            d_pf = g * x + d_weighted * z - xb * x + zb * (-2.0 * stays * z + (1.0 - 2.0 * pf) * x)
            d_qf = d_pf * stays + qf_observed[m]
            x_bar[m] = g * pf + d_total + xb * stays + zb * pf * stays
            z_bar[m] = d_weighted * pf + d_variance + zb * stays * stays
            pool = h_tape[t + 1, m]
            d_pool = h_bar[m]
            if pool - threshold[m] < LOG_HAZARD_CAP:
                d_pool += d_qf * qf
                g_threshold[m] -= d_qf * qf
            h_bar[m] = decay[m] * d_pool
            target_bar[m] += (1.0 - decay[m]) * d_pool
            target_now = 0.0
            if decay[m] < 1.0:
                target_now = (pool - decay[m] * h_tape[t, m]) / (1.0 - decay[m])
            g_tau[m] += d_pool * d_decay[m] * (h_tape[t, m] - target_now)
            # mass that leaves the grid: last survival s_K, fraction Z(t - K)
            s_last = s_tape[t, m, n_ages - 1] * math.exp(-q_tape[t, m, n_ages - 1])
            last_bar = 0.0
            if t - n_ages >= 0:
                f_last = fractions[t - n_ages, m]
                last_bar = xb * f_last + zb * (1.0 - 2.0 * s_last) * f_last
                g_fractions[t - n_ages, m] += xb * s_last + zb * (1.0 - s_last) * s_last
            s_bar[m, n_ages] = last_bar
            u_bar[m, n_ages] = 0.0
            for a in range(n_ages):  # ascending: entry a + 1 still holds the adjoint from bin t + 1
                q = q_tape[t, m, a]
                fire = -math.expm1(-q)
                survival = s_tape[t, m, a]
                fraction = fractions[t - 1 - a, m] if t - 1 - a >= 0 else 0.0
                mass = survival * fraction
                variance = (1.0 - survival) * mass
                d_fire = g * mass + d_weighted * variance
                d_var = d_weighted * fire + d_variance
                d_mass = g * fire + d_total + d_var * (1.0 - survival)
                if t - 1 - a >= 0:
                    g_fractions[t - 1 - a, m] += d_mass * survival
                d_q = (1.0 - fire) * (d_fire - s_bar[m, a + 1] * survival) + q_observed[m, a]
                s_bar[m, a] = d_mass * fraction - d_var * mass + s_bar[m, a + 1] * (1.0 - fire)
                if a < first:
                    u_bar[m, a] = 0.0
                    continue
                u = 0.0
                if a == first:
                    u = (1.0 - decay_first[m]) * target_now
                else:
                    u = decay[m] * u_tape[t, m, a] + (1.0 - decay[m]) * target_now
                d_u = u_bar[m, a + 1]
                if u - threshold[m] < LOG_HAZARD_CAP:
                    d_u += d_q * q
                    g_threshold[m] -= d_q * q
                if a == first:
                    u_bar[m, a] = 0.0
                    target_bar[m] += (1.0 - decay_first[m]) * d_u
                    g_tau[m] -= d_u * d_first[m] * target_now
                else:
                    u_bar[m, a] = decay[m] * d_u
                    target_bar[m] += (1.0 - decay[m]) * d_u
                    g_tau[m] += d_u * d_decay[m] * (u_tape[t, m, a] - target_now)
            s_bar[m, 0] = 0.0  # survival at age 0 is the constant 1
            u_bar[m, 0] = 0.0
            g_rest[m] += target_bar[m]
            g_tau[m] += target_bar[m] * (target_now - rest[m]) / tau[m]
            input_bar = tau[m] * target_bar[m]
            g_drive[t, m] += input_bar
            for b in range(n_pop):
                g_coupling[m, b] += input_bar * i_tape[t + 1, b]
                i_bar[b] += input_bar * coupling[m, b]
        for b in range(n_pop):
            if t - 1 - delay >= 0:
                g_fractions[t - 1 - delay, b] += (1.0 - decay_syn[b]) / dt * i_bar[b]
            i_bar[b] *= decay_syn[b]
    for m in range(n_pop):
        g_rest[m] += h_bar[m]  # the pool starts at rest
    return log_fractions, log_spikes, g_fractions, g_drive, g_tau, g_rest, g_threshold, g_coupling


@cached(numba.njit, nogil=True)
def simulate(
    given,
    drive,
    normals,
    uniforms,
    membership,
    cohort,
    newest,
    pool,
    synapse,
    age,
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
    """Return (fractions (n_bins, M), expected (n_bins, M), spikes (n_bins, n_observed), newest); the state arrays are overwritten.

    The first len(given) fractions are taken, the rest drawn. Observed neurons are members of their population whose own spikes do not
    feed back; uniforms (n_bins, n_observed) decide them. Of the state: cohort, newest, pool, synapse as in numba_path, age (n_observed,).
    """
    n_bins, n_pop = drive.shape
    n_obs, n_ages = len(membership), cohort.shape[2]
    fractions, expected = np.zeros((n_bins, n_pop)), np.zeros((n_bins, n_pop))
    spikes = np.zeros((n_bins, n_obs))
    q, stay, scratch = np.zeros((n_pop, n_ages)), np.zeros((n_pop, n_ages)), np.zeros(n_pop * n_ages)
    q_pool, stay_pool = np.zeros(n_pop), np.zeros(n_pop)
    for t in range(n_bins):
        expect(
            cohort,
            newest,
            pool,
            synapse,
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
            expected[t],
        )
        for i in range(n_obs):
            if uniforms[t, i] < -math.expm1(-hazard_of(age[i], newest, membership[i], q, q_pool, expected[t])):
                spikes[t, i] = 1.0
            age[i] = next_age(age[i], spikes[t, i] > 0, n_ages)
        for m in range(n_pop):
            if t < given.shape[0]:
                fractions[t, m] = given[t, m]
            else:
                sd = math.sqrt((expected[t, m] + FLOOR_HZ * dt) / n_neurons[m])
                fractions[t, m] = min(max(expected[t, m] + sd * normals[t, m], FRACTION_MIN), 1.0)
        newest = advance(cohort, newest, pool, stay, stay_pool, fractions[t])
    return fractions, expected, spikes, newest
