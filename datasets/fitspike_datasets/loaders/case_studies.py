"""Teaching data of single neurons: light levels, a place cell, a subthalamic neuron, spikes with a field potential."""

from pathlib import Path

import numpy as np
from scipy import io

from fitspike import Recording
from fitspike.plugin import Signal


def light_levels(paths: list[Path]) -> Recording:
    """Return a retinal neuron in low and in high ambient light, a trial of 30 s each."""
    content = io.loadmat(paths[0])
    trials = [[content["SpikesLow"].ravel()], [content["SpikesHigh"].ravel()]]
    return Recording.from_trials(trials, durations_s=30.0, conditions=["low", "high"])


def place_cell(paths: list[Path]) -> Recording:
    """Return a place cell with the animal's position; a 1 ms bin starts at each sample of the position."""
    content = io.loadmat(paths[0])
    times = content["t"].ravel()
    step = 0.001
    recording = Recording.from_trains([content["spiketimes"].ravel()], start_s=times[0], stop_s=times[0] + step * len(times))
    return recording.attach(signals={"position": Signal(content["X"], 1 / step, int(recording.trials.start_ns[0]), "cm", ("x",))})


def subthalamic(paths: list[Path]) -> Recording:
    """Return 50 trials of 2 s in 1 ms bins; the go cue is 1 s into each, the condition is the direction of movement."""
    content = io.loadmat(paths[0])
    directions = content["direction"].ravel()
    recording = Recording.from_counts(content["train"][:, :, None], dt_ms=1.0, conditions=[f"direction {d}" for d in directions])
    return recording.attach(events={"go": recording.trials.start_ns / 1e9 - content["t"].ravel()[0] / 1000})


def field_potential(paths: list[Path]) -> Recording:
    """Return 100 trials of 1 s in 1 ms bins with the field potential."""
    content = io.loadmat(paths[0])
    recording = Recording.from_counts(content["n"][:, :, None], dt_ms=1.0)
    potential = Signal(np.ascontiguousarray(content["y"].ravel()), 1000.0, int(recording.trials.start_ns[0]), "mV", ("lfp",))
    return recording.attach(signals={"field_potential": potential})
