"""Moving gratings in V1: a cell array of sessions, each with counts (units, directions, bins, repeats)."""

from pathlib import Path

import numpy as np
from scipy import io

from fitspike import Recording
from fitspike.plugin import NeuronTable

DT_MS, ONSET_S = 10.0, 0.2
"""Bins of 10 ms; the first begins 200 ms before the grating appears."""


def session(paths: list[Path], *, session: int) -> Recording:
    """Return one session: a trial per direction and repeat, condition = direction in degrees, native bins of 10 ms.

    Trial column `repeat` counts the trials of a direction, `direction_deg` is the direction as a number; neuron columns `contamination`
    (the papers used units below 0.05) and `tetrode`; event `grating` at each onset.
    """
    data = io.loadmat(paths[0], squeeze_me=True, struct_as_record=False)["data"][session]
    counts = np.asarray(data.spikes)  # (n_units, n_directions, n_bins, n_repeats)
    n_units, n_directions, n_bins, n_repeats = counts.shape
    directions = np.array([float(condition.direction) for condition in data.conditions])
    recording = Recording.from_counts(
        np.transpose(counts, (1, 3, 2, 0)).reshape(-1, n_bins, n_units),
        dt_ms=DT_MS,
        neurons=NeuronTable.make(
            np.arange(n_units), columns={"contamination": np.ravel(data.contamination), "tetrode": np.ravel(data.tetrode)}
        ),
        conditions=np.repeat([f"{direction:g}" for direction in directions], n_repeats),
        trial_columns={"repeat": np.tile(np.arange(n_repeats), n_directions), "direction_deg": np.repeat(directions, n_repeats)},
    )
    return recording.attach(events={"grating": recording.trials.start_ns / 1e9 + ONSET_S})
