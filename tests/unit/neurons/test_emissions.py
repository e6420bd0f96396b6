"""Emissions against scipy.stats, exact enumeration of their normalisation, and finite differences."""

import math

import numpy as np
import pytest
import torch
from scipy import special, stats

from fitspike.errors import InvalidInputError, UnknownNameError
from fitspike.kernels.linear_rollout.sampling import poisson_quantile
from fitspike.neurons.emissions import NEVER_DRIVE, Bernoulli, Hazard, Poisson, Threshold, get_emission

DT_MS = 2.0
SMALLEST_UNIFORM = 2.0**-33


def as_tensor(x):
    return torch.as_tensor(np.asarray(x, dtype=np.float64))


def test_bernoulli_log_prob_equals_scipy():
    drive = np.linspace(-30, 30, 61)
    for spikes in (0.0, 1.0):
        ours = Bernoulli().log_prob(as_tensor(drive), torch.full((61,), spikes, dtype=torch.float64), DT_MS).numpy()
        # log expit is scipy's own stable form of log p and, at -drive, of log(1 - p)
        np.testing.assert_allclose(ours, special.log_expit(drive if spikes else -drive), rtol=1e-13, atol=1e-300)


def test_hazard_probability_is_that_of_an_exponential_waiting_time():
    rate_hz = np.array([1e-6, 0.3, 5.0, 60.0, 800.0, 4e4])
    drive = as_tensor(np.log(rate_hz))
    expected = stats.expon(scale=1.0 / rate_hz).cdf(DT_MS * 1e-3)
    np.testing.assert_allclose(Hazard().expected(drive, DT_MS).numpy(), expected, rtol=1e-12)
    one, zero = torch.ones_like(drive), torch.zeros_like(drive)
    np.testing.assert_allclose(Hazard().log_prob(drive, one, DT_MS).numpy(), np.log(expected), rtol=1e-10, atol=1e-15)
    np.testing.assert_allclose(
        Hazard().log_prob(drive, zero, DT_MS).numpy(), stats.expon(scale=1 / rate_hz).logsf(DT_MS * 1e-3), rtol=1e-12
    )


def test_hazard_log_prob_is_smooth_where_its_formula_changes():
    log_hazard = np.log(1e-2) + np.array([-1e-9, 1e-9])
    drive = as_tensor(log_hazard - np.log(DT_MS * 1e-3))
    low, high = Hazard().log_prob(drive, torch.ones(2, dtype=torch.float64), DT_MS).tolist()
    assert abs(high - low) < 1e-8


def test_poisson_log_prob_equals_scipy():
    drive = np.linspace(-6, 4, 21)[:, None]
    counts = np.arange(12)[None, :] + 0.0
    ours = Poisson().log_prob(as_tensor(drive), as_tensor(counts), DT_MS).numpy()
    np.testing.assert_allclose(ours, stats.poisson(np.exp(drive)).logpmf(counts), rtol=1e-12)


