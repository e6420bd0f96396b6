"""Losses on freely simulated activity: against hand counts, at the truth, against gradients by enumeration, and what they refuse."""

import itertools
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import stats

import fitspike
from fitspike.errors import InvalidInputError, TooFewTrialsError
from fitspike.learning.free_runs import free_rows, run_free
from fitspike.learning.nest import fill, leaves
from fitspike.losses.base import FreeRun, LossContext
from fitspike.losses.distances import DISTANCES, distance
from fitspike.losses.hidden_rate import HiddenRate
from fitspike.losses.noise_correlation import NoiseCorrelationLoss
from fitspike.losses.summary_statistics import StatisticLoss, expected_of, halves, recorded_value, simulated_value
from fitspike.models.base import Rollout
from fitspike.models.spiking_network import SpikingNetwork
from fitspike.neurons.srm import SRM
from fitspike.params import initial_params, to_tensors
from fitspike.recording.chunk import SpikeChunk
from fitspike.recording.recording import Recording
from fitspike.rng import Stream
from fitspike.statistics.base import Expected
from fitspike.statistics.correlations import Autocorrelogram, CrossCorrelogram, NoiseCorrelation, SignalCorrelation
from fitspike.statistics.intervals import ISICV, FanoFactor, ISIDistribution
from fitspike.statistics.population import ParticipationRatio, PopulationSpectrum
from fitspike.statistics.rates import PSTH, FiringRate, PopulationRate

N_BINS = 40


def recorded(n_trials=60, seed=0, n_neurons=4, conditions=("a",)):
    """Return trials whose neurons share a fluctuation, as binned spikes."""
    rng = np.random.default_rng(seed)
    shared = rng.random((n_trials, N_BINS, 1)) < 0.15
    trials = (shared & (rng.random((n_trials, N_BINS, n_neurons)) < 0.8)) | (rng.random((n_trials, N_BINS, n_neurons)) < 0.1)
    names = [conditions[k % len(conditions)] for k in range(n_trials)]
    return Recording.from_counts(list(trials.astype(int)), dt_ms=5.0, conditions=names).bin()


def context_of(binned, spikes, loss, *, expected=None, model=None):
    """Return a context whose free run is the given spikes, of one condition."""
    chunk = SpikeChunk.empty(len(spikes), N_BINS, spikes.shape[2], 5.0, condition=np.zeros(len(spikes)))
    z = torch.as_tensor(spikes, dtype=torch.float64)
    expected = None if expected is None else torch.as_tensor(expected, dtype=torch.float64)
    latents = {} if expected is None else {"expected": expected, "expected_square": expected}
    free = FreeRun(Rollout(z, torch.zeros(()), latents), chunk)
    model = model or SpikingNetwork(emission="bernoulli")
    return LossContext(model, {}, chunk, binned.info(), Stream(0, "x"), recorded={loss.name: loss.record(binned)}, run_free=lambda: free)


# -- distances ----------------------------------------------------------------------------------------------------------------------


def test_distances_by_scipy_and_hand():
    p, q = torch.tensor([0.2, 0.5, 0.9]).double(), torch.tensor([0.3, 0.5, 0.6]).double()
    bernoulli = np.mean([stats.entropy([b, 1 - b], [a, 1 - a]) for a, b in zip(p.tolist(), q.tolist(), strict=True)])
    np.testing.assert_allclose(distance("cross_entropy", p, p, q), bernoulli, rtol=1e-12)
    poisson = np.mean(p.numpy() - q.numpy() + q.numpy() * np.log(q.numpy() / p.numpy()))
    np.testing.assert_allclose(distance("poisson", p, p, q), poisson, rtol=1e-12)
    np.testing.assert_allclose(distance("unexplained", p, p, q), ((p - q) ** 2).sum() / ((q - q.mean()) ** 2).sum(), rtol=1e-12)
    np.testing.assert_allclose(distance("log_mse", p, p, q), np.mean(np.log(p.numpy() / q.numpy()) ** 2), rtol=1e-12)
    rows = torch.tensor([[0.5, 0.5, 0.0], [0.2, 0.2, 0.6]]).double(), torch.tensor([[0.0, 0.5, 0.5], [0.2, 0.2, 0.6]]).double()
    np.testing.assert_allclose(distance("cumulative", rows[0], rows[0], rows[1]), (0.25 + 0.25) / 6, rtol=1e-12)


