"""Linear track: units in nested MATLAB cells (epoch > tetrode > unit), and the tracked position in a binary file of the recorder."""

from pathlib import Path

import numpy as np
from scipy import io

from fitspike import Recording
from fitspike.plugin import NeuronTable, RecordingSource, Signal

FRAME_RATE_HZ = 60.0
_END = b"<End settings>\n"
_FRAME = np.dtype([("time", "<u4"), ("x", "<u2"), ("y", "<u2"), ("x2", "<u2"), ("y2", "<u2")])


def linear_track(paths: list[Path]) -> Recording:
    """Return all units, silent ones included, with the position in pixels of the camera."""
    spikes, video = paths
    units = []
    timerange = None
    epoch = io.loadmat(spikes, struct_as_record=False)["spikes"].ravel()[0].ravel()[0]
    for tetrode, cells in enumerate(epoch.ravel(), start=1):
        for number, cell in enumerate(np.asarray(cells).ravel(), start=1):
            if not np.size(cell):
                continue  # an empty cell is a number that the sorter gave to no unit
            unit = cell.ravel()[0]
            units.append((tetrode, number, np.ravel(unit.time)))
            timerange = np.ravel(unit.timerange)
    tetrodes, numbers, trains = zip(*units, strict=True)
    neurons = NeuronTable.make(
        [f"{t}/{n}" for t, n in zip(tetrodes, numbers, strict=True)],
        labels=[f"tetrode {t} unit {n}" for t, n in zip(tetrodes, numbers, strict=True)],
        columns={"tetrode": tetrodes, "unit": numbers},
    )
    n_silent = sum(not train.size for train in trains)
    notes = (
        f"hippocampus: {n_silent} of {len(trains)} units have no spike; they are kept.",
        "hippocampus: position interpolated from camera frames (452 to 568 ticks of 30 kHz apart, a few longer) to 60 Hz; "
        "the first frame is held for the 34 ms before it.",
    )
    return Recording.from_trains(
        [train if train.size else np.zeros(0) for train in trains],
        neurons=neurons,
        start_s=float(timerange[0]),
        stop_s=float(timerange[1]),
        signals={"position": _position(video, float(timerange[0]))},
        source=RecordingSource(notes=notes),
    )


def _position(path: Path, start_s: float) -> Signal:
    """Return x and y on a regular grid of 60 Hz from `start_s`."""
    content = path.read_bytes()
    header, frames = content.split(_END, 1)
    clock_hz = float(next(line.split(b":")[1] for line in header.splitlines() if line.startswith(b"clockrate")))
    frame = np.frombuffer(frames, dtype=_FRAME, count=len(frames) // _FRAME.itemsize)
    times = frame["time"] / clock_hz
    grid = np.arange(start_s, times[-1], 1 / FRAME_RATE_HZ)
    values = np.column_stack([np.interp(grid, times, frame[axis]) for axis in ("x", "y")])
    return Signal(values, FRAME_RATE_HZ, round(start_s * 1e9), "pixel", ("x", "y"))
