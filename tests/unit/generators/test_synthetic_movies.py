"""Networks that see one movie in every trial, against their own equations and the sizes that their settings say."""

from dataclasses import replace

import numpy as np
import pytest
from fitspike_datasets.generators_movie import MovieNetwork
from fitspike_datasets.generators_v1_like import DisynapticMovie, HiddenAssembliesMovie, SlowNoiseMovie
from scipy.special import expit, log_expit

from fitspike.datasets.base import Dataset
from fitspike.errors import InvalidInputError
from fitspike.rng import Stream

SMALL = {
    "slow noise": SlowNoiseMovie(n_neurons=12, n_train=30, n_test=10, n_bins=80),
    "assemblies": HiddenAssembliesMovie(n_neurons=12, n_train=30, n_test=10, n_bins=80),
    "feedforward": DisynapticMovie(n_neurons=12, n_hidden=6, connection_probability=0.6, n_train=30, n_test=10, n_bins=80),
    "feedback": DisynapticMovie(motif="feedback", n_neurons=12, n_hidden=6, connection_probability=0.6, n_train=30, n_test=10, n_bins=80),
}
each_small = pytest.mark.parametrize("dataset", SMALL.values(), ids=SMALL)


def dense(recording):
    return np.asarray(recording.bin().dense_numpy(), dtype=np.float64)  # (n_trials, n_bins, n_neurons)


def noise_correlations(spikes):
    """Return the correlations of pairs about the trial mean of each bin, over the neurons' total standard deviations."""
    n_trials, n_bins, n = spikes.shape
    deviation = (spikes - spikes.mean(0)).reshape(-1, n)
    sd = spikes.reshape(-1, n).std(0)
    return (deviation.T @ deviation / (n_bins * (n_trials - 1)) / np.outer(sd, sd))[np.tril_indices(n, -1)]


