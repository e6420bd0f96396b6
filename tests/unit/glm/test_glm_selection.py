"""Settings chosen by cross-validation: couplings where there are some, none where there are none, and only on the data given."""

import numpy as np
import pytest

from fitspike import Recording
from fitspike.errors import InvalidInputError
from fitspike.models.base import SolverContext
from fitspike.models.coupled_glm import CoupledGLM
from fitspike.models.glm_folds import make_folds, thinned
from fitspike.models.glm_solver import solve
from fitspike.params import initial_params
from fitspike.rng import Stream


def simulated(*, coupled, n_bins=6000, n=4, seed=0):
    """Return Poisson counts (n_bins, n); with `coupled`, neuron 0 raises the rate of neuron 1 eightfold in the next bin."""
    generator = np.random.default_rng(seed)
    counts = np.zeros((n_bins, n), dtype=int)
    for t in range(n_bins):
        rate = np.full(n, 0.08)
        if coupled and t and counts[t - 1, 0]:
            rate[1] *= 8.0
        counts[t] = generator.poisson(rate)
    return Recording.from_counts(counts, dt_ms=10.0)


def selected(recording, **settings):
    model = CoupledGLM(**settings)
    binned = recording.bin()
    return model.select(binned, SolverContext(init={}, stream=Stream(0, "select")))


def test_couplings_are_chosen_where_they_predict_held_out_spikes():
    chosen, table = selected(simulated(coupled=True))
    assert chosen.coupling_ms > 0
    assert not chosen.open_settings()
    taken = [row for row in table["rows"] if row["taken"]]
    assert taken[-1]["bits_per_spike"] > 0.05


def test_independent_neurons_get_no_couplings_or_strongly_held_ones():
    chosen, _ = selected(simulated(coupled=False))
    assert chosen.coupling_ms == 0 or chosen.ridge_coupling >= 30


def test_what_the_user_sets_is_kept():
    chosen, table = selected(simulated(coupled=True), coupling_ms=30.0, ridge_coupling=7.0, history_ms=50.0)
    assert (chosen.coupling_ms, chosen.ridge_coupling, chosen.history_ms) == (30.0, 7.0, 50.0)
    assert "coupling_ms" not in table["chosen"]


def test_choice_is_the_same_every_time():
    first, second = (selected(simulated(coupled=True, n_bins=2000))[1]["rows"] for _ in range(2))
    assert [row["bits_per_spike"] for row in first] == [row["bits_per_spike"] for row in second]


@pytest.mark.parametrize("n", [1, 2])
def test_few_neurons(n):
    chosen, _ = selected(simulated(coupled=False, n_bins=1500, n=n))
    assert chosen.coupling_ms == 0 or n > 1


def test_any_ceiling_of_the_user_is_scored():
    chosen, table = selected(simulated(coupled=False, n_bins=1500), coupling_ms=0.0, ceiling=0.95)
    assert chosen.ceiling == 0.95
    assert all(np.isfinite(row["bits_per_spike"]) for row in table["rows"])


def test_a_neuron_with_a_spike_in_every_bin_leaves_scores_finite():
    counts = np.minimum(simulated(coupled=False, n_bins=1500, n=3).bin().dense_numpy()[0], 1)
    counts[:, 0] = 1
    _, table = selected(Recording.from_counts(counts, dt_ms=10.0), emission="bernoulli")
    assert all(np.isfinite(row["bits_per_spike"]) for row in table["rows"])


def test_exponential_filters_share_the_window_that_is_chosen_first():
    chosen, _ = selected(simulated(coupled=True, n_bins=3000), basis="exponential")
    assert chosen.coupling_ms > 0
    windows = {chosen.coupling_ms, chosen.history_ms, chosen.population_ms} - {0.0}
    assert len(windows) == 1


def test_fast_modulation_over_the_trial_gets_many_bumps():
    """A rate that goes up and down ten times in a trial is beyond ten bumps, and within reach of forty."""
    generator = np.random.default_rng(1)
    rate = 0.4 + 0.35 * np.sin(2 * np.pi * 10 * np.arange(200) / 200)
    counts = generator.poisson(np.broadcast_to(rate[:, None], (60, 200, 2)))
    chosen, table = selected(Recording.from_counts(counts, dt_ms=5.0), history_ms=0.0, coupling_ms=0.0, population_ms=0.0)
    assert chosen.trial_time and chosen.n_time_bumps == 40
    tried = [row["settings"] for row in table["rows"] if row["stage"] == "time bumps"]
    assert tried == [{"n_time_bumps": n} for n in (10, 20, 40)]


def test_too_few_bins_to_choose_on_say_what_to_do():
    with pytest.raises(InvalidInputError, match="15 training bins.*--no-selection"):
        selected(Recording.from_counts(np.ones((15, 2), dtype=int), dt_ms=10.0))


def test_a_part_of_many_trials_has_all_conditions_alike():
    conditions = ["a", "b", "c", "d"] * 24
    recording = Recording.from_counts(np.ones((96, 40, 2), dtype=int), dt_ms=10.0, conditions=conditions)
    for factor, n_kept in ((4.0, 24), (12.0, 8)):
        part = thinned(recording.bin(), factor)
        assert np.bincount(part.conditions).tolist() == [n_kept // 4] * 4
    few = thinned(recording.bin().select_trials(range(4)), 2.0)
    assert int(few.trial_bin.max()) >= 30  # stretches from all over a trial, not only its beginning


def test_some_targets_stand_for_many_neurons_from_slow_to_fast_ones():
    generator = np.random.default_rng(3)
    mean = np.r_[0.0, np.geomspace(0.02, 1.0, 99)]  # one neuron never fires
    binned = Recording.from_counts(generator.poisson(mean, (600, 100)), dt_ms=10.0).bin()
    folds = make_folds(binned, lags=1, n_weights=100_000)
    assert len(folds.targets) == 32 and "32 of 100 neurons" in folds.description
    assert 0 not in folds.targets and folds.targets.max() >= 95 and folds.targets.min() <= 5
    assert len(make_folds(binned, lags=1, n_weights=300).targets) == 100


def test_a_fit_of_some_targets_gives_the_weights_of_the_whole_fit():
    binned = simulated(coupled=True, n_bins=2000).bin()
    model = CoupledGLM(history_ms=50.0, coupling_ms=50.0, standard_errors=False, stabilise="off").resolved(binned.info())
    init = initial_params(model.param_specs(binned.info()), Stream(0, "init"))
    context = SolverContext(init=init, stream=Stream(0, "fit"))
    whole, some = solve(model, binned, context)[0], solve(model, binned, context, targets=np.array([1, 3]))[0]
    for name in ("bias", "history", "coupling"):
        np.testing.assert_allclose(some[name][[1, 3]], whole[name][[1, 3]], atol=1e-9)
        np.testing.assert_array_equal(some[name][[0, 2]], init[name][[0, 2]])
