"""Events in bins against counts by hand and by brute force; chunks, dense arrays and cuts give the same counts back."""

import numpy as np
import pytest

from fitspike.errors import BinWidthError, DenseTooLargeError, InvalidInputError
from fitspike.recording import binning
from fitspike.recording.binned import SpikeChunk
from fitspike.recording.recording import Recording, TrialTable


def brute_force(recording, dt_ms):
    """Return a list of counts (n_bins, n_neurons), one per trial, spike by spike in Python integers."""
    width = round(dt_ms * 1e6)
    blocks = []
    for start, stop in zip(recording.trials.start_ns.tolist(), recording.trials.stop_ns.tolist(), strict=True):
        block = np.zeros(((stop - start) // width, recording.n_neurons), dtype=int)
        number = np.ones(len(recording.spike_times_ns), int) if recording.spike_count is None else recording.spike_count
        for at, neuron, count in zip(recording.spike_times_ns.tolist(), recording.spike_neuron.tolist(), number.tolist(), strict=True):
            if start <= at < start + len(block) * width:
                block[(at - start) // width, neuron] += count
        blocks.append(block)
    return blocks


def assert_counts(binned, blocks):
    assert binned.bins_per_trial.tolist() == [len(block) for block in blocks]
    for k, block in enumerate(blocks):
        assert np.array_equal(binned.dense_numpy(trials=[k], bins=range(len(block)), dtype="int64")[0], block)


def test_five_bins_by_hand():
    # neuron 0: 0.2 and 0.9 ms (bin 0), 4.0 ms (bin 4); neuron 1: 1.0 ms (bin 1: an edge belongs to the bin it begins); neuron 2: none
    binned = Recording.from_trains([[0.2, 0.9, 4.0], [1.0], []], unit="ms", stop_s=0.005).bin(1.0)
    assert binned.row_pointer.tolist() == [0, 1, 2, 2, 2, 3]
    assert binned.event_neuron.tolist() == [0, 1, 0]
    assert binned.event_count.tolist() == [2, 1, 1]
    assert (binned.n_bins_total, binned.n_spikes, binned.multi_spike_bins()) == (5, 4, 1)
    assert binned.counts().tolist() == [[3, 1, 0]]
    assert binned.mean_count().tolist() == [0.6, 0.2, 0.0]
    assert binned.event_bin.tolist() == [0, 1, 4]


@pytest.mark.parametrize("dt_ms", [0.5, 1.0, 7.0, 1000.0])
def test_ragged_trials_equal_brute_force(trial_recording, dt_ms):
    assert_counts(trial_recording.bin(dt_ms), brute_force(trial_recording, dt_ms))


def test_continuous_recording_equals_brute_force(small_recording):
    binned = small_recording.bin(3.0)
    assert_counts(binned, brute_force(small_recording, 3.0))
    assert binned.trial_offset.tolist() == [0, 6666]
    assert binned.info().mean_count[4] == 0.0


def test_blocks_of_spikes_do_not_show(trial_recording, small_recording, monkeypatch):
    expected = [recording.bin(1.0) for recording in (trial_recording, small_recording)]
    monkeypatch.setattr(binning, "_BLOCK_SPIKES", 7)
    for recording, whole in zip((trial_recording, small_recording), expected, strict=True):
        blocked = recording.bin(1.0)
        assert np.array_equal(blocked.row_pointer, whole.row_pointer)
        assert np.array_equal(blocked.event_neuron, whole.event_neuron)
        assert (blocked.event_count is None) == (whole.event_count is None)


def test_overlapping_trials_count_their_spikes_in_each():
    recording = Recording.from_trains([[0.1, 0.45, 0.9], [0.5]], trials=TrialTable.from_seconds([0.0, 0.4, 0.4], [0.6, 1.0, 0.5]))
    assert_counts(recording.bin(10.0), brute_force(recording, 10.0))


@pytest.mark.parametrize(
    "recording",
    [
        Recording.from_trains([[]], stop_s=0.01),
        Recording.from_trains([[0.0]], stop_s=0.01),
        Recording.from_trains([[], [], []], stop_s=0),
        Recording.from_trains([]),
        Recording.from_trains([[0.001, 0.002]], trials=TrialTable.from_seconds([0.0, 0.005, 0.005], [0.005, 0.005, 0.0054])),
        Recording.from_trains([np.arange(10) / 1000], stop_s=0.01),  # a spike in every bin
    ],
    ids=["no spike", "one spike", "no time", "no neuron", "trials without bins", "every bin a spike"],
)
def test_empty_and_full_recordings(recording):
    binned = recording.bin(1.0)
    assert_counts(binned, brute_force(recording, 1.0))
    assert sum(chunk.n_bins for chunk in binned.chunks(3)) == binned.n_bins_total
    assert binned.counts().shape == (recording.n_trials, recording.n_neurons)


def test_more_than_65535_spikes_in_a_bin_and_more_than_65535_neurons():
    binned = Recording.from_counts(np.array([[70_000, 1]]), dt_ms=1).bin()
    assert binned.counts().tolist() == [[70_000, 1]]
    wide = Recording.from_arrays([0.001, 0.001], [0, 69_999], n_neurons=70_000)
    assert wide.bin(1.0).event_neuron.tolist() == [0, 69_999]


@pytest.mark.parametrize("n_bins", [1, 63, 100, 10_000])
@pytest.mark.parametrize("batch_trials", [1, 5])
def test_chunks_cover_every_bin_once(trial_recording, n_bins, batch_trials):
    binned = trial_recording.bin(1.0)
    whole = binned.dense_numpy()
    seen = np.zeros(whole.shape[:2], dtype=int)
    for chunk in binned.chunks(n_bins, batch_trials=batch_trials, carry=True):
        bins = slice(chunk.first_bin, chunk.first_bin + chunk.n_bins)
        dense = chunk.dense_numpy()
        assert np.array_equal(dense[chunk.mask_numpy], whole[chunk.trial, bins][chunk.mask_numpy])
        assert not dense[~chunk.mask_numpy].any()
        seen[chunk.trial, bins] += chunk.mask_numpy
        assert chunk.is_first == (chunk.first_bin == 0)
        assert chunk.start_s == pytest.approx((binned.start_ns[chunk.trial] / 1e6 + chunk.first_bin) / 1e3)
    assert np.array_equal(seen, np.arange(whole.shape[1]) < binned.bins_per_trial[:, None])


def test_chunks_without_carry_all_start_fresh_and_shuffle_permutes_them(trial_recording):
    binned = trial_recording.bin(1.0)
    order = [(int(chunk.trial[0]), chunk.first_bin) for chunk in binned.chunks(100)]
    mixed = [(int(chunk.trial[0]), chunk.first_bin) for chunk in binned.chunks(100, shuffle=np.random.default_rng(0))]
    assert order != mixed and order == sorted(mixed)
    assert all(chunk.is_first for chunk in binned.chunks(100))
    carried = list(binned.chunks(100, carry=True, shuffle=np.random.default_rng(0)))
    assert all(b.first_bin == a.first_bin + a.n_bins for a, b in zip(carried, carried[1:], strict=False) if not b.is_first)
    assert [int(chunk.trial[0]) for chunk in binned.chunks(1000, trials=[5, 2])] == [5, 2]
    with pytest.raises(InvalidInputError, match="n_bins=0"):
        next(binned.chunks(0))


def test_dense_tensors_equal_the_arrays(trial_recording):
    binned = trial_recording.bin(10.0)
    assert np.array_equal(binned.dense(dtype="float64").numpy(), binned.dense_numpy(dtype="float64"))
    chunk = next(binned.chunks(20, batch_trials=3))
    assert np.array_equal(chunk.dense().numpy(), chunk.dense_numpy())
    assert np.array_equal(chunk.mask.numpy(), chunk.mask_numpy)
    assert binned.dense_numpy(trials=[1], bins=range(5, 9)).shape == (1, 4, 3)


def test_a_dense_array_above_the_limit_is_refused_before_memory_is_taken():
    binned = Recording.from_arrays([1.0], [0], n_neurons=1000, stop_s=3600).bin(1.0)
    with pytest.raises(DenseTooLargeError, match=r"14.4 GB \(3600000 bins x 1000 neurons, float32\); the limit is 1.0 GB"):
        binned.dense_numpy()
    with pytest.raises(MemoryError):
        binned.dense(max_gb=14.3)
    assert binned.dense_numpy(bins=range(10)).shape == (1, 10, 1000)


def test_bin_widths_that_do_not_work_name_those_that_do():
    counts = Recording.from_counts(np.ones((10, 1), int), dt_ms=2.5)
    assert counts.bin().dt_ms == 2.5
    assert counts.bin(7.5).bins_per_trial.tolist() == [3]
    with pytest.raises(BinWidthError, match=r"native bins of 2.5 ms. Use 2.5, 5, 7.5, 10"):
        counts.bin(4.0)
    with pytest.raises(BinWidthError, match="whole number of nanoseconds"):
        counts.bin(1 / 3)
    with pytest.raises(BinWidthError, match="positive"):
        counts.bin(0)
    with pytest.raises(BinWidthError, match=r"3000000000 bins, whose index alone takes 24 GB. Is the time unit right"):
        Recording.from_trains([[1.0]], stop_s=3e6).bin(1.0)


def test_pieces_hold_the_bins_they_were_cut_from(trial_recording):
    binned = trial_recording.bin(1.0)
    whole = binned.dense_numpy()
    pieces = binned.pieces([(3, 100, 350, 20), (0, 0, 400, 0), (3, 10, 10, 0)])
    assert pieces.bins_per_trial.tolist() == [250, 400, 0]
    assert np.array_equal(pieces.dense_numpy(trials=[0], bins=range(250))[0], whole[3, 100:350])
    assert pieces.warmup_bins.tolist() == [20, 0, 0]
    assert pieces.trial_bin.tolist() == [100, 0, 10]
    assert pieces.start_ns[0] == binned.start_ns[3] + 100_000_000
    assert pieces.trial_index.tolist() == [3, 0, 3]
    assert pieces.counts(scored_only=True)[0].tolist() == whole[3, 120:350].sum(axis=0).tolist()
    again = pieces.select_bins(0, 5, 100, warmup_bins=3)
    assert again.warmup_bins.tolist() == [15]  # what is left of the piece's own 20
    assert np.array_equal(again.dense_numpy()[0], whole[3, 105:200])
    with pytest.raises(InvalidInputError, match="out of its trial"):
        binned.select_bins(0, 0, 401)


def test_warm_up_is_masked_and_not_scored(small_recording):
    table = TrialTable.make([10**9], [3 * 10**9], warmup_ns=[500_500_000])
    binned = small_recording.with_trials(table).bin(1.0)
    assert binned.warmup_bins.tolist() == [501]  # a bin that the warm-up touches is not scored
    assert binned.scored.sum() == binned.n_scored_bins == 1499
    assert not next(binned.chunks(600)).mask_numpy[0, :501].any()
    train = small_recording.train_s("3")
    assert binned.counts(scored_only=True)[0, 3] == np.count_nonzero((train >= 1.501) & (train < 3))


def test_conditions_are_numbered_by_name(trial_recording):
    binned = trial_recording.attach(conditions=["b", "a", ""] * 4).bin(1.0)
    assert binned.condition_names == ("a", "b")
    assert binned.conditions.tolist() == [1, 0, -1] * 4
    assert binned.select_trials([2, 1]).conditions.tolist() == [-1, 0]


def test_an_empty_chunk_is_the_context_of_a_free_run():
    chunk = SpikeChunk.empty(2, 7, 3, 1.0, signals={"x": np.ones((2, 7, 1))}, condition=np.array([0, 1]))
    assert chunk.dense_numpy().shape == (2, 7, 3) and not chunk.dense_numpy().any()
    assert chunk.mask_numpy.all() and chunk.is_first
    assert chunk.signals["x"].shape == (2, 7, 1)
