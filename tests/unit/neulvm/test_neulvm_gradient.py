"""The top of the marginal likelihood from gradients with a known truth, and the joint log-probability as torch sees it."""

import numpy as np
import pytest
import torch

from fitspike.kernels.mesoscopic import Constants, simulate
from fitspike.models.neulvm import marginal_gradient
from fitspike.models.neulvm.joint import JointLogProb
from fitspike.models.neulvm.latents import Piece, Problem, maximise_joint, smoothed_guess
from fitspike.models.neulvm.marginal_gradient import Gradients, fit_top
from fitspike.models.neulvm.populations import FreeSet
from fitspike.rng import Stream


def gradients(top, information, sd_fixed, sd_held, *, n=400, seed=0, scale=0.012, outliers=0.0):
    """Return gradients information (top - point) plus noise of different sizes in both kinds."""
    rng = np.random.default_rng(seed)
    points = rng.normal(0, scale, (n, len(top)))
    mean = (top - points) @ information
    noise = [rng.normal(0, 1, points.shape) * sd for sd in (sd_fixed, sd_held)]
    far = rng.random(n) < outliers
    noise[1][far] += 50 * np.asarray(sd_held) * rng.choice([-1, 1], (far.sum(), len(top)))
    return Gradients(points, mean + noise[0], mean + noise[1], np.zeros(n))


INFORMATION = np.array([[30_000.0, 5_000.0, -20_000.0], [5_000.0, 30_000.0, -20_000.0], [-20_000.0, -20_000.0, 100_000.0]])


@pytest.mark.parametrize("outliers", [0.0, 0.1])
def test_top_and_information_are_found_from_the_more_precise_gradient_of_each_direction(outliers):
    top, scale = np.array([0.01, -0.005, 0.008]), np.full(3, 0.012)
    sd_fixed, sd_held = np.array([300.0, 300.0, 3000.0]), np.array([3000.0, 3000.0, 60.0])
    found = gradients(top, INFORMATION, sd_fixed, sd_held, outliers=outliers)
    estimate = fit_top(found, scale, np.zeros(3))
    # What the best single gradient of each direction gives: its noise over root n, through the inverse information.
    expected_sd = np.sqrt(
        np.diag(np.linalg.inv(INFORMATION) @ np.diag(np.minimum(sd_fixed, sd_held) ** 2 / 400) @ np.linalg.inv(INFORMATION))
    )
    np.testing.assert_array_less(np.abs(estimate.vector - top), 5 * expected_sd)
    assert (estimate.monte_carlo_sd < 3 * expected_sd).all()
    np.testing.assert_allclose(estimate.information, INFORMATION, atol=0.1 * INFORMATION.max())
    standard = np.sqrt(np.diag(np.linalg.inv(INFORMATION)))
    np.testing.assert_allclose(estimate.sd, standard, rtol=0.15)
    assert estimate.directions == ()


def test_direction_without_information_is_named_and_not_moved_along():
    information = np.diag([40_000.0, 0.0])
    found = gradients(np.array([0.01, 0.3]), information, np.array([200.0, 0.5]), np.array([400.0, 0.5]))
    estimate = fit_top(found, np.full(2, 0.012), np.array([0.0, 0.002]))
    assert estimate.vector[0] == pytest.approx(0.01, abs=0.002) and estimate.vector[1] == pytest.approx(0.002, abs=1e-4)
    assert np.isnan(estimate.sd[1]) and estimate.sd[0] == pytest.approx(0.005, rel=0.1)
    ((sd, weights),) = estimate.directions
    assert sd > 0.3 and abs(weights[1]) == pytest.approx(1.0, abs=1e-3)


def test_points_without_a_finite_gradient_are_left_out():
    top = np.array([0.004, 0.002, -0.003])
    found = gradients(top, INFORMATION, np.full(3, 50.0), np.full(3, 50.0))
    found.fixed[7, 1] = np.nan
    found.held[9, 0] = np.inf
    np.testing.assert_allclose(fit_top(found, np.full(3, 0.012), np.zeros(3)).vector, top, atol=1e-3)


