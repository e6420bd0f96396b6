"""Adaptive leaky integrate-and-fire neuron, the neuron of LSNNs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from fitspike.plugin import Citation, InvalidInputError, LinearForm, ParamSpec, positive
from fitspike_neurons.settings import check_settings, n_refractory, refractory, with_trained

SCALINGS = ("unit", "one_minus_decay")

_LEAST_DECAY = 1e-15
"""Smallest decay per bin of the linear form, which divides by it and, for gradients, by its square; in effect it is 0."""


@dataclass(frozen=True)
class ALIF:
    """Leaky integrate-and-fire neuron whose threshold rises with each of its spikes.

    v_t = alpha v_{t-1} + zeta I_t - threshold z_{t-1}        alpha = exp(-dt / tau_m)
    a_t = rho a_{t-1} + z_{t-1}                               rho = exp(-dt / tau_adapt)
    drive_t = (v_t - threshold - adaptation a_t) / softness

    Bellec et al. 2020, Nature Communications 11:3625, in its convention: the reset subtracts the baseline threshold one bin after the
    spike, adaptation jumps by one per spike, the new voltage meets the new threshold. `fitspike_neurons.conventions` converts parameters
    published in others. Voltages are in units that the weights share; rest is 0. With adaptation 0 it is a LIF neuron.

    With emission "threshold" the neuron is deterministic, and with softness = threshold the pseudo-derivative of spikes by voltage is
    dampening / threshold max(0, 1 - |v - A| / threshold), A the adaptive threshold. With "bernoulli" or "hazard" it has escape noise of
    that softness.

    tau_m_ms, threshold, adaptation, tau_adapt_ms : initial values of the parameters
    softness : voltage by which the drive changes by 1; None: the threshold
    n_adaptive : only the last so many neurons adapt; None: all
    input_scaling : zeta, "unit" (1) or "one_minus_decay" (1 - alpha)
    refractory_ms : time after a spike without another, rounded to whole bins; for n_ref of published code see
        `fitspike_neurons.conventions`
    train : parameters that are fitted; the others keep their initial value
    """

    name: ClassVar[str] = "alif"
    current_unit: ClassVar[str] = "1"
    citation: ClassVar[tuple[Citation, ...]] = (
        Citation(
            "Bellec, Salaj, Subramoney, Legenstein, Maass 2018, Long short-term memory and learning-to-learn in networks of spiking "
            "neurons, Advances in Neural Information Processing Systems 31",
            title="Long short-term memory and learning-to-learn in networks of spiking neurons",
            year="2018",
        ),
        Citation(
            "Bellec, Scherr, Subramoney, Hajek, Salaj, Legenstein, Maass 2020, Nature Communications 11:3625",
            doi="10.1038/s41467-020-17236-y",
            title="A solution to the learning dilemma for recurrent networks of spiking neurons",
            year="2020",
        ),
    )
    tau_m_ms: float = 20.0
    threshold: float = 0.6
    adaptation: float = 0.0174
    tau_adapt_ms: float = 2000.0
    softness: float | None = None
    n_adaptive: int | None = None
    input_scaling: str = "unit"
    refractory_ms: float = 0.0
    train: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_settings(self, ("tau_m_ms", "threshold", "tau_adapt_ms"), may_be_zero=("adaptation", "refractory_ms"))
        if self.softness is not None and not self.softness > 0:
            raise InvalidInputError(f"neuron {self.name!r}: softness={self.softness} must be positive. Use None for the threshold.")
        if self.n_adaptive is not None and self.n_adaptive < 0:
            raise InvalidInputError(f"neuron {self.name!r}: n_adaptive={self.n_adaptive} is negative. Use None for all.")
        if self.input_scaling not in SCALINGS:
            raise InvalidInputError(f"neuron {self.name!r}: input_scaling={self.input_scaling!r}. Use 'unit' or 'one_minus_decay'.")
        self.param_specs(1)

    def param_specs(self, n_neurons: int) -> Mapping[str, ParamSpec]:
        """Return tau_m_ms, threshold, adaptation, tau_adapt_ms and softness, each (n_neurons,)."""
        shape, axes = (n_neurons,), ("neuron",)
        n_plain = 0 if self.n_adaptive is None else max(0, n_neurons - self.n_adaptive)
        adaptation = np.where(np.arange(n_neurons) < n_plain, 0.0, self.adaptation)
        softness = self.threshold if self.softness is None else self.softness
        specs = {
            "tau_m_ms": ParamSpec(shape, "ms", init=self.tau_m_ms, constraint=positive, axes=axes, symbol="tau_m"),
            "threshold": ParamSpec(shape, "1", init=self.threshold, constraint=positive, axes=axes, doc="without adaptation"),
            "adaptation": ParamSpec(shape, "1", init=adaptation, axes=axes, symbol="beta", doc="rise of the threshold per spike"),
            "tau_adapt_ms": ParamSpec(shape, "ms", init=self.tau_adapt_ms, constraint=positive, axes=axes, symbol="tau_a"),
            "softness": ParamSpec(shape, "1", init=softness, constraint=positive, axes=axes, doc="drive changes by 1 per softness"),
        }
        return with_trained(self.name, self.train, specs)

    def init_state(self, params: Mapping[str, torch.Tensor], n_trials: int) -> tuple[torch.Tensor, ...]:
        """Return voltage, adaptation variable and refractory bins left, each (n_trials, n_neurons), all 0."""
        zero = torch.zeros_like(params["threshold"]).expand(n_trials, -1)
        return zero, zero, zero

    def step(
        self,
        params: Mapping[str, torch.Tensor],
        state: tuple[torch.Tensor, ...],
        current: torch.Tensor,
        spikes: torch.Tensor,
        dt_ms: float,
    ) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
        """Return the new state and the drive (n_trials, n_neurons); see the class for the equations."""
        voltage, adaptation, bins_left = state
        alpha = torch.exp(-dt_ms / params["tau_m_ms"])
        voltage = alpha * voltage + self._gain(alpha) * current - params["threshold"] * spikes
        adaptation = torch.exp(-dt_ms / params["tau_adapt_ms"]) * adaptation + spikes
        drive = (voltage - params["threshold"] - params["adaptation"] * adaptation) / params["softness"]
        bins_left, drive = refractory(n_refractory(self.refractory_ms, dt_ms), bins_left, spikes, drive)
        return (voltage, adaptation, bins_left), drive

    def linear_form(self, params: Mapping[str, torch.Tensor], dt_ms: float) -> LinearForm:
        """Return the linear form of voltage and adaptation variable; the reset acts before the decay, hence its value threshold / alpha."""
        alpha, rho = torch.exp(-dt_ms / params["tau_m_ms"]).clamp_min(_LEAST_DECAY), torch.exp(-dt_ms / params["tau_adapt_ms"])
        zero, one = torch.zeros_like(alpha), torch.ones_like(alpha)
        softness = params["softness"]
        return LinearForm(
            decay=torch.stack([alpha, rho]),
            gain=torch.stack([self._gain(alpha), zero]),
            jump=torch.stack([zero, one]),
            readout=torch.stack([one, -params["adaptation"]]) / softness,
            bias=-params["threshold"] / softness,
            reset="subtract",
            reset_components=(0,),
            reset_value=(params["threshold"] / alpha)[None],
            n_refractory=n_refractory(self.refractory_ms, dt_ms),
        )

    def _gain(self, alpha: torch.Tensor) -> torch.Tensor:
        return 1.0 - alpha if self.input_scaling == "one_minus_decay" else torch.ones_like(alpha)
