"""Hard EM ("Baum-Viterbi"), as published: gradient steps on the population activity in turn with steps on the constants.

Its objective has no useful optimum: pushed to convergence the activity becomes a noise-free path, the objective falls below its value at
the truth and the couplings drift. Stopping the E-step early, by the published rule, is what regularises it; `e_step_limit` is therefore a
regularisation setting.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from fitspike.kernels.mesoscopic import Constants, log_prob
from fitspike.models.neulvm.latents import FRACTION_FLOOR, Piece, Problem, maximise_joint


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
    problem: Problem,
    vector: np.ndarray,
    settings: HardEM,
    *,
    after_step: Callable[[Mapping[str, float]], bool] = lambda metrics: True,
) -> tuple[np.ndarray, list[np.ndarray], float]:
    """Return the fitted free vector, the mode of each piece's activity (n_bins, n_populations), and the joint objective, nats.

    `after_step(metrics)` is called after every round and may end the fit by returning False.
    """
    paths = [piece.guess.copy() for piece in problem.pieces]
    optimisers = [_Adam(settings.learning_rate, np.zeros_like(path), np.zeros_like(path)) for path in paths]
    lowest = [np.full(2, np.inf) for _ in paths]
    value = np.inf
    for _ in range(settings.n_iterations):
        vector, value = maximise_joint(vector, problem, [path[None] for path in paths], max_iterations=settings.m_step_iterations)
        constants = problem.free.constants(vector, problem.base)
        improved = False
        for k, piece in enumerate(problem.pieces):
            paths[k], moved = _e_step(problem, constants, piece, paths[k], optimisers[k], lowest[k], settings)
            improved |= moved
        if not after_step({"negative_log_joint": value}) or not improved:
            break
    return vector, paths, value


def _e_step(
    problem: Problem, constants: Constants, piece: Piece, path: np.ndarray, optimiser: _Adam, lowest: np.ndarray, settings: HardEM
) -> tuple[np.ndarray, bool]:
    """Move one piece's path; `lowest` (2,) holds the lowest of both parts of the objective ever seen and is updated."""
    best, waited, moved = path, 0, False
    current = path
    for _ in range(settings.e_step_limit):
        log_fractions, log_spikes, gradient = log_prob(
            current, piece.spikes, problem.membership, piece.drive_per_s, constants, first_bin=piece.n_history
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
        slope[: piece.n_history] = 0.0
        current = optimiser.step(current, slope)
    return best, moved
