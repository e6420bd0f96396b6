"""What generators of repeated trials of one stimulus share: settings, trials of a network, biases at target rates, recording and truth."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.signal import lfilter
from scipy.special import logit, ndtri

from fitspike import Recording
from fitspike.plugin import GroundTruth, InvalidInputError, NeuronTable, Problems, Signal, Stream

CALIBRATION_TRIALS = 200
CALIBRATION_ROUNDS = 16
CALIBRATED, TOO_FAR = 0.02, 0.1
"""How far rates may be from their targets in the trials that set the biases, relative: to stop at once, and after all rounds."""
RATE_FACTORS = (0.4, 2.5)
"""Lowest and highest target rate, relative to the geometric mean."""


@dataclass(frozen=True)
class MovieSettings:
    """Settings of repeated trials in which a network sees the same stimulus, without the network's own. Couplings are log-odds."""

    n_neurons: int = 40
    """Visible neurons; hidden ones come on top."""
    n_train: int = 100
    """Trials meant for fitting: the first ones."""
    n_test: int = 200
    """Trials meant for scoring: those that follow."""
    n_bins: int = 200
    """Bins of a trial."""
    dt_ms: float = 40.0
    rate_hz: float = 3.0
    """Geometric mean of the visible neurons' target rates."""
    rate_spread: float = 0.4
    """Standard deviation of the logarithm of the target rates over neurons, which stay within 0.4 and 2.5 of their mean."""
    n_features: int = 10
    """Channels of the stimulus: white noise, smoothed by a Gaussian, z-scored over the trial."""
    smooth_bins: float = 2.0
    """Standard deviation of that Gaussian."""
    feature_probability: float = 0.3
    """Share of (visible neuron, channel) pairs whose weight is not 0."""
    feature_weight: float = 0.5
    """Standard deviation of those weights."""
    self_weight: float = -1.5
    """Log-odds one bin after the neuron's own spike."""
    record_hidden: bool = False
    """Whether the hidden neurons are recorded too, after the visible ones."""
    trial_seed: int = 0
    """Number of the set of trials: another one gives fresh trials of the same network and stimulus."""

    def problems(self, name: str) -> Problems:
        """Return what is wrong with the settings."""
        found = Problems(f"{name} settings")
        for field, least in (("n_neurons", 2), ("n_train", 1), ("n_test", 0), ("n_bins", 1), ("n_features", 0)):
            if not getattr(self, field) >= least:
                found.add(f"{field}={getattr(self, field)} must be at least {least}.")
        for field in ("dt_ms", "rate_hz", "smooth_bins"):
            if not getattr(self, field) > 0:
                found.add(f"{field}={getattr(self, field)} must be positive.")
        for field in ("rate_spread", "feature_weight"):
            if not getattr(self, field) >= 0:
                found.add(f"{field}={getattr(self, field)} must not be negative.")
        if not 0 <= self.feature_probability <= 1:
            found.add(f"feature_probability={self.feature_probability} must lie between 0 and 1.")
        if self.rate_hz * self.dt_ms / 1000 > 0.3:
            found.add(f"rate_hz={self.rate_hz} at dt_ms={self.dt_ms} gives more than 0.3 spikes per bin. Use shorter bins.")
        return found

    @property
    def n_trials(self) -> int:
        """Return the number of trials."""
        return self.n_train + self.n_test

    def spikes_per_bin(self, rate_hz: float) -> float:
        """Return a rate in spikes per bin."""
        return rate_hz * self.dt_ms / 1000


