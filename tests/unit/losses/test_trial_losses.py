"""Losses that compare single trials: against counts by hand, brute force and scipy, at the truth, and what they refuse."""

import itertools

import numpy as np
import pytest
import torch
from scipy import optimize, stats

import fitspike
from fitspike.errors import InvalidInputError, TooFewTrialsError
from fitspike.losses.base import FreeRun, LossContext
from fitspike.losses.mmd import MaximumMeanDiscrepancy, squared_discrepancy
from fitspike.losses.trial_features import Windows, equally_many, pairs_of_kinds, population_members, recorded_trials
from fitspike.losses.trial_matching import TrialMatching, matched_square, sinkhorn_divergence
from fitspike.models.base import Rollout
from fitspike.models.spiking_network import SpikingNetwork
from fitspike.neurons.srm import SRM
from fitspike.params import initial_params, to_tensors
from fitspike.recording.chunk import SpikeChunk
from fitspike.recording.recording import Recording
from fitspike.recording.tables import NeuronTable
from fitspike.rng import Stream

N_BINS, DT_MS = 40, 5.0
AREAS = ["a", "a", "a", "b"]


def trials_of(n_trials, seed, rate=0.2, n_bins=N_BINS):
    return (np.random.default_rng(seed).random((n_trials, n_bins, len(AREAS))) < rate).astype(float)


def binned_of(trials, conditions=None, dt_ms=DT_MS):
    conditions = conditions or ["c"] * len(trials)
    counts = [np.asarray(trial).astype(int) for trial in trials]
    table = NeuronTable.make(list("wxyz"), populations=AREAS)
    return Recording.from_counts(counts, dt_ms=dt_ms, conditions=conditions, neurons=table).bin()


def context_of(binned, spikes, loss, *, condition=None, first_bin=0, seed=0):
    """Return a context whose free run is the given spikes."""
    spikes = torch.as_tensor(spikes, dtype=torch.float64)
    condition = np.zeros(len(spikes)) if condition is None else condition
    chunk = SpikeChunk.empty(*spikes.shape, binned.dt_ms, condition=condition, first_bin=first_bin)
    free = FreeRun(Rollout(spikes, torch.zeros(())), chunk)
    recorded = {loss.name: loss.record(binned)}
    return LossContext(SpikingNetwork(), {}, chunk, binned.info(), Stream(seed, "x"), recorded=recorded, run_free=lambda: free)


def value_of(loss, *arguments, **how):
    return float(loss(context_of(*arguments[:2], loss, **how))[loss.name])


# -- features -----------------------------------------------------------------------------------------------------------------------


def features_by_hand(trials, n_bins, n_step):
    """Return mean counts of both areas in windows, (n_trials, n_windows, 2)."""
    starts = range(0, trials.shape[1] - n_bins + 1, n_step)
    areas = (trials[..., :3].mean(-1), trials[..., 3])
    return np.stack([np.stack([area[:, s : s + n_bins].mean(1) for s in starts], 1) for area in areas], -1)


def test_features_are_mean_counts_of_populations_in_windows():
    trials = trials_of(6, 0)
    by_hand = features_by_hand(trials, 4, 3)
    found = recorded_trials(binned_of(trials), Windows(4, 3), population_members(tuple(AREAS)), standardise=True)
    offset, scale = by_hand.mean((0, 1)), by_hand.std((0, 1))
    np.testing.assert_allclose(found.values.numpy(), (by_hand - offset) / scale, rtol=1e-4, atol=1e-5)
    assert bool(found.valid.all())


def test_features_of_a_chunk_are_those_of_its_bins_in_the_trial():
    trials, windows = torch.as_tensor(trials_of(3, 0)), Windows(4, 3)
    whole, found = windows.means(trials), []
    for first, stop in ((0, 13), (13, 29), (29, 40)):
        part = windows.means(trials[:, first:stop], first)
        at = windows.inside(first, stop - first)
        torch.testing.assert_close(part, whole[:, at.start : at.stop])
        found += list(at)
        assert all(3 * w >= first and 3 * w + 4 <= stop for w in at)
    assert windows.means(trials[:, :2]).shape == (3, 0, 4)
    assert len(found) == len(set(found))


def test_only_whole_windows_of_repeats_are_compared():
    """A short and a long trial share the short one's windows; a condition that was recorded once is passed over."""
    trials = [trials_of(1, k)[0][:n] for k, n in enumerate((40, 20, 40))]
    binned = binned_of(trials, ["c", "c", "d"])
    recorded = recorded_trials(binned, Windows(4, 4), population_members(tuple(AREAS)), standardise=False)
    spikes = torch.as_tensor(trials_of(3, 9), dtype=torch.float32)
    free = FreeRun(Rollout(spikes, torch.zeros(())), SpikeChunk.empty(3, N_BINS, 4, DT_MS, condition=np.array([0, 1, 0])))
    ((ours, theirs),) = pairs_of_kinds(free, recorded)
    by_hand = features_by_hand(np.stack([trials[0][:20], trials[1]]), 4, 4)
    np.testing.assert_allclose(theirs.numpy(), by_hand.reshape(2, -1), rtol=1e-5)
    np.testing.assert_allclose(ours.numpy(), features_by_hand(spikes.numpy()[[0, 2], :20], 4, 4).reshape(2, -1), rtol=1e-5)


