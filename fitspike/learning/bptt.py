"""Back-propagation through the rollout: the gradient of the weighted losses by automatic differentiation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from fitspike.citation import Citation
from fitspike.errors import InvalidInputError
from fitspike.learning.base import Batch, RawParams, StepMetrics
from fitspike.learning.free_runs import run_free
from fitspike.learning.nest import detach
from fitspike.losses.base import LossContext, ReadoutProduct
from fitspike.losses.total import WeightedLosses, check_losses, weighted_terms
from fitspike.models.base import HasLatents
from fitspike.params import ParamSpec, constrain
from fitspike.rng import Stream

if TYPE_CHECKING:
    from fitspike.models.base import DataInfo, Model


@dataclass(frozen=True)
class BPTT:
    """Gradient of the losses through all bins of a chunk, spikes included, by their pseudo-derivative; chunks are cut from one another.

    Neftci, Mostafa, Zenke 2019 (surrogate gradients). Truncation at chunk borders makes the memory that of one chunk; a chunk of a whole
    trial is not truncated.
    """

    name: ClassVar[str] = "bptt"
    citation: ClassVar[Citation] = Citation(
        "Neftci, Mostafa, Zenke 2019, Surrogate gradient learning in spiking neural networks, IEEE Signal Processing Magazine 36:51-63",
        doi="10.1109/MSP.2019.2931595",
        title="Surrogate gradient learning in spiking neural networks",
        year="2019",
    )
    requires: ClassVar[frozenset[type]] = frozenset()

    def bind(self, model: Model, specs: Mapping[str, ParamSpec], losses: WeightedLosses, data: DataInfo, rng: Stream) -> BoundBPTT:
        """Return the rule bound to a model and its losses.

        Raises
        ------
        InvalidInputError
            If no parameter is trainable, there is no loss, or a loss needs latents that the model does not have.
        """
        check_can_learn(model, specs, losses)
        return BoundBPTT(model, dict(specs), dict(losses), data)


@dataclass(frozen=True)
class BoundBPTT:
    """Back-propagation for one model and its losses."""

    model: Model
    specs: Mapping[str, ParamSpec]
    losses: WeightedLosses
    data: DataInfo

    def directions(self, raw: RawParams, batch: Batch) -> tuple[RawParams, StepMetrics]:
        """Return the gradient of the weighted losses per trainable raw parameter, and every loss term; sets the batch's new carry."""
        return differentiate(self.model, self.specs, self.losses, self.data, raw, batch)

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: back-propagation keeps no state between batches."""
        return {}


def differentiate(
    model: Model,
    specs: Mapping[str, ParamSpec],
    losses: WeightedLosses,
    data: DataInfo,
    raw: RawParams,
    batch: Batch,
    *,
    readout_by: ReadoutProduct | None = None,
) -> tuple[RawParams, StepMetrics]:
    """Return the gradient of the weighted losses per trainable raw parameter by automatic differentiation, and every loss term.

    Sets the batch's new carry. A rule that puts something else in place of one piece of the gradient differentiates the rest with this:
    `model` may be one whose units it drives itself (`HasUnits`), `readout_by` its own way from spikes to the outputs of a readout.
    """
    params = constrain(specs, raw)
    context = LossContext(
        model=model,
        params=params,
        chunk=batch.chunk,
        data=data,
        rng=batch.rng,
        carry=batch.carry,
        recorded=batch.recorded,
        run_free=lambda: run_free(
            model, params, batch.chunk, batch.carry, batch.rng, n_trials=batch.n_free_trials, has_repeats=data.has_repeats
        ),
        readout_by=readout_by,
    )
    terms, metrics = weighted_terms(losses, context)
    return gradients_of(terms, metrics, specs, raw, batch, context)


def check_can_learn(model: Model, specs: Mapping[str, ParamSpec], losses: WeightedLosses) -> None:
    """Raise an InvalidInputError if nothing can be trained, or a loss needs latents that the model does not have."""
    check_losses(losses)
    if not any(spec.trainable for spec in specs.values()):
        raise InvalidInputError(f"model {model.name!r} has no trainable parameter; there is nothing to fit.")
    for name, (loss, _) in losses.items():
        if "latents" in loss.needs and not isinstance(model, HasLatents):
            raise InvalidInputError(f"loss {name!r} needs latents, but model {model.name!r} has none. Use a model with latents.")


def gradients_of(
    terms: Mapping[str, torch.Tensor],
    metrics: Mapping[str, float],
    specs: Mapping[str, ParamSpec],
    raw: RawParams,
    batch: Batch,
    context: LossContext,
) -> tuple[RawParams, StepMetrics]:
    """Return the gradient of the sum of terms per trainable raw parameter, and the metrics; sets the batch's new carry."""
    trained = [name for name, spec in specs.items() if spec.trainable]
    inputs = [raw[name] for name in trained]
    if batch.wants_term_norms and len(terms) > 1:
        metrics = {**metrics, **{f"gradient_norm/{name}": _gradient_norm(term, inputs) for name, term in terms.items()}}
    gradients = torch.autograd.grad(torch.stack(list(terms.values())).sum(), inputs, allow_unused=True)
    if context.new_carry is None:
        # No loss has passed over the recorded spikes; the next chunk still needs their history.
        with torch.no_grad():
            _, context.new_carry = context.model.log_likelihood(context.params, batch.chunk, batch.carry, batch.rng)
    batch.new_carry = detach(context.new_carry)
    zeros = (torch.zeros_like(raw[name]) for name in trained)
    return {name: zero if g is None else g for name, g, zero in zip(trained, gradients, zeros, strict=True)}, metrics


def _gradient_norm(term: torch.Tensor, inputs: list[torch.Tensor]) -> float:
    """Return the norm of one term's gradient over all parameters; the graph is kept."""
    if not term.requires_grad:
        return 0.0
    found = torch.autograd.grad(term, inputs, allow_unused=True, retain_graph=True)
    return math.sqrt(sum(float(g.double().square().sum()) for g in found if g is not None))
