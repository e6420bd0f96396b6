"""Maximum mean discrepancy between simulated and recorded spike trains of whole trials."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
import torch

from fitspike.errors import InvalidInputError
from fitspike.losses.base import LossContext, LossTerms
from fitspike.losses.repeats import check_repeats
from fitspike.losses.summary_statistics import check_enough_trials, check_windows_fit
from fitspike.losses.trial_features import RecordedTrials, Windows, check_size, equally_many, pairs_of_kinds, recorded_trials

if TYPE_CHECKING:
    from fitspike.recording.binned import BinnedSpikes

DEFAULT_WINDOW_MS = 20.0

_MEDIAN_TRIALS = 300
"""Most recorded trials of a condition whose distances the bandwidth is taken from."""


class _Recorded(NamedTuple):
    """The trials, and the median over pairs of repeats of the mean squared difference per feature, spikes^2 per bin."""

    trials: RecordedTrials
    median_square: float


@dataclass(frozen=True)
class MaximumMeanDiscrepancy:
    """Squared maximum mean discrepancy of multi-neuron spike trains of one condition (after Arribas, Zhao, Park 2020, NeurIPS 33).

        mean_{k != k'} k(x_k, x_k') + mean_{k != k'} k(y_k, y_k') - 2 mean_{k, k'} k(x_k, y_k')

    with simulated trials x, as many recorded trials y, drawn anew in each step, and k(x, y) = exp(-d(x, y)^2 / (2 sigma^2)). d^2 is the
    mean over windows and neurons of the squared difference of mean counts, sigma `bandwidth` times its median root over pairs of recorded
    repeats (Gretton et al. 2012, JMLR 13:723, Eq. 3 and section 8). Without the pairs k = k' its mean is 0 for equal laws, so that single
    values may be below 0. Dimensionless, at most 2.

    Free runs start from the recorded past of their bins: with `n_bins` below a trial's length this compares predictions over `n_bins`.

    window_ms, step_ms : length of the windows, None: about 20 ms; from one to the next, None: half a window
    """

    name: ClassVar[str] = "mmd"
    needs: ClassVar[frozenset[str]] = frozenset({"rollout"})
    window_ms: float | None = None
    step_ms: float | None = None
    bandwidth: float = 1.0

    def __post_init__(self) -> None:
        if not self.bandwidth > 0:
            raise InvalidInputError(f"loss {self.name!r}: bandwidth={self.bandwidth} must be above 0; 1 is the median distance.")

    def check(self, binned: BinnedSpikes, model: Any) -> None:
        """Raise where there are no repeats, or windows do not fit."""
        check_repeats(binned, self.name)
        check_size(binned, self._windows(binned), binned.n_neurons, self.name)

    def _windows(self, binned: BinnedSpikes) -> Windows:
        return Windows.of(binned.dt_ms, self.window_ms, self.step_ms, DEFAULT_WINDOW_MS)

    def record(self, binned: BinnedSpikes) -> _Recorded:
        """Return the windowed counts of the recorded trials, and their median squared distance."""
        trials = recorded_trials(binned, self._windows(binned), torch.eye(binned.n_neurons), standardise=False)
        squares = []
        for kind in np.unique(trials.kind, axis=0):
            rows = np.flatnonzero((trials.kind == kind).all(1))
            rows = torch.as_tensor(rows[np.linspace(0, len(rows) - 1, min(len(rows), _MEDIAN_TRIALS)).astype(int)])
            value = trials.values[rows][:, trials.valid[rows].all(0)].flatten(1)
            squares.append(torch.pdist(value).square() / max(1, value.shape[1]))
        median = float(torch.cat(squares).median()) if squares else 0.0
        return _Recorded(trials, median if median > 0 else 1.0)

    def __call__(self, context: LossContext) -> LossTerms:
        """Return {"mmd": squared discrepancy}, the mean over simulated trials of conditions with two or more; 0 without any."""
        free, recorded = context.free, context.recorded[self.name]
        check_enough_trials(self.name, 2, free, context.data)
        check_windows_fit(self.name, recorded.trials.windows.n_bins, free.chunk, context.data)
        total, n_compared = free.rollout.spikes.sum() * 0.0, 0
        for number, pair in enumerate(pairs_of_kinds(free, recorded.trials)):
            ours, theirs = equally_many(*pair, context.rng.child(f"{self.name}/{number}"))
            if len(ours) > 1:
                value = squared_discrepancy(ours, theirs, self.bandwidth**2 * recorded.median_square)
                total, n_compared = total + len(ours) * value, n_compared + len(ours)
        return {self.name: total / max(1, n_compared)}


def squared_discrepancy(x: torch.Tensor, y: torch.Tensor, mean_square: float) -> torch.Tensor:
    """Return the U-statistic of the squared discrepancy of x (n, n_features) and y (m, n_features), n, m > 1.

    mean_square : squared bandwidth of the kernel, per feature
    """

    def kernel(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        # |a|^2 + |b|^2 - 2 a.b, whose slope is finite where a = b, unlike that of a distance's root
        square = a.square().sum(1)[:, None] + b.square().sum(1) - 2.0 * a @ b.T
        return torch.exp(-square.clamp_min(0.0) / (2.0 * mean_square * a.shape[1]))

    def among(a: torch.Tensor) -> torch.Tensor:
        values = kernel(a, a)
        return (values.sum() - values.diagonal().sum()) / (len(a) * (len(a) - 1))

    return among(x) + among(y) - 2.0 * kernel(x, y).mean()
