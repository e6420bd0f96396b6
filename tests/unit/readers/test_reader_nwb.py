"""NWB files written with pynwb: observation intervals, interval tables, unit columns, electrodes, signals."""

from __future__ import annotations

import sys
from datetime import UTC, datetime

import numpy as np
import pytest

from fitspike import load
from fitspike.errors import MissingDependencyError, NoSpikeTrainsError, ReadError
from fitspike.recording.nwb_reader import merged, overlap

pynwb = pytest.importorskip("pynwb")
NS = 1_000_000_000
TRAINS = {4: [0.5, 3.5, 9.25], 7: [1.0], 9: []}


def nwb(path, *, intervals=None, trials=False, electrodes=False, signals=False, units=True):
    file = pynwb.NWBFile("session", "id", datetime(2020, 1, 1, tzinfo=UTC))
    extra = {}
    if electrodes:
        group = file.create_electrode_group("shank", "d", "CA1", file.create_device("probe"))
        for region in ("CA1", "CA3", "CA1"):
            file.add_electrode(group=group, location=region)
    if units:
        file.add_unit_column("quality", "by eye")
        file.add_unit_column("snr", "ratio")
        for number, (unit_id, times) in enumerate(TRAINS.items()):
            if intervals is not None:
                extra["obs_intervals"] = np.array(intervals[number], float)
            if electrodes:
                extra["electrodes"] = [2 - number]
            file.add_unit(id=unit_id, spike_times=np.array(times), quality=("good", "noise", "good")[number], snr=1.5 * number, **extra)
    if trials:
        file.add_trial_column("side", "of the target")
        file.add_trial_column("go_time", "of the cue")
        file.add_trial(start_time=0.0, stop_time=2.0, side="left", go_time=0.5)
        file.add_trial(start_time=3.0, stop_time=5.0, side="right", go_time=np.nan)
    if signals:
        for name, rate, n in (("speed", 10.0, 101), ("short", 10.0, 20)):
            file.add_acquisition(pynwb.TimeSeries(name=name, data=np.arange(float(n)), unit="cm/s", rate=rate, conversion=2.0))
        jittered = np.arange(50) / 5.0 + np.where(np.arange(50) % 2, 0.15, 0)
        file.add_acquisition(pynwb.TimeSeries(name="licks", data=np.arange(50.0), unit="1", timestamps=jittered))
    with pynwb.NWBHDF5IO(str(path), "w") as io:
        io.write(file)
    return path


def trains(recording):
    return {str(i): recording.train_s(str(i)).tolist() for i in recording.neurons.ids}


def test_units_without_intervals_are_one_trial_from_zero(tmp_path):
    recording = load(nwb(tmp_path / "a.nwb"))
    assert trains(recording) == {"4": [0.5, 3.5, 9.25], "7": [1.0], "9": []}
    assert (recording.trials.start_ns.tolist(), recording.trials.stop_ns.tolist()) == ([0], [9_260_000_000])
    assert recording.neurons.column("quality").tolist() == ["good", "noise", "good"]
    assert recording.neurons.column("snr").tolist() == [0, 1.5, 3]
    assert any("no observation intervals are used" in note for note in recording.source.notes)
    assert load(tmp_path / "a.nwb", stop_s=20).duration_s == 20


def test_shared_intervals_become_trials(tmp_path):
    recording = load(nwb(tmp_path / "a.nwb", intervals=[[[0, 2], [3, 10]]] * 3))
    assert recording.trials.start_ns.tolist() == [0, 3 * NS]
    assert recording.trials.stop_ns.tolist() == [2 * NS, 10 * NS]
    assert recording.source.notes == ()


def test_different_intervals_keep_the_time_common_to_all_and_say_so(tmp_path):
    path = nwb(tmp_path / "a.nwb", intervals=[[[0, 10]], [[0, 4], [6, 10]], [[2, 8]]])
    common = load(path)
    assert (common.trials.start_ns / NS).tolist() == [2, 6]
    assert (common.trials.stop_ns / NS).tolist() == [4, 8]
    assert any("the 4 s in which all units were observed (longest: 10 s)" in note for note in common.source.notes)
    assert (load(path, intervals="any").trials.stop_ns / NS).tolist() == [10]
    assert load(path, intervals="none").duration_s == 9.26


