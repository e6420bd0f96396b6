"""Hard EM ("Baum-Viterbi"), as published: gradient steps on the population activity in turn with steps on the constants.

Its objective has no useful optimum: pushed to convergence the activity becomes a noise-free path, the objective falls below its value at
the truth and the couplings drift. Stopping the E-step early, by the published rule, is what regularises it; `e_step_limit` is therefore a
regularisation setting.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fitspike.kernels.mesoscopic import Constants, log_prob
from fitspike.models.neulvm.latents import FRACTION_FLOOR, Trial, maximise_joint
from fitspike.models.neulvm.populations import FreeSet


@dataclass(frozen=True)
class HardEM:
    """Settings of the published algorithm: Adam on the activity, patience of three steps, at most twenty rounds."""

    n_iterations: int = 20
    e_step_limit: int = 200
    learning_rate: float = 1e-3
    patience: int = 3
    m_step_iterations: int = 200


@dataclass
class _Adam:
    """Adam with its usual constants; kept across rounds, as published."""

    learning_rate: float
    first: np.ndarray
    second: np.ndarray
    n_steps: int = 0

    def step(self, value: np.ndarray, gradient: np.ndarray) -> np.ndarray:
        self.n_steps += 1
        self.first = 0.9 * self.first + 0.1 * gradient
        self.second = 0.999 * self.second + 0.001 * gradient**2
        mean = self.first / (1 - 0.9**self.n_steps)
        scale = np.sqrt(self.second / (1 - 0.999**self.n_steps)) + 1e-8
        return np.clip(value - self.learning_rate * mean / scale, FRACTION_FLOOR, 1.0)


def hard_em(
    vector: np.ndarray,
    free: FreeSet,
    base: Constants,
    trials: Sequence[Trial],
    settings: HardEM,
    *,
    report: Callable[[int, Mapping[str, float]], None] = lambda step, metrics: None,
) -> tuple[np.ndarray, list[np.ndarray], float]:
    """Return the fitted free vector, the mode of each trial's activity (n_bins, n_populations), and the joint objective, nats."""
    paths = [trial.guess.copy() for trial in trials]
    optimisers = [_Adam(settings.learning_rate, np.zeros_like(path), np.zeros_like(path)) for path in paths]
    lowest = [np.full(2, np.inf) for _ in trials]
    value = np.inf
    for iteration in range(settings.n_iterations):
        vector, value = maximise_joint(
            vector, free, base, trials, [path[None] for path in paths], max_iterations=settings.m_step_iterations
        )
        constants = free.constants(vector, base)
        improved = False
        for k, trial in enumerate(trials):
            paths[k], moved = _e_step(constants, trial, paths[k], optimisers[k], lowest[k], settings)
            improved |= moved
        report(iteration, {"negative_log_joint": value})
        if not improved:
            break
    return vector, paths, value


def _e_step(
    constants: Constants, trial: Trial, path: np.ndarray, optimiser: _Adam, lowest: np.ndarray, settings: HardEM
) -> tuple[np.ndarray, bool]:
    """Move one trial's path; `lowest` (2,) holds the lowest of both parts of the objective ever seen and is updated."""
    best, waited, moved = path, 0, False
    current = path
    for _ in range(settings.e_step_limit):
        log_fractions, log_spikes, gradient = log_prob(
            current, trial.spikes, trial.membership, trial.drive_per_s, constants, first_bin=trial.n_history
        )
        assert gradient is not None
        parts = np.array([-log_fractions, -log_spikes])
        if (parts < lowest).all():
            best, waited, moved = current, 0, True
            lowest[:] = parts
        else:
            waited += 1
            if waited >= settings.patience:
                break
        slope = np.nan_to_num(-gradient.fractions)
        slope[: trial.n_history] = 0.0
        current = optimiser.step(current, slope)
    return best, moved
