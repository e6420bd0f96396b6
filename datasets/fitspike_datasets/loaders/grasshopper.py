"""Grasshopper receptor: spike times and stimulus in two text files, both in microseconds."""

from pathlib import Path

import numpy as np

from fitspike import Recording, load
from fitspike.plugin import Signal

RATE_HZ = 20_000.0


def with_stimulus(paths: list[Path]) -> Recording:
    """Return the receptor's spikes with the amplitude modulation of the tone as the signal "stimulus"."""
    spikes, stimulus = paths
    values = np.loadtxt(stimulus, usecols=1)
    recording = load(spikes, format="table", unit="us", stop_s=len(values) / RATE_HZ)
    return recording.attach(signals={"stimulus": Signal(values, RATE_HZ, 0, "", ("amplitude modulation",))})
