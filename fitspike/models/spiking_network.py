"""Recurrent network of spiking neurons, some of them hidden if wished, of any neuron model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from fitspike.citation import Citation
from fitspike.errors import InvalidInputError, Problems, did_you_mean
from fitspike.models.base import Rollout, n_uniforms
from fitspike.models.bases import BASES
from fitspike.models.encoders import StimulusEncoder
from fitspike.models.network_coupling import NetworkCoupling, make_coupling
from fitspike.models.network_inputs import external_current, signal_names, signal_scales, trial_current
from fitspike.models.network_layout import coupling_basis, delay_bins, network_specs
from fitspike.neurons.base import Emission, NeuronModel
from fitspike.neurons.emissions import get_emission
from fitspike.neurons.srm import SRM
from fitspike.params import ParamSpec
from fitspike.rng import Stream
from fitspike.rollout import Driven, RolloutCarry, rollout
from fitspike.types import Carry, Params

if TYPE_CHECKING:
    from fitspike.models.base import DataInfo
    from fitspike.models.connectivity import Connectivity
    from fitspike.recording.binned import BinnedSpikes, SpikeChunk


@dataclass(frozen=True)
class NetworkCarry:
    """What one chunk of a trial hands to the next: the neurons', the signals' last bins (n_trials, n_lags - 1, n_channels), and the
    trials' latents (n_trials, n_latents).
    """

    units: RolloutCarry
    signals: torch.Tensor | None
    latents: torch.Tensor | None = None


@dataclass(frozen=True)
class SpikingNetwork:
    """Settings of a recurrent spiking network.

    I_j(t) = background_j + sum_c (k_jc * x_c)(t) + e_j,condition(t) + sum_i sum_b W[j, i, b] (basis_b * z_i)(t - delay)

    drives the neurons, whose step gives the drive of each bin and whose emission gives the spikes. Units are the recorded neurons,
    followed by `n_hidden` hidden ones that receive the same inputs but have no data: in a likelihood they are sampled forward given the
    clamped past of the others, so that with hidden neurons `log_likelihood` is one sample of a lower bound (Bellec et al. 2021, and
    science page "likelihood"). Without hidden neurons it is exact.

    neuron : any neuron model
    n_hidden : number of hidden units
    emission : "bernoulli", "hazard", "poisson", "threshold" (deterministic, for tasks; has no likelihood) or "auto" (bernoulli)
    basis : "exponential" (time constants coupling_ms / 3, and each further one a quarter), "raised-cosine", "raised-cosine-linear" or
        "boxes" (one weight per lag when there are as many as bins)
    coupling_ms, n_coupling : window and number of functions of the coupling filters, each of sum 1; 0 ms leaves coupling out
    delay_ms : from a spike to its first effect, in whole bins; at least, and by default, one bin
    self_coupling : whether a neuron couples to itself besides what its own model does after a spike
    connect : rules "PRE->POST" of population labels, * for any, "hidden" for hidden units; a connection is allowed if a rule fits
    dale : True (signs from population labels), or a sign +1, -1, 0 per recorded neuron; hidden_signs : likewise per hidden unit
    coupling_init : size of the initial random weights, divided by the root of their number per neuron
    signals : "all", or names; () leaves signals out. signal_before_ms, n_signal : how far their filters look back, number of functions
    encoder : what turns the signals into features in place of filters, see `fitspike.models.encoders`: ConvEncoder for movies, or
        ModuleEncoder for any torch module
    trial_latents : number of latents xi of a trial, independent and uniform between -1/2 and 1/2, which give a current that is constant in
        the trial, V relu(U xi + a) with `latent_features` rectified features (Sourmpis et al. 2023, NeurIPS 36): what makes trials of one
        stimulus differ as wholes. In a likelihood they are sampled like hidden units, which makes it a bound
    time_bumps : number of bumps over trial time whose weights each condition has for itself; for stimuli that no signal describes
    pseudo_derivative, dampening : the surrogate gradient of sampled spikes, see `fitspike.neurons.emissions`
    highest_hz : rate at which sampled Poisson counts saturate; raise it for channels that hold many neurons
    backend : how the neurons are driven: "auto", "step" (bin by bin, any neuron model), or "numba" or "reference" of the linear kernel
    """

    name: ClassVar[str] = "spiking-network"
    citation: ClassVar[tuple[Citation, ...]] = (
        Citation(
            "Bellec, Wang, Modirshanechi, Brea, Gerstner 2021, Fitting summary statistics of neural data with a differentiable spiking "
            "network simulator, Advances in Neural Information Processing Systems 34",
            title="Fitting summary statistics of neural data with a differentiable spiking network simulator",
            year="2021",
        ),
    )
    emissions: ClassVar[tuple[str, ...]] = ("bernoulli", "poisson", "hazard", "threshold")
    _drive: ClassVar[Callable[..., Driven]] = staticmethod(rollout)

    neuron: NeuronModel = field(default_factory=SRM)
    n_hidden: int = 0
    emission: str = "auto"
    basis: str = "exponential"
    coupling_ms: float = 30.0
    n_coupling: int = 1
    delay_ms: float | None = None
    self_coupling: bool = False
    connect: tuple[str, ...] = ("*->*",)
    dale: bool | tuple[int, ...] = False
    hidden_signs: tuple[int, ...] = ()
    coupling_init: float = 0.3
    signals: str | tuple[str, ...] = "all"
    signal_before_ms: float = 0.0
    n_signal: int = 5
    encoder: StimulusEncoder | None = None
    time_bumps: int = 0
    trial_latents: int = 0
    latent_features: int = 20
    pseudo_derivative: str = "expected"
    dampening: float = 1.0
    highest_hz: float = 1000.0
    backend: str = "auto"

    def __post_init__(self) -> None:
        problems = Problems(self.name)
        if isinstance(self.neuron, str) or not hasattr(self.neuron, "step"):
            problems.add(f"neuron={self.neuron!r} is no neuron model. Give an object such as SRM(), or a name to `fit(neuron=...)`.")
        if self.encoder is not None and not isinstance(self.encoder, StimulusEncoder):
            problems.add(f"encoder={self.encoder!r} is no encoder. Give a ConvEncoder, a ModuleEncoder or an object with their methods.")
        if self.time_bumps < 0 or self.time_bumps == 1:
            problems.add(f"time_bumps={self.time_bumps}; use 0 for none, or at least 2.")
        if self.n_hidden < 0:
            problems.add(f"n_hidden={self.n_hidden} is negative; give the number of hidden units, 0 for none.")
        if self.trial_latents < 0 or self.latent_features < 1:
            problems.add(f"trial_latents={self.trial_latents} must not be negative, and latent_features={self.latent_features} at least 1.")
        if self.basis not in BASES:
            problems.add(f"unknown basis {self.basis!r}{did_you_mean(self.basis, BASES)} Known: {', '.join(BASES)}.")
        if self.emission not in ("auto", *self.emissions):
            problems.add(
                f"unknown emission {self.emission!r}{did_you_mean(self.emission, self.emissions)} Known: {', '.join(self.emissions)}."
            )
        if self.coupling_ms < 0 or self.signal_before_ms < 0 or (self.delay_ms or 0.0) < 0:
            problems.add("coupling_ms, delay_ms and signal_before_ms must not be negative.")
        if self.n_coupling < 1 or self.n_signal < 1:
            problems.add(
                f"n_coupling={self.n_coupling} and n_signal={self.n_signal} must be at least 1; use coupling_ms=0 for no coupling."
            )
        if self.hidden_signs and len(self.hidden_signs) != self.n_hidden:
            problems.add(f"hidden_signs has {len(self.hidden_signs)} entries for {self.n_hidden} hidden units. Give one per unit, or ().")
        problems.raise_if_any()

    def emission_object(self) -> Emission:
        """Return the emission with this network's surrogate gradient."""
        name = self.emissions[0] if self.emission == "auto" else self.emission
        ceiling = {"highest_hz": self.highest_hz} if name == "poisson" else {}
        return get_emission(name, pseudo_derivative=self.pseudo_derivative, dampening=self.dampening, **ceiling)

    def driven_by(self, drive: Callable[..., Driven]) -> SpikingNetwork:
        """Return this network with `drive` in place of `fitspike.rollout.rollout`: same arguments, same result, gradients of its own."""
        other = replace(self)
        object.__setattr__(other, "_drive", drive)
        return other

    def param_specs(self, data: DataInfo) -> Mapping[str, ParamSpec]:
        """Return the specs of all parameters; the units are the recorded neurons, then the hidden ones."""
        _check_rates(self, data)
        return network_specs(self, data)

    def params_from_data(self, binned: BinnedSpikes) -> Mapping[str, np.ndarray]:
        """Return mean and standard deviation of each signal channel over the scored bins, to standardise the signals by."""
        return signal_scales(self, binned)

    def inputs(self, data: DataInfo) -> tuple[str, ...]:
        """Return the names of what tells the network where in a trial it is: signals, and "time" for bumps over trial time."""
        return signal_names(self, data.signals) + (("time",) if self.time_bumps else ())

    def log_likelihood(self, params: Params, chunk: SpikeChunk, carry: Carry, rng: Stream) -> tuple[torch.Tensor, Carry]:
        """Return the log-likelihood of a chunk given its past, (n_trials, n_neurons) nats, float64, and the carry.

        Bins outside the chunk's mask count nothing. Hidden units and trial latents are sampled at the uniforms of `rng`.
        """
        run = self.clamped(params, chunk, carry, rng)
        return run.log_prob, run.carry

    def clamped(self, params: Params, chunk: SpikeChunk, carry: Carry, rng: Stream) -> Rollout:
        """Return the network driven with the recorded neurons clamped to the chunk's spikes and the hidden ones sampled.

        latents: "drive", (n_trials, n_bins, n_neurons), and with hidden units "hidden_spikes" and "hidden_drive", all differentiable.
        """
        driven, new_carry = self._clamped(params, chunk, carry, rng)
        n_visible = chunk.n_neurons
        latents = {"drive": driven.drive[..., :n_visible]}
        if self.n_hidden:
            latents |= {"hidden_spikes": driven.spikes[..., n_visible:], "hidden_drive": driven.drive[..., n_visible:]}
        return Rollout(driven.spikes[..., :n_visible], self._log_prob_of(driven, chunk), latents, new_carry)

    def intensity(self, params: Params, chunk: SpikeChunk, carry: Carry) -> tuple[torch.Tensor, Carry]:
        """Return expected counts (n_trials, n_bins, n_neurons) given the recorded past, and the carry.

        Hidden units and trial latents are sampled once, from a fixed stream.
        """
        driven, new_carry = self._clamped(params, chunk, carry, Stream(0, "intensity"))
        return self.emission_object().expected(driven.drive[..., : chunk.n_neurons], chunk.dt_ms), new_carry

    def rollout(
        self,
        params: Params,
        context: SpikeChunk,
        *,
        uniforms: torch.Tensor,
        observed: torch.Tensor | None = None,
        observed_mask: torch.Tensor | None = None,
        carry: Carry = None,
    ) -> Rollout:
        """Drive the network over the bins of `context`.

        Parameters
        ----------
        uniforms : Tensor, (n_trials, n_bins, n_neurons + n_hidden + trial_latents)
            Those of latents count in the first bin of a trial, where no carry tells the latents.
        observed : Tensor, (n_trials, n_bins, n_neurons) or with the hidden units, spikes, optional
        observed_mask : Tensor of bool, (n_neurons,) or with the hidden units, optional
            Default: every unit that `observed` holds.

        Returns
        -------
        Rollout of the recorded neurons. log_prob (n_trials, n_neurons) is that of the spikes that came out, observed or sampled.
        latents: "drive", "expected" and "expected_square", (n_trials, n_bins, n_neurons), differentiable, and, with hidden units,
        "hidden_spikes" and "hidden_expected", and, where they are observed, "hidden_log_prob" (n_trials, n_hidden).
        """
        n_visible, n_units = context.n_neurons, context.n_neurons + self.n_hidden
        if uniforms.shape[-1] != (n_needed := n_uniforms(self, n_visible)):
            latents = f" and {self.trial_latents} trial latents" if self.trial_latents else ""
            raise InvalidInputError(
                f"uniforms have {uniforms.shape[-1]} neurons; this network has {n_visible} recorded and {self.n_hidden} hidden{latents}. "
                f"Draw uniforms for {n_needed} neurons."
            )
        observed, observed_mask = _observed_units(observed, observed_mask, n_units)
        external, past_signals, trial_latents = self._external(params, context, carry, lambda: uniforms[:, 0, n_units:])
        driven = self._drive(
            self.neuron,
            params,
            self.emission_object(),
            current=external,
            coupling=self._coupling(params, context.dt_ms),
            uniforms=uniforms[..., :n_units],
            dt_ms=context.dt_ms,
            observed=observed,
            observed_mask=observed_mask,
            carry=carry.units if carry is not None else None,
            backend=self.backend,
        )
        drive = driven.drive[..., :n_visible]
        expected = self.emission_object().expected(drive, context.dt_ms)
        latents = {"drive": drive, "expected": expected, "expected_square": self.emission_object().mean_square(expected)}
        if self.n_hidden:
            latents["hidden_spikes"] = driven.spikes[..., n_visible:]
            latents["hidden_expected"] = self.emission_object().expected(driven.drive[..., n_visible:], context.dt_ms)
            if observed_mask is not None and bool(observed_mask[n_visible:].all()):
                latents["hidden_log_prob"] = self._log_prob(driven, context, slice(n_visible, None))
        new_carry = NetworkCarry(driven.carry, past_signals, trial_latents)
        return Rollout(driven.spikes[..., :n_visible], self._log_prob_of(driven, context), latents, new_carry)

    def connectivity(self, params: Params, extras: Mapping[str, Any]) -> Connectivity:
        """Return the couplings between units [post, pre], each filter summed over its lags, in the neuron model's unit of current.

        Hidden units are left out: how many of them stand for how many unrecorded neurons is not identified.
        """
        from fitspike.models.connectivity import Connectivity

        if "coupling" in params:
            weight = (params["coupling"] * params["coupling_mask"].unsqueeze(-1)).sum(-1)
        else:
            n_units = len(params[next(iter(self.neuron.param_specs(1)), "background")])
            weight = torch.zeros(n_units, n_units)
        n_visible = weight.shape[0] - self.n_hidden
        return Connectivity(weight[:n_visible, :n_visible].detach().cpu().numpy(), unit=getattr(self.neuron, "current_unit", "1"))

    def caveats(self) -> tuple[str, ...]:
        """Return what to keep in mind when couplings are read as synapses."""
        if not self.n_hidden or self.coupling_ms == 0 or self.n_coupling == 1:
            return ()
        return (
            f"Couplings with {self.n_coupling} free lags absorb paths through hidden neurons: a delayed path from one recorded neuron to "
            "another is not told apart from a direct coupling at a later lag. To read couplings as connections use one filter of short lag "
            "(n_coupling=1), signs (dale) or allowed connections (connect).",
        )

    # -- pieces ---------------------------------------------------------------------------------------------------------------------

    def _coupling(self, params: Params, dt_ms: float) -> NetworkCoupling | None:
        basis = coupling_basis(self, dt_ms)
        if basis is None:
            return None
        return make_coupling(params["coupling"] * params["coupling_mask"].unsqueeze(-1), basis, delay_bins(self, dt_ms))

    def _external(
        self, params: Params, chunk: SpikeChunk, carry: NetworkCarry | None, uniforms: Callable[[], torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """Return the current from outside, (n_trials, n_bins, n_units), the signals' last bins, and the trials' latents.

        uniforms : gives those of latents, (n_trials, n_latents), where no carry holds the latents
        """
        current, past_signals = external_current(self, params, chunk, carry.signals if carry is not None else None)
        if not self.trial_latents:
            return current, past_signals, None
        latents = carry.latents if carry is not None else (uniforms() - 0.5).to(current.dtype).to(current.device)
        return current + trial_current(params, latents).unsqueeze(1), past_signals, latents

    def _clamped(self, params: Params, chunk: SpikeChunk, carry: NetworkCarry | None, rng: Stream) -> tuple[Driven, NetworkCarry]:
        """Return the units driven with the recorded neurons clamped and the hidden ones sampled, and the carry."""
        emission = self.emission_object()
        like = next(iter(params.values()))
        spikes = chunk.dense(str(like.dtype).removeprefix("torch."), device=str(like.device))
        _check_counts(emission, chunk, spikes)
        n_units, stream = chunk.n_neurons + self.n_hidden, rng.child("hidden")

        def first_uniforms() -> torch.Tensor:
            first = range(chunk.first_bin, chunk.first_bin + 1)
            return torch.as_tensor(stream.uniforms(chunk.trial, first, n_uniforms(self, chunk.n_neurons))[:, 0, n_units:])

        external, past_signals, trial_latents = self._external(params, chunk, carry, first_uniforms)
        uniforms = None
        if self.n_hidden and getattr(emission, "is_deterministic", False):
            uniforms = spikes.new_zeros(()).expand(*spikes.shape[:2], n_units)
        elif self.n_hidden:
            bins = range(chunk.first_bin, chunk.first_bin + chunk.n_bins)
            uniforms = torch.as_tensor(stream.uniforms(chunk.trial, bins, n_units), device=like.device)
        observed, mask = _observed_units(spikes, None, n_units)
        driven = self._drive(
            self.neuron,
            params,
            emission,
            current=external,
            coupling=self._coupling(params, chunk.dt_ms),
            uniforms=uniforms,
            observed=observed,
            observed_mask=mask,
            carry=carry.units if carry is not None else None,
            dt_ms=chunk.dt_ms,
            backend=self.backend,
        )
        return driven, NetworkCarry(driven.carry, past_signals, trial_latents)

    def _log_prob_of(self, driven: Driven, chunk: SpikeChunk) -> Callable[[], torch.Tensor]:
        """Return what computes the log-probability of the recorded units, differentiable if gradients are wanted now."""
        is_wanted = torch.is_grad_enabled()

        def compute() -> torch.Tensor:
            with torch.set_grad_enabled(is_wanted):
                return self._log_prob(driven, chunk)

        return compute

    def _log_prob(self, driven: Driven, chunk: SpikeChunk, units: slice | None = None) -> torch.Tensor:
        """Return the log-probability of the spikes of some units, or the recorded ones, summed over scored bins, (n_trials, n) float64."""
        units = slice(chunk.n_neurons) if units is None else units
        log_prob = self.emission_object().log_prob(driven.drive[..., units], driven.spikes[..., units].detach(), chunk.dt_ms)
        mask = chunk.mask.to(log_prob.device).unsqueeze(-1)
        return torch.where(mask, log_prob, 0.0).sum(dim=1, dtype=torch.float64)


def _observed_units(
    observed: torch.Tensor | None, observed_mask: torch.Tensor | None, n_units: int
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Return observed spikes and mask of all units; hidden ones, where they are not given, are not observed."""
    if observed is None:
        return None, None
    n_given = observed.shape[-1]
    mask = torch.ones(n_given, dtype=torch.bool) if observed_mask is None else observed_mask
    mask = mask.to(observed.device)
    n_missing = n_units - n_given
    if n_missing:
        observed = torch.nn.functional.pad(observed, (0, n_missing))
    return observed, torch.nn.functional.pad(mask, (0, n_units - mask.shape[0]))


def _check_rates(model: SpikingNetwork, data: DataInfo) -> None:
    """Raise if a recorded neuron fires faster than sampled counts can."""
    if data.mean_count is None or not np.size(data.mean_count) or model.emission_object().is_binary:
        return
    fastest_hz = float(np.nanmax(data.mean_count)) * 1000 / data.dt_ms
    if fastest_hz > model.highest_hz:
        raise InvalidInputError(
            f"a neuron fires at {fastest_hz:,.0f} Hz on average, and sampled counts saturate at highest_hz={model.highest_hz:g}. "
            f"Raise highest_hz, to {10 * fastest_hz:.0e} say."
        )


def _check_counts(emission: Emission, chunk: SpikeChunk, spikes: torch.Tensor) -> None:
    if getattr(emission, "is_binary", False) and chunk.event_count is not None and spikes.numel() and (most := int(spikes.max())) > 1:
        raise InvalidInputError(
            f"a bin holds {most} spikes of one neuron, and emission {emission.name!r} knows at most one. "
            "Use emission='poisson', or a smaller dt_ms."
        )
