"""The densify kernels equal the array that the events were taken from."""

import numpy as np
import pytest

from fitspike.kernels.densify import densify


@pytest.mark.parametrize("backend", ["numba", "reference", "auto"])
@pytest.mark.parametrize(("n_trials", "n_bins", "n_neurons"), [(1, 1, 1), (3, 63, 7), (2, 1000, 1), (0, 5, 3), (2, 0, 3)])
@pytest.mark.parametrize("share", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("has_counts", [False, True])
def test_dense_counts_come_back(backend, n_trials, n_bins, n_neurons, share, has_counts):
    generator = np.random.default_rng(0)
    dense = (generator.random((n_trials, n_bins, n_neurons)) < share) * (
        generator.integers(1, 9, (n_trials, n_bins, n_neurons)) if has_counts else 1
    )
    trial_bin, neuron = np.nonzero(dense.reshape(-1, n_neurons))
    ends = np.concatenate([[0], np.cumsum(np.bincount(trial_bin, minlength=n_trials * n_bins))]).astype(np.int64)
    pointer = ends[np.arange(n_trials)[:, None] * n_bins + np.arange(n_bins + 1)]
    count = dense.reshape(-1, n_neurons)[trial_bin, neuron].astype(np.uint16) if has_counts else None
    for dtype in ("float32", "float64", "uint8"):
        result = densify(pointer, neuron.astype(np.uint16), count, n_neurons, dtype=dtype, backend=backend)
        assert result.dtype == dtype and np.array_equal(result, dense)