@dataclass(frozen=True)
class MovieNetwork:
    """A network whose log-odds of a spike add up, visible neurons first.

    u_i(t) = bias_i + sum_f stimulus_weight_if x_f(t) + sum_l loading_il a_l(t) + sum_{j, d >= 1} coupling_ijd z_j(t - d)

    coupling (n_total, n_total, n_lags) [post, pre, lag], lag index 0 being one bin; loading (n_total, n_latents) of latents a of variance
    1 and correlation `persistence` between bins; target (n_total,) spikes per bin; populations: a label per neuron.
    """

    n_visible: int
    coupling: np.ndarray
    stimulus_weight: np.ndarray
    loading: np.ndarray
    persistence: float
    target: np.ndarray
    populations: tuple[str, ...]

    @property
    def n_total(self) -> int:
        """Return the number of visible and hidden neurons."""
        return len(self.target)

    def trials(self, bias: np.ndarray, stimulus: np.ndarray, n_trials: int, stream: Stream) -> np.ndarray:
        """Return spikes of trials from a silent past, (n_trials, n_bins, n_total) bool. A trial does not depend on how many there are."""
        n_bins, n_lags = len(stimulus), self.coupling.shape[2]
        # A neuron spikes where its log-odds exceed its threshold.
        threshold = logit(stream.child("spikes").uniforms(n_trials, range(n_bins), self.n_total))
        threshold -= bias + stimulus @ self.stimulus_weight.T
        if self.loading.any():
            threshold -= self._latents(n_trials, n_bins, stream.child("latents")) @ self.loading.T
        by_lag = self.coupling.transpose(2, 1, 0).reshape(n_lags * self.n_total, self.n_total)
        # Time runs backwards here, so that the bins which a bin looks back on, latest first, are one stretch of memory.
        reversed_spikes = np.zeros((n_trials, n_bins + n_lags, self.n_total))
        for t in range(n_bins):
            at = n_bins - 1 - t
            past = reversed_spikes[:, at + 1 : at + 1 + n_lags].reshape(n_trials, -1)
            reversed_spikes[:, at] = past @ by_lag > threshold[:, t]
        return reversed_spikes[:, n_bins - 1 :: -1][:, :n_bins].astype(bool)

    def _latents(self, n_trials: int, n_bins: int, stream: Stream) -> np.ndarray:
        noise = ndtri(stream.uniforms(n_trials, range(n_bins), self.loading.shape[1]))
        noise[:, 1:] *= np.sqrt(1 - self.persistence**2)
        return lfilter([1.0], [1.0, -self.persistence], noise, axis=1)

    def calibrated_bias(self, stimulus: np.ndarray, stream: Stream) -> np.ndarray:
        """Return the bias at which the mean counts of a fixed set of trials are the targets, (n_total,).

        Raises
        ------
        InvalidInputError
            If the rates do not come near their targets, as in a network that switches between two states.
        """
        # Log-odds of a mean rate move this much less than the bias under a drive that varies (MacKay 1992, Neural Computation 4:720). What
        # the change of all rates does to a neuron's input is taken off: near a critical point it is most of the effect.
        variance = np.square(self.loading).sum(axis=1) + np.square(self.stimulus_weight).sum(axis=1)
        variance += np.square(self.coupling).sum(axis=2) @ (self.target * (1 - self.target))
        smear = np.sqrt(1 + np.pi / 8 * variance)
        weight = self.coupling.sum(axis=2)
        bias = logit(self.target) * smear - weight @ self.target
        least = 1 / (CALIBRATION_TRIALS * len(stimulus))
        for _ in range(CALIBRATION_ROUNDS):
            found = self.trials(bias, stimulus, CALIBRATION_TRIALS, stream).mean((0, 1))
            off = np.abs(found / self.target - 1)
            if off.max() < CALIBRATED:
                return bias
            change = smear * (logit(self.target) - logit(np.clip(found, least, 1 - least)))
            bias = bias + 0.6 * (change - weight @ (self.target - found))
        if off.max() > TOO_FAR:
            raise InvalidInputError(
                f"the network does not settle at its target rates: {np.count_nonzero(off > TOO_FAR)} of {self.n_total} neurons are up to "
                f"{100 * off.max():.0f} % off after {CALIBRATION_ROUNDS} rounds. Use weaker couplings."
            )
        return bias


def draw_stimulus(settings: MovieSettings, stream: Stream) -> np.ndarray:
    """Return the stimulus of every trial, (n_bins, n_features): mean 0 and variance 1 of each channel."""
    white = stream.child("stimulus").numpy().standard_normal((settings.n_bins, settings.n_features))
    smooth = gaussian_filter1d(white, settings.smooth_bins, axis=0)
    spread = smooth.std(axis=0)
    return (smooth - smooth.mean(axis=0)) / np.where(spread > 0, spread, 1.0)


def draw_stimulus_weight(settings: MovieSettings, n_total: int, stream: Stream) -> np.ndarray:
    """Return the weights of the channels, (n_total, n_features); hidden neurons do not see the stimulus."""
    draw = stream.child("stimulus-weight").numpy()
    shape = (settings.n_neurons, settings.n_features)
    weight = np.zeros((n_total, settings.n_features))
    drawn = settings.feature_weight * draw.standard_normal(shape)
    weight[: settings.n_neurons] = drawn * (draw.random(shape) < settings.feature_probability)
    return weight


