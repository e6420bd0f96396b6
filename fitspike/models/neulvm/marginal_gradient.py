"""The top of the marginal likelihood, and standard errors, from its gradient at some points around a first estimate.

By Fisher's identity the gradient of log p(spikes) is the mean, over population activities drawn from their distribution given the spikes,
of the gradient of a joint density. There are two such gradients: with the activity held fixed, and with its innovations held fixed while
the activity moves with the constants. Both have the same mean, but the first is precise for some directions and the second for others;
EM, which uses the first alone, hardly moves along the rest, for which the activity given the constants says almost all. Here both are
measured, with fresh particles, at points scattered around an estimate, and one line with the slope -information is fitted to all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from fitspike.kernels.mesoscopic import log_prob
from fitspike.models.neulvm.latents import Problem, draw_paths
from fitspike.rng import Stream

STUDENT_NU = 4.0
"""Degrees of freedom of the gradients' noise: a path that switches at another time has a gradient far off."""
LARGEST_RELATIVE_SD = 0.3
"""A direction less certain than this is reported as undetermined, and the estimate is not moved along it."""
_EM_STEPS = 60


@dataclass
class Gradients:
    """Gradients at some points. points, fixed, held (n, n_free); log_likelihood (n,); moments per piece: sum of means and of squares."""

    points: np.ndarray
    fixed: np.ndarray
    held: np.ndarray
    log_likelihood: np.ndarray
    moments: list[np.ndarray] = field(default_factory=list)

    @classmethod
    def none(cls, n_free: int) -> Gradients:
        """Return no gradients yet."""
        return cls(np.zeros((0, n_free)), np.zeros((0, n_free)), np.zeros((0, n_free)), np.zeros(0))

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Return all as a flat mapping of arrays, for a checkpoint."""
        arrays = {name: getattr(self, name) for name in ("points", "fixed", "held", "log_likelihood")}
        return arrays | {f"moments_{k}": one for k, one in enumerate(self.moments)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Gradients:
        """Return the gradients of `to_arrays`."""
        n = sum(name.startswith("moments_") for name in arrays)
        main = (arrays[name] for name in ("points", "fixed", "held", "log_likelihood"))
        return cls(*main, [arrays[f"moments_{k}"].copy() for k in range(n)])


@dataclass(frozen=True, eq=False)
class Estimate:
    """vector (n_free,): the top. information (n_free, n_free). sd (n_free,): standard errors, Monte-Carlo error included, NaN where
    undetermined; monte_carlo_sd (n_free,): that part alone. directions: combinations of the free values that the data hardly determine,
    each (sd, weights (n_free,)).
    """

    vector: np.ndarray
    information: np.ndarray
    sd: np.ndarray
    monte_carlo_sd: np.ndarray
    directions: tuple[tuple[float, np.ndarray], ...]


def measure(problem: Problem, points: np.ndarray, streams: Sequence[Stream], *, n_particles: int, threads: int) -> Gradients:
    """Return both gradients at points (n, n_free), each from particles of its own stream."""

    def one(number: int) -> tuple[np.ndarray, np.ndarray, float, list[np.ndarray]]:
        vector = points[number]
        constants = problem.free.constants(vector, problem.base)
        sums, moments, total = np.zeros((2, len(vector))), [], 0.0
        drawn = draw_paths(problem, constants, streams[number], n_particles=n_particles)
        for piece, (log_likelihood, path, mean, sd) in zip(problem.pieces, drawn, strict=True):
            total += log_likelihood
            moments.append(np.stack([mean, sd**2 + mean**2]))
            for row, hold in enumerate((False, True)):
                _, _, gradient = log_prob(
                    path,
                    piece.spikes,
                    problem.membership,
                    piece.drive_per_s,
                    constants,
                    first_bin=piece.n_history,
                    hold_innovations=hold,
                )
                assert gradient is not None
                sums[row] += problem.free.chain(vector, vars(gradient))
        return sums[0], sums[1], total, moments

    with ThreadPoolExecutor(max(1, threads)) as pool:
        found = list(pool.map(one, range(len(points))))
    fixed, held, value = (np.array([row[k] for row in found]) for k in range(3))
    moments = [np.sum([row[3][k] for row in found], axis=0) for k in range(len(problem.pieces))]
    return Gradients(points, fixed, held, value, moments)


def joined(first: Gradients, second: Gradients) -> Gradients:
    """Return the gradients of both; moments are added."""
    both = (np.concatenate([getattr(first, name), getattr(second, name)]) for name in ("points", "fixed", "held", "log_likelihood"))
    moments = [a + b for a, b in zip(first.moments, second.moments, strict=True)] if first.moments else second.moments
    return Gradients(*both, moments)


def fit_top(found: Gradients, scale: np.ndarray, centre: np.ndarray) -> Estimate:
    """Return where the gradients vanish: both are information (top - point) plus noise of one covariance, Student-t distributed.

    scale (n_free,) are the units in which directions are judged; centre (n_free,) is kept along directions that are not determined.
    """
    points = (found.points - centre) / scale
    gradients = np.concatenate([found.fixed * scale, found.held * scale], axis=1)  # (n, 2 n_free)
    usable = np.isfinite(gradients).all(axis=1)
    points, gradients = points[usable], gradients[usable]
    n, d = points.shape
    rows, columns = np.triu_indices(d)
    # A point's expected gradient (d,) is `design` (d, d + n_pairs) times [gradient at the centre, entries of the information].
    design = np.zeros((n, d, d + len(rows)))
    design[:, np.arange(d), np.arange(d)] = 1.0
    for k, (i, j) in enumerate(zip(rows, columns, strict=True)):
        design[:, i, d + k] -= points[:, j]
        if i != j:
            design[:, j, d + k] -= points[:, i]
    design = np.concatenate([design, design], axis=1)  # (n, 2 d, .)
    spread = 1.4826 * np.median(np.abs(gradients - np.median(gradients, axis=0)), axis=0)
    precision = np.diag(1.0 / np.maximum(spread, 1e-9) ** 2)
    weight = np.ones(n)
    for _ in range(_EM_STEPS):
        normal = np.einsum("k,kap,ab,kbq->pq", weight, design, precision, design, optimize=True)
        solution = np.linalg.lstsq(normal, np.einsum("k,kap,ab,kb->p", weight, design, precision, gradients, optimize=True), rcond=None)[0]
        residual = gradients - design @ solution
        distance = np.einsum("ka,ab,kb->k", residual, precision, residual)
        weight = (STUDENT_NU + 2 * d) / (STUDENT_NU + distance)
        precision = np.linalg.inv((residual * weight[:, None]).T @ residual / n + 1e-12 * np.eye(2 * d))
    information = np.zeros((d, d))
    information[rows, columns] = information[columns, rows] = solution[d:]
    values, vectors = np.linalg.eigh(information)
    # In these units every free value has a standard error of about 1 where things go well; see FreeSet.scale.
    least = (scale.min() / LARGEST_RELATIVE_SD) ** 2
    is_determined = values > least
    inverse = (vectors[:, is_determined] / values[is_determined]) @ vectors[:, is_determined].T
    noise = np.linalg.pinv(normal)[:d, :d]
    monte_carlo = np.einsum("ia,ab,ib->i", inverse, noise, inverse)
    is_hit = (np.abs(vectors[:, ~is_determined]) > 0.1).any(axis=1)
    sd = np.where(is_hit, np.nan, np.sqrt(np.diag(inverse) + monte_carlo)) * scale
    directions = tuple((1.0 / np.sqrt(max(value, 1e-12)), vectors[:, k]) for k, value in enumerate(values) if value <= least)
    return Estimate(
        centre + scale * (inverse @ solution[:d]),
        information / np.outer(scale, scale),
        sd,
        np.sqrt(monte_carlo) * scale,
        tuple((float(s) * float(scale.min()), w) for s, w in directions),
    )


@dataclass(frozen=True)
class ClimbSettings:
    """n_points: in a round; n_rounds: at most. A round starts where the last one ended, and all rounds near the end are used."""

    n_points: int = 16
    n_rounds: int = 2
    n_particles: int = 200
    threads: int = 1


def climb(
    problem: Problem,
    vector: np.ndarray,
    settings: ClimbSettings,
    stream: Stream,
    *,
    report: Callable[[int, Mapping[str, float]], None] = lambda step, metrics: None,
    done: Gradients | None = None,
    checkpoint: Callable[[int, Gradients], None] = lambda step, gradients: None,
    out_of_time: Callable[[], bool] = lambda: False,
) -> tuple[Estimate, Gradients]:
    """Return the estimate and all gradients that were measured; `done` are those of an interrupted climb with the same stream."""
    scale = problem.free.scale()
    n_points = max(settings.n_points, 2 * len(vector))
    n_points += n_points % 2
    found, estimate = done or Gradients.none(len(vector)), None
    centre, before, width = vector, vector, np.ones(len(vector))
    for number in range(settings.n_rounds):
        if out_of_time():
            break
        here = stream.child(f"round-{number}")
        offsets = here.child("points").numpy().standard_normal((n_points // 2, len(vector))) * width
        points = centre + np.concatenate([offsets, -offsets]) * scale
        points = np.clip(points, *np.array(problem.free.bounds(problem.base)).T)
        stop = (number + 1) * n_points
        while len(found.points) < stop:
            first = len(found.points) - number * n_points
            batch = range(first, min(first + max(4, 2 * settings.threads), n_points))
            streams = [here.child(f"point-{k}") for k in batch]
            new = measure(problem, points[list(batch)], streams, n_particles=settings.n_particles, threads=settings.threads)
            found = joined(found, new)
            checkpoint(len(found.points), found)
            report(len(found.points), {"log_likelihood": float(np.nanmean(new.log_likelihood))})
            if out_of_time():
                break
        if len(found.points) < stop:
            break
        if number and _is_worse(found.log_likelihood[stop - n_points : stop], found.log_likelihood[stop - 2 * n_points : stop - n_points]):
            centre = before  # the last move lowered the likelihood
            break
        estimate, before = fit_top(_first(found, stop), scale, centre), centre
        move = (estimate.vector - centre) / scale
        centre = centre + scale * np.clip(move, -4.0, 4.0)
        width = np.clip(np.nan_to_num(estimate.sd / scale, nan=1.0), 0.4, 3.0)
        if number + 1 >= 2 and (np.abs(move) < width).all():
            break
    if estimate is None:
        estimate = fit_top(found, scale, centre) if len(found.points) > 2 * len(vector) else _unknown(vector)
    return Estimate(centre, estimate.information, estimate.sd, estimate.monte_carlo_sd, estimate.directions), found


def _first(found: Gradients, n: int) -> Gradients:
    return Gradients(found.points[:n], found.fixed[:n], found.held[:n], found.log_likelihood[:n])


def _is_worse(now: np.ndarray, before: np.ndarray) -> bool:
    """Return whether log-likelihoods at the points of a round lie clearly below those of the round before."""
    error = np.sqrt(np.nanvar(now) / len(now) + np.nanvar(before) / len(before))
    return not np.nanmean(now) > np.nanmean(before) - 4.0 * error - 1.0


def _unknown(vector: np.ndarray) -> Estimate:
    nothing = np.full(len(vector), np.nan)
    return Estimate(vector, np.zeros((len(vector),) * 2), nothing, nothing, ())