@pytest.mark.parametrize("name", DISTANCES)
def test_distance_leaves_out_what_is_not_defined(name):
    value, truth = (
        torch.tensor([[0.3, 0.4], [float("nan"), 0.1]]).double().requires_grad_(),
        torch.tensor([[0.3, 0.4], [0.2, 0.1]]).double(),
    )
    found = distance(name, value, value, truth)
    assert found.item() == pytest.approx(0.0, abs=1e-12)
    assert torch.isfinite(torch.autograd.grad(found, value)[0]).all()
    nothing = torch.full((2, 2), float("nan"), dtype=torch.float64)
    assert distance(name, value, value, nothing).item() == 0.0


def test_logarithms_go_on_where_an_unbiased_estimate_is_not_positive():
    """Value and slope of a straight line that touches the logarithm at a tenth of the recorded value; nothing of entries recorded as 0."""
    recorded_value = torch.tensor([2.0, 2.0, 0.0]).double()
    a = torch.tensor([-0.1, 0.3, 0.5], dtype=torch.float64, requires_grad=True)
    b = torch.tensor([1.0, 4.0, 0.5]).double()
    at_a = [np.log(0.1) + (-0.1 - 0.2) / 0.2, np.log(0.15)]
    at_b = np.log([0.5, 2.0])
    found = distance("log_mse", a, b, recorded_value)
    np.testing.assert_allclose(found.item(), np.mean(at_a * at_b), rtol=1e-12)
    slope = torch.autograd.grad(found, a)[0]
    np.testing.assert_allclose(slope, [at_b[0] / 0.2 / 2, at_b[1] / 0.3 / 2, 0.0], rtol=1e-12)
    nothing = distance("log_mse", a, b, torch.zeros(3).double())
    assert nothing.item() == 0 and not torch.autograd.grad(nothing, a)[0].any()


@pytest.mark.parametrize("name", ["mse", "cross_entropy", "poisson"])
def test_two_halves_remove_the_variance_of_the_simulation(name):
    """At the truth the plain distance is the simulation's variance, the one of two halves is 0 within four standard errors."""
    rng = np.random.default_rng(0)
    truth = torch.full((200,), 0.3).double()
    plain, split = [], []
    for _ in range(400):
        z = torch.as_tensor(0.3 + rng.uniform(-0.2, 0.2, (20, 200)))
        whole, a, b = z.mean(0), z[::2].mean(0), z[1::2].mean(0)
        plain.append(float(distance(name, whole, whole, truth)))
        split.append(float(distance(name, a, b, truth)))
    assert np.mean(plain) > 20 * np.std(plain) / 20
    bias = {"mse": 0.0}.get(name, 0.05 * np.mean(plain))  # divergences keep a term of second order, 1 / 20 of the first
    assert abs(np.mean(split)) < 4 * np.std(split) / 20 + bias


# -- what is simulated --------------------------------------------------------------------------------------------------------------


def chunk_of(conditions):
    return SpikeChunk.empty(len(conditions), 3, 2, 1.0, condition=np.array(conditions))


def test_free_rows_repeat_conditions_ten_times():
    assert free_rows(chunk_of([0, 0, 0]), 4, has_repeats=False).tolist() == [0, 1, 2, 0]
    assert free_rows(chunk_of([0, 0, 0]), 5, has_repeats=True).tolist() == [0, 1, 2, 0, 1]
    rows = free_rows(chunk_of([2, 1, 2, 0]), 21, has_repeats=True)
    assert rows.tolist() == [0, 2] * 5 + [0] + [1] * 10
    assert len(free_rows(chunk_of([2, 1]), 4, has_repeats=True)) == 4


def test_simulated_copies_of_one_trial_are_centred_one_by_one():
    """Two copies of a trial without repeats, one at 2 spikes in every bin and one silent: neither varies within itself."""
    binned = Recording.from_counts(np.random.default_rng(0).integers(0, 2, (N_BINS, 2)), dt_ms=5.0).bin()
    spikes = torch.zeros(2, N_BINS, 2, dtype=torch.float64)
    spikes[0] = 2.0
    free = FreeRun(Rollout(spikes, torch.zeros(()), {}), binned.chunk([0], 0, N_BINS).rows([0, 0]))
    context = LossContext(SpikingNetwork(), {}, free.chunk, binned.info(), Stream(0, "x"))
    covariance = simulated_value(NoiseCorrelation(covariance=True), free, context)
    torch.testing.assert_close(covariance, torch.zeros_like(covariance))


