"""What chunk-wise statistics share: the past of a chunk, counts in windows, and which windows are centred together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from fitspike.errors import InvalidInputError
from fitspike.units import NS_PER_MS

if TYPE_CHECKING:
    from fitspike.recording.binned import SpikeChunk
    from fitspike.recording.info import DataInfo

MAX_GROUP_VALUES = 50_000_000
"""Largest table of group sums (groups x neurons x lags) a statistic keeps: 400 MB in float64."""


@dataclass(frozen=True)
class Past:
    """The last steps before a chunk. values (n_trials, n_past, n_neurons); valid (n_trials, n_past); next_step: the step that follows."""

    trials: tuple[int, ...]
    next_step: int
    values: torch.Tensor
    valid: torch.Tensor


def with_past(
    past: Past | None, values: torch.Tensor, valid: torch.Tensor, trials: np.ndarray, first_step: int, n_past: int
) -> tuple[torch.Tensor, torch.Tensor, Past]:
    """Return values and validity with exactly `n_past` earlier steps put in front, and the past of the next chunk.

    Steps that were not seen just before (a trial's start, or chunks out of order) are invalid and zero. Invalid values are zeroed.
    """
    key = tuple(int(k) for k in trials)
    values = values * valid[..., None]
    if past is None or past.trials != key or past.next_step != first_step:
        n_known = 0
    else:
        n_known = min(n_past, past.values.shape[1])
        values = torch.cat([past.values[:, past.values.shape[1] - n_known :], values], dim=1)
        valid = torch.cat([past.valid[:, past.valid.shape[1] - n_known :], valid], dim=1)
    n_new = values.shape[1] - n_known
    if n_known < n_past:
        padding = n_past - n_known
        values = torch.nn.functional.pad(values, (0, 0, padding, 0))
        valid = torch.nn.functional.pad(valid, (padding, 0), value=False)
    n_keep = max(n_past, 1)
    return values, valid, Past(key, first_step + n_new, values[:, -n_keep:], valid[:, -n_keep:])


def window_length(window_ms: float | None, dt_ms: float, default_ms: float | None = None) -> int:
    """Return a window in bins: `window_ms`, or about `default_ms`, or one bin.

    Raises
    ------
    InvalidInputError
        If `window_ms` is no whole number of bins.
    """
    if window_ms is None:
        return 1 if default_ms is None else max(1, round(default_ms / dt_ms))
    n_bins = round(window_ms / dt_ms)
    if n_bins < 1 or abs(n_bins * dt_ms - window_ms) * NS_PER_MS > 0.5:
        raise InvalidInputError(f"window_ms={window_ms} is no whole number of bins of {dt_ms} ms. Use {max(1, n_bins) * dt_ms:g}.")
    return n_bins


@dataclass(frozen=True)
class Windowed:
    """Counts (n_trials, n_windows, n_neurons) of whole windows, validity (n_trials, n_windows), and the number of the first window."""

    counts: torch.Tensor
    valid: torch.Tensor
    first: int


def count_in_windows(past: Past | None, spikes: torch.Tensor, chunk: SpikeChunk, n_bins: int) -> tuple[Windowed, Past | None]:
    """Return counts in the whole windows that this chunk completes, and the bins left over for the next chunk.

    Window w covers bins w * n_bins .. (w + 1) * n_bins of its trial; it is valid if all of them are scored and were seen in order.
    """
    if n_bins == 1:
        valid = chunk.mask.to(spikes.device)
        return Windowed(spikes * valid[..., None], valid, chunk.first_bin), None
    values, whole, first, next_past = whole_windows(past, spikes, chunk, n_bins)
    return Windowed(values.sum(2) * whole[..., None], whole, first), next_past


def whole_windows(past: Past | None, spikes: torch.Tensor, chunk: SpikeChunk, n_bins: int) -> tuple[torch.Tensor, torch.Tensor, int, Past]:
    """Return the bins of the whole windows that this chunk completes, as `count_in_windows` before it sums them.

    values (n_trials, n_windows, n_bins, n_neurons), valid (n_trials, n_windows), number of the first window, bins left over.
    """
    valid = chunk.mask.to(spikes.device)
    n_left = chunk.first_bin % n_bins
    values, valid, next_past = with_past(past, spikes, valid, chunk.trial, chunk.first_bin, n_bins - 1)
    values, valid = values[:, n_bins - 1 - n_left :], valid[:, n_bins - 1 - n_left :]
    n_windows = values.shape[1] // n_bins
    shape = (len(values), n_windows, n_bins)
    whole = valid[:, : n_windows * n_bins].reshape(shape).all(2)
    return values[:, : n_windows * n_bins].reshape(*shape, values.shape[2]), whole, chunk.first_bin // n_bins, next_past


@dataclass(frozen=True)
class Groups:
    """Which windows are centred together: those of one trial, or those at one place of the repeats of one condition.

    Trials of one condition repeat each other if they start at the same bin of their original trials, one of `start_bins`.
    """

    by_condition: bool
    n_groups: int
    n_windows: int
    n_conditions: int
    start_bins: tuple[int, ...] = (0,)

    @classmethod
    def of(cls, data: DataInfo, centre: str, n_bins: int, n_values_per_group: int) -> Groups:
        """Return the grouping for "condition", "trial" or "auto" (by condition where trials repeat one stimulus).

        Raises
        ------
        InvalidInputError
            For another `centre`, or if the sums of all groups would take too much memory.
        """
        if centre not in ("auto", "condition", "trial"):
            raise InvalidInputError(f"centre={centre!r} is unknown. Use 'auto', 'condition' or 'trial'.")
        by_condition = centre == "condition" or (centre == "auto" and data.has_repeats)
        n_windows = int(np.max(data.bins_per_trial, initial=0)) // n_bins
        start_bins = data.start_bins or (0,)
        n_groups = max(1, data.n_conditions) * len(start_bins) * n_windows if by_condition else data.n_trials
        if n_groups * n_values_per_group > MAX_GROUP_VALUES:
            raise InvalidInputError(
                f"a statistic centred by {'condition and time' if by_condition else 'trial'} would keep {n_groups} x {n_values_per_group} "
                "sums. Use a longer window_ms, fewer lags or fewer neurons."
            )
        return cls(by_condition, n_groups, n_windows, data.n_conditions, start_bins)

    def index(self, chunk: SpikeChunk, first: int, n: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the group of windows first .. first + n of each trial, (n_trials, n) int64, and whether it has one, bool."""
        window = np.arange(first, first + n)[None, :]
        if self.by_condition:
            condition = np.asarray(chunk.condition) if self.n_conditions else np.zeros(chunk.n_trials, np.int64)
            starts = np.asarray(self.start_bins)
            start = np.asarray(chunk.trial_bin) - chunk.first_bin if len(starts) > 1 else np.full(chunk.n_trials, starts[0])
            which = np.searchsorted(starts, start).clip(max=len(starts) - 1)
            known = ((condition >= 0) & (starts[which] == start))[:, None] & (window < self.n_windows)
            group = (condition * len(starts) + which)[:, None] * self.n_windows + window
        else:
            group = np.broadcast_to(np.asarray(chunk.trial)[:, None], (chunk.n_trials, n))
            known = np.broadcast_to(window >= 0, group.shape)
        group, known = np.where(known, group, 0), np.array(known)
        return torch.as_tensor(group, device=device), torch.as_tensor(known, device=device)


def add_rows(total: torch.Tensor, index: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Return total (n_groups, ...) with rows (n_trials, n_windows, ...) added at index (n_trials, n_windows); differentiable in rows."""
    if len(index) > 1 and bool((index == index[:1]).all()):  # all trials of one condition: sum them first
        index, rows = index[:1], rows.sum(0, keepdim=True)
    return total.index_add(0, index.reshape(-1), rows.reshape(-1, *total.shape[1:]).to(total.dtype))


def ratio_or_nan(numerator: torch.Tensor, denominator: torch.Tensor) -> torch.Tensor:
    """Return numerator / denominator, NaN (without a gradient) where the denominator is not positive."""
    usable = denominator > 0
    value = numerator / torch.where(usable, denominator, torch.ones_like(denominator))
    return torch.where(usable, value, torch.full_like(value, float("nan")))
