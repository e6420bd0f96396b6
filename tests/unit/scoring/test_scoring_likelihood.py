"""Likelihood scores against scipy and scikit-learn."""

import numpy as np
import pytest
from scipy.stats import bernoulli, poisson

from fitspike.recording.recording import Recording
from fitspike.rng import Stream
from fitspike.scoring import BlockSums, ScoreSettings, TrainingRate, score_model
from fitspike.scoring.blocks import block_of_bin, data_hash, null_rate, plan_batches, plan_blocks, reference_sums
from fitspike.scoring.bootstrap import block_weights, spread
from fitspike.scoring.compare import paired_difference, reason_not_paired
from fitspike.scoring.likelihood import likelihood_scores

BIAS = np.log([0.3, 0.1, 0.05])
WEIGHT = np.array([[-1.0, 0.5, 0.0], [0.3, 0.0, 0.0], [0.0, 0.8, -2.0]])
PARAMS = {"bias": BIAS, "weight": WEIGHT}


def scored(model, counts, training, **options):
    binned = Recording.from_counts(counts.astype(int), dt_ms=10.0).bin()
    settings = ScoreSettings(co_smoothing_bins=0, n_bootstrap=200, **options)
    return score_model(model, PARAMS, binned, training, is_binary=model.emission == "bernoulli", settings=settings)


def test_poisson_scores_equal_scipy_and_sklearn(last_bin_network, simulate_last_bin):
    from sklearn.metrics import mean_poisson_deviance

    counts, expected = simulate_last_bin(BIAS, WEIGHT, 4, 500, seed=1)
    rate = np.array([0.25, 0.12, 0.06])
    found = scored(last_bin_network(), counts, TrainingRate(rate, 1000))
    nats = poisson.logpmf(counts, expected).sum((0, 1))
    null = poisson.logpmf(counts, rate).sum((0, 1))
    n = counts.sum((0, 1))
    assert found["log_likelihood"] == pytest.approx(nats.sum(), rel=1e-12)
    assert found["bits_per_spike"] == pytest.approx((nats.sum() - null.sum()) / n.sum() / np.log(2), rel=1e-12)
    np.testing.assert_allclose(found.per_neuron["bits_per_spike"], (nats - null) / n / np.log(2), rtol=1e-10)
    assert found["bits_per_spike_median"] == pytest.approx(np.median((nats - null) / n / np.log(2)), rel=1e-10)
    deviance = [
        [mean_poisson_deviance(counts[..., i].ravel(), mu.ravel()) for mu in (expected[..., i], np.full(counts.shape[:2], rate[i]))]
        for i in range(3)
    ]
    r2 = np.array([1 - model / base for model, base in deviance])
    np.testing.assert_allclose(found.per_neuron["pseudo_r2"], r2, rtol=1e-10)
    assert found["pseudo_r2"] == pytest.approx(r2.mean(), rel=1e-10)
    assert found.n_spikes == n.sum() and found.n_bins == 2000


def test_bernoulli_scores_equal_scipy(last_bin_network, simulate_last_bin):
    counts, expected = simulate_last_bin(BIAS - 1, WEIGHT, 3, 400, seed=2, emission="bernoulli")
    rate = np.array([0.1, 0.05, 0.02])
    model = last_bin_network(emission="bernoulli")
    binned = Recording.from_counts(counts.astype(int), dt_ms=10.0).bin()
    found = score_model(
        model,
        {"bias": BIAS - 1, "weight": WEIGHT},
        binned,
        TrainingRate(rate, 1000),
        is_binary=True,
        settings=ScoreSettings(co_smoothing_bins=0, n_bootstrap=10),
    )
    nats, null = bernoulli.logpmf(counts, expected).sum((0, 1)), bernoulli.logpmf(counts, rate).sum((0, 1))
    np.testing.assert_allclose(found.per_neuron["bits_per_spike"], (nats - null) / counts.sum((0, 1)) / np.log(2), rtol=1e-10)
    np.testing.assert_allclose(found.per_neuron["pseudo_r2"], 1 - nats / null, rtol=1e-10)


