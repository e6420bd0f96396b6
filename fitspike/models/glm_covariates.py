"""The covariates of a coupled GLM that all target neurons share: filtered signals, bumps over trial time and over the recording."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fitspike.errors import InvalidInputError
from fitspike.models.bases import raised_cosine_linear
from fitspike.models.glm_layout import Layout, condition_codes
from fitspike.recording.binned import BinnedSpikes
from fitspike.recording.chunk import SpikeChunk
from fitspike.types import ParamArrays
from fitspike.units import NS_PER_S

_ROUNDING = 1e-12  # of the largest value of a channel: a smaller deviation is that of a constant in floating point
_SAMPLED_BINS = 200_000  # mean and deviation of signals are taken from at most this many bins


def fixed_numbers(layout: Layout, binned: BinnedSpikes) -> dict[str, np.ndarray]:
    """Return the parameters that are set from the training data: scales of signals and population count, ranges of time, conditions."""
    fixed = {"dt_ms": np.array([layout.dt_ms])}
    needed = layout.fixed_names
    if "signal_scale" in needed:
        channels = np.concatenate([binned.signals[name] for name in layout.signal_names], axis=1)
        channels = channels[:: -(-len(channels) // _SAMPLED_BINS)].astype(np.float64)
        deviation = channels.std(axis=0)
        is_on = layout.model.standardise_signals
        fixed["signal_offset"] = channels.mean(axis=0) if is_on else np.zeros(channels.shape[1])
        is_constant = deviation <= _ROUNDING * np.abs(channels).max(axis=0, initial=0.0)
        fixed["signal_scale"] = np.where(is_constant, 1.0, deviation) if is_on else np.ones(channels.shape[1])
    if "population_scale" in needed:
        deviation = float(summed_counts(binned).std())
        fixed["population_scale"] = np.array([deviation if deviation > 0 else 1.0])
    if "trial_range_s" in needed:
        stop = (binned.trial_bin + binned.bins_per_trial).max() * binned.dt_ns / NS_PER_S
        fixed["trial_range_s"] = np.array([0.0, stop])
    if "drift_range_s" in needed:
        stops = binned.start_ns + binned.bins_per_trial * binned.dt_ns
        fixed["drift_range_s"] = np.array([binned.start_ns.min(), stops.max()]) / NS_PER_S
    if "condition_code" in needed:
        fixed["condition_code"] = condition_codes(binned.condition_names)
    return fixed


def summed_counts(binned: BinnedSpikes) -> np.ndarray:
    """Return the spike count of all neurons together in each bin, (n_bins_total,) float64."""
    if binned.event_count is None:
        return np.diff(binned.row_pointer).astype(np.float64)
    total = np.concatenate([[0.0], np.cumsum(binned.event_count, dtype=np.float64)])
    return np.diff(total[binned.row_pointer])


def bin_covariates(
    layout: Layout, fixed: ParamArrays, binned: BinnedSpikes, first: int, stop: int, *, without: Sequence[str] = ()
) -> np.ndarray:
    """Return the covariates but for the population's over global bins first .. stop - 1, (n_bins, n_columns) float64.

    Terms named in `without` are left out.
    """
    parts = [np.zeros((0, _n_columns(layout, without)))]
    trial = max(0, int(np.searchsorted(binned.trial_offset, first, side="right")) - 1)
    while trial < binned.n_trials and binned.trial_offset[trial] < stop:
        offset = int(binned.trial_offset[trial])
        low, high = max(first, offset) - offset, min(stop, int(binned.trial_offset[trial + 1])) - offset
        if low < high:
            parts.append(
                _covariates(
                    layout,
                    fixed,
                    signal=_trial_signals(layout, binned, trial, low, high - low) if layout.signal_names else None,
                    trial_s=(binned.trial_bin[trial] + np.arange(low, high) + 0.5) * binned.dt_ns / NS_PER_S,
                    recording_s=(binned.start_ns[trial] + (np.arange(low, high) + 0.5) * binned.dt_ns) / NS_PER_S,
                    condition=_condition_index(layout, fixed, binned.condition_names, int(binned.conditions[trial])),
                    without=without,
                )
            )
        trial += 1
    return np.concatenate(parts)


def trial_time_table(layout: Layout, fixed: ParamArrays, binned: BinnedSpikes) -> tuple[np.ndarray, np.ndarray]:
    """Return the bumps over trial time for each condition (none last) and bin of the trial, and which row each global bin has.

    (n_rows, n_columns) float64 and (n_bins_total,) int64; columns are those of trial_time, then condition_time.
    """
    length = int((binned.trial_bin + binned.bins_per_trial).max(initial=0))
    trial_s = (np.arange(length) + 0.5) * binned.dt_ns / NS_PER_S
    conditions = [*range(layout.n_conditions), -1]
    table = np.concatenate([_time_bumps(layout, fixed, trial_s, condition) for condition in conditions])
    found = np.array([_condition_index(layout, fixed, binned.condition_names, int(c)) for c in binned.conditions], dtype=np.int64)
    start = np.where(found < 0, layout.n_conditions, found) * length + binned.trial_bin
    trial = np.repeat(np.arange(binned.n_trials), binned.bins_per_trial)
    return table, start[trial] + np.arange(binned.n_bins_total) - binned.trial_offset[trial]


def chunk_covariates(layout: Layout, fixed: ParamArrays, chunk: SpikeChunk) -> np.ndarray:
    """Return the covariates but for the population's over a chunk, (n_trials, n_bins, n_columns) float64.

    Signal filters that reach out of the chunk read the recording around it; in a free rollout the value at its edge is held.
    """
    result = np.zeros((chunk.n_trials, chunk.n_bins, _n_columns(layout)))
    if not result.shape[2]:
        return result
    names = chunk.source.condition_names if chunk.source is not None else None
    bins = np.arange(chunk.n_bins) + 0.5
    for row in range(chunk.n_trials):
        inside = chunk.n_bins
        if chunk.source is not None:
            inside = int(np.clip(chunk.source.bins_per_trial[chunk.trial[row]] - chunk.first_bin, 0, chunk.n_bins))
        if not inside:
            continue
        signal = None
        if layout.signal_names and chunk.source is not None:
            signal = _trial_signals(layout, chunk.source, int(chunk.trial[row]), chunk.first_bin, inside)
        elif layout.signal_names:
            values = np.concatenate([chunk.signal_values[name][row] for name in layout.signal_names], axis=1)
            signal = np.pad(values, (layout.signal_bins, (0, 0)), mode="edge")
        result[row, :inside] = _covariates(
            layout,
            fixed,
            signal=signal,
            trial_s=(chunk.trial_bin[row] + bins[:inside]) * chunk.dt_ms * 1e-3,
            recording_s=chunk.start_s[row] + bins[:inside] * chunk.dt_ms * 1e-3,
            condition=_condition_index(layout, fixed, names, int(chunk.condition[row])),
        )
    return result


def _n_columns(layout: Layout, without: Sequence[str] = ()) -> int:
    names = [name for name in ("signal", "trial_time", "condition_time", "drift") if name in layout.terms and name not in without]
    return sum(layout.terms[name].n_columns for name in names)


def _covariates(
    layout: Layout,
    fixed: ParamArrays,
    *,
    signal: np.ndarray | None,
    trial_s: np.ndarray,
    recording_s: np.ndarray,
    condition: int,
    without: Sequence[str] = (),
) -> np.ndarray:
    """Return the covariates of consecutive bins of one trial, (n_bins, n_columns); `signal` reaches beyond them by the window."""
    parts = []
    if "signal" in layout.terms:
        before, after = layout.signal_bins
        scaled = (signal.astype(np.float64) - fixed["signal_offset"]) / fixed["signal_scale"]
        basis = raised_cosine_linear(layout.model.n_signal, np.linspace(0.0, 1.0, before + after + 1))
        basis /= basis.sum(axis=1, keepdims=True)
        # window[t, c, p] is the signal at bin t - before + p, hence at lag before - p; the basis runs from lag -after to lag before
        window = np.lib.stride_tricks.sliding_window_view(scaled, before + after + 1, axis=0)
        parts.append((window @ basis[:, ::-1].T).reshape(len(trial_s), -1))
    parts.append(_time_bumps(layout, fixed, trial_s, condition, without))
    if "drift" in layout.terms:
        low, high = fixed["drift_range_s"]
        parts.append(raised_cosine_linear(layout.model.drift_bumps, (recording_s - low) / max(high - low, 1e-9)).T)
    return np.concatenate(parts, axis=1)


def _time_bumps(layout: Layout, fixed: ParamArrays, trial_s: np.ndarray, condition: int, without: Sequence[str] = ()) -> np.ndarray:
    """Return the bumps over trial time, shared and in the given condition (-1: none), (n_bins, n_columns)."""
    parts = [np.zeros((len(trial_s), 0))]
    for name in ("trial_time", "condition_time"):
        if name not in layout.terms or name in without:
            continue
        low, high = fixed["trial_range_s"]
        bumps = raised_cosine_linear(layout.model.n_time_bumps, (trial_s - low) / (high - low)).T
        if name == "condition_time":
            placed = np.zeros((len(trial_s), layout.n_conditions, bumps.shape[1]))
            if condition >= 0:
                placed[:, condition] = bumps
            bumps = placed.reshape(len(trial_s), -1)
        parts.append(bumps)
    return np.concatenate(parts, axis=1)


def _trial_signals(layout: Layout, binned: BinnedSpikes, trial: int, first: int, n_bins: int) -> np.ndarray:
    """Return the signals over bins of a trial and the filters' window around them, held at the trial's ends."""
    offset, length = int(binned.trial_offset[trial]), int(binned.bins_per_trial[trial])
    before, after = layout.signal_bins
    low, high = first - before, first + n_bins + after
    inside = slice(offset + max(low, 0), offset + min(high, length))
    values = np.concatenate([binned.signals.values_between(name, inside.start, inside.stop) for name in layout.signal_names], axis=1)
    return np.pad(values, ((max(-low, 0), max(high - length, 0)), (0, 0)), mode="edge")


def _condition_index(layout: Layout, fixed: ParamArrays, names: Sequence[str] | None, index: int) -> int:
    """Return which fitted condition a trial's condition is, -1 for one that was not in training (it then has no condition term)."""
    if not layout.n_conditions or index < 0:
        return -1
    if names is None:
        if index >= layout.n_conditions:
            raise InvalidInputError(f"condition {index} of a rollout; the model was fitted to {layout.n_conditions}, numbered from 0.")
        return index
    found = np.flatnonzero(fixed["condition_code"] == condition_codes(names[index : index + 1])[0])
    return int(found[0]) if found.size else -1
