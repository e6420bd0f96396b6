"""The protocol of a summary statistic: accumulated chunk by chunk, differentiable, never holding the whole recording."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

if TYPE_CHECKING:
    import torch

    from fitspike.recording.binned import SpikeChunk
    from fitspike.recording.info import DataInfo

Acc: TypeAlias = Any
"""Accumulator of a statistic: any nest of tensors."""


class Expected(NamedTuple):
    """Means of sampled counts given their sampled past, (n_trials, n_bins, n_neurons): of the count and of its square.

    The square has to be told apart: the pseudo-derivative of a sampled spike z gives z^2 the slope 2 z, although for a spike or none
    z^2 = z has the slope 1.
    """

    count: torch.Tensor
    square: torch.Tensor


@runtime_checkable
class Statistic(Protocol):
    """A frozen settings object. `default_distance` names the distance a loss takes unless told otherwise (`fitspike.losses.distances`).

    Optional: `is_differentiable` (default True); False says that the value carries no gradient, so that a loss can refuse it.
    `takes_expected` (default False); True says that `update` takes a keyword `expected` (`Expected`, of sampled spikes) and puts
    conditional means in the place of the latest spikes of each product: the same mean with less variance, and a gradient that is exact
    there; "binary" says so for bins of at most one spike. `needs_repeats` (default False); True says that trials are compared which must
    be repeats of one stimulus. `compares_trials` (default False); True says that where trials repeat, the value is of differences between
    repeats of one condition, of which it needs two; a field `centre` of "trial" turns that off.
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
