"""Text tables: columns, one train per line, one file per neuron, and what must be said or refused."""

from __future__ import annotations

import numpy as np
import pytest

from fitspike import load
from fitspike.errors import NoSpikeTrainsError, ReadError
from fitspike.recording import text_tables

NS = 1_000_000_000


def written(tmp_path, text, name="spikes.csv", encoding="utf-8"):
    path = tmp_path / name
    path.write_bytes(text.encode(encoding))
    return path


def trains(recording):
    """Return id -> list of times in s."""
    return {str(i): recording.train_s(str(i)).tolist() for i in recording.neurons.ids}


def test_columns_with_the_unit_in_a_name_need_no_unit(tmp_path):
    path = written(tmp_path, "neuron,time_ms\nb2,20\nb10,5\nb2,10.5\n")
    recording = load(path, times="time_ms", neurons="neuron")
    assert trains(recording) == {"b2": [0.0105, 0.02], "b10": [0.005]}
    assert list(recording.neurons.ids) == ["b2", "b10"]
    assert any("ms, as the file says" in note for note in recording.source.notes)


def test_windows_line_ends_quotes_and_byte_order_mark_are_read(tmp_path):
    path = written(tmp_path, '\ufeff"unit";"t"\r\n1;0.5\r\n2;0.25\r\n\r\n')
    assert trains(load(path, times="t", neurons="unit", unit="s")) == {"1": [0.5], "2": [0.25]}


def test_columns_without_names_are_told_by_number_or_by_its_text(tmp_path):
    path = tmp_path / "plain.txt"
    path.write_text("0.1 7\n0.2 8\n0.3 7\n", encoding="utf-8")
    for columns in ({"times": 0, "neurons": 1}, {"times": "0", "neurons": "1"}):
        recording = load(path, unit="s", **columns)
        assert recording.neurons.ids.tolist() == ["7", "8"] and recording.train_s("7").tolist() == [0.1, 0.3]


def test_a_missing_unit_is_an_error_that_shows_the_range(tmp_path):
    path = written(tmp_path, "neuron,time\n1,20\n2,5\n")
    with pytest.raises(ReadError, match=r"from 5 to 20, and nothing says their unit"):
        load(path, times="time", neurons="neuron")


def test_untold_columns_are_listed_with_an_example(tmp_path):
    path = written(tmp_path, "channel,when\nc1,20\nc2,5\n")
    with pytest.raises(
        ReadError, match=r"'channel' \(text, such as c1\), 'when' \(numbers, such as 20.0\).*times='when', neurons='channel'"
    ):
        load(path)


def test_a_misspelt_column_is_suggested(tmp_path):
    with pytest.raises(ReadError, match="no column 'tiem'; did you mean 'time'"):
        load(written(tmp_path, "neuron,time\n1,20\n2,5\n"), times="tiem", neurons="neuron", unit="s")


def test_sampling_points_use_the_rate_exactly(tmp_path):
    path = written(tmp_path, "1 1\n1 30000\n2 7\n", "samples.txt")
    recording = load(path, times="1", neurons="0", sampling_rate_hz=30000)
    assert recording.spike_times_ns.tolist() == [33333, 233333, NS]


def test_one_train_per_line_with_blank_lines_as_separators_or_silent_neurons(tmp_path):
    path = written(tmp_path, "# comment\n1 2 3\n\n4 5\n\n", "lines.txt")
    skipped = load(path, unit="s")
    assert trains(skipped) == {"0": [1, 2, 3], "1": [4, 5]}
    assert any("blank lines taken as separators" in note for note in skipped.source.notes)
    silent = load(path, unit="s", empty_lines="train")
    assert trains(silent) == {"0": [1, 2, 3], "1": [], "2": [4, 5], "3": []}


def test_numbers_that_carry_a_unit_state_it(tmp_path):
    path = written(tmp_path, "1.5 ms\t2.5 ms\n3.5 ms\n", "with_units.txt")
    assert trains(load(path)) == {"0": [0.0015, 0.0025], "1": [0.0035]}


def test_equal_lines_are_columns_unless_the_layout_says_lines(tmp_path):
    path = written(tmp_path, "1 2\n3 4\n", "square.txt")
    with pytest.raises(ReadError, match="layout='train-per-line'"):
        load(path, unit="s")
    assert trains(load(path, unit="s", layout="train-per-line")) == {"0": [1, 2], "1": [3, 4]}


def test_one_file_per_neuron_in_the_order_of_their_numbers(tmp_path):
    for number in (10, 2, 1):
        written(tmp_path, f"{number}\n{number + 0.5}\n", f"cell{number}.txt")
    written(tmp_path, "", "cell3.txt")
    folder = load(tmp_path, layout="neuron-per-file", unit="s")
    assert trains(folder) == {"1": [1, 1.5], "2": [2, 2.5], "10": [10, 10.5]}
    globbed = load(str(tmp_path / "cell[12]*.txt"), layout="neuron-per-file", unit="s")
    assert globbed.fingerprint() == folder.fingerprint()