def test_halves_deal_out_the_trials_of_each_condition():
    free = SimpleNamespace(chunk=chunk_of([0, 1, 0, 1, 0, 1, 0, 1, 1, 0]))
    a, b = halves(free)
    assert sorted([*a, *b]) == list(range(10)) and len(a) == len(b) == 5
    condition = np.asarray(free.chunk.condition)
    assert sorted((condition[a] == 0).tolist().count(True) for a in (a, b)) == [2, 3]
    with pytest.raises(InvalidInputError, match="at least two trials"):
        halves(SimpleNamespace(chunk=chunk_of([0])))


def test_free_run_of_repeated_rows_has_new_spikes_in_each():
    binned = recorded(6)
    model = SpikingNetwork(emission="bernoulli")
    params = to_tensors(initial_params(model.param_specs(binned.info()), Stream(0, "init")))
    free = run_free(model, params, binned.chunk([0, 1], 0, N_BINS), None, Stream(0, "x"), n_trials=4, has_repeats=True)
    assert free.rollout.spikes.shape == (4, N_BINS, 4) and free.chunk.trial.tolist() == [0, 1, 0, 1]
    assert not torch.equal(free.rollout.spikes[0], free.rollout.spikes[2])


# -- losses -------------------------------------------------------------------------------------------------------------------------


def test_noise_correlation_loss_is_the_part_of_the_covariances_that_is_missed():
    """0 in the mean for trials of the same law, 1 for independent neurons of the same rates; against hand-counted covariances."""
    binned, loss = recorded(400), NoiseCorrelationLoss(n_lags=2)
    rng = np.random.default_rng(1)
    rate = binned.mean_count()
    same, independent = [], []
    for seed in range(30):
        same.append(float(loss(context_of(binned, recorded(40, 100 + seed).dense_numpy(), loss))["noise_correlation"]))
        z = (rng.random((40, N_BINS, 4)) < rate).astype(float)
        independent.append(float(loss(context_of(binned, z, loss))["noise_correlation"]))
    error = np.std(same) / np.sqrt(30)
    assert abs(np.mean(same)) < 4 * error + 0.02 and error < 0.05
    assert abs(np.mean(independent) - 1) < 4 * np.std(independent) / np.sqrt(30)

    z = recorded(41, 7).dense_numpy().astype(np.float64)
    data = binned.dense_numpy().astype(np.float64)

    def covariance(trials):
        c = trials - trials.mean(0)
        return np.stack([np.einsum("kti,ktj->ij", c[:, d:], c[:, : N_BINS - d]) / ((len(c) - 1) * (N_BINS - d)) for d in range(2)], -1)

    truth, a, b = covariance(data), covariance(z[::2]), covariance(z[1::2])
    scale = 1 / np.sqrt(np.outer(truth[..., 0].diagonal(), truth[..., 0].diagonal()))[..., None]
    counted = ~np.eye(4, dtype=bool)[..., None] | np.array([False, True])
    expected = ((a - truth) * (b - truth) * scale**2 * counted).sum() / ((truth * scale) ** 2 * counted).sum()
    np.testing.assert_allclose(float(loss(context_of(binned, z, loss))["noise_correlation"]), expected, rtol=1e-5)


def test_noise_correlation_loss_does_not_pay_for_a_trial_that_runs_away():
    """One trial in twenty fires ten times as much. The product of two halves is as often below 0, and falls the more the more it fires."""
    binned, loss = recorded(400), NoiseCorrelationLoss(n_lags=2)
    rng = np.random.default_rng(0)
    for _ in range(10):
        z = torch.as_tensor(rng.random((20, N_BINS, 4)) < 0.2, dtype=torch.float64)
        scale = torch.tensor(10.0, dtype=torch.float64, requires_grad=True)
        value = loss(context_of(binned, torch.cat([z[:1] * scale, z[1:]]), loss))["noise_correlation"]
        assert value > 1 and torch.autograd.grad(value, scale)[0] > 0


