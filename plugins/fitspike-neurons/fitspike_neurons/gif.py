"""Generalised integrate-and-fire neuron with escape noise, spike-triggered currents and a moving threshold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from fitspike.plugin import Citation, Emission, InvalidInputError, ParamSpec, positive
from fitspike_neurons.settings import check_settings, n_refractory, refractory, with_trained


@dataclass(frozen=True)
class GIF:
    """Generalised integrate-and-fire neuron.

    C dV/dt = -g (V - rest) - sum_c eta_c + I;    V -> reset after a spike, where it stays for the refractory time
    eta_c -> eta_c + spike_current_c after a spike, then decays with tau_c
    theta_c -> theta_c + threshold_jump_c after a spike, then decays with tau_c
    drive_t = (V_t - threshold - sum_c theta_c) / softness

    Mensi et al. 2012, J. Neurophysiol. 107:1756, and Pozzorini et al. 2015, PLoS Comput. Biol. 11:e1004275, integrated exactly for
    currents that are constant over a bin. With emission "hazard" the rate is exp(drive) in Hz, their escape rate lambda_0 exp((V - V_T) /
    Delta_V) with threshold = V_T - Delta_V log(lambda_0 / 1 Hz). The voltage forgets at each spike, and the currents pass through it: there
    is no linear form.

    capacitance_pf, conductance_ns, rest_mv, reset_mv, threshold_mv, softness_mv, spike_current_pa, threshold_jump_mv : initial values of
        the parameters, the last two one per filter or one for all; a fit of a network starts threshold_mv where a neuron at rest has its
        mean count in the recording
    current_tau_ms, threshold_tau_ms : time constants of the spike-triggered currents and of the threshold's movements; () for none
    refractory_ms : time after a spike without another, in whole bins
    train : parameters that are fitted; the others keep their initial value
    """

    name: ClassVar[str] = "gif"
    current_unit: ClassVar[str] = "pA"
    citation: ClassVar[tuple[Citation, ...]] = (
        Citation(
            "Mensi, Naud, Pozzorini, Avermann, Petersen, Gerstner 2012, Journal of Neurophysiology 107:1756-1775",
            doi="10.1152/jn.00408.2011",
            title="Parameter extraction and classification of three cortical neuron types reveals two distinct adaptation mechanisms",
            year="2012",
        ),
        Citation(
            "Pozzorini, Mensi, Hagens, Naud, Koch, Gerstner 2015, PLoS Computational Biology 11:e1004275",
            doi="10.1371/journal.pcbi.1004275",
            title="Automated high-throughput characterization of single neurons by means of simplified spiking models",
            year="2015",
        ),
    )
    capacitance_pf: float = 100.0
    conductance_ns: float = 5.0
    rest_mv: float = -65.0
    reset_mv: float = -60.0
    threshold_mv: float = -55.0
    softness_mv: float = 2.0
    spike_current_pa: float | tuple[float, ...] = 10.0
    current_tau_ms: tuple[float, ...] = (10.0, 100.0)
    threshold_jump_mv: float | tuple[float, ...] = 2.0
    threshold_tau_ms: tuple[float, ...] = (50.0,)
    refractory_ms: float = 2.0
    train: tuple[str, ...] = ("threshold_mv", "spike_current_pa", "threshold_jump_mv")

    def __post_init__(self) -> None:
        check_settings(self, ("capacitance_pf", "conductance_ns", "softness_mv"), may_be_zero=("refractory_ms",))
        for name in ("current_tau_ms", "threshold_tau_ms"):
            object.__setattr__(self, name, tuple(float(tau) for tau in getattr(self, name)))
            if not all(tau > 0 for tau in getattr(self, name)):
                raise InvalidInputError(f"neuron {self.name!r}: {name}={getattr(self, name)} holds a time that is not positive.")
        for values, taus in (("spike_current_pa", "current_tau_ms"), ("threshold_jump_mv", "threshold_tau_ms")):
            given = getattr(self, values)
            if np.ndim(given) and len(given) != len(getattr(self, taus)):
                raise InvalidInputError(
                    f"neuron {self.name!r}: {values} has {len(given)} entries for {len(getattr(self, taus))} in {taus}. Give one for each, "
                    "or a number for all."
                )
        self.param_specs(1)

    def param_specs(self, n_neurons: int) -> Mapping[str, ParamSpec]:
        """Return the membrane's parameters (n_neurons,), and spike_current_pa and threshold_jump_mv (n_neurons, n_filters)."""
        shape, axes = (n_neurons,), ("neuron",)
        specs = {
            "capacitance_pf": ParamSpec(shape, "pF", init=self.capacitance_pf, constraint=positive, axes=axes, symbol="C"),
            "conductance_ns": ParamSpec(shape, "nS", init=self.conductance_ns, constraint=positive, axes=axes, symbol="g"),
            "rest_mv": ParamSpec(shape, "mV", init=self.rest_mv, axes=axes),
            "reset_mv": ParamSpec(shape, "mV", init=self.reset_mv, axes=axes),
            "threshold_mv": ParamSpec(shape, "mV", init=self.threshold_mv, axes=axes, doc="long after a spike"),
            "softness_mv": ParamSpec(shape, "mV", init=self.softness_mv, constraint=positive, axes=axes, symbol="Delta_V"),
        }
        for name, unit, taus in (("spike_current_pa", "pA", self.current_tau_ms), ("threshold_jump_mv", "mV", self.threshold_tau_ms)):
            if taus:
                both = (n_neurons, len(taus))
                init = np.broadcast_to(np.asarray(getattr(self, name), dtype=np.float64), both)
                specs[name] = ParamSpec(both, unit, init=init, axes=("neuron", "filter"), doc="per spike")
        without = [name for name in ("spike_current_pa", "threshold_jump_mv") if name not in specs]
        return with_trained(self.name, [name for name in self.train if name not in without], specs)

    def params_for_count(self, expected: torch.Tensor, emission: Emission, dt_ms: float) -> Mapping[str, np.ndarray]:
        """Return the threshold at which a neuron at rest has these expected counts per bin, (n_neurons,)."""
        return {"threshold_mv": self.rest_mv - self.softness_mv * emission.drive_for(expected, dt_ms).numpy()}

    def init_state(self, params: Mapping[str, torch.Tensor], n_trials: int) -> tuple[torch.Tensor, ...]:
        """Return voltage at rest, refractory bins left, spike-triggered currents and movements of the threshold (…, n_filters)."""
        voltage = params["rest_mv"].expand(n_trials, -1)
        filters = [voltage.new_zeros(*voltage.shape, len(taus)) for taus in (self.current_tau_ms, self.threshold_tau_ms)]
        return voltage, torch.zeros_like(voltage), *filters

    def step(
        self,
        params: Mapping[str, torch.Tensor],
        state: tuple[torch.Tensor, ...],
        current: torch.Tensor,
        spikes: torch.Tensor,
        dt_ms: float,
    ) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
        """Return the new state and the drive (n_trials, n_neurons); see the class for the equations."""
        return self.step_with_reset(params, state, current, spikes, spikes, dt_ms)

    def step_with_reset(
        self,
        params: Mapping[str, torch.Tensor],
        state: tuple[torch.Tensor, ...],
        current: torch.Tensor,
        spikes: torch.Tensor,
        reset_spikes: torch.Tensor,
        dt_ms: float,
    ) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
        """Return what `step` returns where both are its `spikes`; `reset_spikes` reset the voltage, `spikes` do everything else."""
        voltage, bins_left, currents, movements = state
        rest, reset = params["rest_mv"], params["reset_mv"]
        voltage = voltage + (reset - voltage) * reset_spikes.clamp(max=1.0)
        currents = _filtered(currents, self.current_tau_ms, params.get("spike_current_pa"), spikes, dt_ms)
        movements = _filtered(movements, self.threshold_tau_ms, params.get("threshold_jump_mv"), spikes, dt_ms)
        decay = torch.exp(-dt_ms * params["conductance_ns"] / params["capacitance_pf"])
        held_at = rest + (current - currents.sum(-1)) / params["conductance_ns"]
        moved = held_at + decay * (voltage - held_at)
        drive = (moved - params["threshold_mv"] - movements.sum(-1)) / params["softness_mv"]
        bins_left, drive = refractory(n_refractory(self.refractory_ms, dt_ms), bins_left, spikes, drive)
        return (torch.where(bins_left > 0, voltage, moved), bins_left, currents, movements), drive


def _filtered(
    state: torch.Tensor, taus_ms: tuple[float, ...], jump: torch.Tensor | None, spikes: torch.Tensor, dt_ms: float
) -> torch.Tensor:
    """Return filters (n_trials, n_neurons, n_filters) one bin later, after `jump` for each spike of the bin before."""
    if jump is None:
        return state
    decay = torch.exp(-dt_ms / state.new_tensor(taus_ms))
    return decay * state + jump * spikes.unsqueeze(-1)
