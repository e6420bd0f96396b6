"""What a result remembers of the data it was fitted to: enough to simulate, to score, and to tell whether other data fit."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fitspike.errors import Problems, RecordingError
from fitspike.models.base import DataInfo
from fitspike.scoring import TrainingRate

logger = logging.getLogger("fitspike")

if TYPE_CHECKING:
    from fitspike.recording.binned import BinnedSpikes
    from fitspike.recording.recording import Recording


@dataclass(frozen=True, eq=False)
class TrainingData:
    """Shape and names of the training data, and its mean rates.

    mean_count (n_neurons,): mean spike count per training bin. signals: channels by name. split: what was held out, in words.
    one_per_bin: whether several spikes of a neuron in a bin count as one. has_repeats, start_bins: as in `DataInfo`.
    """

    neuron_ids: tuple[str, ...]
    populations: tuple[str, ...]
    dt_ms: float
    bins_per_trial: tuple[int, ...]
    condition_names: tuple[str, ...]
    signals: Mapping[str, int]
    mean_count: tuple[float, ...]
    n_scored_bins: int
    n_spikes: int
    split: str = ""
    notes: tuple[str, ...] = field(default=())
    one_per_bin: bool = False
    has_repeats: bool = False
    start_bins: tuple[int, ...] = ()

    @classmethod
    def of(cls, binned: BinnedSpikes, *, split: str, notes: tuple[str, ...] = (), one_per_bin: bool = False) -> TrainingData:
        """Return what is to be remembered of binned training data."""
        info = binned.info()
        return cls(
            neuron_ids=tuple(map(str, binned.neurons.ids)),
            populations=tuple(map(str, binned.neurons.populations)),
            dt_ms=binned.dt_ms,
            bins_per_trial=tuple(int(n) for n in binned.bins_per_trial),
            condition_names=tuple(map(str, binned.condition_names)),
            signals={name: int(signal.n_channels) for name, signal in binned.source_signals.items()},
            mean_count=tuple(float(x) for x in np.nan_to_num(binned.mean_count())),
            n_scored_bins=int(binned.n_scored_bins),
            n_spikes=int(binned.n_spikes),
            split=split,
            notes=notes,
            one_per_bin=one_per_bin,
            has_repeats=info.has_repeats,
            start_bins=info.start_bins,
        )

    @property
    def n_neurons(self) -> int:
        """Return the number of neurons."""
        return len(self.neuron_ids)

    @property
    def rate(self) -> TrainingRate:
        """Return the mean-rate model of the training data."""
        return TrainingRate(np.asarray(self.mean_count), self.n_scored_bins)

    def info(self) -> DataInfo:
        """Return what a model may know of the training data."""
        return DataInfo(
            n_neurons=self.n_neurons,
            n_trials=len(self.bins_per_trial),
            dt_ms=self.dt_ms,
            bins_per_trial=np.asarray(self.bins_per_trial, dtype=np.int64),
            signals=dict(self.signals),
            populations=self.populations,
            n_conditions=len(self.condition_names),
            mean_count=np.asarray(self.mean_count),
            has_repeats=self.has_repeats,
            n_scored_bins=self.n_scored_bins,
            start_bins=self.start_bins,
        )

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> TrainingData:
        """Return it from plain values."""
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})

    def prepare(self, recording: Recording) -> BinnedSpikes:
        """Return a recording's neurons of the fit, in their order, in bins of the fit's width, conditions numbered as in the fit.

        Neurons and signals that the fit did not have are left out.

        Raises
        ------
        RecordingError
            If neurons or signals of the fit are missing; the text lists every problem.
        """
        problems = Problems("this recording does not fit the run")
        have = {str(name) for name in recording.neurons.ids}
        missing = [name for name in self.neuron_ids if name not in have]
        if missing:
            listed = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
            problems.add(
                f"{len(missing)} of the {self.n_neurons} fitted neurons are missing: {listed} (the recording has {recording.n_neurons} "
                "neurons). Scores need the neurons of the fit, by their ids."
            )
        for name, n_channels in self.signals.items():
            if name not in recording.signals:
                problems.add(f"signal {name!r} of the fit is missing. Attach it as for the fit.")
            elif recording.signals[name].n_channels != n_channels:
                problems.add(f"signal {name!r} has {recording.signals[name].n_channels} channels; the fit had {n_channels}.")
        problems.raise_if_any(RecordingError)
        if tuple(map(str, recording.neurons.ids)) != self.neuron_ids:
            recording = recording.select(neurons=list(self.neuron_ids))
        if set(recording.signals) != set(self.signals):
            recording = recording.select(signals=list(self.signals))
        binned = recording.bin(self.dt_ms)
        return self.renumber(binned.one_per_bin() if self.one_per_bin else binned)

    def renumber(self, binned: BinnedSpikes) -> BinnedSpikes:
        """Return binned spikes whose condition numbers are those of the training data; a condition that is new counts as none."""
        new = sorted(set(binned.condition_names) - set(self.condition_names)) if self.condition_names else []
        if new:
            logger.warning("conditions %s did not occur in training and count as none", ", ".join(new[:5]))
        if tuple(binned.condition_names) == self.condition_names or not self.condition_names:
            return binned
        number = {name: index for index, name in enumerate(self.condition_names)}
        of_old = np.array([number.get(name, -1) for name in binned.condition_names] + [-1], dtype=np.int64)  # -1 stays -1
        return replace(binned, conditions=of_old[np.asarray(binned.conditions)], condition_names=self.condition_names)
