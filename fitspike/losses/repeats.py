"""Whether trials can be compared as repeats of one stimulus."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fitspike.errors import InvalidInputError, TooFewTrialsError

if TYPE_CHECKING:
    from fitspike.recording.binned import BinnedSpikes

_SAME = 1e-6
"""Signals of two repeats may differ by this part of the signal's spread, which resampling can bring about."""


def check_repeats(binned: BinnedSpikes, loss: str) -> None:
    """Raise unless some trials repeat one stimulus, and unless trials without a named condition that count as repeats got the same signals.

    Raises
    ------
    TooFewTrialsError
        Where no condition has two trials.
    InvalidInputError
        Where trials that would be compared had different stimuli.
    """
    group = binned.repeat_groups
    if not (group >= 0).any():
        if binned.n_trials == 1:
            found = "the training data are one trial"
        elif not binned.condition_names:
            found = f"the training data are {binned.n_trials} trials without conditions"
        else:
            found = f"no two of the {binned.n_trials} training trials share one of the {len(binned.condition_names)} conditions"
        raise TooFewTrialsError(
            f"loss {loss!r} compares repeats of one stimulus, and {found}. Cut the recording into trials around events (`--align`), label "
            "them with conditions, hold fewer trials out, or leave this loss out."
        )
    for number in range(int(group.max()) + 1):
        trials = np.flatnonzero(group == number)
        if binned.conditions[trials[0]] < 0:
            _check_same_signals(binned, trials, loss)


def _check_same_signals(binned: BinnedSpikes, trials: np.ndarray, loss: str, most: int = 20) -> None:
    """Raise if every signal differs between trials: then no two of them had the same stimulus."""
    n_bins = int(binned.bins_per_trial[trials].min())
    differing = []
    for name in binned.source_signals:
        first = binned.trial_offset[trials[:most]]
        values = np.stack([binned.signals.values_between(name, int(at), int(at) + n_bins) for at in first])
        spread = values.std()
        if spread > 0 and np.abs(values - values[:1]).max() > _SAME * spread:
            differing.append(name)
    if differing and len(differing) == len(binned.source_signals):
        raise InvalidInputError(
            f"loss {loss!r} would compare {len(trials)} trials without a condition as repeats of one stimulus, but their signals differ "
            f"({', '.join(differing)}). Give each trial its condition (`--attach-conditions`), or leave this loss out."
        )


def check_can_follow(model: Any, binned: BinnedSpikes, loss: str) -> None:
    """Raise if the model has nothing that tells it where in a trial it is, so that it could never follow a PSTH.

    Raises
    ------
    InvalidInputError
        If the model says that no input reaches it (`inputs(info)` is empty).
    """
    if hasattr(model, "inputs") and not model.inputs(binned.info()):
        raise InvalidInputError(
            f"loss {loss!r} asks the model to follow the stimulus, and no stimulus reaches {model.name!r}: the recording has no signals "
            "(or they are left out), and no time bumps are asked for. Attach the stimulus (`--attach-signals`), or set time_bumps=10."
        )
