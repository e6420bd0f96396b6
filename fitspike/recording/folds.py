"""Blocked folds for choosing settings on training data: which trials or stretches of bins are for training, which for validation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fitspike.errors import InvalidInputError

if TYPE_CHECKING:
    from fitspike.recording.binned import BinnedSpikes

Piece = tuple[int, int, int, int]
"""(trial, first bin, stop bin, warm-up bins)"""


def folds(binned: BinnedSpikes, n_folds: int, *, gap_bins: int = 0, blocks_per_fold: int = 3) -> list[tuple[BinnedSpikes, BinnedSpikes]]:
    """Return (training, validation) pairs; every scored bin is validated in at most one fold and never trained on in the same.

    With at least `n_folds` trials whole trials are dealt out, those of each condition evenly. With fewer, each trial is cut into
    `n_folds * blocks_per_fold` blocks that are dealt out in turn, so that slow drift falls on all folds alike. Each stretch of blocks is
    then a trial of its own; the first `gap_bins` of a stretch that begins at a cut (at most half of it) are its warm-up: they feed its
    history and are not scored. So no bin of the validation enters training, not even as history, nor the reverse.

    Raises
    ------
    InvalidInputError
        If there are fewer than two folds, or too few bins to cut.
    """
    if n_folds < 2:
        raise InvalidInputError(f"n_folds={n_folds}; cross-validation needs at least 2.")
    if binned.n_trials >= n_folds:
        fold_of = _deal_trials(binned.conditions, n_folds)
        every = range(binned.n_trials)
        return [
            (binned.select_trials([k for k in every if fold_of[k] != fold]), binned.select_trials([k for k in every if fold_of[k] == fold]))
            for fold in range(n_folds)
        ]
    n_blocks = n_folds * blocks_per_fold
    longest = int(binned.bins_per_trial.max(initial=0))
    if longest < 2 * n_blocks:
        raise InvalidInputError(
            f"{binned.n_trials} trials of at most {longest} bins are too few for {n_folds} folds of {blocks_per_fold} blocks each. "
            "Use fewer folds or shorter bins."
        )
    pairs = []
    for fold in range(n_folds):
        training, validation = [], []
        for trial in range(binned.n_trials):
            is_validation = (np.arange(n_blocks) + trial) % n_folds == fold
            training += _stretches(binned, trial, ~is_validation, gap_bins)
            validation += _stretches(binned, trial, is_validation, gap_bins)
        pairs.append((binned.pieces(training), binned.pieces(validation)))
    return pairs


def _deal_trials(conditions: np.ndarray, n_folds: int) -> np.ndarray:
    """Return each trial's fold (n_trials,): consecutive trials of a condition go to consecutive folds, and so do the conditions' ends."""
    fold_of = np.empty(len(conditions), dtype=np.int64)
    order = np.argsort(conditions, kind="stable")
    fold_of[order] = np.arange(len(conditions)) % n_folds
    return fold_of


def _stretches(binned: BinnedSpikes, trial: int, is_chosen: np.ndarray, gap_bins: int) -> list[Piece]:
    """Return the pieces of a trial that runs of chosen blocks make; (n_blocks,) bool."""
    warmup = int(binned.warmup_bins[trial])
    edges = np.linspace(warmup, int(binned.bins_per_trial[trial]), len(is_chosen) + 1).astype(np.int64)
    change = np.flatnonzero(np.diff(np.concatenate([[0], is_chosen.astype(np.int8), [0]])))
    pieces = []
    for first_block, stop_block in zip(change[::2], change[1::2], strict=True):
        first, stop = int(edges[first_block]), int(edges[stop_block])
        if stop == first:
            continue
        if first_block == 0:  # the trial's own warm-up leads in
            pieces.append((trial, 0, stop, warmup))
        else:
            pieces.append((trial, first, stop, min(gap_bins, (stop - first) // 2)))
    return pieces
