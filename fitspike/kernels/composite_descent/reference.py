"""The composite minimum by accelerated proximal gradient steps, with nothing shared with coordinate descent."""

from __future__ import annotations

import numpy as np


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
    tolerance: float,
    max_sweeps: int,
) -> np.ndarray:
    """Return the minimum; see `fitspike.kernels.composite_descent.composite_minimum`. Beck & Teboulle 2009, SIAM J. Imaging Sci. 2:183."""
    hessian = scale * matrix[np.ix_(place, place)] + np.diag(diagonal)
    longest = float(np.linalg.eigvalsh(hessian)[-1]) if len(weights) else 1.0
    x, y, momentum = weights.copy(), weights.copy(), 1.0
    for _ in range(100 * max_sweeps):
        new = _prox(y - (gradient + hessian @ (y - weights)) / longest, sparsity / longest, group_size, low, high)
        following = 0.5 * (1.0 + np.sqrt(1.0 + 4.0 * momentum**2))
        y = new + (momentum - 1.0) / following * (new - x)
        change = longest * float((new - x) @ (new - x))
        x, momentum = new, following
        if change < 1e-6 * tolerance:
            break
    return x


def _prox(x: np.ndarray, threshold: np.ndarray, group_size: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    result, i = x.copy(), 0
    while i < len(x):
        size = int(group_size[i])
        if size == 1:
            result[i] = np.clip(np.sign(x[i]) * max(abs(x[i]) - threshold[i], 0.0), low[i], high[i])
        else:
            inside = np.clip(x[i : i + size], low[i : i + size], high[i : i + size])
            norm = float(np.linalg.norm(inside))
            result[i : i + size] = inside * (max(1.0 - threshold[i] / norm, 0.0) if norm > 0 else 0.0)
        i += size
    return result
