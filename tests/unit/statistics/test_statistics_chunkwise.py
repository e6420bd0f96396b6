"""Differentiable statistics: equal to the event versions and to elephant, for any chunking, with gradients checked by differences."""

import numpy as np
import pytest
import torch
from scipy import signal

from fitspike.errors import InvalidInputError, TooFewTrialsError
from fitspike.recording.chunk import SpikeChunk
from fitspike.recording.recording import Recording
from fitspike.statistics import correlograms, from_events, over_time, with_elephant
from fitspike.statistics.base import Expected, Statistic
from fitspike.statistics.correlations import Autocorrelogram, CrossCorrelogram, NoiseCorrelation, SignalCorrelation
from fitspike.statistics.intervals import CV2, ISICV, LV, FanoFactor, ISIDistribution
from fitspike.statistics.population import ParticipationRatio, PopulationSpectrum
from fitspike.statistics.rates import PSTH, FiringRate, PopulationRate

ALL = [
    FiringRate(),
    PSTH(window_ms=4.0),
    PopulationRate(window_ms=4.0),
    NoiseCorrelation(window_ms=4.0, n_lags=3),
    NoiseCorrelation(n_lags=2, centre="trial"),
    SignalCorrelation(window_ms=4.0),
    Autocorrelogram(max_lag_ms=10.0),
    CrossCorrelogram(max_lag_ms=6.0),
    ISIDistribution(max_interval_ms=12.0),
    ISICV(),
    CV2(),
    LV(),
    FanoFactor(window_ms=6.0),
    FanoFactor(window_ms=6.0, centre="trial", ddof=1),
    PopulationSpectrum(segment_ms=12.0),
    ParticipationRatio(window_ms=6.0),
]
IDS = [f"{statistic.name}-{i}" for i, statistic in enumerate(ALL)]
DIFFERENTIABLE = [statistic for statistic in ALL if statistic.is_differentiable]
DIFFERENTIABLE_IDS = [f"{statistic.name}-{i}" for i, statistic in enumerate(DIFFERENTIABLE)]