def test_equally_many_draws_every_trial_alike():
    few, many = torch.zeros(3, 1), torch.arange(8.0)[:, None]
    counts = np.zeros(8)
    for k in range(800):
        a, b = equally_many(few, many, Stream(k, "draw"))
        assert torch.equal(a, few) and len(set(b.ravel().tolist())) == 3
        counts[b.ravel().int().numpy()] += 1
    assert stats.chisquare(counts).pvalue > 1e-4  # the draws of one call exclude each other, which lowers the statistic


# -- trial matching -----------------------------------------------------------------------------------------------------------------


def test_hard_matching_is_the_best_of_all_assignments():
    trials, simulated = trials_of(5, 0), trials_of(5, 1)
    loss = TrialMatching(window_ms=20.0, step_ms=15.0)
    data, ours = features_by_hand(trials, 4, 3), features_by_hand(simulated, 4, 3)
    offset, scale = data.mean((0, 1)), data.std((0, 1))
    data, ours = ((x - offset) / scale for x in (data, ours))
    best = min(np.square(ours - data[list(order)]).mean() for order in itertools.permutations(range(5)))
    assert value_of(loss, binned_of(trials), simulated) == pytest.approx(best, rel=1e-5)
    assert value_of(loss, binned_of(trials), trials[[3, 1, 4, 0, 2]]) == pytest.approx(0.0, abs=1e-10)


@pytest.mark.parametrize("assignment", ["hard", "soft"])
def test_trials_are_matched_within_their_condition(assignment):
    """Swapped conditions are not made good by matching across them."""
    weak, strong = trials_of(6, 0, 0.05), trials_of(6, 1, 0.5)
    binned, loss = binned_of([*weak, *strong], ["c"] * 6 + ["d"] * 6), TrialMatching(assignment=assignment)
    condition = np.repeat([0, 1], 6)
    right = value_of(loss, binned, np.concatenate([weak, strong]), condition=condition)
    assert right == pytest.approx(0.0, abs=1e-6)
    assert value_of(loss, binned, np.concatenate([strong, weak]), condition=condition) > 1.0


@pytest.mark.parametrize("assignment", ["hard", "soft"])
def test_matching_tells_some_full_responses_from_many_partial_ones(assignment):
    """Both kinds of trials have one PSTH: a response in 4 of 5 trials, or 4/5 of it in every trial."""

    def trials(seed, is_mixed):
        rng = np.random.default_rng(seed)
        rate = np.full((60, N_BINS, 12), 0.02)
        rate[:, 15:25] += 0.5 * np.where(np.arange(60) % 5 > 0, 1.0, 0.0)[:, None, None] if is_mixed else 0.4
        return (rng.random(rate.shape) < rate).astype(float)

    recording = Recording.from_counts(list(trials(0, True).astype(int)), dt_ms=DT_MS, conditions=["c"] * 60)
    loss = TrialMatching(assignment=assignment)
    mixed, partial = ([value_of(loss, recording.bin(), trials(seed, kind)) for seed in range(1, 6)] for kind in (True, False))
    assert min(partial) > 1.5 * max(mixed)


def test_matching_of_chunks_compares_their_own_windows():
    trials = trials_of(5, 0)
    binned, loss = binned_of(trials), TrialMatching(window_ms=20.0, step_ms=20.0)
    assert value_of(loss, binned, trials[::-1, 16:32].copy(), first_bin=16) == pytest.approx(0.0, abs=1e-10)
    assert value_of(loss, binned, trials[:, 12:28], first_bin=16) > 0.1
    assert value_of(loss, binned, trials[:, 1:4], first_bin=1) == 0.0


