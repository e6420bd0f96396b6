"""Signals on bins: means of the samples inside, interpolation between slow samples, and clear refusals."""

import numpy as np
import pytest

from fitspike.errors import RecordingError, UnknownNameError
from fitspike.recording import resample as module
from fitspike.recording.recording import Recording, Signal, TrialTable
from fitspike.recording.resample import resample

MS = 1_000_000


def test_bins_hold_the_mean_of_their_samples_by_hand():
    signal = Signal(np.array([1.0, 2, 4, 8, 16, 32]), 1000.0)
    assert resample(signal, 0, 2 * MS, 0, 3)[:, 0].tolist() == [1.5, 6.0, 24.0]
    assert resample(signal, 1 * MS, 2 * MS, 0, 2)[:, 0].tolist() == [3.0, 12.0]
    assert resample(signal, 0, 1 * MS, 2, 2)[:, 0].tolist() == [4.0, 8.0]


def test_bins_equal_a_loop_over_samples_at_odd_rates(monkeypatch):
    generator = np.random.default_rng(0)
    signal = Signal(generator.standard_normal((5000, 3)), 1234.5, start_ns=-37 * MS)
    n_bins, dt = 700, 5 * MS
    taken_at = -37 * MS + np.arange(5000) * 1e9 / 1234.5
    expected = [signal.values[(taken_at >= b * dt) & (taken_at < (b + 1) * dt)].mean(axis=0) for b in range(n_bins)]
    assert np.allclose(resample(signal, 0, dt, 0, n_bins), expected, rtol=0, atol=1e-12)
    monkeypatch.setattr(module, "_BLOCK_SAMPLES", 100)
    assert np.allclose(resample(signal, 0, dt, 0, n_bins), expected, rtol=0, atol=1e-12)


def test_slow_samples_are_interpolated_at_the_bin_centre():
    # a straight line is its own interpolation: value = time in s
    signal = Signal(np.arange(11.0)[:, None] / 10, 10.0)
    assert resample(signal, 0, 20 * MS, 0, 50)[:, 0] == pytest.approx((np.arange(50) + 0.5) * 0.02)
    assert resample(signal, 0, 20 * MS, 30, 5)[:, 0] == pytest.approx((np.arange(30, 35) + 0.5) * 0.02)


def test_one_sample_per_bin_is_taken_as_it_is():
    values = np.random.default_rng(0).standard_normal(3_600_000)
    assert np.array_equal(resample(Signal(values, 1000.0), 0, MS, 0, len(values))[:, 0], values)


def test_signals_of_all_trials_by_global_bin_and_in_chunks(trial_recording):
    seconds = trial_recording.trials.stop_ns.max() / 1e9
    time = np.arange(int(seconds * 1000) + 2) / 1000
    binned = trial_recording.attach(signals={"time": Signal(time, 1000.0)}).bin(1.0)
    expected = np.concatenate([start / 1e9 + np.arange(n) / 1000 for start, n in zip(binned.start_ns, binned.bins_per_trial, strict=True)])
    assert binned.signals["time"][:, 0] == pytest.approx(expected, abs=1e-12)
    for low, high in ((0, 10), (395, 405), (0, binned.n_bins_total), (5, 5)):
        assert np.array_equal(binned.signal_values("time", low, high), binned.signals["time"][low:high])
    for chunk in binned.chunks(130, batch_trials=4):
        for row, k in enumerate(chunk.trial):
            inside = chunk.mask_numpy[row]
            at = binned.trial_offset[k] + chunk.first_bin + np.flatnonzero(inside)
            assert np.array_equal(chunk.signal_values["time"][row][inside], binned.signals["time"][at])
            assert not chunk.signal_values["time"][row][~inside].any()
            assert np.array_equal(chunk.signals["time"][row].numpy(), chunk.signal_values["time"][row].astype(np.float32))
    with pytest.raises(UnknownNameError, match="did you mean 'time'"):
        binned.signal_values("tim", 0, 1)


def test_large_signals_are_read_chunk_by_chunk(trial_recording, monkeypatch):
    signal = Signal(np.random.default_rng(0).standard_normal(60_000), 1000.0)
    kept = list(trial_recording.attach(signals={"x": signal}).bin(5.0).chunks(50))
    monkeypatch.setattr("fitspike.recording.binned._CACHED_SIGNAL_BYTES", 0)
    binned = trial_recording.attach(signals={"x": signal}).bin(5.0)
    for chunk, other in zip(binned.chunks(50), kept, strict=True):
        assert np.array_equal(chunk.signal_values["x"], other.signal_values["x"])
    assert not binned.signals._whole


def with_signal(values, rate, *, start_s=0.0, stop_s=1.0):
    return Recording.from_trains([[0.5]], start_s=start_s, stop_s=stop_s, signals={"lever": Signal(np.asarray(values, float), rate)})


def test_gaps_are_refused_when_binning_and_name_the_signal():
    values = np.ones(100)
    values[40] = np.nan
    with pytest.raises(RecordingError, match="signal 'lever', trial 0: it is NaN or infinite at 0.4 s"):
        with_signal(values, 100.0).bin(10.0)
    with pytest.raises(RecordingError, match="covers 0 to 1 s, needed is 0 to 3 s"):
        with_signal(np.ones(100), 100.0, stop_s=3).bin(10.0)
    recording = with_signal(values, 100.0)
    assert recording.select(signals=[]).bin(10.0).n_spikes == 1
    assert recording.select(start_s=0.5).bin(10.0).signals["lever"].shape == (50, 1)


def test_every_signal_and_trial_that_does_not_fit_is_counted():
    recording = Recording.from_trains(
        [[0.5]],
        trials=TrialTable.from_seconds([0, 1, 2], [1, 2, 3]),
        signals={"a": Signal(np.full(30, np.nan), 10.0), "b": Signal(np.ones(10), 10.0)},
    )
    with pytest.raises(RecordingError) as caught:
        recording.bin(1.0)
    assert "2 problems" in str(caught.value) and "(and 2 more trials)" in str(caught.value) and "signal 'b', trial 1" in str(caught.value)


def test_the_outermost_bin_may_stick_out_of_a_signal():
    assert with_signal(np.arange(99.0), 100.0).bin(20.0).signals["lever"][-1, 0] == 98.0
    whole_numbers = Recording.from_trains([[0.5]], stop_s=1, signals={"x": Signal(np.arange(10), 10.0)})
    assert whole_numbers.bin(100.0).signals["x"][:, 0].tolist() == list(range(10))


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Signal(np.zeros((2, 2, 2)), 1.0), "expected"),
        (lambda: Signal(np.zeros(3), 0.0), "sampling rate is 0.0 Hz"),
        (lambda: Signal(np.zeros((3, 2)), 1.0, channels=("a",)), "1 channel names for 2 channels"),
    ],
)
def test_signals_that_are_none(make, text):
    with pytest.raises(RecordingError, match=text):
        make()
