"""Cockroach antennal lobe: csv files of (neuron, trial, time), with the time at which the odour valve opens in each trial."""

from pathlib import Path

from fitspike import Recording, load


def odour(paths: list[Path], *, trial_s: float, valve_s: tuple[float, float] | None = None) -> Recording:
    """Return the trials of one file; `valve_s` are opening and closing of the valve from a trial's start."""
    recording = load(paths[0], format="table", times="time_s", neurons="neuron", trials="trial", trial_duration_s=trial_s)
    if valve_s is None:
        return recording
    starts_s = recording.trials.start_ns / 1e9
    return recording.attach(events={"valve_open": starts_s + valve_s[0], "valve_close": starts_s + valve_s[1]})