@each_small
def test_trials_say_which_are_for_fitting_and_share_the_stimulus(dataset):
    assert isinstance(dataset, Dataset)
    recording, truth = dataset.load(seed=1), dataset.truth(seed=1)
    assert recording.trials.column("part").tolist() == ["train"] * 30 + ["test"] * 10
    assert set(recording.trials.conditions) == {"movie"}
    assert dataset.describe().settings[""]["split"] == "trial:test=30-39"
    binned = recording.bin()
    stimulus = truth.values["stimulus"]
    for trial in (0, 39):
        np.testing.assert_allclose(binned.signal_values("stimulus", trial * 80, trial * 80 + 80), stimulus, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(stimulus.mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(stimulus.std(0), 1)
    # White noise under a Gaussian of sd s has the correlation exp(-1 / (4 s^2)) between neighbours: 0.94 for 2 bins.
    assert np.mean([np.corrcoef(x[1:], x[:-1])[0, 1] for x in stimulus.T]) == pytest.approx(np.exp(-1 / 16), abs=0.03)


@each_small
def test_trial_seed_gives_fresh_trials_of_the_same_network(dataset):
    spikes, again = dense(dataset.load(seed=1)), dense(dataset.load(seed=1))
    np.testing.assert_array_equal(spikes, again)
    fresh = replace(dataset, trial_seed=1)
    assert (dense(fresh.load(seed=1)) != spikes).any()
    truth, fresh_truth = dataset.truth(seed=1).values, fresh.truth(seed=1).values
    for name, value in truth.items():
        np.testing.assert_array_equal(fresh_truth[name], value, err_msg=name)
    assert (dataset.truth(seed=2).values["coupling"] != truth["coupling"]).any()
    # More trials are further trials.
    np.testing.assert_array_equal(dense(replace(dataset, n_test=20).load(seed=1))[:40], spikes)


@each_small
def test_recorded_hidden_neurons_come_after_the_same_visible_ones(dataset):
    spikes, everything = dense(dataset.load(seed=1)), dense(replace(dataset, record_hidden=True).load(seed=1))
    truth, full = dataset.truth(seed=1), replace(dataset, record_hidden=True).truth(seed=1)
    np.testing.assert_array_equal(everything[..., :12], spikes)
    n_hidden = everything.shape[2] - 12
    assert n_hidden == {"slow-noise-movie": 0, "hidden-assemblies-movie": 40}.get(dataset.name, getattr(dataset, "n_hidden", 0))
    values = truth.values
    rows = (
        np.concatenate([values["coupling"], values["coupling_from_hidden"]], axis=1),
        np.concatenate([values["coupling_to_hidden"], values["coupling_among_hidden"]], axis=1),
    )
    np.testing.assert_array_equal(full.values["coupling"], np.concatenate(rows))
    np.testing.assert_array_equal(full.values["bias"], np.concatenate([values["bias"], values["hidden_bias"]]))


@pytest.mark.parametrize("name", ["assemblies", "feedforward", "feedback"])
def test_spikes_follow_the_equation_with_post_before_pre(name):
    """The log-odds computed from the truth with plain loops over all neurons fit the spikes; those of the transposed truth do not."""
    dataset = replace(SMALL[name], record_hidden=True)
    spikes, truth = dense(dataset.load(seed=3)), dataset.truth(seed=3).values

    def log_likelihood(coupling):
        drive = np.broadcast_to(truth["bias"] + truth["stimulus"] @ truth["stimulus_weight"].T, spikes.shape).copy()
        for lag in range(coupling.shape[2]):
            for post, pre in np.argwhere(coupling[..., lag]):
                drive[:, lag + 1 :, post] += coupling[post, pre, lag] * spikes[:, : -lag - 1, pre]
        prob = expit(drive)
        mean = (prob * log_expit(drive) + (1 - prob) * log_expit(-drive)).sum()
        sd = np.sqrt((prob * (1 - prob) * drive**2).sum())
        return np.where(spikes > 0, log_expit(drive), log_expit(-drive)).sum(), mean, sd

    found, expected, sd = log_likelihood(truth["coupling"])
    assert abs(found - expected) < 4 * sd  # given the past, log-likelihoods of bins add up: false alarm 1 in 16,000
    found, expected, sd = log_likelihood(truth["coupling"].transpose(1, 0, 2))
    assert found < expected - 10 * sd


def test_trials_equal_a_hand_count_without_chance():
    """A neuron far above threshold once, a chain with a delay of two bins, and one that is never reached."""
    coupling = np.zeros((3, 3, 2))
    coupling[1, 0, 1] = 2000.0  # post 1, pre 0, two bins later
    coupling[0, 0, 0] = -4000.0
    coupling[0, 0, 1] = -4000.0
    network = MovieNetwork(3, coupling, np.array([[2000.0], [0.0], [0.0]]), np.zeros((3, 0)), 0.0, np.full(3, 0.1), ("", "", ""))
    stimulus = np.array([[0.0], [1.0], [1.0], [1.0], [1.0], [1.0]])
    spikes = network.trials(np.full(3, -1000.0), stimulus, 2, Stream(0, "test"))
    expected = np.array([[0, 1, 0, 0, 1, 0], [0, 0, 0, 1, 0, 0], [0, 0, 0, 0, 0, 0]], dtype=bool).T
    np.testing.assert_array_equal(spikes, np.stack([expected, expected]))


def test_latents_are_stationary_and_slow():
    loading = np.zeros((3, 2))
    network = MovieNetwork(3, np.zeros((3, 3, 1)), np.zeros((3, 1)), loading, 0.9, np.full(3, 0.1), ("", "", ""))
    latents = network._latents(4000, 60, Stream(0, "latents"))
    for at in (0, 59):
        np.testing.assert_allclose(latents[:, at].std(0), 1, atol=4 / np.sqrt(2 * 4000))
    lagged = (latents[:, 1:] * latents[:, :-1]).mean((0, 1))
    np.testing.assert_allclose(lagged, 0.9, atol=0.02)
    assert abs((latents[..., 0] * latents[..., 1]).mean()) < 0.03  # about 4 standard errors of 4000 x 60 / 19 independent values


@pytest.mark.parametrize("dataset", [SlowNoiseMovie(), HiddenAssembliesMovie(), DisynapticMovie()], ids=lambda one: one.name)
def test_rates_come_near_their_targets(dataset):
    dataset = replace(dataset, record_hidden=True)
    truth = dataset.truth(seed=4).values["target_rate_hz"]
    rates = dense(dataset.load(seed=4)).mean((0, 1)) / 0.04
    assert rates.mean() == pytest.approx(truth.mean(), rel=0.05)
    assert np.median(np.abs(rates / truth - 1)) < 0.05
    visible = truth[:40]
    base = dataset.rate_hz
    assert 0.4 * base <= visible.min() and visible.max() <= 2.5 * base
    assert np.log(visible).std() == pytest.approx(dataset.rate_spread, rel=0.4)


def test_couplings_keep_dales_law_and_their_sizes():
    dataset = SlowNoiseMovie(n_neurons=200, n_train=1, n_test=0, n_bins=20, n_features=2, latent_weight=0.0, coupling_weight=1.0)
    stream = Stream(0, "sizes")
    weight, sign = dataset.draw_weight(stream)
    assert np.count_nonzero(sign < 0) == 40 and not np.diag(weight).any()
    assert (np.sign(weight) * sign >= 0).all()  # columns are presynaptic
    assert not (np.sign(weight).T * sign >= 0).all()
    assert np.count_nonzero(weight) / (200 * 199) == pytest.approx(0.2, abs=4 * np.sqrt(0.16 / 39800))
    half_normal = np.sqrt(2 / np.pi) / np.sqrt(40)
    excitatory, inhibitory = weight[:, sign > 0], weight[:, sign < 0]
    assert excitatory[excitatory != 0].mean() == pytest.approx(half_normal, rel=0.05)
    assert inhibitory[inhibitory != 0].mean() == pytest.approx(-1.5 * half_normal, rel=0.1)
    coupling = dataset.over_lags(weight)
    off = ~np.eye(200, dtype=bool)
    np.testing.assert_allclose(coupling.sum(2)[off], weight[off], atol=1e-12)
    post, pre = np.argwhere(weight)[0]
    np.testing.assert_allclose(coupling[post, pre, 1:] / coupling[post, pre, :-1], np.exp(-0.5))
    np.testing.assert_allclose(coupling[7, 7], -1.5 * np.exp(-np.arange(4.0)))


def test_slow_noise_makes_the_noise_correlations_of_the_benchmark():
    """The recipe these settings follow names a mean noise correlation of 0.07 to 0.11 and a spread of 0.10 to 0.13 over pairs."""
    found = [noise_correlations(dense(SlowNoiseMovie(n_train=100, n_test=0).load(seed=seed))) for seed in range(4)]
    assert 0.07 <= np.mean([one.mean() for one in found]) <= 0.11
    assert 0.10 <= np.mean([one.std() for one in found]) <= 0.13
    without = SlowNoiseMovie(n_train=100, n_test=0, latent_weight=0.0, coupling_weight=0.0).load(seed=0)
    assert abs(noise_correlations(dense(without)).mean()) < 4 / np.sqrt(780 * 100 * 200)


def test_blocks_are_wired_as_the_motif_says():
    truth = DisynapticMovie(record_hidden=True, n_train=1, n_test=0).truth(seed=5).weight
    a, b, h = np.arange(20), np.arange(20, 40), np.arange(40, 55)
    for post, pre, total in ((a, a, 2.0), (b, b, 2.0), (h, a, 14.0), (b, h, -12.0)):
        block = truth[np.ix_(post, pre)]
        assert block.sum(1).mean() == pytest.approx(total, rel=0.25)
        assert len(np.unique(np.sign(block[block != 0]))) == 1
        assert np.count_nonzero(block) / block.size == pytest.approx(0.3, abs=0.1)
    for post, pre in ((b, a), (a, b), (a, h), (h, b), (h, h)):
        assert not truth[np.ix_(post, pre)].any()


def test_assemblies_excite_themselves_and_reach_visible_neurons_as_a_whole():
    values = HiddenAssembliesMovie(n_train=1, n_test=0).truth(seed=5).values
    among = values["coupling_among_hidden"].sum(2)
    same = np.kron(np.eye(2), np.ones((20, 20))) - np.eye(40)
    np.testing.assert_allclose(among[same > 0], 0.95 / (20 * 0.12))
    assert not among[(same == 0) & ~np.eye(40, dtype=bool)].any()
    assert not values["coupling_to_hidden"].any()
    reach = values["coupling_from_hidden"].sum(2).reshape(40, 2, 20)
    np.testing.assert_array_equal(reach, reach[..., :1].repeat(20, axis=2))
    total = np.abs(reach.sum(2))
    assert ((total == 0) | ((total >= 4 - 1e-9) & (total <= 12 + 1e-9))).all()
    assert 0.4 < (total > 0).mean() < 0.8


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: SlowNoiseMovie(n_neurons=1, latent_absent=2.0), "2 problems"),
        (lambda: SlowNoiseMovie(latent_persistence=1.0), "latent_persistence=1.0"),
        (lambda: HiddenAssembliesMovie(rate_hz=20.0), "0.3 spikes per bin"),
        (lambda: DisynapticMovie(motif="feedbak"), "feedforward or feedback"),
        (lambda: HiddenAssembliesMovie(n_neurons=4, assembly_gain=2.0, n_bins=50, n_train=1).truth(), "does not settle"),
    ],
)
def test_wrong_settings_are_refused(make, match):
    with pytest.raises(InvalidInputError, match=match):
        make()