def small_constants(coupling=((4.0, -6.0), (5.0, -2.0))):
    return Constants([0.02, 0.015], [9.0, 8.5], [3.7, 3.6], coupling, [0.003, 0.004], [200, 100], 0.004, n_ages=25)


def test_joint_log_probability_has_the_derivatives_of_finite_differences():
    c, membership = small_constants(), np.array([0, 0, 1])
    rng = np.random.default_rng(0)
    drive = np.zeros((60, 2))
    path = simulate(drive, c, rng.standard_normal((60, 2)), given=np.full((10, 2), 0.06)).fractions
    spikes = (rng.random((60, 3)) < 0.06).astype(float)
    leaves = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (path, c.tau_s, c.rest, c.threshold, c.coupling)]

    def joint(*values):
        moved = Constants(*(v.detach().numpy() for v in values[1:]), c.tau_syn_s, c.n_neurons, c.dt_s, n_ages=25)
        return JointLogProb.apply(*values, moved, spikes, membership, drive, 10)

    assert torch.autograd.gradcheck(joint, leaves, eps=1e-7, atol=1e-3, rtol=1e-5)


def test_swapping_populations_swaps_the_estimate():
    c = small_constants()
    rng = np.random.default_rng(1)
    path = simulate(np.zeros((400, 2)), c, rng.standard_normal((400, 2))).fractions
    spikes = (rng.random((400, 4)) < 0.06).astype(float)
    membership, pattern = np.array([0, 0, 1, 1]), np.sign(c.coupling)
    swap = [1, 0]
    swapped = Constants(*(getattr(c, name)[swap] for name in ("tau_s", "rest", "threshold")), c.coupling[np.ix_(swap, swap)],
                        c.tau_syn_s[swap], c.n_neurons[swap], c.dt_s, n_ages=25)  # fmt: skip
    found = []
    for constants, members, signs, z in (
        (c, membership, pattern, path),
        (swapped, 1 - membership, pattern[np.ix_(swap, swap)], path[:, swap]),
    ):
        guess = smoothed_guess(spikes, members, 2, 0.1, c.dt_s)
        problem = Problem((Piece(spikes, np.zeros((400, 2)), 50, guess),), members, FreeSet(signs), constants)
        found.append(maximise_joint(np.log([4.0, 4.0]), problem, [z[None]], max_iterations=100)[0])
    np.testing.assert_allclose(found[0], found[1][swap], atol=1e-4)


def test_fractions_of_a_huge_population_are_its_expectation():
    """With ten million neurons and no coupling the rate is one over the mean interval: 17.036 Hz at a rest of 8 (see science tests)."""
    c = Constants([0.02], [8.0], [6.0 - np.log(10.0)], [[0.0]], [0.003], [1e7], 0.001)
    run = simulate(np.zeros((3000, 1)), c, Stream(0, "large").numpy().standard_normal((3000, 1)))
    settled = run.fractions[1000:, 0]
    assert settled.mean() / 0.001 == pytest.approx(17.036, rel=0.005) and settled.std() < 0.01 * settled.mean()


def test_climb_that_is_out_of_time_after_a_round_measures_no_more(monkeypatch):
    measured = []

    def measure(problem, points, streams, *, n_particles, threads):
        measured.append(len(points))
        noise = np.random.default_rng(len(measured)).standard_normal((2, *points.shape))
        return marginal_gradient.Gradients(points, 1e4 * (1.0 - points) + noise[0], 1e4 * (1.0 - points) + noise[1], np.zeros(len(points)))

    monkeypatch.setattr(marginal_gradient, "measure", measure)
    base = Constants([0.02], [9.0], [3.7], [[1.0]], [0.003], [100], 0.004)
    problem = Problem((), np.zeros(1, dtype=np.int64), FreeSet(np.ones((1, 1))), base)
    settings = marginal_gradient.ClimbSettings(n_points=4, n_rounds=3)
    estimate, found = marginal_gradient.climb(
        problem, np.array([0.98]), settings, Stream(0, "climb"), out_of_time=lambda: sum(measured) >= 4
    )
    assert sum(measured) == len(found.points) == 4
    assert estimate.vector[0] == pytest.approx(1.0, abs=1e-3)  # the round that was measured in full counts
