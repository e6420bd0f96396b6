"""PSTH correlation and co-smoothing against hand computation."""

import numpy as np
import pytest
from scipy.stats import poisson

from fitspike.recording.recording import Recording
from fitspike.scoring import ScoreSettings, TrainingRate, score_model
from fitspike.scoring.co_smoothing import chunk_of_spikes
from fitspike.scoring.psth import PsthSums


def test_psth_correlation_equals_numpy():
    draw = np.random.default_rng(11)
    n_trials, n_bins = 24, 12
    condition = np.arange(n_trials) % 2
    expected = np.exp(draw.normal(-1, 0.7, size=(2, n_bins, 3)))[condition] * draw.uniform(0.8, 1.2, size=(n_trials, 1, 1))
    counts = draw.poisson(expected)
    binned = Recording.from_counts(counts, dt_ms=10.0, conditions=condition.astype(str)).bin()
    sums = PsthSums.make(binned, 20.0)
    for chunk in binned.chunks(5, batch_trials=7):
        sums.add(chunk, expected[chunk.trial][:, chunk.first_bin : chunk.first_bin + chunk.n_bins])
    found = sums.finish(binned.dt_ms)

    def windows(values):
        return np.stack([values[condition == c].mean(0).reshape(n_bins // 2, 2, 3).sum(1) for c in (0, 1)])

    data, model = windows(counts), windows(expected)
    for i in range(3):
        assert found.correlation[i] == pytest.approx(np.corrcoef(data[..., i].ravel(), model[..., i].ravel())[0, 1], rel=1e-10)
    np.testing.assert_allclose(found.model_hz, model / 0.02, rtol=1e-10)
    assert found.median.value == pytest.approx(np.median(found.correlation))
    assert 0 < found.median.se < 0.2


def test_no_psth_without_repeats():
    assert PsthSums.make(Recording.from_counts(np.ones((50, 2), int), dt_ms=10.0).bin(), 20.0) is None


def test_co_smoothing_of_a_neuron_without_own_history_is_its_likelihood(last_bin_network, simulate_last_bin):
    # Neuron 1 is driven by neuron 0 alone, so hiding it changes nothing: its co-smoothing score is its ordinary one.
    bias, weight = np.log([0.3, 0.1]), np.array([[0.0, 0.0], [1.0, 0.0]])
    counts, expected = simulate_last_bin(bias, weight, 3, 300, seed=12)
    rate = counts.mean((0, 1))
    found = score_model(
        last_bin_network(),
        {"bias": bias, "weight": weight},
        Recording.from_counts(counts.astype(int), dt_ms=10.0).bin(),
        TrainingRate(rate, 900),
        is_binary=False,
        settings=ScoreSettings(n_bootstrap=10, n_samples=3, co_smoothing_bins=900),
        held_out_neurons=np.array([1]),
    )
    gain = poisson.logpmf(counts, expected)[..., 1].sum() - poisson.logpmf(counts, rate)[..., 1].sum()
    assert found["co_smoothing"] == pytest.approx(gain / counts[..., 1].sum() / np.log(2), rel=1e-10)
    assert np.isnan(found.per_neuron["co_smoothing"][0])


def test_co_smoothing_does_not_see_the_hidden_neurons_own_spikes(last_bin_network, simulate_last_bin):
    # Strong refractoriness, no coupling: hidden, a neuron is predicted no better than by its mean rate.
    bias, weight = np.log([0.3, 0.3]), np.diag([-3.0, -3.0])
    counts, _ = simulate_last_bin(bias, weight, 20, 400, seed=13, emission="bernoulli")
    found = score_model(
        last_bin_network(emission="bernoulli"),
        {"bias": bias, "weight": weight},
        Recording.from_counts(counts.astype(int), dt_ms=10.0).bin(),
        TrainingRate(counts.mean((0, 1)), 8000),
        is_binary=True,
        settings=ScoreSettings(n_bootstrap=10, n_neuron_groups=2, n_samples=20, co_smoothing_bins=4000),
    )
    assert found["bits_per_spike"] > 0.05
    assert found["co_smoothing"] < 0.01


def test_chunk_of_spikes_gives_the_spikes_back():
    counts = np.random.default_rng(14).poisson(0.4, size=(4, 7, 3))
    context = Recording.from_counts(np.zeros((4, 7, 3), int), dt_ms=5.0).bin().chunk(np.arange(4), 0, 7)
    np.testing.assert_array_equal(chunk_of_spikes(context, counts).dense_numpy(), counts)
