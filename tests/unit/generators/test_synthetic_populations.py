"""Recordings of a few neurons out of populations: against renewal theory, their own truth, and the published switching."""

from dataclasses import replace

import fitspike_datasets.generators_populations as generators
import numpy as np
import pytest
from fitspike_datasets.generators_populations import PopulationNetwork

from fitspike import load
from fitspike.datasets.base import Dataset
from fitspike.datasets.fetching import make
from fitspike.datasets.truth import load_truth
from fitspike.errors import InvalidInputError
from fitspike.statistics.winners import box_smoothed, dwell_times_s, winning_population

SMALL = PopulationNetwork(sizes=(30, 20, 10), n_observed=(30, 20, 10), duration_s=1.0, n_trials=2, burn_in_s=0.2, delay_ms=1.0)
ONE = PopulationNetwork(sizes=(2000,), rest=6.0, coupling=((0.0,),), tau_syn_ms=3.0, n_observed=4)


def dense(recording, dt_ms=4.0):
    return np.asarray(recording.bin(dt_ms).dense_numpy(), dtype=np.float64)  # (n_trials, n_bins, n_neurons)


def test_recording_of_all_neurons_holds_the_activity_of_the_truth():
    assert isinstance(SMALL, Dataset)
    recording, truth = SMALL.load(seed=1), SMALL.truth(seed=1).values
    spikes = dense(recording)
    assert recording.neurons.populations.tolist() == ["0"] * 30 + ["1"] * 20 + ["2"] * 10
    np.testing.assert_array_equal(truth["membership"].astype(str), recording.neurons.populations)
    rates = np.stack([spikes[..., truth["membership"] == m].mean(-1) / 0.004 for m in range(3)], axis=-1)
    np.testing.assert_allclose(rates, truth["activity_hz"], rtol=1e-12)
    assert spikes.sum() > 1000
    for neuron in range(60):
        assert np.diff(recording.train_s(neuron)).min() > 0.004


def test_fewer_observed_neurons_are_the_first_ones_of_the_same_network():
    few, whole = replace(SMALL, n_observed=(3, 0, 1)), dense(SMALL.load(seed=2))
    np.testing.assert_array_equal(dense(few.load(seed=2)), whole[..., [0, 1, 2, 50]])
    np.testing.assert_array_equal(few.truth(seed=2).values["activity_hz"], SMALL.truth(seed=2).values["activity_hz"])
    assert few.truth(seed=2).values["membership"].tolist() == [0, 0, 0, 2]


@pytest.mark.parametrize("chunk_bins", [1, 37, 10_000])
def test_results_do_not_depend_on_chunk_size(chunk_bins, monkeypatch):
    dataset = replace(SMALL, pulse_starts_s=(0.3,), common_sd_per_s=40.0)
    recording, truth = dataset.load(seed=3), dataset.truth(seed=3)
    monkeypatch.setattr(generators, "CHUNK_BINS", chunk_bins)
    again = dataset.load(seed=3)
    np.testing.assert_array_equal(again.spike_times_ns, recording.spike_times_ns)
    np.testing.assert_array_equal(again.spike_neuron, recording.spike_neuron)
    np.testing.assert_array_equal(dataset.truth(seed=3).values["activity_hz"], truth.values["activity_hz"])


def test_more_trials_are_further_trials_and_seeds_differ():
    first = SMALL.truth(seed=4).values["activity_hz"]
    np.testing.assert_array_equal(replace(SMALL, n_trials=3).truth(seed=4).values["activity_hz"][:2], first)
    assert not np.array_equal(first[0], first[1])
    assert not np.array_equal(SMALL.truth(seed=5).values["activity_hz"], first)


