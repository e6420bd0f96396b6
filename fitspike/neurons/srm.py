"""Spike-response neuron: bias, input (filtered by a membrane if wished) and exponential after-effects of the neuron's own spikes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from fitspike.citation import Citation
from fitspike.errors import InvalidInputError
from fitspike.neurons.base import Emission, LinearForm
from fitspike.params import ParamSpec, positive
from fitspike.types import Params, State

_SOURCE = "Gerstner, Kistler, Naud, Paninski 2014, Neuronal Dynamics, section 6.4 (spike response model)"


@dataclass(frozen=True)
class SRM:
    """Spike-response model with exponential filters; with coupling between neurons it is the generalised linear model of spike trains.

    drive_t = bias + v_t + sum_c weight_c r_{c,t}
    v_t = exp(-dt / tau_m) v_{t-1} + current_t            (v_t = current_t when tau_m_ms is None)
    r_{c,t} = exp(-dt / tau_c) r_{c,t-1} + z_{t-1}

    Neuronal Dynamics section 6.4 (potential as a sum of filtered input and spike after-effects) with section 9.1 (escape noise), in
    discrete time. A filter's value one bin after the spike is 1, so that `post_spike_weight` is the drive in that bin; negative weights
    make refractoriness and adaptation. `current` is dimensionless: it adds to the drive.

    post_spike_tau_ms: time constants of the filters, one per filter, fixed unless `train_tau`. tau_m_ms: membrane time constant or None.
    """

    name: ClassVar[str] = "srm"
    current_unit: ClassVar[str] = "1"
    citation: ClassVar[tuple[Citation, ...]] = (
        Citation(
            "Gerstner, Kistler, Naud, Paninski 2014, Neuronal Dynamics, Cambridge University Press, sections 6.4 and 9.1",
            title="Neuronal Dynamics: From Single Neurons to Networks and Models of Cognition",
            year="2014",
        ),
        Citation(
            "Pillow, Shlens, Paninski, Sher, Litke, Chichilnisky, Simoncelli 2008, Nature 454:995-999",
            doi="10.1038/nature07140",
            title="Spatio-temporal correlations and visual signalling in a complete neuronal population",
            year="2008",
        ),
    )
    post_spike_tau_ms: tuple[float, ...] = (2.0, 10.0, 50.0)
    tau_m_ms: float | None = None
    train_tau: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "post_spike_tau_ms", tuple(float(tau) for tau in self.post_spike_tau_ms))
        if not all(tau > 0 for tau in self.post_spike_tau_ms):
            raise InvalidInputError(f"post_spike_tau_ms={self.post_spike_tau_ms} holds a time constant that is not positive.")
        if self.tau_m_ms is not None and not self.tau_m_ms > 0:
            raise InvalidInputError(f"tau_m_ms={self.tau_m_ms} is not positive. Use None for no membrane filter.")

    def param_specs(self, n_neurons: int) -> Mapping[str, ParamSpec]:
        """Return bias (n_neurons,), post_spike_weight and post_spike_tau_ms (n_neurons, n_filters), and tau_m_ms where there is one."""
        n_filters = len(self.post_spike_tau_ms)
        specs = {
            "bias": ParamSpec((n_neurons,), "1", init=-4.0, axes=("neuron",), symbol="b", doc="drive without input and spikes"),
        }
        if n_filters:
            shape, axes = (n_neurons, n_filters), ("neuron", "filter")
            specs["post_spike_weight"] = ParamSpec(
                shape, "1", init=0.0, axes=axes, symbol="w", source=_SOURCE, doc="drive one bin after the neuron's own spike"
            )
            specs["post_spike_tau_ms"] = ParamSpec(
                shape,
                "ms",
                init=np.broadcast_to(self.post_spike_tau_ms, shape),
                constraint=positive,
                trainable=self.train_tau,
                axes=axes,
                symbol="tau",
                source=_SOURCE,
            )
        if self.tau_m_ms is not None:
            specs["tau_m_ms"] = ParamSpec(
                (n_neurons,), "ms", init=self.tau_m_ms, constraint=positive, trainable=self.train_tau, axes=("neuron",), symbol="tau_m"
            )
        return specs

    def params_for_count(self, expected: torch.Tensor, emission: Emission, dt_ms: float) -> Mapping[str, np.ndarray]:
        """Return the bias at which a neuron without input has these expected counts per bin, (n_neurons,)."""
        return {"bias": emission.drive_for(expected, dt_ms).numpy()}

    def init_state(self, params: Params, n_trials: int) -> State:
        """Return voltage (n_trials, n_neurons) and spike traces (n_trials, n_neurons, n_filters), all 0."""
        bias = params["bias"]
        voltage = bias.new_zeros(n_trials, bias.shape[0])
        return voltage, bias.new_zeros(n_trials, bias.shape[0], len(self.post_spike_tau_ms))

    def step(self, params: Params, state: State, current: torch.Tensor, spikes: torch.Tensor, dt_ms: float) -> tuple[State, torch.Tensor]:
        """Return the new state and the drive (n_trials, n_neurons); see the class for the equations."""
        voltage, trace = state
        voltage = current if self.tau_m_ms is None else torch.exp(-dt_ms / params["tau_m_ms"]) * voltage + current
        drive = params["bias"] + voltage
        if self.post_spike_tau_ms:
            trace = torch.exp(-dt_ms / params["post_spike_tau_ms"]) * trace + spikes.unsqueeze(-1)  # (n_trials, n_neurons, n_filters)
            drive = drive + (params["post_spike_weight"] * trace).sum(-1)
        return (voltage, trace), drive

    def linear_form(self, params: Params, dt_ms: float) -> LinearForm:
        """Return the linear form: component 0 is the voltage, the others are the spike traces."""
        bias = params["bias"]
        zero, one = torch.zeros_like(bias)[None], torch.ones_like(bias)[None]  # (1, n_neurons)
        decay = [zero if self.tau_m_ms is None else torch.exp(-dt_ms / params["tau_m_ms"])[None]]
        n_filters = len(self.post_spike_tau_ms)
        gain, jump, readout = [one], [zero], [one]
        if n_filters:
            decay.append(torch.exp(-dt_ms / params["post_spike_tau_ms"]).T)
            gain.append(zero.expand(n_filters, -1))
            jump.append(one.expand(n_filters, -1))
            readout.append(params["post_spike_weight"].T)
        return LinearForm(torch.cat(decay), torch.cat(gain), torch.cat(jump), torch.cat(readout), bias)
