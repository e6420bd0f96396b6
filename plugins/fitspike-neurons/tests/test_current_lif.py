"""LIF with current synapses against scipy's integration and the alpha function, and the fused path against the plain loop."""

import numpy as np
import pytest
import torch
from driving import drive, params_of
from fitspike_neurons.current_lif import CurrentLIF
from scipy.integrate import solve_ivp

from fitspike.errors import InvalidInputError
from fitspike.neurons.emissions import Bernoulli, Hazard
from fitspike.rollout import rollout


def integrated(current, spikes, neuron, dt_ms):
    """Return the voltage at the end of each bin by scipy, the current jumping at the start of each bin, reset after each spike."""
    voltage, synaptic, found = neuron.rest_mv, 0.0, []
    height = neuron.threshold_mv - neuron.rest_mv
    last = 0.0
    for one, now in zip(current, spikes, strict=True):
        start = (voltage - height * last, synaptic + one)

        def slope(t, y):
            return [(-(y[0] - neuron.rest_mv) + y[1]) / neuron.tau_m_ms, -y[1] / neuron.tau_s_ms]

        voltage, synaptic = solve_ivp(slope, (0, dt_ms), start, rtol=1e-11, atol=1e-11).y[:, -1]
        found.append(voltage)
        last = now
    return np.array(found)


@pytest.mark.parametrize("backend", ["step", "reference", "numba"])
@pytest.mark.parametrize(("tau_s_ms", "dt_ms"), [(5.0, 1.0), (40.0, 0.5)])
def test_voltage_and_resets_equal_an_integration(backend, tau_s_ms, dt_ms):
    neuron = CurrentLIF(tau_s_ms=tau_s_ms, softness_mv=1.0)
    current = np.random.default_rng(0).gamma(1.0, 6.0, 80)
    spikes, found = drive(neuron, current[:, None], dt_ms=dt_ms, backend=backend)
    assert 2 <= spikes.sum() <= 60
    np.testing.assert_allclose(found[:, 0] + neuron.threshold_mv, integrated(current, spikes[:, 0], neuron, dt_ms), rtol=0, atol=1e-7)


def test_equal_time_constants_give_the_alpha_function():
    """Response to one pulse: (t / tau) exp(-t / tau); the time constants are kept 0.1 % apart, which shows as about that much."""
    neuron = CurrentLIF(tau_m_ms=10.0, tau_s_ms=10.0, rest_mv=0.0, threshold_mv=100.0, softness_mv=1.0)
    current = np.zeros((60, 1))
    current[0] = 1.0
    t = np.arange(1, 61) / 10.0
    for backend in ("step", "numba"):
        _, found = drive(neuron, current, backend=backend)
        np.testing.assert_allclose(found[:, 0] + 100.0, t * np.exp(-t), rtol=4e-3)


def test_equal_time_constants_still_learn():
    """Gradient of the voltage's sum by tau_s at tau_s = tau_m, against differences of 2 % of it, where the filters are well apart."""

    def total(tau_s_ms):
        params = params_of(CurrentLIF(tau_m_ms=10.0, tau_s_ms=10.0), tau_s_ms=tau_s_ms)
        tau_s = params["tau_s_ms"].requires_grad_()
        current = torch.zeros(1, 40, 1, dtype=torch.float64)
        current[:, 0] = 1.0
        run = rollout(CurrentLIF(), params, Bernoulli(), current=current, observed=torch.zeros_like(current), dt_ms=1.0, backend="step")
        return run.drive.sum(), tau_s

    value, tau_s = total(10.0)
    (gradient,) = torch.autograd.grad(value, tau_s)
    difference = float((total(10.2)[0] - total(9.8)[0]).detach()) / 0.4
    assert abs(difference) > 0.05 and float(gradient) == pytest.approx(difference, rel=0.01)


@pytest.mark.parametrize("backend", ["step", "numba"])
def test_a_spike_lowers_the_voltage_although_the_threshold_lies_below_rest(backend):
    """With "hazard" and 50 Hz at rest the threshold lies below it; one spike lowers the drive by reset_by exp(-k dt / tau_m) / softness."""
    neuron = CurrentLIF(tau_m_ms=10.0, reset_by_mv=8.0)
    start = neuron.params_for_count(torch.tensor([0.05], dtype=torch.float64), Hazard(), 1.0)
    assert start["threshold_mv"] < neuron.rest_mv
    observed = np.zeros((30, 1))
    observed[4] = 1.0
    _, found = drive(neuron, np.zeros((30, 1)), params=params_of(neuron, **start), emission="hazard", observed=observed, backend=backend)
    before = np.log(-np.log1p(-0.05) / 1e-3)
    expected = before - np.where(np.arange(30) > 4, 8.0 * np.exp(-(np.arange(30) - 4) / 10.0) / 2.0, 0.0)
    np.testing.assert_allclose(found[:, 0], expected, rtol=0, atol=1e-9)


def test_reset_is_checked():
    with pytest.raises(InvalidInputError, match=r"reset_by_mv=-5.0 must be positive; None is threshold_mv - rest_mv \(-70.0 - -65.0\)"):
        CurrentLIF(threshold_mv=-70.0)
    assert float(params_of(CurrentLIF(threshold_mv=-55.0))["reset_by_mv"]) == pytest.approx(10.0)


def test_fused_rollout_has_the_spikes_and_gradients_of_the_plain_loop():
    neuron = CurrentLIF(refractory_ms=2.0)
    rng = np.random.default_rng(1)
    current = torch.as_tensor(rng.gamma(1.0, 5.0, (2, 200, 4))).requires_grad_()
    uniforms, weight = torch.as_tensor(rng.random((2, 200, 4))), torch.as_tensor(rng.normal(size=(2, 200, 4)))
    found = []
    for backend in ("step", "numba"):
        params = {name: value.requires_grad_() for name, value in params_of(neuron, 4).items()}
        run = rollout(neuron, params, Bernoulli(), current=current, uniforms=uniforms, dt_ms=1.0, backend=backend)
        found.append((run.spikes.detach(), torch.autograd.grad((run.spikes * weight).sum(), [*params.values(), current])))
    (spikes, plain), (fused_spikes, fused) = found
    assert 20 < spikes.sum() < 1500 and torch.equal(spikes, fused_spikes)
    for a, b in zip(plain, fused, strict=True):
        assert float((a - b).abs().max() / a.abs().max()) < 1e-9  # the components' difference loses a digit
