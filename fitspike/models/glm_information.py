"""The information matrix of a target neuron from a sample of its bins, drawn mostly where it is likely to fire."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fitspike.kernels.point_process import FilterState, likelihood_gradient
from fitspike.models.glm_parallel import in_threads
from fitspike.models.glm_problem import Problem
from fitspike.rng import Stream

_RANGE_VALUES = 4_000_000  # bins times targets whose expected counts are held at once
_ROW_VALUES = 1_500_000  # bins times weights of one part of a design


def sampled_information(
    problem: Problem, rows: np.ndarray, targets: np.ndarray, n_samples: int, stream: Stream
) -> Iterator[tuple[np.ndarray, float]]:
    """Yield each target's information matrix (n_weights, n_weights) without ridge, and how many equal samples it is worth.

    The information is sum_t w_t x_t x_t' with w the expected count (Poisson) or variance (Bernoulli). Bin t is drawn with probability
    p_t = n_samples * (w_t / (2 sum w) + 1 / (2 n_bins)), at most 1, and counts w_t / p_t: unbiased, with the weights of drawn bins nearly
    equal. Drawing is systematic: one random offset per target.
    """
    sample = _draw(problem, rows, targets, n_samples, stream)

    def of_one(number: int) -> tuple[np.ndarray, float]:
        return _information(problem, int(targets[number]), *sample[number])

    for first in range(0, len(targets), problem.threads):  # few at once, each is a matrix of all weights
        yield from in_threads(of_one, range(first, min(first + problem.threads, len(targets))), problem.threads)


def _information(problem: Problem, target: int, bins: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, float]:
    """Return one target's information matrix from weighted bins, and how many equal samples they are worth."""
    n_weights = problem.layout.n_weights
    information = np.zeros((n_weights, n_weights))
    size = max(256, _ROW_VALUES // (n_weights + problem.layout.n_neurons))
    for first in range(0, len(bins), size):
        part = slice(first, first + size)
        design = problem.design(problem.features(bins[part], dtype="float32"), target)
        design *= np.sqrt(weight[part], dtype=np.float32)[:, None]
        information += design.T @ design
    return information, float(weight.sum() ** 2 / max((weight**2).sum(), 1e-300))


def _draw(problem: Problem, rows: np.ndarray, targets: np.ndarray, n_samples: int, stream: Stream) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the drawn bins of each target and their weights."""
    binned, n = problem.binned, len(targets)
    offset = stream.numpy().random(n)
    total = np.maximum(problem.n_spikes[targets], 1.0)  # at the optimum expected and observed counts are equal
    bins: list[list[np.ndarray]] = [[] for _ in range(n)]
    weights: list[list[np.ndarray]] = [[] for _ in range(n)]
    filters, state = problem.filters(rows, targets), FilterState()
    n_covariates = problem.layout.n_covariates
    length = max(1024, _RANGE_VALUES // n)
    for first in range(0, binned.n_bins_total, length):
        span = range(first, min(first + length, binned.n_bins_total))
        base = np.zeros((len(span), n), dtype=problem.dtype)
        if n_covariates:
            base = problem.shared.drive(rows[:, 1 : 1 + n_covariates], span)
        options = {"emission": problem.emission, "dtype": problem.dtype, "threads": problem.threads, "backend": problem.backend}
        part = likelihood_gradient(problem.events, span, targets, rows[:, 0], filters, base=base, state=state, **options)
        expected = np.maximum(problem.dense_counts(span, targets) - part.residual, 0.0)
        if problem.emission == "bernoulli":
            expected *= 1.0 - np.minimum(expected, 1.0)
        scored = binned.scored[span.start : span.stop, None]
        chance = np.minimum(n_samples * (0.5 * expected / total + 0.5 / max(binned.n_scored_bins, 1)), 1.0) * scored
        passed = np.cumsum(chance, axis=0) + offset
        is_drawn = np.floor(passed) > np.floor(passed - chance)
        offset = passed[-1] % 1.0
        for i in range(n):
            at = np.flatnonzero(is_drawn[:, i] & (chance[:, i] > 0))
            bins[i].append(span.start + at)
            weights[i].append(expected[at, i] / chance[at, i])
    return [(np.concatenate(b), np.concatenate(w)) for b, w in zip(bins, weights, strict=True)]
