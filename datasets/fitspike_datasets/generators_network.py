"""What the synthetic networks share: settings, wiring under Dale's law, and slow or shared modulation of the drive."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.signal import lfilter

from fitspike import Recording
from fitspike.plugin import GroundTruth, InvalidInputError, Problems, Stream

CALIBRATION_S = (5.0, 5.0, 10.0, 20.0)
"""Lengths of the runs that set the biases."""


@dataclass(frozen=True)
class NetworkSettings:
    """Settings of a random network, without the neuron's own. Units are in the names; `weight` is in the unit of the neuron model."""

    n_neurons: int = 100
    """Recorded neurons; hidden ones come on top."""
    duration_s: float = 600.0
    dt_ms: float = 1.0
    rate_hz: float = 5.0
    """Geometric mean of the target rates."""
    rate_spread: float = 0.4
    """Standard deviation of the logarithm of the target rates over neurons."""
    connection_probability: float = 0.1
    inhibitory_fraction: float = 0.2
    """Share of neurons all of whose outgoing weights are negative (Dale's law)."""
    weight: float = 0.5
    """Mean size of excitatory weights; 0 is the control without connections."""
    weight_spread: float = 0.5
    """Standard deviation of the logarithm of the sizes."""
    inhibition_ratio: float = 2.0
    """Mean size of inhibitory weights over excitatory ones."""
    min_delay_ms: float = 1.0
    max_delay_ms: float = 4.0
    hidden_fraction: float = 0.0
    """Share of the whole network that is simulated but not recorded."""
    drift_sd: float = 0.0
    """Slow drift of each neuron's log rate, standard deviation. Drift and shared fluctuation leave the mean rate as it is."""
    drift_tau_s: float = 120.0
    common_sd: float = 0.0
    """Fluctuation of the log rate that neurons share (each with its own loading between 0 and 2), standard deviation."""
    common_tau_ms: float = 50.0
    burst_rate_hz: float = 0.0
    """Population bursts per second, at random times."""
    burst_ms: float = 100.0
    burst_gain: float = 2.0
    """Rise of the log rate in a burst."""

    def problems(self) -> Problems:
        """Return what is wrong with the settings."""
        found = Problems("network settings")
        for name, least in (("n_neurons", 1), ("duration_s", 1e-3), ("dt_ms", 1e-6), ("rate_hz", 1e-9), ("burst_ms", 1e-6)):
            if not getattr(self, name) >= least:
                found.add(f"{name}={getattr(self, name)} must be positive.")
        for name in ("drift_tau_s", "common_tau_ms"):
            if not getattr(self, name) > 0:
                found.add(f"{name}={getattr(self, name)} must be positive.")
        for name in ("rate_spread", "weight", "weight_spread", "inhibition_ratio", "drift_sd", "common_sd", "burst_rate_hz"):
            if not getattr(self, name) >= 0:
                found.add(f"{name}={getattr(self, name)} must not be negative.")
        for name in ("connection_probability", "inhibitory_fraction"):
            if not 0 <= getattr(self, name) <= 1:
                found.add(f"{name}={getattr(self, name)} must lie between 0 and 1.")
        if not 0 <= self.hidden_fraction < 1:
            found.add(f"hidden_fraction={self.hidden_fraction} must be at least 0 and below 1.")
        if not self.dt_ms <= self.min_delay_ms <= self.max_delay_ms:
            found.add(f"delays {self.min_delay_ms} to {self.max_delay_ms} ms must be ordered and at least one bin of {self.dt_ms} ms.")
        if self.rate_hz * self.dt_ms / 1000 > 0.2:
            found.add(f"rate_hz={self.rate_hz} at dt_ms={self.dt_ms} gives more than 0.2 spikes per bin. Use shorter bins.")
        return found

    @property
    def n_bins(self) -> int:
        """Return the number of bins of the recording."""
        return round(self.duration_s * 1000 / self.dt_ms)