def test_no_common_time_is_an_error_with_advice(tmp_path):
    path = nwb(tmp_path / "a.nwb", intervals=[[[0, 2]], [[3, 4]], [[0, 10]]])
    with pytest.raises(ReadError, match="no time in which all units were observed. Say intervals='any'"):
        load(path)


def test_interval_arithmetic_against_a_grid():
    rng = np.random.default_rng(5)
    for _ in range(50):
        lists = []
        for _ in range(2):
            start = rng.integers(0, 50, 6)
            lists.append(np.column_stack([start, start + rng.integers(1, 8, 6)]))
        grids = [np.array([any(a <= t < b for a, b in part) for t in range(70)]) for part in lists]
        joined = [merged(part) for part in lists]
        for part, grid in zip(joined, grids, strict=True):
            assert np.array_equal(np.array([any(a <= t < b for a, b in part) for t in range(70)]), grid)
            assert (part[1:, 0] > part[:-1, 1]).all()
        both = overlap(*joined)
        assert np.array_equal(np.array([any(a <= t < b for a, b in both) for t in range(70)]), grids[0] & grids[1])


def test_trials_are_events_or_on_request_the_trials(tmp_path):
    path = nwb(tmp_path / "a.nwb", trials=True)
    recording = load(path)
    assert recording.n_trials == 1
    assert (recording.events["trials"] / NS).tolist() == [0, 3]
    assert (recording.events["trials.stop"] / NS).tolist() == [2, 5]
    assert (recording.events["trials.go_time"] / NS).tolist() == [0.5]
    assert any("1 of 2 times of trials.go_time are NaN" in note for note in recording.source.notes)
    cut = load(path, trials="trials", condition="side")
    assert cut.trials.conditions.tolist() == ["left", "right"]
    assert cut.bin(500).counts().tolist() == [[1, 1, 0], [1, 0, 0]]
    with pytest.raises(ReadError, match="no interval table 'trails'; did you mean 'trials'"):
        load(path, trials="trails")
    with pytest.raises(ReadError, match="no column 'sides'; did you mean 'side'"):
        load(path, trials="trials", condition="sides")


def test_the_region_of_the_electrode_becomes_a_column(tmp_path):
    recording = load(nwb(tmp_path / "a.nwb", electrodes=True))
    assert recording.neurons.column("region").tolist() == ["CA1", "CA3", "CA1"]
    assert recording.neurons.column("electrode").tolist() == [2, 1, 0]


def test_signals_that_cover_the_recording_are_read_and_others_named(tmp_path):
    path = nwb(tmp_path / "a.nwb", signals=True)
    recording = load(path)
    assert list(recording.signals) == ["speed"]
    assert recording.signals["speed"].values[:3, 0].tolist() == [0, 2, 4]
    notes = " ".join(recording.source.notes)
    assert "signal 'short' was left out (it covers 0 to 2 s" in notes
    assert "signal 'licks' was left out (its timestamps are not regular)" in notes
    assert sorted(load(path, signals="all").signals) == ["short", "speed"]
    assert load(path, signals="none").signals == {}


def test_a_file_without_units_names_what_it_holds(tmp_path):
    with pytest.raises(NoSpikeTrainsError, match="no spike trains found.*no Units table, and the time series licks, short, speed"):
        load(nwb(tmp_path / "a.nwb", units=False, signals=True))


def test_a_truncated_file_is_a_message(tmp_path):
    path = nwb(tmp_path / "a.nwb")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ReadError, match="does not open as NWB.*truncated"):
        load(path)


def test_a_missing_package_names_the_extra(tmp_path, monkeypatch):
    path = nwb(tmp_path / "a.nwb")

    monkeypatch.setitem(sys.modules, "pynwb", None)  # as if it were not installed
    with pytest.raises(MissingDependencyError, match=r"fitspike\[nwb\]"):
        load(path)