def test_a_model_worse_than_mean_rates_is_noted_with_its_worst_neuron(last_bin_network, simulate_last_bin):
    counts, _ = simulate_last_bin(BIAS, WEIGHT, 4, 500, seed=1)
    rate = counts.mean((0, 1))
    assert not any("mean rates" in note for note in scored(last_bin_network(), counts, TrainingRate(rate, 1000)).notes)
    binned = Recording.from_counts(counts.astype(int), dt_ms=10.0, ids=["a", "b", "c"]).bin()
    flat, settings = {"bias": np.log(rate * [1, 9, 1]), "weight": np.zeros((3, 3))}, ScoreSettings(co_smoothing_bins=0, n_bootstrap=10)
    found = score_model(last_bin_network(), flat, binned, TrainingRate(rate, 1000), is_binary=False, settings=settings)
    lost = (np.log(9) - 8) / np.log(2)  # bits of each spike of neuron b: log of the factor, less the surplus of expected counts
    share = counts[..., 1].sum() / counts.sum()
    (note,) = [note for note in found.notes if "mean rates" in note]
    assert f"({lost * share:.3g} bits per spike; worst: neuron b, {lost:.3g})" in note


def test_score_does_not_depend_on_chunk_size(last_bin_network, simulate_last_bin):
    counts, _ = simulate_last_bin(BIAS, WEIGHT, 3, 700, seed=3)
    training = TrainingRate(counts.mean((0, 1)), 2100)
    whole, small = (scored(last_bin_network(), counts, training, chunk_values=n) for n in (10**7, 3 * 17))
    np.testing.assert_allclose(whole.blocks.model, small.blocks.model, rtol=1e-10)
    np.testing.assert_allclose(whole.rescaling.statistic, small.rescaling.statistic, rtol=1e-9)


def test_warm_up_feeds_history_but_is_not_scored(last_bin_network, simulate_last_bin):
    counts, expected = simulate_last_bin(BIAS, WEIGHT, 1, 600, seed=4)
    binned = Recording.from_counts(counts.astype(int), dt_ms=10.0).bin().select_bins(0, 100, 600, warmup_bins=50)
    found = score_model(
        last_bin_network(),
        PARAMS,
        binned,
        TrainingRate(counts.mean((0, 1)), 600),
        is_binary=False,
        settings=ScoreSettings(co_smoothing_bins=0, n_bootstrap=10),
    )
    assert found.n_bins == 450
    assert found["log_likelihood"] == pytest.approx(poisson.logpmf(counts, expected)[0, 150:].sum(), rel=1e-12)


def test_a_neuron_silent_in_training_gets_half_a_spike():
    np.testing.assert_allclose(null_rate(np.array([0.0, 0.2]), 50, is_binary=False), [0.01, 0.2])
    np.testing.assert_allclose(null_rate(np.array([0.0, 1.0]), 50, is_binary=True), [0.01, 0.99])


def test_binary_reference_refuses_bins_with_several_spikes():
    binned = Recording.from_counts(np.array([[0, 2], [1, 0]]), dt_ms=1000.0).bin()
    with pytest.raises(ValueError, match="1 bins hold several spikes.*smaller dt_ms"):
        reference_sums(binned, plan_blocks(binned), np.array([0.1, 0.1]), is_binary=True)


def test_blocks_of_a_long_trial_by_hand():
    # 25 bins of 100 ms, the first 4 warm-up, blocks of 1 s: 21 scored bins make two blocks, the rest of 1 bin joins the second.
    binned = Recording.from_counts(np.zeros((25, 1), int), dt_ms=100.0).bin().select_bins(0, 0, 25, warmup_bins=4)
    plan = plan_blocks(binned)
    assert plan.first_bin.tolist() == [4, 14] and plan.stop_bin.tolist() == [14, 25]
    assert block_of_bin(binned, plan).tolist() == [-1] * 4 + [0] * 10 + [1] * 11
    assert [edges for _, edges in plan_batches(binned, plan, 6)] == [[0, 4, 10, 14, 20, 25]]
    assert plan.describe() == "2 time blocks of 1 s"


