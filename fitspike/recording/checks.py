"""The data report: what is unusual in a recording, with numbers. Nothing is repaired and nothing is left out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np

from fitspike.errors import counted
from fitspike.recording.binned import dense_gb
from fitspike.recording.binning import count_multi_spike_bins
from fitspike.recording.recording import Recording
from fitspike.recording.resample import gap_in
from fitspike.units import NS_PER_MS, NS_PER_S

LEVELS = ("problem", "warning", "info")
_BLOCK_SPIKES = 1 << 21

MULTI_UNIT_PERCENT = 1.0
"""More than this share of intervals below 2 ms is a common sign of a unit that mixes several neurons (or of a bursting one)."""
RATE_CHANGE, RATE_CHANGE_SIGMA = 2.0, 5.0
"""A neuron's rate changed if first and last third differ by this factor and by this many standard deviations of their Poisson counts."""
POPULATION_CHANGE = 1.25
FEW_SPIKES = 20
HIGH_RATE_HZ, LOW_RATE_HZ = 500.0, 0.02
"""Median rates outside this range hint at a wrong time unit."""


@dataclass(frozen=True)
class Finding:
    """One thing worth knowing. level is "problem", "warning" or "info"; neurons are the ids that it concerns, () for all or none."""

    level: str
    name: str
    text: str
    neurons: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class DataReport:
    """The findings, worst first, and numbers per neuron.

    n_spikes, n_duplicates (n_neurons,) int; rate_hz (n_neurons,) inside trials; isi_below_1ms_percent, isi_below_2ms_percent
    (n_neurons,) share of the intervals inside trials, NaN without intervals and for binned data. multi_spike_bins: how many (bin, neuron)
    of `bin_ms` hold several spikes. dense_gb: size of the dense float32 counts in such bins.
    """

    findings: tuple[Finding, ...]
    neuron_ids: np.ndarray
    n_spikes: np.ndarray
    rate_hz: np.ndarray
    isi_below_1ms_percent: np.ndarray
    isi_below_2ms_percent: np.ndarray
    n_duplicates: np.ndarray
    bin_ms: float
    multi_spike_bins: int
    dense_gb: float

    @property
    def problems(self) -> tuple[Finding, ...]:
        """Return the findings to settle before a fit."""
        return tuple(finding for finding in self.findings if finding.level == "problem")

    @property
    def silent(self) -> tuple[str, ...]:
        """Return the ids of neurons without a spike in any trial."""
        return tuple(self.neuron_ids[self.n_spikes == 0].tolist())

    def as_dict(self) -> dict[str, Any]:
        """Return the report as plain values for JSON; NaN becomes None."""
        per_neuron = ("n_spikes", "rate_hz", "isi_below_1ms_percent", "isi_below_2ms_percent", "n_duplicates")
        columns = {name: [None if value != value else value for value in getattr(self, name).tolist()] for name in per_neuron}
        return {
            "findings": [{**asdict(finding), "neurons": list(finding.neurons)} for finding in self.findings],
            "neurons": {"id": self.neuron_ids.tolist(), **columns},
            "bin_ms": self.bin_ms,
            "multi_spike_bins": self.multi_spike_bins,
            "dense_gb": self.dense_gb,
        }

    def __str__(self) -> str:
        if not self.findings:
            return "nothing unusual"
        return "\n".join(f"{finding.level}: {finding.text}" for finding in self.findings)


def check_recording(recording: Recording) -> DataReport:
    """Return the data report of a recording."""
    facts = _Facts(recording)
    checks = (_extent, _trials, _outside, _rates, _changes, _intervals, _bins, _signals)
    findings = [finding for check in checks for finding in check(facts)]
    return DataReport(
        findings=tuple(sorted(findings, key=lambda finding: LEVELS.index(finding.level))),
        neuron_ids=recording.neurons.ids,
        n_spikes=facts.counts(0.0, 1.0),
        rate_hz=recording.rates_hz,
        isi_below_1ms_percent=facts.intervals.percent(facts.intervals.below_1ms),
        isi_below_2ms_percent=facts.intervals.percent(facts.intervals.below_2ms),
        n_duplicates=facts.intervals.zero,
        bin_ms=facts.bin_ms,
        multi_spike_bins=facts.multi_spike_bins,
        dense_gb=facts.dense_gb,
    )


