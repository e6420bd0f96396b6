"""Minimum of a quadratic plus sparsity and sign bounds: coordinate descent against its reference, and both against scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

from fitspike.kernels.composite_descent import composite_minimum

N, GROUP = 13, 3
SIZES = np.array([1] * 4 + [GROUP] * 9)


def problem(seed: int, *, has_groups: bool, has_signs: bool) -> dict:
    """Return arguments: four single weights, then three groups of three (or nine more single ones), each group of one sign, if any."""
    random = np.random.Generator(np.random.Philox(seed))
    factor = random.standard_normal((N + 2, N + 1))
    low, high = np.full(N, -np.inf), np.full(N, np.inf)
    if has_signs:
        low[[0, 4, 5, 6]], high[[1, 7, 8, 9]] = 0.0, 0.0
    sparsity = np.where(SIZES > 1, 1.2, np.array([0.0, 0.4, 0.4, 0.0] + [0.0] * 9))
    return {
        "matrix": factor.T @ factor,
        "place": random.permutation(N + 1)[:N],
        "scale": 0.7,
        "diagonal": random.random(N),
        "gradient": 3.0 * random.standard_normal(N),
        "weights": np.clip(random.standard_normal(N), low, high),
        "sparsity": sparsity,
        "group_size": SIZES if has_groups else np.ones(N, dtype=np.int64),
        "low": low,
        "high": high,
    }


def value(x: np.ndarray, p: dict) -> float:
    """Return the objective by plain loops."""
    hessian = p["scale"] * p["matrix"][np.ix_(p["place"], p["place"])] + np.diag(p["diagonal"])
    step = x - p["weights"]
    total, i = p["gradient"] @ step + 0.5 * step @ hessian @ step, 0
    while i < N:
        size = int(p["group_size"][i])
        total += p["sparsity"][i] * np.sqrt((x[i : i + size] ** 2).sum())
        i += size
    return float(total)


@pytest.mark.parametrize("has_signs", [False, True])
@pytest.mark.parametrize("has_groups", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_minimum_equals_the_reference_and_none_better_is_found(seed: int, has_groups: bool, has_signs: bool) -> None:
    p = problem(seed, has_groups=has_groups, has_signs=has_signs)
    fast, plain = (composite_minimum(**p, tolerance=1e-14, max_sweeps=5000, backend=backend) for backend in ("numba", "reference"))
    for found in (fast, plain):
        assert (found >= p["low"]).all() and (found <= p["high"]).all()
    assert np.abs(fast - plain).max() < 1e-6  # both end when a sweep gains less than 1e-14 of an objective of about 10
    best = value(fast, p)
    assert value(plain, p) == pytest.approx(best, abs=1e-10)
    bounds = list(zip(p["low"], p["high"], strict=True))
    for start in (np.zeros(N), p["weights"], fast):
        other = minimize(value, start + 1e-3 * (start == 0), (p,), method="L-BFGS-B", bounds=bounds, options={"maxiter": 5000})
        assert best <= other.fun + 1e-9
