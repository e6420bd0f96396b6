"""Nests, the order of the data, cutting of long trials, schedules."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pytest
import torch

from fitspike.learning.batches import cut_long_trials, ordered_chunks
from fitspike.learning.nest import detach, fill, leaves, map_tensors
from fitspike.learning.optimisers import learning_rate_at
from fitspike.learning.stopping import StopRule, Watch
from fitspike.recording.recording import Recording
from fitspike.rng import Stream


@dataclass(frozen=True)
class Part:
    first: torch.Tensor
    second: object = None


class Pair(NamedTuple):
    left: torch.Tensor
    right: object


def nest():
    a, b, c, d = (torch.full((2,), float(i), requires_grad=True) for i in range(4))
    return {"x": [a, (b, None)], "y": Part(c, Pair(d, "text"))}


def test_nests_are_mapped_collected_and_filled_in_one_order():
    made = nest()
    assert [int(leaf[0]) for leaf in leaves(made)] == [0, 1, 2, 3]
    doubled = map_tensors(made, lambda x: 2 * x)
    assert isinstance(doubled["y"], Part) and isinstance(doubled["y"].second, Pair) and doubled["y"].second.right == "text"
    refilled = fill(made, iter(leaves(doubled)))
    assert [int(leaf[0]) for leaf in leaves(refilled)] == [0, 2, 4, 6]
    assert not any(leaf.requires_grad for leaf in leaves(detach(made)))


def binned_of(lengths, n_neurons=3):
    rng = np.random.default_rng(0)
    return Recording.from_counts([rng.poisson(0.1, (n, n_neurons)) for n in lengths], dt_ms=1.0).bin()


@pytest.mark.parametrize("lengths", [(5000,), (3000, 700), (2500, 2500, 10)])
def test_cut_trials_score_every_bin_once_and_start_with_true_history(lengths):
    binned = binned_of(lengths)
    cut = cut_long_trials(binned, 300, 8)
    assert cut.n_trials >= 8
    assert cut.n_scored_bins == binned.n_bins_total
    np.testing.assert_array_equal(cut.counts(scored_only=True).sum(0), binned.counts().sum(0))
    assert set(cut.warmup_bins[cut.trial_bin > 0].tolist()) == {200}


def test_many_trials_are_not_cut():
    binned = binned_of((50,) * 9)
    assert cut_long_trials(binned, 10, 8) is binned


def test_order_depends_on_epoch_and_position_alone():
    binned = binned_of((60, 50, 70, 40))
    settings = {"n_bins": 25, "n_trials": 2, "carry": True, "stream": Stream(0, "order")}

    def numbered(n, **start):
        chunks = ordered_chunks(binned, **settings, **start)
        return [(e, p, c.trial.tolist(), c.first_bin) for (e, p, c), _ in zip(chunks, range(n), strict=False)]

    straight = numbered(20)
    epoch, position = straight[8][:2]
    assert numbered(11, epoch=epoch, position=position + 1) == straight[9:]
    first_epoch = [row for row in straight if row[0] == 0]
    assert sorted(sum((row[2] for row in first_epoch if row[3] == 0), [])) == [0, 1, 2, 3]
    assert [row[2] for row in first_epoch] != [row[2] for row in straight if row[0] == 1]


def test_cosine_schedule_starts_high_ends_low_and_is_half_way_in_the_middle():
    rates = [learning_rate_at(step, 101, 0.1, "cosine", 0.1) for step in (0, 50, 100, 200)]
    np.testing.assert_allclose(rates, [0.1, 0.055, 0.01, 0.01])
    assert learning_rate_at(77, 101, 0.1, "constant", 0.1) == 0.1


def test_watch_counts_log_points_without_relative_improvement():
    rule = StopRule(max_steps=100, patience=2, min_improvement=0.01)
    watch = Watch()
    stale = []
    for value in (-1.0, -1.005, -1.02, -1.0, -1.021):
        watch.update(value, rule)
        stale.append(watch.n_stale)
    assert stale == [0, 1, 0, 1, 2]
    assert watch.is_plateau(rule)


def test_watch_of_a_noisy_loss_compares_means_of_its_window():
    """One lucky value would make the four later ones stale; the mean of two goes on falling: 5, 3, 3.5, 3, 2.5, 2."""
    rule = StopRule(max_steps=100, patience=2)
    watch, stale = Watch(window=2), []
    for value in (5.0, 1.0, 6.0, 0.0, 5.0, -1.0):
        watch.update(value, rule)
        stale.append(watch.n_stale)
    assert stale == [0, 0, 1, 2, 0, 0]
    again = Watch(window=2)
    again.restore(watch.arrays())
    assert again == watch
