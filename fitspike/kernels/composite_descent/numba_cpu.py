"""Coordinate descent that touches a column of the Hessian only where a weight moves."""

from __future__ import annotations

import math

import numba
import numpy as np

from fitspike.kernels.compiling import cached


@cached(numba.njit, nogil=True)
def composite_minimum(
    matrix, place, scale, diagonal, gradient, weights, sparsity, group_size, low, high, tolerance, max_sweeps
):  # fmt: skip
    """Return the minimum; see `fitspike.kernels.composite_descent.composite_minimum`."""
    n = weights.size
    x = weights.copy()
    slope = gradient.copy()  # of the quadratic at x
    curvature = np.empty(n)
    for i in range(n):
        curvature[i] = max(scale * matrix[place[i], place[i]] + diagonal[i], 1e-300)
    i = 0
    while i < n:
        size = group_size[i]
        if size > 1:
            block = np.empty((size, size))
            for a in range(size):
                for b in range(size):
                    block[a, b] = scale * matrix[place[i + a], place[i + b]]
                block[a, a] += diagonal[i + a]
            curvature[i : i + size] = max(np.linalg.eigvalsh(block)[-1], 1e-300)
        i += size
    for _ in range(max_sweeps):
        decrease = 0.0
        i = 0
        while i < n:
            size = group_size[i]
            if size == 1:
                target = x[i] - slope[i] / curvature[i]
                threshold = sparsity[i] / curvature[i]
                new = min(max(math.copysign(max(abs(target) - threshold, 0.0), target), low[i]), high[i])
                move = new - x[i]
                if move != 0.0:
                    decrease += 0.5 * curvature[i] * move * move
                    x[i] = new
                    _move(matrix, place, scale, diagonal, slope, i, move)
            else:
                target_of = np.empty(size)
                norm = 0.0
                for a in range(size):
                    inside = min(max(x[i + a] - slope[i + a] / curvature[i + a], low[i + a]), high[i + a])
                    target_of[a] = inside
                    norm += inside**2
                norm = math.sqrt(norm)
                kept = max(1.0 - sparsity[i] / curvature[i] / norm, 0.0) if norm > 0 else 0.0
                moves = kept * target_of - x[i : i + size]
                for a in range(size):
                    if moves[a] != 0.0:
                        decrease += 0.5 * curvature[i] * moves[a] * moves[a]
                        x[i + a] += moves[a]
                        _move(matrix, place, scale, diagonal, slope, i + a, moves[a])
            i += size
        if decrease < tolerance:
            break
    return x


@cached(numba.njit, nogil=True)
def _move(matrix, place, scale, diagonal, slope, i, move):
    """Bring the slope of the quadratic up to date after weight i has moved."""
    row = matrix[place[i]]
    factor = scale * move
    for j in range(slope.size):
        slope[j] += factor * row[place[j]]
    slope[i] += diagonal[i] * move
