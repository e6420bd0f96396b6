"""Locust antennal lobe: one text file per unit, times in samples at 15 kHz, frames (trials) one after another with gaps between."""

import re
from pathlib import Path

import numpy as np

from fitspike import Recording
from fitspike.plugin import NeuronTable, RecordingSource, TrialTable

RATE_HZ = 15_000
_GRID_S = 0.01
_CUT_SHORT_S = 1.0


def frames(paths: list[Path], *, frame_s: float, well_isolated: int, odour_s: float | None = None) -> Recording:
    """Return the units of one stimulus group, a trial per frame that holds spikes.

    A frame is recorded up to the latest spike that any frame of the group has at that phase (28.8 of 30 s); trials end there, so that no
    history runs through the gap. Frames without any spike were not recorded and are left out; one that ends more than 1 s early is cut
    at its last spike.

    Parameters
    ----------
    well_isolated : the first units that the sorter calls well isolated; neuron column `is_well_isolated`
    odour_s : from a frame's start to the time from which the odour acts; event `odour`
    """
    units = [int(re.search(r"_u(\d+)$", path.stem)[1]) for path in paths]
    trains = [np.loadtxt(path, ndmin=1) / RATE_HZ for path in paths]
    times = np.sort(np.concatenate(trains))
    frame = np.floor(times / frame_s).astype(int)
    phase = times - frame * frame_s
    recorded_s = _up(phase.max())
    present = np.unique(frame)
    last = np.array([phase[frame == k].max() for k in present])
    stop_s = np.where(last < recorded_s - _CUT_SHORT_S, _up(last), recorded_s)
    notes = [f"locust: {recorded_s:g} s of each frame of {frame_s:g} s are recorded; trials end there."]
    if missing := sorted(set(range(int(frame.max()) + 1)) - set(present.tolist())):
        notes.append(f"locust: frames {', '.join(map(str, missing))} hold no spike and are left out.")
    for k in np.flatnonzero(stop_s < recorded_s):
        notes.append(f"locust: frame {present[k]} ends after {stop_s[k]:g} s.")
    recording = Recording.from_trains(
        trains,
        neurons=NeuronTable.make(units, columns={"unit": units, "is_well_isolated": np.asarray(units) <= well_isolated}),
        trials=TrialTable.from_seconds(present * frame_s, present * frame_s + stop_s, columns={"frame": present}),
        source=RecordingSource(notes=tuple(notes)),
    )
    return recording if odour_s is None else recording.attach(events={"odour": present * frame_s + odour_s})


def _up(seconds: np.ndarray) -> np.ndarray:
    """Return times moved up to the next 10 ms, past the spike that lies there."""
    return np.round((np.floor(seconds / _GRID_S + 1e-6) + 1) * _GRID_S, 2)
