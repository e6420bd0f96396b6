"""When gradient training ends: plateau, step limit, time limit, divergence."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fitspike.errors import Problems


@dataclass(frozen=True)
class StopRule:
    """Limits of a training run.

    max_steps : most steps. deadline_s : value of time.monotonic() to stop at, or None.
    patience : log points without improvement that make a plateau, 0 for never; min_improvement : relative improvement of the watched loss
    that counts.
    """

    max_steps: int
    deadline_s: float | None = None
    patience: int = 20
    min_improvement: float = 1e-5

    def __post_init__(self) -> None:
        problems = Problems("stopping")
        if self.max_steps < 1:
            problems.add(f"max_steps={self.max_steps} must be at least 1.")
        if self.patience < 0 or self.min_improvement < 0:
            problems.add(f"patience={self.patience} and min_improvement={self.min_improvement} must not be negative.")
        problems.raise_if_any()


@dataclass
class Watch:
    """The best value of the watched loss so far and for how many log points it has not improved."""

    best: float = math.inf
    n_stale: int = 0

    def update(self, value: float, rule: StopRule) -> bool:
        """Note the loss of a log point and return whether it is a new best."""
        is_better = value < self.best - rule.min_improvement * abs(self.best) if math.isfinite(self.best) else value < self.best
        self.n_stale = 0 if is_better else self.n_stale + 1
        if is_better:
            self.best = value
        return is_better

    def is_plateau(self, rule: StopRule) -> bool:
        """Return whether the loss has not improved for `patience` log points."""
        return rule.patience > 0 and self.n_stale >= rule.patience

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the watch as arrays, for a checkpoint."""
        return {"best": np.array(self.best), "n_stale": np.array(self.n_stale)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Watch:
        """Return the watch that `arrays` gave."""
        return cls(float(arrays["best"]), int(arrays["n_stale"]))


def limit_reached(step: int, rule: StopRule) -> str | None:
    """Return "STEP_LIMIT" or "TIME_LIMIT" if no further step may be taken after `step` steps, else None."""
    if step >= rule.max_steps:
        return "STEP_LIMIT"
    if rule.deadline_s is not None and time.monotonic() >= rule.deadline_s:
        return "TIME_LIMIT"
    return None


def is_finite(metrics: Mapping[str, float]) -> bool:
    """Return whether every metric of a step is a finite number."""
    return all(math.isfinite(value) for value in metrics.values())