@dataclass(frozen=True, eq=False)
class _Intervals:
    """How many interspike intervals each neuron has, and how many of them are zero, below 1 ms and below 2 ms, each (n_neurons,)."""

    total: np.ndarray
    zero: np.ndarray
    below_1ms: np.ndarray
    below_2ms: np.ndarray

    def percent(self, number: np.ndarray) -> np.ndarray:
        """Return a number of intervals in percent of all, NaN where there is none."""
        return np.divide(100.0 * number, self.total, out=np.full(len(number), np.nan), where=self.total > 0)


class _Facts:
    """Numbers that several checks use, each computed once."""

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        self.n_neurons = recording.n_neurons
        self.bin_ms = 1.0 if recording.bin_width_ns is None else recording.bin_width_ns / NS_PER_MS

    def names(self, mask: np.ndarray) -> tuple[str, ...]:
        return tuple(self.recording.neurons.ids[mask].tolist())

    @cached_property
    def stretches(self) -> tuple[np.ndarray, np.ndarray]:
        """Return starts and stops of the time covered by trials, ns, overlapping and adjoining trials merged."""
        trials = self.recording.trials
        order = np.argsort(trials.start_ns, kind="stable")
        start, stop = trials.start_ns[order], np.maximum.accumulate(trials.stop_ns[order]) if len(trials) else trials.stop_ns
        is_new = np.concatenate([[True], start[1:] > stop[:-1]]) if len(trials) else np.zeros(0, bool)
        first = np.flatnonzero(is_new)
        return start[first], stop[np.append(first[1:] - 1, len(stop) - 1)] if first.size else stop

    @cached_property
    def covered_ns(self) -> int:
        return int((self.stretches[1] - self.stretches[0]).sum())

    def counts(self, low: float, high: float) -> np.ndarray:
        """Return each neuron's spikes between two fractions of the covered time, (n_neurons,) int64."""
        times = self.recording.spike_times_ns
        first, last = (int(np.searchsorted(times, self._time_at(fraction), side="left")) for fraction in (low, high))
        inside = self.recording.is_in_trial[first:last]
        count = self.recording.spike_count
        neuron = self.recording.spike_neuron[first:last][inside]
        weights = None if count is None else count[first:last][inside]
        return np.bincount(neuron, weights=weights, minlength=self.n_neurons).astype(np.int64)

    def _time_at(self, fraction: float) -> int:
        """Return when this fraction of the covered time has passed, ns."""
        start, stop = self.stretches
        passed = np.cumsum(stop - start)
        wanted = fraction * self.covered_ns
        k = min(int(np.searchsorted(passed, wanted, side="left")), len(start) - 1)
        return int(stop[k]) - round(float(passed[k] - wanted)) if len(start) else 0

    @cached_property
    def intervals(self) -> _Intervals:
        """Return how many interspike intervals inside stretches are short; none for binned data. In blocks, so that memory stays small."""
        recording = self.recording
        counts = np.zeros((4, self.n_neurons), dtype=np.int64)
        last_time, last_stretch = np.zeros(self.n_neurons, np.int64), np.full(self.n_neurons, -1)
        for low in range(0, 0 if recording.is_binned else len(recording.spike_times_ns), _BLOCK_SPIKES):
            block = slice(low, low + _BLOCK_SPIKES)
            inside = recording.is_in_trial[block]
            neuron = recording.spike_neuron[block][inside]
            order = np.argsort(neuron, kind="stable")
            neuron, time = neuron[order], recording.spike_times_ns[block][inside][order]
            stretch = np.searchsorted(self.stretches[0], time, side="right")
            is_first = np.append(True, neuron[1:] != neuron[:-1])[: len(neuron)]
            before = np.where(is_first, last_time[neuron], np.roll(time, 1))
            is_pair = np.where(is_first, last_stretch[neuron], np.roll(stretch, 1)) == stretch
            interval, owner = (time - before)[is_pair], neuron[is_pair]
            for row, limit in enumerate((np.iinfo(np.int64).max, 1, NS_PER_MS, 2 * NS_PER_MS)):
                counts[row] += np.bincount(owner[interval < limit], minlength=self.n_neurons)
            is_last = np.append(is_first[1:], True)[: len(neuron)]
            last_time[neuron[is_last]], last_stretch[neuron[is_last]] = time[is_last], stretch[is_last]
        return _Intervals(*counts)

    @cached_property
    def multi_spike_bins(self) -> int:
        return count_multi_spike_bins(self.recording, round(self.bin_ms * NS_PER_MS))

    @cached_property
    def dense_gb(self) -> float:
        return dense_gb(int((self.recording.trials.duration_ns // round(self.bin_ms * NS_PER_MS)).sum()), self.n_neurons)


def _listed(names: tuple[str, ...], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _neurons(names: tuple[str, ...]) -> str:
    return f"{counted(len(names), 'neuron')} ({_listed(names)})"


def _extent(facts: _Facts) -> Iterator[Finding]:
    recording = facts.recording
    if recording.n_spikes == 0:
        yield Finding("problem", "no_spikes", f"there is no spike of any of {recording.n_neurons} neurons.")
    if facts.covered_ns == 0:
        yield Finding("problem", "no_duration", f"the {recording.n_trials} trials have no duration.")
    first = recording.extent_ns[0]
    if first < 0:
        yield Finding("warning", "negative_times", f"times begin at {first / NS_PER_S:g} s, before 0.")
    times = recording.spike_times_ns[:: max(1, len(recording.spike_times_ns) // 100_000)]
    grid = int(np.gcd.reduce(np.diff(times))) if len(times) > 10 else 0
    if grid >= NS_PER_MS and not recording.is_binned:
        text = f"spike times lie on a grid of {grid / NS_PER_MS:g} ms; bins should be whole multiples of it."
        yield Finding("info", "time_grid", text)


def _trials(facts: _Facts) -> Iterator[Finding]:
    trials = facts.recording.trials
    length = trials.duration_ns
    if (empty := np.count_nonzero(length == 0)) and facts.covered_ns:
        yield Finding("problem", "trials_without_duration", f"{empty} of {len(trials)} trials have no duration.")
    if n_shared := np.count_nonzero(trials.overlapping()):
        text = (
            f"{n_shared} of {len(trials)} trials share time with another one; their spikes count in each, and a split by trial leaves out "
        )
        yield Finding("warning", "overlapping_trials", text + "training trials that share time with a test trial.")
    if len(trials) < 2:
        return
    shortest, middle, longest = (float(value) / NS_PER_S for value in np.percentile(length, [0, 50, 100]))
    if longest - shortest > 1e-3:
        level = "warning" if shortest < 0.5 * middle else "info"
        yield Finding(
            level, "trial_lengths", f"trials differ in length: shortest {shortest:g} s, median {middle:g} s, longest {longest:g} s."
        )
    times = facts.recording.spike_times_ns
    held = np.searchsorted(times, trials.stop_ns) - np.searchsorted(times, trials.start_ns)
    if n_empty := np.count_nonzero(held == 0):
        rows = np.flatnonzero(held == 0)[:5].tolist()
        text = f"{n_empty} of {len(trials)} trials hold no spike (rows {', '.join(map(str, rows))}{', ...' if n_empty > 5 else ''})."
        yield Finding("warning", "empty_trials", text)


def _outside(facts: _Facts) -> Iterator[Finding]:
    inside = facts.recording.is_in_trial
    n_outside = len(inside) - np.count_nonzero(inside)
    if not n_outside:
        return
    share = n_outside / len(inside)
    what = "entries" if facts.recording.is_binned else "spikes"
    text = f"{n_outside} of {len(inside)} {what} ({share:.1%}) lie outside every trial and are not used."
    # between trials spikes are usual; beyond the one stretch of a continuous recording they are not
    is_expected = facts.recording.n_trials > 1 and share <= 0.5
    yield Finding("problem" if share == 1 else "info" if is_expected else "warning", "spikes_outside_trials", text)


def _rates(facts: _Facts) -> Iterator[Finding]:
    counts, rates = facts.counts(0.0, 1.0), facts.recording.rates_hz
    silent = facts.names(counts == 0)
    if silent and facts.recording.n_spikes:
        yield Finding("warning", "silent_neurons", f"no spike inside trials: {_neurons(silent)}.", silent)
    few = facts.names((counts > 0) & (counts < FEW_SPIKES))
    if few:
        yield Finding("info", "few_spikes", f"fewer than {FEW_SPIKES} spikes: {_neurons(few)}.", few)
    if not (counts > 0).any():
        return
    middle = float(np.median(rates[counts > 0]))
    if not LOW_RATE_HZ <= middle <= HIGH_RATE_HZ:
        text = f"the median rate is {middle:.3g} Hz over {facts.covered_ns / NS_PER_S:.4g} s. Is the time unit right?"
        yield Finding("warning", "time_unit", text)


def _changes(facts: _Facts) -> Iterator[Finding]:
    early, late = facts.counts(0.0, 1 / 3), facts.counts(2 / 3, 1.0)
    total = early + late
    if total.sum() == 0:
        return
    ratio = (np.maximum(early, late) + 0.5) / (np.minimum(early, late) + 0.5)
    sigma = np.abs(early - late) / np.sqrt(np.maximum(total, 1))
    changed = facts.names((ratio > RATE_CHANGE) & (sigma > RATE_CHANGE_SIGMA))
    if changed:
        text = f"rates change by more than a factor of {RATE_CHANGE:g} between the first and the last third: {_neurons(changed)}."
        yield Finding("warning", "rate_change", text, changed)
    before, after = int(early.sum()), int(late.sum())
    change = (after + 0.5) / (before + 0.5)
    if max(change, 1 / change) > POPULATION_CHANGE and abs(after - before) > RATE_CHANGE_SIGMA * np.sqrt(after + before):
        text = f"all neurons together fire {change:.2f} times as much in the last third of the recording as in the first."
        yield Finding("warning", "population_drift", text)


def _intervals(facts: _Facts) -> Iterator[Finding]:
    doubled = facts.intervals.zero
    short = facts.intervals.percent(facts.intervals.below_2ms)
    if doubled.any():
        names = facts.names(doubled > 0)
        text = f"{doubled.sum()} spikes have exactly the time of another spike of the same neuron: {_neurons(names)}."
        yield Finding("warning", "duplicate_spikes", text, names)
    with np.errstate(invalid="ignore"):
        mixed = short > MULTI_UNIT_PERCENT
    if mixed.any():
        names = facts.names(mixed)
        text = (
            f"more than {MULTI_UNIT_PERCENT:g} % of the intervals are below 2 ms (worst {np.nanmax(short):.1f} %), "
            f"a sign of several neurons in one unit, or of bursts: {_neurons(names)}. All are kept; choose units with --units."
        )
        yield Finding("warning", "short_intervals", text, names)


def _bins(facts: _Facts) -> Iterator[Finding]:
    if facts.multi_spike_bins:
        text = (
            f"{facts.multi_spike_bins} bins of {facts.bin_ms:g} ms hold more than one spike of a neuron; an emission of at most one spike "
            "per bin (bernoulli) would lose spikes."
        )
        yield Finding("info", "multi_spike_bins", text)
    yield Finding("info", "dense_size", f"dense counts in {facts.bin_ms:g} ms bins would need {facts.dense_gb:.3g} GB (float32).")


def _signals(facts: _Facts) -> Iterator[Finding]:
    recording = facts.recording
    width = round(facts.bin_ms * NS_PER_MS)
    spans = list(zip(recording.trials.start_ns.tolist(), recording.trials.stop_ns.tolist(), strict=True))
    for name, signal in recording.signals.items():
        reasons = {k: gap_in(signal, start, stop, width) for k, (start, stop) in enumerate(spans)}
        bad = {k: reason for k, reason in reasons.items() if reason is not None}
        if bad:
            k, reason = next(iter(bad.items()))
            text = f"signal {name!r} cannot be used in {len(bad)} of {len(spans)} trials; trial {k}: {reason}."
            yield Finding("problem", "signal_gap", text)
