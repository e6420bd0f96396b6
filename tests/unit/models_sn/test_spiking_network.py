"""The spiking network: likelihood by scipy, hidden units by enumeration, chunking, structure of its parameters."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import special

import fitspike
from fitspike.errors import InvalidInputError, PluginError
from fitspike.models.base import n_uniforms
from fitspike.models.bases import lag_basis
from fitspike.models.spiking_network import SpikingNetwork, _observed_units
from fitspike.neurons.lif import EscapeLIF
from fitspike.neurons.srm import SRM
from fitspike.params import ParamSpec, initial_params, to_tensors
from fitspike.recording.binned import SpikeChunk
from fitspike.recording.recording import Recording
from fitspike.recording.tables import Signal
from fitspike.rng import Stream


def binned_spikes(n_trials=3, n_bins=120, n_neurons=4, *, rate=0.1, populations=None, n_channels=0, seed=0):
    rng = np.random.default_rng(seed)
    recording = Recording.from_counts((rng.random((n_trials, n_bins, n_neurons)) < rate).astype(int), dt_ms=1.0)
    if n_channels:
        values = rng.normal(3.0, 2.0, (n_trials * n_bins + 10 * n_trials, n_channels))
        recording = recording.attach(signals={"stimulus": Signal(values, sampling_rate_hz=1000.0, start_ns=0)})
    if populations is not None:
        recording = recording.attach(neuron_columns={"population": np.array(populations)})
    return recording.bin()


def made(model, binned, seed=0):
    return to_tensors(initial_params(model.param_specs(binned.info()), Stream(seed, "init")))


NETWORKS = {
    "exponential": SpikingNetwork(n_coupling=2),
    "cosine, delayed": SpikingNetwork(basis="raised-cosine", n_coupling=3, delay_ms=3.0),
    "lags": SpikingNetwork(basis="boxes", coupling_ms=4.0, n_coupling=4),
    "uncoupled": SpikingNetwork(coupling_ms=0.0),
    "lif": SpikingNetwork(neuron=EscapeLIF(refractory_ms=2.0)),
    "hidden": SpikingNetwork(n_hidden=2),
    "trial latents": SpikingNetwork(trial_latents=2),
    "poisson": SpikingNetwork(emission="poisson", neuron=SRM(tau_m_ms=8.0)),
}


def test_log_likelihood_equals_a_direct_computation():
    """Lag weights, bias and own-spike weights of known values; the drive of every bin by explicit loops."""
    binned = binned_spikes(2, 30, 3, rate=0.3)
    model = SpikingNetwork(neuron=SRM(post_spike_tau_ms=(4.0,)), basis="boxes", coupling_ms=2.0, n_coupling=2)
    params = made(model, binned)
    rng = np.random.default_rng(1)
    weight = rng.normal(size=(3, 3, 2))
    params |= {"coupling": torch.as_tensor(weight), "post_spike_weight": torch.full((3, 1), -1.5, dtype=torch.float64)}
    spikes = binned.dense_numpy(dtype="float64")
    bias = params["bias"].numpy()
    total = np.zeros((2, 3))
    for k, t, post in itertools.product(range(2), range(30), range(3)):
        drive = bias[post]
        for pre, lag in itertools.product(range(3), range(2)):
            if pre != post and t - 1 - lag >= 0:
                drive += weight[post, pre, lag] * spikes[k, t - 1 - lag, pre]
        drive += -1.5 * sum(spikes[k, s, post] * np.exp(-(t - 1 - s) / 4.0) for s in range(t))
        total[k, post] += special.log_expit(drive if spikes[k, t, post] else -drive)
    ours, _ = model.log_likelihood(params, next(binned.chunks(30, batch_trials=2)), None, Stream(0, "x"))
    np.testing.assert_allclose(ours.numpy(), total, rtol=1e-12)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("n_bins", [1, 63, 100])
def test_log_likelihood_does_not_depend_on_chunk_size(name, n_bins):
    model, binned = NETWORKS[name], binned_spikes(n_channels=2)
    params = made(model, binned)
    params["signal"] = params["signal"] + 0.3
    whole, _ = model.log_likelihood(params, next(binned.chunks(120, batch_trials=3)), None, Stream(0, "x"))
    total, carry = 0.0, None
    for chunk in binned.chunks(n_bins, batch_trials=3, carry=True):
        part, carry = model.log_likelihood(params, chunk, None if chunk.is_first else carry, Stream(0, "x"))
        total = total + part
    torch.testing.assert_close(total, whole, rtol=1e-11, atol=0)


@pytest.mark.parametrize("name", [name for name in NETWORKS if name not in ("hidden", "trial latents")])
def test_likelihood_of_a_free_run_equals_that_of_the_run_itself(name):
    """Two paths: bin by bin in `rollout`, and the matrix products of `log_likelihood`, which samples what is hidden for itself."""
    model, binned = NETWORKS[name], binned_spikes(n_channels=1)
    params = made(model, binned)
    uniforms = torch.as_tensor(Stream(0, "u").uniforms(3, range(120), 4 + model.n_hidden))
    free = model.rollout(params, next(binned.chunks(120, batch_trials=3)), uniforms=uniforms)
    signal = binned.source_signals["stimulus"]
    again = Recording.from_counts(free.spikes.numpy().astype(int), dt_ms=1.0).attach(signals={"stimulus": signal}).bin()
    likelihood, _ = model.log_likelihood(params, next(again.chunks(120, batch_trials=3)), None, Stream(0, "x"))
    torch.testing.assert_close(likelihood, free.log_prob, rtol=1e-11, atol=0)


@pytest.mark.parametrize("name", NETWORKS)
def test_free_run_does_not_depend_on_chunk_size_and_replays_exactly(name):
    model, binned = NETWORKS[name], binned_spikes(n_channels=1)
    params, stream, n_units = made(model, binned), Stream(0, "u"), n_uniforms(model, 4)
    context = next(binned.chunks(120, batch_trials=3))
    whole = model.rollout(params, context, uniforms=torch.as_tensor(stream.uniforms(3, range(120), n_units)))
    parts, carry = [], None
    for chunk in binned.chunks(50, batch_trials=3, carry=True):
        bins = range(chunk.first_bin, chunk.first_bin + chunk.n_bins)
        run = model.rollout(params, chunk, uniforms=torch.as_tensor(stream.uniforms(3, bins, n_units)), carry=carry)
        carry = run.carry
        parts.append(run.spikes)
    assert torch.equal(torch.cat(parts, 1), whole.spikes)
    everything = [whole.spikes] + ([whole.latents["hidden_spikes"]] if model.n_hidden else [])
    uniforms = torch.rand(3, 120, n_units, dtype=torch.float64)
    uniforms[:, 0, 4 + model.n_hidden :] = torch.as_tensor(stream.uniforms(3, range(1), n_units))[:, 0, 4 + model.n_hidden :]
    replay = model.rollout(params, context, uniforms=uniforms, observed=torch.cat(everything, -1))
    assert torch.equal(replay.log_prob, whole.log_prob)


def test_hidden_likelihood_averages_to_the_marginal_by_enumeration():
    """exp(log-likelihood) of hidden units sampled forward is an unbiased estimate of P(visible), which 2**8 hidden trains give exactly."""
    binned = binned_spikes(1, 8, 1, rate=0.4)
    model = SpikingNetwork(neuron=SRM(post_spike_tau_ms=()), n_hidden=1, basis="boxes", coupling_ms=1.0)
    params = made(model, binned)
    params |= {
        "bias": torch.tensor([-0.5, -0.3], dtype=torch.float64),
        "coupling": torch.tensor([[[0.0], [1.5]], [[-2.0], [0.0]]], dtype=torch.float64),
    }
    chunk = next(binned.chunks(8))
    visible = chunk.dense("float64")
    hidden = torch.tensor(list(itertools.product([0.0, 1.0], repeat=8)), dtype=torch.float64).unsqueeze(-1)
    both = torch.cat([visible.expand(256, -1, -1), hidden], dim=-1)
    before = torch.cat([torch.zeros(256, 1, 2, dtype=torch.float64), both[:, :-1]], dim=1)
    drive = params["bias"] + torch.stack([1.5 * before[..., 1], -2.0 * before[..., 0]], -1)
    exact = torch.nn.functional.logsigmoid((2 * both - 1) * drive).sum((1, 2)).exp().sum()
    repeats = next(binned.select_trials([0] * 20000).chunks(8, batch_trials=20000))  # every trial has uniforms of its own
    samples = model.log_likelihood(params, repeats, None, Stream(0, "x"))[0].sum(1)
    estimate, error = samples.exp().mean(), samples.exp().std() / 20000**0.5
    assert abs(estimate - exact) < 4.5 * error  # false alarm 7e-6; the seed is fixed
    assert error < 0.01 * exact
    assert samples.mean() < exact.log()  # the bound


def test_signals_are_filtered_causally_and_standardised():
    binned = binned_spikes(1, 40, 2, n_channels=2)
    model = SpikingNetwork(neuron=SRM(post_spike_tau_ms=()), coupling_ms=0.0, signal_before_ms=3.0, n_signal=4)
    params = made(model, binned)
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(2, 2, 4))
    fixed = model.params_from_data(binned)
    params |= to_tensors({"signal": weight, **fixed})
    values = binned.signals["stimulus"].astype(float)
    standard = (values - values.mean(0)) / values.std(0)
    kernel = weight @ lag_basis("raised-cosine", 4, 4.0, 1.0).values  # (post, channel, lag), lag 0 first
    drive = np.tile(params["bias"].numpy(), (40, 1))
    for t, lag in itertools.product(range(40), range(4)):
        if t >= lag:
            drive[t] += kernel[:, :, lag] @ standard[t - lag]
    intensity, _ = model.intensity(params, next(binned.chunks(40)), None)
    np.testing.assert_allclose(intensity[0].numpy(), special.expit(drive), rtol=1e-5)  # signals are float32


def test_dale_signs_connection_rules_and_mask_shape_the_network():
    binned = binned_spikes(populations=["exc", "exc", "inh", "other"])
    model = SpikingNetwork(
        dale=True, n_hidden=2, hidden_signs=(1, -1), connect=("exc->*", "inh->exc", "hidden->*"), n_coupling=2, coupling_init=3.0
    )
    specs = model.param_specs(binned.info())
    values = initial_params(specs, Stream(0, "init"))
    sign = np.array([1, 1, -1, 0, 1, -1])
    assert (values["coupling"] * np.where(sign == 0, 0, sign)[None, :, None] >= 0).all()
    raw = specs["coupling"].constraint.unconstrain(torch.as_tensor(values["coupling"])) + 5.0
    moved = specs["coupling"].constraint.constrain(raw).numpy()
    assert (moved[:, sign != 0] * sign[sign != 0][None, :, None] > 0).all()
    allowed = values["coupling_mask"]
    expected = np.zeros((6, 6))
    expected[:, [0, 1, 4, 5]] = 1
    expected[[0, 1], 2] = 1
    np.fill_diagonal(expected, 0)
    np.testing.assert_array_equal(allowed, expected)
    weight = model.connectivity(to_tensors(values), {}).weight
    assert weight.shape[:2] == (4, 4) and (np.asarray(weight)[expected[:4, :4] == 0] == 0).all()


def test_connectivity_is_post_pre_and_sums_over_lags():
    binned = binned_spikes()
    model = SpikingNetwork(n_coupling=2, n_hidden=1)
    params = made(model, binned)
    params["coupling"] = torch.zeros_like(params["coupling"])
    params["coupling"][2, 0] = torch.tensor([0.5, 0.75])  # neuron 0 drives neuron 2
    weight = np.asarray(model.connectivity(params, {}).weight)
    assert weight[2, 0] == 1.25 and np.count_nonzero(weight) == 1


def test_uncoupled_neurons_have_no_connection():
    model, binned = SpikingNetwork(coupling_ms=0.0, n_hidden=1), binned_spikes()
    np.testing.assert_array_equal(model.connectivity(made(model, binned), {}).weight, np.zeros((4, 4)))


def test_neurons_start_at_the_rates_of_the_data():
    binned = binned_spikes(rate=0.2)
    for neuron in (SRM(), EscapeLIF()):
        model = SpikingNetwork(neuron=neuron, coupling_ms=0.0)
        empty = SpikeChunk.empty(1, 1, 4, 1.0)
        intensity, _ = model.intensity(made(model, binned), empty, None)
        np.testing.assert_allclose(intensity[0, 0].numpy(), binned.mean_count(), rtol=1e-9)


def test_bins_outside_the_mask_are_not_scored_but_feed_history():
    binned = binned_spikes(1, 100, 3)
    model, params = NETWORKS["exponential"], None
    params = made(model, binned)
    whole, _ = model.log_likelihood(params, next(binned.chunks(100)), None, Stream(0, "x"))
    head, _ = model.log_likelihood(params, next(binned.select_bins(0, 0, 40).chunks(40)), None, Stream(0, "x"))
    tail, _ = model.log_likelihood(params, next(binned.select_bins(0, 0, 100, warmup_bins=40).chunks(100)), None, Stream(0, "x"))
    torch.testing.assert_close(head + tail, whole, rtol=1e-12, atol=0)


def test_wrong_settings_and_data_are_refused():
    with pytest.raises(InvalidInputError, match="3 problems"):
        SpikingNetwork(n_hidden=-1, basis="cosine", emission="gauss")
    with pytest.raises(InvalidInputError, match="hidden_signs"):
        SpikingNetwork(n_hidden=2, hidden_signs=(1,))
    with pytest.raises(InvalidInputError, match="no neuron model"):
        SpikingNetwork(neuron="lif")
    counts = np.zeros((1, 10, 2), dtype=int)
    counts[0, 3, 1] = 2
    double = Recording.from_counts(counts, dt_ms=1.0).bin()
    model = SpikingNetwork()
    with pytest.raises(InvalidInputError, match="holds 2 spikes"):
        model.log_likelihood(made(model, double), next(double.chunks(10)), None, Stream(0, "x"))
    with pytest.raises(InvalidInputError, match="uniforms have 2 neurons"):
        hidden = SpikingNetwork(n_hidden=3)
        hidden.rollout(made(hidden, double), next(double.chunks(10)), uniforms=torch.rand(1, 10, 2))
    with pytest.raises(InvalidInputError, match="connect rule"):
        SpikingNetwork(connect=("E->I",)).param_specs(double.info())
    with pytest.raises(InvalidInputError, match="signals names 'speed'"):
        SpikingNetwork(signals=("speed",)).param_specs(double.info())


def test_a_neuron_model_that_takes_the_networks_names_is_refused():
    class Clash(SRM):
        def param_specs(self, n_neurons):
            return {**super().param_specs(n_neurons), "coupling": ParamSpec((n_neurons,), "1")}

    with pytest.raises(PluginError, match="parameters called coupling"):
        SpikingNetwork(neuron=Clash()).param_specs(binned_spikes().info())


def test_runaway_feedback_stays_finite_and_is_pushed_down():
    """Without a ceiling these counts pass 1e20 within a few bins, and no gradient is finite."""
    binned = binned_spikes(8, 100, 2, rate=0.2)
    model = SpikingNetwork(neuron=SRM(post_spike_tau_ms=(10.0,)), emission="poisson", coupling_ms=0.0)
    params = made(model, binned)
    params["post_spike_weight"] = torch.ones(2, 1, dtype=torch.float64, requires_grad=True)
    uniforms = torch.as_tensor(Stream(0, "x").uniforms(8, range(100), 2))
    run = model.rollout(params, binned.chunk(range(8), 0, 100), uniforms=uniforms)
    assert 0.8 < run.spikes[:, 50:].mean() < 1.2  # 1000 Hz in bins of 1 ms
    too_many = (run.latents["expected"].mean(0) - 0.2).square().mean()
    gradient = torch.autograd.grad(too_many, params["post_spike_weight"])[0]
    assert torch.isfinite(gradient).all() and (gradient > 0).all()


def test_channels_faster_than_sampled_counts_are_refused():
    counts = np.random.default_rng(0).poisson(30.0, (5, 20, 2))
    info = Recording.from_counts(counts, dt_ms=10.0).bin().info()
    with pytest.raises(InvalidInputError, match=r"fires at 3,0\d\d Hz.*Raise highest_hz"):
        SpikingNetwork(emission="poisson").param_specs(info)
    assert SpikingNetwork(emission="poisson", highest_hz=3e4).param_specs(info)


@pytest.mark.parametrize("basis", ["exponential", "raised-cosine"])
def test_clamped_drive_and_its_gradient_are_the_same_in_every_backend(basis):
    binned = binned_spikes(3, 40, 4, rate=0.3)
    found = []
    for backend, n_bins in (("step", 40), ("step", 7), ("reference", 7), ("numba", 40), ("numba", 7)):
        model = SpikingNetwork(basis=basis, n_coupling=2, coupling_ms=6.0, delay_ms=2.0, backend=backend)
        params = to_tensors(initial_params(model.param_specs(binned.info()), Stream(0, "init")))
        params["coupling"].requires_grad_()
        drives, carry = [], None
        for chunk in binned.chunks(n_bins, batch_trials=3, carry=True):
            run = model.clamped(params, chunk, carry, Stream(0, "x"))
            drives.append(run.latents["drive"])
            carry = run.carry
        drive = torch.cat(drives, 1)[:, :40]
        (gradient,) = torch.autograd.grad(drive.square().sum(), params["coupling"])
        found.append((drive.detach(), gradient))
    for drive, gradient in found[1:]:
        torch.testing.assert_close(drive, found[0][0], rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(gradient, found[0][1], rtol=1e-10, atol=1e-10)


def test_the_log_probability_is_computed_when_asked_for_with_the_gradients_wanted_before(monkeypatch):
    binned = Recording.from_counts((np.random.default_rng(0).random((2, 20, 3)) < 0.2).astype(int), dt_ms=1.0).bin()
    model, n_calls = SpikingNetwork(), []
    specs = model.param_specs(binned.info())
    params = {name: value.requires_grad_() for name, value in to_tensors(initial_params(specs, Stream(0, "init"))).items()}
    own = SpikingNetwork._log_prob
    monkeypatch.setattr(SpikingNetwork, "_log_prob", lambda *given: n_calls.append(1) or own(*given))
    run = model.clamped(params, binned.chunk(range(2), 0, 20), None, Stream(0, "x"))
    assert not n_calls
    with torch.no_grad():
        first = run.log_prob
    assert first is run.log_prob and len(n_calls) == 1 and first.requires_grad
    with torch.no_grad():
        assert not model.clamped(params, binned.chunk(range(2), 0, 20), None, Stream(0, "x")).log_prob.requires_grad
    assert torch.equal(replace(run, log_prob=2.0 * first).log_prob, 2.0 * first)


def test_hidden_units_are_marked_on_the_device_of_the_spikes():
    _, mask = _observed_units(torch.zeros(1, 2, 3, device="meta"), torch.ones(3, dtype=torch.bool), 5)
    assert mask.device.type == "meta" and mask.shape == (5,)
    assert _observed_units(torch.zeros(1, 2, 3, device="meta"), None, 5)[1].device.type == "meta"
    assert _observed_units(torch.zeros(1, 2, 3), None, 5)[1].tolist() == [True] * 3 + [False] * 2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("n_hidden", [0, 2])
def test_losses_on_free_runs_are_those_of_the_cpu_on_a_cuda_device(n_hidden):
    counts = (np.random.default_rng(0).random((12, 40, 3)) < 0.2).astype(int)
    recording = Recording.from_counts(counts, dt_ms=5.0, conditions=["a"] * 12)
    terms = []
    for device in ("cpu", "cuda"):
        result = fitspike.fit(
            recording,
            SpikingNetwork(n_hidden=n_hidden, time_bumps=4),
            loss={"nll": 1, "psth": 1, "noise_correlation": 0.1, "fano_factor": 0.1, "trial_matching": 0.1, "mmd": 0.1},
            split="none",
            batch={"n_trials": 12},
            stop={"max_steps": 1},
            device=device,
            report=False,
            progress="off",
        )
        terms.append({name: value for name, value in result.history[0].items() if not name.endswith(("_s", "norm"))})
    assert terms[1] == pytest.approx(terms[0], rel=1e-4, abs=1e-6)
