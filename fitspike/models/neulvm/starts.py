"""Where a fit starts: first estimates from smoothed spikes, of which the one with the highest marginal likelihood is taken."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from fitspike.kernels.mesoscopic import Constants
from fitspike.models.neulvm.latents import Problem, draw_paths, maximise_joint
from fitspike.rng import Stream

N_PARTICLES = 100
M_STEP_ITERATIONS = 60


@dataclass(frozen=True, eq=False)
class Start:
    """A first estimate. order (n_populations,): which cluster of neurons is which population; smoothing_s: of the spikes.

    method: "M-step on smoothed spikes", "the same from a random start", or "as given".
    """

    problem: Problem
    vector: np.ndarray
    smoothing_s: float
    order: tuple[int, ...]
    log_likelihood: float
    method: str


def role_orders(constants: Constants, pattern: np.ndarray) -> list[tuple[int, ...]]:
    """Return the ways to give clusters the roles of populations, without those that differ only in the names of equal populations.

    An order is a tuple: cluster i has the role order[i].
    """
    found: dict[bytes, tuple[int, ...]] = {}
    for order in itertools.permutations(range(len(pattern))):
        each = list(order)
        values = [getattr(constants, name)[each] for name in ("tau_s", "rest", "threshold", "tau_syn_s", "n_neurons")]
        found.setdefault(np.concatenate([*values, pattern[np.ix_(each, each)].ravel()]).tobytes(), order)
    return list(found.values())


def candidate_starts(
    problem: Problem,
    vector: np.ndarray,
    stream: Stream,
    *,
    smoothings_s: Sequence[float],
    orders: Sequence[tuple[int, ...]],
    n_jittered: int,
    threads: int,
) -> list[Start]:
    """Return all first estimates, the best first.

    Each is an M-step on spikes smoothed with one of `smoothings_s`, with one order of the roles, and from `vector` or one of `n_jittered`
    random vectors around it: the M-step of couplings alone has one optimum, that of more constants may have several. `vector` as given
    competes too, since an M-step can end in a corner where the populations fire as fast as they can.
    """
    n_tries = n_jittered + 2
    tries = [(smoothing_s, order, k) for smoothing_s in smoothings_s for order in orders for k in range(n_tries)]
    methods = ("as given", "M-step on smoothed spikes", *["the same from a random start"] * n_jittered)

    def one(number: int) -> Start:
        smoothing_s, order, k = tries[number]
        here = stream.child(f"start-{number}")
        membership = np.asarray(order)[problem.membership] if len(orders) > 1 else problem.membership
        candidate = problem.with_membership(membership, smoothing_s)
        found = vector if k < 2 else vector + problem.free.wide() * here.child("jitter").numpy().standard_normal(len(vector))
        found = np.clip(found, *np.array(problem.free.bounds(problem.base)).T)
        if k:
            guesses = [piece.guess[None] for piece in candidate.pieces]
            found, _ = maximise_joint(found, candidate, guesses, max_iterations=M_STEP_ITERATIONS)
        drawn = draw_paths(candidate, problem.free.constants(found, problem.base), here.child("filter"), n_particles=N_PARTICLES)
        value = float(np.sum([piece[0] for piece in drawn]))
        return Start(candidate, found, smoothing_s, order, value if np.isfinite(value) else -np.inf, methods[k])

    with ThreadPoolExecutor(max(1, threads)) as pool:
        starts = list(pool.map(one, range(len(tries))))
    return sorted(starts, key=lambda start: -start.log_likelihood)


def start_table(starts: Sequence[Start], names: Sequence[str]) -> list[dict[str, object]]:
    """Return a JSON-able row per start, in the given order."""
    return [
        {
            "method": start.method,
            "smoothing_ms": start.smoothing_s * 1e3,
            "populations": [names[role] for role in start.order],
            "log_likelihood": start.log_likelihood,
            "vector": [float(value) for value in start.vector],
            "taken": number == 0,
        }
        for number, start in enumerate(starts)
    ]
