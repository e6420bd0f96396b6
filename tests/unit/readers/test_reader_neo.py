"""Neo blocks and files written by Neo; recordings to blocks and back."""

from __future__ import annotations

import neo
import numpy as np
import pytest
import quantities as pq

from fitspike import Recording, load
from fitspike.errors import NoSpikeTrainsError, ReadError
from fitspike.plugin import NeuronTable, Signal, TrialTable
from fitspike.recording import neo_reader

NS = 1_000_000_000


def block_of(*segments):
    """Return a block; a segment is (list of (name, times in ms), t_stop in ms)."""
    block = neo.Block()
    for trains, stop in segments:
        segment = neo.Segment()
        for name, times in trains:
            segment.spiketrains.append(neo.SpikeTrain(times, units="ms", t_stop=stop, name=name))
        block.segments.append(segment)
    return block


def trains(recording):
    return {str(i): recording.train_s(str(i)).tolist() for i in recording.neurons.ids}


def test_one_segment_is_one_trial_with_names_as_ids():
    recording = load(block_of(([("a", [1.0, 20.5]), ("b", [])], 100.0)))
    assert trains(recording) == {"a": [0.001, 0.0205], "b": []}
    assert recording.duration_s == 0.1


def test_overlapping_segments_are_laid_end_to_end_and_matched_by_name():
    recording = load(block_of(([("a", [1.0]), ("b", [2.0])], 100.0), ([("b", [30.0]), ("c", [40.0])], 50.0)))
    assert recording.bin(1).counts().tolist() == [[1, 1, 0], [0, 1, 1]]
    assert (recording.trials.duration_ns // 1_000_000).tolist() == [100, 50]
    assert any("overlap in time; they were laid end to end" in note for note in recording.source.notes)


def test_segments_after_one_another_keep_their_times():
    block = block_of(([("a", [1.0])], 100.0))
    later = neo.Segment()
    later.spiketrains.append(neo.SpikeTrain([150.0], units="ms", t_start=120.0, t_stop=200.0, name="a"))
    block.segments.append(later)
    assert load(block).spike_times_ns.tolist() == [1_000_000, 150_000_000]


def test_nameless_trains_are_matched_by_position_only_where_equally_many():
    same = load(block_of(([(None, [1.0]), (None, [2.0])], 10.0), ([(None, [3.0]), (None, [4.0])], 10.0)))
    assert same.bin(1).counts().tolist() == [[1, 1], [1, 1]]
    with pytest.raises(ReadError, match="segments hold 1 to 2 spike trains without names"):
        load(block_of(([(None, [1.0])], 10.0), ([(None, [1.0]), (None, [2.0])], 10.0)))


def test_a_spike_at_the_end_of_a_train_is_kept_in_its_trial():
    recording = load(block_of(([("a", [10.0])], 10.0)))
    assert recording.bin(1).counts().tolist() == [[1]]
    assert any("widened to 0.011 s" in note for note in recording.source.notes)


def test_events_epochs_and_labels():
    block = block_of(([("a", [1.0])], 1000.0))
    block.segments[0].events.append(neo.Event([0.1, 0.5, 0.7] * pq.s, labels=["go", "stop", "go"], name="cue"))
    block.segments[0].epochs.append(neo.Epoch([0.2] * pq.s, durations=[100] * pq.ms, labels=["light"], name="light"))
    events = {name: (times / 1_000_000).tolist() for name, times in load(block).events.items()}
    assert events == {"cue": [100, 500, 700], "cue:go": [100, 700], "cue:stop": [500], "light": [200], "light.stop": [300]}


def test_blocks_and_segments_without_trains_say_so():
    block = neo.Block()
    block.segments.append(neo.Segment())
    block.segments[0].analogsignals.append(neo.AnalogSignal(np.zeros((5, 1)), units="mV", sampling_rate=1 * pq.kHz))
    with pytest.raises(NoSpikeTrainsError, match="no spike trains found in the neo Block: it holds 1 signal and no spike train"):
        load(block)


def rich_recording():
    """Two overlapping trials and one later, a spike outside, signals, events, columns of every kind."""
    rng = np.random.default_rng(11)
    times = np.sort(rng.integers(0, 10 * NS, 300))
    trials = TrialTable.make(
        np.array([0, 2, 6]) * NS,
        np.array([4, 5, 9]) * NS,
        conditions=["a", "b", "a"],
        columns={"repeat": [0, 0, 1], "side": ["l", "r", "l"]},
        warmup_ns=[0, NS, 0],
    )
    neurons = NeuronTable.make(
        ["n1", "n2", "n3", "n4"],
        labels=["first", "second", "third", "silent"],
        populations=["e", "e", "i", ""],
        columns={"depth_um": [1.5, 2.5, np.nan, 0.0], "good": [True, False, True, True], "waveform": np.arange(8.0).reshape(4, 2)},
    )
    ids = neurons.ids[rng.integers(0, 3, 300)]
    signals = {"speed": Signal(rng.normal(size=(100, 2)).astype("f4"), 10.0, 0, "furlong", ("x", "y"))}
    return Recording.from_arrays(times, ids, unit="ns", neurons=neurons, trials=trials, signals=signals, events={"cue": times[::50]})


def test_a_recording_comes_back_from_neo_as_it_was():
    recording = rich_recording()
    block = recording.to_neo()
    again = load(block)
    assert again.fingerprint() == recording.fingerprint()
    assert again.neurons.labels.tolist() == recording.neurons.labels.tolist()
    assert [s.name for s in block.segments] == ["trial 0", "trial 1", "trial 2", "outside trials", "shared"]
    second = block.segments[1].spiketrains[1]
    by_hand = recording.spike_times_ns[
        (recording.spike_neuron == 1) & (recording.spike_times_ns >= 2 * NS) & (recording.spike_times_ns < 5 * NS)
    ]
    assert np.allclose(second.times.rescale("ns").magnitude, by_hand, atol=0.6)


def test_counts_come_back_from_neo_as_they_were():
    counts = np.random.default_rng(2).poisson(0.7, size=(3, 6, 4))
    recording = Recording.from_counts(counts, dt_ms=50)
    assert load(recording.to_neo()).fingerprint() == recording.fingerprint()
    assert np.array_equal(load(recording.to_neo()).bin().dense_numpy(), counts)


def test_a_recording_written_by_neo_to_a_file_is_read_back(tmp_path):
    path = tmp_path / "block.pkl"
    neo.io.PickleIO(str(path)).write_block(block_of(([("a", [1.0, 5.0]), ("b", [2.0])], 10.0)))
    assert trains(load(path, allow_pickle=True)) == {"a": [0.001, 0.005], "b": [0.002]}
    matlab = tmp_path / "block.mat"
    neo.io.NeoMatlabIO(str(matlab)).write_block(block_of(([("a", [1.0, 5.0]), ("b", [2.0])], 10.0)))
    assert trains(load(matlab)) == {"a": [0.001, 0.005], "b": [0.002]}


def test_nix_files_are_opened_read_only(tmp_path):
    pytest.importorskip("nixio")
    path = tmp_path / "block.nix"
    with neo.io.NixIO(str(path), "ow") as io:
        io.write_block(block_of(([("a", [1.0, 5.0]), ("b", [2.0])], 10.0)))
    before = path.read_bytes()
    assert trains(load(path)) == {"a": [0.001, 0.005], "b": [0.002]}
    assert path.read_bytes() == before


def test_every_failed_class_is_named_with_its_reason(tmp_path):
    path = tmp_path / "broken.smr"
    path.write_bytes(bytes(range(200)) * 3)
    with pytest.raises(ReadError, match=r"(?s)CedIO: \w+.*Spike2IO: \w+"):
        load(path)


def test_an_unknown_class_is_suggested(tmp_path):
    path = tmp_path / "x.plx"
    path.write_bytes(b"PLEX" + bytes(100))
    with pytest.raises(ReadError, match="neo.io has no class 'PlexnIO'; did you mean 'PlexonIO'"):
        load(path, format="neo", io="PlexnIO")


def test_every_class_left_out_exists_in_neo():
    names = {io.__name__ for io in neo.io.iolist}
    assert set(neo_reader.NOT_USED) <= names