def make_binned(seed=0, lengths=(31, 31, 27, 31, 31, 31), n_neurons=3, mean=0.25):
    rng = np.random.default_rng(seed)
    shared = [rng.poisson(0.1, (n, 1)) for n in lengths]
    parts = [rng.poisson(mean, (n, n_neurons)) + s for n, s in zip(lengths, shared, strict=True)]
    return Recording.from_counts(parts, dt_ms=2.0, conditions=["a", "b"] * (len(lengths) // 2)).bin()


def evaluate(statistic, binned, n_bins=10_000, batch_trials=1):
    acc = statistic.init(binned.info())
    for chunk in binned.chunks(n_bins, batch_trials=batch_trials, carry=True):
        acc = statistic.update(acc, chunk.dense("float64"), chunk)
    return statistic.finalise(acc).numpy()


@pytest.mark.parametrize("statistic", ALL, ids=IDS)
def test_statistic_does_not_depend_on_chunks_or_batches(statistic):
    assert isinstance(statistic, Statistic)
    binned = make_binned()
    whole = evaluate(statistic, binned)
    assert np.isfinite(whole).any()
    for n_bins, batch in ((1, 2), (3, 6), (7, 4), (31, 6)):
        np.testing.assert_allclose(evaluate(statistic, binned, n_bins, batch), whole, rtol=1e-10, atol=1e-12, equal_nan=True)


@pytest.mark.parametrize("statistic", ALL, ids=IDS)
def test_statistic_leaves_warm_up_out(statistic):
    binned = make_binned(lengths=(31,) * 6)
    warm = binned.pieces([(k, 0, 31, 12) for k in range(6)])
    rest = binned.pieces([(k, 12, 31, 0) for k in range(6)])
    a, b = evaluate(statistic, warm, 5), evaluate(statistic, rest, 5)
    if statistic.name in ("psth", "population_rate"):
        a, b = a[:, 6:15], b[:, :9]  # the windows that lie wholly in the scored part
    np.testing.assert_allclose(a, b, rtol=1e-10, equal_nan=True)


@pytest.mark.parametrize("statistic", ALL, ids=IDS)
def test_statistic_follows_a_permutation_of_neurons(statistic):
    binned = make_binned(n_neurons=4)
    order = np.array([2, 0, 3, 1])
    counts = [binned.chunk(np.array([k]), 0, int(n)).dense_numpy()[0].astype(int)[:, order] for k, n in enumerate(binned.bins_per_trial)]
    permuted = Recording.from_counts(counts, dt_ms=2.0, conditions=["a", "b"] * 3).bin()
    a, b = evaluate(statistic, binned), evaluate(statistic, permuted)
    neuron_axes = {"psth": (2,), "population_rate": (), "population_spectrum": (), "participation_ratio": ()}.get(
        statistic.name, (0, 1) if "corr" in statistic.name else (0,)
    )
    neuron_axes = (0,) if statistic.name == "autocorrelogram" else neuron_axes
    for axis in neuron_axes:
        a = np.take(a, order, axis)
    np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12, equal_nan=True)


@pytest.mark.parametrize("statistic", DIFFERENTIABLE, ids=DIFFERENTIABLE_IDS)
def test_gradient_equals_finite_differences(statistic):
    """gradcheck perturbs every spike count by 1e-6; away from 0 and 1, where min(count, 1) has its corner."""
    binned = make_binned(seed=1, lengths=(12, 12, 10, 12), n_neurons=2)
    chunks = list(binned.chunks(7, batch_trials=4, carry=True))
    generator = torch.Generator().manual_seed(0)
    spikes = [0.05 + 0.9 * torch.rand(c.n_trials, c.n_bins, 2, dtype=torch.float64, generator=generator) for c in chunks]

    def value(*parts):
        acc = statistic.init(binned.info())
        for chunk, part in zip(chunks, parts, strict=True):
            acc = statistic.update(acc, part, chunk)
        result = statistic.finalise(acc)
        return result[torch.isfinite(result)]

    assert torch.autograd.gradcheck(value, tuple(part.requires_grad_() for part in spikes), eps=1e-6, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("statistic", DIFFERENTIABLE, ids=DIFFERENTIABLE_IDS)
def test_gradient_is_finite_with_a_silent_neuron(statistic):
    binned = make_binned(lengths=(12, 12, 12, 12))
    chunk = binned.chunk(np.arange(4), 0, 12)
    spikes = chunk.dense("float64")
    spikes[..., 1] = 0
    spikes.requires_grad_()
    value = statistic.finalise(statistic.update(statistic.init(binned.info()), spikes, chunk))
    value[torch.isfinite(value)].sum().backward()
    assert torch.isfinite(spikes.grad).all()


def test_values_equal_the_event_versions():
    binned = make_binned()
    np.testing.assert_allclose(evaluate(FiringRate(), binned), from_events.firing_rates_hz(binned))
    np.testing.assert_allclose(evaluate(Autocorrelogram(10.0), binned), correlograms.autocorrelogram_hz(binned, 5)[:, 1:])
    np.testing.assert_allclose(evaluate(CrossCorrelogram(6.0), binned), correlograms.cross_correlogram_hz(binned, 3))
    found = from_events.interval_statistics(binned)
    for statistic, expected in ((ISICV(), found.cv), (CV2(), found.cv2), (LV(), found.lv)):
        np.testing.assert_allclose(evaluate(statistic, binned, 7), expected)
    for centre, other in (("condition", "condition"), ("trial", "mean")):
        expected = from_events.count_statistics(binned, 6.0, centre=other).fano
        np.testing.assert_allclose(evaluate(FanoFactor(6.0, centre=centre), binned), expected, rtol=1e-6)


def test_psth_equals_the_event_version_where_all_trials_reach():
    binned = make_binned(lengths=(30,) * 6)
    expected = over_time.psth(binned, 4.0)
    np.testing.assert_allclose(evaluate(PSTH(4.0), binned), expected.rate_hz)
    np.testing.assert_allclose(evaluate(PopulationRate(4.0), binned), expected.rate_hz.mean(-1))


def test_trials_whose_beginning_was_cut_off_are_no_repeats_of_whole_ones():
    """A spike in bin 20 of each trial; two trials of six lack their first ten bins."""
    counts = np.zeros((6, 31, 1), int)
    counts[:, 20] = 1
    whole = Recording.from_counts(counts, dt_ms=2.0, conditions=["a", "b"] * 3).bin()
    binned = whole.pieces([(k, 0 if k < 4 else 10, 31, 0) for k in range(6)])
    for n_bins in (1000, 7):
        rate = evaluate(PSTH(), binned, n_bins, 6)
        assert [tuple(at) for at in np.argwhere(rate[..., 0] > 0)] == [(0, 20), (1, 10), (2, 20), (3, 10)]
        assert np.nanmax(rate) == 500.0  # every repeat has the spike, one per 2 ms


def test_noise_correlation_equals_numpy_and_is_ordered_post_pre():
    rng = np.random.default_rng(0)
    counts = rng.poisson(0.3, (40, 50, 2))
    counts[:, 2:, 1] += counts[:, :-2, 0]  # neuron 1 follows neuron 0 by two bins
    binned = Recording.from_counts(counts, dt_ms=1.0, conditions=["s"] * 40).bin()
    found = evaluate(NoiseCorrelation(n_lags=3), binned, 13)
    c = counts - counts.mean(0)
    at_lag_2 = (c[:, 2:, 1] * c[:, :-2, 0]).sum() / (48 * 39)
    variance = (c**2).sum((0, 1)) / (50 * 39)
    assert found[1, 0, 2] == pytest.approx(at_lag_2 / np.sqrt(variance.prod()), rel=1e-10)
    assert found[1, 0, 2] > 0.5 and abs(found[0, 1, 2]) < 0.1
    np.testing.assert_allclose(found[..., 0], np.corrcoef(c.reshape(-1, 2).T), rtol=1e-10)


def test_noise_covariance_is_unbiased_for_few_repeats():
    """Two repeats, true covariance 0.5: the plain estimate would be 0.25 (standard error over 4000 windows 0.03)."""
    rng = np.random.default_rng(1)
    shared = rng.poisson(0.5, (2, 4000, 1))
    counts = rng.poisson(0.5, (2, 4000, 2)) + shared
    binned = Recording.from_counts(counts, dt_ms=1.0, conditions=["s", "s"]).bin()
    found = evaluate(NoiseCorrelation(covariance=True), binned)
    assert found[0, 1, 0] == pytest.approx(0.5, abs=0.1)


def test_signal_correlation_recovers_the_truth_despite_noise():
    """True signal correlation 0.8, noise correlation 0.5; over seeds the standard error is 0.02."""
    rng = np.random.default_rng(2)
    common = rng.gamma(2, 1, 2000)
    own = rng.gamma(2, 1, (2000, 2))
    signal = 0.8**0.5 * common[:, None] + 0.2**0.5 * own
    shared = rng.poisson(1.0, (5, 2000, 1))
    counts = rng.poisson(signal, (5, 2000, 2)) + shared
    truth = np.corrcoef(signal.T)[0, 1]
    binned = Recording.from_counts(counts, dt_ms=1.0, conditions=["s"] * 5).bin()
    assert evaluate(SignalCorrelation(), binned)[0, 1] == pytest.approx(truth, abs=0.06)
    assert evaluate(SignalCorrelation(subtract_noise=False), binned)[0, 1] < truth - 0.1


def test_fano_factor_of_whole_trials_equals_elephant():
    rng = np.random.default_rng(5)
    trains = [[np.sort(rng.uniform(0, 1, rng.poisson(20)))] for _ in range(8)]
    recording = Recording.from_trials(trains, durations_s=1.0, conditions=["x"] * 8)
    ours = evaluate(FanoFactor(window_ms=1000.0), recording.bin(1.0), 333)
    np.testing.assert_allclose(ours, with_elephant.statistic(recording, "fano_factor"), rtol=1e-10)


def test_interval_distribution_of_a_hand_counted_train():
    counts = np.zeros((1, 12, 1), int)
    counts[0, [0, 2, 5, 6, 8], 0] = [1, 3, 1, 1, 1]  # intervals 2, 3, 1, 2; three spikes of one bin count as one
    binned = Recording.from_counts(counts, dt_ms=1.0).bin()
    assert evaluate(ISIDistribution(4.0), binned, 5)[0].tolist() == [0.25, 0.5, 0.25, 0.0]


def test_impossible_settings_are_refused():
    binned = make_binned(lengths=(10, 10), n_neurons=1)
    with pytest.raises(TooFewTrialsError, match="at least two windows of 20 ms"):
        FanoFactor(window_ms=20.0, centre="trial").init(binned.info())
    with pytest.raises(InvalidInputError, match="Use 4"):
        PSTH(window_ms=3.0).init(binned.info())
    with pytest.raises(InvalidInputError, match="n_lags=0"):
        NoiseCorrelation(n_lags=0)


def value_of(statistic, binned):
    acc = statistic.init(binned.info())
    for chunk in binned.chunks(13, batch_trials=2, carry=True):
        acc = statistic.update(acc, chunk.dense("float64"), chunk)
    return statistic.finalise(acc).numpy()


def test_population_spectrum_is_welchs_on_one_long_trial():
    counts = np.random.default_rng(3).poisson(0.3, (4000, 3))
    binned = Recording.from_counts(counts, dt_ms=2.0).bin()
    found = value_of(PopulationSpectrum(segment_ms=100.0), binned)
    _, expected = signal.welch(counts.mean(1) * 500.0, fs=500.0, nperseg=50, noverlap=0, detrend="constant")
    np.testing.assert_allclose(found, expected[1:], rtol=1e-9)


def test_population_spectrum_of_repeats_leaves_the_psth_out():
    """A rate that swings with the stimulus alone leaves the floor of independent neurons, <rate> / n_neurons (one-sided: twice that)."""
    rng = np.random.default_rng(4)
    probability = 0.3 + 0.25 * np.sin(2 * np.pi * np.arange(200) / 20)
    trials = (rng.random((300, 200, 5)) < probability[:, None]).astype(int)
    binned = Recording.from_counts(list(trials), dt_ms=2.0, conditions=["a"] * 300).bin()
    found = value_of(PopulationSpectrum(segment_ms=400.0), binned)
    floor = 2 * (probability * (1 - probability)).mean() / 0.002 / 5
    assert abs(found[:-1].mean() / floor - 1) < 0.02 and found.max() < 1.5 * floor


def test_participation_ratio_of_a_known_covariance():
    rng = np.random.default_rng(5)
    shared = rng.poisson(0.4, (2000, 30, 1))
    trials = shared + rng.poisson(0.2, (2000, 30, 4))
    binned = Recording.from_counts(list(trials), dt_ms=2.0, conditions=["a"] * 2000).bin()
    covariance = 0.4 + 0.2 * np.eye(4)
    expected = np.trace(covariance) ** 2 / np.trace(covariance @ covariance)
    assert abs(value_of(ParticipationRatio(window_ms=2.0), binned) / expected - 1) < 0.02


@pytest.mark.parametrize("statistic", [NoiseCorrelation(n_lags=3, covariance=True), Autocorrelogram(4.0), CrossCorrelogram(4.0), PSTH()])
def test_expected_counts_have_the_mean_of_spikes_and_less_variance(statistic):
    """Spikes of two neurons, the second excited by the first one bin before: over 200 batches the two estimates have one mean."""
    rng = np.random.default_rng(6)
    n_trials, n_bins = 40, 30
    info = Recording.from_counts(np.zeros((n_trials, n_bins, 2), int), dt_ms=2.0, conditions=["a"] * n_trials).bin().info()
    chunk = SpikeChunk.empty(n_trials, n_bins, 2, 2.0, condition=np.zeros(n_trials))
    values = []
    for _ in range(200):
        spikes, p = np.zeros((2, n_trials, n_bins, 2))
        for t in range(n_bins):
            p[:, t] = 0.2
            if t:
                p[:, t, 1] += 0.5 * spikes[:, t - 1, 0]
            spikes[:, t] = rng.random((n_trials, 2)) < p[:, t]
        z, expected = torch.as_tensor(spikes), torch.as_tensor(p)
        of_p = statistic.update(statistic.init(info), z, chunk, expected=Expected(expected, expected))
        accs = statistic.update(statistic.init(info), z, chunk), of_p
        values.append([statistic.finalise(acc).numpy().ravel() for acc in accs])
    of_spikes, of_expected = np.array(values).transpose(1, 0, 2)
    error = np.sqrt(of_spikes.var(0) / 200 + of_expected.var(0) / 200) + 1e-12
    assert (np.abs(of_spikes.mean(0) - of_expected.mean(0)) / error).max() < 4.5
    assert of_expected.var(0).sum() < 0.9 * of_spikes.var(0).sum()


def test_signal_correlation_of_expected_counts_that_repeat_is_theirs():
    """Expected counts alike in all trials hold no noise: none is to be taken off, however many spikes their trials differ by."""
    rng = np.random.default_rng(8)
    n_trials, n_bins = 4, 50
    p = rng.uniform(0.02, 0.2, (n_bins, 3))
    spikes = (rng.random((n_trials, n_bins, 3)) < p).astype(float)
    info = Recording.from_counts(spikes.astype(int), dt_ms=2.0, conditions=["a"] * n_trials).bin().info()
    chunk = SpikeChunk.empty(n_trials, n_bins, 3, 2.0, condition=np.zeros(n_trials))
    mean = torch.as_tensor(p).expand(n_trials, n_bins, 3)
    statistic = SignalCorrelation()
    acc = statistic.update(statistic.init(info), torch.as_tensor(spikes), chunk, expected=Expected(mean, mean))
    np.testing.assert_allclose(statistic.finalise(acc), np.corrcoef(p.T), atol=1e-10)
