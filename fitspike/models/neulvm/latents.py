"""The population activities behind the recorded spikes: pieces of trials, a first guess, sampled paths, and the joint objective."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.optimize import minimize

from fitspike.kernels.mesoscopic import Constants, log_prob
from fitspike.kernels.mesoscopic_filter import FilterNoise, run_filter
from fitspike.models.neulvm.populations import FreeSet
from fitspike.rng import Stream

FRACTION_FLOOR = 1e-5


@dataclass(frozen=True, eq=False)
class Piece:
    """Consecutive bins of one trial as the model sees them.

    spikes (n_bins, n_observed), 0 or 1; drive_per_s (n_bins, n_populations) external input, du/dt; n_history: first bins, whose
    population activity is taken from smoothed spikes and which are not scored; guess (n_bins, n_populations): smoothed fraction of the
    observed neurons that fires per bin; trial, first_bin: where the piece lies in the data.
    """

    spikes: np.ndarray
    drive_per_s: np.ndarray
    n_history: int
    guess: np.ndarray
    trial: int = 0
    first_bin: int = 0


@dataclass(frozen=True, eq=False)
class Problem:
    """What is fitted: pieces of trials, which population each observed neuron belongs to (n_observed,), and what is free.

    base holds the constants that are not free.
    """

    pieces: tuple[Piece, ...]
    membership: np.ndarray
    free: FreeSet
    base: Constants

    def with_membership(self, membership: np.ndarray, smoothing_s: float) -> Problem:
        """Return the problem with other memberships and the guesses that follow from them."""
        pieces = tuple(
            replace(piece, guess=smoothed_guess(piece.spikes, membership, len(self.base.tau_s), smoothing_s, self.base.dt_s))
            for piece in self.pieces
        )
        return replace(self, pieces=pieces, membership=membership)


def smoothed_guess(spikes: np.ndarray, membership: np.ndarray, n_populations: int, smoothing_s: float, dt_s: float) -> np.ndarray:
    """Return each population's mean observed spike count per bin, smoothed by a Gaussian of sd `smoothing_s`, (n_bins, n_populations).

    An unobserved population gets the mean of all observed neurons.
    """
    guess = np.empty((len(spikes), n_populations))
    for m in range(n_populations):
        members = spikes[:, membership == m] if (membership == m).any() else spikes
        guess[:, m] = gaussian_filter1d(members.mean(axis=1), smoothing_s / dt_s, mode="reflect")
    return np.maximum(guess, FRACTION_FLOOR)


def draw_paths(
    problem: Problem, constants: Constants, stream: Stream, *, n_particles: int
) -> list[tuple[float, np.ndarray, np.ndarray, np.ndarray]]:
    """Return for each piece its log-likelihood, and one activity drawn given the spikes, their mean and their sd.

    Activities are fractions of the population that fire per bin, (n_bins, n_populations).
    """
    found = []
    for number, piece in enumerate(problem.pieces):
        generator = stream.child(f"piece-{number}").numpy()
        given = piece.guess[: piece.n_history]
        noise = FilterNoise.draw(generator, len(piece.spikes), n_particles, len(constants.tau_s))
        run = run_filter(piece.spikes, problem.membership, piece.drive_per_s, constants, noise, given=given)
        paths, mean, sd = run.smoothed(generator, 1)
        found.append((float(run.log_likelihood.sum()), paths[0], mean, sd))
    return found


def draw_many(
    problem: Problem, constants: Constants, stream: Stream, *, n_paths: int, n_particles: int, threads: int
) -> tuple[float, list[np.ndarray]]:
    """Return the mean log-likelihood of `n_paths` independent filters and, per piece, one path of each, (n_paths, n_bins, M)."""
    with ThreadPoolExecutor(max(1, threads)) as pool:
        streams = [stream.child(f"path-{k}") for k in range(n_paths)]
        drawn = list(pool.map(lambda one: draw_paths(problem, constants, one, n_particles=n_particles), streams))
    value = float(np.mean([sum(one[0] for one in several) for several in drawn]))
    return value, [np.stack([several[k][1] for several in drawn]) for k in range(len(problem.pieces))]


def joint_objective(vector: np.ndarray, problem: Problem, paths: Sequence[np.ndarray]) -> tuple[float, np.ndarray]:
    """Return the negative joint log-probability of paths and spikes, nats, and its gradient in the free vector.

    paths: per piece (n_paths, n_bins, n_populations); the objective is the mean over a piece's paths, summed over pieces.
    """
    constants = problem.free.constants(vector, problem.base)
    value, slope = 0.0, np.zeros_like(vector)
    for piece, several in zip(problem.pieces, paths, strict=True):
        for path in several:
            log_fractions, log_spikes, gradient = log_prob(
                path, piece.spikes, problem.membership, piece.drive_per_s, constants, first_bin=piece.n_history
            )
            assert gradient is not None
            value -= (log_fractions + log_spikes) / len(several)
            slope -= problem.free.chain(vector, vars(gradient)) / len(several)
    return value, slope


def maximise_joint(vector: np.ndarray, problem: Problem, paths: Sequence[np.ndarray], *, max_iterations: int) -> tuple[np.ndarray, float]:
    """Do an M-step: return the free vector that maximises the joint log-probability of given paths, and the objective there."""
    found = minimize(
        joint_objective,
        vector,
        args=(problem, paths),
        jac=True,
        method="L-BFGS-B",
        bounds=problem.free.bounds(problem.base),
        options={"maxiter": max_iterations},
    )
    return found.x, float(found.fun)
