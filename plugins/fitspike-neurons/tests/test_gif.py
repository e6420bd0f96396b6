"""GIF neuron against scipy's integration of its equations and the escape rate it is defined by."""

import numpy as np
import pytest
import torch
from driving import drive, params_of
from fitspike_neurons.gif import GIF
from scipy.integrate import solve_ivp

from fitspike.errors import InvalidInputError


def integrated(neuron, current, spikes, dt_ms):
    """Return V - threshold - theta at the end of each bin; spikes are given, currents constant over a bin."""
    voltage, found = neuron.rest_mv, []
    eta, theta = np.zeros(len(neuron.current_tau_ms)), np.zeros(len(neuron.threshold_tau_ms))
    blocked = 0
    for t, one in enumerate(current):
        before = spikes[t - 1] if t else 0.0
        eta = eta * np.exp(-dt_ms / np.array(neuron.current_tau_ms)) + before * np.asarray(neuron.spike_current_pa)
        theta = theta * np.exp(-dt_ms / np.array(neuron.threshold_tau_ms)) + before * np.asarray(neuron.threshold_jump_mv)
        if before:
            voltage, blocked = neuron.reset_mv, round(neuron.refractory_ms / dt_ms)
        if blocked:
            blocked -= 1
            found.append(np.nan)
            continue
        total = one - eta.sum()

        def slope(t, v, total=total):
            return (-neuron.conductance_ns * (v - neuron.rest_mv) + total) / neuron.capacitance_pf

        voltage = solve_ivp(slope, (0, dt_ms), [voltage], rtol=1e-11, atol=1e-11).y[0, -1]
        found.append(voltage - neuron.threshold_mv - theta.sum())
    return np.array(found)


@pytest.mark.parametrize("dt_ms", [1.0, 0.5])
def test_voltage_currents_and_threshold_equal_an_integration(dt_ms):
    neuron = GIF(spike_current_pa=(20.0, 5.0), threshold_jump_mv=3.0, softness_mv=1.0)
    rng = np.random.default_rng(0)
    current, spikes = rng.normal(60.0, 50.0, 120), (rng.random(120) < 0.08).astype(float)
    _, found = drive(neuron, current[:, None], observed=spikes[:, None], dt_ms=dt_ms)
    expected = integrated(neuron, current, spikes, dt_ms)
    is_blocked = np.isnan(expected)
    assert 5 < is_blocked.sum() < 60
    np.testing.assert_allclose(found[~is_blocked, 0], expected[~is_blocked], rtol=0, atol=1e-8)
    assert (found[is_blocked, 0] < -29).all()


def test_escape_rate_is_exponential_in_the_distance_to_threshold():
    """No after-effects, voltage held by a current: spikes per bin are 1 - exp(-rate dt); five standard errors of 4e4 bins."""
    neuron = GIF(current_tau_ms=(), threshold_tau_ms=(), refractory_ms=0.0, reset_mv=-65.0, conductance_ns=1e4, threshold_mv=-62.0)
    above = np.array([1.0, 6.0, 9.0])  # mV above rest, reached within a bin
    current = np.tile(above * 1e4, (40000, 1))
    spikes, _ = drive(neuron, current, emission="hazard", uniforms=np.random.default_rng(1).random(current.shape))
    rate_hz = np.exp((above - 3.0) / 2.0)
    expected = -np.expm1(-rate_hz * 1e-3)
    np.testing.assert_array_less(np.abs(spikes.mean(0) - expected), 5 * np.sqrt(expected / 40000))


def test_several_spikes_in_a_bin_reset_once_and_act_for_each():
    """Two spikes in bin 0 of a neuron at rest, 1 ms bins: V is at the reset, currents and threshold have jumped twice."""
    neuron = GIF(refractory_ms=0.0, softness_mv=1.0, current_tau_ms=(10.0,), spike_current_pa=7.0, threshold_tau_ms=(50.0,))
    _, found = drive(neuron, np.zeros((2, 1)), observed=np.array([[2.0], [0.0]]))
    held_at = neuron.rest_mv - 2 * 7.0 / neuron.conductance_ns
    voltage = held_at + np.exp(-neuron.conductance_ns / neuron.capacitance_pf) * (neuron.reset_mv - held_at)
    assert found[1, 0] == pytest.approx(voltage - neuron.threshold_mv - 2 * neuron.threshold_jump_mv, abs=1e-12)


def test_reset_and_the_other_effects_of_a_spike_are_told_apart():
    """The reset moves the voltage alone; refractory bins, currents and threshold come of the spike without it."""
    neuron = GIF()
    params = params_of(neuron)
    start, zero, one = neuron.init_state(params, 1), torch.zeros(1, 1).double(), torch.ones(1, 1).double()
    (voltage, *others), _ = neuron.step_with_reset(params, start, zero, zero, one, 1.0)
    assert voltage.item() == pytest.approx(-65.0 + 5.0 * np.exp(-5.0 / 100.0)) and not any(bool(other.any()) for other in others)
    (voltage, bins_left, currents, movements), _ = neuron.step_with_reset(params, start, zero, one, zero, 1.0)
    assert (voltage.item(), bins_left.item()) == (-65.0, 2.0)
    assert currents.flatten().tolist() == [10.0, 10.0] and movements.flatten().tolist() == [2.0]


def test_spike_triggered_currents_make_intervals_grow():
    neuron = GIF(softness_mv=0.1, spike_current_pa=30.0)
    spikes, _ = drive(neuron, np.full((600, 1), 150.0))
    intervals = np.diff(np.flatnonzero(spikes))
    assert len(intervals) > 5 and intervals[-1] > 1.5 * intervals[0] and (np.diff(intervals[:5]) >= 0).all()


def test_filters_can_be_left_out_and_are_checked():
    assert not {"spike_current_pa", "threshold_jump_mv"} & set(GIF(current_tau_ms=(), threshold_tau_ms=()).param_specs(2))
    assert params_of(GIF(), 2)["spike_current_pa"].shape == (2, 2)
    with pytest.raises(InvalidInputError, match="3 entries for 2 in current_tau_ms"):
        GIF(spike_current_pa=(1.0, 2.0, 3.0))
    with pytest.raises(InvalidInputError, match="not positive"):
        GIF(threshold_tau_ms=(0.0,))
    with pytest.raises(InvalidInputError, match="current_tau_ms=10.0 must be a list"):
        GIF(current_tau_ms=10.0)
