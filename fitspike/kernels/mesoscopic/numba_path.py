"""One bin of one path of the mesoscopic recursion, compiled; what free simulation and particle filter are made of.

Neurons that fired in the same bin are a cohort. A path holds its last n_ages cohorts in a ring, `cohort` (3, M, n_ages): potential,
surviving part, and the fraction that fired; the newest one is in slot `newest`. So nothing moves as time goes on, and all cohorts are
updated by vector instructions. `pool` (M, 3) holds potential, mass and variance of all older neurons, `synapse` (M,) the filtered rate, Hz.
"""

from __future__ import annotations

import math

import numba

from fitspike.kernels.compiling import cached
from fitspike.kernels.mesoscopic.reference import LOG_HAZARD_CAP, P_MAX, P_MIN, VARIANCE_TINY
from fitspike.kernels.numba_exponential import exp_in_place


@cached(numba.njit, nogil=True, fastmath={"contract", "reassoc", "nsz"})
def expect(
    cohort, newest, pool, synapse, drive, decays, tau, rest, threshold, coupling, dt, first, delay, q, stay, scratch, q_pool, stay_pool, p
):
    """Do the first half of a bin in place: potentials and synapses, and what is expected to fire.

    decays (3, M): membrane over a bin, membrane over the first step after refractoriness, synapse. Fills q, stay (M, n_ages) by slot and
    q_pool, stay_pool (M,): integrated hazard and probability not to fire; p (M,): expected fraction. The recursion is reference.expect.
    """
    _, n_pop, n_ages = cohort.shape
    for b in range(n_pop):
        arrived = cohort[2, b, (newest - delay) % n_ages] / dt
        synapse[b] = decays[2, b] * synapse[b] + (1.0 - decays[2, b]) * arrived
    for m in range(n_pop):
        target = drive[m]
        for b in range(n_pop):
            target += coupling[m, b] * synapse[b]
        target = rest[m] + tau[m] * target
        decay, added, soft_threshold = decays[0, m], (1.0 - decays[0, m]) * target, threshold[m]
        for k in range(n_ages):
            cohort[0, m, k] = decay * cohort[0, m, k] + added
        for a in range(first):
            cohort[0, m, (newest - a) % n_ages] = 0.0
        cohort[0, m, (newest - first) % n_ages] = (1.0 - decays[1, m]) * target
        for k in range(n_ages):
            q[m, k] = min(cohort[0, m, k] - soft_threshold, LOG_HAZARD_CAP)
        pool[m, 0] = decay * pool[m, 0] + added
        q_pool[m] = dt * math.exp(min(pool[m, 0] - soft_threshold, LOG_HAZARD_CAP))
        stay_pool[m] = math.exp(-q_pool[m])
    exp_in_place(q.reshape(-1), scratch)
    for m in range(n_pop):
        for k in range(n_ages):
            q[m, k] *= dt
        for a in range(first):
            q[m, (newest - a) % n_ages] = 0.0
        for k in range(n_ages):
            stay[m, k] = -q[m, k]
    exp_in_place(stay.reshape(-1), scratch)
    for m in range(n_pop):
        fire = -math.expm1(-q_pool[m])
        firing, total, variance, weighted = fire * pool[m, 1], pool[m, 1], pool[m, 2], fire * pool[m, 2]
        for k in range(n_ages):
            survival, fires = cohort[1, m, k], 1.0 - stay[m, k]
            mass = survival * cohort[2, m, k]
            spread = (1.0 - survival) * mass
            firing += fires * mass
            total += mass
            variance += spread
            weighted += fires * spread
        rate = weighted / variance if variance > VARIANCE_TINY else 0.0
        p[m] = min(max(firing + rate * (1.0 - total), P_MIN), P_MAX)


@cached(numba.njit, nogil=True)
def advance(cohort, newest, pool, stay, stay_pool, fraction):
    """Do the second half of a bin in place, given what fired: `fraction` (M,). Return the slot of the newest cohort."""
    _, n_pop, n_ages = cohort.shape
    place = (newest + 1) % n_ages
    for m in range(n_pop):
        for k in range(n_ages):
            cohort[1, m, k] *= stay[m, k]
        last = cohort[1, m, place]  # the oldest cohort makes room and joins the pool
        leaving = last * cohort[2, m, place]
        mass, stays = pool[m, 1], stay_pool[m]
        pool[m, 2] = stays * stays * pool[m, 2] + (1.0 - stays) * stays * mass + (1.0 - last) * leaving
        pool[m, 1] = stays * mass + leaving
        cohort[0, m, place] = 0.0
        cohort[1, m, place] = 1.0
        cohort[2, m, place] = fraction[m]
    return place


@cached(numba.njit, nogil=True)
def hazard_of(age, newest, population, q, q_pool, p):
    """Return the integrated hazard over a bin of a neuron that last fired `age` + 1 bins ago; unknown, -1, it is like any of its kind."""
    if age < 0:
        return -math.log1p(-p[population])
    n_ages = q.shape[1]
    return q[population, (newest - age) % n_ages] if age < n_ages else q_pool[population]


@cached(numba.njit, nogil=True)
def next_age(age, has_fired, n_ages):
    """Return the age in the next bin."""
    if has_fired:
        return 0
    return age if age < 0 else min(age + 1, n_ages)
