"""The compiled correlogram equals the readable one at awkward sizes, and a hand count."""

import numpy as np
import pytest

from fitspike.errors import UnknownNameError
from fitspike.kernels.correlogram import correlogram


def events(seed, n_bins, n_neurons, mean):
    counts = np.random.default_rng(seed).poisson(mean, (n_bins, n_neurons))
    bins, neuron = np.nonzero(counts)
    pointer = np.searchsorted(bins, np.arange(n_bins + 1)).astype(np.int64)
    return pointer, neuron.astype(np.uint16), counts[bins, neuron].astype(np.uint16)


@pytest.mark.parametrize("mean", [0.0, 0.1, 3.0])
@pytest.mark.parametrize("n_neurons", [1, 7])
@pytest.mark.parametrize("n_bins", [1, 63, 500])
def test_numba_equals_reference(n_bins, n_neurons, mean):
    pointer, neuron, count = events(n_bins + n_neurons, n_bins, n_neurons, mean)
    third = n_bins // 3
    for spans in ([(0, n_bins)], [(0, third), (third, third), (third, n_bins)], []):
        for n_lags in (0, 1, 70):
            for weights in (count, None):
                for pairs in ("all", "self"):
                    args = (pointer, neuron, weights, np.array(spans, np.int64).reshape(-1, 2), n_neurons, n_lags)
                    np.testing.assert_array_equal(
                        correlogram(*args, pairs=pairs, backend="numba"), correlogram(*args, pairs=pairs, backend="reference")
                    )


def test_entry_is_post_pre_lag():
    # neuron 0 fires in bin 1, neuron 1 in bin 3 (twice): neuron 1 follows neuron 0 by two bins
    pointer, neuron, count = np.array([0, 0, 1, 1, 2]), np.array([0, 1], np.uint16), np.array([1, 2], np.uint16)
    found = correlogram(pointer, neuron, count, np.array([[0, 4]]), 2, 3)
    assert found[1, 0].tolist() == [0, 0, 2, 0]
    assert found[0, 1].tolist() == [0, 0, 0, 0]
    assert found[1, 1].tolist() == [4, 0, 0, 0]


def test_unknown_backend_is_refused():
    with pytest.raises(UnknownNameError, match="did you mean 'numba'"):
        correlogram(np.zeros(1, np.int64), np.zeros(0, np.uint16), None, np.zeros((0, 2), np.int64), 1, 1, backend="numbo")
