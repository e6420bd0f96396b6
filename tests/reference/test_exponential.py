"""The vectorised exponential against numpy's."""

import numba
import numpy as np
import pytest

from fitspike.kernels.numba_exponential import exp_in_place


@numba.njit
def exponential(x):
    exp_in_place(x, np.empty_like(x))
    return x


@pytest.mark.parametrize("dtype, bound, limit", [("float32", 2e-7, 86.0), ("float64", 4.5e-16, 700.0)])
def test_exponential_is_exact_to_the_last_place(dtype, bound, limit):
    x = np.concatenate([np.linspace(-limit, limit, 100_001), [0.0, -1e-12, 1e-12]]).astype(dtype)
    expected = np.exp(x.astype("float128"))
    assert np.max(np.abs(exponential(x.copy()) / expected - 1)) < bound


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_exponential_stays_finite(dtype):
    out = exponential(np.array([-1e5, 1e5, np.nan, -np.inf, np.inf], dtype=dtype))
    assert 0 <= out[0] < 1e-37 and 1e37 < out[1] < np.inf
    assert np.isnan(out[2]) and out[3] == out[0] and out[4] == out[1]
