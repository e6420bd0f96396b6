"""Trials of two areas against their own equation."""

from dataclasses import replace

import numpy as np
import pytest
from fitspike_datasets.generators_two_areas import TwoAreaTrials

from fitspike.datasets.base import Dataset
from fitspike.errors import InvalidInputError

DATASET = TwoAreaTrials(n_train=1500, n_test=500)


def dense(recording):
    return np.asarray(recording.bin().dense_numpy(), dtype=np.float64)  # (n_trials, n_bins, n_neurons)


def response(t, rise=5.0, decay=20.0):
    """Return a difference of exponentials whose largest value, found on a fine grid, is 1."""
    grid = np.arange(0, 200, 0.001)
    scale = (np.exp(-grid / decay) - np.exp(-grid / rise)).max()
    return np.where(t > 0, np.exp(-np.abs(t) / decay) - np.exp(-np.abs(t) / rise), 0.0) / scale


def test_hits_misses_and_both_areas_follow_their_rates():
    assert isinstance(DATASET, Dataset)
    dataset = replace(DATASET, jitter_ms=0.0)
    recording, truth = dataset.load(seed=1), dataset.truth(seed=1).values
    spikes, hit = dense(recording), np.asarray(recording.trials.column("hit"))
    np.testing.assert_array_equal(hit, truth["hit"])
    assert hit.mean() == pytest.approx(0.8, abs=4 * np.sqrt(0.16 / 2000))
    middle = np.arange(100) * 2.0 + 1.0
    area = np.array([1] * 30 + [2] * 30)
    assert recording.neurons.populations.tolist() == [f"area {a}" for a in area]
    for chosen, areas in ((hit, {1: 1.0, 2: 1.0}), (~hit, {1: 1.0, 2: 0.0})):
        for number, delay in ((1, 4.0), (2, 8.0)):
            members = area == number
            gain = 1 + 3 * areas[number] * truth["strength"][members] * response(middle - 50 - delay)[:, None]
            prob = 1 - np.exp(-truth["baseline_hz"][members] * gain * 0.002)
            z = (spikes[chosen][..., members].mean(0) - prob) / np.sqrt(prob * (1 - prob) / chosen.sum())
            assert abs(z.mean()) < 4 / np.sqrt(z.size)
            assert z.std() == pytest.approx(1, abs=4 / np.sqrt(2 * z.size))
    mean = truth["rate_hz"]
    np.testing.assert_allclose(mean[0], truth["baseline_hz"])
    late = 1 + 3 * hit.mean() * truth["strength"][30:] * response(middle[40] - 58)
    np.testing.assert_allclose(mean[40, 30:], truth["baseline_hz"][30:] * late)


def test_area_2_is_bimodal_over_trials_and_area_1_is_not():
    spikes = dense(DATASET.load(seed=2))
    counts = [spikes[:, 30:50, members].sum((1, 2)) for members in (slice(0, 30), slice(30, 60))]
    fano = [one.var() / one.mean() for one in counts]
    assert fano[0] == pytest.approx(1, abs=0.25)
    assert fano[1] > 2


def test_neurons_have_the_rates_and_strengths_that_settings_say():
    truth = TwoAreaTrials(n_neurons=4000, n_train=1, n_test=0, n_bins=30).truth(seed=0).values
    is_inhibitory, strength = truth["is_inhibitory"], truth["strength"]
    assert is_inhibitory.mean() == 0.2 and is_inhibitory[:2000].mean() == 0.2
    assert truth["baseline_hz"][~is_inhibitory].mean() == pytest.approx(8, rel=0.04)
    assert truth["baseline_hz"][is_inhibitory].mean() == pytest.approx(16, rel=0.08)
    assert [np.mean(strength == one) for one in (0, 1, 2)] == pytest.approx([0.2, 0.6, 0.2], abs=0.03)


def test_trials_say_their_part_and_when_the_stimulus_comes():
    dataset = TwoAreaTrials(n_train=6, n_test=4)
    recording = dataset.load(seed=3)
    assert recording.trials.column("part").tolist() == ["train"] * 6 + ["test"] * 4
    assert dataset.describe().settings[""]["split"] == "trial:test=6-9"
    signal = recording.bin().signal_values("stimulus", 300, 400)[:, 0]
    assert signal.sum() == 1 and signal[25] == 1  # the bin from 50 ms on


def test_same_seed_same_trials_and_fresh_ones_on_demand():
    spikes = dense(TwoAreaTrials(n_train=20, n_test=5).load(seed=4))
    np.testing.assert_array_equal(spikes, dense(TwoAreaTrials(n_train=20, n_test=5).load(seed=4)))
    np.testing.assert_array_equal(spikes, dense(TwoAreaTrials(n_train=20, n_test=15).load(seed=4))[:25])
    fresh = TwoAreaTrials(n_train=20, n_test=5, trial_seed=1)
    assert (dense(fresh.load(seed=4)) != spikes).any()
    np.testing.assert_array_equal(fresh.truth(seed=4).values["baseline_hz"], TwoAreaTrials(n_train=20).truth(seed=4).values["baseline_hz"])


def test_wrong_settings_are_refused():
    with pytest.raises(InvalidInputError, match="3 problems"):
        TwoAreaTrials(hit_probability=1.2, stimulus_ms=300.0, rise_ms=20.0)