def test_gradient_of_the_expected_match_by_enumeration():
    """Two simulated trials of two neurons and three bins, all 4096 pairs of trains, matched with two recorded trials.

    Exact: through the pairs' probabilities. Straight through: through the spikes. Bound of the cosine as for quadratic statistics.
    """
    shape = (-1, 3, 2)
    trains = torch.tensor(list(itertools.product([0.0, 1.0], repeat=6)), dtype=torch.float64).reshape(shape)
    uniforms = torch.where(trains > 0, 1e-30, 1 - 1e-16)
    model = SpikingNetwork(neuron=SRM(post_spike_tau_ms=()), basis="boxes", coupling_ms=2.0, n_coupling=2, self_coupling=True)
    binned = Recording.from_counts(list(trains.numpy().astype(int)), dt_ms=1.0, conditions=["a"] * 64).bin()
    chunk, specs = binned.chunk(range(64), 0, 3), model.param_specs(binned.info())
    recorded = torch.tensor([[2.0, 1.0], [0.0, 0.5]], dtype=torch.float64)

    def run(**how):
        params = to_tensors(initial_params(specs, Stream(0, "init")))
        params["bias"] = torch.tensor([-0.7, -0.2], dtype=torch.float64, requires_grad=True)
        params["coupling"] = torch.as_tensor(np.random.default_rng(3).normal(0, 0.8, (2, 2, 2))).requires_grad_()
        return model.rollout(params, chunk, uniforms=uniforms, **how), (params["bias"], params["coupling"])

    def expected_match(probability, spikes):
        feature = Windows(2, 1).means(spikes.mean(-1, keepdim=True)).flatten(1) * 2.0
        total = 0.0
        for i, j in itertools.combinations_with_replacement(range(64), 2):
            weight = probability[i] * probability[j] * (1.0 if i == j else 2.0)
            total = total + weight * matched_square(feature[[i, j]], recorded)
        return total

    clamped, inputs = run(observed=trains)
    exact = torch.autograd.grad(expected_match(clamped.log_prob.sum(1).exp(), trains), inputs)
    free, inputs = run()
    assert torch.equal(free.spikes, trains)
    through = torch.autograd.grad(expected_match(clamped.log_prob.sum(1).exp().detach(), free.spikes), inputs)
    exact, through = (torch.cat([g.flatten() for g in gradients]) for gradients in (exact, through))
    assert torch.nn.functional.cosine_similarity(exact, through, dim=0) > 0.9


def test_sinkhorn_divergence_by_scipy():
    """In one dimension it is the Wasserstein distance, of sets of different size too. Entropy adds at most blur log n to each cost."""
    rng = np.random.default_rng(0)
    for n, m, shift in ((40, 40, 1.0), (30, 50, 2.0), (20, 20, 0.0)):
        x, y = rng.normal(size=(n, 1)), rng.normal(shift, 1.5, (m, 1))
        found = float(sinkhorn_divergence(torch.as_tensor(x), torch.as_tensor(y), 0.002))
        assert found == pytest.approx(stats.wasserstein_distance(x[:, 0], y[:, 0]), abs=0.002 * np.log(m))
    x, y = rng.normal(size=(30, 8)), rng.normal(1.0, 1, (30, 8))
    cost = np.linalg.norm(x[:, None] - y, axis=2) / np.sqrt(8)
    assigned = cost[optimize.linear_sum_assignment(cost)].mean()
    assert float(sinkhorn_divergence(torch.as_tensor(x), torch.as_tensor(y), 0.002)) == pytest.approx(assigned, abs=0.002 * np.log(30))
    assert float(sinkhorn_divergence(torch.as_tensor(x), torch.as_tensor(x[::-1].copy()), 0.05)) == pytest.approx(0.0, abs=1e-4)


def test_sinkhorn_gradient_by_finite_differences():
    """Updates end before the plan has quite converged: within 1 % of the largest entry."""
    rng = np.random.default_rng(1)
    x, y = torch.as_tensor(rng.normal(size=(6, 3))).requires_grad_(), torch.as_tensor(rng.normal(0.5, 1, (8, 3)))
    (gradient,) = torch.autograd.grad(sinkhorn_divergence(x, y, 0.3), x)
    numeric = torch.zeros_like(gradient)
    for index in itertools.product(range(6), range(3)):
        step = torch.zeros_like(x)
        step[index] = 1e-5
        numeric[index] = (sinkhorn_divergence(x.detach() + step, y, 0.3) - sinkhorn_divergence(x.detach() - step, y, 0.3)) / 2e-5
    torch.testing.assert_close(gradient, numeric, rtol=0, atol=0.01 * float(numeric.abs().max()))


# -- maximum mean discrepancy -------------------------------------------------------------------------------------------------------


def test_mmd_is_the_u_statistic_of_its_kernel():
    trials, simulated = trials_of(7, 0), trials_of(7, 1, 0.3)
    loss = MaximumMeanDiscrepancy(window_ms=20.0, step_ms=10.0, bandwidth=0.7)
    starts = range(0, N_BINS - 4 + 1, 2)
    y, x = (np.stack([t[:, s : s + 4].mean(1) for s in starts], 1).reshape(7, -1) for t in (trials, simulated))
    median = np.median([np.square(y[i] - y[j]).mean() for i, j in itertools.combinations(range(7), 2)])

    def kernel(a, b):
        return np.exp(-np.square(a - b).mean() / (2 * 0.7**2 * median))

    pairs = list(itertools.permutations(range(7), 2))
    expected = np.mean([kernel(x[i], x[j]) + kernel(y[i], y[j]) for i, j in pairs])
    expected -= 2 * np.mean([kernel(a, b) for a in x for b in y])
    assert value_of(loss, binned_of(trials), simulated) == pytest.approx(expected, abs=1e-5)