def test_noise_correlation_loss_says_nothing_where_one_half_has_no_repeats():
    """Five trials of two conditions, three and two: one half has two of the first, the other one of each."""
    binned, loss = recorded(40, conditions=("a", "b")), NoiseCorrelationLoss(n_lags=2)
    context = context_of(binned, np.zeros((5, N_BINS, 4)), loss)
    z = torch.as_tensor(np.random.default_rng(0).random((5, N_BINS, 4)) < 0.2, dtype=torch.float64).requires_grad_()
    chunk = SpikeChunk.empty(5, N_BINS, 4, 5.0, condition=np.array([0, 0, 0, 1, 1]))
    value = loss(replace(context, run_free=lambda: FreeRun(Rollout(z, torch.zeros(()), {}), chunk)))["noise_correlation"]
    assert value.item() == 0 and not torch.autograd.grad(value, z)[0].any()
    with pytest.raises(InvalidInputError, match="there are 3"):
        loss(context_of(binned, np.zeros((3, N_BINS, 4)), loss))


def test_published_noise_correlation_is_the_mean_square_over_all_entries():
    binned, loss = recorded(60), NoiseCorrelationLoss(n_lags=1, form="published")
    p = np.random.default_rng(2).random((30, N_BINS, 4))
    data = binned.dense_numpy().astype(np.float64)

    def covariance(x):
        c = x - x.mean(0)
        return np.einsum("kti,ktj->ij", c, c) / ((len(c) - 1) * N_BINS)

    expected = ((covariance(p) - covariance(data)) ** 2).mean()
    found = loss(context_of(binned, np.zeros_like(p), loss, expected=p))["noise_correlation"]
    np.testing.assert_allclose(float(found), expected, rtol=1e-5)


def test_psth_loss_is_the_divergence_of_probabilities_per_bin():
    binned, loss = recorded(60), StatisticLoss(PSTH(), two_half=False)
    p = np.random.default_rng(2).uniform(0.05, 0.5, (30, N_BINS, 4))
    m, truth = p.mean(0), binned.dense_numpy().mean(0)
    expected = np.mean([stats.entropy([b, 1 - b], [a, 1 - a]) for a, b in zip(m.ravel(), truth.ravel(), strict=True)])
    found = loss(context_of(binned, np.zeros_like(p), loss, expected=p))["psth"]
    np.testing.assert_allclose(float(found), expected, rtol=1e-5)


def test_hidden_rate_is_relative_to_the_recorded_one():
    binned, loss = recorded(20), HiddenRate()
    mean = float(binned.mean_count().mean())
    context = context_of(binned, np.zeros((3, N_BINS, 4)), loss)
    context.rollout.latents["hidden_expected"] = torch.full((3, N_BINS, 2), 2 * mean).double()
    assert float(loss(context)["hidden_rate"]) == pytest.approx(1.0)
    assert HiddenRate(rate_hz=10.0).record(binned) == pytest.approx(0.05)


TINY = [
    FiringRate(),
    PSTH(),
    PopulationRate(),
    NoiseCorrelation(n_lags=2, covariance=True),
    SignalCorrelation(),
    Autocorrelogram(2.0),
    CrossCorrelogram(1.0),
    ISIDistribution(3.0),
    FanoFactor(2.0, centre="condition"),
    PopulationSpectrum(4.0),
    ParticipationRatio(1.0),
]


