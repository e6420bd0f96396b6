"""The data report finds what was planted, counts it right, and leaves sound data alone."""

import json

import numpy as np
import pytest

from fitspike.recording.recording import Recording, Signal, TrialTable
from fitspike.rng import Stream


def regular(rate_hz, seconds=100.0, seed=0):
    """Return a train with 3 ms refractory time and the given rate: gaps of 3 ms plus exponential."""
    generator = Stream(seed, "tests/checks").numpy()
    gaps = 0.003 + generator.exponential(1 / rate_hz - 0.003, int(rate_hz * seconds * 1.5))
    times = np.cumsum(gaps)
    return times[times < seconds]


def sound(n_neurons=3):
    return [regular(10.0, seed=seed) for seed in range(n_neurons)]


def findings(recording):
    return {finding.name: finding for finding in recording.checks().findings}


def test_sound_data_has_nothing_but_its_size():
    found = findings(Recording.from_trains(sound(), stop_s=100))
    assert set(found) == {"dense_size"}
    assert "0.0012 GB" in found["dense_size"].text  # 100000 bins x 3 neurons x 4 bytes


def test_duplicates_short_intervals_and_shared_bins_are_counted():
    # neuron 1: intervals 0, 0.5, 1.5 ms and 8 of 10 ms: 2 of 11 below 1 ms, 3 of 11 below 2 ms
    train = np.cumsum([10, 0, 0.5, 1.5] + [10] * 8)
    recording = Recording.from_trains([regular(10.0), train / 1000], stop_s=100)
    report = recording.checks()
    assert report.n_duplicates.tolist() == [0, 1]
    assert report.isi_below_1ms_percent.tolist() == pytest.approx([0, 200 / 11])
    assert report.isi_below_2ms_percent.tolist() == pytest.approx([0, 300 / 11])
    found = findings(recording)
    assert found["duplicate_spikes"].neurons == ("1",) and found["duplicate_spikes"].level == "warning"
    assert found["short_intervals"].neurons == ("1",)
    assert report.multi_spike_bins == 1  # 10.0, 10.0 and 10.5 ms; 12.0 ms is alone
    assert recording.n_spikes == len(regular(10.0)) + 12  # nothing is repaired


def test_blocks_of_spikes_do_not_show_in_the_intervals(trial_recording, monkeypatch):
    whole = trial_recording.checks()
    monkeypatch.setattr("fitspike.recording.checks._BLOCK_SPIKES", 5)
    assert np.array_equal(trial_recording.checks().isi_below_2ms_percent, whole.isi_below_2ms_percent)
    assert whole.isi_below_2ms_percent.any()


def test_intervals_do_not_cross_trials():
    trials = TrialTable.from_seconds([0, 1], [0.5, 2])
    recording = Recording.from_trains([[0.4999, 0.4999 + 0.0005, 1.0, 1.5]], trials=trials)
    # 0.5004 lies between the trials; inside there are 0.4999 | 1.0, 1.5
    assert recording.checks().isi_below_1ms_percent.tolist() == [0.0]
    adjoining = Recording.from_trains([[0.4999, 0.5001]], trials=TrialTable.from_seconds([0, 0.5], [0.5, 1]))
    assert adjoining.checks().isi_below_1ms_percent.tolist() == [100.0]


def test_silent_and_rare_neurons_are_named():
    report = Recording.from_trains([*sound(), [], [5.0]], stop_s=100).checks()
    found = {finding.name: finding for finding in report.findings}
    assert found["silent_neurons"].neurons == report.silent == ("3",)
    assert found["few_spikes"].neurons == ("4",)


def test_a_rate_that_stops_and_a_population_that_drifts():
    stopping = regular(10.0, seed=9)
    found = findings(Recording.from_trains([*sound(8), stopping[stopping < 50]], stop_s=100))
    assert found["rate_change"].neurons == ("8",) and "population_drift" not in found
    drifting = [np.concatenate([train[train < 50], train[(train >= 50) & (np.arange(len(train)) % 2 == 0)]]) for train in sound()]
    spikes = np.concatenate(drifting)
    change = np.count_nonzero(spikes >= 200 / 3) / np.count_nonzero(spikes < 100 / 3)
    assert 0.4 < change < 0.6
    assert f"fire {change:.2f} times" in findings(Recording.from_trains(drifting, stop_s=100))["population_drift"].text


