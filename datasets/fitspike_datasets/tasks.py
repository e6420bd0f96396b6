"""What the tasks share: spike trains of groups of inputs as the neurons of a recording, and what a network is to answer as a signal.

A task is fitted with the recorded neurons clamped: a network of hidden neurons sees them, and a readout of the hidden neurons is compared
with the signal "target" (loss "readout").
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from fitspike import Recording
from fitspike.plugin import DataCard, NeuronTable, Problems, Signal

INPUT = "input"
"""Population of the inputs, for rules such as connect = ["input->hidden", "hidden->hidden"]."""


def check_positive(task: Any, names: tuple[str, ...]) -> None:
    """Raise unless the settings called `names` are positive."""
    found = Problems(f"{task.name} settings")
    for name in names:
        if not getattr(task, name) > 0:
            found.add(f"{name}={getattr(task, name)} must be positive.")
    found.raise_if_any()


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