@pytest.mark.parametrize("emission", [Bernoulli(), Hazard(), Poisson(highest_hz=1e4)])
def test_probabilities_sum_to_one_and_have_the_stated_mean(emission):
    drive = torch.tensor([-4.0, 0.0, 1.5], dtype=torch.float64)
    counts = torch.arange(2.0 if emission.is_binary else 60.0, dtype=torch.float64)
    probability = emission.log_prob(drive[:, None], counts[None, :], DT_MS).exp()
    torch.testing.assert_close(probability.sum(1), torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close((probability * counts).sum(1), emission.expected(drive, DT_MS))


def test_sampled_poisson_counts_saturate_at_the_highest_rate_and_the_likelihood_does_not():
    """At 300 Hz in bins of 2 ms the mean is 0.6; five standard errors of 20000 counts."""
    emission = Poisson(highest_hz=300.0)
    drive = torch.tensor([math.log(0.3), math.log(0.6) + 1e-9, 3.0, 70.0], dtype=torch.float64, requires_grad=True)
    expected = emission.expected(drive, DT_MS)
    torch.testing.assert_close(expected, torch.tensor([0.3, 0.6, 0.6, 0.6], dtype=torch.float64))
    assert torch.autograd.grad(expected.sum(), drive)[0].tolist() == pytest.approx([0.3, 0.6, 0.6, 0.6])
    assert emission.slope(drive.detach(), DT_MS).tolist() == pytest.approx([0.3, 0.0, 0.0, 0.0])
    uniforms = as_tensor(np.random.default_rng(0).random(20000))
    counts = emission.sample(torch.full((20000,), 70.0, dtype=torch.float64), uniforms, DT_MS)
    assert abs(float(counts.mean()) - 0.6) < 5 * np.sqrt(0.6 / 20000)
    log_prob = emission.log_prob(torch.tensor([3.0], dtype=torch.float64), torch.tensor([7.0], dtype=torch.float64), DT_MS)
    np.testing.assert_allclose(log_prob.numpy(), stats.poisson(np.exp(3.0)).logpmf(7), rtol=1e-12)
    with pytest.raises(InvalidInputError, match="highest_hz"):
        Poisson(highest_hz=0.0)


@pytest.mark.parametrize("emission", [Bernoulli(), Hazard(), Poisson()])
def test_drive_for_inverts_expected(emission):
    expected = torch.tensor([1e-6, 0.01, 0.4, 0.95], dtype=torch.float64)
    torch.testing.assert_close(emission.expected(emission.drive_for(expected, DT_MS), DT_MS), expected, rtol=1e-9, atol=0)


@pytest.mark.parametrize("emission", [Bernoulli(), Hazard()])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_binary_sample_spikes_where_the_uniform_is_below_the_probability(emission, dtype):
    rng = np.random.default_rng(0)
    drive = torch.as_tensor(rng.normal(0, 3, 20000), dtype=dtype)
    uniforms = as_tensor(rng.random(20000))
    spikes = emission.sample(drive, uniforms, DT_MS)
    assert spikes.dtype == dtype
    assert torch.equal(spikes > 0, uniforms < emission.expected(drive.double(), DT_MS))


def test_poisson_sample_is_scipys_quantile():
    rng = np.random.default_rng(1)
    mean = np.exp(rng.uniform(np.log(1e-3), np.log(450.0), 3000))
    uniforms = rng.random(3000)
    assert np.array_equal(poisson_quantile(as_tensor(mean), as_tensor(uniforms)).numpy(), stats.poisson(mean).ppf(uniforms))


def test_poisson_sample_of_huge_rates_is_within_one_count_and_stays_finite():
    rng = np.random.default_rng(2)
    mean = np.exp(rng.uniform(np.log(501.0), np.log(1e6), 1000))
    uniforms = np.clip(rng.random(1000), 1e-6, 1 - 1e-6)
    ours = poisson_quantile(as_tensor(mean), as_tensor(uniforms)).numpy()
    assert np.abs(ours - stats.poisson(mean).ppf(uniforms)).max() <= 1
    runaway = Poisson().sample(torch.tensor([1e4]), torch.tensor([0.5], dtype=torch.float64), DT_MS)
    assert torch.isfinite(runaway).all()


def test_poisson_sample_at_a_uniform_of_one_ends():
    assert poisson_quantile(torch.tensor([0.1]), torch.tensor([1.0])).item() < 200


@pytest.mark.parametrize("emission", [Bernoulli(), Hazard(), Poisson()])
def test_no_neuron_spikes_at_the_never_drive(emission):
    drive = torch.full((1,), NEVER_DRIVE)
    assert emission.sample(drive, torch.tensor([SMALLEST_UNIFORM], dtype=torch.float64), 1.0).item() == 0.0


@pytest.mark.parametrize("emission", [Bernoulli(), Hazard(), Poisson()])
def test_log_prob_gradient_equals_finite_differences(emission):
    drive = torch.linspace(-9, 4, 27, dtype=torch.float64, requires_grad=True)
    spikes = (torch.arange(27) % 2).double()
    assert torch.autograd.gradcheck(lambda d: emission.log_prob(d, spikes, DT_MS), (drive,))


@pytest.mark.parametrize("emission", [Hazard(), Poisson()])
def test_log_prob_and_its_gradient_stay_finite_for_extreme_drives(emission):
    for dtype in (torch.float32, torch.float64):
        drive = torch.tensor([-200.0, 200.0, -200.0, 200.0], dtype=dtype, requires_grad=True)
        value = emission.log_prob(drive, torch.tensor([0.0, 0.0, 1.0, 1.0], dtype=dtype), DT_MS)
        (gradient,) = torch.autograd.grad(value.sum(), drive)
        assert torch.isfinite(value).all() and torch.isfinite(gradient).all()


def surrogate(emission, drive):
    drive = torch.as_tensor(drive, dtype=torch.float64).requires_grad_()
    (gradient,) = torch.autograd.grad(emission.sample(drive, torch.full_like(drive, 0.3), DT_MS).sum(), drive)
    return gradient.numpy()


@pytest.mark.parametrize("emission", [Bernoulli(), Hazard(), Poisson()])
def test_default_pseudo_derivative_is_that_of_the_expected_count(emission):
    drive, step = np.linspace(-5, 2, 15), 1e-5
    difference = emission.expected(as_tensor(drive + step), DT_MS) - emission.expected(as_tensor(drive - step), DT_MS)
    np.testing.assert_allclose(surrogate(emission, drive), difference.numpy() / (2 * step), rtol=1e-6)


def test_triangle_pseudo_derivative_by_hand():
    drive = [-2.0, -0.5, 0.0, 0.25, 1.0, 3.0]
    np.testing.assert_allclose(surrogate(Bernoulli("triangle", 0.3), drive), [0.0, 0.15, 0.3, 0.225, 0.0, 0.0])


def test_unknown_names_and_settings_are_refused():
    with pytest.raises(UnknownNameError, match="did you mean 'poisson'"):
        get_emission("poison")
    with pytest.raises(InvalidInputError, match="2 problems"):
        Bernoulli("triangel", 1.5)
    assert get_emission("hazard", dampening=0.5) == Hazard(dampening=0.5)


def test_threshold_spikes_above_zero_whatever_the_uniform_with_the_triangle_as_slope():
    emission = Threshold(dampening=0.3)
    drive = torch.tensor([-1.5, -0.5, 0.0, 1e-12, 0.75, 2.0, NEVER_DRIVE], dtype=torch.float64, requires_grad=True)
    for uniform in (SMALLEST_UNIFORM, 0.5, 1 - SMALLEST_UNIFORM):
        spikes = emission.sample(drive, torch.full((7,), uniform, dtype=torch.float64), DT_MS)
        assert spikes.tolist() == [0, 0, 0, 1, 1, 1, 0]
    (gradient,) = torch.autograd.grad(spikes.sum(), drive)
    np.testing.assert_allclose(gradient.numpy(), 0.3 * np.array([0, 0.5, 1, 1 - 1e-12, 0.25, 0, 0]), rtol=1e-12)
    assert emission.log_prob(drive, spikes, DT_MS).tolist() == [0.0] * 7
    assert emission.log_prob(drive, 1 - spikes, DT_MS).tolist() == [-math.inf] * 7
    with pytest.raises(InvalidInputError, match="triangle"):
        Threshold(pseudo_derivative="expected")