def test_thirds_are_thirds_of_the_covered_time():
    # 3 trials of 10 s with long gaps; a neuron that fires in the last trial only
    trials = TrialTable.from_seconds([0, 1000, 2000], [10, 1010, 2010])
    recording = Recording.from_trains([2000 + regular(20.0, 10.0)], trials=trials)
    assert findings(recording)["rate_change"].neurons == ("0",)
    everywhere = np.concatenate([start + regular(20.0, 10.0, seed=seed) for seed, start in enumerate((0, 1000, 2000))])
    assert "rate_change" not in findings(Recording.from_trains([everywhere], trials=trials))


def test_trials_that_overlap_are_empty_or_differ(trial_recording):
    found = findings(trial_recording)
    assert "1 of 12 trials hold no spike (rows 7)" in found["empty_trials"].text
    assert "shortest 0.4 s, median 0.5 s, longest 0.6 s" in found["trial_lengths"].text and found["trial_lengths"].level == "info"
    overlapping = Recording.from_trains(sound(), trials=TrialTable.from_seconds([0, 40, 90], [50, 60, 100]))
    assert "2 of 3 trials share time" in findings(overlapping)["overlapping_trials"].text
    short = Recording.from_trains(sound(), trials=TrialTable.from_seconds([0, 50, 90], [40, 90, 90.1]))
    assert findings(short)["trial_lengths"].level == "warning"


def test_spikes_outside_trials_are_counted_and_kept():
    train = np.arange(0.5, 100)
    window = Recording.from_trains([train], start_s=10, stop_s=90)
    assert "20 of 100 spikes (20.0%)" in findings(window)["spikes_outside_trials"].text
    assert findings(window)["spikes_outside_trials"].level == "warning" and window.n_spikes == 100
    trials = TrialTable.from_seconds([0, 40], [30, 90])
    assert findings(Recording.from_trains([train], trials=trials))["spikes_outside_trials"].level == "info"
    assert findings(Recording.from_trains([train], start_s=200, stop_s=300))["spikes_outside_trials"].level == "problem"


def test_times_that_hint_at_a_wrong_unit():
    train = regular(10.0)
    assert "Is the time unit right" in findings(Recording.from_trains([train], unit="ms"))["time_unit"].text
    assert "Is the time unit right" in findings(Recording.from_trains([train * 30_000]))["time_unit"].text
    assert "Is the time unit right" in findings(Recording.from_trains([train * 1000]))["time_unit"].text
    assert findings(Recording.from_trains([train - 5]))["negative_times"].level == "warning"
    assert "grid of 2 ms" in findings(Recording.from_trains([np.unique(np.rint(train * 500)) * 2], unit="ms"))["time_grid"].text


def test_nothing_recorded_is_a_problem():
    assert findings(Recording.from_trains([[], []], stop_s=1))["no_spikes"].level == "problem"
    assert findings(Recording.from_trains([[0.0]], stop_s=0))["no_duration"].level == "problem"
    assert Recording.from_trains([]).checks().problems


def test_signals_with_gaps_are_problems_named_by_trial():
    values = np.ones(1000)
    values[333] = np.nan
    recording = Recording.from_trains(sound(), stop_s=100, signals={"speed": Signal(values, 10.0), "pupil": Signal(np.ones(10), 10.0)})
    texts = [finding.text for finding in recording.checks().problems]
    assert "NaN or infinite at 33.3 s" in texts[0] and "covers 0 to 1 s" in texts[1]


def test_counts_have_no_intervals():
    report = Recording.from_counts(np.full((2, 5, 3), 2), dt_ms=10).checks()
    assert np.isnan(report.isi_below_1ms_percent).all() and report.bin_ms == 10
    assert report.multi_spike_bins == 30 and report.n_spikes.tolist() == [20, 20, 20]


def test_the_report_as_json_and_as_text(small_recording):
    report = small_recording.checks()
    values = json.loads(json.dumps(report.as_dict(), allow_nan=False))
    assert values["neurons"]["n_spikes"] == small_recording.bin(1.0).counts()[0].tolist()
    assert values["neurons"]["isi_below_1ms_percent"][4] is None
    assert [finding["name"] for finding in values["findings"]] == [finding.name for finding in report.findings]
    assert str(report).splitlines()[0].startswith("warning: ")
    levels = [finding.level for finding in report.findings]
    assert levels == sorted(levels, key=["problem", "warning", "info"].index)
