"""Aplysia pedal ganglion: one MATLAB file per stimulation, neuron numbers shared, positions in a file of their own."""

from pathlib import Path

import numpy as np
from scipy import io

from fitspike import Recording

STOP_S, STIMULUS_S = 122.75, 30.0


def preparation(paths: list[Path]) -> Recording:
    """Return the stimulations of one preparation as trials; `x` and `y` are neuron columns (grid of diodes) where they are known."""
    spike_files = [path for path in paths if path.parent.name != "positions"]
    positions = next((io.loadmat(path) for path in paths if path.parent.name == "positions"), None)
    tables = [io.loadmat(path)["spks"] for path in spike_files]
    n_neurons = int(max(table[:, 0].max() for table in tables))
    trials = [[np.sort(table[table[:, 0] == i, 1]) for i in range(1, n_neurons + 1)] for table in tables]
    recording = Recording.from_trials(
        trials,
        durations_s=STOP_S,
        ids=range(1, n_neurons + 1),
        trial_columns={"stimulation": [int(path.stem[-2:]) for path in spike_files]},
    )
    starts_s = recording.trials.start_ns / 1e9
    recording = recording.attach(events={"nerve_stimulus": starts_s + STIMULUS_S})
    if positions is not None:
        recording = recording.attach(neuron_columns={name: positions[name].ravel() for name in ("x", "y")})
    return recording
