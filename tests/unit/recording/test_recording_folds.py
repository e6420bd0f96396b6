"""Blocked folds: nothing is trained on and validated in one fold, and everything is validated."""

import numpy as np
import pytest

from fitspike.errors import InvalidInputError
from fitspike.recording.recording import Recording, TrialTable


def bins_of(binned, *, scored_only):
    """Return the set of (recorded trial, recorded bin) that a part holds, or scores."""
    found = set()
    for k in range(binned.n_trials):
        first = int(binned.warmup_bins[k]) if scored_only else 0
        found |= {(int(binned.trial_index[k]), int(binned.trial_bin[k]) + b) for b in range(first, int(binned.bins_per_trial[k]))}
    return found


@pytest.mark.parametrize("n_folds", [2, 3, 5])
@pytest.mark.parametrize("n_trials", [1, 2, 4, 7])
@pytest.mark.parametrize("gap_bins", [0, 3, 1000])
def test_no_bin_is_on_both_sides_and_histories_do_not_cross(n_folds, n_trials, gap_bins):
    counts = [np.arange((60 + k) * 2).reshape(-1, 2) % 3 for k in range(n_trials)]
    binned = Recording.from_counts(counts, dt_ms=1).bin()
    pairs = binned.folds(n_folds, gap_bins=gap_bins)
    assert len(pairs) == n_folds
    everything = bins_of(binned, scored_only=True)
    validated = []
    for train, validation in pairs:
        # not even the unscored history of one side is in the other
        assert not bins_of(train, scored_only=False) & bins_of(validation, scored_only=False)
        assert bins_of(train, scored_only=False) | bins_of(validation, scored_only=False) == everything
        assert bins_of(train, scored_only=True) and bins_of(validation, scored_only=True)
        validated += list(bins_of(validation, scored_only=False))
    assert sorted(validated) == sorted(everything)


def test_pieces_after_a_cut_begin_with_the_gap_as_warm_up():
    binned = Recording.from_counts(np.ones((90, 1), int), dt_ms=1).bin()
    train, validation = binned.folds(3, gap_bins=4, blocks_per_fold=3)[0]
    # 9 blocks of 10 bins; fold 0 validates blocks 0, 3 and 6, and trains on 1-2, 4-5 and 7-8
    assert validation.trial_bin.tolist() == [0, 30, 60] and validation.warmup_bins.tolist() == [0, 4, 4]
    assert train.trial_bin.tolist() == [10, 40, 70] and train.warmup_bins.tolist() == [4, 4, 4]
    assert train.bins_per_trial.tolist() == [20, 20, 20]
    assert train.n_spikes == 60


def test_conditions_are_dealt_evenly():
    conditions = ["a"] * 10 + ["b"] * 5 + ["c"] * 3
    recording = Recording.from_trials([[[0.1]]] * 18, durations_s=0.2, conditions=conditions)
    for _, validation in recording.bin(10.0).folds(5):
        numbers = np.bincount(validation.conditions, minlength=3)
        assert numbers[0] == 2 and numbers[1] == 1 and numbers[2] <= 1
        assert validation.n_trials in (3, 4)


def test_a_warm_up_of_the_trial_stays_in_front_and_is_not_scored():
    recording = Recording.from_counts(np.ones((100, 1), int), dt_ms=1)
    recording = recording.with_trials(TrialTable.make([0], [100_000_000], warmup_ns=[10_000_000]))
    pairs = recording.bin().folds(3, gap_bins=2)
    scored = set().union(*(bins_of(validation, scored_only=True) for _, validation in pairs))
    assert min(scored) == (0, 10)
    assert pairs[0][1].warmup_bins[0] == 10


def test_too_little_to_fold_is_said():
    binned = Recording.from_counts(np.ones((10, 1), int), dt_ms=1).bin()
    with pytest.raises(InvalidInputError, match="too few for 5 folds"):
        binned.folds(5)
    with pytest.raises(InvalidInputError, match="at least 2"):
        binned.folds(1)
