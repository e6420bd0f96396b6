"""What may be known of binned data before its spikes are seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class DataInfo:
    """What a model may know of the data before it sees it.

    n_conditions counts the distinct trial conditions (0: none). `signals` maps each signal's name to its number of channels.
    `populations` gives each neuron's population label. `mean_count` (n_neurons,) is the mean spike count per bin of the training data.
    `n_scored_bins` counts the bins of all trials outside warm-ups, where it is known. `has_repeats` says whether
    trials repeat one stimulus (`BinnedSpikes.repeat_groups`). `start_bins` are the bins of their original trials at which trials start, in
    ascending order: (0,) unless beginnings were cut off. Empty: not known, and taken as 0.
    """

    n_neurons: int
    n_trials: int
    dt_ms: float
    bins_per_trial: np.ndarray
    signals: Mapping[str, int] = field(default_factory=dict)
    populations: tuple[str, ...] = ()
    n_conditions: int = 0
    mean_count: np.ndarray | None = None
    has_repeats: bool = False
    n_scored_bins: int | None = None
    start_bins: tuple[int, ...] = ()
