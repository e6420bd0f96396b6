"""The scores that the sample-and-measure acceptance script judges by, against hand counts and other libraries."""

import sys
from pathlib import Path

import numpy as np
import pytest
import statsmodels.api as sm

sys.path.insert(0, str(Path(__file__).parents[2] / "acceptance"))
from _sm_optimum import design, fit_optimum
from _sm_scores import block_input, coupling_scores, nc_r2, noise_correlations, population_variance, popvar, psth_r2, r2, rate_r2

# Two trials, four bins, two neurons.
DATA = np.zeros((2, 4, 2))
DATA[0, [0, 1], 0] = 1
DATA[1, [0, 2], 0] = 1
DATA[0, [1, 3], 1] = 1
DATA[1, [2], 1] = 1


def test_psth_and_rate_r2_equal_hand_counts():
    # PSTHs: (1, .5, .5, 0) and (0, .5, .5, .5); the model's are all .5 and (0, 1, 0, 0).
    model = np.zeros((2, 4, 2))
    model[0, :, 0] = 1
    model[:, 1, 1] = 1
    first = 1 - (0.25 + 0 + 0 + 0.25) / (0.25 + 0 + 0 + 0.25)
    second = 1 - (0 + 0.25 + 0.25 + 0.25) / (0.375**2 + 3 * 0.125**2)
    assert psth_r2(DATA, model) == pytest.approx((first + second) / 2)
    # Rates: .5 and .375; the model's .5 and .25.
    assert rate_r2(DATA, model) == pytest.approx(1 - 0.125**2 / (2 * 0.0625**2))
    assert psth_r2(DATA, DATA) == rate_r2(DATA, DATA) == 1.0


def test_noise_correlation_equals_a_hand_count():
    # Deviations from the trial mean are +-1/2 in bins 1, 2 of neuron 0 and in bins 1, 2, 3 of neuron 1, alike in bins 1 and 2.
    covariance = (4 * 0.25) / 8 * 2 / 1
    total = np.sqrt(0.5 * 0.5) * np.sqrt(3 / 8 * 5 / 8)
    np.testing.assert_allclose(noise_correlations(DATA), [covariance / total])


def test_noise_correlations_of_few_trials_are_unbiased():
    """Two trials of neurons that copy a common coin: the corrected covariance is that of the coin, whatever the number of trials."""
    draw = np.random.Generator(np.random.Philox(1))
    coin = draw.random((2, 40_000, 1)) < 0.3
    rest = draw.random((2, 40_000, 3)) < 0.3
    found = noise_correlations(np.concatenate([coin, coin, rest[..., :1]], axis=2))  # pairs (1, 0), (2, 0), (2, 1)
    np.testing.assert_allclose(found, [1, 0, 0], atol=4 / np.sqrt(80_000) * np.sqrt(2))


def test_nc_r2_and_popvar():
    draw = np.random.Generator(np.random.Philox(2))
    data = (draw.random((50, 30, 4)) < 0.3 + 0.3 * draw.standard_normal((50, 30, 1)).clip(-1, 1)).astype(float)
    assert nc_r2(data, data) == 1.0 and popvar(data, data) == 1.0
    silent = np.zeros_like(data)
    correlation = noise_correlations(data)
    assert nc_r2(data, silent) == pytest.approx(1 - (correlation**2).sum() / ((correlation - correlation.mean()) ** 2).sum())
    assert popvar(data, silent) == 0.0
    # Population means of DATA: (.5, 1, 0, .5) and (.5, 0, 1, 0); deviations 0, 1/2, 1/2, 1/4.
    assert population_variance(DATA) == pytest.approx((0.25 + 0.25 + 0.0625) * 2 / 8 * 2)


def test_coupling_scores_leave_the_diagonal_out_and_count_scale():
    truth = np.array([[9.0, 1.0, 0.0], [0.0, 9.0, 2.0], [-1.0, 0.0, 9.0]])
    fitted = np.array([[0.0, 0.5, 0.0], [0.0, 0.0, 1.0], [-0.5, 0.0, 0.0]])
    found = coupling_scores(truth, fitted)
    assert found["r"] == pytest.approx(1.0)
    spread = 1 + 4 + 1 - 6 * (2 / 6) ** 2
    assert found["r2"] == pytest.approx(1 - (0.25 + 1 + 0.25) / spread)
    assert found["bias"] == pytest.approx((-0.5 - 1 + 0.5) / 6)
    assert coupling_scores(truth, truth.T)["r"] < 0.5


def test_block_input_sums_over_pre_and_averages_over_post():
    weight = np.array([[7.0, 1.0, 2.0], [3.0, 7.0, 4.0], [5.0, 6.0, 7.0]])
    a, b = np.array([True, True, False]), np.array([False, False, True])
    assert block_input(weight, b, a) == 11.0
    assert block_input(weight, a, b) == 3.0
    assert block_input(weight, a, a) == 2.0


def test_r2_of_constant_data_is_not_a_number():
    assert np.isnan(r2(np.ones(3), np.zeros(3)))


def test_optimum_equals_statsmodels_neuron_by_neuron():
    draw = np.random.Generator(np.random.Philox(3))
    spikes = (draw.random((6, 80, 3)) < 0.3).astype(float)
    spikes[:, 1:, 1] = np.maximum(spikes[:, 1:, 1], spikes[:, :-1, 0] * (draw.random((6, 79)) < 0.5))
    stimulus = draw.standard_normal((80, 2))
    found = fit_optimum(spikes, stimulus, 2, n_post=2)
    rows = design(spikes, stimulus, 2)
    # Bin 5 of trial 1: constant, stimulus, spikes one bin before, spikes two bins before.
    np.testing.assert_array_equal(rows[85], [1, *stimulus[5], *spikes[1, 4], *spikes[1, 3]])
    np.testing.assert_array_equal(rows[80], [1, *stimulus[0], 0, 0, 0, 0, 0, 0])
    total = 0.0
    for post in range(2):
        other = sm.Logit(spikes[..., post].ravel(), rows).fit(disp=0, tol=1e-12)
        total -= other.llf / (6 * 80 * 2)
        expected = other.params
        np.testing.assert_allclose(found.bias[post], expected[0], atol=2e-3)
        np.testing.assert_allclose(found.stimulus_weight[post], expected[1:3], atol=2e-3)
        np.testing.assert_allclose(found.coupling[post, :, 0], expected[3:6], atol=2e-3)
        np.testing.assert_allclose(found.coupling[post, :, 1], expected[6:9], atol=2e-3)
    assert found.coupling[1, 0, 0] > 0.5  # post 1, pre 0
    assert found.nll(spikes, stimulus) == pytest.approx(total, rel=1e-7)
