"""Latents that are constant in a trial: their current by hand, whatever the chunks, and the marginal likelihood by quadrature."""

import numpy as np
import pytest
import torch
from scipy import integrate, special

import fitspike
from fitspike.errors import InvalidInputError
from fitspike.learning.free_runs import run_free
from fitspike.models.base import n_uniforms
from fitspike.models.spiking_network import SpikingNetwork
from fitspike.neurons.srm import SRM
from fitspike.params import initial_params, to_tensors
from fitspike.recording.recording import Recording
from fitspike.results.simulation import simulate_events
from fitspike.rng import Stream

PLAIN = SRM(post_spike_tau_ms=())


def binned_of(n_trials=3, n_bins=50, n_neurons=4, seed=0):
    rng = np.random.default_rng(seed)
    return Recording.from_counts(list((rng.random((n_trials, n_bins, n_neurons)) < 0.2).astype(int)), dt_ms=1.0).bin()


def made(model, binned):
    return to_tensors(initial_params(model.param_specs(binned.info()), Stream(0, "init")))


def latent_current(params, xi):
    """Return V relu(U xi + a) of xi (n_trials, n_latents) in numpy."""
    u, a, v = (params[name].detach().numpy() for name in ("latent_in", "latent_bias", "latent_out"))
    return np.maximum(xi @ u.T + a, 0) @ v.T


@pytest.mark.parametrize("n_hidden", [0, 2])
def test_current_is_that_of_the_uniforms_of_the_first_bin(n_hidden):
    binned, model = binned_of(), SpikingNetwork(neuron=PLAIN, coupling_ms=0.0, n_hidden=n_hidden, trial_latents=3)
    params = made(model, binned)
    uniforms = Stream(0, "u").uniforms(3, range(50), n_uniforms(model, 4))
    assert uniforms.shape[2] == 7 + n_hidden
    run = model.rollout(params, binned.chunk(range(3), 0, 50), uniforms=torch.as_tensor(uniforms))
    drive = params["bias"].numpy()[:4] + latent_current(params, uniforms[:, 0, 4 + n_hidden :] - 0.5)[:, :4]
    assert np.ptp(drive, axis=0).min() > 0.01
    np.testing.assert_allclose(run.latents["drive"].numpy(), np.repeat(drive[:, None], 50, 1), rtol=1e-12)


def test_spikes_are_those_without_latents_at_the_added_current():
    """Uniforms of neurons do not depend on whether there are latents."""
    binned, model = binned_of(), SpikingNetwork(neuron=PLAIN, trial_latents=1)
    params = made(model, binned)
    params["latent_out"] = torch.zeros_like(params["latent_out"])
    chunk = binned.chunk(range(3), 0, 50)
    free = run_free(model, params, chunk, None, Stream(0, "x"))
    plain = {name: value for name, value in params.items() if not name.startswith("latent")}
    without = run_free(SpikingNetwork(neuron=PLAIN), plain, chunk, None, Stream(0, "x"))
    assert torch.equal(free.rollout.spikes, without.rollout.spikes)


@pytest.mark.parametrize("n_hidden", [0, 1])
def test_likelihood_is_an_unbiased_estimate_of_the_marginal(n_hidden):
    """One latent: the mean over 4000 sampled ones is within four standard errors of the integral over it."""
    binned = binned_of(1, 12, 2)
    model = SpikingNetwork(neuron=PLAIN, coupling_ms=0.0, trial_latents=1, n_hidden=n_hidden)
    params = made(model, binned)
    params["latent_out"] = 8.0 * params["latent_out"]
    spikes, bias = binned.dense_numpy()[0], params["bias"].numpy()[:2]

    def given(xi):
        drive = bias + latent_current(params, np.array([[xi]]))[0, :2]
        return np.prod(special.expit(np.where(spikes > 0, drive, -drive)))

    marginal = integrate.quad(given, -0.5, 0.5, limit=200)[0]
    chunk = binned.chunk(np.zeros(1, int), 0, 12)
    draws = [model.log_likelihood(params, chunk, None, Stream(k, "x"))[0].sum().exp().item() for k in range(4000)]
    assert np.std(draws) > 0.1 * marginal
    assert abs(np.mean(draws) - marginal) < 4 * np.std(draws) / np.sqrt(4000)


def test_simulation_does_not_depend_on_chunks():
    binned, model = binned_of(6), SpikingNetwork(n_hidden=1, trial_latents=2)
    params = {name: value.numpy() for name, value in made(model, binned).items()}
    params["latent_out"] = 10 * params["latent_out"]

    def events(chunk_values):
        parts = zip(*simulate_events(model, params, binned, Stream(0, "free"), chunk_values=chunk_values), strict=True)
        trial, bins, neuron, count = (np.concatenate(part) for part in parts)
        order = np.lexsort((neuron, bins, trial))
        return np.stack([trial, bins, neuron, count])[:, order]

    whole = events(1_000_000)
    np.testing.assert_array_equal(events(60), whole)
    counts = np.bincount(whole[0].astype(int), minlength=6)
    assert counts.std() > 1.5 * np.sqrt(counts.mean()), "trials differ by more than chance"


def test_fit_learns_how_trials_differ():
    """Trials of one of two rates; without the latents the population's counts could not vary by more than chance."""
    rng = np.random.default_rng(0)
    rate = np.where(np.arange(60) % 2, 0.1, 0.4)[:, None, None]
    recording = Recording.from_counts(list((rng.random((60, 40, 5)) < rate).astype(int)), dt_ms=5.0, conditions=["a"] * 60)

    def spread(n_latents):
        result = fitspike.fit(
            recording,
            SpikingNetwork(neuron=PLAIN, coupling_ms=0.0, time_bumps=2, trial_latents=n_latents),
            loss={"trial_matching": 1},
            split="none",
            batch={"n_trials": 60},
            optimiser={"learning_rate": 0.05},
            stop={"max_steps": 100},
            threads=1,
            progress="off",
            report=False,
        )
        counts = result.simulate(signals_from=recording, seed=1).bin().counts().sum(1)
        return counts.std()

    recorded = recording.bin().counts().sum(1).std()
    assert spread(0) < 0.4 * recorded < 0.7 * recorded < spread(2)


def test_impossible_settings_are_refused():
    with pytest.raises(InvalidInputError, match="trial_latents=-1 must not be negative"):
        SpikingNetwork(trial_latents=-1)
    model, binned = SpikingNetwork(trial_latents=2), binned_of()
    with pytest.raises(InvalidInputError, match="4 recorded and 0 hidden and 2 trial latents. Draw uniforms for 6"):
        model.rollout(made(model, binned), binned.chunk(range(3), 0, 50), uniforms=torch.rand(3, 50, 4))