@pytest.mark.parametrize("statistic", TINY, ids=[statistic.name for statistic in TINY])
def test_gradient_of_the_expectation_by_enumeration(statistic):
    """Two neurons, five bins, two lags: all 1024 trains, each weighted by its probability.

    Accumulators add over trials, so that their weighted sum is that of endlessly many trials. Exact: through the probabilities. Straight
    through: through spikes and expected counts. Bound 0.9 of the cosine, which linear and quadratic statistics keep.
    """
    n_bins, n_neurons = 5, 2
    shape = (-1, n_bins, n_neurons)
    trains = torch.tensor(list(itertools.product([0.0, 1.0], repeat=n_bins * n_neurons)), dtype=torch.float64).reshape(shape)
    uniforms = torch.where(trains > 0, 1e-30, 1 - 1e-16)
    weight = np.random.default_rng(3).normal(0, 0.8, (n_neurons, n_neurons, 2))
    model = SpikingNetwork(
        neuron=SRM(post_spike_tau_ms=()), emission="bernoulli", basis="boxes", coupling_ms=2.0, n_coupling=2, self_coupling=True
    )
    binned = Recording.from_counts(list(trains.numpy().astype(int)), dt_ms=1.0, conditions=["a"] * len(trains)).bin()
    chunk, info = binned.chunk(range(len(trains)), 0, n_bins), binned.info()
    specs = model.param_specs(info)

    def run(**how):
        params = to_tensors(initial_params(specs, Stream(0, "init")))
        params["bias"] = torch.tensor([-1.0, -0.5], dtype=torch.float64, requires_grad=True)
        params["coupling"] = torch.as_tensor(weight).requires_grad_()
        return model.rollout(params, chunk, uniforms=uniforms, **how), (params["bias"], params["coupling"])

    def value(probability, spikes, expected=None):
        """Return a fixed combination of the statistic's entries over endlessly many trials."""
        accs = []
        for k in range(len(trains)):
            more = {} if expected is None else {"expected": Expected(*(part[k : k + 1] for part in expected))}
            accs.append(replace(statistic.update(statistic.init(info), spikes[k : k + 1], chunk.rows([k]), **more), past=None))
        many = 1e8 * probability
        sums = [torch.tensordot(many, torch.stack(parts).double(), 1) for parts in zip(*map(leaves, accs), strict=True)]
        found = statistic.finalise(fill(accs[0], iter(sums))).ravel()
        finite = torch.where(torch.isfinite(found), found, torch.zeros_like(found))
        return (finite * torch.as_tensor(np.random.default_rng(4).normal(size=found.numel()))).sum()

    clamped, inputs = run(observed=trains)
    probability = clamped.log_prob.sum(1).exp()
    assert abs(float(probability.detach().sum()) - 1) < 1e-10
    truth = value(probability, trains)
    exact = torch.autograd.grad(truth, inputs)
    free, inputs = run()
    assert torch.equal(free.spikes, trains)
    takes = getattr(statistic, "takes_expected", False)
    sampled = value(probability.detach(), free.spikes, expected_of(free) if takes else None)
    torch.testing.assert_close(sampled, truth, rtol=1e-6, atol=1e-9)
    through = torch.autograd.grad(sampled, inputs)
    exact, through = (torch.cat([g.flatten() for g in gradients]) for gradients in (exact, through))
    assert torch.nn.functional.cosine_similarity(exact, through, dim=0) > 0.9


# -- refusals -----------------------------------------------------------------------------------------------------------------------


def refuses(binned_or_recording, loss, match, error=InvalidInputError, **how):
    with pytest.raises(error, match=match):
        fitspike.fit(binned_or_recording, model="spiking-network", loss=loss, split="none", **how)


def test_wrong_data_are_refused_before_compute():
    rng = np.random.default_rng(0)
    one = Recording.from_counts((rng.random((50, 3)) < 0.2).astype(int), dt_ms=5.0)
    refuses(one, {"nll": 1, "noise_correlation": 1}, "the training data are one trial", TooFewTrialsError)
    refuses(one, {"nll": 1, "psth": 1}, "the training data are one trial", TooFewTrialsError)
    trials = [(rng.random((50, 3)) < 0.2).astype(int) for _ in range(8)]
    unlike = Recording.from_counts(trials, dt_ms=5.0, conditions=list("abcdefgh"))
    refuses(unlike, {"nll": 1, "noise_correlation": 1}, "no two of the 8 training trials share one of the 8 conditions", TooFewTrialsError)
    same = Recording.from_counts(trials, dt_ms=5.0, conditions=["a"] * 8)
    refuses(same, {"nll": 1, "psth": 1}, "no stimulus reaches 'spiking-network'")
    refuses(same, {"nll": 1, "hidden_rate": 1}, "has none. Set n_hidden")
    refuses(same, {"nll": 1, "hidden_rate": {"weight": 1, "rate_hz": 300}}, "more than one spike per bin of 5 ms", settings={"n_hidden": 2})
    refuses(same, {"nll": 1, "isi_cv": 1}, "carries no gradient")
    refuses(same, {"nll": 1, "fano_factor": {"weight": 1, "distance": "msee"}}, "unknown distance 'msee'.*did you mean 'mse'")
    refuses(same, {"nll": 1, "fano_factor": {"weight": 1, "distance": "poisson"}}, "compares rates")
    several = Recording.from_counts([trial * 3 for trial in trials], dt_ms=5.0, conditions=["a"] * 8)
    refuses(several, {"nll": 1, "noise_correlation": 1}, "hold several spikes", emission="bernoulli")
    refuses(same.select(neurons=[same.neurons.ids[0]]), {"nll": 1, "noise_correlation": 1}, "there is one neuron", TooFewTrialsError)
    refuses(same, {"nll": 1, "noise_correlation": {"weight": 1, "n_lags": 50}}, "reaches past trials of 50 bins", TooFewTrialsError)


