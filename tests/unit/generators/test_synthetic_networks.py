"""Synthetic networks against their own equations, closed forms and settings."""

import numpy as np
import pytest
import torch
from fitspike_datasets.generators_glm import CoupledGLMNetwork
from fitspike_datasets.generators_lif import EscapeNoiseLIFNetwork
from fitspike_datasets.generators_network import draw_modulation, draw_wiring, logistic_blocks

from fitspike.datasets.base import Dataset
from fitspike.errors import InvalidInputError
from fitspike.neurons.lif import EscapeLIF
from fitspike.rng import Stream
from fitspike.statistics import correlograms, from_events

GENERATORS = [CoupledGLMNetwork, EscapeNoiseLIFNetwork]


def dense(recording) -> np.ndarray:
    return recording.bin(1.0).dense_numpy()[0].astype(np.float64)


@pytest.mark.parametrize("generator", GENERATORS)
def test_generator_keeps_the_dataset_protocol(generator):
    dataset = generator()
    assert isinstance(dataset, Dataset)
    assert dataset.describe().name == dataset.name and dataset.describe().is_synthetic


@pytest.mark.parametrize("generator", GENERATORS)
def test_same_seed_gives_the_same_spikes_and_truth(generator):
    dataset = generator(n_neurons=10, duration_s=5.0, hidden_fraction=0.2, common_sd=0.2)
    a, b, c = dataset.load(seed=3), dataset.load(seed=3), dataset.load(seed=4)
    np.testing.assert_array_equal(a.spike_times_ns, b.spike_times_ns)
    np.testing.assert_array_equal(a.spike_neuron, b.spike_neuron)
    assert a.n_spikes != c.n_spikes or (a.spike_times_ns != c.spike_times_ns).any()
    np.testing.assert_array_equal(dataset.truth(seed=3).weight, dataset.truth(seed=3).weight)


def test_glm_spikes_follow_the_equation():
    """The drive, computed anew from all spikes with plain loops, exceeds the same logistic thresholds exactly at the spikes."""
    dataset = CoupledGLMNetwork(n_neurons=6, duration_s=3.0, rate_hz=20.0, connection_probability=0.4, max_delay_ms=3.0, common_sd=0.3)
    truth, spikes = dataset.truth(seed=1), dense(dataset.load(seed=1))
    stream = Stream(1, dataset.name)
    modulation = draw_modulation(dataset, 6, stream).block(0, len(spikes))
    threshold = np.concatenate([block for _, block in logistic_blocks(stream.child("spikes"), len(spikes), 6)])
    coupling, history = np.zeros((6, 6)), np.zeros(6)
    for t in range(len(spikes)):
        coupling *= np.exp(-1 / 10.0)
        history *= np.exp(-1 / 5.0)
        if t:
            history += -3.0 * spikes[t - 1]
        for post, pre in np.argwhere(truth.weight != 0):
            delay = int(truth.delay_ms[post, pre])
            if t >= delay and spikes[t - delay, pre]:
                coupling[post, pre] += truth.weight[post, pre]
        drive = truth.values["bias"] + coupling.sum(1) + history + modulation[t]
        np.testing.assert_array_equal(drive > threshold[t], spikes[t] > 0)


def test_lif_spikes_follow_the_neuron_model_of_the_core():
    """The core's EscapeLIF, clamped to the spikes, spikes at the same logistic thresholds."""
    dataset = EscapeNoiseLIFNetwork(n_neurons=5, duration_s=3.0, rate_hz=20.0, connection_probability=0.5, max_delay_ms=3.0)
    truth, spikes = dataset.truth(seed=2), dense(dataset.load(seed=2))
    threshold = np.concatenate([block for _, block in logistic_blocks(Stream(2, dataset.name).child("spikes"), len(spikes), 5)])
    model = EscapeLIF(refractory_ms=2.0)
    params = {
        "tau_m_ms": torch.full((5,), 15.0, dtype=torch.float64),
        "rest_mv": torch.zeros(5, dtype=torch.float64),
        "threshold_mv": torch.as_tensor(truth.values["threshold_mv"]),
        "softness_mv": torch.full((5,), 2.0, dtype=torch.float64),
    }
    state, last = model.init_state(params, 1), torch.zeros(1, 5, dtype=torch.float64)
    for t in range(len(spikes)):
        current = np.zeros(5)
        for post, pre in np.argwhere(truth.weight != 0):
            delay = int(truth.delay_ms[post, pre])
            if t >= delay:
                current[post] += truth.weight[post, pre] * spikes[t - delay, pre]
        state, drive = model.step(params, state, torch.as_tensor(current)[None], last, 1.0)
        np.testing.assert_array_equal(drive[0].numpy() > threshold[t], spikes[t] > 0)
        last = torch.as_tensor(spikes[t])[None]


