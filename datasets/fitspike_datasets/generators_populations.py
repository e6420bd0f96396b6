"""Networks of homogeneous populations of integrate-and-fire neurons, few of which are recorded."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from scipy.signal import lfilter

from fitspike import Recording
from fitspike.plugin import (
    DataCard,
    GroundTruth,
    NeuronTable,
    PopulationConstants,
    Problems,
    Signal,
    Stream,
    TrialTable,
    simulate_microscopic,
    start_microscopic,
    switch_bins,
    winning_population,
)

CHUNK_BINS = 2500
"""Bins simulated at a time; results do not depend on it."""


@dataclass(frozen=True)
class PopulationNetwork:
    """Spikes of a few neurons out of populations that excite and inhibit one another, with the activity of all.

    tau_m du_i/dt = rest - u_i + tau_m (sum_b coupling[m, b] I_b + input_m),    tau_syn dI_b/dt = A_b(t - delay) - I_b

    A_b is the rate of population b, Hz. Neuron i of population m fires with hazard exp(u_i - threshold) Hz; its potential is then 0 for
    `t_ref_ms`. Potentials are in units of the escape noise. All neurons of a population get the same input and have the same law, so that
    the first `n_observed` of each are as good a sample as any. Integration is exact for inputs constant in a step, so that rates do not
    depend on `step_ms`.

    The default is the winner-take-all network of Wang, Schmutz, Bellec, Gerstner 2022 (NeurIPS 35): populations 0 and 1 compete through
    the inhibitory population 2 and take turns. Values for each population: one number for all, or one per population. A single
    population: sizes=[500], rest=9.5, coupling=[[0]], tau_syn_ms=3.
    """

    name: ClassVar[str] = "population-network"
    sizes: tuple[int, ...] = (400, 400, 200)
    tau_m_ms: float | tuple[float, ...] = 20.0
    rest: float | tuple[float, ...] = 14.4
    threshold: float | tuple[float, ...] = 6.0 - math.log(10.0)
    """A neuron at threshold fires at 1 Hz."""
    coupling: tuple[tuple[float, ...], ...] = ((9.984, 0.0, -19.968), (0.0, 9.984, -19.968), (9.984, 9.984, -19.968))
    """[post, pre]: potential per second for each Hz of the presynaptic population."""
    tau_syn_ms: float | tuple[float, ...] = (3.0, 3.0, 6.0)
    """Of the synapses that a population makes."""
    t_ref_ms: float = 4.0
    delay_ms: float = 0.0
    n_observed: int | tuple[int, ...] = 3
    n_trials: int = 1
    duration_s: float = 60.0
    """Length of each trial."""
    dt_ms: float = 4.0
    """Bins of the true activity and of the input."""
    step_ms: float = 0.2
    """Step of the simulation."""
    burn_in_s: float = 1.0
    """Simulated before each trial, without input, and thrown away."""
    start_hz: float | tuple[float, ...] | None = None
    """Rates at which each trial, burn-in included, starts as if the populations had long fired so. Without: random potentials."""
    pulse_starts_s: tuple[float, ...] = ()
    """Starts of photo-stimulation pulses in each trial."""
    pulse_population: int = 1
    pulse_ms: float = 100.0
    pulse_per_s: float = 80.0
    """Amplitude: potential per second."""
    common_sd_per_s: float = 0.0
    """Standard deviation of an Ornstein-Uhlenbeck input that all populations share, potential per second."""
    common_tau_ms: float = 50.0

    def __post_init__(self) -> None:
        for name in ("sizes", "tau_m_ms", "rest", "threshold", "tau_syn_ms", "n_observed", "start_hz", "pulse_starts_s"):
            value = getattr(self, name)
            object.__setattr__(self, name, tuple(value) if isinstance(value, list | tuple | np.ndarray) else value)
        object.__setattr__(self, "coupling", tuple(tuple(row) for row in self.coupling))
        self._problems().raise_if_any()

    def _problems(self) -> Problems:
        found = Problems(f"{self.name} settings")
        n = len(self.sizes)
        if not n or min(self.sizes) < 1:
            found.add(f"sizes={self.sizes} must hold at least one population, each of at least one neuron.")
        for name in ("tau_m_ms", "rest", "threshold", "tau_syn_ms", "n_observed", "start_hz"):
            value = getattr(self, name)
            if isinstance(value, tuple) and len(value) != n:
                found.add(f"{name}={value} must be one number or one for each of {n} populations.")
            elif name in ("tau_m_ms", "tau_syn_ms") and not min(self._each(name)) > 0:
                found.add(f"{name}={value} must be positive.")
            elif name == "start_hz" and value is not None and not min(self._each(name)) >= 0:
                found.add(f"start_hz={value} must not be negative.")
            elif name == "n_observed" and not all(0 <= k <= size for k, size in zip(self._each(name), self.sizes, strict=True)):
                found.add(f"n_observed={value} must lie between 0 and the sizes {self.sizes}.")
        if not any(self._each("n_observed")):
            found.add(f"n_observed={self.n_observed} leaves nothing to record. Observe at least one neuron.")
        if [len(row) for row in self.coupling] != [n] * n:
            found.add(f"coupling has rows of lengths {[len(row) for row in self.coupling]}; expected [post, pre] of {n} populations.")
        for name, least in (("n_trials", 1), ("t_ref_ms", 0), ("delay_ms", 0), ("burn_in_s", 0), ("common_sd_per_s", 0)):
            if not getattr(self, name) >= least:
                found.add(f"{name}={getattr(self, name)} must be at least {least}.")
        for name in ("duration_s", "dt_ms", "step_ms", "pulse_ms", "common_tau_ms"):
            if not getattr(self, name) > 0:
                found.add(f"{name}={getattr(self, name)} must be positive.")
        if not found.texts:
            for name, value, unit in (
                ("t_ref_ms", self.t_ref_ms, self.step_ms),
                ("delay_ms", self.delay_ms, self.step_ms),
                ("dt_ms", self.dt_ms, self.step_ms),
                ("duration_s", self.duration_s * 1000, self.dt_ms),
                ("burn_in_s", self.burn_in_s * 1000, self.dt_ms),
            ):
                if abs(value / unit - round(value / unit)) > 1e-6:
                    found.add(f"{name}={getattr(self, name)} is no whole number of steps of {unit} ms.")
        if self.pulse_starts_s and not 0 <= self.pulse_population < n:
            found.add(f"pulse_population={self.pulse_population} is none of the populations 0 to {n - 1}.")
        for start in self.pulse_starts_s:
            if not 0 <= start < self.duration_s:
                found.add(f"a pulse starts at {start} s, outside trials of {self.duration_s} s.")
        return found

    def _each(self, name: str) -> tuple[float, ...]:
        """Return a setting as one value per population."""
        value = getattr(self, name)
        return value if isinstance(value, tuple) else (value,) * len(self.sizes)

    @property
    def n_bins(self) -> int:
        """Return the number of bins of a trial."""
        return round(self.duration_s * 1000 / self.dt_ms)

    @property
    def has_input(self) -> bool:
        """Return whether there is a signal "input"."""
        return bool(self.pulse_starts_s) or self.common_sd_per_s > 0

    def constants(self, dt_ms: float | None = None) -> PopulationConstants:
        """Return the network for the kernels, in steps of `dt_ms` (default: `step_ms`)."""
        step_ms = self.step_ms if dt_ms is None else dt_ms
        return PopulationConstants(
            tau_s=np.array(self._each("tau_m_ms")) / 1000,
            rest=np.array(self._each("rest")),
            threshold=np.array(self._each("threshold")),
            coupling=np.array(self.coupling),
            tau_syn_s=np.array(self._each("tau_syn_ms")) / 1000,
            n_neurons=np.array(self.sizes),
            dt_s=step_ms / 1000,
            t_ref_s=self.t_ref_ms / 1000,
            delay_bins=round(self.delay_ms / step_ms),
        )

    def describe(self) -> DataCard:
        """Return the card."""
        notes = (
            "each neuron's population is its number, '0', '1', ...; couplings are [post, pre] between populations",
            "the truth holds the activity of whole populations, who wins when, and all constants",
            "signal 'input', 1/s, has a channel per population where there are pulses or a common input",
        )
        return DataCard(
            name=self.name,
            summary="A few neurons out of coupled populations of integrate-and-fire neurons, with the activity of all",
            licence="BSD-3-Clause",
            citation="Generated by fitspike-datasets, after Wang, Schmutz, Bellec, Gerstner 2022, NeurIPS 35",
            is_synthetic=True,
            parameters=asdict(self),
            notes=notes,
        )

    def load(self, cache: Path | None = None, *, item: str | None = None, seed: int = 0) -> Recording:
        """Return the recording; the same seed gives the same spikes."""
        stream = Stream(seed, self.name)
        population = self._membership()
        ids = np.array([f"p{m}n{i:03d}" for m, k in enumerate(self._each("n_observed")) for i in range(int(k))])
        step_ns, trial_ns = round(self.step_ms * 1e6), round(self.duration_s * 1e9)
        times, neurons = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        for trial in range(self.n_trials):
            for first, _, spike_step, neuron in self._simulate(trial, stream):
                times.append(trial * trial_ns + first * round(self.dt_ms * 1e6) + spike_step * step_ns + step_ns // 2)
                neurons.append(neuron)
        starts = np.arange(self.n_trials) * trial_ns
        signals = {}
        if self.has_input:
            values = np.concatenate([self._input(trial, stream) for trial in range(self.n_trials)])
            channels = tuple(f"population {m}" for m in range(len(self.sizes)))
            signals["input"] = Signal(values, 1000 / self.dt_ms, unit="1/s", channels=channels)
        return Recording.from_arrays(
            np.concatenate(times),
            ids[np.concatenate(neurons)],
            unit="ns",
            neurons=NeuronTable.make(ids, populations=population.astype(str)),
            trials=TrialTable.make(starts, starts + trial_ns),
            signals=signals,
        )

    def truth(self, *, seed: int = 0) -> GroundTruth:
        """Return the truth behind `load(seed=seed)`, all of it in `values`.

        coupling (n_populations, n_populations) [post, pre]; tau_m_ms, rest, threshold, tau_syn_ms, n_neurons (n_populations,); t_ref_ms,
        synaptic_delay_ms (1,); activity_hz (n_trials, n_bins, n_populations): rate of whole populations in each bin; membership
        (n_observed,).
        With two or more excitatory populations also winner (n_trials, n_bins), the one that leads, -1 while none does yet; switch_trial
        and switch_s (n_switches,): when in its trial another one takes the lead.
        """
        stream = Stream(seed, self.name)
        seconds = self.dt_ms / 1000
        counts = np.stack(
            [np.concatenate([one for _, one, _, _ in self._simulate(trial, stream)]) for trial in range(self.n_trials)]
        )  # (n_trials, n_bins, n_populations)
        activity_hz = counts / (np.array(self.sizes) * seconds)
        each = {name: np.array(self._each(name), dtype=np.float64) for name in ("tau_m_ms", "rest", "threshold", "tau_syn_ms")}
        values = {
            "coupling": np.array(self.coupling),
            **each,
            "n_neurons": np.array(self.sizes, dtype=np.float64),
            "t_ref_ms": np.array([self.t_ref_ms]),
            "synaptic_delay_ms": np.array([self.delay_ms]),
            "activity_hz": activity_hz,
            "membership": self._membership(),
        }
        excitatory = self.excitatory
        if len(excitatory) > 1:
            winner = np.stack([winning_population(trial[:, excitatory], seconds) for trial in activity_hz])
            switches = [switch_bins(trial) for trial in winner]
            values["winner"] = np.where(winner >= 0, excitatory[winner], -1)
            values["switch_trial"] = np.repeat(np.arange(self.n_trials), [len(one) for one in switches])
            values["switch_s"] = np.concatenate(switches) * seconds
        return GroundTruth(values=values, settings=asdict(self))

    @property
    def excitatory(self) -> np.ndarray:
        """Return the populations whose couplings are none negative and not all 0."""
        coupling = np.array(self.coupling)
        return np.flatnonzero((coupling >= 0).all(axis=0) & (coupling > 0).any(axis=0))

    def _membership(self) -> np.ndarray:
        return np.repeat(np.arange(len(self.sizes)), np.array(self._each("n_observed"), dtype=np.int64))

    def _input(self, trial: int, stream: Stream) -> np.ndarray:
        """Return the input of one trial, (n_bins, n_populations) 1/s, constant in each bin."""
        value = np.zeros((self.n_bins, len(self.sizes)))
        if self.common_sd_per_s:
            decay = math.exp(-self.dt_ms / self.common_tau_ms)
            noise = stream.child(f"common/{trial}").numpy().standard_normal(self.n_bins)
            noise[1:] *= math.sqrt(1 - decay**2)
            value += self.common_sd_per_s * lfilter([1.0], [1.0, -decay], noise)[:, None]
        length = max(1, round(self.pulse_ms / self.dt_ms))
        for start in self.pulse_starts_s:
            first = round(start * 1000 / self.dt_ms)
            value[first : first + length, self.pulse_population] += self.pulse_per_s
        return value

    def _simulate(self, trial: int, stream: Stream) -> Iterator[tuple[int, np.ndarray, np.ndarray, np.ndarray]]:
        """Yield the first bin, counts (bins, n_populations), and step and number of each observed spike, of one chunk after another."""
        constants = self.constants()
        generator = stream.child(f"spikes/{trial}").numpy()
        ends = np.cumsum(self.sizes)
        observed = np.concatenate(
            [np.arange(end - size, end - size + int(k)) for end, size, k in zip(ends, self.sizes, self._each("n_observed"), strict=True)]
        )
        steps_per_bin = round(self.dt_ms / self.step_ms)
        state = start_microscopic(constants, generator, None if self.start_hz is None else np.array(self._each("start_hz"), dtype=float))
        burn_in = np.zeros((round(self.burn_in_s * 1000 / self.dt_ms), len(self.sizes)))
        drive = np.concatenate([burn_in, self._input(trial, stream)])
        for first in range(0, len(drive), CHUNK_BINS):
            part = drive[first : first + CHUNK_BINS]
            run = simulate_microscopic(part, constants, generator, recorded=observed, n_steps=len(part) * steps_per_bin, state=state)
            state = run.state
            counts = run.counts.reshape(len(part), steps_per_bin, -1).sum(axis=1)
            dropped = min(max(len(burn_in) - first, 0), len(part))
            keep = run.spike_step >= dropped * steps_per_bin
            yield (
                first + dropped - len(burn_in),
                counts[dropped:],
                run.spike_step[keep] - dropped * steps_per_bin,
                np.searchsorted(observed, run.spike_neuron[keep]),
            )
