"""Selection, alignment to events, attachment."""

import numpy as np
import pytest

from fitspike.errors import InvalidInputError, RecordingError, UnknownNameError
from fitspike.recording.recording import Recording, Signal, TrialTable
from fitspike.recording.tables import NeuronTable
from fitspike.recording.where import neuron_mask

NS = 1_000_000_000


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("contamination < 0.05", [1, 0, 1, 0, 1]),  # NaN meets no comparison but !=
        ("contamination != 0.04", [1, 1, 0, 1, 1]),
        ("quality == good", [1, 0, 1, 1, 0]),
        ("quality = 'good' and contamination <= 0.04", [1, 0, 1, 0, 0]),
        ("population == E", [1, 1, 0, 0, 0]),
        ("id != 3", [1, 1, 1, 0, 1]),
    ],
)
def test_where_keeps_the_neurons_that_meet_the_comparison(small_recording, text, expected):
    assert neuron_mask(small_recording.neurons, [text]).astype(int).tolist() == expected


def test_where_reads_names_and_values_with_spaces_and_truth_values():
    table = NeuronTable.make(["a", "b"], columns={"brain region": ["V1 and V2", "CA1"], "is_fs": [True, False]})
    assert neuron_mask(table, ['brain region == "V1 and V2"']).tolist() == [True, False]
    assert neuron_mask(table, ["is_fs == false", "brain region == CA1"]).tolist() == [False, True]


@pytest.mark.parametrize(
    ("text", "error", "part"),
    [
        ("contaminaton < 0.05", UnknownNameError, "did you mean 'contamination'"),
        ("contamination < low", InvalidInputError, "'low' is none"),
        ("quality < good", InvalidInputError, "holds text"),
        ("contamination", InvalidInputError, "no comparison"),
        ("__import__('os').system('x')", InvalidInputError, "no comparison"),
        ("contamination < 0.05 and", InvalidInputError, 'ends with "and"'),
        ("", InvalidInputError, "no comparison"),
    ],
)
def test_where_says_what_is_wrong(small_recording, text, error, part):
    with pytest.raises(error, match=part):
        neuron_mask(small_recording.neurons, [text])


def test_select_neurons_in_the_order_asked_for(small_recording):
    chosen = small_recording.select(neurons=["3", "0"])
    assert chosen.neurons.ids.tolist() == ["3", "0"]
    assert np.array_equal(chosen.train_s(0), small_recording.train_s("3"))
    assert np.array_equal(chosen.train_s(1), small_recording.train_s("0"))
    mask = np.array([False, True, False, False, True])
    assert small_recording.select(neurons=mask).neurons.ids.tolist() == ["1", "4"]
    assert small_recording.select(neurons=[2, 3], where="contamination < 1").neurons.ids.tolist() == ["2"]


def test_simultaneous_spikes_stay_sorted_when_neurons_change_order():
    recording = Recording.from_trains([[0.5], [0.5], [0.5]]).select(neurons=[2, 0, 1])
    assert recording.spike_neuron.tolist() == [0, 1, 2]


def test_select_time_range_cuts_trials_and_remembers_the_offset(small_recording):
    part = small_recording.select(start_s=5, stop_s=8)
    assert part.trials.start_ns.tolist() == [5 * NS]
    assert part.trials.offset_ns.tolist() == [5 * NS]
    expected = [np.count_nonzero((small_recording.train_s(i) >= 5) & (small_recording.train_s(i) < 8)) for i in range(5)]
    assert part.bin(1.0).counts()[0].tolist() == expected
    assert part.bin(10.0).trial_bin.tolist() == [500]


def test_time_range_of_binned_data_falls_on_native_bins():
    part = Recording.from_counts(np.arange(20).reshape(10, 2), dt_ms=10).select(start_s=0.015, stop_s=0.065)
    assert (part.trials.start_ns.tolist(), part.trials.stop_ns.tolist()) == ([20_000_000], [60_000_000])
    assert part.bin().dense_numpy()[0, :, 0].tolist() == [4, 6, 8, 10]


def test_select_trials_and_conditions(trial_recording):
    assert trial_recording.select(trials=[4, 1]).trials.start_ns.tolist() == trial_recording.trials.start_ns[[4, 1]].tolist()
    assert trial_recording.select(conditions=["left"]).n_trials == 6
    assert trial_recording.select(trials=[0, 1, 2], conditions=["right"]).n_trials == 1
    total = trial_recording.bin(1.0).counts()
    assert np.array_equal(trial_recording.select(trials=np.arange(12) > 8).bin(1.0).counts(), total[9:])


