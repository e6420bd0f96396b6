"""Adaptive LIF against closed forms, against simulations in the published conventions, and the fused path against the plain loop."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from driving import drive, params_of
from fitspike_neurons.alif import ALIF
from fitspike_neurons.conventions import to_alif

from fitspike.errors import InvalidInputError
from fitspike.neurons.emissions import Bernoulli, Threshold
from fitspike.rollout import rollout

BACKENDS = ("step", "reference", "numba")


@pytest.mark.parametrize("backend", BACKENDS)
def test_threshold_decays_geometrically_after_one_spike(backend):
    """T1: a^{t0 + k} = rho^{k-1}, and the threshold is back by adaptation rho^{k-1}. A huge current makes one spike, at bin 3."""
    neuron = ALIF(tau_m_ms=1e-2, threshold=1.0, adaptation=0.5, tau_adapt_ms=30.0)  # the voltage forgets within a bin
    current = np.zeros((80, 1))
    current[3] = 1.5
    spikes, found = drive(neuron, current, backend=backend)
    assert np.flatnonzero(spikes).tolist() == [3]
    lag = np.arange(1, 77)
    voltage = np.where(lag == 1, -1.0, 0.0)  # the reset of the bin after the spike
    rise = (voltage - 1.0 - found[4:, 0]) / 0.5
    np.testing.assert_allclose(rise, np.exp(-(lag - 1) / 30.0), rtol=0, atol=1e-12)


@pytest.mark.parametrize("scaling", ["unit", "one_minus_decay"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_voltage_under_constant_current_is_a_geometric_sum(backend, scaling):
    """T2: v^t = zeta I (1 - alpha^{t+1}) / (1 - alpha), the first spike at the first t above threshold, the reset exactly the threshold."""
    neuron = ALIF(tau_m_ms=20.0, threshold=0.6, adaptation=0.0, input_scaling=scaling)
    alpha = np.exp(-1 / 20.0)
    zeta, size = (1.0, 0.05) if scaling == "unit" else (1 - alpha, 1.0)
    closed = zeta * size * (1 - alpha ** np.arange(1, 101)) / (1 - alpha)
    first = int(np.flatnonzero(closed > 0.6)[0])
    spikes, found = drive(neuron, np.full((100, 1), size), backend=backend)
    assert 5 < first < 60 and np.flatnonzero(spikes)[0] == first
    voltage = 0.6 * found[:, 0] + 0.6
    np.testing.assert_allclose(voltage[: first + 1], closed[: first + 1], rtol=0, atol=1e-12)
    without_reset = closed[first + 1]
    assert voltage[first + 1] == pytest.approx(without_reset - 0.6, abs=1e-12)


@pytest.mark.parametrize("adaptation", [0.0, 0.05])
def test_spike_count_does_not_depend_on_the_bin_width(adaptation):
    """T3: 2 s of a constant current given per time, in bins of 1, 0.5 and 0.25 ms: at most 5 % apart."""
    counts = []
    for dt_ms in (1.0, 0.5, 0.25):
        neuron = ALIF(tau_m_ms=20.0, threshold=0.6, adaptation=adaptation, tau_adapt_ms=200.0)
        spikes, _ = drive(neuron, np.full((round(2000 / dt_ms), 1), 0.05 * dt_ms), dt_ms=dt_ms)
        counts.append(spikes.sum())
    assert counts[0] > 20
    np.testing.assert_allclose(counts, counts[0], rtol=0.05)


def test_refractory_time_blocks_whole_bins():
    """A current that would make a spike in every bin: intervals of the blocked bins plus one."""
    for refractory_ms, dt_ms, interval in ((0.0, 1.0, 1), (4.0, 1.0, 5), (2.0, 0.5, 5), (1.6, 1.0, 3)):
        spikes, _ = drive(ALIF(adaptation=0.0, refractory_ms=refractory_ms), np.full((60, 1), 50.0), dt_ms=dt_ms)
        assert set(np.diff(np.flatnonzero(spikes))) == {interval}


@pytest.mark.parametrize("backend", ["step", "reference", "numba"])
def test_two_spikes_in_a_bin_count_twice(backend):
    """Poisson counts: the voltage falls by two thresholds and the threshold rises by two adaptations in the next bin."""
    neuron = ALIF(threshold=1.0, adaptation=0.5)
    _, found = drive(neuron, np.zeros((3, 1)), observed=np.array([[0.0], [2.0], [0.0]]), backend=backend)
    np.testing.assert_allclose(found[:, 0], [-1.0, -1.0, -2.0 - 1.0 - 0.5 * 2.0], rtol=0, atol=1e-12)


def old_convention(current, threshold, adaptation, tau_m, tau_a, dt_ms):
    """Return the spikes of the e-prop code's pattern task: input and adaptation scaled by 1 - decay, written out in numpy."""
    alpha, rho = np.exp(-dt_ms / tau_m), np.exp(-dt_ms / tau_a)
    v = a = z = 0.0
    spikes = []
    for one in current:
        v = alpha * v + (1 - alpha) * one - threshold * z
        a = rho * a + (1 - rho) * z
        z = float(v > threshold + adaptation * a)
        spikes.append(z)
    return np.array(spikes)