@pytest.mark.parametrize("generator", GENERATORS)
def test_wiring_keeps_dale_delays_probability_and_hidden_fraction(generator):
    dataset = generator(n_neurons=80, duration_s=1.0, hidden_fraction=0.2, inhibitory_fraction=0.25, min_delay_ms=2.0, max_delay_ms=5.0)
    wiring = draw_wiring(dataset, Stream(0, dataset.name))
    assert wiring.n_total == 100 and (wiring.sign < 0).sum() == 25
    connected = wiring.weight != 0
    assert not connected.diagonal().any()
    assert connected.mean() == pytest.approx(0.1 * 0.99, abs=0.012)  # 4 standard errors of 9900 draws
    assert (np.sign(wiring.weight) == np.where(connected, wiring.sign[None, :], 0)).all()  # one sign per presynaptic column
    assert set(np.unique(wiring.delay_bins[connected])) == {2, 3, 4, 5}
    assert wiring.weight[:, wiring.sign > 0][connected[:, wiring.sign > 0]].mean() == pytest.approx(dataset.weight, rel=0.1)
    truth = dataset.truth(seed=0)
    assert truth.weight.shape == (80, 80) and truth.values["weight_from_hidden"].shape == (80, 20)
    assert dataset.load(seed=0).n_neurons == 80
    np.testing.assert_array_equal(np.isnan(truth.delay_ms), truth.weight == 0)


@pytest.mark.parametrize("generator", GENERATORS)
def test_rates_come_near_their_targets_and_stay(generator):
    dataset = generator(n_neurons=40, duration_s=40.0)
    binned = dataset.load(seed=5).bin(1.0)
    ratio = from_events.firing_rates_hz(binned) / dataset.truth(seed=5).values["target_rate_hz"]
    assert 0.85 < ratio.mean() < 1.15
    assert np.abs(np.log(ratio)).max() < 0.5  # calibration and counting noise of about 0.1 each
    halves = [from_events.trial_rates_hz(binned.select_bins(0, start, start + 20_000))[0] for start in (0, 20_000)]
    assert halves[0] == pytest.approx(halves[1], rel=0.07)  # 5 standard errors of 4000 spikes a half


@pytest.mark.parametrize("generator", GENERATORS)
def test_network_without_weights_has_no_correlations(generator):
    dataset = generator(n_neurons=30, duration_s=40.0, weight=0.0)
    assert not dataset.truth(seed=0).weight.any()
    found = from_events.count_statistics(dataset.load(seed=0).bin(1.0), 50.0)
    pairs = found.correlation[np.triu_indices(30, 1)]
    assert abs(pairs.mean()) < 4 / np.sqrt(len(pairs) * found.n_windows)
    assert pairs.std() == pytest.approx(1 / np.sqrt(found.n_windows), rel=0.15)


def test_independent_neurons_without_history_are_bernoulli():
    """Counts of n bins have Fano factor 1 - p, intervals are geometric with CV sqrt(1 - p)."""
    dataset = CoupledGLMNetwork(n_neurons=20, duration_s=50.0, weight=0.0, history_weight=0.0, rate_hz=80.0, rate_spread=0.0)
    binned = dataset.load(seed=1).bin(1.0)
    prob = from_events.firing_rates_hz(binned).mean() / 1000
    assert from_events.count_statistics(binned, 20.0).fano.mean() == pytest.approx(1 - prob, abs=0.02)
    assert from_events.interval_statistics(binned).cv.mean() == pytest.approx(np.sqrt(1 - prob), abs=0.01)


