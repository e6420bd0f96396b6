"""The protocol of a summary statistic: accumulated chunk by chunk, differentiable, never holding the whole recording."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

if TYPE_CHECKING:
    import torch

    from fitspike.recording.binned import SpikeChunk
    from fitspike.recording.info import DataInfo

Acc: TypeAlias = Any
"""Accumulator of a statistic: any nest of tensors."""


@runtime_checkable
class Statistic(Protocol):
    """A frozen settings object. `default_distance` is "mse", "poisson" or "cross_entropy".

    Optional: `is_differentiable` (default True); False says that the value carries no gradient, so that a loss can refuse it.
    """

    name: str
    unit: str
    default_distance: str

    def init(self, data: DataInfo) -> Acc:
        """Return an empty accumulator."""
        ...

    def update(self, acc: Acc, spikes: torch.Tensor, chunk: SpikeChunk) -> Acc:
        """Return the accumulator with the spikes (n_trials, n_bins, n_neurons) of one chunk added.

        `chunk` gives the mask, the trials, their conditions and the first bin; its own spikes are not used.
        """
        ...

    def finalise(self, acc: Acc) -> torch.Tensor:
        """Return the statistic."""
        ...
