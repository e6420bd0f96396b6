"""Keeping hidden neurons at a plausible rate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from fitspike.errors import InvalidInputError
from fitspike.losses.base import LossContext, LossTerms
from fitspike.losses.summary_statistics import is_binary

if TYPE_CHECKING:
    from fitspike.recording.binned import BinnedSpikes


@dataclass(frozen=True)
class HiddenRate:
    """Mean squared deviation of each hidden neuron's mean count per bin in the free run from a target (Bellec et al. 2021, NeurIPS 34).

    In units of the target squared: 1 is a silent hidden neuron. Without it hidden neurons may fall silent or saturate, and take no part.

    rate_hz : the target; None: the mean rate of the recorded neurons
    """

    name: ClassVar[str] = "hidden_rate"
    needs: ClassVar[frozenset[str]] = frozenset({"rollout"})
    rate_hz: float | None = None

    def __post_init__(self) -> None:
        if self.rate_hz is not None and not self.rate_hz > 0:
            raise InvalidInputError(f"loss {self.name!r}: rate_hz={self.rate_hz} must be positive.")

    def check(self, binned: BinnedSpikes, model: Any) -> None:
        """Raise where the model has no hidden neurons, or the target is none that they can have."""
        if not getattr(model, "n_hidden", 0):
            raise InvalidInputError(
                f"loss {self.name!r} holds hidden neurons at a rate, and {model.name!r} has none. Set n_hidden, or leave this loss out."
            )
        if self.record(binned) > 1 and is_binary(model):
            raise InvalidInputError(
                f"loss {self.name!r}: rate_hz={self.rate_hz} is more than one spike per bin of {binned.dt_ms:g} ms, the most that the "
                f"model's emission knows. Use at most {1000 / binned.dt_ms:g}, shorter bins, or emission='poisson'."
            )

    def record(self, binned: BinnedSpikes) -> float:
        """Return the target in spikes per bin."""
        return float(binned.mean_count().mean()) if self.rate_hz is None else self.rate_hz * binned.dt_ms / 1000

    def __call__(self, context: LossContext) -> LossTerms:
        """Return {"hidden_rate": mean over hidden neurons of (mean count / target - 1)^2}; 0 without hidden neurons."""
        hidden = context.rollout.latents.get("hidden_expected")
        if hidden is None:
            return {self.name: context.rollout.spikes.new_zeros(())}
        mask = context.free.chunk.mask.to(hidden.device)[..., None]
        mean = (hidden * mask).sum((0, 1)) / mask.sum().clamp_min(1)
        return {self.name: (mean / context.recorded[self.name] - 1.0).square().mean()}
