"""Keeping the hidden neurons of a task at a rate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from fitspike.errors import InvalidInputError
from fitspike.losses.base import LossContext, LossTerms


@dataclass(frozen=True)
class RateRegulariser:
    """Summed squared deviation of the hidden neurons' mean spikes per bin from a target, in the clamped run.

    sum_j (f_j - f_0)^2,  f_j the mean of z_j over the batch's trials and bins (Bellec et al. 2020, Nature Communications 11:3625). Unlike
    `hidden_rate`, which watches expected counts of free runs, this acts on the spikes that a readout sees.

    rate_hz : the target
    """

    name: ClassVar[str] = "rate_regulariser"
    needs: ClassVar[frozenset[str]] = frozenset({"chunk"})
    rate_hz: float = 10.0

    def __post_init__(self) -> None:
        if not self.rate_hz >= 0:
            raise InvalidInputError(f"loss {self.name!r}: rate_hz={self.rate_hz} must not be negative.")

    def check(self, binned: Any, model: Any) -> None:
        """Raise where the model has no hidden neurons."""
        if not getattr(model, "n_hidden", 0) or not hasattr(model, "clamped"):
            raise InvalidInputError(
                f"loss {self.name!r} holds hidden neurons at a rate, and {model.name!r} has none. Set n_hidden, or leave this loss out."
            )

    def __call__(self, context: LossContext) -> LossTerms:
        """Return {"rate_regulariser": sum of squares in (spikes per bin)^2}; logs "hidden_rate_hz", the mean rate."""
        spikes = context.clamped.latents["hidden_spikes"]
        mask = context.chunk.mask.to(spikes.device).unsqueeze(-1)
        mean = (spikes * mask).sum((0, 1)) / mask.sum().clamp_min(1)  # (n_hidden,)
        per_hz = context.chunk.dt_ms / 1000
        context.metrics["hidden_rate_hz"] = float(mean.detach().mean()) / per_hz
        return {self.name: (mean - self.rate_hz * per_hz).square().sum()}
