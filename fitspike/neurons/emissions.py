"""What drive means for the spikes of one bin: Bernoulli on log-odds, Bernoulli on an exponential hazard, Poisson counts, a threshold.

Every emission is sampled by inverting its distribution at a given uniform, so that spikes are a function of drive and uniforms alone.
Sampled spikes carry a pseudo-derivative: `slope(drive)` stands in for d spikes / d drive in the backward pass. By default it is the
derivative of the expected count (for log-odds: the sigmoid's derivative, dampening 1), which on exactly enumerable networks has a cosine
of 0.93 to 1.00 with the true gradient; "triangle" is max(0, 1 - |drive|), used with dampening 0.3 by Bellec et al. 2021 (NeurIPS 34).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from fitspike.errors import InvalidInputError, Problems, UnknownNameError, did_you_mean
from fitspike.kernels.linear_rollout import Sampling, Slope
from fitspike.kernels.linear_rollout.sampling import MAX_LOG_EXPECTED, poisson_quantile
from fitspike.neurons.base import Emission

NEVER_DRIVE = -30.0
"""A drive at which no emission spikes at any uniform of `fitspike.rng` (the smallest is 2**-33, whose log-odds are -22.9)."""

_SLOPES = ("expected", "triangle")


class _SpikeWithSlope(torch.autograd.Function):
    """Given spikes in the forward pass, a given slope times the incoming gradient in the backward pass."""

    @staticmethod
    def forward(ctx, drive: torch.Tensor, spikes: torch.Tensor, slope: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(slope)
        return spikes

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (slope,) = ctx.saved_tensors
        return gradient * slope, None, None


def _with_slope(emission: Emission, drive: torch.Tensor, spikes: torch.Tensor, dt_ms: float) -> torch.Tensor:
    """Return the spikes, carrying the emission's pseudo-derivative when a gradient is being recorded."""
    if not (torch.is_grad_enabled() and drive.requires_grad):
        return spikes
    return _SpikeWithSlope.apply(drive, spikes, emission.slope(drive.detach(), dt_ms))


def _check_settings(pseudo_derivative: str, dampening: float) -> None:
    problems = Problems("emission")
    if pseudo_derivative not in _SLOPES:
        problems.add(
            f"unknown pseudo_derivative {pseudo_derivative!r}{did_you_mean(pseudo_derivative, _SLOPES)} Known: {', '.join(_SLOPES)}."
        )
    if not 0.0 <= dampening <= 1.0:
        problems.add(f"dampening={dampening} is outside [0, 1]. Use 1.0, or 0.3 with the triangle.")
    problems.raise_if_any()


def _triangle(drive: torch.Tensor) -> torch.Tensor:
    return (1.0 - drive.abs()).clamp_min(0.0)


@dataclass(frozen=True)
class Bernoulli:
    """At most one spike per bin; the drive is the log-odds of a spike: p = 1 / (1 + exp(-drive))."""

    name: ClassVar[str] = "bernoulli"
    is_binary: ClassVar[bool] = True
    sampling: ClassVar[str] = "threshold"
    pseudo_derivative: str = "expected"
    dampening: float = 1.0

    def __post_init__(self) -> None:
        _check_settings(self.pseudo_derivative, self.dampening)

    def log_prob(self, drive: torch.Tensor, spikes: torch.Tensor, dt_ms: float) -> torch.Tensor:
        """Return log p of a spike and log(1 - p) of none, p = 1 / (1 + exp(-drive)), nats, elementwise; spikes are 0 or 1."""
        return torch.nn.functional.logsigmoid((2.0 * spikes - 1.0) * drive)  # 1 - p(drive) = p(-drive)

    def expected(self, drive: torch.Tensor, dt_ms: float) -> torch.Tensor:
        """Return the spike probability of the bin, elementwise."""
        return torch.sigmoid(drive)

    def mean_square(self, expected: torch.Tensor) -> torch.Tensor:
        """Return the mean of the squared count, which is that of the count, 0 or 1."""
        return expected

    def slope(self, drive: torch.Tensor, dt_ms: float) -> torch.Tensor:
        """Return the pseudo-derivative d spikes / d drive: dampening times p (1 - p), or times the triangle."""
        if self.pseudo_derivative == "triangle":
            return self.dampening * _triangle(drive)
        probability = torch.sigmoid(drive)
        return self.dampening * probability * (1.0 - probability)

    def drive_for(self, expected: torch.Tensor, dt_ms: float) -> torch.Tensor:
        """Return the drive whose expected count is given; counts are moved into [1e-9, 1 - 1e-9]."""
        return torch.logit(expected.clamp(1e-9, 1.0 - 1e-9))

    def threshold(self, uniforms: torch.Tensor, dt_ms: float) -> torch.Tensor:
        """Return the drive above which a neuron spikes at these uniforms: u < p(drive) is drive > logit(u)."""
        return torch.logit(uniforms)

    def sample(self, drive: torch.Tensor, uniforms: torch.Tensor, dt_ms: float) -> torch.Tensor:
        """Return 1 where drive > logit(uniform), else 0, in the drive's dtype, with the pseudo-derivative."""
        spikes = (drive.detach() > self.threshold(uniforms, dt_ms)).to(drive.dtype)
        return _with_slope(self, drive, spikes, dt_ms)


