"""Statistics from events against hand counts, numpy, scipy and elephant."""

import numpy as np
import pytest
from scipy import signal, stats

from fitspike.errors import InvalidInputError
from fitspike.recording.recording import Recording
from fitspike.statistics import from_events, over_time, with_elephant
from fitspike.statistics.correlograms import autocorrelogram_hz, cross_correlogram_hz
from fitspike.statistics.summary import SummarySettings, compare_summaries, summarise


def poisson_counts(seed: int, n_trials: int, n_bins: int, n_neurons: int, mean: float = 0.3) -> np.ndarray:
    return np.random.default_rng(seed).poisson(mean, (n_trials, n_bins, n_neurons))


@pytest.fixture
def trials() -> Recording:
    """Five trials of three neurons with exact spike times, the third neuron silent."""
    rng = np.random.default_rng(3)
    trains = [[np.sort(rng.uniform(0, 2, rng.poisson(30))), np.sort(rng.uniform(0, 2, rng.poisson(12))), np.zeros(0)] for _ in range(5)]
    return Recording.from_trials(trains, durations_s=2.0, conditions=["a"] * 5)


def test_hand_count_of_five_bins():
    # bins of 1 ms; neuron 0 fires in bins 0, 2, 3 and neuron 1 twice in bin 4
    counts = np.zeros((1, 5, 2), int)
    counts[0, [0, 2, 3], 0] = 1
    counts[0, 4, 1] = 2
    binned = Recording.from_counts(counts, dt_ms=1.0).bin()
    assert from_events.firing_rates_hz(binned) == pytest.approx([600.0, 400.0])
    found = from_events.interval_statistics(binned, np.array([0.0, 1.0, 2.0, 3.0]))
    assert found.n_intervals.tolist() == [2, 1]
    assert found.mean_ms.tolist() == [1.5, 0.0]
    assert found.histogram.tolist() == [[0, 1, 1], [1, 0, 0]]
    assert found.cv[0] == pytest.approx(0.5 / 1.5)
    assert found.cv2[0] == pytest.approx(2 * 1 / 3)
    assert found.lv[0] == pytest.approx(3 * 1 / 9)
    # rate of neuron 1 one bin after neuron 0: pairs (3, 4) of 4 bin pairs, over the mean count 0.6
    assert cross_correlogram_hz(binned, 1)[1, 0, 1] == pytest.approx(2 / 4 / 0.6 * 1000)
    assert autocorrelogram_hz(binned, 2)[0, 1:] == pytest.approx([1 / 4 / 0.6 * 1000, 1 / 3 / 0.6 * 1000])


@pytest.mark.parametrize("name", ["isi_cv", "cv2", "lv", "mean_firing_rate"])
def test_interval_statistics_equal_elephant(trials, name):
    found = from_events.interval_statistics(trials)
    ours = from_events.firing_rates_hz(trials) if name == "mean_firing_rate" else getattr(found, name.removeprefix("isi_"))
    reference = with_elephant.statistic(trials, name)
    np.testing.assert_allclose(ours, reference, rtol=1e-9, equal_nan=True)


def test_fano_factor_of_whole_trials_equals_elephant(trials):
    ours = from_events.count_statistics(trials.bin(1.0), 2000.0).fano
    np.testing.assert_allclose(ours, with_elephant.statistic(trials, "fano_factor"), rtol=1e-12, equal_nan=True)
    assert np.isnan(ours[2])


def test_intervals_do_not_depend_on_block_size(trials, monkeypatch):
    whole = from_events.interval_statistics(trials)
    monkeypatch.setattr(from_events, "event_blocks", lambda data: from_events._recording_blocks(data, 7))
    small = from_events.interval_statistics(trials)
    for name in ("n_intervals", "mean_ms", "cv", "cv2", "lv"):
        np.testing.assert_allclose(getattr(small, name), getattr(whole, name), rtol=1e-12)


def test_noise_correlation_equals_numpy_on_centred_counts():
    counts = poisson_counts(0, 12, 20, 4)
    counts += counts[..., :1]  # shared part
    conditions = ["x", "y"] * 6
    binned = Recording.from_counts(counts, dt_ms=10.0, conditions=conditions).bin()
    found = from_events.count_statistics(binned, 50.0, centre="condition")
    windows = counts.reshape(12, 4, 5, 4).sum(2).astype(float)
    for which in (slice(0, None, 2), slice(1, None, 2)):
        windows[which] -= windows[which].mean(0)
    np.testing.assert_allclose(found.correlation, np.corrcoef(windows.reshape(-1, 4).T), rtol=1e-10)
    assert found.n_windows == 48
    for which in (slice(0, None, 2), slice(1, None, 2)):
        windows[which] /= windows[which].std(0)
    found = from_events.count_statistics(binned, 50.0, centre="condition", standardise=True)
    np.testing.assert_allclose(found.correlation, np.corrcoef(windows.reshape(-1, 4).T), rtol=1e-10)


