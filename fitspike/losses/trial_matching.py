"""Trial matching: the distribution of single trials, not only their mean."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from fitspike.errors import Problems
from fitspike.losses.base import LossContext, LossTerms
from fitspike.losses.repeats import check_can_follow, check_repeats
from fitspike.losses.summary_statistics import check_windows_fit
from fitspike.losses.trial_features import (
    RecordedTrials,
    Windows,
    check_size,
    equally_many,
    pairs_of_kinds,
    population_members,
    recorded_trials,
)

if TYPE_CHECKING:
    from fitspike.recording.binned import BinnedSpikes

DEFAULT_WINDOW_MS = 48.0

_MOST_ROUNDS, _TOLERANCE = 500, 0.01
"""Sinkhorn updates at one regularisation, and the change of a potential, in units of that regularisation, at which they end."""


@dataclass(frozen=True)
class TrialMatching:
    """Distance between freely simulated and recorded trials, each simulated one matched with a recorded one of its condition.

    After Sourmpis, Petersen, Gerstner, Bellec 2023, NeurIPS 36. A trial's features T are the mean count of each population of neurons in
    windows over the trial, less their mean and in units of their standard deviation over all recorded trials and windows. Unlike means
    over trials they tell trials apart that respond from trials that do not. As many recorded trials as there are simulated ones are drawn
    anew in each step, K of a condition:

    hard:  (1 / K D) sum_k |T(z_k) - T(recorded_pi(k))|^2, with the assignment pi that makes it least and D features; squared standard
           deviations per feature
    soft:  S(z, r) - S(z, z) / 2 - S(r, r) / 2, S being the entropic optimal transport cost of |T - T'| / sqrt(D) between the two sets
           (Sinkhorn divergence, Feydy et al. 2019, AISTATS 89:2681); standard deviations

    Only spikes hold the variability from trial to trial that is matched, so that they are used and never expected counts; the gradient
    passes through their pseudo-derivative, and not through the assignment. With K trials the least mean distance of two samples of one
    law is above 0; it tells fits at equal K apart, not their distance from the truth.

    window_ms, step_ms : length of the windows, None: about 48 ms; from one to the next, None: half a window
    assignment : "hard" or "soft"
    blur : regularisation of the soft one, in its unit
    """

    name: ClassVar[str] = "trial_matching"
    needs: ClassVar[frozenset[str]] = frozenset({"rollout"})
    window_ms: float | None = None
    step_ms: float | None = None
    assignment: str = "hard"
    blur: float = 0.05

    def __post_init__(self) -> None:
        problems = Problems(f"loss {self.name!r}")
        if self.assignment not in ("hard", "soft"):
            problems.add(f"assignment={self.assignment!r}; use 'hard' or 'soft'.")
        if not self.blur > 0:
            problems.add(f"blur={self.blur} must be above 0.")
        problems.raise_if_any()

    def check(self, binned: BinnedSpikes, model: Any) -> None:
        """Raise where there are no repeats, windows do not fit, or the model has nothing that tells it the time in a trial."""
        check_repeats(binned, self.name)
        check_size(binned, self._windows(binned), len(set(binned.info().populations)), self.name)
        check_can_follow(model, binned, self.name)

    def _windows(self, binned: BinnedSpikes) -> Windows:
        return Windows.of(binned.dt_ms, self.window_ms, self.step_ms, DEFAULT_WINDOW_MS)

    def record(self, binned: BinnedSpikes) -> RecordedTrials:
        """Return the features of the recorded trials."""
        members = population_members(binned.info().populations)
        return recorded_trials(binned, self._windows(binned), members, standardise=True)

    def __call__(self, context: LossContext) -> LossTerms:
        """Return {"trial_matching": distance}, the mean over simulated trials; 0 where no condition has any to compare."""
        free, recorded = context.free, context.recorded[self.name]
        check_windows_fit(self.name, recorded.windows.n_bins, free.chunk, context.data)
        total, n_matched = free.rollout.spikes.sum() * 0.0, 0
        for number, pair in enumerate(pairs_of_kinds(free, recorded)):
            ours, theirs = equally_many(*pair, context.rng.child(f"{self.name}/{number}"))
            between = matched_square if self.assignment == "hard" else lambda a, b: sinkhorn_divergence(a, b, self.blur)
            total, n_matched = total + len(ours) * between(ours, theirs), n_matched + len(ours)
        return {self.name: total / max(1, n_matched)}


def assign(simulated: torch.Tensor, recorded: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return row numbers of both (n_trials, n_features) that pair them with the least sum of squared distances (Hungarian method)."""
    from scipy.optimize import linear_sum_assignment

    cost = torch.cdist(simulated.detach(), recorded).square()
    return tuple(torch.as_tensor(index, device=simulated.device) for index in linear_sum_assignment(cost.cpu().numpy()))


def matched_square(simulated: torch.Tensor, recorded: torch.Tensor) -> torch.Tensor:
    """Return the mean squared difference of matched trials, both (n_trials, n_features)."""
    ours, theirs = assign(simulated, recorded)
    return (simulated[ours] - recorded[theirs]).square().mean()


def sinkhorn_divergence(simulated: torch.Tensor, recorded: torch.Tensor, blur: float) -> torch.Tensor:
    """Return the debiased entropic transport cost of |x - y| / sqrt(n_features); 0 for equal sets."""
    scale = math.sqrt(simulated.shape[1])
    pairs = ((simulated, recorded), (simulated, simulated), (recorded, recorded))
    between, own, theirs = (_transport(torch.cdist(x, y) / scale, blur) for x, y in pairs)
    return between - (own + theirs) / 2.0


def _transport(cost: torch.Tensor, blur: float) -> torch.Tensor:
    """Return min over plans P with uniform marginals of <P, cost> + blur KL(P | uniform), (n, m) -> scalar.

    Potentials in logarithms, the regularisation halved from the largest cost down to `blur`. The gradient of a minimum is that of what is
    minimised at the minimising plan, so that none passes through the iterations.
    """
    with torch.no_grad():
        known = cost.detach().double()
        log_n, log_m = (math.log(size) for size in known.shape)
        f, g = known.new_zeros(known.shape[0]), known.new_zeros(known.shape[1])
        now = max(blur, float(known.max()))
        while True:
            for _ in range(_MOST_ROUNDS):
                before = f
                f = -now * (torch.logsumexp((g - known) / now, 1) - log_m)
                g = -now * (torch.logsumexp((f[:, None] - known) / now, 0) - log_n)
                if float((f - before).abs().max()) < _TOLERANCE * now:
                    break
            if now == blur:
                break
            now = max(blur, now / 2.0)
        plan = torch.exp((f[:, None] + g - known) / blur - log_n - log_m).to(cost.dtype)
        value = (f.mean() + g.mean()).to(cost.dtype)
    return value + (plan * (cost - cost.detach())).sum()
