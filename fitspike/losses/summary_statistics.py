"""Distance between a statistic of the recording and the same statistic of freely simulated trials: sample-and-measure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from fitspike.errors import InvalidInputError, Problems, did_you_mean
from fitspike.losses.base import FreeRun, LossContext, LossTerms
from fitspike.losses.distances import DISTANCES, distance
from fitspike.losses.repeats import check_can_follow, check_repeats
from fitspike.statistics.base import Expected, Statistic

if TYPE_CHECKING:
    from fitspike.recording.binned import BinnedSpikes, SpikeChunk
    from fitspike.recording.info import DataInfo

_RECORD_VALUES = 20_000_000
"""Most values (trials x bins x neurons) of the recording made dense at once."""


@dataclass(frozen=True)
class StatisticLoss:
    """Distance between a statistic of the training data and of the free run (Bellec et al. 2021, NeurIPS 34).

    The recorded value comes from all training trials, once. The simulated one is differentiable: sampled spikes carry their
    pseudo-derivative, and where the statistic takes expected counts those stand in for the latest spikes of each product.

    distance : see `fitspike.losses.distances.DISTANCES`; "auto": the statistic's default, with "poisson" becoming "cross_entropy" where
        the model's emission knows at most one spike per bin
    two_half : use two halves of the simulated trials to remove the estimate's own variance from the distance; False takes all trials as one
    """

    needs: ClassVar[frozenset[str]] = frozenset({"rollout"})
    statistic: Statistic
    distance: str = "auto"
    two_half: bool = True

    def __post_init__(self) -> None:
        problems = Problems(f"loss {self.name!r}")
        if self.distance != "auto" and self.distance not in DISTANCES:
            problems.add(
                f"unknown distance {self.distance!r}{did_you_mean(self.distance, DISTANCES)} Known: auto, {', '.join(sorted(DISTANCES))}."
            )
        elif self.distance != "auto" and DISTANCES[self.distance].of_counts and self.statistic.unit != "Hz":
            problems.add(f"distance {self.distance!r} compares rates, and this statistic has the unit {self.statistic.unit!r}. Use 'auto'.")
        if not getattr(self.statistic, "is_differentiable", True):
            problems.add(
                "this statistic carries no gradient of the spikes, so that no fit can lower it. For intervals use 'isi_distribution'."
            )
        problems.raise_if_any()

    @property
    def name(self) -> str:
        """Return the statistic's name."""
        return self.statistic.name

    def check(self, binned: BinnedSpikes, model: Any) -> None:
        """Raise if the statistic is not defined for these data, or the model cannot follow it."""
        self.statistic.init(binned.info())
        if getattr(self.statistic, "needs_repeats", False):
            check_repeats(binned, self.name)
            check_can_follow(model, binned, self.name)

    def record(self, binned: BinnedSpikes) -> torch.Tensor:
        """Return the statistic of the training data."""
        return recorded_value(self.statistic, binned)

    def __call__(self, context: LossContext) -> LossTerms:
        """Return {name: distance}; the docstring of `DISTANCES` says in which unit."""
        free, recorded = context.free, context.recorded[self.name]
        if getattr(self.statistic, "compares_trials", False) and getattr(self.statistic, "centre", "auto") != "trial":
            check_enough_trials(self.name, 4 if self.two_half else 2, free, context.data)
        kind = self._distance(context.model)
        scale = context.data.dt_ms / 1000 if DISTANCES[kind].of_counts else 1.0
        if self.two_half and free.chunk.n_trials > 1:
            a, b = (simulated_value(self.statistic, free, context, rows) * scale for rows in halves(free))
        else:
            a = b = simulated_value(self.statistic, free, context) * scale
        return {self.name: distance(kind, a, b, recorded.to(a.device) * scale)}

    def _distance(self, model: Any) -> str:
        name = self.statistic.default_distance if self.distance == "auto" else self.distance
        return "cross_entropy" if self.distance == "auto" and name == "poisson" and is_binary(model) else name


def is_binary(model: Any) -> bool:
    """Return whether the model's emission knows at most one spike per bin."""
    make = getattr(model, "emission_object", None)
    return bool(getattr(make(), "is_binary", False)) if make is not None else False


