"""The compiled mesoscopic recursion against the readable one, closed forms, and the neuron-by-neuron network."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fitspike.kernels import mesoscopic
from fitspike.kernels.mesoscopic import Constants, reference
from fitspike.kernels.mesoscopic_filter import FilterNoise, run_filter
from fitspike.rng import Stream

PATTERN = np.array([[1.0, 0, -1], [0, 1, -1], [1, 1, -1]])  # [post, pre]: two excitatory populations that compete through the third


def constants(*, t_ref_s=0.004, delay_bins=0, n_ages=12, dt_s=0.004):
    return Constants(
        tau_s=[0.02, 0.021, 0.015],
        rest=[14.4, 14.0, 13.0],
        threshold=[3.7, 3.6, 3.5],
        coupling=PATTERN * np.array([9.9, 9.0, 19.0]),
        tau_syn_s=[0.003, 0.004, 0.006],
        n_neurons=[400, 300, 200],
        dt_s=dt_s,
        t_ref_s=t_ref_s,
        delay_bins=delay_bins,
        n_ages=n_ages,
    )


def trial(n_bins, seed=0):
    generator = np.random.default_rng(seed)
    fractions = np.abs(generator.normal(0.06, 0.02, (n_bins, 3))) + 1e-4
    spikes = (generator.random((n_bins, 6)) < 0.06).astype(float)
    return fractions, spikes, np.array([0, 0, 1, 1, 2, 2]), generator.normal(0, 20, (n_bins, 3))


def torch_log_prob(fractions, spikes, membership, drive, c, first_bin):
    leaves = [torch.tensor(x, requires_grad=True) for x in (fractions[None], drive[None], c.tau_s, c.rest, c.threshold, c.coupling)]
    population = reference.Population(leaves[2], leaves[3], leaves[4], leaves[5], torch.tensor(c.tau_syn_s), torch.tensor(c.n_neurons))
    grid = reference.Grid(c.dt_s, c.n_ages, c.t_ref_s, c.delay_bins)
    parts = reference.log_prob(
        leaves[0], torch.tensor(spikes)[None], torch.tensor(membership), leaves[1], population, grid, first_bin=first_bin
    )
    return parts, leaves


@pytest.mark.parametrize("t_ref_s, delay_bins", [(0.004, 0), (0.005, 1), (0.002, 0), (0.009, 2)])
def test_value_and_adjoint_equal_autograd_of_the_reference(t_ref_s, delay_bins):
    c = constants(t_ref_s=t_ref_s, delay_bins=delay_bins)
    data = trial(90)
    (log_fractions, log_spikes), leaves = torch_log_prob(*data, c, first_bin=20)
    (log_fractions + log_spikes).sum().backward()
    value_fractions, value_spikes, gradient = mesoscopic.log_prob(*data, c, first_bin=20)
    assert value_fractions == pytest.approx(log_fractions.item(), rel=1e-12)
    assert value_spikes == pytest.approx(log_spikes.item(), rel=1e-12)
    for leaf, name in zip(leaves, ("fractions", "drive", "tau_s", "rest", "threshold", "coupling"), strict=True):
        expected = leaf.grad.numpy().reshape(getattr(gradient, name).shape)
        np.testing.assert_allclose(getattr(gradient, name), expected, atol=1e-11 * np.abs(expected).max())


def test_adjoint_equals_central_differences():
    c, (fractions, spikes, membership, drive) = constants(), trial(60, seed=3)
    generator = np.random.default_rng(5)
    _, _, gradient = mesoscopic.log_prob(fractions, spikes, membership, drive, c)
    for name in ("tau_s", "rest", "threshold", "coupling"):
        value = getattr(c, name)
        direction = generator.normal(size=value.shape)
        step = 1e-6 * np.abs(value).max()
        ends = []
        for sign in (1, -1):
            moved = Constants(**{**c.__dict__, name: value + sign * step * direction})
            ends.append(sum(mesoscopic.log_prob(fractions, spikes, membership, drive, moved, with_gradient=False)[:2]))
        assert (ends[0] - ends[1]) / (2 * step) == pytest.approx((getattr(gradient, name) * direction).sum(), rel=1e-6)


def test_gradient_at_held_innovations_equals_differences_of_replays():
    """The same noise under moved constants: simulate again, then score the observed spikes."""
    c = constants(n_ages=30)
    generator = np.random.default_rng(0)
    normals, given, drive = generator.standard_normal((600, 3)), np.full((100, 3), 0.05), generator.normal(0, 20, (600, 3))
    spikes, membership = (generator.random((600, 9)) < 0.05).astype(float), np.repeat(np.arange(3), 3)

    def replayed(c):
        path = mesoscopic.simulate(drive, c, normals, given=given).fractions
        return path, mesoscopic.log_prob(path, spikes, membership, drive, c, first_bin=100, with_gradient=False)[1]

    found = mesoscopic.log_prob(replayed(c)[0], spikes, membership, drive, c, first_bin=100, hold_innovations=True)[2]
    for name, step in (("rest", 1e-6), ("threshold", 1e-6), ("tau_s", 1e-9), ("coupling", 1e-6)):
        value, gradient = getattr(c, name), getattr(found, name)
        for at in np.ndindex(value.shape):
            moved = np.zeros(value.shape)
            moved[at] = step
            ends = [replayed(replace(c, **{name: value + sign * moved}))[1] for sign in (1, -1)]
            # Central differences of a path of 500 stiff bins: the largest error seen is 4e-7 of the largest entry.
            assert (ends[0] - ends[1]) / (2 * step) == pytest.approx(gradient[at], abs=5e-6 * np.abs(gradient).max())


def test_simulation_in_two_stretches_continues_where_it_stopped():
    c = constants(n_ages=20, delay_bins=2)
    generator = np.random.default_rng(1)
    drive, normals, uniforms = generator.normal(0, 20, (300, 3)), generator.standard_normal((300, 3)), generator.random((300, 6))
    membership = np.repeat(np.arange(3), 2)
    whole = mesoscopic.simulate(drive, c, normals, membership=membership, uniforms=uniforms)
    state, parts = None, []
    for part in (slice(0, 77), slice(77, 300)):
        run = mesoscopic.simulate(drive[part], c, normals[part], membership=membership, uniforms=uniforms[part], state=state)
        state = run.state
        parts.append(run)
    for name in ("fractions", "expected", "spikes"):
        np.testing.assert_array_equal(np.concatenate([getattr(run, name) for run in parts]), getattr(whole, name))


def test_free_path_has_the_expectations_of_the_reference():
    c = constants(n_ages=12, t_ref_s=0.005, delay_bins=1)
    drive, normals = np.random.default_rng(2).normal(0, 20, (200, 3)), np.random.default_rng(3).standard_normal((200, 3))
    run = mesoscopic.simulate(drive, c, normals)
    population = reference.Population(*(torch.tensor(x) for x in (c.tau_s, c.rest, c.threshold, c.coupling, c.tau_syn_s, c.n_neurons)))
    grid = reference.Grid(c.dt_s, c.n_ages, c.t_ref_s, c.delay_bins)
    state = reference.initial_state(population, grid, 1)
    for t in range(200):
        found = reference.expect(state, torch.tensor(drive[[t]]), population, grid)
        # Fires are 1 - exp(-q) here and -expm1(-q) there: 1e-16 of the mass.
        np.testing.assert_allclose(run.expected[t], found.p[0], rtol=1e-11)
        state = reference.advance(state, found, torch.tensor(run.fractions[[t]]))


def test_mass_changes_only_by_what_fires_and_what_has_fired():
    c = constants()
    fractions, _, _, drive = trial(80, seed=2)
    population = reference.Population(
        *(torch.tensor(getattr(c, n)) for n in ("tau_s", "rest", "threshold", "coupling", "tau_syn_s", "n_neurons"))
    )
    grid = reference.Grid(c.dt_s, c.n_ages, c.t_ref_s, c.delay_bins)
    state = reference.initial_state(population, grid, 1)
    for fraction, push in zip(torch.tensor(fractions), torch.tensor(drive), strict=True):
        now = reference.expect(state, push[None], population, grid)
        state = reference.advance(state, now, fraction[None])
        after = (state.survival * state.fractions).sum(-1) + state.pool_mass
        torch.testing.assert_close(after, now.total_mass - now.firing_mass + fraction, atol=1e-12, rtol=0)


@pytest.mark.parametrize("rest, rate_hz", [(6.0, 6.734), (8.0, 17.036), (9.5, 24.092)])
def test_stationary_rate_is_one_over_the_mean_interval(rest, rate_hz):
    # Mean interval by numerical integration of the survivor function of the noise-free membrane, threshold 15/2.5 - ln 10.
    tau, threshold, t_ref = 0.02, 15 / 2.5 - np.log(10), 0.004
    age = np.arange(0, 3.0, 1e-5)
    hazard = np.exp(rest * (1 - np.exp(-age / tau)) - threshold)
    survivor = np.exp(-np.cumsum(hazard) * 1e-5)
    assert 1 / (t_ref + survivor.sum() * 1e-5) == pytest.approx(rate_hz, rel=1e-3)
    c = Constants([tau], [rest], [threshold], [[0.0]], [0.003], [5000], 0.004, t_ref)
    normals = Stream(1, "meso").numpy().standard_normal((20_000, 1))
    fractions = mesoscopic.simulate(np.zeros((20_000, 1)), c, normals).fractions
    # 80 s of 5000 neurons: the rate's standard error is below 0.1 %.
    assert fractions[500:].mean() / 0.004 == pytest.approx(rate_hz, rel=0.005)


def test_coupling_runs_from_the_second_index_to_the_first():
    coupling = np.array([[0.0, 0.0], [8.0, 0.0]])  # population 0 excites population 1
    c = Constants([0.02] * 2, [6.0] * 2, [15 / 2.5 - np.log(10)] * 2, coupling, [0.003] * 2, [2000] * 2, 0.004)
    fractions = mesoscopic.simulate(np.zeros((5000, 2)), c, Stream(0, "meso").numpy().standard_normal((5000, 2))).fractions
    rate = fractions[500:].mean(axis=0) / 0.004
    assert rate[0] == pytest.approx(6.734, rel=0.03)
    assert rate[1] > 1.3 * rate[0]


def test_observed_members_fire_at_the_rate_of_their_population():
    c = constants(n_ages=30)
    generator = Stream(2, "meso").numpy()
    n_bins, membership = 20_000, np.repeat(np.arange(3), 5)
    normals, uniforms = generator.standard_normal((n_bins, 3)), generator.random((n_bins, 15))
    run = mesoscopic.simulate(np.zeros((n_bins, 3)), c, normals, membership=membership, uniforms=uniforms)
    for m in range(3):
        # 80 s of 5 neurons: 4000 or more spikes, standard error below 2 %.
        assert run.spikes[:, membership == m].mean() == pytest.approx(run.fractions[:, m].mean(), rel=0.06)


def noise(name, n_bins, n_particles=50):
    return FilterNoise.draw(Stream(0, name).numpy(), n_bins, n_particles, 3)


def test_filter_in_two_stretches_continues_where_it_stopped():
    c = constants(n_ages=30)
    _, spikes, membership, drive = trial(120, seed=4)
    first = run_filter(spikes[:70], membership, drive[:70], c, noise("a", 70))
    second = run_filter(spikes[70:], membership, drive[70:], c, noise("b", len(spikes) - 70), state=first.state)
    many = [run_filter(spikes, membership, drive, c, noise(f"c{s}", len(spikes))).log_likelihood.sum() for s in range(8)]
    spread = max(np.std(many), 0.5)
    assert first.log_likelihood.sum() + second.log_likelihood.sum() == pytest.approx(np.mean(many), abs=5 * spread)


def test_filter_weighs_a_known_path_by_the_observed_spikes_alone():
    # With every fraction given but the last, all particles are one path and the filter's likelihood is that path's.
    c = constants(n_ages=30)
    fractions, spikes, membership, drive = trial(60, seed=6)
    run = run_filter(spikes, membership, drive, c, noise("a", 60, 20), given=fractions[:59])
    _, before, _ = mesoscopic.log_prob(fractions[:59], spikes[:59], membership, drive[:59], c, with_gradient=False)
    _, until_end, _ = mesoscopic.log_prob(fractions, spikes, membership, drive, c, with_gradient=False)
    assert run.log_likelihood[-1] == pytest.approx(until_end - before, rel=1e-9)


def test_neurons_that_are_not_clamped_do_not_weigh_particles_and_fire_as_predicted():
    """Ten neurons of three populations: dropping unclamped ones changes nothing for the rest; they fire at their predicted rate."""
    c = constants(n_ages=30)
    generator = np.random.default_rng(7)
    n_bins, membership = 2000, np.array([0, 0, 1, 1, 2, 2, 0, 1, 2, 2])
    spikes, drive, uniforms = (generator.random((n_bins, 10)) < 0.06).astype(float), np.zeros((n_bins, 3)), generator.random((n_bins, 10))
    clamped = np.arange(10) < 6
    draws = noise("a", n_bins)
    run = run_filter(spikes, membership, drive, c, draws, is_clamped=clamped, neuron_uniforms=uniforms)
    alone = run_filter(spikes[:, :6], membership[:6], drive, c, draws)
    np.testing.assert_array_equal(run.log_likelihood, alone.log_likelihood)
    np.testing.assert_array_equal(run.predicted[:, :6], alone.predicted)
    np.testing.assert_array_equal(run.spikes[:, :6], spikes[:, :6])
    expected = run.predicted[:, 6:].sum()
    # Renewal trains vary less than Poisson ones: five Poisson standard errors, fewer than one false alarm in two million.
    assert abs(run.spikes[:, 6:].sum() - expected) < 5 * np.sqrt(expected)


def test_filtered_mean_weighs_particles_by_the_spikes_so_far():
    c = constants()
    fractions, spikes, membership, drive = trial(40, seed=5)
    draws = noise("filtered", 40, 400)
    whole = run_filter(spikes, membership, drive, c, draws, given=fractions[:20])
    np.testing.assert_array_equal(whole.filtered[:20], fractions[:20])
    unweighted, n_weighted = whole.fractions.mean(axis=1), 0
    for t in range(22, 40):  # all particles are alike at the end of what is given
        part = FilterNoise(draws.normals[: t + 1], draws.uniforms[: t + 1])
        run = run_filter(spikes[: t + 1], membership, drive[: t + 1], c, part, given=fractions[:20])
        if not run.state.log_weight.any():
            continue  # particles of the last bin have been resampled, and their weights are gone
        n_weighted += 1
        weight = np.exp(run.state.log_weight)
        np.testing.assert_allclose(whole.filtered[t], weight @ whole.fractions[t] / weight.sum(), rtol=1e-12)
        assert not np.allclose(whole.filtered[t], unweighted[t], rtol=1e-6)
    assert n_weighted > 3
