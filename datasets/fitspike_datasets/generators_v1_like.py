"""Artificial benchmarks for fits of freely simulated activity: repeats of one movie, and noise or hidden neurons that no fit can see.

Sizes and constants are those of the project's own benchmark, made to resemble binned recordings of visual cortex under a repeated movie
(Bellec et al. 2021, NeurIPS 34): bins of 40 ms, 8 s of stimulus, 100 to 150 repeats for fitting.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from fitspike import Recording
from fitspike.plugin import DataCard, GroundTruth, Problems, Stream
from fitspike_datasets.generators_movie import (
    MovieNetwork,
    MovieSettings,
    draw_stimulus,
    draw_stimulus_weight,
    draw_targets,
    movie_recording,
    movie_truth,
    with_lags,
)

N_LAGS = 4


@dataclass(frozen=True)
class RandomCoupling(MovieSettings):
    """Settings of the random couplings among visible neurons. A connection's log-odds decay over four lags as exp(-(d - 1) / 2)."""

    connection_probability: float = 0.2
    coupling_weight: float = 2.0
    """Scale of the half-normal sizes, times the root of the expected number of connections onto a neuron; summed over lags."""
    inhibitory_fraction: float = 0.2
    """Share of neurons all of whose outgoing weights are negative (Dale's law)."""
    inhibition_ratio: float = 1.5
    """Scale of inhibitory sizes over excitatory ones."""

    def problems(self, name: str) -> Problems:
        """Return what is wrong with the settings."""
        found = super().problems(name)
        for field in ("connection_probability", "inhibitory_fraction"):
            if not 0 <= getattr(self, field) <= 1:
                found.add(f"{field}={getattr(self, field)} must lie between 0 and 1.")
        for field in ("coupling_weight", "inhibition_ratio"):
            if not getattr(self, field) >= 0:
                found.add(f"{field}={getattr(self, field)} must not be negative.")
        return found

    def draw_weight(self, stream: Stream) -> tuple[np.ndarray, np.ndarray]:
        """Return weights [post, pre] among visible neurons, and each neuron's sign."""
        n, draw = self.n_neurons, stream.child("coupling").numpy()
        sign = np.ones(n)
        sign[draw.permutation(n)[: round(self.inhibitory_fraction * n)]] = -1.0
        connected = draw.random((n, n)) < self.connection_probability
        np.fill_diagonal(connected, False)
        scale = self.coupling_weight / np.sqrt(max(self.connection_probability * n, 1e-12))
        size = scale * np.abs(draw.standard_normal((n, n)))
        return connected * size * np.where(sign > 0, 1.0, -self.inhibition_ratio), sign

    def over_lags(self, weight: np.ndarray) -> np.ndarray:
        """Return couplings [post, pre, lag] of weights summed over lags, with own history exp(-(d - 1)) on the diagonal."""
        lag = np.arange(N_LAGS)
        kernel = np.exp(-lag / 2)
        return with_lags(weight, kernel / kernel.sum(), self.self_weight * np.exp(-lag))


