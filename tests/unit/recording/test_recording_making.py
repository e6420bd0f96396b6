"""Recordings from arrays, trains, trials, counts, and from each other."""

import numpy as np
import pytest

from fitspike.errors import RecordingError
from fitspike.recording.recording import NeuronTable, Recording, Signal, TrialTable

NS = 1_000_000_000


def test_from_arrays_sorts_by_time_then_neuron():
    recording = Recording.from_arrays([0.3, 0.1, 0.1, 0.2], ["b", "b", "a", "a"])
    assert recording.neurons.ids.tolist() == ["a", "b"]
    assert recording.spike_times_ns.tolist() == [NS // 10, NS // 10, NS // 5, 3 * NS // 10]
    assert recording.spike_neuron.tolist() == [0, 1, 0, 1]
    assert recording.train_s("b").tolist() == [0.1, 0.3]


def test_silent_neurons_are_kept_where_they_are_listed():
    assert Recording.from_arrays([0.1], [2], n_neurons=4).n_neurons == 4
    assert Recording.from_arrays([0.1], [7], ids=[9, 7, 8]).spike_neuron.tolist() == [1]
    assert Recording.from_trains({"x": [], "y": [0.5]}).neurons.ids.tolist() == ["x", "y"]
    assert Recording.from_arrays([], [], n_neurons=2, stop_s=1).n_spikes == 0


def test_default_trial_holds_every_spike_in_bins_of_1_to_10_ms():
    recording = Recording.from_trains([[0.0, 0.12345], [-0.05]])
    for dt_ms in (1.0, 2.0, 5.0, 10.0):
        assert recording.bin(dt_ms).n_spikes == 3
    assert recording.trials.start_ns.tolist() == [-50_000_000]
    assert Recording.from_trains([[0.5]], start_s=0.2, stop_s=0.7).duration_s == pytest.approx(0.5)


def test_from_trains_and_from_arrays_agree():
    generator = np.random.default_rng(1)
    trains = [generator.uniform(0, 5, n) for n in (0, 30, 1, 200)]
    flat = Recording.from_arrays(np.concatenate(trains), np.repeat(np.arange(4), [len(t) for t in trains]), n_neurons=4)
    assert Recording.from_trains(trains).fingerprint() == flat.fingerprint()


def test_from_trials_lays_trials_end_to_end():
    recording = Recording.from_trials([[[0.1], [0.2]], [[], [0.3]]], durations_s=[0.5, 0.4], conditions=["a", "b"], gap_s=1.0)
    assert recording.trials.start_ns.tolist() == [0, 3 * NS // 2]
    assert recording.trials.duration_ns.tolist() == [NS // 2, 4 * NS // 10]
    assert recording.bin(100.0).dense_numpy()[1, :4].T.tolist() == [[0, 0, 0, 0], [0, 0, 0, 1]]


def test_from_counts_gives_the_counts_back():
    counts = np.random.default_rng(0).poisson(0.7, (3, 6, 4))
    recording = Recording.from_counts(counts, dt_ms=10)
    assert np.array_equal(recording.bin().dense_numpy(), counts)
    assert recording.n_spikes == counts.sum()
    doubled = recording.bin(20.0).dense_numpy()
    assert np.array_equal(doubled, counts.reshape(3, 3, 2, 4).sum(axis=2))


def test_from_counts_takes_one_trial_and_ragged_trials():
    assert Recording.from_counts(np.ones((5, 2), dtype=np.uint8), dt_ms=1).n_trials == 1
    ragged = Recording.from_counts([np.eye(2), np.zeros((3, 2)), np.zeros((0, 2))], dt_ms=1, ids=["a", "b"])
    assert ragged.bin().bins_per_trial.tolist() == [2, 3, 0]


def test_concatenate_keeps_trials_apart_and_moves_signals_and_events():
    def part(offset):
        signal = Signal(np.arange(10.0) + offset, 10.0)
        return Recording.from_trains([[0.25], [0.75]], stop_s=1, signals={"x": signal}, events={"cue": np.array([NS // 2])})

    joined = Recording.concatenate([part(0), part(100)], labels=["one", "two"])
    assert joined.trials.column("file").tolist() == ["one", "two"]
    assert joined.trials.start_ns.tolist() == [0, 2 * NS]
    assert joined.events["cue"].tolist() == [NS // 2, 2 * NS + NS // 2]
    binned = joined.bin(100.0)
    assert np.array_equal(binned.signals["x"][:, 0], np.concatenate([np.arange(10.0), np.arange(10.0) + 100]))
    assert binned.counts().tolist() == [[1, 1], [1, 1]]


def test_empty_trains_of_any_shape_are_silent_neurons():
    recording = Recording.from_trains([np.zeros((1, 0)), np.zeros((0, 0)), [], [[0.1, 0.2]]], stop_s=1)
    assert recording.bin(1000.0).counts().tolist() == [[0, 0, 0, 2]]


def test_ids_that_are_whole_floats_are_read_as_whole_numbers():
    assert Recording.from_arrays([0.1, 0.2], [3.0, 11.0]).neurons.ids.tolist() == ["3", "11"]


def test_concatenate_lists_every_difference():
    with pytest.raises(RecordingError) as caught:
        Recording.concatenate(
            [
                Recording.from_trains([[0.1]], stop_s=1, signals={"x": Signal(np.zeros(10), 10.0)}),
                Recording.from_trains([[0.1], []], stop_s=1),
                Recording.from_counts(np.ones((4, 1), int), dt_ms=1),
            ]
        )
    text = str(caught.value)
    assert all(part in text for part in ("recording 1 has other neurons", "recording 1 has signals []", "recording 2 has native bins"))


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Recording.from_arrays([0.1], [1, 2]), "1 spike times but 2 neuron ids"),
        (lambda: Recording.from_arrays([0.1], [5], n_neurons=2), "List every neuron"),
        (lambda: Recording.from_arrays([0.1], [0], n_neurons=2, ids=[0]), "give one of"),
        (lambda: Recording.from_trains([[0.1]], ids=["a", "b"]), "one id per train"),
        (lambda: Recording.from_arrays([0.1, 0.2], [0, 1], ids=["a", "a"]), "neuron ids repeat: a"),
        (lambda: Recording.from_trains([[0.1]], start_s=2, stop_s=1), "stops at 1.0 s, before it starts"),
        (lambda: Recording.from_trials([[[0.1]], [[0.9]]], durations_s=0.5), "trial 1 has a spike outside"),
        (lambda: Recording.from_trials([[[0.1]], []], durations_s=0.5), "trial 1 has 0 trains"),
        (lambda: Recording.from_counts(np.array([[1.5]]), dt_ms=1), "no whole number of spikes"),
        (lambda: Recording.from_counts(np.array([[-1]]), dt_ms=1), "no whole number of spikes"),
        (lambda: Recording.from_counts(np.array([[np.nan]]), dt_ms=1), "no whole number of spikes"),
        (lambda: Recording.from_counts([np.ones((2, 2)), np.ones((2, 3))], dt_ms=1), r"trial 1 has shape \(2, 3\)"),
        (lambda: Recording.from_trains([0.1, 0.2, 0.3]), r"a spike train is the number 0.1.*Of one neuron: \[times\]"),
        (lambda: Recording.from_trains([np.ones((3, 2))]), r"a spike train has shape \(3, 2\)"),
        (lambda: Recording.from_trials([[0.1]], durations_s=1), "a spike train is the number 0.1"),
        (lambda: Recording.from_arrays([0.1, 0.2], [0, np.nan]), r"1 of 2 spikes have no neuron \(spike 1 is of nan\)"),
        (lambda: Recording.from_arrays([0.1, 0.2], [None, 1]), r"1 of 2 spikes have no neuron \(spike 0 is of None\)"),
        (lambda: TrialTable.make([0.0, np.nan], [1.0, 2.0]), "starts or stops at a time that is NaN"),
    ],
)
def test_inconsistent_input_is_refused(make, text):
    with pytest.raises(RecordingError, match=text):
        make()


def test_all_problems_of_a_recording_come_in_one_error():
    neurons, trials = NeuronTable.make(["a"]), TrialTable.make([0], [10])
    with pytest.raises(RecordingError) as caught:
        Recording(np.array([5, 3]), np.array([0, 4], np.uint16), neurons, trials, spike_count=np.ones(2, int))
    assert all(part in str(caught.value) for part in ("3 problems", "neuron 4", "not sorted", "bin_width_ns"))


def test_a_million_spikes_out_of_order_are_noticed_past_the_first_block():
    times = np.arange(3_000_000)
    times[2_500_000] -= 2
    with pytest.raises(RecordingError, match="not sorted"):
        Recording(times, np.zeros(len(times), np.uint16), NeuronTable.make(["a"]), TrialTable.make([0], [10]))


def test_rates_count_covered_time_once():
    recording = Recording.from_trains([[0.1, 0.2, 0.9, 3.0]], trials=TrialTable.from_seconds([0.0, 0.5], [1.0, 2.0]))
    assert recording.rates_hz.tolist() == [3 / 2.0]  # 3 spikes in [0, 2), the one at 3 s is outside
    assert recording.duration_s == 2.5