@dataclass(frozen=True)
class Hazard:
    """At most one spike per bin; the drive is the log of the firing rate in Hz: p = 1 - exp(-exp(drive) dt).

    Gerstner, Kistler, Naud, Paninski 2014, Neuronal Dynamics, section 9.1: the escape rate rho = f(u - threshold) with exponential f
    gives the probability 1 - exp(-rho dt) of a spike in a bin of width dt. Here dt is in seconds inside the formula, rates in Hz.
    """

    name: ClassVar[str] = "hazard"
    is_binary: ClassVar[bool] = True
    sampling: ClassVar[str] = "threshold"
    pseudo_derivative: str = "expected"
    dampening: float = 1.0

    def __post_init__(self) -> None:
        _check_settings(self.pseudo_derivative, self.dampening)

    @staticmethod
    def _log_hazard(drive: torch.Tensor, dt_ms: float) -> torch.Tensor:
        """Return log(rate dt), saturating where the rate would overflow."""
        return (drive + _log_seconds(dt_ms)).clamp_max(MAX_LOG_EXPECTED)

    def log_prob(self, drive: torch.Tensor, spikes: torch.Tensor, dt_ms: float) -> torch.Tensor:
        """Return log(1 - exp(-h)) of a spike and -h of none, h = rate dt, nats, elementwise; spikes are 0 or 1."""
        log_hazard = self._log_hazard(drive, dt_ms)
        hazard = torch.exp(log_hazard)
        # log((1 - exp(-h)) / h) = -h/2 + h^2/24 - h^4/2880 + ...: below 1e-2 the first two terms are exact to 4e-12
        is_small = hazard < 1e-2
        series = log_hazard - hazard / 2 + hazard**2 / 24
        exact = torch.log(-torch.expm1(-hazard.clamp_min(1e-2)))
        return torch.where(spikes > 0, torch.where(is_small, series, exact), -hazard)

    def expected(self, drive: torch.Tensor, dt_ms: float) -> torch.Tensor:
        """Return the spike probability of the bin, elementwise."""
        return -torch.expm1(-torch.exp(self._log_hazard(drive, dt_ms)))

    def mean_square(self, expected: torch.Tensor) -> torch.Tensor:
        """Return the mean of the squared count, which is that of the count, 0 or 1."""
        return expected

    def slope(self, drive: torch.Tensor, dt_ms: float) -> torch.Tensor:
        """Return the pseudo-derivative d spikes / d drive: dampening times h exp(-h), or times the triangle."""
        if self.pseudo_derivative == "triangle":
            return self.dampening * _triangle(drive)
        log_hazard = self._log_hazard(drive, dt_ms)
        return self.dampening * torch.exp(log_hazard - torch.exp(log_hazard))

    def drive_for(self, expected: torch.Tensor, dt_ms: float) -> torch.Tensor:
        """Return the drive whose expected count is given; counts are moved into [1e-9, 1 - 1e-9]."""
        return torch.log(-torch.log1p(-expected.clamp(1e-9, 1.0 - 1e-9))) - _log_seconds(dt_ms)

    def threshold(self, uniforms: torch.Tensor, dt_ms: float) -> torch.Tensor:
        """Return the drive above which a neuron spikes at these uniforms."""
        return torch.log(-torch.log1p(-uniforms)) - _log_seconds(dt_ms)

    def sample(self, drive: torch.Tensor, uniforms: torch.Tensor, dt_ms: float) -> torch.Tensor:
        """Return 1 where the uniform lies below the spike probability, else 0, with the pseudo-derivative."""
        spikes = (drive.detach() > self.threshold(uniforms, dt_ms)).to(drive.dtype)
        return _with_slope(self, drive, spikes, dt_ms)


