"""Elephant's versions of our statistics, from a Recording: an outside reference for tests, and for users who want those numbers.

Elephant takes one second to import, so it is imported at the first call. Spike trains are handed over trial by trial in seconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fitspike.errors import InvalidInputError
from fitspike.units import NS_PER_S

if TYPE_CHECKING:
    from fitspike.recording.recording import Recording

STATISTICS = ("mean_firing_rate", "isi_cv", "cv2", "lv", "fano_factor")


def trains_s(recording: Recording) -> list[list[np.ndarray]]:
    """Return spike times in seconds since each trial's start, [trial][neuron]; spikes outside trials are left out."""
    out = []
    neuron = np.asarray(recording.spike_neuron)
    for start, stop in zip(recording.trials.start_ns, recording.trials.stop_ns, strict=True):
        span = slice(*np.searchsorted(recording.spike_times_ns, [start, stop]))
        time = (recording.spike_times_ns[span] - start) / NS_PER_S
        out.append([time[neuron[span] == i] for i in range(recording.n_neurons)])
    return out


def statistic(recording: Recording, name: str) -> np.ndarray:
    """Return one of elephant's statistics for each neuron, (n_neurons,), NaN where elephant gives none.

    mean_firing_rate in Hz over all trials; isi_cv, cv2, lv of the intervals of all trials (cv2 and lv: the mean over trials weighted by
    their pairs of intervals); fano_factor of the spike counts of whole trials, ddof = 0.
    """
    import elephant.statistics as elephant

    if name not in STATISTICS:
        raise InvalidInputError(f"{name!r} is none of elephant's statistics here. Known: {', '.join(STATISTICS)}.")
    trials = trains_s(recording)
    durations_s = (recording.trials.stop_ns - recording.trials.start_ns) / NS_PER_S
    values = np.full(recording.n_neurons, np.nan)
    for i in range(recording.n_neurons):
        trains = [trial[i] for trial in trials]
        intervals = [np.diff(train) for train in trains]
        match name:
            case "mean_firing_rate":
                rates = [
                    elephant.mean_firing_rate(train, t_start=0.0, t_stop=stop) if len(train) else 0.0  # elephant refuses empty trains
                    for train, stop in zip(trains, durations_s, strict=True)
                ]
                values[i] = np.average(rates, weights=durations_s)
            case "isi_cv":
                values[i] = elephant.cv(np.concatenate(intervals)) if sum(map(len, intervals)) else np.nan
            case "fano_factor":
                values[i] = elephant.fanofactor(trains) if sum(map(len, trains)) else np.nan
            case _:
                values[i] = _mean_over_pairs(getattr(elephant, name), intervals)
    return values


def _mean_over_pairs(function: object, intervals: list[np.ndarray]) -> float:
    usable = [one for one in intervals if len(one) > 1]
    if not usable:
        return float("nan")
    return float(np.average([float(function(one)) for one in usable], weights=[len(one) - 1 for one in usable]))
