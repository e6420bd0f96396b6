"""Some consecutive bins of some trials: what models, losses and statistics receive."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from fitspike.kernels.densify import densify

if TYPE_CHECKING:
    import torch

    from fitspike.recording.binned import BinnedSpikes


@dataclass(frozen=True, eq=False)
class SpikeChunk:
    """Bins first_bin .. first_bin + n_bins of some trials.

    trial (n_trials,) numbers within the BinnedSpikes. is_first: state starts fresh. row_pointer (n_trials, n_bins + 1) points into
    event_neuron and event_count (n_events,), which may hold events of other bins too. mask_numpy (n_trials, n_bins) is False past the end
    of a trial and in its warm-up. condition (n_trials,) is the index of the trial's condition, -1 without. start_s (n_trials,) is the
    absolute time of the chunk's first bin. trial_bin (n_trials,) is that bin's number in the trial as recorded: first_bin, but for trials
    whose beginning was cut off. signal_values: (n_trials, n_bins, n_channels) float64 by name, zeros past the end of a trial.
    """

    trial: np.ndarray
    first_bin: int
    n_bins: int
    is_first: bool
    dt_ms: float
    n_neurons: int
    row_pointer: np.ndarray
    event_neuron: np.ndarray
    event_count: np.ndarray | None
    mask_numpy: np.ndarray
    condition: np.ndarray
    start_s: np.ndarray
    trial_bin: np.ndarray
    signal_values: Mapping[str, np.ndarray] = field(default_factory=dict)
    source: BinnedSpikes | None = None
    """The binned spikes it was read from: for signals just outside the chunk and the names of conditions. None in a free rollout."""

    @classmethod
    def empty(
        cls,
        n_trials: int,
        n_bins: int,
        n_neurons: int,
        dt_ms: float,
        *,
        signals: Mapping[str, np.ndarray] | None = None,
        condition: np.ndarray | None = None,
        start_s: np.ndarray | None = None,
        first_bin: int = 0,
    ) -> SpikeChunk:
        """Return a chunk without spikes: the context of a free rollout. `signals`: (n_trials, n_bins, n_channels) by name."""
        return cls(
            trial=np.arange(n_trials),
            first_bin=first_bin,
            n_bins=n_bins,
            is_first=first_bin == 0,
            dt_ms=dt_ms,
            n_neurons=n_neurons,
            row_pointer=np.zeros((n_trials, n_bins + 1), dtype=np.int64),
            event_neuron=np.zeros(0, dtype=np.uint16),
            event_count=None,
            mask_numpy=np.ones((n_trials, n_bins), dtype=bool),
            condition=np.full(n_trials, -1) if condition is None else np.asarray(condition, dtype=np.int64),
            start_s=np.full(n_trials, first_bin * dt_ms / 1e3) if start_s is None else np.asarray(start_s, dtype=np.float64),
            trial_bin=np.full(n_trials, first_bin),
            signal_values={name: np.asarray(values, dtype=np.float64) for name, values in (signals or {}).items()},
        )

    @property
    def n_trials(self) -> int:
        """Return the number of trials in the chunk."""
        return len(self.trial)

    def rows(self, index: Sequence[int]) -> SpikeChunk:
        """Return the chunk of some of its trials, in the given order; a trial may come several times."""
        index = np.asarray(index, dtype=np.int64)
        names = ("trial", "row_pointer", "mask_numpy", "condition", "start_s", "trial_bin")
        signals = {name: values[index] for name, values in self.signal_values.items()}
        return replace(self, **{name: getattr(self, name)[index] for name in names}, signal_values=signals)

    @cached_property
    def mask(self) -> torch.Tensor:
        """Return the mask as a bool tensor (n_trials, n_bins)."""
        import torch

        return torch.as_tensor(self.mask_numpy)

    @cached_property
    def signals(self) -> Mapping[str, torch.Tensor]:
        """Return the signals as float32 tensors (n_trials, n_bins, n_channels)."""
        import torch

        return {name: torch.as_tensor(values, dtype=torch.float32) for name, values in self.signal_values.items()}

    def dense_numpy(self, dtype: str = "float32") -> np.ndarray:
        """Return the spike counts (n_trials, n_bins, n_neurons)."""
        return densify(self.row_pointer, self.event_neuron, self.event_count, self.n_neurons, dtype=dtype)

    def dense(self, dtype: str = "float32", device: str = "cpu") -> torch.Tensor:
        """Return the spike counts as a tensor (n_trials, n_bins, n_neurons)."""
        import torch

        return torch.as_tensor(self.dense_numpy(dtype), device=device)
