"""Neuron models against direct sums over past spikes, closed forms, and a renewal-theory rate."""

import numpy as np
import pytest
import torch

from fitspike.errors import InvalidInputError
from fitspike.neurons.emissions import NEVER_DRIVE, Bernoulli, get_emission
from fitspike.neurons.lif import EscapeLIF
from fitspike.neurons.srm import SRM
from fitspike.params import initial_params, to_tensors
from fitspike.rng import Stream
from fitspike.rollout import rollout


def params_of(neuron, n_neurons, **values):
    given = {name: np.broadcast_to(value, neuron.param_specs(n_neurons)[name].shape).copy() for name, value in values.items()}
    return to_tensors(initial_params(neuron.param_specs(n_neurons), Stream(0, "init"), given))


def clamped_drive(neuron, params, spikes, current, dt_ms):
    driven = rollout(neuron, params, Bernoulli(), current=torch.as_tensor(current), observed=torch.as_tensor(spikes), dt_ms=dt_ms)
    return driven.drive.numpy()


@pytest.mark.parametrize("tau_m_ms", [None, 7.0])
def test_srm_drive_is_bias_plus_filtered_input_plus_spike_after_effects(tau_m_ms):
    rng = np.random.default_rng(0)
    n_trials, n_bins, n_neurons, dt_ms = 2, 40, 3, 0.5
    spikes = (rng.random((n_trials, n_bins, n_neurons)) < 0.3) * 1.0
    current = rng.normal(size=spikes.shape)
    weight = rng.normal(size=(n_neurons, 2))
    neuron = SRM(post_spike_tau_ms=(3.0, 20.0), tau_m_ms=tau_m_ms)
    params = params_of(neuron, n_neurons, bias=[-1.0, 0.5, 2.0], post_spike_weight=weight)
    expected = np.zeros_like(spikes)
    for t in range(n_bins):
        past = np.arange(t)
        for filter_, tau in enumerate((3.0, 20.0)):
            kernel = np.exp(-(t - 1 - past) * dt_ms / tau)  # 1 one bin after the spike
            expected[:, t] += weight[:, filter_] * np.einsum("ktn,t->kn", spikes[:, :t], kernel)
        seen = np.arange(t + 1)
        membrane = np.exp(-(t - seen) * dt_ms / tau_m_ms) if tau_m_ms else (seen == t) * 1.0
        expected[:, t] += np.einsum("ktn,t->kn", current[:, : t + 1], membrane)
    expected += [-1.0, 0.5, 2.0]
    np.testing.assert_allclose(clamped_drive(neuron, params, spikes, current, dt_ms), expected, atol=1e-12)


def test_lif_voltage_approaches_its_fixed_point_and_returns_to_rest_after_a_spike():
    neuron, dt_ms, input_mv = EscapeLIF(), 1.0, 2.0
    params = params_of(neuron, 1)
    spikes = np.zeros((1, 30, 1))
    spikes[0, 14] = 1.0
    drive = clamped_drive(neuron, params, spikes, np.full((1, 30, 1), input_mv), dt_ms)[0, :, 0]
    decay = np.exp(-dt_ms / 10.0)
    since_start = np.arange(1, 16)
    above_rest = input_mv * (1 - decay**since_start) / (1 - decay)
    voltage = np.concatenate([above_rest, above_rest]) - 65.0  # the spike in bin 14 starts the same climb again in bin 15
    np.testing.assert_allclose(drive, (voltage + 50.0) / 2.0, rtol=1e-12)


def test_lif_subtract_reset_is_refused_where_a_spike_would_excite():
    """With hazard the drive is the log of the rate in Hz: above 1 Hz at rest the threshold lies below rest."""
    counts = torch.tensor([0.05, 0.01], dtype=torch.float64)
    neuron = EscapeLIF(reset="subtract")
    with pytest.raises(InvalidInputError, match=r"threshold lies below rest for 0.05 spikes per bin.*Use reset='to_rest'"):
        neuron.params_for_count(counts, get_emission("hazard"), 1.0)
    assert (neuron.params_for_count(counts, get_emission("bernoulli"), 1.0)["threshold_mv"] > -65.0).all()
    below = EscapeLIF().params_for_count(counts, get_emission("hazard"), 1.0)["threshold_mv"]
    np.testing.assert_allclose(below, -65.0 - 2.0 * np.log(-np.log1p(-counts.numpy()) / 1e-3), atol=1e-9)