def test_many_trials_are_blocks():
    binned = Recording.from_counts(np.zeros((30, 5, 2), int), dt_ms=10.0).bin()
    plan = plan_blocks(binned)
    assert plan.by_trial and plan.n_blocks == 30
    trials = np.concatenate([t for t, _ in plan_batches(binned, plan, 50)])
    assert trials.tolist() == list(range(30))


def test_bootstrap_error_of_a_mean_is_the_analytic_one():
    values = np.random.default_rng(5).normal(size=200)
    weights = block_weights(200, 4000, Stream(0, "test"))
    found = spread(values.mean(), weights @ values / 200)
    # 4000 replicates: the standard deviation is known to 1 / sqrt(8000) = 1.1 %, five times that allowed.
    assert found.se == pytest.approx(values.std() / np.sqrt(200), rel=0.055)
    assert found.low == pytest.approx(values.mean() - 1.96 * found.se, abs=0.2 * found.se)


def test_one_block_states_no_error():
    one = np.ones((1, 2))
    sums = BlockSums(-one, -2 * one, 0 * one, 3 * one, np.array([7]), np.array([0]), np.array([7]))
    scores, _ = likelihood_scores(sums, 10, Stream(0, "x"))
    assert scores["bits_per_spike"].value == pytest.approx(2 / 6 / np.log(2)) and np.isnan(scores["bits_per_spike"].se)


def make_sums(model, spikes):
    shape = np.shape(model)
    edges = np.arange(shape[0] + 1)
    return BlockSums(np.asarray(model), np.zeros(shape), np.zeros(shape), np.asarray(spikes), np.ones(shape[0]), edges[:-1], edges[1:])


def test_paired_difference_by_hand():
    spikes = np.array([[2.0, 1.0], [1.0, 0.0]])
    a, b = make_sums([[1.0, 1.0], [1.0, 0.0]], spikes), make_sums([[2.0, 0.0], [2.0, 0.0]], spikes)
    found = paired_difference(a, b, 500, Stream(0, "pairs"))
    assert found.difference.value == pytest.approx((2.0 - 1.0) / 4 / np.log(2))
    assert (found.n_better, found.n_neurons) == (1, 2)


def test_pairing_removes_what_blocks_share():
    draw = np.random.default_rng(6)
    shared = draw.normal(0, 50, size=(100, 3))
    a, b = make_sums(shared, np.full((100, 3), 10.0)), make_sums(shared + 1 + draw.normal(0, 0.1, (100, 3)), np.full((100, 3), 10.0))
    found = paired_difference(a, b, 1000, Stream(0, "pairs"))
    assert found.difference.value == pytest.approx(0.1 / np.log(2), rel=0.02)
    assert found.difference.se < 0.01 * likelihood_scores(b, 200, Stream(0, "x"))[0]["bits_per_spike"].se


def test_scores_on_different_data_are_not_paired():
    a = make_sums(np.ones((3, 1)), np.ones((3, 1)))
    b = make_sums(np.ones((2, 1)), np.ones((2, 1)))
    assert reason_not_paired(a, "x", a, "x") is None
    assert "different data" in reason_not_paired(a, "x", a, "y")
    assert "block_s" in reason_not_paired(a, "x", b, "x")


def test_data_hash_sees_spikes_and_neurons_but_not_bin_width():
    times, ids = np.array([0.1, 0.5, 0.72]), np.array([0, 1, 1])
    recording = Recording.from_arrays(times, ids, stop_s=1.0)
    moved = Recording.from_arrays(times, np.array([0, 1, 0]), stop_s=1.0)
    assert data_hash(recording.bin(1.0)) == data_hash(recording.bin(10.0)) != data_hash(moved.bin(1.0))