@pytest.mark.parametrize("dt_ms", [1.0, 0.5])
def test_converted_parameters_give_the_spikes_of_the_old_convention(dt_ms):
    rng = np.random.default_rng(0)
    current = rng.gamma(2.0, 0.03, 3000)
    published = {"threshold": 0.03, "adaptation": 1.8, "tau_m_ms": 20.0, "tau_adapt_ms": 200.0}
    expected = old_convention(current, 0.03, 1.8, 20.0, 200.0, dt_ms)
    neuron = ALIF(**to_alif("e-prop-pattern", **published, dt_ms=dt_ms))
    spikes, _ = drive(neuron, current[:, None], dt_ms=dt_ms)
    assert 20 < expected.sum() < 1500
    np.testing.assert_array_equal(spikes[:, 0], expected)
    assert to_alif("e-prop-2020", **published) == published
    with pytest.raises(InvalidInputError, match="did you|Known: lsnn-2018"):
        to_alif("lsnn", **published)
    with pytest.raises(InvalidInputError, match="(?s)tau_m_ms=0.0 must be positive.*adaptation=-1.0 must not be negative"):
        to_alif("lsnn-2018", threshold=0.01, adaptation=-1.0, tau_m_ms=0.0, tau_adapt_ms=200.0)


def test_published_conversion_of_the_evidence_task():
    """1.7 (1 - rho) / (1 - alpha) at tau_a = 2000 ms is the 0.0174 of the e-prop code's evidence task."""
    found = to_alif("lsnn-2018", threshold=0.01, adaptation=1.7, tau_m_ms=20.0, tau_adapt_ms=2000.0)
    assert found["adaptation"] == pytest.approx(0.0174, abs=5e-5)


@pytest.mark.parametrize("emission", [Threshold(), Bernoulli()], ids=lambda one: one.name)
def test_fused_rollout_has_the_spikes_and_gradients_of_the_plain_loop(emission):
    """Spikes equal, gradients of all parameters and the current within 1e-10 (float64), of a mixture of plain and adaptive neurons."""
    neuron = ALIF(
        adaptation=0.3, tau_adapt_ms=50.0, n_adaptive=3, refractory_ms=2.0, train=("tau_m_ms", "threshold", "adaptation", "tau_adapt_ms")
    )
    rng = np.random.default_rng(1)
    current = torch.as_tensor(rng.gamma(1.0, 0.15, (2, 200, 5))).requires_grad_()
    uniforms, weight = torch.as_tensor(rng.random((2, 200, 5))), torch.as_tensor(rng.normal(size=(2, 200, 5)))
    found = []
    for backend in ("step", "numba"):
        params = {name: value.requires_grad_() for name, value in params_of(neuron, 5).items()}
        run = rollout(neuron, params, emission, current=current, uniforms=uniforms, dt_ms=1.0, backend=backend)
        gradients = torch.autograd.grad((run.spikes * weight).sum(), [*params.values(), current])
        found.append((run.spikes.detach(), gradients))
    (spikes, plain), (fused_spikes, fused) = found
    assert 20 < spikes.sum() < 1800 and torch.equal(spikes, fused_spikes)
    assert params["adaptation"].tolist() == [0.0, 0.0, 0.3, 0.3, 0.3]
    for a, b in zip(plain, fused, strict=True):
        assert float(a.abs().max()) > 0 and float((a - b).abs().max() / a.abs().max()) < 1e-10


