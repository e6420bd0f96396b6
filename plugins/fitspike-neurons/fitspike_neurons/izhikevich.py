"""Izhikevich's simple model of a spiking neuron."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from fitspike.plugin import Citation, InvalidInputError, ParamSpec, positive
from fitspike_neurons.integrate import Pair, runge_kutta, substeps
from fitspike_neurons.settings import check_settings, with_trained

PATTERNS: dict[str, dict[str, float]] = {
    "regular-spiking": {"a": 0.02, "b": 0.2, "c_mv": -65.0, "d": 8.0},
    "intrinsically-bursting": {"a": 0.02, "b": 0.2, "c_mv": -55.0, "d": 4.0},
    "chattering": {"a": 0.02, "b": 0.2, "c_mv": -50.0, "d": 2.0},
    "fast-spiking": {"a": 0.1, "b": 0.2, "c_mv": -65.0, "d": 2.0},
    "low-threshold-spiking": {"a": 0.02, "b": 0.25, "c_mv": -65.0, "d": 2.0},
}
"""Parameters of five kinds of cortical neuron (Izhikevich 2003, Figure 2)."""

_CEILING = 5.0
"""Voltage above the peak, in units of softness, at which a neuron stays until it is reset: it spikes with probability 0.993."""


@dataclass(frozen=True)
class Izhikevich:
    """Izhikevich's simple model.

    dv/dt = 0.04 v^2 + 5 v + 140 - u + I,    du/dt = a (b v - u)        v in mV, t in ms
    after a spike, at the start of the next bin: v -> c, u -> u + d
    drive_t = (v_t - peak) / softness, v_t at the end of the bin

    Izhikevich 2003, IEEE Transactions on Neural Networks 14:1569. Integrated by a Runge-Kutta method for a current that is constant over
    a bin, not by the two half-millisecond steps of the paper's program, which are too coarse for the upstroke. A neuron that reaches the
    peak inside a bin spikes in that bin and is reset at its end, so that intervals are whole bins: use bins of 0.1 ms where the exact
    time counts. With emission "threshold" it spikes exactly then; with "bernoulli" by chance around the peak.

    a, b, c_mv, d, peak_mv, softness_mv : initial values of the parameters; `fitspike_neurons.izhikevich.PATTERNS` has those of the paper
    n_substeps : Runge-Kutta steps per bin; None: as many as keep them at 0.25 ms or below, at least 4
    train : parameters that are fitted; the others keep their initial value
    """

    name: ClassVar[str] = "izhikevich"
    current_unit: ClassVar[str] = "mV/ms"
    citation: ClassVar[Citation] = Citation(
        "Izhikevich 2003, Simple model of spiking neurons, IEEE Transactions on Neural Networks 14:1569-1572",
        doi="10.1109/TNN.2003.820440",
        title="Simple model of spiking neurons",
        year="2003",
    )
    a: float = 0.02
    b: float = 0.2
    c_mv: float = -65.0
    d: float = 8.0
    peak_mv: float = 30.0
    softness_mv: float = 5.0
    n_substeps: int | None = None
    train: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_settings(self, ("a", "softness_mv"))
        if self.n_substeps is not None and not self.n_substeps > 0:
            raise InvalidInputError(f"neuron {self.name!r}: n_substeps={self.n_substeps} must be positive. Use None for steps of 0.25 ms.")
        if not self.c_mv < self.peak_mv:
            raise InvalidInputError(f"neuron {self.name!r}: c_mv={self.c_mv} must lie below peak_mv={self.peak_mv}.")
        self.param_specs(1)

    def param_specs(self, n_neurons: int) -> Mapping[str, ParamSpec]:
        """Return all parameters, each (n_neurons,)."""
        shape, axes = (n_neurons,), ("neuron",)
        specs = {
            "a": ParamSpec(shape, "1/ms", init=self.a, constraint=positive, axes=axes, symbol="a", doc="rate of recovery"),
            "b": ParamSpec(shape, "1/ms", init=self.b, axes=axes, symbol="b", doc="sensitivity of recovery to the voltage"),
            "c_mv": ParamSpec(shape, "mV", init=self.c_mv, axes=axes, symbol="c", doc="reset"),
            "d": ParamSpec(shape, "mV/ms", init=self.d, axes=axes, symbol="d", doc="jump of recovery per spike"),
            "peak_mv": ParamSpec(shape, "mV", init=self.peak_mv, axes=axes),
            "softness_mv": ParamSpec(
                shape, "mV", init=self.softness_mv, constraint=positive, axes=axes, doc="drive changes by 1 per softness"
            ),
        }
        return with_trained(self.name, self.train, specs)

    def init_state(self, params: Mapping[str, torch.Tensor], n_trials: int) -> Pair:
        """Return v = c and u = b c, as the paper's program starts, each (n_trials, n_neurons)."""
        voltage = params["c_mv"].expand(n_trials, -1)
        return voltage, params["b"] * voltage

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
        """Return what `step` returns where both are its `spikes`; `reset_spikes` reset the voltage, `spikes` raise the recovery."""
        voltage, recovery = state
        peak, softness = params["peak_mv"], params["softness_mv"]
        voltage = voltage + (params["c_mv"] - voltage) * reset_spikes.clamp(max=1.0)
        recovery = recovery + params["d"] * spikes

        def derivatives(v: torch.Tensor, u: torch.Tensor) -> Pair:
            v = torch.minimum(v, peak)
            return 0.04 * v.square() + 5.0 * v + 140.0 - u + current, params["a"] * (params["b"] * v - u)

        state = runge_kutta(derivatives, (voltage, recovery), dt_ms, substeps(self.n_substeps, dt_ms), peak + _CEILING * softness)
        return state, (state[0] - peak) / softness
