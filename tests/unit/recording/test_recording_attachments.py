"""Signals, events and condition labels from small files, and what is said about files that are none."""

import numpy as np
import pytest

from fitspike.errors import ReadError
from fitspike.recording.attachments import read_conditions, read_events, read_signals


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def test_signal_of_a_csv_has_a_channel_per_column(tmp_path):
    rows = "\n".join(f"{0.5 + i / 100},{i},{-i}" for i in range(50))
    signal = read_signals(write(tmp_path / "lever.csv", f"time_s,x,y\n{rows}\n")).signals["lever"]
    assert signal.channels == ("x", "y") and signal.sampling_rate_hz == 100.0 and signal.start_ns == 500_000_000
    assert np.array_equal(signal.values, np.stack([np.arange(50), -np.arange(50)], axis=1))


def test_times_in_milliseconds_and_missing_samples(tmp_path):
    rows = "\n".join(f"{i * 20}\t{i}" for i in range(10) if i not in (3, 4))
    attachment = read_signals(write(tmp_path / "x.tsv", f"time_ms\tv\n{rows}\n"), name="speed")
    signal = attachment.signals["speed"]
    assert signal.sampling_rate_hz == 50.0
    assert np.array_equal(np.flatnonzero(np.isnan(signal.values[:, 0])), [3, 4])
    assert "2 missing samples" in attachment.notes[0]


def test_signals_of_arrays(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(5.0))
    signal = read_signals(tmp_path / "a.npy", sampling_rate_hz=10.0, start_s=0.25).signals["a"]
    assert signal.values.shape == (5, 1) and signal.start_ns == 250_000_000
    np.savez(tmp_path / "b.npz", speed=np.zeros((20, 2)), pupil=np.ones(20), sampling_rate_hz=5.0, start_s=1.0)
    signals = read_signals(tmp_path / "b.npz").signals
    assert sorted(signals) == ["pupil", "speed"] and signals["speed"].stop_ns == 5_000_000_000
    np.savez(tmp_path / "c.npz", speed=np.arange(20.0), time_s=2 + np.arange(20) / 8)
    timed = read_signals(tmp_path / "c.npz").signals["speed"]
    assert timed.sampling_rate_hz == 8.0 and timed.start_ns == 2_000_000_000


def test_events_by_name(tmp_path):
    events = read_events(write(tmp_path / "e.csv", "time,name\n1.5,go\n2.5,stop\n3.5,go\n")).events
    assert {name: times.tolist() for name, times in events.items()} == {"go": [1.5, 3.5], "stop": [2.5]}
    assert read_events(write(tmp_path / "lick.txt", "1\n2.5\n")).events["lick"].tolist() == [1.0, 2.5]
    assert read_events(write(tmp_path / "ms.csv", "name,time_ms\n7,1500\n8,250\n")).events["7"].tolist() == [1.5]
    np.savez(tmp_path / "e.npz", cue=np.array([1.0, 2.0]))
    assert read_events(tmp_path / "e.npz").events["cue"].tolist() == [1.0, 2.0]
    np.save(tmp_path / "f.npy", np.array([4.0]))
    assert read_events(tmp_path / "f.npy", name="reward").events["reward"].tolist() == [4.0]


def test_conditions_one_per_line_or_by_trial(tmp_path):
    assert read_conditions(write(tmp_path / "a.csv", "left\nright\nleft\n"), 3).conditions.tolist() == ["left", "right", "left"]
    assert read_conditions(write(tmp_path / "b.txt", "condition\n1\n2\n"), 2).conditions.tolist() == ["1", "2"]
    table = read_conditions(write(tmp_path / "c.csv", "trial,condition,rt_s\n2,c,0.3\n0,a,0.1\n1,b,0.2\n"), 3)
    assert table.conditions.tolist() == ["a", "b", "c"] and table.trial_columns["rt_s"].tolist() == [0.1, 0.2, 0.3]
    np.save(tmp_path / "d.npy", np.array(["u", "v"]))
    assert read_conditions(tmp_path / "d.npy", 2).conditions.tolist() == ["u", "v"]
    np.savez(tmp_path / "e.npz", condition=np.array([1, 2]), contrast=np.array([0.1, 0.2]))
    assert read_conditions(tmp_path / "e.npz", 2).trial_columns["contrast"].tolist() == [0.1, 0.2]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("time,x\n0,1\n0.1,2\n0.15,3\n0.3,4\n", "irregular"),
        ("time,x\n0,1\n0.1,2\n0.05,3\n", "finite and increasing"),
        ("time,x\n0,1\n0.1,oops\n", "'oops'; expected numbers"),
        ("time\n0\n1\n", "one column"),
        ("time,x\n0,1\n1\n", "no table: line 3 has 1 fields"),
        ("", "empty file"),
    ],
)
def test_signal_files_that_are_none(tmp_path, content, text):
    with pytest.raises(ReadError, match=text) as caught:
        read_signals(write(tmp_path / "bad.csv", content))
    assert "bad.csv" in str(caught.value)


