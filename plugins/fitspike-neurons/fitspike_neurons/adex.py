"""Adaptive exponential integrate-and-fire neuron."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from fitspike.plugin import Citation, InvalidInputError, ParamSpec, positive
from fitspike_neurons.integrate import Pair, runge_kutta, substeps
from fitspike_neurons.settings import check_settings, with_trained

_CEILING = 5.0
"""Voltage above the peak, in units of softness, at which a neuron stays until it is reset: it spikes with probability 0.993."""


@dataclass(frozen=True)
class AdEx:
    """Adaptive exponential integrate-and-fire neuron.

    C dV/dt = -g (V - rest) + g slope exp((V - threshold) / slope) - w + I
    tau_w dw/dt = a (V - rest) - w
    after a spike, at the start of the next bin: V -> reset, w -> w + b
    drive_t = (V_t - peak) / softness, V_t at the end of the bin

    Brette and Gerstner 2005, J. Neurophysiol. 94:3637. Integrated by a Runge-Kutta method for a current that is constant over a bin. A
    neuron that reaches the peak inside a bin spikes in that bin and is reset at its end, so that intervals are whole bins: use bins of
    0.1 ms where the exact time counts. With emission "threshold" it spikes exactly then; with "bernoulli" by chance around the peak.

    capacitance_pf, conductance_ns, rest_mv, threshold_mv, slope_mv, reset_mv, peak_mv, coupling_ns (a), tau_w_ms, jump_pa (b),
        softness_mv : initial values of the parameters; those of the defaults make the regular spiking neuron of the paper
    n_substeps : Runge-Kutta steps per bin; None: as many as keep them at 0.25 ms or below, at least 4
    train : parameters that are fitted; the others keep their initial value
    """

    name: ClassVar[str] = "adex"
    current_unit: ClassVar[str] = "pA"
    citation: ClassVar[Citation] = Citation(
        "Brette, Gerstner 2005, Adaptive exponential integrate-and-fire model as an effective description of neuronal activity, Journal of "
        "Neurophysiology 94:3637-3642",
        doi="10.1152/jn.00686.2005",
        title="Adaptive exponential integrate-and-fire model as an effective description of neuronal activity",
        year="2005",
    )
    capacitance_pf: float = 281.0
    conductance_ns: float = 30.0
    rest_mv: float = -70.6
    threshold_mv: float = -50.4
    slope_mv: float = 2.0
    reset_mv: float = -70.6
    peak_mv: float = 0.0
    coupling_ns: float = 4.0
    tau_w_ms: float = 144.0
    jump_pa: float = 80.5
    softness_mv: float = 5.0
    n_substeps: int | None = None
    train: tuple[str, ...] = ("threshold_mv",)

    def __post_init__(self) -> None:
        check_settings(self, ("capacitance_pf", "conductance_ns", "slope_mv", "tau_w_ms", "softness_mv"))
        if self.n_substeps is not None and not self.n_substeps > 0:
            raise InvalidInputError(f"neuron {self.name!r}: n_substeps={self.n_substeps} must be positive. Use None for steps of 0.25 ms.")
        for name in ("threshold_mv", "reset_mv"):
            if not getattr(self, name) < self.peak_mv:
                raise InvalidInputError(f"neuron {self.name!r}: {name}={getattr(self, name)} must lie below peak_mv={self.peak_mv}.")
        self.param_specs(1)

    def param_specs(self, n_neurons: int) -> Mapping[str, ParamSpec]:
        """Return all parameters, each (n_neurons,)."""
        units = {"capacitance_pf": "pF", "conductance_ns": "nS", "rest_mv": "mV", "threshold_mv": "mV", "slope_mv": "mV"}
        units |= {"reset_mv": "mV", "peak_mv": "mV", "coupling_ns": "nS", "tau_w_ms": "ms", "jump_pa": "pA", "softness_mv": "mV"}
        symbols = {
            "capacitance_pf": "C",
            "conductance_ns": "g",
            "slope_mv": "Delta_T",
            "coupling_ns": "a",
            "tau_w_ms": "tau_w",
            "jump_pa": "b",
        }
        is_positive = ("capacitance_pf", "conductance_ns", "slope_mv", "tau_w_ms", "softness_mv")
        specs = {
            name: ParamSpec(
                (n_neurons,),
                unit,
                init=getattr(self, name),
                **({"constraint": positive} if name in is_positive else {}),
                axes=("neuron",),
                symbol=symbols.get(name, ""),
            )
            for name, unit in units.items()
        }
        return with_trained(self.name, self.train, specs)

    def init_state(self, params: Mapping[str, torch.Tensor], n_trials: int) -> Pair:
        """Return the voltage at rest and no adaptation current, each (n_trials, n_neurons)."""
        voltage = params["rest_mv"].expand(n_trials, -1)
        return voltage, torch.zeros_like(voltage)

    def step(
        self, params: Mapping[str, torch.Tensor], state: Pair, current: torch.Tensor, spikes: torch.Tensor, dt_ms: float
    ) -> tuple[Pair, torch.Tensor]:
        """Return the new state and the drive (n_trials, n_neurons); see the class for the equations."""
        return self.step_with_reset(params, state, current, spikes, spikes, dt_ms)

    def step_with_reset(
        self,
        params: Mapping[str, torch.Tensor],
        state: Pair,
        current: torch.Tensor,
        spikes: torch.Tensor,
        reset_spikes: torch.Tensor,
        dt_ms: float,
    ) -> tuple[Pair, torch.Tensor]:
        """Return what `step` returns where both are its `spikes`; `reset_spikes` reset the voltage, `spikes` raise the adaptation."""
        voltage, adaptation = state
        rest, threshold, slope, peak = (params[name] for name in ("rest_mv", "threshold_mv", "slope_mv", "peak_mv"))
        conductance, softness = params["conductance_ns"], params["softness_mv"]
        voltage = voltage + (params["reset_mv"] - voltage) * reset_spikes.clamp(max=1.0)
        adaptation = adaptation + params["jump_pa"] * spikes

        def derivatives(v: torch.Tensor, w: torch.Tensor) -> Pair:
            v = torch.minimum(v, peak)
            upstroke = slope * torch.exp((v - threshold) / slope)
            return (
                (conductance * (rest - v + upstroke) - w + current) / params["capacitance_pf"],
                (params["coupling_ns"] * (v - rest) - w) / params["tau_w_ms"],
            )

        state = runge_kutta(derivatives, (voltage, adaptation), dt_ms, substeps(self.n_substeps, dt_ms), peak + _CEILING * softness)
        return state, (state[0] - peak) / softness
