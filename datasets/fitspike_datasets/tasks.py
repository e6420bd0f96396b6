"""What the tasks share: spike trains of groups of inputs as the neurons of a recording, and what a network is to answer as a signal.

A task is fitted with the recorded neurons clamped: a network of hidden neurons sees them, and a readout of the hidden neurons is compared
with the signal "target" (loss "readout").
"""

from __future__ import annotations

from dataclasses import asdict, fields
from numbers import Real
from typing import Any

import numpy as np

from fitspike import Recording
from fitspike.plugin import DataCard, InvalidInputError, NeuronTable, Problems, Signal

INPUT = "input"
"""Population of the inputs, for rules such as connect = ["input->hidden", "hidden->hidden"]."""


_BYTES_EACH, _MOST_GB = 6, 4.0
"""Memory of one input in one bin, a number in single precision beside what it is compared with; and what a task may take."""


def task_problems(
    task: Any, *, positive: tuple[str, ...] = (), not_negative: tuple[str, ...] = (), durations: tuple[str, ...] = ()
) -> Problems:
    """Return what is wrong with the settings of a task, each given by name; raise at once where one is no number.

    positive, not_negative : settings with that bound; a setting in Hz is one spike per bin at most
    durations : those of the settings that have to be whole numbers of bins, in ms
    """
    found = Problems(f"{task.name} settings")
    for field in fields(task):
        value = getattr(task, field.name)
        is_number = isinstance(value, Real) and not isinstance(value, bool)
        if not is_number or (field.type == "int" and value != value // 1):
            found.add(f"{field.name}={value!r} must be a {'whole ' if field.type == 'int' else ''}number.")
    found.raise_if_any()
    for name in positive:
        if not getattr(task, name) > 0:
            found.add(f"{name}={getattr(task, name)} must be positive.")
    for name in not_negative:
        if not getattr(task, name) >= 0:
            found.add(f"{name}={getattr(task, name)} must not be negative.")
    if not task.dt_ms > 0:
        return found
    for name in (*positive, *not_negative):
        if name.endswith("_hz") and getattr(task, name) * task.dt_ms > 1000:
            found.add(f"{name}={getattr(task, name)} is more than a spike per bin of {task.dt_ms} ms. Use at most {1000 / task.dt_ms:g}.")
    for name in durations:
        duration = getattr(task, name)
        if duration >= 0 and not is_whole(duration / task.dt_ms):
            found.add(f"{name}={duration} is no whole number of bins of {task.dt_ms} ms. Change it, or dt_ms.")
    return found


def is_whole(number: float) -> bool:
    """Return whether a number is whole but for rounding; neither infinity is, nor what is 0 only by rounding."""
    return number == 0 or (0.5 < abs(number) < 1e15 and abs(number - round(number)) < 1e-6)


def check_size(task: Any, n_trials: int, n_bins: int, n_inputs: int) -> None:
    """Raise an InvalidInputError if the inputs of all trials are more than fit in memory while they are drawn."""
    gigabytes = n_trials * n_bins * n_inputs * _BYTES_EACH / 1e9
    if gigabytes > _MOST_GB:
        raise InvalidInputError(
            f"{task.name}: {n_trials} trials of {n_bins} bins and {n_inputs} inputs take {gigabytes:.1f} GB while they are drawn; the "
            f"limit is {_MOST_GB:g} GB. Use fewer trials or inputs, or wider bins (dt_ms={task.dt_ms})."
        )


def task_card(task: Any, summary: str, citation: str, notes: tuple[str, ...]) -> DataCard:
    """Return the card of a task."""
    return DataCard(
        name=task.name,
        summary=summary,
        licence="BSD-3-Clause",
        citation=citation,
        is_synthetic=True,
        parameters=asdict(task),
        notes=(*notes, 'recorded neurons are inputs, clamped; signal "target" is what a readout of hidden neurons should give'),
        settings={"": {"split": "none"}},
    )


def task_recording(
    spikes: np.ndarray, target: np.ndarray, dt_ms: float, groups: dict[str, int], conditions: list[str] | None = None
) -> Recording:
    """Return a recording of inputs with the signal "target".

    Parameters
    ----------
    spikes : (n_trials, n_bins, n_inputs), 0 or 1
    target : (n_trials, n_bins, n_out)
    groups : label of each group of inputs -> how many there are, in order
    """
    labels = [label for label, number in groups.items() for _ in range(number)]
    ids = [f"{label} {i}" for label, number in groups.items() for i in range(number)]
    neurons = NeuronTable.make(ids, labels=labels, populations=[INPUT] * len(ids))
    signal = Signal(target.reshape(-1, target.shape[-1]).astype(np.float64), 1000.0 / dt_ms)
    return Recording.from_counts(list(spikes), dt_ms=dt_ms, neurons=neurons, conditions=conditions, signals={"target": signal})


def one_hot(label: np.ndarray, n_classes: int) -> np.ndarray:
    """Return 1 in the channel of each label and 0 elsewhere, (..., n_classes); nowhere where the label is negative."""
    return (label[..., None] == np.arange(n_classes)).astype(np.float64)
