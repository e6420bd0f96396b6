"""Free simulation of a model, chunk by chunk, straight into the events of a recording."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fitspike.errors import InvalidInputError
from fitspike.models.base import n_uniforms
from fitspike.params import to_tensors
from fitspike.recording.chunk import SpikeChunk
from fitspike.recording.recording import Recording
from fitspike.recording.tables import NeuronTable, RecordingSource, TrialTable
from fitspike.rng import Stream
from fitspike.types import ParamArrays
from fitspike.units import NS_PER_MS, NS_PER_S

if TYPE_CHECKING:
    from fitspike.recording.binned import BinnedSpikes
    from fitspike.results.training_data import TrainingData

CHUNK_VALUES = 2_000_000
"""Entries (trials x bins x neurons) simulated at a time."""
MOST_PER_BIN = 1e6
"""Spikes of a neuron in a bin above which a simulation has run away beyond any recording; sums of more would overflow."""

HIGHEST_HZ = 10_000.0
"""Rate of a neuron over a chunk above which a simulation has run away: its spikes would only fill the memory."""


@dataclass(frozen=True, eq=False)
class FreeTrials:
    """Trials without data or signals: n_trials of n_bins each; condition (n_trials,) numbers, -1 for none."""

    n_trials: int
    n_bins: int
    dt_ms: float
    n_neurons: int
    condition: np.ndarray

    @property
    def bins_per_trial(self) -> np.ndarray:
        """Return the length of each trial, (n_trials,)."""
        return np.full(self.n_trials, self.n_bins, dtype=np.int64)

    def chunk(self, trials: np.ndarray, first_bin: int, n_bins: int) -> SpikeChunk:
        """Return the context of some bins of some trials."""
        empty = SpikeChunk.empty(len(trials), n_bins, self.n_neurons, self.dt_ms, condition=self.condition[trials], first_bin=first_bin)
        return replace(empty, trial=np.asarray(trials))


def simulate_events(
    model: Any, params: ParamArrays, source: BinnedSpikes | FreeTrials, stream: Stream, *, chunk_values: int = CHUNK_VALUES
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Yield (trial, bin, neuron, count) arrays of a free simulation of every trial of `source`.

    The trials, conditions, times and signals of `source` are used, not its spikes. Uniforms are indexed by trial, bin and neuron, so that
    the spikes do not depend on the chunks.

    Raises
    ------
    InvalidInputError
        If the model samples a count that is not finite or above MOST_PER_BIN, or fires faster than HIGHEST_HZ.
    """
    import torch

    tensors = to_tensors(params)
    n_units = n_uniforms(model, source.n_neurons)
    lengths = np.asarray(source.bins_per_trial)
    longest = int(lengths.max(initial=0))
    n_bins = max(1, min(longest, chunk_values // n_units))
    batch = max(1, chunk_values // (n_bins * n_units))
    for at in range(0, len(lengths), batch):
        trials = np.arange(at, min(at + batch, len(lengths)))
        stop = int(lengths[trials].max())
        carry = None
        for first in range(0, stop, n_bins):
            length = min(n_bins, stop - first)
            context = source.chunk(trials, first, length)
            uniforms = torch.as_tensor(stream.uniforms(trials, range(first, first + length), n_units))
            with torch.no_grad():
                run = model.rollout(tensors, context, uniforms=uniforms, carry=carry)
            carry = run.carry
            spikes = run.spikes.detach().cpu().numpy()
            if not (spikes.max(initial=0.0) <= MOST_PER_BIN):  # not `>`: NaN compares false
                raise InvalidInputError(
                    f"the free simulation runs away: by bin {first + length} a neuron fires more than {MOST_PER_BIN:g} times in one bin. "
                    "Raise the penalties on history and coupling."
                )
            highest_hz = spikes.sum(axis=(0, 1), dtype=np.float64).max(initial=0.0) / (len(trials) * length * source.dt_ms * 1e-3)
            if highest_hz > HIGHEST_HZ:
                raise InvalidInputError(
                    f"the free simulation runs away: by bin {first + length} a neuron fires at {highest_hz:,.0f} Hz. "
                    "Raise the penalties on history and coupling."
                )
            row, bins, neuron = np.nonzero(spikes)
            inside = first + bins < lengths[trials[row]]
            row, bins, neuron = row[inside], bins[inside], neuron[inside]
            yield trials[row], first + bins, neuron, np.rint(spikes[row, bins, neuron]).astype(np.int64)


def simulate_recording(
    model: Any, params: ParamArrays, source: BinnedSpikes | FreeTrials, data: TrainingData, stream: Stream, *, gap_s: float = 1.0
) -> Recording:
    """Return a free simulation as a recording in bins of `dt_ms`, trials laid end to end with a gap; signals are not copied.

    Warm-ups of `source` become warm-ups of the trials, so that the same part is looked at as in the data.
    """
    dt_ns = round(source.dt_ms * NS_PER_MS)
    lengths = np.asarray(source.bins_per_trial) * dt_ns
    gap = round(gap_s * NS_PER_S / dt_ns) * dt_ns
    start = np.concatenate([[0], np.cumsum(lengths + gap)])[: len(lengths)].astype(np.int64)
    parts: list[list[np.ndarray]] = [[], [], []]
    for trial, bins, neuron, count in simulate_events(model, params, source, stream):
        parts[0].append(start[trial] + bins * dt_ns)
        parts[1].append(neuron)
        parts[2].append(count)
    times, neuron, count = (np.concatenate([np.zeros(0, np.int64), *part]) for part in parts)
    order = np.lexsort((neuron, times))
    numbers = np.asarray(source.condition if isinstance(source, FreeTrials) else source.conditions)
    conditions = [data.condition_names[c] if 0 <= c < len(data.condition_names) else "" for c in numbers]
    is_free = isinstance(source, FreeTrials)
    warmup = None if is_free else np.asarray(source.warmup_bins) * dt_ns
    offset = None if is_free else np.asarray(source.trial_bin) * dt_ns
    kind = np.uint16 if source.n_neurons <= np.iinfo(np.uint16).max else np.uint32
    return Recording(
        spike_times_ns=times[order],
        spike_neuron=neuron[order].astype(kind),
        neurons=NeuronTable.make(list(data.neuron_ids), populations=list(data.populations)),
        trials=TrialTable.make(start, start + lengths, conditions=conditions, warmup_ns=warmup, offset_ns=offset),
        source=RecordingSource(reader=f"simulation of {model.name}", notes=(f"seed {stream.seed}", f"bins of {source.dt_ms:g} ms")),
        spike_count=count[order],
        bin_width_ns=dt_ns,
    )
