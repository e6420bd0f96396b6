"""Standard errors of a coupled GLM's weights from the observed information at the optimum."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve, eigh

from fitspike.models.glm_information import sampled_information
from fitspike.models.glm_problem import Problem
from fitspike.rng import Stream

_LIMIT_S, _LIMIT_SAMPLED_S = 20.0, 60.0  # rough costs on one core up to which "auto" takes all bins, or a sample
_SAMPLES_PER_WEIGHT = 50
_S_PRODUCT = 1.5e-11  # seconds per multiply-add of a float32 matrix product
_COVARIANCE_VALUES = 2e7
_LEAST_INFORMATION = 1e-6  # of the largest; a weight with less is not determined by the data
_LEAST_CURVATURE = {"float64": 1e-9, "float32": 1e-6}  # of the largest, for weights of equal information: below is rounding
_LEAST_SHARE = 1e-4  # of an undetermined direction that makes a weight undetermined


@dataclass(frozen=True, eq=False)
class Errors:
    """standard_error (n_neurons, n_weights), inf where the data say nothing and NaN for weights that are not estimated.

    coupling_covariance (post, pre, basis, basis) is each pair's own block of the covariance, or None when too large. `note` says how.
    """

    standard_error: np.ndarray
    coupling_covariance: np.ndarray | None
    note: str


def standard_errors(problem: Problem, rows: np.ndarray, wanted: bool | str) -> Errors:
    """Return standard errors: square roots of the diagonal of (observed information + ridge)^-1 per target neuron.

    Without a ridge this is the usual asymptotic covariance of the maximum likelihood estimate (Truccolo et al. 2005, Appendix); with one
    it is the covariance of the Gaussian (Laplace) posterior under the corresponding prior. Weights that a sparsity penalty or a sign
    bound holds at 0 are taken as fixed. If all bins would take too long, the information comes from a sample of them, whose errors are a
    few percent.
    """
    layout = problem.layout
    n, n_weights = rows.shape
    n_coupling = layout.coupling.n_basis if layout.coupling is not None else 0
    covariance = None
    if n_coupling and n * n * n_coupling**2 <= _COVARIANCE_VALUES:
        covariance = np.full((n, n, n_coupling, n_coupling), np.nan)
    error = np.full((n, n_weights), np.nan)
    is_held = layout.free & (rows == 0.0) & (layout.model.penalty != "l2" or layout.bounds() is not None)
    is_estimated = layout.free & ~is_held
    targets = np.flatnonzero(problem.n_spikes > 0)
    exact_s = problem.binned.n_bins_total * n_weights**2 * len(targets) * _S_PRODUCT
    if wanted is True or exact_s <= _LIMIT_S:
        note = "inverse of the observed information plus ridge"
        for first in range(0, len(targets), _per_block(n_weights)):
            block = targets[first : first + _per_block(n_weights)]
            dtype = problem.dtype if exact_s <= 2.0 else "float32"
            hessian = problem.newton_parts(rows[block], block, dtype=dtype)[2]
            for target, matrix in zip(block, hessian, strict=True):
                _put(error, covariance, layout, int(target), matrix, np.flatnonzero(is_estimated[target]), dtype)
        return Errors(error, covariance, note)
    n_samples = _SAMPLES_PER_WEIGHT * n_weights
    sampled_s = n_samples * n_weights**2 * len(targets) * _S_PRODUCT
    if sampled_s <= _LIMIT_SAMPLED_S:
        note = (
            f"inverse of the information on a sample of {n_samples} bins per neuron, plus ridge (all bins would take about {exact_s:.0f} s)"
        )
        information = sampled_information(problem, rows[targets], targets, n_samples, Stream(0, "standard errors"))
        for target, (matrix, worth) in zip(targets, information, strict=True):
            keep = np.flatnonzero(is_estimated[target])
            # The inverse of a matrix from m samples is too large by m / (m - p) on average.
            shrink = max(1.0 - len(keep) / max(worth, 1.0), 0.1)
            _put(error, covariance, layout, int(target), matrix / shrink + np.diag(problem.ridge[target]), keep, "float32")
        return Errors(error, covariance, note)
    note = f"left out: exact ones would take about {exact_s:.0f} s. Set standard_errors=True to compute them anyway"
    return Errors(error, None, note)


def _per_block(n_weights: int) -> int:
    """Return how many targets' Hessians are held at once."""
    return max(1, int(3e7 // n_weights**2))


def _put(
    error: np.ndarray, covariance: np.ndarray | None, layout, target: int, information: np.ndarray, keep: np.ndarray, dtype: str
) -> None:
    """Invert one target's information, summed in `dtype`, over its estimated weights and put the results in place."""
    diagonal = np.diag(information)[keep]
    is_known = diagonal > _LEAST_INFORMATION * diagonal.max(initial=0.0)
    error[target, keep] = np.inf
    at = keep[is_known]
    scale = 1.0 / np.sqrt(np.diag(information)[at])
    matrix = information[np.ix_(at, at)] * scale[:, None] * scale[None, :]
    inverse = _inverse(matrix, _LEAST_CURVATURE[dtype]) * scale[:, None] * scale[None, :]
    error[target, at] = np.sqrt(np.diag(inverse))
    if covariance is None:
        return
    term, n_basis = layout.terms["coupling"], covariance.shape[2]
    whole = np.full((error.shape[1], error.shape[1]), np.nan)
    whole[np.ix_(at, at)] = inverse
    columns = term.start + np.arange(layout.n_neurons)[:, None] * n_basis + np.arange(n_basis)
    covariance[target] = whole[columns[:, :, None], columns[:, None, :]]


def _inverse(matrix: np.ndarray, least: float) -> np.ndarray:
    """Return the inverse of an information matrix of unit diagonal, inf in the rows and columns of weights that it does not determine.

    Weights whose features depend on each other linearly (indicators of every state beside a bias) are determined only in part: along
    some directions the curvature is below `least` times the largest. A weight that has no share in those keeps its variance.
    """
    try:
        inverse = cho_solve(cho_factor(matrix + 1e-10 * np.eye(len(matrix)), lower=True), np.eye(len(matrix)))
        if np.diag(inverse).max(initial=0.0) < _LEAST_SHARE / least:
            return inverse
    except LinAlgError:
        pass
    curvature, direction = eigh(matrix)
    is_lost = curvature < least * curvature[-1]
    kept = direction[:, ~is_lost]
    inverse = (kept / curvature[~is_lost]) @ kept.T
    is_unknown = (direction[:, is_lost] ** 2).sum(axis=1) > _LEAST_SHARE
    inverse[is_unknown], inverse[:, is_unknown] = np.inf, np.inf
    return inverse
