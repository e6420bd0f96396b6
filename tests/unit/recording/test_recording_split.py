"""Splits: no time is scored on both sides, in every small case; the cut is where the arithmetic of the baselines puts it."""

import itertools

import numpy as np
import pytest

from fitspike.errors import BinWidthError, InvalidInputError, RecordingError, UnknownNameError
from fitspike.recording.recording import Recording, TrialTable
from fitspike.recording.split import SplitSettings, parse_split, split

MS = 1_000_000


def intervals(recording, *, scored):
    """Return the (start, stop) in ns of each trial, without its warm-up if only scored time is asked for."""
    table = recording.trials
    return list(zip((table.start_ns + (table.warmup_ns if scored else 0)).tolist(), table.stop_ns.tolist(), strict=True))


def overlap(some, others):
    return any(min(b, d) > max(a, c) for (a, b), (c, d) in itertools.product(some, others))


def lead(some, others):
    """Return the least time from the end of one of `some` to the start of a later one of `others`."""
    return min((c - b for (_, b), (c, _) in itertools.product(some, others) if c >= b), default=np.inf)


@pytest.mark.parametrize("fraction", [0.1, 0.2, 0.5, 0.9])
@pytest.mark.parametrize("gap_s", [0.0, 0.003, 0.0072])
@pytest.mark.parametrize("warmup_s", [0.0, 0.004, 1.0])
@pytest.mark.parametrize("dt_ms", [None, 1.0, 3.0])
def test_by_time_never_scores_a_moment_twice(fraction, gap_s, warmup_s, dt_ms):
    for lengths_ms, start_ms in itertools.product([(1,), (10,), (37,), (10, 23, 1)], (0, 7.3)):
        starts = np.cumsum([start_ms, *(length + 5 for length in lengths_ms)])[:-1]
        trials = TrialTable.make(starts * MS, (starts + lengths_ms) * MS)
        recording = Recording.from_trains([np.arange(0, 60, 0.5)], unit="ms", trials=trials)
        settings = SplitSettings(by="time", test_fraction=fraction, gap_s=gap_s, warmup_s=warmup_s)
        try:
            parts = split(recording, settings, dt_ms=dt_ms)
        except RecordingError:
            continue  # nothing left on one side
        train, test = intervals(parts.train, scored=True), intervals(parts.test, scored=True)
        assert not overlap(train, test)
        assert lead(train, test) >= gap_s * 1e9
        assert all(stop > start for start, stop in (*train, *test))
        # the warm-up lies inside the trial it belongs to, and is no longer than asked for
        for start, warmup in zip(parts.test.trials.start_ns, parts.test.trials.warmup_ns, strict=True):
            home = np.flatnonzero((trials.start_ns <= start) & (start < trials.stop_ns))
            assert home.size == 1 and warmup <= warmup_s * 1e9
        # a part holds the spikes of its own time and no other
        times = recording.spike_times_ns
        for part in (parts.train, parts.test):
            inside = np.any([(times >= a) & (times < b) for a, b in intervals(part, scored=False)], axis=0)
            assert np.array_equal(part.spike_times_ns, times[inside])


def test_by_time_has_a_case_that_is_left():
    # the loop above skips what cannot be split; most cases can
    parts = split(Recording.from_trains([np.arange(37.0)], unit="ms", stop_s=0.037), SplitSettings(by="time", gap_s=0.003, warmup_s=0.004))
    assert intervals(parts.train, scored=True) == [(0, 26 * MS)]
    assert intervals(parts.test, scored=False) == [(25 * MS, 37 * MS)]
    assert parts.test.bin(1.0).warmup_bins.tolist() == [4]
    assert "3" in parts.description and "by time" in parts.description


@pytest.mark.parametrize(("duration_s", "dt_ms"), [(600.0, 1.0), (1198.7653, 5.0), (100.0, 50.0), (59.999, 10.0)])
def test_the_cut_is_the_floor_of_four_fifths_of_the_bins(duration_s, dt_ms):
    recording = Recording.from_trains([[1.0]], stop_s=duration_s)
    n_bins = recording.bin(dt_ms).n_bins_total
    parts = split(recording, "time:0.2", dt_ms=dt_ms)
    assert parts.train.bin(dt_ms).n_bins_total == n_bins * 4 // 5
    assert parts.test.bin(dt_ms).n_scored_bins == n_bins - n_bins * 4 // 5


def test_bins_of_a_test_part_are_bins_of_the_whole(small_recording):
    whole = small_recording.bin(5.0)
    test = split(small_recording, "time:0.3,warmup=2", dt_ms=5.0).test.bin(5.0)
    first = int(test.trial_bin[0])
    assert np.array_equal(test.dense_numpy()[0], whole.dense_numpy()[0, first:])
    assert np.array_equal(test.signals["stimulus"], whole.signals["stimulus"][first:])
    assert first + int(test.warmup_bins[0]) == int(0.7 * whole.n_bins_total)


def test_counts_are_cut_at_native_bins():
    recording = Recording.from_counts(np.arange(2 * 13).reshape(13, 2), dt_ms=7)
    parts = split(recording, "time:0.2")
    assert parts.train.bin().n_bins_total == 10 and parts.test.bin().n_scored_bins == 3
    with pytest.raises(BinWidthError):
        split(recording, "time:0.2", dt_ms=10.0)


