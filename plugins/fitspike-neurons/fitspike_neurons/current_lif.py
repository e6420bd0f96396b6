"""Leaky integrate-and-fire neuron whose input decays exponentially, as synaptic currents do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from fitspike.plugin import Citation, Emission, InvalidInputError, LinearForm, ParamSpec, positive
from fitspike_neurons.settings import check_settings, n_refractory, refractory, with_trained

_NEAREST = 1e-3
"""Smallest distance of the two time constants, relative to tau_m; nearer ones are moved apart, as their difference divides."""


@dataclass(frozen=True)
class CurrentLIF:
    """Leaky integrate-and-fire neuron with exponential current synapses.

    tau_m dV/dt = -(V - rest) + i,    tau_s di/dt = -i,    i jumps by current_t at the start of bin t
    V -> V - reset_by after a spike, at the start of the next bin
    drive_t = (V_t - threshold) / softness, V_t at the end of the bin

    solved exactly over a bin (Rotter and Diesmann 1999, Biological Cybernetics 81:381): the voltage follows an input by a difference of
    two exponentials. i is given as the voltage at which it would hold the neuron, in mV.

    The reset is a parameter of its own, since the threshold need not lie above rest: with emission "hazard" it is where the rate is 1 Hz,
    and a fit of a network starts it where a neuron at rest has its mean count in the recording.

    tau_m_ms, tau_s_ms, rest_mv, threshold_mv, softness_mv : initial values of the parameters
    reset_by_mv : likewise; None: threshold_mv - rest_mv
    refractory_ms : time after a spike without another, in whole bins; the voltage integrates meanwhile
    train : parameters that are fitted; the others keep their initial value
    """

    name: ClassVar[str] = "current-lif"
    current_unit: ClassVar[str] = "mV"
    citation: ClassVar[Citation] = Citation(
        "Rotter, Diesmann 1999, Exact digital simulation of time-invariant linear systems with applications to neuronal modeling, "
        "Biological Cybernetics 81:381-402",
        doi="10.1007/s004220050570",
        title="Exact digital simulation of time-invariant linear systems with applications to neuronal modeling",
        year="1999",
    )
    tau_m_ms: float = 20.0
    tau_s_ms: float = 5.0
    rest_mv: float = -65.0
    threshold_mv: float = -50.0
    softness_mv: float = 2.0
    reset_by_mv: float | None = None
    refractory_ms: float = 0.0
    train: tuple[str, ...] = ("tau_m_ms", "tau_s_ms", "threshold_mv", "reset_by_mv")

    def __post_init__(self) -> None:
        check_settings(self, ("tau_m_ms", "tau_s_ms", "softness_mv"), may_be_zero=("refractory_ms",))
        if not self._reset_by() > 0:
            raise InvalidInputError(
                f"neuron {self.name!r}: reset_by_mv={self._reset_by()} must be positive; None is threshold_mv - rest_mv "
                f"({self.threshold_mv} - {self.rest_mv})."
            )
        self.param_specs(1)

    def param_specs(self, n_neurons: int) -> Mapping[str, ParamSpec]:
        """Return tau_m_ms, tau_s_ms, rest_mv, threshold_mv, softness_mv and reset_by_mv, each (n_neurons,)."""
        shape, axes = (n_neurons,), ("neuron",)
        specs = {
            "tau_m_ms": ParamSpec(shape, "ms", init=self.tau_m_ms, constraint=positive, axes=axes, symbol="tau_m"),
            "tau_s_ms": ParamSpec(shape, "ms", init=self.tau_s_ms, constraint=positive, axes=axes, symbol="tau_s"),
            "rest_mv": ParamSpec(shape, "mV", init=self.rest_mv, axes=axes),
            "threshold_mv": ParamSpec(shape, "mV", init=self.threshold_mv, axes=axes),
            "softness_mv": ParamSpec(
                shape, "mV", init=self.softness_mv, constraint=positive, axes=axes, doc="drive changes by 1 per softness"
            ),
            "reset_by_mv": ParamSpec(
                shape, "mV", init=self._reset_by(), constraint=positive, axes=axes, doc="fall of the voltage per spike"
            ),
        }
        return with_trained(self.name, self.train, specs)

    def params_for_count(self, expected: torch.Tensor, emission: Emission, dt_ms: float) -> Mapping[str, np.ndarray]:
        """Return the threshold at which a neuron at rest has these expected counts per bin, (n_neurons,)."""
        return {"threshold_mv": self.rest_mv - self.softness_mv * emission.drive_for(expected, dt_ms).numpy()}

    def init_state(self, params: Mapping[str, torch.Tensor], n_trials: int) -> tuple[torch.Tensor, ...]:
        """Return voltage above rest, current at the end of the bin, refractory bins left, each (n_trials, n_neurons), all 0."""
        zero = torch.zeros_like(params["rest_mv"]).expand(n_trials, -1)
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
        above_rest, synaptic, bins_left = state
        membrane, synapse, share = _propagators(params, dt_ms)
        synaptic = synaptic + current
        above_rest = membrane * (above_rest - params["reset_by_mv"] * spikes) + share * (synapse - membrane) * synaptic
        drive = (above_rest - (params["threshold_mv"] - params["rest_mv"])) / params["softness_mv"]
        bins_left, drive = refractory(n_refractory(self.refractory_ms, dt_ms), bins_left, spikes, drive)
        return (above_rest, synapse * synaptic, bins_left), drive

    def linear_form(self, params: Mapping[str, torch.Tensor], dt_ms: float) -> LinearForm:
        """Return the linear form: the voltage is `share` times the difference of two filtered inputs; the slower one takes the reset."""
        membrane, synapse, share = _propagators(params, dt_ms)
        softness, height = params["softness_mv"], params["threshold_mv"] - params["rest_mv"]
        return LinearForm(
            decay=torch.stack([synapse, membrane]),
            gain=torch.stack([synapse, membrane]),
            jump=torch.zeros_like(torch.stack([synapse, membrane])),
            readout=torch.stack([share, -share]) / softness,
            bias=-height / softness,
            reset="subtract",
            reset_components=(1,),
            reset_value=(-params["reset_by_mv"] / share)[None],
            n_refractory=n_refractory(self.refractory_ms, dt_ms),
        )

    def _reset_by(self) -> float:
        return self.threshold_mv - self.rest_mv if self.reset_by_mv is None else self.reset_by_mv


def _propagators(params: Mapping[str, torch.Tensor], dt_ms: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return exp(-dt / tau_m), exp(-dt / tau_s) and tau_s / (tau_s - tau_m)."""
    tau_m, tau_s = params["tau_m_ms"], params["tau_s_ms"]
    least = _NEAREST * tau_m
    is_near = (tau_s - tau_m).abs() < least
    apart = tau_m + torch.where(tau_s < tau_m, -least, least)
    tau_s = tau_s + torch.where(is_near, apart - tau_s, 0.0).detach()  # the gradient stays that of tau_s
    return torch.exp(-dt_ms / tau_m), torch.exp(-dt_ms / tau_s), tau_s / (tau_s - tau_m)