def test_a_folder_of_text_without_a_layout_says_what_to_say(tmp_path):
    written(tmp_path, "1\n", "cell1.txt")
    written(tmp_path, "2\n", "cell2.txt")
    with pytest.raises(ReadError, match="layout='neuron-per-file'"):
        load(tmp_path, unit="s")


def test_several_files_of_the_same_neurons_become_trials(tmp_path):
    first = written(tmp_path, "n,t_s\n1,0.5\n2,0.7\n", "a.csv")
    second = written(tmp_path, "n,t_s\n1,0.1\n2,0.9\n", "b.csv")
    recording = load([first, second], times="t_s", neurons="n", stop_s=1.0)
    assert recording.n_trials == 2
    assert recording.trials.column("file").tolist() == ["a", "b"]
    inside = recording.spike_times_ns - recording.trials.start_ns.repeat(2)
    assert inside.tolist() == [NS // 2, NS * 7 // 10, NS // 10, NS * 9 // 10]


TRIALS = "neuron,trial,t_s\n1,1,0.2\n2,1,0.9\n1,3,0.1\n"


def test_trials_are_laid_end_to_end_and_missing_numbers_named(tmp_path):
    recording = load(written(tmp_path, TRIALS), times="t_s", neurons="neuron", trials="trial", trial_duration_s=1.0)
    assert recording.trials.column("trial").tolist() == ["1", "3"]
    assert (recording.trials.duration_ns == NS).all()
    assert recording.spike_times_ns.tolist() == [NS // 5, NS * 9 // 10, int(recording.trials.start_ns[1]) + NS // 10]
    assert any("trial numbers 2 do not occur" in note for note in recording.source.notes)


def test_n_trials_lists_the_empty_ones(tmp_path):
    recording = load(written(tmp_path, TRIALS), times="t_s", neurons="neuron", trials="trial", trial_duration_s=1.0, n_trials=4)
    assert recording.bin(100).counts().tolist() == [[1, 1], [0, 0], [1, 0], [0, 0]]


def test_trials_of_conditions_that_count_anew_are_kept_apart(tmp_path):
    text = "condition,trial,t_s\nctl,1,0.2\ndrug,1,0.4\n"
    recording = load(written(tmp_path, text), times="t_s", conditions="condition", trials="trial", trial_duration_s=1.0)
    assert recording.trials.conditions.tolist() == ["ctl", "drug"]
    assert recording.bin(100).counts().tolist() == [[1], [1]]


def test_spikes_beyond_a_stated_trial_length_are_an_error(tmp_path):
    with pytest.raises(ReadError, match="do not fit trials of 0.5 s"):
        load(written(tmp_path, TRIALS), times="t_s", neurons="neuron", trials="trial", trial_duration_s=0.5)


def test_frames_cut_one_time_axis(tmp_path):
    recording = load(written(tmp_path, "n,t_s\n1,0.5\n1,2.5\n2,4.9\n"), times="t_s", neurons="n", frame_s=2.0)
    assert recording.bin(100).counts().tolist() == [[1, 0], [1, 0], [0, 1]]


def test_negative_times_are_kept_and_noted_unless_the_start_is_said(tmp_path):
    path = written(tmp_path, "-1500.25\n20\n1000\n", "cell.txt")
    kept = load(path, unit="ms")
    assert kept.trials.start_ns.tolist() == [-1_500_250_000]
    assert any("1 spikes at negative times, the first at -1.50025 s" in note for note in kept.source.notes)
    cut = load(path, unit="ms", start_s=0)
    assert (cut.n_spikes, int(cut.bin(1).counts().sum())) == (3, 2)


def test_spikes_after_a_stated_end_are_noted(tmp_path):
    recording = load(written(tmp_path, "1\n2\n9\n", "cell.txt"), unit="s", stop_s=5)
    assert any("1 spikes lie after stop_s=5, the last at 9 s" in note for note in recording.source.notes)


def test_gaps_in_neuron_numbers_are_noted_and_can_be_filled(tmp_path):
    path = written(tmp_path, "n,t_s\n3,0.5\n6,0.7\n")
    recording = load(path, times="t_s", neurons="n")
    assert any('ids="3..6"' in note for note in recording.source.notes)
    assert list(load(path, times="t_s", neurons="n", ids="1..6").neurons.ids) == ["1", "2", "3", "4", "5", "6"]


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("File: C:\\DATA\n\nStart Date: 1\nBox: 1\nA:\n  0:  1.0 2.0\n", {}, "no spike trains found.*'File:' in line 1 is no number"),
        ("# only\n# comments\n", {}, "no line that is not blank or a comment"),
        ("n,t\n1,nan\n", {"times": "t", "neurons": "n", "unit": "s"}, "1 of 1 times in 't' are NaN or infinite, the first in line 2"),
        ("n,t\n1.5,3\n2,4\n", {"times": "t", "neurons": "n", "unit": "s"}, "numbers such as 1.5; expected neuron ids"),
        ("n,t\n1,3\n2,4\n", {"times": "t", "neurons": "n", "unit": "sec"}, "unknown time unit 'sec'"),
        ("n,t\n1,3\n2,4\n", {"times": "n", "nuerons": "t", "unit": "s"}, "no option 'nuerons'; did you mean 'neurons'"),
        ("a,a\n1,3\n2,4\n", {"times": "a", "unit": "s"}, "header repeats a name"),
        ("x,t\nc1,a\nc2,b\n", {"times": "t", "unit": "s"}, "'t' holds 'a' in line 2; expected numbers"),
        ("n,t\n1,3\n\n# note\n2,\n", {"times": "t", "neurons": "n", "unit": "s"}, "'t' holds '' in line 5; expected numbers"),
        ("n;t\n1;0,5\n2;0,25\n", {"times": "t", "neurons": "n", "unit": "s"}, "'0,5' in line 2; expected numbers, with decimal points"),
        ("n,t\na,3\n,4\n", {"times": "t", "neurons": "n", "unit": "s"}, "1 of 2 spikes have no neuron in 'n', the first in line 3"),
        ("n,t\n1,3\n,4\n", {"times": "t", "neurons": "n", "unit": "s"}, "1 of 2 spikes have no neuron in 'n', the first in line 3"),
        ("n,t\n", {"times": "t", "neurons": "n", "unit": "s"}, r"no spike trains found.*one line of text \(n, t\) and no number"),
    ],
)
def test_what_cannot_be_read_says_why(tmp_path, text, options, message):
    with pytest.raises(ReadError, match=message):
        load(written(tmp_path, text, "file.txt"), **options)