def test_every_fifth_trial_of_each_condition():
    conditions = np.array(["a", "b"] * 10)
    recording = trials_of(conditions)
    parts = split(recording)
    starts = recording.trials.start_ns
    assert np.flatnonzero(np.isin(starts, parts.test.trials.start_ns)).tolist() == [8, 9, 18, 19]
    assert parts.train.n_trials == 16
    assert not overlap(intervals(parts.train, scored=True), intervals(parts.test, scored=True))
    assert "one in 3 within its condition" in split(recording, "trial:every=3").description


def trials_of(conditions):
    return Recording.from_trials([[[0.1]]] * len(conditions), durations_s=0.2, conditions=conditions)


def test_rare_conditions_are_dealt_out_together():
    parts = split(trials_of([f"image {k}" for k in range(10)]))
    assert parts.test.trials.conditions.tolist() == ["image 4", "image 9"]


def test_by_column_and_by_named_trials(trial_recording):
    parts = split(trial_recording, "trial:every=3,offset=2,column=repeat")
    assert parts.test.trials.column("repeat").tolist() == [2, 2, 5, 5]
    assert "repeat % 3 == 2" in parts.description
    assert np.flatnonzero(split_mask(trial_recording, "trial:test=2+5-7")).tolist() == [2, 5, 6, 7]


def split_mask(recording, text):
    return np.isin(recording.trials.start_ns, split(recording, text).test.trials.start_ns)


def test_a_seed_draws_other_trials_but_as_many_of_each_condition(trial_recording):
    fixed = split_mask(trial_recording, "trial:every=3")
    drawn = [split_mask(trial_recording, f"trial:every=3,seed={seed}") for seed in (1, 1, 2)]
    assert np.array_equal(drawn[0], drawn[1]) and not np.array_equal(drawn[0], drawn[2])
    for mask in (fixed, *drawn):
        assert [np.count_nonzero(mask[k::2]) for k in range(2)] == [2, 2]


def test_training_trials_that_share_time_with_a_test_trial_are_left_out(small_recording):
    aligned = small_recording.align(np.arange(1.0, 19.0, 0.5), (0.0, 0.8))
    parts = split(aligned, "trial:every=6")
    assert not overlap(intervals(parts.train, scored=True), intervals(parts.test, scored=True))
    assert parts.test.n_trials == 6 and parts.train.n_trials == 36 - 6 - 11
    assert "11 training trials" in parts.description
    with pytest.raises(RecordingError, match="trials overlap"):
        split(aligned, "time")


def test_a_gap_around_test_trials(trial_recording):
    # trials are 0.4 to 0.6 s long and 1 s apart
    assert split(trial_recording, "trial:test=5,gap=0.9").train.n_trials == 11
    assert split(trial_recording, "trial:test=5,gap=1.1").train.n_trials == 9


def test_neurons_are_held_out_for_co_smoothing(small_recording):
    parts = split(small_recording, "neuron:0.4")
    assert parts.held_out_neurons.sum() == 2 and parts.test is not None
    assert np.array_equal(parts.held_out_neurons, split(small_recording, "neuron:0.4").held_out_neurons)
    assert any(
        not np.array_equal(parts.held_out_neurons, split(small_recording, f"neuron:0.4,seed={s}").held_out_neurons) for s in range(1, 5)
    )
    with pytest.raises(RecordingError, match="co-smoothing needs neurons on both sides"):
        split(small_recording.select(neurons=[0]), "neuron:0.2")


def test_auto_takes_trials_from_five_on_else_time(small_recording, trial_recording):
    assert "by time" in split(small_recording).description
    assert "by time" in split(trial_recording.select(trials=[0, 1, 2, 3])).description
    assert "by trial" in split(trial_recording).description
    assert split(small_recording, "none").test is None


@pytest.mark.parametrize("text", ["auto", "none", "time:0.25", "time:fraction=0.3,gap=1,warmup=2", "trial:every=5,offset=4,column=repeat"])
def test_settings_and_their_text_are_one(text):
    settings = parse_split(text)
    assert parse_split(settings.as_text()) == settings


def test_text_forms():
    assert parse_split("time:0.25") == SplitSettings(by="time", test_fraction=0.25)
    assert parse_split("time:test=0.25") == SplitSettings(by="time", test_fraction=0.25)
    assert parse_split("trial:test=2") == SplitSettings(by="trial", test_trials=(2,))
    assert parse_split("trial: every=4 , seed=3") == SplitSettings(by="trial", every=4, seed=3)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("tme:0.2", ["did you mean 'time'"]),
        ("time:0.2,gp=3,warmup=x", ["no option 'gp'; did you mean 'gap'?", "warmup=x cannot be read"]),
        ("time:1.2", ["between 0 and 1"]),
        ("trial:every=1", ["expected 2 or more"]),
        ("trial:every=5,offset=5", ["expected 0 to 4"]),
        ("time:gap=-1", ["0 or more seconds"]),
    ],
)
def test_settings_that_are_wrong_list_every_problem(text, parts):
    with pytest.raises(InvalidInputError) as caught:
        parse_split(text)
    assert all(part in str(caught.value) for part in parts)


def test_splits_that_leave_nothing_say_so(small_recording, trial_recording):
    with pytest.raises(RecordingError, match="leaves nothing to train on"):
        split(small_recording, "time:0.2,gap=17")
    with pytest.raises(RecordingError, match="leaves none to test with"):
        split(trial_recording, "trial:every=40")
    with pytest.raises(RecordingError, match="counted from 0 to 11"):
        split(trial_recording, "trial:test=12")
    with pytest.raises(UnknownNameError, match="did you mean 'repeat'"):
        split(trial_recording, "trial:column=repeats")
