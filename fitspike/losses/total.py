"""The weighted sum of losses: the one place where weights are applied."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from fitspike.errors import InvalidInputError, PluginError
from fitspike.losses.base import HasParams, HasRecord, Loss, LossContext

if TYPE_CHECKING:
    from fitspike.params import ParamSpec
    from fitspike.recording.binned import BinnedSpikes
    from fitspike.recording.info import DataInfo

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


def all_specs(model: Any, losses: WeightedLosses, data: DataInfo) -> dict[str, ParamSpec]:
    """Return the specs of a model's parameters, and those that losses bring as LOSS/PARAMETER."""
    specs = dict(model.param_specs(data))
    for loss, _ in losses.values():
        if not isinstance(loss, HasParams):
            continue
        for name, spec in loss.param_specs(model, data).items():
            if "/" in name or f"{loss.name}/{name}" in specs:
                raise PluginError(f"loss {loss.name!r} brings a parameter {name!r}; expected a new name without a slash.")
            specs[f"{loss.name}/{name}"] = spec
    return specs


def record_all(losses: WeightedLosses, binned: BinnedSpikes) -> dict[str, Any]:
    """Return what each loss takes from the training data once, by the loss's own name."""
    return {loss.name: loss.record(binned) for loss, _ in losses.values() if isinstance(loss, HasRecord)}


def weighted_terms(losses: WeightedLosses, context: LossContext) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    """Return every term times its loss's weight, and the unweighted terms by name with the weighted sum as "loss".

    A loss of several terms lends its weight to each of them. What losses put into `context.metrics` comes with the unweighted terms.
    """
    terms, metrics = {}, {}
    for name, (loss, weight) in losses.items():
        for term, value in loss(context).items():
            if value.ndim:
                raise PluginError(f"term {term!r} of loss {name!r} has shape {tuple(value.shape)}; expected a scalar.")
            if term in terms:
                raise PluginError(f"two losses return a term called {term!r}.")
            terms[term] = weight * value.double()
            metrics[term] = float(value.detach())
    if not terms:
        raise PluginError(f"the losses {', '.join(losses)} returned no term.")
    metrics["loss"] = sum(float(term.detach()) for term in terms.values())
    return terms, context.metrics | metrics