def test_text_that_is_not_utf8_names_the_byte_and_the_option(tmp_path):
    path = written(tmp_path, "n,t_s,µ\n1,0.5,3\n", "latin.csv", encoding="latin-1")
    with pytest.raises(ReadError, match=r"byte 0xb5 in line 1.*encoding='latin-1'"):
        load(path, times="t_s", neurons="n")
    assert trains(load(path, times="t_s", neurons="n", encoding="latin-1")) == {"1": [0.5]}


def test_utf16_says_so_and_is_read_when_told(tmp_path):
    path = written(tmp_path, "n,t_s\n1,0.5\n", "wide.csv", encoding="utf-16")
    with pytest.raises(ReadError, match=r"is text in UTF-16\. Say encoding='utf-16'"):
        load(path, times="t_s", neurons="n")
    assert trains(load(path, times="t_s", neurons="n", encoding="utf-16")) == {"1": [0.5]}


def test_a_word_far_into_a_large_file_is_named_without_reading_it_twice(tmp_path, monkeypatch):
    rows = ["n,t_s", *[f"{i % 3},{i / 10}" for i in range(100)], "2,oops", "1,99"]
    path = written(tmp_path, "\n".join(rows) + "\n")
    monkeypatch.setattr(text_tables, "LARGE_BYTES", 0)
    monkeypatch.setattr(text_tables, "as_columns", None)
    with pytest.raises(ReadError, match="'t_s' holds 'oops' in row 100, counted from 0; expected numbers"):
        load(path, times="t_s", neurons="n")


def test_no_spike_train_is_an_error_of_its_own(tmp_path):
    with pytest.raises(NoSpikeTrainsError):
        load(written(tmp_path, "\n# x\n", "a.txt"))


def test_large_columns_keep_every_spike_in_its_bin(tmp_path):
    ticks = np.sort(np.random.default_rng(3).integers(0, 30_000 * 20, 5000))
    path = tmp_path / "grid.txt"
    np.savetxt(path, np.column_stack([np.zeros(5000), ticks / 30_000]), fmt=["%d", "%.12f"])
    binned = load(path, times="1", neurons="0", unit="s", stop_s=20).bin(1)
    by_hand = np.bincount(ticks // 30, minlength=20_000)
    assert np.array_equal(binned.dense_numpy()[0, :, 0], by_hand)


@pytest.mark.parametrize(
    "text", ["n,t_s\n1,0.5\n2,0.25\n", "1 0.5\n2 0.25\n", "n;t_s\n1;0.5\n# comment\n2;0.25\n", "n,t_s\nc1,0.5\nc2,0.25\n"]
)
def test_large_files_are_read_as_small_ones(tmp_path, monkeypatch, text):
    rows = text.splitlines()
    path = written(tmp_path, "\n".join([*rows, *rows[-2:] * 60]) + "\n")
    names = {"times": "t_s", "neurons": "n"} if "t_s" in text else {"times": "1", "neurons": "0", "unit": "s"}
    small = load(path, **names)
    monkeypatch.setattr(text_tables, "LARGE_BYTES", 0)
    large = load(path, **names)
    assert small.n_spikes == 122 - ("#" in text) * 60
    assert large.fingerprint() == small.fingerprint()
