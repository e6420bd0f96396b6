"""The weighted sum of losses: the one place where weights are applied."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from fitspike.errors import InvalidInputError, PluginError
from fitspike.losses.base import Loss, LossContext

WeightedLosses = Mapping[str, tuple[Loss, float]]
"""Name of each loss -> (loss, weight)."""

NEEDS = frozenset({"chunk", "rollout", "latents"})


def check_losses(losses: WeightedLosses) -> None:
    """Raise unless there is a loss, every weight is finite and every need is known."""
    if not losses:
        raise InvalidInputError("no loss is given. Use loss='nll'.")
    for name, (loss, weight) in losses.items():
        if not torch.isfinite(torch.tensor(float(weight))):
            raise InvalidInputError(f"loss {name!r} has weight {weight}. Use a finite number.")
        if unknown := set(loss.needs) - NEEDS:
            raise PluginError(f"loss {name!r} needs {', '.join(sorted(unknown))}; a loss can need {', '.join(sorted(NEEDS))}.")


def weighted_total(losses: WeightedLosses, context: LossContext) -> tuple[torch.Tensor, dict[str, float]]:
    """Return the sum of all terms times their loss's weight, and every unweighted term by name with the total as "loss".

    A loss of several terms lends its weight to each of them.
    """
    total, metrics = None, {}
    for name, (loss, weight) in losses.items():
        for term, value in loss(context).items():
            if value.ndim:
                raise PluginError(f"term {term!r} of loss {name!r} has shape {tuple(value.shape)}; expected a scalar.")
            total = weight * value if total is None else total + weight * value
            metrics[term] = float(value.detach())
    if total is None:
        raise PluginError(f"the losses {', '.join(losses)} returned no term.")
    metrics["loss"] = float(total.detach())
    return total, metrics