def recorded_value(statistic: Statistic, binned: BinnedSpikes) -> torch.Tensor:
    """Return a statistic of recorded data, chunk by chunk."""
    acc = statistic.init(binned.info())
    longest = max(1, int(binned.bins_per_trial.max(initial=1)))
    n_bins = min(longest, max(1, _RECORD_VALUES // max(1, binned.n_neurons)))
    n_trials = max(1, _RECORD_VALUES // (n_bins * max(1, binned.n_neurons)))
    for chunk in binned.chunks(n_bins, batch_trials=n_trials, carry=True):
        acc = statistic.update(acc, chunk.dense("float32"), chunk)
    return statistic.finalise(acc)


def simulated_value(statistic: Statistic, free: FreeRun, context: LossContext, rows: Sequence[int] | None = None) -> torch.Tensor:
    """Return a statistic of the free run, or of some of its trials, on the run's device; it is added up on the CPU, in float64."""
    device = free.rollout.spikes.device
    spikes, expected, chunk = free.rollout.spikes.cpu(), expected_of(free.rollout), free.chunk
    expected = None if expected is None else Expected(*(part.cpu() for part in expected))
    if rows is not None:
        index = torch.as_tensor(np.asarray(rows))
        spikes, chunk = spikes[index], chunk.rows(rows)
        expected = None if expected is None else Expected(*(part[index] for part in expected))
    takes = getattr(statistic, "takes_expected", False)
    # Several may follow one recorded trial; each is a trial of its own.
    chunk = replace(chunk, trial=np.arange(chunk.n_trials))
    acc = statistic.init(replace(context.data, n_trials=max(context.data.n_trials, chunk.n_trials)))
    check_windows_fit(statistic.name, getattr(acc, "n_bins", 1), free.chunk, context.data)
    if expected is None or not takes or (takes == "binary" and not is_binary(context.model)):
        acc = statistic.update(acc, spikes, chunk)
    else:
        acc = statistic.update(acc, spikes, chunk, expected=expected)
    return statistic.finalise(acc).to(device)


def check_enough_trials(loss: str, n_trials: int, free: FreeRun, data: DataInfo) -> None:
    """Raise if trials repeat and a step simulates fewer than `n_trials`, so that none could be compared.

    Raises
    ------
    InvalidInputError
        If so.
    """
    if data.has_repeats and free.chunk.n_trials < n_trials:
        raise InvalidInputError(
            f"loss {loss!r} compares {n_trials} simulated trials of one condition at least, and each step simulates "
            f"{free.chunk.n_trials}. Use batch.n_free_trials={n_trials} or more; 20 is usual."
        )


def check_windows_fit(loss: str, n_bins: int, chunk: SpikeChunk, data: DataInfo) -> None:
    """Raise if windows of `n_bins` bins are longer than chunks, so that a fit would never see a whole one.

    Raises
    ------
    InvalidInputError
        If so, and trials go on after the chunk.
    """
    longest = int(np.max(np.asarray(data.bins_per_trial)[np.asarray(chunk.trial)], initial=0))
    if chunk.first_bin == 0 and chunk.n_bins < min(n_bins, longest):
        raise InvalidInputError(
            f"loss {loss!r} measures windows of {n_bins * data.dt_ms:g} ms, and each step simulates chunks of "
            f"{chunk.n_bins * data.dt_ms:g} ms. Set n_bins of [batch] to at least {n_bins}, or to {longest} for whole trials, or choose "
            "shorter windows."
        )


def expected_of(rollout: Any) -> Expected | None:
    """Return the means of the sampled counts given their past; None where the model gives none."""
    if "expected" not in rollout.latents or "expected_square" not in rollout.latents:
        return None
    return Expected(rollout.latents["expected"], rollout.latents["expected_square"])


def halves(free: FreeRun) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of two halves of the simulated trials: the trials of each condition are dealt out in turn."""
    condition = np.asarray(free.chunk.condition)
    order = np.argsort(condition, kind="stable")
    start = np.flatnonzero(np.diff(condition[order], prepend=condition[order][:1] - 1))
    rank = np.arange(len(order)) - np.repeat(start, np.diff(np.append(start, len(order))))
    # An odd trial of one condition goes to the other half than that of the condition before, so that both halves are of one size.
    n_odd = np.cumsum(np.diff(np.append(start, len(order))) % 2) - np.diff(np.append(start, len(order))) % 2
    side = (rank + np.repeat(n_odd, np.diff(np.append(start, len(order))))) % 2
    first, second = np.sort(order[side == 0]), np.sort(order[side == 1])
    if not len(second):
        raise InvalidInputError("a free run of one trial cannot be halved. Use at least two trials per batch, or two_half=false.")
    return first, second