def draw_targets(settings: MovieSettings, n_hidden: int, hidden_rate_hz: float, stream: Stream) -> np.ndarray:
    """Return the target counts per bin, log-normal for visible neurons and all the same for hidden ones, (n_total,)."""
    factor = np.exp(settings.rate_spread * stream.child("targets").numpy().standard_normal(settings.n_neurons))
    visible = settings.spikes_per_bin(settings.rate_hz) * np.clip(factor, *RATE_FACTORS)
    return np.concatenate([visible, np.full(n_hidden, settings.spikes_per_bin(hidden_rate_hz))])


def with_lags(weight: np.ndarray, kernel: np.ndarray, self_kernel: np.ndarray) -> np.ndarray:
    """Return couplings over lags, (n_total, n_total, n_lags) [post, pre, lag], of weights without and own history on the diagonal."""
    coupling = weight[:, :, None] * kernel
    here = np.arange(len(weight))
    coupling[here, here] = self_kernel
    return coupling


def movie_recording(settings: MovieSettings, network: MovieNetwork, bias: np.ndarray, stimulus: np.ndarray, stream: Stream) -> Recording:
    """Return the trials as a recording: condition "movie", column "part" ("train" or "test"), signal "stimulus"."""
    spikes = network.trials(bias, stimulus, settings.n_trials, stream.child(f"trials/{settings.trial_seed}"))
    n_recorded = network.n_total if settings.record_hidden else network.n_visible
    digits = len(str(max(network.n_visible, network.n_total - network.n_visible) - 1))
    ids = [f"n{i:0{digits}d}" for i in range(network.n_visible)] + [f"h{i:0{digits}d}" for i in range(network.n_total - network.n_visible)]
    signals = {}
    if settings.n_features:
        signals["stimulus"] = Signal(np.tile(stimulus, (settings.n_trials, 1)), 1000 / settings.dt_ms, unit="sd")
    return Recording.from_counts(
        spikes[..., :n_recorded],
        dt_ms=settings.dt_ms,
        neurons=NeuronTable.make(ids[:n_recorded], populations=network.populations[:n_recorded]),
        conditions=["movie"] * settings.n_trials,
        trial_columns={"part": np.repeat(["train", "test"], [settings.n_train, settings.n_test])},
        signals=signals,
    )


def movie_truth(settings: MovieSettings, network: MovieNetwork, bias: np.ndarray, stimulus: np.ndarray) -> GroundTruth:
    """Return the truth of the recorded neurons, and apart from it what concerns hidden ones.

    `weight` [post, pre]: log-odds summed over the lags after a spike, without the diagonal; `delay_ms`: of the first lag, NaN where
    unconnected. In `values`: coupling [post, pre, lag] with each neuron's own history on the diagonal, bias, target_rate_hz,
    stimulus_weight [post, feature] and latent_loading [post, latent] of recorded neurons; coupling_from_hidden [recorded, hidden, lag],
    coupling_to_hidden [hidden, recorded, lag], coupling_among_hidden, hidden_bias; stimulus (n_bins, n_features) and
    latent_persistence, the latents' correlation between bins.
    """
    n = network.n_total if settings.record_hidden else network.n_visible
    coupling = network.coupling
    weight = coupling.sum(axis=2)
    np.fill_diagonal(weight, 0.0)
    return GroundTruth(
        weight=weight[:n, :n],
        delay_ms=np.where(weight != 0, settings.dt_ms, np.nan)[:n, :n],
        values={
            "coupling": coupling[:n, :n],
            "bias": bias[:n],
            "target_rate_hz": network.target[:n] * 1000 / settings.dt_ms,
            "stimulus_weight": network.stimulus_weight[:n],
            "latent_loading": network.loading[:n],
            "coupling_from_hidden": coupling[:n, n:],
            "coupling_to_hidden": coupling[n:, :n],
            "coupling_among_hidden": coupling[n:, n:],
            "hidden_bias": bias[n:],
            "stimulus": stimulus,
            "latent_persistence": np.asarray(network.persistence),
        },
        settings=asdict(settings),
    )