def test_pulse_moves_one_population_to_the_rate_of_its_raised_rest():
    # tau * 175 / s raises the rest from 6 to 9.5: 6.732 and 24.090 Hz by integrating the survival probability.
    dataset = replace(
        ONE,
        sizes=(1000, 1000),
        coupling=((0.0, 0.0), (0.0, 0.0)),
        start_hz=6.732,
        burn_in_s=0.0,
        duration_s=1.2,
        n_trials=10,
        pulse_starts_s=(0.4,),
        pulse_population=1,
        pulse_ms=600.0,
        pulse_per_s=175.0,
    )
    truth, recording = dataset.truth(seed=0).values, dataset.load(seed=0)
    signal = recording.bin(4.0).signal_values("input", 0, 300)
    assert recording.signals["input"].unit == "1/s" and signal.shape == (300, 2)
    np.testing.assert_array_equal(signal[:, 0], 0)
    np.testing.assert_array_equal(signal[:, 1], np.where((np.arange(300) >= 100) & (np.arange(300) < 250), 175.0, 0.0))
    rates = truth["activity_hz"].mean(0)
    for window, population, expected in (
        (slice(0, 100), 0, 6.732),
        (slice(0, 100), 1, 6.732),
        (slice(175, 250), 1, 24.09),
    ):
        n = 10_000 * (window.stop - window.start) * 0.004 * expected
        # Over a few intervals counts are at most Poisson: four standard errors of that.
        assert rates[window, population].mean() == pytest.approx(expected, rel=4 / np.sqrt(n))
    assert rates[:, 0].mean() == pytest.approx(6.732, rel=0.03)
    assert "winner" not in truth  # nobody excites anybody


def test_common_input_is_an_ornstein_uhlenbeck_process():
    dataset = replace(SMALL, duration_s=200.0, n_trials=1, common_sd_per_s=30.0, common_tau_ms=20.0)
    value = dataset._input(0, generators.Stream(0, "x"))
    np.testing.assert_array_equal(value[:, 0], value[:, 2])
    x = value[:, 0]
    n_independent = 200 / (2 * 0.02)  # of 50000 bins; standard errors follow from it
    assert x.std() == pytest.approx(30, rel=4 / np.sqrt(2 * n_independent))
    for lag in (1, 5, 10):
        assert np.corrcoef(x[:-lag], x[lag:])[0, 1] == pytest.approx(np.exp(-lag * 4 / 20), abs=4 / np.sqrt(n_independent))


def test_one_population_fires_at_the_renewal_rate_or_settles_with_its_own_inhibition():
    values = replace(ONE, duration_s=5.0).truth(seed=0).values
    assert values["activity_hz"].shape == (1, 1250, 1)
    assert values["activity_hz"].mean() == pytest.approx(6.732, rel=4 * 0.69 / np.sqrt(2000 * 5 * 6.732))
    # rest - tau |J| A = 6 where A is the renewal rate of 6: the network with self-inhibition must settle there.
    inhibited = replace(ONE, rest=6 + 0.02 * 10 * 6.732, coupling=((-10.0,),), duration_s=5.0)
    assert inhibited.truth(seed=0).values["activity_hz"].mean() == pytest.approx(6.732, rel=0.01)


def test_coupling_runs_from_second_index_to_first():
    # Population 0 at 6.732 Hz lifts the rest of population 1 by 0.02 * J * 6.732 = 2 to 8: 17.033 Hz. Nothing comes back.
    dataset = PopulationNetwork(
        sizes=(2000, 2000), rest=6.0, coupling=((0, 0), (2 / (0.02 * 6.732), 0)), tau_syn_ms=20.0, duration_s=5.0, n_observed=1
    )
    rates = dataset.truth(seed=0).values["activity_hz"].mean((0, 1))
    np.testing.assert_allclose(rates, [6.732, 17.033], rtol=0.02)


def test_settings_that_cannot_be_are_refused_all_at_once():
    with pytest.raises(InvalidInputError) as caught:
        PopulationNetwork(sizes=(10, 10), rest=(1.0,), n_observed=11, t_ref_ms=0.3, pulse_starts_s=(99.0,))
    for part in ("rest=(1.0,)", "n_observed=11", "coupling has rows of lengths [3, 3, 3]", "a pulse starts at 99.0 s"):
        assert part in str(caught.value)
    with pytest.raises(InvalidInputError, match="n_observed=0 leaves nothing to record"):
        PopulationNetwork(n_observed=0)
    with pytest.raises(InvalidInputError, match=r"t_ref_ms=0.3 is no whole number of steps of 0.2 ms"):
        PopulationNetwork(t_ref_ms=0.3)


