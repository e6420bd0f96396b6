"""Times become integer nanoseconds, and bins come out as exact rational arithmetic says."""

from fractions import Fraction

import numpy as np
import pytest

from fitspike.errors import InvalidInputError, RecordingError, UnitError
from fitspike.recording.recording import Recording
from fitspike.recording.times import times_to_ns
from fitspike.units import s_to_ns

DAY_S = 86_400


def exact_bins(samples, rate_hz, dt_ms):
    """Return floor(sample / rate / dt) by integer arithmetic: sample * 1000 * q // (rate p), dt = p / q ms."""
    p, q = Fraction(dt_ms).as_integer_ratio()
    return np.array([int(n) * 1000 * q // (rate_hz * p) for n in samples.tolist()])


def bins_of(recording, dt_ms):
    binned = recording.bin(dt_ms)
    return np.repeat(binned.event_bin, 1 if binned.event_count is None else binned.event_count)


@pytest.mark.parametrize("rate_hz", [30_000, 25_000, 24_000, 44_100])
@pytest.mark.parametrize("dt_ms", [0.5, 1.0, 5.0])
def test_every_residue_of_the_sampling_grid_lands_in_its_exact_bin(rate_hz, dt_ms):
    # one second holds every residue modulo rate * dt; far offsets show the rounding error of float64
    samples = np.concatenate([np.arange(rate_hz) + offset for offset in (0, 17 * rate_hz, 3_600 * rate_hz)])
    expected = exact_bins(samples, rate_hz, dt_ms)
    whole = Recording.from_arrays(samples, np.zeros_like(samples), sampling_rate_hz=rate_hz, stop_s=3602)
    seconds = Recording.from_arrays(samples / rate_hz, np.zeros_like(samples), stop_s=3602)
    assert np.array_equal(bins_of(whole, dt_ms), expected)
    assert np.array_equal(bins_of(seconds, dt_ms), expected)


def test_samples_of_a_whole_day_at_30_khz_bin_alike_as_integers_and_as_float_seconds():
    samples = np.unique(np.random.default_rng(0).integers(0, DAY_S * 30_000, 300_000))
    samples = np.union1d(samples, np.arange(0, DAY_S * 30_000, 30 * 7_919))  # many on bin edges
    expected = samples // 30
    assert np.array_equal(times_to_ns(samples, sampling_rate_hz=30_000) // 10**6, expected)
    assert np.array_equal(times_to_ns(samples / 30_000) // 10**6, expected)
    assert np.array_equal(times_to_ns(samples / 30_000), times_to_ns(samples, sampling_rate_hz=30_000))
    # float arithmetic, the obvious way, does not: this test can fail
    assert np.count_nonzero((samples / 30_000 // 0.001).astype(np.int64) != expected) > 1000


@pytest.mark.parametrize("dt_ms", [1.0, 2.0, 5.0])
def test_a_float_second_on_a_bin_edge_belongs_to_the_bin_it_begins(dt_ms):
    edge = np.arange(200_000)
    for seconds in (edge * (dt_ms / 1000), edge * dt_ms / 1000, np.cumsum(np.full(2000, dt_ms / 1000))):
        number = edge[: len(seconds)] if len(seconds) == len(edge) else np.arange(1, len(seconds) + 1)
        assert np.array_equal(times_to_ns(seconds) // int(dt_ms * 1e6), number)


@pytest.mark.parametrize(("unit", "factor"), [("s", 10**9), ("ms", 10**6), ("us", 10**3), ("ns", 1), ("min", 60 * 10**9)])
def test_units(unit, factor):
    assert times_to_ns([3, -2], unit=unit).tolist() == [3 * factor, -2 * factor]
    assert times_to_ns([0.5], unit=unit).tolist() == [factor // 2]


def test_negative_and_fractional_samples():
    assert times_to_ns([-1, -3], sampling_rate_hz=4).tolist() == [-250_000_000, -750_000_000]
    assert times_to_ns([1.5], sampling_rate_hz=1000).tolist() == [1_500_000]
    assert times_to_ns([24414], sampling_rate_hz=24414.0625).tolist() == [24414 * 40960]
    assert times_to_ns([2], unit="samples", sampling_rate_hz=1000).tolist() == [2_000_000]


def test_a_quantity_keeps_its_own_unit():
    quantities = pytest.importorskip("quantities")
    train = quantities.Quantity([1.0, 2.5, 3.0], "ms")
    assert times_to_ns(train).tolist() == times_to_ns(train, unit="ms").tolist() == [1_000_000, 2_500_000, 3_000_000]
    assert Recording.from_trains([train]).spike_times_ns.tolist() == [1_000_000, 2_500_000, 3_000_000]
    with pytest.raises(UnitError, match="a quantity in mV; expected a time"):
        times_to_ns(quantities.Quantity([1.0], "mV"))


@pytest.mark.parametrize(
    ("times", "options", "error", "text"),
    [
        ([0.1, np.nan, np.inf], {}, RecordingError, "2 of 3 times are NaN"),
        (["a"], {}, RecordingError, "expected numbers"),
        ([1e12], {}, RecordingError, "Is the time unit right"),
        ([1], {"unit": "samples"}, UnitError, "sampling_rate_hz"),
        ([1], {"sampling_rate_hz": 0}, RecordingError, "expected a positive number"),
        ([1], {"unit": "sec"}, UnitError, "unknown time unit 'sec'"),
    ],
)
def test_times_that_are_none(times, options, error, text):
    with pytest.raises(error, match=text):
        times_to_ns(times, **options)


@pytest.mark.parametrize("time_s", [np.nan, np.inf, -np.inf, 1e10, -1e300])
def test_times_that_no_nanoseconds_hold_are_refused_where_a_recording_is_cut(time_s):
    recording = Recording.from_arrays([0.1, 0.9], [0, 0])
    for cut in ({"start_s": time_s}, {"stop_s": time_s}):
        with pytest.raises(InvalidInputError, match="a time is .* expected a finite number of seconds"):
            recording.select(**cut)
    with pytest.raises(InvalidInputError, match="expected a finite number"):
        recording.align([0.5], (-0.1, time_s))
    assert s_to_ns([9.1e9, -9.1e9]).tolist() == [9_100_000_000 * 10**9, -9_100_000_000 * 10**9]
