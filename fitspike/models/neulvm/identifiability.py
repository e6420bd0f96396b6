"""What the data determine: standard errors and unidentifiable directions from the marginal information."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fitspike.kernels.mesoscopic import Constants
from fitspike.models.neulvm.latents import Trial, joint_objective
from fitspike.models.neulvm.populations import FreeSet

RELATIVE_SD_LIMIT = 0.3
_STEP = 1e-4


@dataclass(frozen=True, eq=False)
class Information:
    """sd (n_free,): standard errors of the free vector (of logarithms where it holds logarithms), NaN where undetermined.

    directions: unidentifiable combinations, each (sd, weights (n_free,)); a log-weight or log-time of sd above 0.3 counts as one.
    """

    matrix: np.ndarray
    sd: np.ndarray
    directions: tuple[tuple[float, np.ndarray], ...]


def marginal_information(
    vector: np.ndarray, free: FreeSet, base: Constants, trials: Sequence[Trial], paths: Sequence[np.ndarray]
) -> Information:
    """Return the marginal information of the free vector by Louis' identity: mean joint Hessian minus covariance of path scores.

    I(theta) = E[-d2 log p(Z, Y)] - Cov[d log p(Z, Y)], Z from the smoothing distribution   (Louis 1982, J. R. Stat. Soc. B 44:226)

    paths: per trial (n_paths, n_bins, n_populations); some fifty are needed for the covariance.
    """
    n = len(vector)
    hessian = np.zeros((n, n))
    for i in range(n):
        ends = []
        for sign in (1.0, -1.0):
            moved = vector.copy()
            moved[i] += sign * _STEP
            ends.append(joint_objective(moved, free, base, trials, paths)[1])
        hessian[i] = (ends[0] - ends[1]) / (2 * _STEP)
    matrix = (hessian + hessian.T) / 2
    for trial, several in zip(trials, paths, strict=True):
        scores = np.array([joint_objective(vector, free, base, [trial], [path[None]])[1] for path in several])
        matrix -= np.cov(scores.T).reshape(n, n)
    values, vectors = np.linalg.eigh(matrix)
    spread = np.where(values > 0, 1 / np.sqrt(np.maximum(values, 1e-300)), np.inf)
    flagged = tuple((float(s), vectors[:, k]) for k, s in enumerate(spread) if s > RELATIVE_SD_LIMIT)
    usable = values > 0
    variance = (vectors[:, usable] ** 2 / values[usable]).sum(axis=1)
    is_hit = (np.abs(vectors[:, ~usable]) > 0.1).any(axis=1)
    return Information(matrix, np.where(is_hit, np.nan, np.sqrt(variance)), flagged)
