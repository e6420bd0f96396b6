"""One vector of features per trial: activity in overlapping windows, of populations or of neurons, recorded once and simulated alike."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from fitspike.errors import InvalidInputError, counted
from fitspike.losses.base import FreeRun
from fitspike.statistics.accumulate import window_length

if TYPE_CHECKING:
    from fitspike.recording.binned import BinnedSpikes
    from fitspike.rng import Stream

MAX_VALUES = 50_000_000
"""Most values (trials x windows x features) kept of a recording: 200 MB."""

_DENSE_VALUES = 20_000_000
"""Most values (trials x bins x neurons) of the recording made dense at once."""


@dataclass(frozen=True)
class Windows:
    """Windows of `n_bins` bins, one every `n_step` bins of a trial; window w starts at bin w n_step."""

    n_bins: int
    n_step: int

    @classmethod
    def of(cls, dt_ms: float, window_ms: float | None, step_ms: float | None, default_ms: float) -> Windows:
        """Return windows of `window_ms`, or about `default_ms`, and steps of `step_ms`, or half a window; at least a bin each.

        Raises
        ------
        InvalidInputError
            If a length is no whole number of bins, or steps are longer than windows, which would leave bins out.
        """
        n_bins = window_length(window_ms, dt_ms, default_ms)
        n_step = max(1, n_bins // 2) if step_ms is None else window_length(step_ms, dt_ms)
        if n_step > n_bins:
            raise InvalidInputError(
                f"step_ms={step_ms} is longer than windows of {n_bins * dt_ms:g} ms, which leaves bins out. Use {n_bins * dt_ms:g} or less."
            )
        return cls(n_bins, n_step)

    def inside(self, first_bin: int, n_bins: int) -> range:
        """Return the numbers of the windows that lie whole within bins first_bin .. first_bin + n_bins - 1."""
        return range(-(-first_bin // self.n_step), (first_bin + n_bins - self.n_bins) // self.n_step + 1)

    def means(self, values: torch.Tensor, first_bin: int = 0) -> torch.Tensor:
        """Return the means over the windows inside (n_trials, n_windows, n_features) of values (n_trials, n_bins, n_features)."""
        found = self.inside(first_bin, values.shape[1])
        if not len(found):
            return values.new_zeros(len(values), 0, values.shape[2])
        return values[:, found.start * self.n_step - first_bin :].unfold(1, self.n_bins, self.n_step).mean(-1)


class RecordedTrials(NamedTuple):
    """Features of recorded trials.

    values : (n_trials, n_windows, n_features), float32, in the units of `scale`; 0 where not valid. valid : (n_trials, n_windows), whether
    all bins of a window are scored. kind : (n_trials, 2), condition and first bin of each trial in its original trial: equal kinds repeat
    each other. members : (n_neurons, n_features), each column a mean over neurons. offset, scale : (n_features,), spikes per bin.
    """

    windows: Windows
    values: torch.Tensor
    valid: torch.Tensor
    kind: np.ndarray
    members: torch.Tensor
    offset: torch.Tensor
    scale: torch.Tensor


def population_members(populations: tuple[str, ...]) -> torch.Tensor:
    """Return the matrix (n_neurons, n_populations) that averages over the neurons of each population, in the order of their labels."""
    labels = np.array(populations, dtype=object)
    columns = [(labels == label) / (labels == label).sum() for label in sorted(set(populations))]
    return torch.as_tensor(np.stack(columns, axis=1).astype(np.float32))


def recorded_trials(binned: BinnedSpikes, windows: Windows, members: torch.Tensor, *, standardise: bool) -> RecordedTrials:
    """Return the features of all trials.

    With `standardise` each feature loses its mean and is divided by its standard deviation, both over the windows of all trials, so that
    differences between windows stay.
    """
    longest = int(binned.bins_per_trial.max(initial=0))
    batch = max(1, _DENSE_VALUES // max(1, longest * binned.n_neurons))
    values, valid = [], []
    for first in range(0, binned.n_trials, batch):
        chunk = binned.chunk(range(first, min(binned.n_trials, first + batch)), 0, longest)
        values.append(windows.means(chunk.dense("float32") @ members))
        valid.append(windows.means(chunk.mask.to(torch.float32)[..., None])[..., 0] == 1)
    value, known = torch.cat(values), torch.cat(valid)
    offset, scale = value.new_zeros(members.shape[1]), value.new_ones(members.shape[1])
    if standardise and bool(known.any()):
        offset, scale = value[known].mean(0), value[known].std(0, correction=0)
        scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    kind = np.stack([np.asarray(binned.conditions), np.asarray(binned.trial_bin)], axis=1)
    kept = np.flatnonzero(binned.repeat_groups >= 0)
    value = ((value - offset) / scale * known[..., None])[kept]
    return RecordedTrials(windows, value, known[kept], kind[kept], members, offset, scale)


def check_size(binned: BinnedSpikes, windows: Windows, n_features: int, loss: str) -> None:
    """Raise if trials are shorter than a window, no condition has a window to compare, or features would be too many to keep."""
    longest = int(binned.bins_per_trial.max(initial=0))
    n_windows = len(windows.inside(0, longest))
    if n_windows < 1:
        raise InvalidInputError(
            f"loss {loss!r}: windows of {windows.n_bins * binned.dt_ms:g} ms are longer than the trials "
            f"({longest * binned.dt_ms:g} ms). Use a shorter window_ms."
        )
    group = binned.repeat_groups
    warmup, length = np.asarray(binned.warmup_bins), np.asarray(binned.bins_per_trial)
    shared = [(int(warmup[group == g].max()), int(length[group == g].min())) for g in range(int(group.max(initial=-1)) + 1)]
    if shared and not any(len(windows.inside(first, stop - first)) for first, stop in shared):
        shortest_ms = float((length - warmup)[group >= 0].min()) * binned.dt_ms
        raise InvalidInputError(
            f"loss {loss!r}: no window of {windows.n_bins * binned.dt_ms:g} ms lies inside all repeats of any condition; the shortest "
            f"trial has {shortest_ms:g} ms. Leave short trials out, or use a shorter window_ms."
        )
    n_values = binned.n_trials * n_windows * n_features
    if n_values > MAX_VALUES:
        raise InvalidInputError(
            f"loss {loss!r} would keep {counted(binned.n_trials, 'trial')} x {counted(n_windows, 'window')} x {n_features} features. "
            "Use a longer step_ms, or fewer neurons."
        )


def pairs_of_kinds(free: FreeRun, recorded: RecordedTrials) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield simulated and recorded features of the trials of each condition, (n_simulated, n_windows x n_features) and (n_recorded, ...).

    Over the windows inside the simulated bins that are whole in every one of these trials. Conditions without any are passed over.
    """
    spikes, chunk, windows = free.rollout.spikes, free.chunk, recorded.windows
    like = {"dtype": spikes.dtype, "device": spikes.device}
    inside = windows.inside(chunk.first_bin, chunk.n_bins)
    inside = range(inside.start, max(inside.start, min(inside.stop, recorded.values.shape[1])))
    simulated = (windows.means(spikes @ recorded.members.to(**like), chunk.first_bin) - recorded.offset.to(**like)) / recorded.scale.to(
        **like
    )
    whole = windows.means(chunk.mask.to(**like)[..., None], chunk.first_bin)[..., 0] == 1
    simulated, whole = simulated[:, : len(inside)], whole[:, : len(inside)]
    kind = np.stack([np.asarray(chunk.condition), np.asarray(chunk.trial_bin) - chunk.first_bin], axis=1)
    for one in np.unique(kind, axis=0):
        ours = torch.as_tensor(np.flatnonzero((kind == one).all(1)), device=spikes.device)
        theirs = torch.as_tensor(np.flatnonzero((recorded.kind == one).all(1)))
        if not len(theirs):
            continue
        at = slice(inside.start, inside.stop)
        usable = whole[ours].all(0) & recorded.valid[theirs, at].all(0).to(spikes.device)
        if bool(usable.any()):
            yield simulated[ours][:, usable].flatten(1), recorded.values[theirs, at].to(**like)[:, usable].flatten(1)


def equally_many(a: torch.Tensor, b: torch.Tensor, rng: Stream) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the rows of both, of the longer one as many as the shorter has, drawn at random without replacement.

    Left whole, the few would choose among the many, so that rare kinds of trials would find no partner.
    """
    n = min(len(a), len(b))
    draw = rng.numpy()
    return tuple(x if len(x) == n else x[torch.as_tensor(np.sort(draw.permutation(len(x))[:n]), device=x.device)] for x in (a, b))