def test_lif_subtract_reset_takes_off_the_distance_from_rest_to_threshold():
    neuron, params = EscapeLIF(reset="subtract"), None
    params = params_of(neuron, 1)
    spikes = np.zeros((1, 3, 1))
    spikes[0, 0] = 1.0
    current = np.array([20.0, 0.0, 0.0]).reshape(1, 3, 1)
    drive = clamped_drive(neuron, params, spikes, current, 1.0)[0, :, 0]
    decay = np.exp(-0.1)
    above_rest = [20.0, decay * (20.0 - 15.0), decay**2 * 5.0]
    np.testing.assert_allclose(drive, (np.array(above_rest) - 15.0) / 2.0, rtol=1e-12)


def test_lif_cannot_spike_for_its_refractory_time():
    neuron = EscapeLIF(refractory_ms=3.0)
    params = params_of(neuron, 1, threshold_mv=-60.0)
    spikes = np.zeros((1, 12, 1))
    spikes[0, [2, 8]] = 1.0
    drive = clamped_drive(neuron, params, spikes, np.full((1, 12, 1), 5.0), 1.0)[0, :, 0]
    assert np.flatnonzero(drive == NEVER_DRIVE).tolist() == [3, 4, 5, 9, 10, 11]
    uniforms = torch.full((1, 400, 1), 2.0**-33, dtype=torch.float64)
    driven = rollout(neuron, params, Bernoulli(), current=torch.full((1, 400, 1), 50.0, dtype=torch.float64), uniforms=uniforms, dt_ms=1.0)
    assert np.diff(np.flatnonzero(driven.spikes[0, :, 0].numpy())).min() == 4


def test_lif_rate_is_that_of_the_renewal_process_of_its_hazards():
    """Reset to rest makes spikes a renewal process; its rate follows from the hazards p_1, p_2, ... after a spike."""
    neuron, dt_ms, input_mv, n_refractory = EscapeLIF(refractory_ms=2.0), 1.0, 1.35, 2
    params = params_of(neuron, 1)
    n_trials, n_bins = 200, 3000
    uniforms = torch.as_tensor(Stream(3, "rate").uniforms(n_trials, range(n_bins), 1))
    current = torch.full((n_trials, n_bins, 1), input_mv, dtype=torch.float64)
    spikes = rollout(neuron, params, Bernoulli(), current=current, uniforms=uniforms, dt_ms=dt_ms).spikes.numpy()[..., 0]

    decay, k = np.exp(-dt_ms / 10.0), np.arange(1, 4000)
    above_rest = input_mv * (1 - decay**k) / (1 - decay)
    hazard = 1 / (1 + np.exp(-(above_rest - 15.0) / 2.0))
    hazard[:n_refractory] = 0.0
    survival = np.concatenate([[1.0], np.cumprod(1 - hazard)])
    mean_interval = survival.sum()
    variance = (2 * np.arange(len(survival)) * survival).sum() + mean_interval - mean_interval**2
    settled = spikes[:, 500:]
    # variance of a renewal count over T bins: T var / mean^3; five standard errors: false alarm 6e-7
    error = np.sqrt(variance / mean_interval**3 / settled.size)
    assert abs(settled.mean() - 1 / mean_interval) < 5 * error
    assert error < 0.01 / mean_interval


@pytest.mark.parametrize("neuron", [SRM(), EscapeLIF(), SRM(post_spike_tau_ms=(), tau_m_ms=5.0)])
def test_params_for_count_gives_these_counts_at_rest(neuron):
    expected = torch.tensor([0.002, 0.05], dtype=torch.float64)
    params = params_of(neuron, 2, **neuron.params_for_count(expected, Bernoulli(), 1.0))
    drive = clamped_drive(neuron, params, np.zeros((1, 1, 2)), np.zeros((1, 1, 2)), 1.0)
    np.testing.assert_allclose(1 / (1 + np.exp(-drive[0, 0])), expected.numpy(), rtol=1e-9)


def test_impossible_settings_are_refused():
    with pytest.raises(InvalidInputError, match="time constant"):
        SRM(post_spike_tau_ms=(5.0, 0.0))
    with pytest.raises(InvalidInputError, match="tau_m_ms"):
        SRM(tau_m_ms=-1.0)
    with pytest.raises(InvalidInputError, match="reset"):
        EscapeLIF(reset="none")
    with pytest.raises(InvalidInputError, match="refractory_ms"):
        EscapeLIF(refractory_ms=-1.0)
