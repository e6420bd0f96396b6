"""Minimum of a quadratic plus sparsity penalties and bounds, by coordinate descent."""

from __future__ import annotations

import numpy as np

from fitspike.kernels.dispatch import choose


def composite_minimum(
    matrix: np.ndarray,
    place: np.ndarray,
    scale: float,
    diagonal: np.ndarray,
    gradient: np.ndarray,
    weights: np.ndarray,
    sparsity: np.ndarray,
    group_size: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    *,
    tolerance: float,
    max_sweeps: int = 500,
    backend: str = "auto",
) -> np.ndarray:
    """Return the x that minimises gradient . (x - weights) + (x - weights)' H (x - weights) / 2 + penalty(x) within low <= x <= high.

    H = scale * matrix[place, place] + diag(diagonal). With group_size 1 the penalty is sparsity_i |x_i| (Friedman, Hastie, Tibshirani
    2010, J. Stat. Softw. 33:1, Eq. 5). A run of group_size_i = m > 1 equal entries is one group: sparsity * the norm of its m weights; its
    own block of H is replaced by its largest eigenvalue in each step (Qin, Scheinberg, Goldfarb 2013, Math. Program. Comput. 5:143).

    Parameters
    ----------
    matrix : ndarray, (n_features, n_features), shared between problems
    place : ndarray of int, (n_weights,)
        Which feature each weight belongs to.
    sparsity, diagonal, gradient, weights : ndarray, (n_weights,)
    group_size : ndarray of int, (n_weights,)
    low, high : ndarray, (n_weights,)
        Within a group each bound is 0 or infinite: a sign, for which moving into the bounds and then shrinking is the proximal step.
    tolerance : float
        Sweeps end when one lowers the objective by less.
    """
    run = choose("composite_descent", backend, device="cpu").load()
    floats = (np.ascontiguousarray(a, dtype=np.float64) for a in (diagonal, gradient, weights, sparsity))
    return run(
        np.ascontiguousarray(matrix, dtype=np.float64),
        np.ascontiguousarray(place, dtype=np.int64),
        float(scale),
        *floats,
        np.ascontiguousarray(group_size, dtype=np.int64),
        np.ascontiguousarray(low, dtype=np.float64),
        np.ascontiguousarray(high, dtype=np.float64),
        float(tolerance),
        int(max_sweeps),
    )