def test_escape_noise_becomes_deterministic_as_it_softens():
    """Softness 1e-6: every drive is far from 0 except where voltage meets threshold, so that sampled spikes are those of the threshold."""
    rng = np.random.default_rng(2)
    current, uniforms = rng.gamma(1.0, 0.1, (500, 4)), rng.random((500, 4))
    hard, _ = drive(ALIF(), current)
    soft, _ = drive(ALIF(softness=1e-6), current, emission="bernoulli", uniforms=uniforms)
    softer, _ = drive(ALIF(softness=0.3), current, emission="bernoulli", uniforms=uniforms)
    np.testing.assert_array_equal(soft, hard)
    assert (softer != hard).any() and hard.sum() > 50


@pytest.mark.parametrize("backend", ["step", "numba"])
def test_a_membrane_that_forgets_within_a_bin_stays_finite(backend):
    """tau_m of 0.02 ms in bins of 2 ms in float32: exp(-100) is 0, and the voltage is current minus threshold after a spike."""
    neuron = ALIF(tau_m_ms=0.02, threshold=1.0, adaptation=0.0, softness=1.0)
    params = {name: value.float().requires_grad_() for name, value in params_of(neuron, 2).items()}
    rng = np.random.default_rng(3)
    current, observed = torch.as_tensor(rng.random((1, 50, 2))).float(), torch.as_tensor(rng.random((1, 50, 2)) < 0.3).float()
    run = rollout(neuron, params, Bernoulli(), current=current, observed=observed, dt_ms=2.0, backend=backend)
    before = torch.cat([torch.zeros(1, 1, 2), observed[:, :-1]], dim=1)
    np.testing.assert_allclose(run.drive.detach(), current - before - 1.0, rtol=0, atol=1e-6)
    gradients = torch.autograd.grad(run.drive.sum(), list(params.values()))
    assert all(bool(torch.isfinite(one).all()) for one in gradients)
    assert gradients[1].tolist() == pytest.approx((-50.0 - before.sum((0, 1))).tolist(), rel=1e-5)  # of the threshold


def test_settings_are_checked():
    for wrong, text in (
        ({"tau_m_ms": 0.0}, "tau_m_ms=0.0 must be positive"),
        ({"softness": 0.0}, "Use None for the threshold"),
        ({"n_adaptive": -1}, "Use None for all"),
        ({"input_scaling": "two"}, "'unit' or 'one_minus_decay'"),
        ({"n_adaptive": 2.5}, "n_adaptive=2.5 must be a whole number"),
        ({"tau_m_ms": "ten", "threshold": -1.0}, "(?s)tau_m_ms='ten' must be a number.*threshold=-1.0 must be positive"),
        ({"refractory_ms": True}, "refractory_ms=True must be a number"),
        ({"train": ("softness",)}, "train names softness"),
        ({"train": "threshold"}, "train='threshold' must be a list"),
        ({"train": ("beta",)}, "It can name: tau_m_ms, threshold, adaptation, tau_adapt_ms"),
    ):
        with pytest.raises(InvalidInputError, match=text):
            ALIF(**wrong)
    trained = [name for name, spec in replace(ALIF(), train=("adaptation",)).param_specs(2).items() if spec.trainable]
    assert trained == ["adaptation"]
