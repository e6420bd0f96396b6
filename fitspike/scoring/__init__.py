"""Held-out scores of a fitted model, each with its uncertainty."""

from fitspike.scoring.blocks import BlockSums
from fitspike.scoring.bootstrap import Uncertain
from fitspike.scoring.compare import PairedDifference, paired_difference, reason_not_paired
from fitspike.scoring.held_out import Score, TrainingRate, score_model
from fitspike.scoring.settings import ScoreSettings

__all__ = [
    "BlockSums",
    "PairedDifference",
    "Score",
    "ScoreSettings",
    "TrainingRate",
    "Uncertain",
    "paired_difference",
    "reason_not_paired",
    "score_model",
]
