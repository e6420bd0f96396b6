"""How well one half of a recording agrees with the other: what a simulation can be expected to reach."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fitspike.statistics.summary import AGREEMENT, SummarySettings, compare_summaries, summarise

if TYPE_CHECKING:
    from fitspike.recording.binned import BinnedSpikes

N_BLOCKS = 20
"""Pieces of a recording without several trials, which go to the halves in turn."""


def split_half_agreement(binned: BinnedSpikes, settings: SummarySettings | None = None) -> dict[str, float]:
    """Return the measures `statistics.summary.AGREEMENT` of the second half of the data against the first, plain floats by name.

    The trials of each condition go to the two halves in turn; a recording of one trial is cut into 20 pieces. Each half has half the
    trials, so that a perfect model simulated for as long as the whole recording does a little better.
    """
    first, second = (summarise(half, settings) for half in halves_of(binned))
    found = compare_summaries(first, second)
    return {name: float(found[name]) for name in AGREEMENT if name in found}


def halves_of(binned: BinnedSpikes) -> tuple[BinnedSpikes, BinnedSpikes]:
    """Return the two halves of the data."""
    if binned.n_trials > 1:
        rank = np.zeros(binned.n_trials, np.int64)
        for condition in np.unique(binned.conditions):
            members = np.flatnonzero(binned.conditions == condition)
            rank[members] = np.arange(len(members))
        if not (rank > 0).any():  # every condition once
            rank = np.arange(binned.n_trials)
        return tuple(binned.select_trials(np.flatnonzero(rank % 2 == side)) for side in (0, 1))
    warmup = int(binned.warmup_bins[0])
    edges = np.linspace(warmup, int(binned.bins_per_trial[0]), N_BLOCKS + 1).round().astype(int).tolist()
    pieces = [(0, low, high, 0) for low, high in zip(edges[:-1], edges[1:], strict=True) if high > low]
    return tuple(binned.pieces(pieces[side::2]) for side in (0, 1))