@dataclass(frozen=True)
class Poisson:
    """Any number of spikes per bin; the drive is the log of the expected count of the bin.

    The rate of sampled spikes saturates at `highest_hz`. Without that, exponential feedback sends one simulated trial in thousands to
    counts beyond any number, and with it every mean over trials and every gradient through them. The likelihood does not saturate. No
    gradient passes through sampled spikes whose rate is at the ceiling.
    """

    name: ClassVar[str] = "poisson"
    is_binary: ClassVar[bool] = False
    sampling: ClassVar[str] = "poisson"
    pseudo_derivative: str = "expected"
    dampening: float = 1.0
    highest_hz: float = 1000.0

    def __post_init__(self) -> None:
        _check_settings(self.pseudo_derivative, self.dampening)
        if not self.highest_hz > 0:
            raise InvalidInputError(f"highest_hz={self.highest_hz} must be positive; 1000 is one spike per millisecond.")

    def log_ceiling(self, dt_ms: float) -> float:
        """Return the log of the expected count at which sampled counts saturate."""
        return min(math.log(self.highest_hz) + _log_seconds(dt_ms), MAX_LOG_EXPECTED)

    def log_prob(self, drive: torch.Tensor, spikes: torch.Tensor, dt_ms: float) -> torch.Tensor:
        """Return spikes * drive - exp(drive) - log(spikes!), nats, elementwise; exp(drive) saturates at exp(60)."""
        return spikes * drive - torch.exp(drive.clamp_max(MAX_LOG_EXPECTED)) - torch.lgamma(spikes + 1.0)

    def expected(self, drive: torch.Tensor, dt_ms: float) -> torch.Tensor:
        """Return exp(drive), at most `highest_hz` times the bin width.

        Beyond, the gradient stays that at the ceiling instead of 0, so that a loss can bring a neuron back that has gone there for good.
        """
        ceiling = self.log_ceiling(dt_ms)
        beyond = (drive - ceiling).clamp_min(0.0)
        return torch.exp(drive.clamp_max(ceiling)) + math.exp(ceiling) * (beyond - beyond.detach())

    def mean_square(self, expected: torch.Tensor) -> torch.Tensor:
        """Return the mean of the squared count, variance and squared mean."""
        return expected + expected.square()

    def slope(self, drive: torch.Tensor, dt_ms: float) -> torch.Tensor:
        """Return the pseudo-derivative d spikes / d drive: dampening times exp(drive), or the triangle; 0 where the rate saturates."""
        slope = _triangle(drive) if self.pseudo_derivative == "triangle" else self.expected(drive, dt_ms)
        return self.dampening * torch.where(drive <= self.log_ceiling(dt_ms), slope, 0.0)

    def drive_for(self, expected: torch.Tensor, dt_ms: float) -> torch.Tensor:
        """Return the drive whose expected count is given; counts below 1e-9 are raised to it."""
        return torch.log(expected.clamp_min(1e-9))

    def sample(self, drive: torch.Tensor, uniforms: torch.Tensor, dt_ms: float) -> torch.Tensor:
        """Return the smallest count whose cumulative probability reaches the uniform, with the pseudo-derivative."""
        spikes = poisson_quantile(self.expected(drive.detach(), dt_ms), uniforms).to(drive.dtype)
        return _with_slope(self, drive, spikes, dt_ms)


