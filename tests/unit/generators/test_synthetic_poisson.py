"""Inhomogeneous Poisson trials against closed forms."""

import numpy as np
import pytest
from fitspike_datasets.generators_poisson import InhomogeneousPoisson

from fitspike.datasets.base import Dataset
from fitspike.errors import InvalidInputError
from fitspike.statistics import from_events, over_time


def test_psth_equals_the_true_rate_within_counting_noise():
    dataset = InhomogeneousPoisson(n_neurons=10, n_conditions=3, n_repeats=200)
    assert isinstance(dataset, Dataset)
    truth = dataset.truth(seed=1)
    found = over_time.psth(dataset.load(seed=1).bin(), 5.0)
    assert found.conditions.tolist() == [f"stimulus {c}" for c in range(3)]
    rate = truth.values["rate_hz"]
    z = (found.rate_hz - rate) / np.sqrt(rate / (200 * 0.005))
    assert z.mean() == pytest.approx(0, abs=4 / np.sqrt(z.size))
    assert z.std() == pytest.approx(1, abs=0.04)
    assert np.log(rate).std((0, 1)).mean() == pytest.approx(0.8, abs=0.15)
    assert rate.mean((0, 1)) == pytest.approx(from_events.firing_rates_hz(dataset.load(seed=1)), rel=0.1)


def test_shared_gain_gives_the_closed_form_fano_factor_and_correlation():
    dataset = InhomogeneousPoisson(n_neurons=8, n_conditions=1, n_repeats=2000, rate_hz=20.0, gain_sd=0.4, dt_ms=10.0)
    rate = dataset.truth(seed=0).values["rate_hz"]
    mean = rate.mean((0, 1)) * 1.0
    found = from_events.count_statistics(dataset.load(seed=0).bin(), 1000.0, centre="condition")
    variance = mean + mean**2 * 0.16
    np.testing.assert_allclose(found.fano, variance / mean, rtol=0.15)  # standard error 3 % of 2000 trials, and skewed
    expected = np.outer(mean, mean) * 0.16 / np.sqrt(np.outer(variance, variance))
    off = ~np.eye(8, dtype=bool)
    np.testing.assert_allclose(found.correlation[off], expected[off], atol=0.07)  # 4 standard errors


def test_without_gain_counts_are_poisson_and_independent():
    dataset = InhomogeneousPoisson(n_neurons=10, n_conditions=2, n_repeats=500)
    found = from_events.count_statistics(dataset.load(seed=2).bin(), 1000.0, ddof=1)
    assert found.fano.mean() == pytest.approx(1, abs=4 * np.sqrt(2 / 1000 / 10))
    pairs = found.correlation[np.triu_indices(10, 1)]
    assert abs(pairs.mean()) < 4 / np.sqrt(45 * 1000)


def test_same_seed_same_counts_and_bad_settings():
    dataset = InhomogeneousPoisson(n_repeats=3)
    np.testing.assert_array_equal(dataset.load(seed=1).spike_times_ns, dataset.load(seed=1).spike_times_ns)
    assert not np.array_equal(dataset.load(seed=1).spike_times_ns, dataset.load(seed=2).spike_times_ns)
    with pytest.raises(InvalidInputError, match="2 problems"):
        InhomogeneousPoisson(n_neurons=0, gain_sd=-1.0)
