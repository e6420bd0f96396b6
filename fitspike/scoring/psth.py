"""Correlation of the model's PSTH with the recorded one, its ceiling from the repeats, and its uncertainty."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fitspike.scoring.bootstrap import Uncertain
from fitspike.statistics import over_time

if TYPE_CHECKING:
    from fitspike.recording.binned import BinnedSpikes, SpikeChunk

N_PARTS = 10
"""Repeats are dealt into this many parts for the jackknife."""


@dataclass(frozen=True, eq=False)
class PsthScore:
    """correlation, ceiling (n_neurons,); median of the correlation over neurons; model_hz (n_conditions, n_times, n_neurons)."""

    correlation: np.ndarray
    ceiling: np.ndarray
    median: Uncertain
    model_hz: np.ndarray
    time_ms: np.ndarray
    conditions: np.ndarray


class PsthSums:
    """Adds up recorded counts and expected counts per condition, window and neuron, chunk by chunk, in parts of the repeats.

    Only conditions that repeat count (`BinnedSpikes.repeat_groups`). `make` returns None where nothing repeats.
    """

    def __init__(self, binned: BinnedSpikes, recorded: over_time.PSTH, width: int) -> None:
        self.recorded, self.width = recorded, width
        self.first_bin = round(recorded.time_ms[0] / binned.dt_ms - width / 2)
        self.group = binned.repeat_groups
        n_groups, self.n_windows, n_neurons = recorded.rate_hz.shape
        rank = np.zeros(binned.n_trials, np.int64)
        for g in range(n_groups):
            members = np.flatnonzero(self.group == g)
            rank[members] = np.arange(len(members))
        fits = max(2, int(over_time.MAX_PSTH_VALUES // max(1, recorded.rate_hz.size)))
        self.n_parts = min(N_PARTS, fits, int(recorded.n_trials.min()))
        self.part = rank % self.n_parts
        self.counts = np.zeros((2, self.n_parts, n_groups, self.n_windows, n_neurons))  # recorded, model
        self.n_trials = np.zeros((self.n_parts, n_groups))
        np.add.at(self.n_trials, (self.part[self.group >= 0], self.group[self.group >= 0]), 1)

    @classmethod
    def make(cls, binned: BinnedSpikes, window_ms: float) -> PsthSums | None:
        """Return empty sums for windows of `window_ms` rounded up to whole bins (longer where the PSTH would be too large)."""
        longest_ms = float(np.max(binned.bins_per_trial, initial=0)) * binned.dt_ms
        n_values = max(1, len(binned.condition_names)) * binned.n_neurons * longest_ms
        wanted = max(window_ms, 1.01 * n_values / over_time.MAX_PSTH_VALUES)
        width = max(1, int(np.ceil(wanted / binned.dt_ms - 1e-9)))
        recorded = over_time.psth(binned, width * binned.dt_ms)
        return None if recorded is None or len(recorded.time_ms) < 2 else cls(binned, recorded, width)

    def add(self, chunk: SpikeChunk, expected: np.ndarray) -> None:
        """Add a chunk: its spikes and the expected counts (n_trials, n_bins, n_neurons)."""
        window = (chunk.first_bin + np.arange(chunk.n_bins) - self.first_bin) // self.width
        inside = (window >= 0) & (window < self.n_windows)
        if not inside.any():
            return
        for source, values in enumerate((chunk.dense_numpy("float64"), expected)):
            for row, trial in enumerate(chunk.trial):
                if self.group[trial] >= 0:
                    np.add.at(self.counts[source, self.part[trial], self.group[trial]], window[inside], values[row, inside])

    def finish(self, dt_ms: float) -> PsthScore:
        """Return the correlation over conditions and windows for each neuron, and its median with a jackknife standard error."""
        total, n_trials = self.counts.sum(axis=1), self.n_trials.sum(axis=0)
        correlation = _correlation(total, n_trials)
        ceiling = self.recorded.ceiling
        median = _median(correlation)
        left_out = np.array([_median(_correlation(total - self.counts[:, p], n_trials - self.n_trials[p])) for p in range(self.n_parts)])
        # Jackknife over parts of the repeats (Efron 1982): se^2 = (n - 1) / n sum (theta_(-p) - mean)^2.
        se = float(np.sqrt((self.n_parts - 1) / self.n_parts * ((left_out - left_out.mean()) ** 2).sum()))
        uncertain = Uncertain(median, se, median - 1.96 * se, median + 1.96 * se)
        model_hz = total[1] / n_trials[:, None, None] / (self.width * dt_ms / 1000)
        return PsthScore(correlation, ceiling, uncertain, model_hz, self.recorded.time_ms, np.asarray(self.recorded.conditions))


def _correlation(counts: np.ndarray, n_trials: np.ndarray) -> np.ndarray:
    """Return each neuron's correlation of recorded and model means, counts (2, n_conditions, n_windows, n_neurons) -> (n_neurons,)."""
    known = n_trials > 0
    mean = counts[:, known] / n_trials[known][None, :, None, None]
    flat = mean.reshape(2, -1, mean.shape[-1])
    return over_time.column_correlation(flat[0], flat[1])


def _median(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if len(finite) else float("nan")
