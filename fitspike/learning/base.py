"""The protocols of a learning rule (which direction) and of an update transform (what becomes of the optimiser's step)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

from fitspike.citation import Citation
from fitspike.params import ParamSpec
from fitspike.rng import Stream
from fitspike.types import Carry, State

if TYPE_CHECKING:
    import torch

    from fitspike.learning.optimisers import OptimiserSlots
    from fitspike.models.base import DataInfo, Model
    from fitspike.recording.binned import SpikeChunk

RawParams: TypeAlias = "dict[str, torch.Tensor]"
StepMetrics: TypeAlias = Mapping[str, float]


@dataclass
class Batch:
    """One chunk of data with everything a rule needs to turn it into directions.

    recorded : what the losses' `record` returned, by loss. n_free_trials : trials of a free run, None for as many as the chunk has.
    wants_term_norms : whether the metrics should hold "gradient_norm/TERM", the norm of each weighted term's gradient.
    """

    chunk: SpikeChunk
    carry: Carry
    rng: Stream
    recorded: Mapping[str, Any] = field(default_factory=dict)
    n_free_trials: int | None = None
    wants_term_norms: bool = False
    new_carry: Carry = None


@runtime_checkable
class BoundRule(Protocol):
    """A rule tied to one model, its parameters and its losses."""

    def directions(self, raw: RawParams, batch: Batch) -> tuple[RawParams, StepMetrics]:
        """Return the direction of ascent of the loss per raw parameter (a gradient or what the rule puts in its place) and plain floats.

        Losses count by their weights. Sets `batch.new_carry`, the state after the chunk without its graph; the trainer gives it back as
        the `carry` of the same trials' next chunk.
        """
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return the rule's own state, for checkpoints."""
        ...


@runtime_checkable
class LearningRule(Protocol):
    """`requires` lists the capability protocols a model must have for this rule."""

    name: str
    citation: Citation
    requires: frozenset[type]

    def bind(
        self,
        model: Model,
        specs: Mapping[str, ParamSpec],
        losses: Mapping[str, tuple[Any, float]],
        data: DataInfo,
        rng: Stream,
    ) -> BoundRule:
        """Return the rule bound to a model; every compatibility check happens here. `losses`: name -> (loss, weight)."""
        ...


@dataclass(frozen=True)
class TrainingPlan:
    """How a fit is going to be trained, for the checks of update transforms before anything is computed.

    losses : name -> (loss, weight). optimiser : its name, in small letters.
    """

    specs: Mapping[str, ParamSpec]
    losses: Mapping[str, tuple[Any, float]]
    optimiser: str


@dataclass(frozen=True)
class UpdateStep:
    """One step of training as an update transform sees it.

    step : its number, 0 for the first, of at most `n_steps`. learning_rate : the optimiser's in this step. signals : of the chunk that the
    step saw. rng : the step's own stream. slots : the optimiser's memory of each entry.
    """

    step: int
    n_steps: int
    learning_rate: float
    signals: Mapping[str, torch.Tensor]
    rng: Stream
    slots: OptimiserSlots


@runtime_checkable
class UpdateTransform(Protocol):
    """Acts after the optimiser: freezing, clipping, rewiring, availability.

    Optional: `check(plan)` raises an InvalidInputError, before anything is computed, where the transform cannot serve that training;
    `reparametrise(specs)` returns the specs with other constraints on parameters that the transform keeps within bounds itself.
    """

    name: str
    citation: Citation

    def init(self, specs: Mapping[str, ParamSpec], raw: RawParams, rng: Stream) -> tuple[RawParams, State]:
        """Return the raw parameters to begin with and the transform's state, a nest of tensors. `specs` are the model's own."""
        ...

    def apply(self, state: State, raw: RawParams, update: RawParams, step: UpdateStep) -> tuple[RawParams, State]:
        """Return the raw parameters after the step and the new state.

        `raw` is before the step, `update` what the optimiser proposes to add. Fixed parameters may be changed too.
        """
        ...


@runtime_checkable
class HasPlanCheck(Protocol):
    """An update transform that can tell whether it makes sense for a training."""

    def check(self, plan: TrainingPlan) -> None:
        """Raise an InvalidInputError that says why this training would fail and what to do."""
        ...


@runtime_checkable
class HasReparametrisation(Protocol):
    """An update transform that takes over the constraint of some parameters, such as signs, because it needs values on the boundary."""

    def reparametrise(self, specs: Mapping[str, ParamSpec]) -> Mapping[str, ParamSpec]:
        """Return the specs by which values are mapped to raw ones in training; names and shapes stay."""
        ...