def test_other_files_that_are_none(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros(4))
    with pytest.raises(ReadError, match="does not say its sampling rate"):
        read_signals(tmp_path / "a.npy")
    np.save(tmp_path / "o.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(ReadError, match="cannot be read"):
        read_signals(tmp_path / "o.npy", sampling_rate_hz=1.0)
    with pytest.raises(ReadError, match="suffix '.mat'"):
        read_events(write(tmp_path / "x.mat", "1"))
    with pytest.raises(ReadError, match="no such file"):
        read_events(tmp_path / "nowhere.csv")
    with pytest.raises(ReadError, match="expected times, or times and names"):
        read_events(write(tmp_path / "w.csv", "time,name,more\n1,a,b\n"))
    with pytest.raises(ReadError, match="the recording has 3 trials"):
        read_conditions(write(tmp_path / "c.csv", "a\nb\n"), 3)
    with pytest.raises(ReadError, match="each of the trials 0 to 1 once"):
        read_conditions(write(tmp_path / "d.csv", "trial,condition\n0,a\n0,b\n"), 2)
    with pytest.raises(ReadError, match="no header with 'condition'"):
        read_conditions(write(tmp_path / "e.csv", "0,a\n1,b\n"), 2)


def test_damaged_bytes_of_a_compressed_file_are_a_message(tmp_path):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, speed=np.arange(3000) % 7)
    content = bytearray(path.read_bytes())
    content[30 + len("speed.npy") + 20] = 0xFF  # behind the zip header, the name and the extra field: block type 3, which there is not
    path.write_bytes(content)
    with pytest.raises(ReadError, match=r"a\.npz cannot be read: Error -3 while decompressing data: invalid block type"):
        read_signals(path, sampling_rate_hz=1.0)


def test_a_far_off_sample_time_is_named_and_not_filled(tmp_path):
    with pytest.raises(ReadError, match=r"gap.csv: 1e\+10 samples are missing between 0\.2 and 1e\+09 s.*160\.0 GB.*1\.0 GB.*[Rr]emove"):
        read_signals(write(tmp_path / "gap.csv", "time,x,y\n0,1,1\n0.1,2,2\n0.2,3,3\n1e9,4,4\n"))
    assert len(read_signals(write(tmp_path / "b.csv", "time,x\n0,1\n1,2\n2,3\n1000000,4\n")).signals["b"].values) == 1_000_001


def test_a_given_rate_and_start_must_agree_with_the_file(tmp_path):
    stored = tmp_path / "a.npz"
    np.savez(stored, speed=np.arange(20.0), sampling_rate_hz=5.0, start_s=1.0)
    with pytest.raises(ReadError, match=r"a\.npz holds sampling_rate_hz=5, but 50 was given"):
        read_signals(stored, sampling_rate_hz=50.0)
    with pytest.raises(ReadError, match=r"a\.npz holds start_s=1, but 0 was given"):
        read_signals(stored, start_s=0.0)
    assert read_signals(stored, sampling_rate_hz=5.0, start_s=1.0).signals["speed"].start_ns == 1_000_000_000
    timed = tmp_path / "b.npz"
    np.savez(timed, speed=np.arange(20.0), time_s=2 + np.arange(20) / 8)
    table = write(tmp_path / "c.csv", "time_s,x\n" + "".join(f"{2 + i / 8},{i}\n" for i in range(20)))
    for path in (timed, table):
        with pytest.raises(ReadError, match=r"times of .* are those of 8 Hz from 2 s, but 9 Hz was given"):
            read_signals(path, sampling_rate_hz=9.0)
        with pytest.raises(ReadError, match=r"times of .* are those of 8 Hz from 2 s, but a start at 1\.5 s was given"):
            read_signals(path, start_s=1.5)
        (signal,) = read_signals(path, sampling_rate_hz=8.01, start_s=2.01).signals.values()  # the last sample moves by 0.02 samples
        assert signal.sampling_rate_hz == 8.01 and signal.start_ns == 2_010_000_000


@pytest.mark.parametrize(
    ("entries", "text"),
    [
        ({"sampling_rate_hz": [5.0, 6.0]}, r"'sampling_rate_hz' .*shape \(2,\); expected one number"),
        ({"sampling_rate_hz": "fast"}, "'sampling_rate_hz' .*expected one number"),
        ({"time_s": 3.0}, r"'time_s' .*shape \(\); expected times"),
        ({"time_s": ["a", "b", "c"]}, "'time_s' .*expected times"),
        ({"sampling_rate_hz": 5.0, "none": []}, r"'none' .*shape \(0,\); expected numbers"),
        ({"sampling_rate_hz": 5.0, "one": 1.0}, r"'one' .*shape \(\); expected numbers"),
    ],
)
def test_entries_of_a_signal_file_of_the_wrong_form(tmp_path, entries, text):
    np.savez(tmp_path / "a.npz", speed=np.arange(3.0), **entries)
    with pytest.raises(ReadError, match=text):
        read_signals(tmp_path / "a.npz")


@pytest.mark.parametrize(
    ("entries", "text"),
    [
        ({"condition": np.array("left")}, r"'condition' with shape \(\), but the recording has 2 trials"),
        ({"condition": np.array([["a", "b"], ["c", "d"]])}, r"'condition' with shape \(2, 2\)"),
        ({"condition": ["a", "b"], "contrast": 0.5}, r"'contrast' with shape \(\)"),
        ({"condition": ["a", "b"], "trial": 1}, "the trial column of .* does not name each"),
        ({"condition": ["a", "b"], "trial": [[0, 1]]}, "the trial column of .* does not name each"),
    ],
)
def test_entries_of_a_conditions_file_of_the_wrong_form(tmp_path, entries, text):
    np.savez(tmp_path / "a.npz", **entries)
    with pytest.raises(ReadError, match=text):
        read_conditions(tmp_path / "a.npz", 2)