@pytest.mark.parametrize(
    "term", [{"population_spectrum": 1}, {"fano_factor": {"weight": 1, "window_ms": 60.0}}, {"trial_matching": 1}, {"mmd": 1}]
)
def test_windows_longer_than_chunks_are_refused(term):
    """Else no step would see a whole window, and the loss would be 0 from the first step to the last."""
    counts = (np.random.default_rng(0).random((8, 60, 3)) < 0.2).astype(int)
    recording = Recording.from_counts(counts, dt_ms=5.0, conditions=["a"] * 8)
    how = {"settings": {"time_bumps": 4}, "stop": {"max_steps": 1}, "progress": "off", "report": False}
    refuses(recording, {"nll": 1, **term}, r"each step simulates chunks of 15 ms. Set n_bins of \[batch\]", batch={"n_bins": 3}, **how)
    result = fitspike.fit(recording, model="spiking-network", loss={"nll": 1, **term}, split="none", batch={"n_bins": 60}, **how)
    assert result.history[0][next(iter(term))] != 0.0


@pytest.mark.parametrize("name", ["fano_factor", "population_spectrum", "participation_ratio", "signal_correlation", "mmd"])
def test_too_few_simulated_trials_to_compare_are_refused(name):
    counts = (np.random.default_rng(0).random((8, 60, 3)) < 0.2).astype(int)
    how = {"settings": {"time_bumps": 4}, "stop": {"max_steps": 1}, "progress": "off", "report": False}
    repeats = Recording.from_counts(counts, dt_ms=5.0, conditions=["a"] * 8)
    refuses(repeats, {"nll": 1, name: 1}, f"loss '{name}' compares . simulated trials of one condition", batch={"n_trials": 1}, **how)
    if name == "fano_factor":  # over the windows of one long trial
        one = Recording.from_counts(counts.reshape(-1, 3), dt_ms=5.0)
        fitspike.fit(one, model="spiking-network", loss={"nll": 1, name: 1}, split="none", batch={"n_trials": 1}, **how)


def test_trials_of_different_stimuli_are_no_repeats():
    from fitspike.recording.tables import Signal

    rng = np.random.default_rng(0)
    trials = [(rng.random((50, 3)) < 0.2).astype(int) for _ in range(8)]
    signal = Signal(rng.normal(size=(400, 1)), 200.0, 0, "1")
    recording = Recording.from_counts(trials, dt_ms=5.0, signals={"movie": signal})
    refuses(recording, {"nll": 1, "psth": 1}, r"as repeats of one stimulus, but their signals differ \(movie\)")
    refuses(recording, {"nll": 1, "noise_correlation": 1}, r"but their signals differ \(movie\)")


def test_recorded_value_does_not_depend_on_how_much_is_made_dense(monkeypatch):
    binned = recorded(12)
    whole = recorded_value(NoiseCorrelation(n_lags=3), binned)
    monkeypatch.setattr("fitspike.losses.summary_statistics._RECORD_VALUES", 60)
    torch.testing.assert_close(recorded_value(NoiseCorrelation(n_lags=3), binned), whole, rtol=1e-6, atol=1e-9)


def test_interval_cv_has_no_loss():
    with pytest.raises(InvalidInputError, match="isi_distribution"):
        StatisticLoss(ISICV())
