"""The protocol of a loss, what it is given, and the weighted sum of several."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

from fitspike.rng import Stream
from fitspike.types import Carry, Params

if TYPE_CHECKING:
    import torch

    from fitspike.models.base import DataInfo, Model, Rollout
    from fitspike.recording.binned import SpikeChunk

LossTerms: TypeAlias = "Mapping[str, torch.Tensor]"
"""Scalars by name, unweighted; weights are applied by the trainer, in one place."""


@dataclass
class LossContext:
    """What a loss sees of one batch. `rollout` is the free run, computed once however many losses ask for it."""

    model: Model
    params: Params
    chunk: SpikeChunk
    data: DataInfo
    rng: Stream
    carry: Carry = None
    recorded: Mapping[str, Any] = field(default_factory=dict)
    run_free: Callable[[], Rollout] | None = None
    new_carry: Carry = None

    @cached_property
    def rollout(self) -> Rollout:
        """Return the free rollout of this batch."""
        assert self.run_free is not None, "the trainer provides run_free whenever a loss needs a rollout"
        return self.run_free()


@runtime_checkable
class Loss(Protocol):
    """`needs` is a subset of {"chunk", "rollout", "latents"}."""

    name: str
    needs: frozenset[str]

    def __call__(self, context: LossContext) -> LossTerms:
        """Return the loss terms of this batch, unweighted, each per spike-bin or as its docstring says."""
        ...