@dataclass(frozen=True)
class SlowNoiseMovie(RandomCoupling):
    """Coupled GLM neurons that see the same movie in every trial, and share two slow latents that no input explains.

    u_i(t) = b_i + sum_f w_if x_f(t) + sum_l c_il a_l(t) + sum_{j, d = 1..4} W_ijd z_j(t - d),    z_i(t) ~ Bernoulli(sigmoid(u_i(t)))
    a_l(t) = rho a_l(t - 1) + sqrt(1 - rho^2) noise,    of variance 1 and new in every trial

    A coupled GLM fitted by likelihood uses the past spikes of others as a sign of the latents, and fires unlike the data when it runs
    freely. Biases are calibrated so that rates come near their targets.
    """

    name: ClassVar[str] = "slow-noise-movie"
    n_latents: int = 2
    latent_persistence: float = 0.97
    """Correlation of a latent between bins."""
    latent_weight: float = 2.2
    """Scale of the half-normal loadings."""
    latent_absent: float = 0.3
    """Share of (neuron, latent) pairs without loading."""
    latent_negative: float = 0.05
    """Share of negative loadings among them."""

    def __post_init__(self) -> None:
        found = self.problems(self.name)
        if self.n_latents < 0:
            found.add(f"n_latents={self.n_latents} must not be negative.")
        if not 0 <= self.latent_persistence < 1:
            found.add(f"latent_persistence={self.latent_persistence} must be at least 0 and below 1.")
        for field in ("latent_absent", "latent_negative"):
            if not 0 <= getattr(self, field) <= 1:
                found.add(f"{field}={getattr(self, field)} must lie between 0 and 1.")
        found.raise_if_any()

    def describe(self) -> DataCard:
        """Return the card."""
        return _card(self, "Repeats of a movie in a random network with two unobserved slow latents, with its true couplings")

    def load(self, cache: Path | None = None, *, item: str | None = None, seed: int = 0) -> Recording:
        """Return the recording; the same seed gives the same spikes."""
        return movie_recording(self, *self._network(seed))

    def truth(self, *, seed: int = 0) -> GroundTruth:
        """Return the truth behind `load(seed=seed)`; see `movie_truth` for what `values` holds."""
        return movie_truth(self, *self._network(seed)[:3])

    def _network(self, seed: int) -> tuple[MovieNetwork, np.ndarray, np.ndarray, Stream]:
        stream, n = Stream(seed, self.name), self.n_neurons
        weight, sign = self.draw_weight(stream)
        draw = stream.child("loading").numpy()
        shape = (n, self.n_latents)
        loading = self.latent_weight * np.abs(draw.standard_normal(shape)) * (draw.random(shape) >= self.latent_absent)
        loading *= np.where(draw.random(shape) < self.latent_negative, -1.0, 1.0)
        network = MovieNetwork(
            n_visible=n,
            coupling=self.over_lags(weight),
            stimulus_weight=draw_stimulus_weight(self, n, stream),
            loading=loading,
            persistence=self.latent_persistence,
            target=draw_targets(self, 0, self.rate_hz, stream),
            populations=_signs_in_words(sign),
        )
        return _calibrated(self, network, stream)


