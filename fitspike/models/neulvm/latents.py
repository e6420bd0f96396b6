"""The population activities behind one trial: the observed spikes they must explain, a first guess, and the joint objective."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.optimize import minimize

from fitspike.kernels.mesoscopic import Constants, log_prob
from fitspike.models.neulvm.populations import FreeSet

FRACTION_FLOOR = 1e-5


@dataclass(frozen=True, eq=False)
class Trial:
    """One trial as the model sees it.

    spikes (n_bins, n_observed), 0 or 1; membership (n_observed,) population of each observed neuron; drive_per_s (n_bins,
    n_populations) external input, du/dt; n_history: first bins, whose population activity is taken from smoothed spikes and which are
    not scored; guess (n_bins, n_populations): smoothed fraction of the observed neurons that fires per bin.
    """

    spikes: np.ndarray
    membership: np.ndarray
    drive_per_s: np.ndarray
    n_history: int
    guess: np.ndarray


def make_trial(
    spikes: np.ndarray, membership: np.ndarray, drive_per_s: np.ndarray, *, n_history: int, smoothing_s: float, dt_s: float
) -> Trial:
    """Return a trial with its first guess: each population's mean observed spike count, smoothed by a Gaussian of sd `smoothing_s`."""
    clipped = np.minimum(spikes, 1).astype(np.float64)
    n_populations = drive_per_s.shape[1]
    guess = np.empty((len(spikes), n_populations))
    for m in range(n_populations):
        members = clipped[:, membership == m]
        # An unobserved population starts from the mean of all observed neurons.
        raw = members.mean(axis=1) if members.shape[1] else clipped.mean(axis=1)
        guess[:, m] = gaussian_filter1d(raw, smoothing_s / dt_s, mode="reflect")
    return Trial(clipped, np.asarray(membership), drive_per_s, n_history, np.maximum(guess, FRACTION_FLOOR))


def joint_objective(
    vector: np.ndarray, free: FreeSet, base: Constants, trials: Sequence[Trial], paths: Sequence[np.ndarray]
) -> tuple[float, np.ndarray]:
    """Return the negative joint log-probability of paths and spikes, nats, and its gradient in the free vector.

    paths: per trial (n_paths, n_bins, n_populations); the objective is the mean over a trial's paths, summed over trials.
    """
    constants = free.constants(vector, base)
    value, slope = 0.0, np.zeros_like(vector)
    for trial, several in zip(trials, paths, strict=True):
        for path in several:
            log_fractions, log_spikes, gradient = log_prob(
                path, trial.spikes, trial.membership, trial.drive_per_s, constants, first_bin=trial.n_history
            )
            assert gradient is not None
            value -= (log_fractions + log_spikes) / len(several)
            slope -= free.chain(vector, vars(gradient)) / len(several)
    return value, slope


def maximise_joint(
    vector: np.ndarray, free: FreeSet, base: Constants, trials: Sequence[Trial], paths: Sequence[np.ndarray], *, max_iterations: int
) -> tuple[np.ndarray, float]:
    """Do an M-step: return the free vector that maximises the joint log-probability of given paths, and the objective there."""
    found = minimize(
        joint_objective,
        vector,
        args=(free, base, trials, paths),
        jac=True,
        method="L-BFGS-B",
        bounds=free.bounds(base),
        options={"maxiter": max_iterations},
    )
    return found.x, float(found.fun)