def test_mmd_has_mean_zero_at_the_truth_only():
    """20 independent pairs of samples: within four standard errors of 0 for one law, far above for another rate."""
    loss = MaximumMeanDiscrepancy()
    same = [value_of(loss, binned_of(trials_of(20, k)), trials_of(20, 100 + k)) for k in range(20)]
    other = [value_of(loss, binned_of(trials_of(20, k)), trials_of(20, 100 + k, 0.3)) for k in range(20)]
    assert abs(np.mean(same)) < 4 * np.std(same) / np.sqrt(20) and min(same) < 0
    assert np.mean(other) > 10 * np.std(same) / np.sqrt(20)


def test_mmd_gradient_by_finite_differences():
    rng = np.random.default_rng(1)
    x, y = torch.as_tensor(rng.normal(size=(5, 3))).requires_grad_(), torch.as_tensor(rng.normal(0.5, 1, (4, 3)))
    assert torch.autograd.gradcheck(lambda x: squared_discrepancy(x, y, 0.8), x)


# -- refusals and fits --------------------------------------------------------------------------------------------------------------


def refuses(recording, loss, match, error=InvalidInputError, **how):
    with pytest.raises(error, match=match):
        fitspike.fit(recording, model="spiking-network", loss={"nll": 1, **loss}, split="none", settings={"time_bumps": 4}, **how)


@pytest.mark.parametrize("name", ["trial_matching", "mmd"])
def test_wrong_data_and_settings_are_refused_before_compute(name):
    trials = list(trials_of(8, 0).astype(int))
    one = Recording.from_counts(trials[0], dt_ms=DT_MS)
    refuses(one, {name: 1}, "the training data are one trial", TooFewTrialsError)
    unlike = Recording.from_counts(trials, dt_ms=DT_MS, conditions=list("abcdefgh"))
    refuses(unlike, {name: 1}, "no two of the 8 training trials share one of the 8 conditions", TooFewTrialsError)
    same = Recording.from_counts(trials, dt_ms=DT_MS, conditions=["a"] * 8)
    refuses(same, {name: {"weight": 1, "window_ms": 300.0}}, r"windows of 300 ms are longer than the trials \(200 ms\)")
    short = Recording.from_counts([*trials[:7], trials[7][:1]], dt_ms=DT_MS, conditions=["a"] * 8)
    refuses(short, {name: 1}, "no window of .* ms lies inside all repeats of any condition; the shortest trial has 5 ms")
    refuses(same, {name: {"weight": 1, "window_ms": 12.0}}, "no whole number of bins of 5.0 ms. Use 10")
    refuses(same, {name: {"weight": 1, "window_ms": 20.0, "step_ms": 25.0}}, "step_ms=25.0 is longer than windows of 20 ms")


def test_unknown_settings_are_refused():
    with pytest.raises(InvalidInputError, match="assignment='best'; use 'hard' or 'soft'.*\n.*blur=0"):
        TrialMatching(assignment="best", blur=0)
    with pytest.raises(InvalidInputError, match="bandwidth=0 must be above 0"):
        MaximumMeanDiscrepancy(bandwidth=0)
    same = Recording.from_counts(list(trials_of(8, 0).astype(int)), dt_ms=DT_MS, conditions=["a"] * 8)
    with pytest.raises(InvalidInputError, match="no stimulus reaches"):
        fitspike.fit(same, model="spiking-network", loss={"nll": 1, "trial_matching": 1}, split="none")


@pytest.mark.parametrize("loss", [{"trial_matching": 1}, {"trial_matching": {"weight": 1, "assignment": "soft"}}, {"mmd": 1}])
def test_fit_lowers_the_loss(loss):
    """From couplings drawn large, which make activity unlike the recording's, in whole trials and in chunks alike."""
    same = Recording.from_counts(list(trials_of(40, 0).astype(int)), dt_ms=DT_MS, conditions=["a"] * 40)
    for n_bins in (None, 20):
        result = fitspike.fit(
            same,
            SpikingNetwork(time_bumps=4, coupling_init=6.0),
            loss=loss,
            split="none",
            batch={"n_trials": 20, "n_bins": n_bins},
            optimiser={"learning_rate": 0.05},
            stop={"max_steps": 40, "log_every": 4},
            threads=1,
            progress="off",
            report=False,
        )
        values = [row[next(iter(loss))] for row in result.history]
        assert np.mean(values[-3:]) < np.mean(values[:2])