def test_noise_correlation_in_part_of_the_trial():
    counts = poisson_counts(1, 30, 20, 3)
    binned = Recording.from_counts(counts, dt_ms=10.0, conditions=["x"] * 30).bin()
    found = from_events.count_statistics(binned, 100.0, start_ms=50.0, stop_ms=150.0)
    np.testing.assert_allclose(found.correlation, np.corrcoef(counts[:, 5:15].sum(1).T), rtol=1e-10)


def test_window_counts_of_ragged_trials_equal_dense_sums():
    parts = [np.random.default_rng(k).poisson(0.4, (n, 3)) for k, n in enumerate((7, 13, 2, 9))]
    binned = Recording.from_counts(parts, dt_ms=5.0).bin()
    for max_values in (3, 1 << 20):
        blocks = list(from_events.window_count_blocks(binned, 15.0, max_values=max_values))
        found = np.concatenate([block.counts for block in blocks])
        expected = np.concatenate([part[: len(part) // 3 * 3].reshape(-1, 3, 3).sum(1) for part in parts])
        np.testing.assert_array_equal(found, expected)


def test_window_that_is_no_whole_number_of_bins_is_refused():
    binned = Recording.from_counts(poisson_counts(0, 1, 10, 1), dt_ms=10.0).bin()
    with pytest.raises(InvalidInputError, match=r"25.0 ms is no whole number of bins of 10.0 ms. Use 20 ms"):
        from_events.count_statistics(binned, 25.0)


def test_fano_factor_ddof():
    counts = poisson_counts(2, 1, 200, 2)
    binned = Recording.from_counts(counts, dt_ms=1.0).bin()
    windows = counts.reshape(20, 10, 2).sum(1)
    for ddof in (0, 1):
        found = from_events.count_statistics(binned, 10.0, ddof=ddof).fano
        np.testing.assert_allclose(found, windows.var(0, ddof=ddof) / windows.mean(0), rtol=1e-9)


def test_warm_up_is_left_out_everywhere():
    counts = poisson_counts(4, 1, 100, 3)
    full = Recording.from_counts(counts, dt_ms=1.0).bin()
    warm = full.select_bins(0, 0, 100, warmup_bins=40)
    rest = Recording.from_counts(counts[:, 40:], dt_ms=1.0).bin()
    settings = SummarySettings(count_window_ms=10, population_window_ms=5, autocorrelogram_ms=10)
    a, b = summarise(warm, settings), summarise(rest, settings)
    for name in ("rate_hz", "interval_cv", "fano", "noise_correlation", "population_rate_hz", "raster_time_s", "autocorrelogram_hz"):
        np.testing.assert_allclose(a[name], b[name], rtol=1e-6, atol=1e-12, equal_nan=True, err_msg=name)


def test_population_rate_and_spectrum_equal_scipy():
    counts = poisson_counts(5, 1, 4000, 6)
    binned = Recording.from_counts(counts, dt_ms=5.0).bin()
    (rate,) = over_time.population_rate_hz(binned, 10.0)
    expected = counts[0].reshape(2000, 2, 6).sum((1, 2)) / 6 / 0.01
    np.testing.assert_allclose(rate, expected)
    frequency, power = over_time.power_spectrum([rate], 10.0, segment_s=1.0)
    expected_frequency, expected_power = signal.welch(expected, fs=100, nperseg=100, detrend="constant")
    np.testing.assert_allclose(frequency, expected_frequency[1:])
    np.testing.assert_allclose(power, expected_power[1:])


def test_psth_and_split_half_equal_means_of_dense_counts():
    counts = poisson_counts(6, 9, 12, 2)
    conditions = ["b", "a", "a", "b", "a", "a", "b", "a", "b"]
    binned = Recording.from_counts(counts, dt_ms=10.0, conditions=conditions).bin()
    found = over_time.psth(binned, 20.0)
    windows = counts.reshape(9, 6, 2, 2).sum(2) / 0.02
    for name, rate in zip(found.conditions, found.rate_hz, strict=True):
        np.testing.assert_allclose(rate, windows[np.array(conditions) == name].mean(0))
    halves = [np.concatenate([windows[np.flatnonzero(np.array(conditions) == c)[h::2]].mean(0) for c in found.conditions]) for h in (0, 1)]
    expected = [stats.pearsonr(halves[0][:, i], halves[1][:, i]).statistic for i in range(2)]
    np.testing.assert_allclose(found.split_half, expected)
    assert found.time_ms[0] == 10.0


def test_psth_is_none_without_repeats():
    assert over_time.psth(Recording.from_counts(poisson_counts(0, 1, 50, 2), dt_ms=1.0).bin(), 10.0) is None


def test_ceiling_is_the_correlation_with_the_true_rate():
    rng = np.random.default_rng(0)
    rate = rng.gamma(2.0, 1.0, 400)
    counts = rng.poisson(rate[None, :, None] * np.ones(1), (40, 400, 1))
    found = over_time.psth(Recording.from_counts(counts, dt_ms=10.0, conditions=["s"] * 40).bin(), 10.0)
    truth = np.corrcoef(rate, found.rate_hz[0, :, 0])[0, 1]
    assert found.ceiling[0] == pytest.approx(truth, abs=0.005)  # standard error over seeds 0.002


def test_raster_excerpt_lays_trials_end_to_end(trials):
    found = over_time.raster_excerpt(trials.bin(1.0), 3.0)
    trains = with_elephant.trains_s(trials)
    expected = np.sort(np.concatenate([*trains[0][:2], *(2.0 + train[train < 1.0] for train in trains[1][:2])]))
    np.testing.assert_allclose(found.time_s, np.floor(expected * 1000) / 1000, atol=1.001e-3)
    assert found.trial_start_s.tolist() == [0.0, 2.0]
    assert found.stop_s == 3.0


def test_raster_excerpt_keeps_counts_of_several_spikes():
    counts = np.array([[0, 3], [2, 0], [0, 1], [5, 5]])
    found = over_time.raster_excerpt(Recording.from_counts(counts, dt_ms=50.0).bin(), 0.15)
    assert list(zip(found.time_s.round(3), found.neuron, found.count, strict=True)) == [(0.0, 1, 3), (0.05, 0, 2), (0.1, 1, 1)]


def test_summary_does_not_depend_on_the_order_of_neurons():
    counts = poisson_counts(7, 6, 200, 5)
    order = np.array([3, 1, 4, 0, 2])
    a, b = (summarise(Recording.from_counts(c, dt_ms=1.0, conditions=["x"] * 6).bin()) for c in (counts, counts[..., order]))
    for name in ("rate_hz", "interval_cv", "fano", "autocorrelogram_hz", "psth_split_half"):
        np.testing.assert_allclose(a[name][order], b[name], rtol=1e-9, equal_nan=True)
    np.testing.assert_allclose(a["noise_correlation"][np.ix_(order, order)], b["noise_correlation"], rtol=1e-5, equal_nan=True)


def test_silent_recording_has_a_summary():
    found = summarise(Recording.from_counts(np.zeros((1, 50, 2), int), dt_ms=1.0).bin())
    assert found["rate_hz"].tolist() == [0, 0]
    assert np.isnan(found["fano"]).all() and np.isnan(found["interval_cv"]).all()


def test_comparison_warns_of_runaway_and_silent_neurons():
    rng = np.random.default_rng(0)
    recorded = rng.poisson(0.02, (1, 5000, 3))
    simulated = recorded.copy()
    simulated[..., 0] = rng.poisson(0.5, (1, 5000))  # 500 Hz
    simulated[..., 2] = 0
    good, bad = (summarise(Recording.from_counts(c, dt_ms=1.0, ids=["p", "q", "r"]).bin()) for c in (recorded, simulated))
    assert compare_summaries(good, good)["warnings"] == []
    assert compare_summaries(good, good)["rate_r2"] == 1.0
    found = compare_summaries(good, bad)
    assert found["n_runaway"] == 1 and found["n_silent"] == 1
    assert "1 of 3 neurons exceed 200 Hz" in found["warnings"][0] and "(p)" in found["warnings"][0]
    assert "Silent: 1 of 3" in found["warnings"][1] and "(r)" in found["warnings"][1]


def test_comparison_does_not_take_counting_noise_for_a_bad_model():
    """Two independent samples of the same rates, short enough that R2 over neurons is far below 1; and a model with other rates."""
    rng = np.random.default_rng(1)
    rate = rng.uniform(0.008, 0.012, 40)
    same = [summarise(Recording.from_counts(rng.poisson(rate, (1, 4000, 40)), dt_ms=1.0).bin()) for _ in range(2)]
    found = compare_summaries(*same)
    assert found["rate_r2"] < 0.5 and found["rate_r2"] == pytest.approx(found["rate_r2_ceiling"], abs=0.9)
    assert found["warnings"] == []
    wide = rng.uniform(0.002, 0.05, 40)
    recorded = summarise(Recording.from_counts(rng.poisson(wide, (1, 20_000, 40)), dt_ms=1.0).bin())
    shuffled = summarise(Recording.from_counts(rng.poisson(wide[::-1], (1, 20_000, 40)), dt_ms=1.0).bin())
    found = compare_summaries(recorded, shuffled)
    assert found["rate_r2_ceiling"] > 0.95
    assert "Simulated rates explain the recorded ones badly" in found["warnings"][0]