@pytest.mark.parametrize(
    ("criteria", "error", "text"),
    [
        ({"neurons": ["nobody"]}, UnknownNameError, r"no neuron with id 'nobody'\. Ids: "),
        ({"neurons": [5]}, RecordingError, "rows go from 0 to 4"),
        ({"neurons": [True]}, RecordingError, "mask has shape"),
        ({"neurons": [1, 1]}, RecordingError, "selected twice"),
        ({"where": "contamination < 0"}, RecordingError, "no neuron is left of 5. Loosen the selection 'contamination < 0'"),
        ({"trials": [3]}, RecordingError, "counted from 0 to 0"),
        ({"conditions": ["x"]}, UnknownNameError, "no trial has condition 'x'"),
        ({"start_s": 30}, RecordingError, "no trial is left of 1, which lie between 0 and 20 s"),
        ({"start_s": 3, "stop_s": 2}, RecordingError, "is empty"),
        ({"signals": ["stimulu"]}, UnknownNameError, "did you mean 'stimulus'"),
    ],
)
def test_select_says_what_is_wrong(small_recording, criteria, error, text):
    with pytest.raises(error, match=text):
        small_recording.select(**criteria)


def test_align_cuts_one_trial_per_event_with_true_times(small_recording):
    aligned = small_recording.align("cue", (-0.5, 1.0), conditions=list("abababababa"[:10]))
    assert aligned.n_trials == 10
    assert aligned.trials.conditions.tolist() == list("ababababab")
    train = small_recording.train_s("3")
    counts = [np.count_nonzero((train >= cue - 0.5) & (train < cue + 1.0)) for cue in range(1, 20, 2)]
    assert aligned.bin(1.0).counts()[:, 3].tolist() == counts
    assert aligned.bin(1.0).start_ns.tolist() == [(cue * 10 - 5) * NS // 10 for cue in range(1, 20, 2)]


def test_align_leaves_out_windows_that_reach_out_and_says_so(small_recording):
    aligned = small_recording.align([0.2, 10.0, 19.9], (-0.5, 0.5))
    assert aligned.trials.column("event").tolist() == [1]
    assert "2 of 3 windows" in aligned.source.notes[-1]


def test_align_inherits_condition_and_columns_of_the_trial_around(trial_recording):
    starts_s = trial_recording.trials.start_ns / NS
    aligned = trial_recording.align(starts_s[[1, 4]] + 0.2, (-0.1, 0.1))
    assert aligned.trials.conditions.tolist() == ["right", "left"]
    assert aligned.trials.column("repeat").tolist() == [0, 2]


def test_align_keeps_overlapping_windows(small_recording):
    aligned = small_recording.align([5.0, 5.4], (-0.5, 0.5))
    train = small_recording.train_s("3")
    assert aligned.bin(1.0).counts()[:, 3].tolist() == [np.count_nonzero(np.abs(train - at) < 0.5) for at in (5.0, 5.4)]


def test_align_of_counts_starts_at_the_nearest_native_bin():
    recording = Recording.from_counts([np.arange(30)[:, None], 100 + np.arange(30)[:, None]], dt_ms=7)
    second = recording.trials.start_ns[1] / NS
    aligned = recording.align([second + 0.0365], (-0.014, 0.021))  # the event lies nearest to the edge of bin 5
    assert aligned.bin().dense_numpy()[0, :, 0].tolist() == [103, 104, 105, 106, 107]


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        (("cu", (0, 1)), UnknownNameError, "did you mean 'cue'"),
        (("cue", (1, 1)), RecordingError, "is empty"),
        (([np.nan], (0, 1)), RecordingError, "NaN"),
        (([100.0], (0, 1)), RecordingError, "none of the windows"),
    ],
)
def test_align_says_what_is_wrong(small_recording, arguments, error, text):
    with pytest.raises(error, match=text):
        small_recording.align(*arguments)


def test_attach_adds_and_replaces(small_recording):
    more = small_recording.attach(
        signals={"speed": Signal(np.zeros(20), 1.0)},
        events={"lick": [3.0, 1.0]},
        conditions=["run"],
        neuron_columns={"label": list("abcde")},
    )
    assert list(more.signals) == ["stimulus", "speed"]
    assert more.events["lick"].tolist() == [NS, 3 * NS]
    assert more.trials.conditions.tolist() == ["run"]
    assert more.neurons.labels.tolist() == list("abcde")
    assert small_recording.neurons.labels.tolist() == list("01234")
    with pytest.raises(RecordingError, match="one entry for each of 1 rows"):
        small_recording.attach(conditions=["a", "b"])
    with pytest.raises(RecordingError, match="conditions='a' is one text"):
        small_recording.attach(conditions="a")
    with pytest.raises(RecordingError, match="signal 'speed' is a ndarray; expected Signal"):
        small_recording.attach(signals={"speed": np.zeros(20)})


def test_overlapping_trials_are_found():
    table = TrialTable.from_seconds([0, 5, 1, 9], [2, 6, 3, 10])
    assert table.overlapping().tolist() == [True, False, True, False]
    assert TrialTable.from_seconds([0, 1], [1, 2]).overlapping().tolist() == [False, False]