@dataclass(frozen=True)
class HiddenAssembliesMovie(RandomCoupling):
    """Coupled GLM neurons that see the same movie in every trial, driven by hidden assemblies that excite themselves.

    u_i(t) = b_i + sum_f w_if x_f(t) + sum_{j, d = 1..4} W_ijd z_j(t - d),    z_i(t) ~ Bernoulli(sigmoid(u_i(t)))

    Hidden neurons see no movie and get no input from visible ones; within an assembly all are connected, with weights summed over lags of
    assembly_gain / (neurons of the assembly * their spikes per bin). They reach visible neurons in common, which gives noise correlations
    and makes couplings appear where there are none. Biases are calibrated so that rates come near their targets.
    """

    name: ClassVar[str] = "hidden-assemblies-movie"
    n_test: int = 150
    n_assemblies: int = 2
    assembly_size: int = 20
    hidden_rate_hz: float = 3.0
    assembly_gain: float = 0.95
    """At about 1.1 assemblies switch between two states, and no estimate of a correlation is worth anything."""
    assembly_probability: float = 0.6
    """Share of (visible neuron, assembly) pairs that are connected."""
    assembly_negative: float = 0.2
    """Share of negative ones among them."""
    assembly_weight: float = 8.0
    """Mean size of such a connection, summed over the assembly's neurons and over lags; it varies from half to three halves of that."""

    def __post_init__(self) -> None:
        found = self.problems(self.name)
        for field in ("n_assemblies", "assembly_size"):
            if getattr(self, field) < 1:
                found.add(f"{field}={getattr(self, field)} must be at least 1.")
        for field in ("assembly_probability", "assembly_negative"):
            if not 0 <= getattr(self, field) <= 1:
                found.add(f"{field}={getattr(self, field)} must lie between 0 and 1.")
        if not 0 < self.spikes_per_bin(self.hidden_rate_hz) <= 0.3:
            found.add(f"hidden_rate_hz={self.hidden_rate_hz} at dt_ms={self.dt_ms} must give 0 to 0.3 spikes per bin.")
        found.raise_if_any()

    def describe(self) -> DataCard:
        """Return the card."""
        return _card(self, "Repeats of a movie in a random network driven by hidden assemblies, with its true couplings")

    def load(self, cache: Path | None = None, *, item: str | None = None, seed: int = 0) -> Recording:
        """Return the recording; the same seed gives the same spikes."""
        return movie_recording(self, *self._network(seed))

    def truth(self, *, seed: int = 0) -> GroundTruth:
        """Return the truth behind `load(seed=seed)`; see `movie_truth` for what `values` holds."""
        return movie_truth(self, *self._network(seed)[:3])

    def _network(self, seed: int) -> tuple[MovieNetwork, np.ndarray, np.ndarray, Stream]:
        stream, n = Stream(seed, self.name), self.n_neurons
        n_hidden = self.n_assemblies * self.assembly_size
        weight = np.zeros((n + n_hidden, n + n_hidden))
        weight[:n, :n], sign = self.draw_weight(stream)
        draw = stream.child("assemblies").numpy()
        shape = (n, self.n_assemblies)
        reach = (draw.random(shape) < self.assembly_probability) * draw.uniform(0.5, 1.5, shape)
        reach *= np.where(draw.random(shape) < self.assembly_negative, -1.0, 1.0) * self.assembly_weight / self.assembly_size
        weight[:n, n:] = np.repeat(reach, self.assembly_size, axis=1)
        among = self.assembly_gain / (self.assembly_size * self.spikes_per_bin(self.hidden_rate_hz))
        for first in range(n, n + n_hidden, self.assembly_size):
            weight[first : first + self.assembly_size, first : first + self.assembly_size] = among
        labels = tuple(f"assembly {k}" for k in range(self.n_assemblies) for _ in range(self.assembly_size))
        network = MovieNetwork(
            n_visible=n,
            coupling=self.over_lags(weight),
            stimulus_weight=draw_stimulus_weight(self, n + n_hidden, stream),
            loading=np.zeros((n + n_hidden, 0)),
            persistence=0.0,
            target=draw_targets(self, n_hidden, self.hidden_rate_hz, stream),
            populations=_signs_in_words(sign) + labels,
        )
        return _calibrated(self, network, stream)


MOTIFS: dict[str, tuple[tuple[str, str, float], ...]] = {
    "feedforward": (("A", "A", 2.0), ("B", "B", 2.0), ("A", "H", 14.0), ("H", "B", -12.0)),
    "feedback": (("A", "A", 3.0), ("A", "H", 12.0), ("H", "A", -10.0)),
}
"""Projections (pre, post, expected sum of the weights onto a neuron) between blocks; H is hidden."""


