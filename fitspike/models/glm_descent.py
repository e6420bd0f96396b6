"""Minimisation of one convex objective per target neuron, all targets in the same passes over the data.

Every pass evaluates one trial point of each target that is still open. A target whose trial is good moves there and gets a new
direction, one whose trial is not tries a shorter step in the next pass, one that has converged drops out. No pass is spent on a line
search of its own. The whole state is a flat mapping of arrays, so that a fit resumed from it goes on bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np
from scipy.linalg import cho_solve

from fitspike.models.glm_metric import Metric, positive_factor, renewed
from fitspike.models.glm_parallel import in_threads
from fitspike.models.glm_problem import Problem
from fitspike.rng import Stream

_PASSES_PER_LOOK = 7
_SUFFICIENT = 1e-4  # Armijo's constant (Nocedal & Wright 2006, Numerical Optimization, 2nd ed., Algorithm 3.1)
_SMALLEST_STEP = 1e-6
_NOISE = {"float64": 1e-13, "float32": 3e-8}  # relative rounding error of an objective
_NEWTON_VALUES = 30_000_000  # entries of all Hessians held at once

State = dict[str, np.ndarray]
AfterPass = Callable[[int, Mapping[str, float], State], bool]


class Direction(Protocol):
    """How a method evaluates trial points and turns gradients into directions."""

    def prepare(self, state: State) -> None:
        """Do what is due before the next pass."""
        ...

    def evaluate(self, rows: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return objective and gradient of the targets numbered `at`."""
        ...

    def direction(self, state: State, at: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return directions (len(at), n_weights), the objective's slope along each, and the decrease that a quadratic model expects."""
        ...


class QuasiNewton:
    """L-BFGS (Nocedal & Wright 2006, Algorithm 7.4) with a target's metric as initial inverse Hessian."""

    def __init__(
        self, problem: Problem, targets: np.ndarray, metric: Metric, stream: Stream, *, tolerance: np.ndarray, renewal_passes: float
    ) -> None:
        self.problem, self.targets, self.metric, self.stream = problem, targets, metric, stream
        self.tolerance, self.renewal_passes = tolerance, renewal_passes

    def restore(self, state: State) -> None:
        """Renew the metric as it had been renewed when `state` was stored."""
        for step in np.unique(state["renewed_at"][state["renewed_at"] > 0]):
            self._renew(np.flatnonzero(state["renewed_at"] == step), state, int(step))

    def prepare(self, state: State) -> None:
        """Renew the metric of slow targets now and then: where rates vary much the first one is a poor Hessian.

        A target is slow if, at the rate at which its expected decrease has shrunk since the last look, it needs more passes until it is
        below `tolerance` than a renewal costs, `renewal_passes`.
        """
        step, decrease = int(state["n_passes"][0]), state["decrement"]
        n_passes = step - int(state["last_look"][0])
        if self.metric.own is None or n_passes not in (1, _PASSES_PER_LOOK):
            return
        if n_passes > 1:
            with np.errstate(divide="ignore", invalid="ignore"):
                shrinkage = np.log(state["looked_at_decrement"] / decrease) / (n_passes - 1)
                n_left = np.log(decrease / self.tolerance) / np.maximum(shrinkage, 0.0)
            at = np.flatnonzero(state["is_open"] & ~(n_left <= self.renewal_passes))
            state["last_look"][0] = step
        state["looked_at_decrement"] = decrease.copy()
        if n_passes == 1 or not at.size:
            return
        state["renewed_at"][at] = step
        state["metric_rows"][at] = state["rows"][at]
        self._renew(at, state, step)

    def _renew(self, at: np.ndarray, state: State, step: int) -> None:
        renewed(self.problem, self.metric, state["metric_rows"][at], self.targets, at, self.stream.child(str(step)))

    def evaluate(self, rows: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return objective and gradient; see `Direction`."""
        objective, gradient = self.problem.evaluate(rows, self.targets[at])
        return objective, gradient * self.metric.free[at]

    def direction(self, state: State, at: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return directions, slopes and expected decreases; see `Direction`."""
        gradient = state["gradient"][at]
        steps, changes, n_pairs = state["pair_step"], state["pair_change"], state["n_pairs"][at]
        n_kept = len(steps)
        n_used = min(n_kept, int(n_pairs.max(initial=0)))
        vector, alpha = gradient.copy(), np.zeros((n_kept, len(at)))
        order = [(n_pairs - 1 - back) % n_kept for back in range(n_kept)]  # ring places, newest first
        curvature = np.zeros((n_kept, len(at)))
        for back in range(n_used):
            exists = back < n_pairs
            s, y = steps[order[back], at], changes[order[back], at]
            rho = curvature[back] = np.einsum("np,np->n", s, y)
            a = np.where(exists, np.einsum("np,np->n", s, vector) / np.where(exists, rho, 1.0), 0.0)
            alpha[back] = a
            vector -= a[:, None] * y
        newest_change = changes[order[0], at]
        mapped = self.metric.apply(newest_change, at)
        size = np.einsum("np,np->n", newest_change, mapped)
        scale = np.where((n_pairs > 0) & (size > 0), curvature[0] / np.where(size > 0, size, 1.0), 1.0)
        vector = scale[:, None] * self.metric.apply(vector, at)
        for back in range(n_used - 1, -1, -1):
            exists = back < n_pairs
            s, y, rho = steps[order[back], at], changes[order[back], at], curvature[back]
            b = np.where(exists, np.einsum("np,np->n", y, vector) / np.where(exists, rho, 1.0), 0.0)
            vector += np.where(exists, alpha[back] - b, 0.0)[:, None] * s
        decrease = np.einsum("np,np->n", gradient, vector)
        return -vector, -decrease, 0.5 * decrease


class Newton:
    """Newton's method with the exact Hessian of every target."""

    def __init__(self, problem: Problem, targets: np.ndarray) -> None:
        self.problem, self.targets = problem, targets
        self.free = problem.layout.free[targets]
        self._solved: dict[int, np.ndarray] = {}

    def prepare(self, state: State) -> None:
        """Do nothing; see `Direction`."""

    def evaluate(self, rows: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return objective and gradient; the Newton step of each target is kept for `direction`.

        Where the Hessian overflows, the objective is infinite, so that the trial point is refused.
        """
        objective, gradient = np.zeros(len(at)), np.zeros(rows.shape)
        size = max(1, _NEWTON_VALUES // rows.shape[1] ** 2)
        for first in range(0, len(at), size):
            part = slice(first, first + size)
            objective[part], gradient[part], hessian = self.problem.newton_parts(rows[part], self.targets[at[part]])
            gradient[part] *= self.free[at[part]]
            is_finite = np.isfinite(hessian).all(axis=(1, 2))
            objective[part][~is_finite] = np.inf

            def solve(i: int, first=first, hessian=hessian, is_finite=is_finite) -> np.ndarray:
                if not is_finite[i]:
                    return np.full(hessian.shape[1], np.nan)
                return newton_step(hessian[i], gradient[first + i], self.free[at[first + i]])

            steps = in_threads(solve, range(len(hessian)), self.problem.threads)
            self._solved.update(zip(at[part].tolist(), steps, strict=True))
        return objective, gradient

    def direction(self, state: State, at: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return directions, slopes and expected decreases; see `Direction`."""
        step = np.stack([self._solved[int(number)] for number in at])
        decrease = np.einsum("np,np->n", state["gradient"][at], step)
        return -step, -decrease, 0.5 * decrease


def newton_step(hessian: np.ndarray, gradient: np.ndarray, free: np.ndarray) -> np.ndarray:
    """Return H^-1 g over the free weights; directions without any curvature get jitter, in which the gradient is 0 too."""
    keep = np.flatnonzero(free)
    matrix = hessian[np.ix_(keep, keep)]
    scale = 1.0 / np.sqrt(np.maximum(np.diag(matrix), 1e-300))
    matrix = matrix * scale[:, None] * scale[None, :]
    step = np.zeros(len(gradient))
    step[keep] = scale * cho_solve(positive_factor(matrix, 1e-13), scale * gradient[keep])
    return step


def start_state(rows: np.ndarray, n_pairs: int) -> State:
    """Return the state before the first pass. Per target: weights, objective, gradient, direction, its slope, step, open or not."""
    n, n_weights = rows.shape
    return {
        "rows": rows.astype(np.float64).copy(),
        "objective": np.full(n, np.inf),
        "gradient": np.zeros((n, n_weights)),
        "direction": np.zeros((n, n_weights)),
        "slope": np.zeros(n),
        "step": np.zeros(n),
        "decrement": np.full(n, np.inf),
        "is_open": np.ones(n, dtype=bool),
        "is_stalled": np.zeros(n, dtype=bool),
        "n_pairs": np.zeros(n, dtype=np.int64),
        "pair_step": np.zeros((n_pairs, n, n_weights)),
        "pair_change": np.zeros((n_pairs, n, n_weights)),
        "n_passes": np.zeros(1, dtype=np.int64),
        "metric_rows": np.zeros((n if n_pairs else 0, n_weights)),
        "renewed_at": np.zeros(n, dtype=np.int64),
        "last_look": np.zeros(1, dtype=np.int64),
        "looked_at_decrement": np.full(n, np.inf),
    }


def descend(method: Direction, state: State, tolerance: np.ndarray, dtype: str, after_pass: AfterPass) -> State:
    """Run passes until every target's expected decrease is below its tolerance (nats), or `after_pass` returns True; return the state.

    `after_pass(n_passes, metrics, state)` reports, stores and may stop. A target closes as stalled when no step lowers its objective
    by more than rounding, or its direction is not finite; one whose expected decrease is below rounding, and no longer shrinks, has
    converged whatever the tolerance.
    """
    n_kept = len(state["pair_step"])
    while state["is_open"].any():
        method.prepare(state)
        at = np.flatnonzero(state["is_open"])
        trial = state["rows"][at] + state["step"][at, None] * state["direction"][at]
        with np.errstate(over="ignore", invalid="ignore"):  # far trial points overflow, and are refused
            objective, gradient = method.evaluate(trial, at)
        before, slope, step = state["objective"][at], state["slope"][at], state["step"][at]
        with np.errstate(invalid="ignore"):
            allowed = before + _SUFFICIENT * step * slope + _NOISE[dtype] * np.abs(before)
            is_good = np.isfinite(objective) & (np.isinf(before) | (objective <= allowed)) & np.isfinite(gradient).all(axis=1)
        good = at[is_good]
        if good.size:
            if n_kept:
                _add_pairs(state, good, trial[is_good] - state["rows"][good], gradient[is_good] - state["gradient"][good], before[is_good])
            state["rows"][good], state["objective"][good], state["gradient"][good] = trial[is_good], objective[is_good], gradient[is_good]
            with np.errstate(over="ignore", invalid="ignore"):
                direction, slope, decrement = method.direction(state, good)
            is_lost = ~np.isfinite(decrement)
            is_rounding = (decrement <= _NOISE["float64"] * np.abs(objective[is_good])) & (decrement > 0.25 * state["decrement"][good])
            state["direction"][good], state["slope"][good], state["decrement"][good] = direction, slope, decrement
            state["step"][good] = 1.0
            state["is_open"][good], state["is_stalled"][good] = (decrement > tolerance[good]) & ~is_rounding & ~is_lost, is_lost
        bad = at[~is_good]
        if bad.size:
            _shorten(state, bad, objective[~is_good], before[~is_good])
        state["n_passes"] += 1
        metrics = {
            "objective": float(state["objective"].sum()),
            "decrement": float(state["decrement"].max(initial=0.0)),
            "n_open": float(state["is_open"].sum()),
        }
        if after_pass(int(state["n_passes"][0]), metrics, state):
            break
    return state


def _add_pairs(state: State, at: np.ndarray, step: np.ndarray, change: np.ndarray, before: np.ndarray) -> None:
    """Remember each target's last step and change of gradient, where the curvature along it is positive."""
    curvature = np.einsum("np,np->n", step, change)
    with np.errstate(over="ignore", invalid="ignore"):
        size = np.einsum("np,np->n", step, step) * np.einsum("np,np->n", change, change)
    fresh = np.isfinite(before) & (curvature > 1e-10 * np.sqrt(size))
    place = state["n_pairs"][at[fresh]] % len(state["pair_step"])
    state["pair_step"][place, at[fresh]], state["pair_change"][place, at[fresh]] = step[fresh], change[fresh]
    state["n_pairs"][at[fresh]] += 1


def _shorten(state: State, at: np.ndarray, objective: np.ndarray, before: np.ndarray) -> None:
    """Shorten the step to the minimum of the parabola through what is known, within [0.1, 0.5] of it."""
    step, slope = state["step"][at], state["slope"][at]
    excess = objective - before - step * slope
    with np.errstate(invalid="ignore", divide="ignore"):
        best = -slope * step**2 / (2.0 * excess)
    state["step"][at] = np.where(np.isfinite(best), np.clip(best, 0.1 * step, 0.5 * step), 0.1 * step)
    stuck = at[state["step"][at] < _SMALLEST_STEP]
    state["is_open"][stuck], state["is_stalled"][stuck] = False, True
