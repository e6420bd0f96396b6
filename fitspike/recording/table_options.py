"""The options of the table reader: what a table's entries mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

LAYOUTS = ("columns", "train-per-line", "neuron-per-file")


@dataclass(frozen=True)
class TableOptions:
    """What a table's entries mean. Names are column names, or paths into an array file such as "data[6]/spikes" or "spks[:,1]".

    times : spike times: one column, a list of arrays (one neuron each), or flat times cut by `spikes_per_neuron`.
    neurons : the neuron of each spike.
    trials : the trial of each spike; times then count from the trial's start, unless `frame_s` is given.
    conditions : the condition of each spike's trial.
    counts : binned counts, with `axes` such as "time,neuron" (of trial, repeat, condition, time, neuron) and `dt_ms`.
    unit or sampling_rate_hz : of the times ("s", "ms", "us", "ns", "min"; or sampling points).
    ids : all neurons, also silent ones: "1..100", or a list.
    trial_duration_s : length of every trial. Default: the latest spike of all trials, rounded up to 10 ms.
    n_trials : to list trials without any spike; trials are then numbered from the first number that occurs.
    frame_s : cut the one time axis into frames of this length, each a trial.
    neuron_columns, signals, events : name -> path. Signals need `signal_rate_hz`; events have the unit of the times.
    layout : "columns", "train-per-line" or "neuron-per-file". separator, encoding, empty_lines: of text files.
    """

    times: str | None = None
    neurons: str | None = None
    spikes_per_neuron: str | None = None
    trials: str | None = None
    conditions: str | None = None
    counts: str | None = None
    axes: str | None = None
    dt_ms: float | None = None
    unit: str | None = None
    sampling_rate_hz: float | None = None
    ids: str | Sequence[object] | None = None
    start_s: float | None = None
    stop_s: float | None = None
    trial_duration_s: float | None = None
    n_trials: int | None = None
    frame_s: float | None = None
    neuron_columns: Mapping[str, str] = field(default_factory=dict)
    signals: Mapping[str, str] = field(default_factory=dict)
    signal_rate_hz: float | None = None
    events: Mapping[str, str] = field(default_factory=dict)
    layout: str | None = None
    separator: str | None = None
    encoding: str = "utf-8-sig"
    empty_lines: str = "skip"

    def __post_init__(self) -> None:
        # A table without a header has numbered columns; from Python a number is the natural way to say one.
        for name in ("times", "neurons", "spikes_per_neuron", "trials", "conditions", "counts"):
            if isinstance(value := getattr(self, name), int):
                object.__setattr__(self, name, str(value))
