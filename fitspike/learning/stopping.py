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
    """The best value of the watched loss so far and for how many log points it has not improved.

    A loss of changing batches is noisy, and one lucky batch would hide all later progress; what is watched is therefore the mean of the
    last `window` log points. A window of 1 is right for a loss that is always taken on the same data.
    """

    window: int = 1
    best: float = math.inf
    n_stale: int = 0
    recent: tuple[float, ...] = ()

    def update(self, value: float, rule: StopRule) -> bool:
        """Note the loss of a log point and return whether the watched mean is a new best."""
        self.recent = (*self.recent, value)[-self.window :]
        mean = sum(self.recent) / len(self.recent)
        is_better = mean < self.best - rule.min_improvement * abs(self.best) if math.isfinite(self.best) else mean < self.best
        self.n_stale = 0 if is_better else self.n_stale + 1
        if is_better:
            self.best = mean
        return is_better

    def is_plateau(self, rule: StopRule) -> bool:
        """Return whether the loss has not improved for `patience` log points."""
        return rule.patience > 0 and self.n_stale >= rule.patience

    def arrays(self) -> dict[str, np.ndarray]:
        """Return what changes as arrays, for a checkpoint."""
        return {"best": np.array(self.best), "n_stale": np.array(self.n_stale), "recent": np.array(self.recent, dtype=np.float64)}

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Take over what `arrays` gave."""
        self.best, self.n_stale = float(arrays["best"]), int(arrays["n_stale"])
        self.recent = tuple(arrays["recent"].tolist())


def limit_reached(step: int, rule: StopRule) -> str | None:
    """Return "STEP_LIMIT" or "TIME_LIMIT" if no further step may be taken after `step` steps, else None."""
    if step >= rule.max_steps:
        return "STEP_LIMIT"
    if rule.deadline_s is not None and time.monotonic() >= rule.deadline_s:
        return "TIME_LIMIT"
    return None


LARGEST = 1e15
"""A loss or gradient beyond this has diverged, though it is still a number: parameters of that size are lost to rounding."""


def diverged(metrics: Mapping[str, float]) -> list[str]:
    """Return the names of a step's metrics that are NaN, infinite or beyond LARGEST."""
    return [name for name, value in metrics.items() if not abs(value) <= LARGEST]
