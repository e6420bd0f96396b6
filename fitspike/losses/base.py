"""The protocol of a loss and what it is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

from fitspike.rng import Stream
from fitspike.types import Carry, Params

if TYPE_CHECKING:
    import torch

    from fitspike.models.base import DataInfo, Model, Rollout
    from fitspike.params import ParamSpec
    from fitspike.recording.binned import BinnedSpikes, SpikeChunk

LossTerms: TypeAlias = "Mapping[str, torch.Tensor]"
"""Scalars by name, unweighted; weights are applied by the trainer, in one place."""


class FreeRun(NamedTuple):
    """Freely simulated trials: what came out, and the bins, trials, conditions and signals it was run over."""

    rollout: Rollout
    chunk: SpikeChunk


class Traces(NamedTuple):
    """What a loss compares over time.

    output, target : Tensor, (n_trials, n_bins, n_out)
    weight : Tensor, (n_trials, n_bins), 0 where nothing is compared
    is_class : whether outputs are probabilities of classes, and targets 1 for the right one
    """

    output: torch.Tensor
    target: torch.Tensor
    weight: torch.Tensor
    is_class: bool = False


ReadoutProduct: TypeAlias = "Callable[[str, torch.Tensor, torch.Tensor, torch.Tensor, float], torch.Tensor]"
"""(name, spikes, weight, decay, gain) -> outputs: what `fitspike.losses.readout.leaky_readout` computes."""


@dataclass
class LossContext:
    """What a loss sees of one batch.

    `free` (and `rollout`, a part of it) is the free run, and `clamped` the run clamped to the chunk's spikes with hidden neurons sampled;
    each is computed once however many losses ask for it. `recorded` holds by loss what its `record` returned. A loss may put plain floats
    into `metrics`, which are logged beside its terms. A learning rule may set `clamped` and `free` to runs of its own, and `readout_by` to
    another way from spikes to outputs (with feedback weights of its own in the backward pass, say).
    """

    model: Model
    params: Params
    chunk: SpikeChunk
    data: DataInfo
    rng: Stream
    carry: Carry = None
    recorded: Mapping[str, Any] = field(default_factory=dict)
    run_free: Callable[[], FreeRun] | None = None
    new_carry: Carry = None
    metrics: dict[str, float] = field(default_factory=dict)
    readout_by: ReadoutProduct | None = None

    def own(self, loss: Loss) -> Params:
        """Return the parameters that a loss brought by its `param_specs`, by the names that it gave them."""
        prefix = f"{loss.name}/"
        return {name.removeprefix(prefix): value for name, value in self.params.items() if name.startswith(prefix)}

    @cached_property
    def clamped(self) -> Rollout:
        """Return the clamped run of this batch; sets `new_carry`. The model must have `clamped`."""
        run = self.model.clamped(self.params, self.chunk, self.carry, self.rng)
        self.new_carry = run.carry
        return run

    @cached_property
    def free(self) -> FreeRun:
        """Return the free run of this batch."""
        assert self.run_free is not None, "the trainer provides run_free whenever a loss needs a rollout"
        return self.run_free()

    @property
    def rollout(self) -> Rollout:
        """Return the rollout of the free run."""
        return self.free.rollout


@runtime_checkable
class Loss(Protocol):
    """`needs` is a subset of {"chunk", "rollout", "latents"}.

    Optional: `check(binned, model)` raises an InvalidInputError, before anything is computed, where the loss makes no sense for these
    training data; `record(binned)` returns what the loss needs to know of them, once per fit, which comes back as
    `context.recorded[name]` with the loss's own name; `param_specs(model, data)` returns the specs of parameters of its own, which are
    fitted and stored as NAME/PARAMETER and come back as `context.own(self)`; `traces(context)` returns what is compared over time, which is
    drawn for trials not trained on.
    """

    name: str
    needs: frozenset[str]

    def __call__(self, context: LossContext) -> LossTerms:
        """Return the loss terms of this batch, unweighted, each per spike-bin or as its docstring says."""
        ...


@runtime_checkable
class HasRecord(Protocol):
    """A loss that compares with something it takes from the training data once."""

    def record(self, binned: BinnedSpikes) -> Any:
        """Return what the loss needs to know of the training data."""
        ...


@runtime_checkable
class HasParams(Protocol):
    """A loss with parameters of its own, such as the weights of a readout."""

    def param_specs(self, model: Model, data: DataInfo) -> Mapping[str, ParamSpec]:
        """Return the specs of the loss's own parameters, by names without a slash."""
        ...


@runtime_checkable
class HasCheck(Protocol):
    """A loss that can tell whether it makes sense for these data and this model."""

    def check(self, binned: BinnedSpikes, model: Model) -> None:
        """Raise an InvalidInputError where it does not."""
        ...


@runtime_checkable
class HasTraces(Protocol):
    """A loss that compares signals over time and can show them: the output of a readout beside its target, say."""

    def traces(self, context: LossContext) -> Traces:
        """Return what is compared in the trials of the context's chunk."""
        ...