@pytest.mark.parametrize("generator,weight", [(CoupledGLMNetwork, 1.5), (EscapeNoiseLIFNetwork, 4.0)])
def test_targets_follow_their_sources_after_the_delay(generator, weight):
    """The truth is [post, pre]: correlograms jump at its delays; the transposed truth does not fit."""
    settings = {"n_neurons": 15, "duration_s": 60.0, "rate_hz": 20.0, "connection_probability": 0.07, "inhibitory_fraction": 0.0}
    dataset = generator(**settings, weight=weight, min_delay_ms=3.0, max_delay_ms=6.0)
    truth = dataset.truth(seed=0)
    correlogram = correlograms.cross_correlogram_hz(dataset.load(seed=0).bin(1.0), 8)
    posts, pres = np.nonzero(truth.weight > 0.5 * weight)
    jumps = np.diff(correlogram, axis=-1)[posts, pres, 2:]  # change from lag d - 1 to d, for d = 3 .. 8
    assert np.mean(jumps.argmax(-1) + 3 == truth.delay_ms[posts, pres]) > 0.9
    effect = correlogram[:, :, 3:].mean(-1) / correlogram[:, :, 1:3].mean((1, 2))[:, None]
    off = ~np.eye(15, dtype=bool)
    assert np.corrcoef(effect[off], truth.weight[off])[0, 1] > 0.7
    assert np.corrcoef(effect[off], truth.weight.T[off])[0, 1] < 0.4


SILENT_NETWORK = {"n_neurons": 20, "duration_s": 40.0, "weight": 0.0}


def test_bursts_raise_the_rate_at_their_times():
    dataset = CoupledGLMNetwork(**SILENT_NETWORK, burst_rate_hz=0.5, burst_gain=2.5)
    recording, starts = dataset.load(seed=0), dataset.truth(seed=0).values["burst_start_s"]
    assert len(starts) == pytest.approx(20, abs=18)  # 4 standard deviations
    time = recording.spike_times_ns / 1e9
    inside = np.any((time[:, None] >= starts) & (time[:, None] < starts + 0.1), axis=1)
    grid = np.arange(0, 40, 1e-3)
    share = np.any((grid[:, None] >= starts) & (grid[:, None] < starts + 0.1), axis=1).mean()
    ratio = inside.mean() / share / ((1 - inside.mean()) / (1 - share))
    assert 6 < ratio < np.exp(2.5) + 1  # refractoriness keeps it below exp(2.5)


def test_shared_input_correlates_and_drift_disperses_counts():
    shared = CoupledGLMNetwork(**SILENT_NETWORK, common_sd=0.7).load(seed=0).bin(1.0)
    pairs = from_events.count_statistics(shared, 100.0).correlation[np.triu_indices(20, 1)]
    assert pairs.mean() > 0.05  # 14 standard errors of independent trains
    assert from_events.firing_rates_hz(shared).mean() == pytest.approx(5.5, rel=0.15)  # the mean of log-normal rates around 5, not more
    drifting = CoupledGLMNetwork(**SILENT_NETWORK, drift_sd=0.7, drift_tau_s=20.0).load(seed=0).bin(1.0)
    assert from_events.count_statistics(drifting, 5000.0).fano.mean() > 3  # a steady neuron has about 1


def test_impossible_settings_are_refused_together():
    with pytest.raises(InvalidInputError) as error:
        CoupledGLMNetwork(n_neurons=0, hidden_fraction=1.0, min_delay_ms=0.1)
    assert "3 problems" in str(error.value) and "at least one bin" in str(error.value)
    with pytest.raises(InvalidInputError, match="runs away"):
        CoupledGLMNetwork(n_neurons=50, weight=20.0, inhibitory_fraction=0.0).load()