@dataclass(frozen=True)
class DisynapticMovie(MovieSettings):
    """Blocks of GLM neurons that see the same movie in every trial and inhibit each other through a hidden block H.

    u_i(t) = b_i + sum_f w_if x_f(t) + sum_j W_ij z_j(t - 1),    z_i(t) ~ Bernoulli(sigmoid(u_i(t)))

    motif "feedforward": A excites H, H inhibits B, nothing from A to B; visible neurons are half A, half B. motif "feedback": A excites H
    and itself, H inhibits A. Connections exist with `connection_probability`; each has the weight that the block's sum would have to be
    shared by the expected number of them, times a uniform number from 0.5 to 1.5. All effects last one bin: hidden paths show two bins
    later. Biases are calibrated so that rates come near their targets.
    """

    name: ClassVar[str] = "disynaptic-movie"
    n_train: int = 150
    n_test: int = 100
    rate_spread: float = 0.3
    n_features: int = 8
    feature_weight: float = 0.4
    motif: str = "feedforward"
    """"feedforward" or "feedback"; the benchmark's feedback case has n_neurons=30 and n_hidden=10."""
    n_hidden: int = 15
    hidden_rate_hz: float = 3.75
    connection_probability: float = 0.3

    def __post_init__(self) -> None:
        found = self.problems(self.name)
        if self.motif not in MOTIFS:
            found.add(f"motif={self.motif!r}. Use {' or '.join(MOTIFS)}.")
        if self.n_hidden < 1:
            found.add(f"n_hidden={self.n_hidden} must be at least 1.")
        if not 0 < self.connection_probability <= 1:
            found.add(f"connection_probability={self.connection_probability} must lie between 0 and 1, and above 0.")
        if not 0 < self.spikes_per_bin(self.hidden_rate_hz) <= 0.3:
            found.add(f"hidden_rate_hz={self.hidden_rate_hz} at dt_ms={self.dt_ms} must give 0 to 0.3 spikes per bin.")
        found.raise_if_any()

    def describe(self) -> DataCard:
        """Return the card."""
        return _card(self, "Repeats of a movie in blocks of neurons with inhibition through a hidden block, with the true couplings")

    def load(self, cache: Path | None = None, *, item: str | None = None, seed: int = 0) -> Recording:
        """Return the recording; the same seed gives the same spikes."""
        return movie_recording(self, *self._network(seed))

    def truth(self, *, seed: int = 0) -> GroundTruth:
        """Return the truth behind `load(seed=seed)`; see `movie_truth` for what `values` holds."""
        return movie_truth(self, *self._network(seed)[:3])

    def _network(self, seed: int) -> tuple[MovieNetwork, np.ndarray, np.ndarray, Stream]:
        stream = Stream(seed, self.name)
        n_in_a = self.n_neurons // 2 if self.motif == "feedforward" else self.n_neurons
        label = np.array(["A"] * n_in_a + ["B"] * (self.n_neurons - n_in_a) + ["H"] * self.n_hidden)
        draw = stream.child("coupling").numpy()
        n_total = len(label)
        weight = np.zeros((n_total, n_total))
        exists = draw.random((n_total, n_total)) < self.connection_probability
        np.fill_diagonal(exists, False)
        size = draw.uniform(0.5, 1.5, (n_total, n_total))
        for pre, post, total in MOTIFS[self.motif]:
            block = np.ix_(label == post, label == pre)
            mean = total / (self.connection_probability * np.count_nonzero(label == pre))
            weight[block] = (exists * size)[block] * mean
        network = MovieNetwork(
            n_visible=self.n_neurons,
            coupling=with_lags(weight, np.ones(1), np.full(1, self.self_weight)),
            stimulus_weight=draw_stimulus_weight(self, n_total, stream),
            loading=np.zeros((n_total, 0)),
            persistence=0.0,
            target=draw_targets(self, self.n_hidden, self.hidden_rate_hz, stream),
            populations=tuple(label.tolist()),
        )
        return _calibrated(self, network, stream)


def _calibrated(settings: MovieSettings, network: MovieNetwork, stream: Stream) -> tuple[MovieNetwork, np.ndarray, np.ndarray, Stream]:
    """Return network, biases, stimulus and the stream of the dataset."""
    stimulus = draw_stimulus(settings, stream)
    return network, network.calibrated_bias(stimulus, stream.child("calibration")), stimulus, stream


def _signs_in_words(sign: np.ndarray) -> tuple[str, ...]:
    return tuple("excitatory" if one > 0 else "inhibitory" for one in sign)


def _card(settings: MovieSettings, summary: str) -> DataCard:
    split = {"split": f"trial:test={settings.n_train}-{settings.n_trials - 1}"} if settings.n_test else {}
    return DataCard(
        name=settings.name,
        summary=summary,
        licence="BSD-3-Clause",
        citation="Generated by fitspike-datasets",
        is_synthetic=True,
        parameters=asdict(settings),
        settings={"": split} if split else {},
        notes=(
            "every trial has the condition 'movie' and the same signal 'stimulus'; column 'part' says which trials are for fitting",
            "weight is a target's log-odds of a spike summed over the bins after one spike; matrices are [post, pre]",
            "trial_seed=1 gives fresh trials of the same network, record_hidden=true records the hidden neurons too",
        ),
    )