def test_settings_from_a_file_are_lists():
    dataset = PopulationNetwork(sizes=[5, 5, 5], coupling=[[0, 0, 0]] * 3, tau_syn_ms=[1, 2, 3], n_observed=[1, 1, 1], duration_s=0.4)
    assert dataset.sizes == (5, 5, 5) and hash(dataset) == hash(replace(dataset))
    assert dataset.load(seed=0).n_neurons == 3


def test_dataset_is_made_from_the_registry_with_its_truth_in_the_folder(tmp_path):
    folder = make("population-network", tmp_path / "made", seed=6, settings={"sizes": [30, 20, 10], "duration_s": 0.4, "n_observed": 2})
    kept = load_truth(folder).values
    expected = PopulationNetwork(sizes=(30, 20, 10), duration_s=0.4, n_observed=2).truth(seed=6).values
    assert kept.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(kept[name], value)
    assert load(folder).neurons.populations.tolist() == ["0", "0", "1", "1", "2", "2"]


@pytest.mark.slow
def test_default_network_takes_turns_as_published():
    high, low, inhibitory, dwells, n_switches = [], [], [], [], 0
    dataset = PopulationNetwork(duration_s=200.0)
    for seed in range(3):
        truth = dataset.truth(seed=seed).values
        rate, winner = truth["activity_hz"][0], truth["winner"][0]
        np.testing.assert_array_equal(winner, winning_population(rate[:, :2], 0.004))
        smooth = box_smoothed(rate[:, :2], 20)
        is_apart = np.abs(smooth[:, 0] - smooth[:, 1]) > 6  # in one of the two states, not between them
        ahead = np.argmax(smooth, axis=1)[:, None]
        high.append(np.take_along_axis(rate, ahead, 1)[is_apart].mean())
        low.append(np.take_along_axis(rate, 1 - ahead, 1)[is_apart].mean())
        inhibitory.append(rate[is_apart, 2].mean())
        dwells.append(dwell_times_s(winner, 0.004))
        n_switches += len(truth["switch_s"])
    dwells = np.concatenate(dwells)
    # Science note, exact scheme, step 0.2 ms: 18 switches per 100 s, dwells of mean 5.6 s and CV 0.95, rates 18.9 / 6.0 / 24.6 Hz.
    # With 600 s against 200 s the standard error of the ratio of counts is sqrt(1/108 + 1/36) = 19 %; three of them.
    assert n_switches / 6 == pytest.approx(18, rel=0.57)
    assert dwells.mean() == pytest.approx(5.6, rel=0.57)
    assert 0.7 < dwells.std() / dwells.mean() < 1.3
    assert np.mean(high) == pytest.approx(18.9, abs=0.15)
    assert np.mean(low) == pytest.approx(6.0, abs=0.15)
    assert np.mean(inhibitory) == pytest.approx(24.6, abs=0.1)


@pytest.mark.slow
def test_photo_stimulation_switches_the_winner_as_published():
    base = PopulationNetwork(n_trials=200, duration_s=1.2, start_hz=(18.9, 6.0, 24.5), burn_in_s=0.0, pulse_starts_s=(0.5,), pulse_ms=100.0)
    # Switch probabilities of the science note from 40 repetitions each, at 1.0 to 1.2 s; without a pulse, what 18 switches per 100 s give.
    cases = {(1, 40.0): (1.0, 40), (1, 80.0): (1.0, 40), (1, 160.0): (0.9, 40), (2, 160.0): (0.38, 40), (0, 0.0): (0.18 * 1.1, np.inf)}
    for (population, per_s), (expected, n_note) in cases.items():
        rates = replace(base, pulse_population=population, pulse_per_s=per_s).truth(seed=0).values["activity_hz"]
        settled = rates[:, 25:125].mean(axis=(0, 1))  # 0.1 to 0.5 s; if 5 % have switched by then, 0.6 Hz off
        np.testing.assert_allclose(settled, [18.9, 6.0, 24.6], atol=0.6)
        late = rates[:, 250:].mean(axis=1)
        switched = np.mean(late[:, 1] > late[:, 0])
        pooled = np.clip(expected, 0.05, 0.95)
        assert switched == pytest.approx(expected, abs=3.5 * np.sqrt(pooled * (1 - pooled) * (1 / 200 + 1 / n_note)))
