"""Leaky integrate-and-fire neuron with escape noise and, if wished, absolute refractoriness."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from fitspike.citation import Citation
from fitspike.errors import InvalidInputError
from fitspike.neurons.base import Emission, LinearForm
from fitspike.neurons.emissions import NEVER_DRIVE
from fitspike.params import ParamSpec, positive
from fitspike.types import Params, State


@dataclass(frozen=True)
class EscapeLIF:
    """Leaky integrate-and-fire neuron that spikes with a probability set by its distance to threshold.

    V_t - E = exp(-dt / tau_m) (V_{t-1} - E) (1 - z_{t-1}) + current_t            reset to rest E
    V_t - E = exp(-dt / tau_m) (V_{t-1} - E - (threshold - E) z_{t-1}) + current_t    reset "subtract"
    drive_t = (V_t - threshold) / softness

    Neuronal Dynamics section 1.3 (integration, solved exactly over one bin for an input that jumps at its start) with section 9.1
    (escape noise). `current` is the jump of the voltage in mV per bin; a constant current I holds the voltage at E + I / (1 - exp(-dt /
    tau_m)). For `refractory_ms`, rounded to whole bins, after a spike the neuron cannot spike; its voltage integrates meanwhile.
    """

    name: ClassVar[str] = "lif"
    current_unit: ClassVar[str] = "mV"
    citation: ClassVar[Citation] = Citation(
        "Gerstner, Kistler, Naud, Paninski 2014, Neuronal Dynamics, Cambridge University Press, sections 1.3 and 9.1",
        title="Neuronal Dynamics: From Single Neurons to Networks and Models of Cognition",
        year="2014",
    )
    refractory_ms: float = 0.0
    reset: str = "to_rest"

    def __post_init__(self) -> None:
        if self.reset not in ("to_rest", "subtract"):
            raise InvalidInputError(f"reset={self.reset!r} is unknown. Use 'to_rest' or 'subtract'.")
        if not self.refractory_ms >= 0:
            raise InvalidInputError(f"refractory_ms={self.refractory_ms} is negative. Use 0 for none.")

    def n_refractory(self, dt_ms: float) -> int:
        """Return in how many bins after a spike the neuron cannot spike."""
        return round(self.refractory_ms / dt_ms)

    def param_specs(self, n_neurons: int) -> Mapping[str, ParamSpec]:
        """Return tau_m_ms, rest_mv, threshold_mv and softness_mv, each (n_neurons,).

        Rest and softness are fixed: shifting all voltages or scaling them together with the input changes no spike.
        """
        shape, axes = (n_neurons,), ("neuron",)
        return {
            "tau_m_ms": ParamSpec(shape, "ms", init=10.0, constraint=positive, axes=axes, symbol="tau_m"),
            "rest_mv": ParamSpec(shape, "mV", init=-65.0, trainable=False, axes=axes, symbol="E"),
            "threshold_mv": ParamSpec(shape, "mV", init=-50.0, axes=axes),
            "softness_mv": ParamSpec(
                shape, "mV", init=2.0, constraint=positive, trainable=False, axes=axes, doc="drive changes by 1 per softness"
            ),
        }

    def params_for_count(self, expected: torch.Tensor, emission: Emission, dt_ms: float) -> Mapping[str, np.ndarray]:
        """Return the threshold at which a neuron at rest has these expected counts per bin, (n_neurons,).

        Raises
        ------
        InvalidInputError
            With reset "subtract", if a threshold would lie below rest: taking the difference off would raise the voltage at each spike.
        """
        threshold_mv = -65.0 - 2.0 * emission.drive_for(expected, dt_ms).numpy()
        if self.reset == "subtract" and (threshold_mv <= -65.0).any():
            raise InvalidInputError(
                f"neuron {self.name!r}: reset='subtract' takes threshold - rest off the voltage, and with emission {emission.name!r} the "
                f"threshold lies below rest for {float(expected.max()):.3g} spikes per bin, so that a spike would excite. Use "
                "reset='to_rest'."
            )
        return {"threshold_mv": threshold_mv}

    def init_state(self, params: Params, n_trials: int) -> State:
        """Return the voltage at rest and how many bins the neuron stays refractory, each (n_trials, n_neurons)."""
        voltage = params["rest_mv"].expand(n_trials, -1)
        return voltage, torch.zeros_like(voltage)

    def step(self, params: Params, state: State, current: torch.Tensor, spikes: torch.Tensor, dt_ms: float) -> tuple[State, torch.Tensor]:
        """Return the new state and the drive (n_trials, n_neurons); see the class for the equations."""
        voltage, bins_left = state
        rest, threshold = params["rest_mv"], params["threshold_mv"]
        above_rest = voltage - rest
        if self.reset == "to_rest":
            above_rest = above_rest * (1.0 - spikes.clamp(max=1.0))
        else:
            above_rest = above_rest - (threshold - rest) * spikes
        voltage = rest + torch.exp(-dt_ms / params["tau_m_ms"]) * above_rest + current
        drive = (voltage - threshold) / params["softness_mv"]
        n_refractory = self.n_refractory(dt_ms)
        if n_refractory:
            bins_left = torch.where(spikes.detach() > 0, float(n_refractory), (bins_left - 1.0).clamp_min(0.0))
            drive = torch.where(bins_left > 0, NEVER_DRIVE, drive)
        return (voltage, bins_left), drive

    def linear_form(self, params: Params, dt_ms: float) -> LinearForm:
        """Return the linear form of the voltage above rest."""
        rest, threshold, softness = params["rest_mv"], params["threshold_mv"], params["softness_mv"]
        one = torch.ones_like(rest)[None]  # (1, n_neurons)
        is_subtract = self.reset == "subtract"
        return LinearForm(
            decay=torch.exp(-dt_ms / params["tau_m_ms"])[None],
            gain=one,
            jump=torch.zeros_like(one),
            readout=(1.0 / softness)[None],
            bias=(rest - threshold) / softness,
            reset="subtract" if is_subtract else "to_value",
            reset_components=(0,),
            reset_value=(threshold - rest)[None] if is_subtract else None,
            n_refractory=self.n_refractory(dt_ms),
        )