@dataclass(frozen=True)
class Wiring:
    """The network behind a recording, recorded neurons first.

    weight (n_total, n_total) [post, pre]; delay_bins likewise, 0 where there is no connection; sign (n_total,), +1 or -1;
    target_hz (n_total,).
    """

    n_recorded: int
    weight: np.ndarray
    delay_bins: np.ndarray
    sign: np.ndarray
    target_hz: np.ndarray

    @property
    def n_total(self) -> int:
        """Return the number of recorded and hidden neurons."""
        return len(self.sign)

    def events(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return for each neuron where its spikes arrive: offsets delay * n_total + post into a ring of future input, and weights."""
        out = []
        for pre in range(self.n_total):
            post = np.flatnonzero(self.delay_bins[:, pre])
            out.append((self.delay_bins[post, pre] * self.n_total + post, self.weight[post, pre]))
        return out


def draw_wiring(settings: NetworkSettings, stream: Stream) -> Wiring:
    """Return a random network: ordered pairs connected at random, log-normal sizes, one sign per presynaptic neuron."""
    n_total = round(settings.n_neurons / (1 - settings.hidden_fraction))
    draw = stream.child("wiring").numpy()
    sign = np.ones(n_total)
    sign[draw.permutation(n_total)[: round(settings.inhibitory_fraction * n_total)]] = -1.0
    connected = draw.random((n_total, n_total)) < settings.connection_probability
    np.fill_diagonal(connected, False)
    spread = settings.weight_spread
    size = np.exp(spread * draw.standard_normal((n_total, n_total)) - spread**2 / 2)
    strength = settings.weight * np.where(sign > 0, 1.0, -settings.inhibition_ratio)
    weight = np.where(connected, size * strength[None, :], 0.0)
    low, high = (round(delay / settings.dt_ms) for delay in (settings.min_delay_ms, settings.max_delay_ms))
    delay = np.where(weight != 0, draw.integers(low, high + 1, (n_total, n_total)), 0)
    target_hz = settings.rate_hz * np.exp(settings.rate_spread * draw.standard_normal(n_total))
    return Wiring(settings.n_neurons, weight, delay, sign, np.minimum(target_hz, 0.2 * 1000 / settings.dt_ms))


@dataclass(frozen=True)
class Modulation:
    """Change of the log rate that no connection explains. drift (n_seconds + 1, n_total) at whole seconds; loading (n_total,)."""

    dt_ms: float
    drift: np.ndarray | None
    loading: np.ndarray
    common: np.ndarray | None
    common_sd: float
    burst_start_bin: np.ndarray
    burst_bins: int
    burst_gain: float

    def block(self, first: int, n_bins: int) -> np.ndarray:
        """Return the modulation of bins first .. first + n_bins, (n_bins, n_total) or a broadcastable (n_bins, 1)."""
        value = np.zeros((n_bins, 1))
        bins = np.arange(first, first + n_bins)
        if self.drift is not None:
            second = bins * (self.dt_ms / 1000)
            left = second.astype(np.int64)
            part = (second - left)[:, None]
            value = value + (1 - part) * self.drift[left] + part * self.drift[left + 1]
        if self.common is not None:
            value = value + self.common[bins, None] * self.loading - (self.common_sd * self.loading) ** 2 / 2
        if len(self.burst_start_bin):
            before = np.searchsorted(self.burst_start_bin, bins, side="right") - 1
            inside = (before >= 0) & (bins - self.burst_start_bin[np.maximum(before, 0)] < self.burst_bins)
            value = value + self.burst_gain * inside[:, None]
        return value


def draw_modulation(settings: NetworkSettings, n_total: int, stream: Stream) -> Modulation:
    """Return drift, shared input and bursts of the whole recording."""
    n_seconds = int(np.ceil(settings.duration_s)) + 1
    drift = None
    if settings.drift_sd:
        trace = ornstein_uhlenbeck(stream.child("drift"), n_seconds + 1, 1 / settings.drift_tau_s, n_total)
        drift = settings.drift_sd * trace - settings.drift_sd**2 / 2
    common = None
    if settings.common_sd:
        trace = ornstein_uhlenbeck(stream.child("common"), settings.n_bins, settings.dt_ms / settings.common_tau_ms, 1)
        common = settings.common_sd * trace[:, 0]
    loading = stream.child("loading").numpy().uniform(0, 2, n_total)
    draw = stream.child("bursts").numpy()
    n_bursts = draw.poisson(settings.burst_rate_hz * settings.duration_s)
    starts = np.sort(draw.integers(0, settings.n_bins, n_bursts))
    burst_bins = max(1, round(settings.burst_ms / settings.dt_ms))
    return Modulation(settings.dt_ms, drift, loading, common, settings.common_sd, starts, burst_bins, settings.burst_gain)


def ornstein_uhlenbeck(stream: Stream, n_steps: int, step_over_tau: float, n_traces: int) -> np.ndarray:
    """Return stationary traces of mean 0, variance 1 and correlation exp(-steps * step_over_tau), (n_steps, n_traces)."""
    decay = np.exp(-step_over_tau)
    noise = stream.numpy().standard_normal((n_steps, n_traces))
    noise[1:] *= np.sqrt(1 - decay**2)
    return lfilter([1.0], [1.0, -decay], noise, axis=0)


def logistic_blocks(stream: Stream, n_bins: int, n_total: int, size: int = 4096) -> Iterator[tuple[int, np.ndarray]]:
    """Yield first bins and logistic thresholds (bins, n_total): a neuron spikes where its log-odds exceed its threshold."""
    draw = stream.numpy()
    for first in range(0, n_bins, size):
        yield first, draw.logistic(size=(min(size, n_bins - first), n_total))


def still(settings: NetworkSettings, n_total: int) -> Modulation:
    """Return no modulation."""
    return Modulation(settings.dt_ms, None, np.zeros(n_total), None, 0.0, np.zeros(0, np.int64), 1, 0.0)


def calibrated_bias(simulate: Any, bias: np.ndarray, target_hz: np.ndarray, dt_ms: float, stream: Stream) -> np.ndarray:
    """Return the bias, in log-odds, at which short runs without modulation come near the target rates.

    simulate(bias, n_bins, stream) -> (bins, neurons). Each round moves the bias by 0.7 of the log ratio of target and count (plus one, so
    that a silent neuron moves a finite way).
    """
    for number, duration_s in enumerate(CALIBRATION_S):
        _, neurons = simulate(bias, round(duration_s * 1000 / dt_ms), stream.child(f"calibration-{number}"))
        counts = np.bincount(neurons, minlength=len(bias))
        if counts.mean() > 20 * target_hz.mean() * duration_s:
            raise InvalidInputError(
                "the network runs away: its mean rate in a calibration run is more than 20 times the target. Use smaller weights, "
                "fewer connections or a lower rate."
            )
        bias = bias + 0.7 * np.log((target_hz * duration_s + 1) / (counts + 1))
    return bias


def recording_of(settings: NetworkSettings, bins: np.ndarray, neurons: np.ndarray, n_recorded: int) -> Recording:
    """Return the recorded neurons' spikes, each in the middle of its bin."""
    keep = neurons < n_recorded
    dt_ns = round(settings.dt_ms * 1_000_000)
    digits = len(str(n_recorded - 1))
    ids = np.array([f"n{i:0{digits}d}" for i in range(n_recorded)])
    return Recording.from_arrays(
        bins[keep] * dt_ns + dt_ns // 2,
        ids[neurons[keep]],
        unit="ns",
        ids=ids,
        start_s=0.0,
        stop_s=settings.n_bins * settings.dt_ms / 1000,
    )


def ground_truth(settings: NetworkSettings, wiring: Wiring, modulation: Modulation, values: dict[str, np.ndarray]) -> GroundTruth:
    """Return the truth of the recorded neurons, and apart from it what concerns hidden ones.

    `weight`, `delay_ms` [post, pre] of recorded neurons (delay NaN where unconnected). In `values`: sign, target_rate_hz (n_recorded,);
    weight_from_hidden [recorded, hidden], weight_to_hidden [hidden, recorded], weight_among_hidden; common_loading (n_recorded,),
    common_input (n_bins,) and burst_start_s (n_bursts,) where there are any; and what the generator adds.
    """
    n = wiring.n_recorded
    delay_ms = np.where(wiring.delay_bins > 0, wiring.delay_bins * settings.dt_ms, np.nan)
    return GroundTruth(
        weight=wiring.weight[:n, :n],
        delay_ms=delay_ms[:n, :n],
        values={
            "sign": wiring.sign[:n],
            "target_rate_hz": wiring.target_hz[:n],
            "weight_from_hidden": wiring.weight[:n, n:],
            "weight_to_hidden": wiring.weight[n:, :n],
            "weight_among_hidden": wiring.weight[n:, n:],
            "delay_from_hidden_ms": delay_ms[:n, n:],
            "common_loading": modulation.loading[:n],
            "common_input": np.zeros(0) if modulation.common is None else modulation.common,
            "burst_start_s": modulation.burst_start_bin * settings.dt_ms / 1000,
            **values,
        },
        settings=asdict(settings),
    )
