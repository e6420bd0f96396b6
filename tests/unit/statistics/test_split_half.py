"""Agreement of two halves of the data, against hand-made halves and known noise."""

import numpy as np

from fitspike.recording.recording import Recording
from fitspike.statistics.split_half import halves_of, split_half_agreement
from fitspike.statistics.summary import SummarySettings, r_squared


def trials(n_trials, probability, seed=0):
    rng = np.random.default_rng(seed)
    return [(rng.random(probability.shape) < probability).astype(int) for _ in range(n_trials)]


def test_trials_of_each_condition_go_to_the_halves_in_turn():
    counts = trials(6, np.full((30, 2), 0.2))
    binned = Recording.from_counts(counts, dt_ms=5.0, conditions=["a", "b", "a", "a", "b", "a"]).bin()
    first, second = halves_of(binned)
    assert [first.trial_index.tolist(), second.trial_index.tolist()] == [[0, 1, 3], [2, 4, 5]]


def test_one_trial_is_cut_into_pieces_that_alternate():
    binned = Recording.from_counts(trials(1, np.full((200, 2), 0.2))[0], dt_ms=5.0).bin()
    first, second = halves_of(binned)
    assert first.n_bins_total == second.n_bins_total == 100
    np.testing.assert_array_equal(first.dense_numpy()[1], binned.dense_numpy()[0, 20:30])
    assert first.n_spikes + second.n_spikes == binned.n_spikes


def test_agreement_is_that_of_the_two_means():
    probability = np.linspace(0.05, 0.5, 40)[:, None] * np.array([1.0, 0.3, 0.6])
    binned = Recording.from_counts(trials(40, probability), dt_ms=10.0, conditions=["a"] * 40).bin()
    found = split_half_agreement(binned, SummarySettings(psth_window_ms=10.0))
    z = binned.dense_numpy(dtype="float64")
    assert abs(found["psth_r2"] - r_squared(z[::2].mean(0), z[1::2].mean(0))) < 1e-6
    assert abs(found["rate_r2"] - r_squared(z[::2].mean((0, 1)), z[1::2].mean((0, 1)))) < 1e-9