@dataclass(frozen=True)
class Threshold:
    """A spike where the drive is above 0, whatever the uniform: deterministic neurons with a surrogate gradient.

    The pseudo-derivative is dampening * max(0, 1 - |drive|) (Bellec et al. 2020, Nature Communications 11:3625, with dampening 0.3). Spikes
    that do not happen by chance have no likelihood to fit: log_prob is 0 where the spikes are what the drive says and minus infinity
    elsewhere.
    """

    name: ClassVar[str] = "threshold"
    is_binary: ClassVar[bool] = True
    is_deterministic: ClassVar[bool] = True
    sampling: ClassVar[str] = "threshold"
    pseudo_derivative: str = "triangle"
    dampening: float = 0.3

    def __post_init__(self) -> None:
        _check_settings(self.pseudo_derivative, self.dampening)
        if self.pseudo_derivative != "triangle":
            raise InvalidInputError(
                f"pseudo_derivative={self.pseudo_derivative!r}: a threshold has no derivative of an expected count. Use 'triangle', with "
                "dampening=0.3."
            )

    def log_prob(self, drive: torch.Tensor, spikes: torch.Tensor, dt_ms: float) -> torch.Tensor:
        """Return 0 where the spikes, 0 or 1, are those of the drive and minus infinity elsewhere."""
        return torch.where((drive > 0) == (spikes > 0), 0.0, -math.inf).to(drive.dtype)

    def expected(self, drive: torch.Tensor, dt_ms: float) -> torch.Tensor:
        """Return the spikes themselves, with the pseudo-derivative."""
        return self.sample(drive, drive.detach(), dt_ms)

    def mean_square(self, expected: torch.Tensor) -> torch.Tensor:
        """Return the mean of the squared count, which is that of the count, 0 or 1."""
        return expected

    def slope(self, drive: torch.Tensor, dt_ms: float) -> torch.Tensor:
        """Return the pseudo-derivative d spikes / d drive, dampening times the triangle."""
        return self.dampening * _triangle(drive)

    def threshold(self, uniforms: torch.Tensor, dt_ms: float) -> torch.Tensor:
        """Return the drive above which a neuron spikes, 0."""
        return torch.zeros_like(uniforms)

    def sample(self, drive: torch.Tensor, uniforms: torch.Tensor, dt_ms: float) -> torch.Tensor:
        """Return 1 where the drive is above 0, else 0, in the drive's dtype, with the pseudo-derivative."""
        return _with_slope(self, drive, (drive.detach() > 0).to(drive.dtype), dt_ms)


def _log_seconds(dt_ms: float) -> float:
    """Return the log of the bin width in seconds."""
    return math.log(dt_ms * 1e-3)


def kernel_sampling(emission: Emission, uniforms: torch.Tensor, dt_ms: float) -> Sampling:
    """Return how the kernel `linear_rollout` samples an emission that has `sampling` and `slope`.

    What the emissions above do the kernel knows itself. Of any other it asks the thresholds of all uniforms, or inverts the Poisson
    distribution, and calls the slope.
    """

    def slope(drive: torch.Tensor) -> torch.Tensor:
        return emission.slope(drive, dt_ms)

    if type(emission) is Threshold:
        closed = Slope("triangle", emission.dampening, math.inf)
        return Sampling("threshold", emission.threshold(uniforms, dt_ms), slope, closed_slope=closed)
    if type(emission) not in (Bernoulli, Hazard, Poisson):
        if emission.sampling == "threshold":
            return Sampling("threshold", emission.threshold(uniforms, dt_ms), slope)
        return Sampling(emission.sampling, uniforms, slope, log_ceiling=emission.log_ceiling(dt_ms))
    ceiling = emission.log_ceiling(dt_ms) if isinstance(emission, Poisson) else MAX_LOG_EXPECTED
    log_bin_s = _log_seconds(dt_ms) if isinstance(emission, Hazard) else 0.0
    kind, form = {Bernoulli: ("logistic", "logistic"), Hazard: ("hazard", "hazard"), Poisson: ("poisson", "exponential")}[type(emission)]
    if emission.pseudo_derivative == "triangle":
        form = "triangle"
    has_ceiling = form == "hazard" or kind == "poisson"
    closed = Slope(form, emission.dampening, ceiling if has_ceiling else math.inf, log_bin_s)
    return Sampling(kind, uniforms, slope, ceiling, log_bin_s, closed)


_EMISSIONS = {emission.name: emission for emission in (Bernoulli, Hazard, Poisson, Threshold)}


def get_emission(name: str | Emission, **settings: object) -> Emission:
    """Return the emission called "bernoulli", "hazard", "poisson" or "threshold"; an emission object is returned as it is.

    Raises
    ------
    UnknownNameError
        For any other name.
    """
    if not isinstance(name, str):
        return name
    if name not in _EMISSIONS:
        raise UnknownNameError(f"no emission {name!r}{did_you_mean(name, _EMISSIONS)} Known: {', '.join(_EMISSIONS)}.")
    return _EMISSIONS[name](**settings)


def spikes_by_drive_alone(model: Any) -> bool:
    """Return whether a model's spikes are decided by its drive, without chance."""
    return hasattr(model, "emission_object") and getattr(model.emission_object(), "is_deterministic", False)
