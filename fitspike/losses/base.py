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
    from fitspike.recording.binned import BinnedSpikes, SpikeChunk

LossTerms: TypeAlias = "Mapping[str, torch.Tensor]"
"""Scalars by name, unweighted; weights are applied by the trainer, in one place."""


class FreeRun(NamedTuple):
    """Freely simulated trials: what came out, and the bins, trials, conditions and signals it was run over."""

    rollout: Rollout
    chunk: SpikeChunk


@dataclass
class LossContext:
    """What a loss sees of one batch.

    `free` (and `rollout`, a part of it) is the free run, computed once however many losses ask for it. `recorded` holds by loss what its
    `record` returned.
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
    `context.recorded[name]` with the loss's own name.
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
class HasCheck(Protocol):
    """A loss that can tell whether it makes sense for these data and this model."""

    def check(self, binned: BinnedSpikes, model: Model) -> None:
        """Raise an InvalidInputError where it does not."""
        ...
