"""The time-rescaling test: false alarms, power, the discrete-time correction, and scipy's own statistic."""

import numpy as np
import pytest
from scipy.stats import expon, kstest

from fitspike.rng import Stream
from fitspike.scoring.rescaling import RescaledEvents, bin_integral, ks_test, rescaled_intervals


def all_events(counts, integral):
    """Return the events of counts (n_trials, n_bins, n_neurons) and the trial totals."""
    trial, time, neuron = np.nonzero(counts)
    before = np.cumsum(integral, axis=1) - integral
    found = RescaledEvents(trial, neuron, counts[trial, time, neuron], before[trial, time, neuron], integral[trial, time, neuron])
    return found, integral.sum(axis=1)


def intervals_of(counts, expected, is_binary, seed=0):
    events, totals = all_events(counts, bin_integral(expected, is_binary=is_binary))
    return rescaled_intervals(events, totals, counts.shape[-1], is_binary=is_binary, stream=Stream(seed, "test"))


@pytest.mark.parametrize("is_binary", [True, False])
def test_p_values_of_the_true_model_are_uniform(is_binary):
    # 400 neurons, 30 short trials each; rates so high that uncorrected bins would be rejected. Seed fixed; the bound has a false-alarm
    # rate of 1e-3.
    draw = np.random.default_rng(7)
    expected = draw.uniform(0.05, 0.6, size=(30, 40, 400))
    counts = (draw.random(expected.shape) < expected).astype(int) if is_binary else draw.poisson(expected)
    test = ks_test(intervals_of(counts, expected, is_binary))
    assert kstest(test.p_value, "uniform").pvalue > 1e-3
    # The 95 % band holds for large n; here n is about 390.
    assert test.is_inside.mean() == pytest.approx(0.95, abs=0.04)


def test_without_the_correction_the_true_model_would_be_rejected():
    draw = np.random.default_rng(8)
    expected = np.full((1, 4000, 20), 0.4)
    counts = (draw.random(expected.shape) < expected).astype(int)
    corrected = ks_test(intervals_of(counts, expected, True))
    naive = [np.diff(np.flatnonzero(counts[0, :, i])) * 0.4 for i in range(20)]
    assert corrected.p_value.min() > 1e-3
    assert max(kstest(gaps, expon.cdf).pvalue for gaps in naive) < 1e-6


def test_a_wrong_rate_is_rejected():
    draw = np.random.default_rng(9)
    counts = (draw.random((1, 5000, 5)) < 0.1).astype(int)
    assert ks_test(intervals_of(counts, np.full(counts.shape, 0.15), True)).p_value.max() < 1e-3


def test_statistic_and_p_value_equal_scipy():
    gaps = [np.random.default_rng(10).exponential(1.3, size=n) for n in (5, 60, 700)]
    found = ks_test(gaps)
    for i, one in enumerate(gaps):
        reference = kstest(one, expon.cdf)
        assert found.statistic[i] == pytest.approx(reference.statistic, abs=1e-12)
        assert found.p_value[i] == pytest.approx(reference.pvalue, rel=1e-6)
    assert np.isnan(ks_test([np.zeros(1)]).statistic[0])


def test_intervals_go_on_across_trials():
    # One Poisson neuron, two trials of 3 bins with integral 1 each; a spike in bin 2 of trial 0 and bin 0 of trial 1: 0.5 +- 0.5 apart
    # from 2 + u to 3 + u', so the sum of both intervals is 3 + u'.
    counts = np.zeros((2, 3, 1), int)
    counts[0, 2, 0] = counts[1, 0, 0] = 1
    gaps = intervals_of(counts, np.ones((2, 3, 1)), False)[0]
    assert 2 <= gaps[0] <= 3 and 3 <= gaps.sum() <= 4


def test_binary_spike_takes_the_rest_of_its_bin_with_it():
    # Two spikes in neighbouring bins with q = log 2: each interval lies within its own bin, below q.
    counts = np.ones((1, 2, 1), int)
    gaps = intervals_of(counts, np.full((1, 2, 1), 0.5), True)[0]
    assert (gaps > 0).all() and (gaps <= np.log(2)).all()
