"""Driving a model's units with the gradient of e-prop in place of that of back-propagation: same spikes, other derivatives.

A model that lets its units be driven by somebody else (`fitspike.plugin.HasUnits`) gets what `rollout` would give it. Behind spikes and
drive stands a graph in which every neuron follows its own past, and spikes that others see are numbers:

    recorded neurons clamped to data   exact derivative of their drive by everything that is in their input current and parameters
    sampled neurons                    dE/du + psi (dE/dz + effects of the own spike on the neuron itself, as `own_spike` says)
    hidden neurons                     as sampled ones, and dE/dz through the currents of recorded neurons, by the weights of `feedback`
    connections hidden to hidden, and those of freely running recorded neurons, pass nothing back
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from fitspike.plugin import Driven, Emission, HasLinearForm, LinearState, NeuronModel, RolloutCarry, map_tensors, rollout
from fitspike_eprop.adjoint import adjoint
from fitspike_eprop.local import (
    LocalDerivatives,
    Step,
    from_linear_form,
    from_step,
    linear_start,
    linear_step,
    model_step,
    states_before,
)

Feedback = Callable[[torch.Tensor], torch.Tensor]
"""Coupling weights of the hidden onto the recorded neurons, (n_recorded, n_hidden, n_basis) -> those that carry signals back."""


@dataclass
class Driver:
    """What stands in for `rollout`. n_recorded : the units that are recorded neurons, the first ones. own_spike : see `local.OWN_SPIKE`."""

    n_recorded: int
    own_spike: str
    feedback: Feedback
    by_autograd: bool = False

    def __call__(
        self,
        neuron: NeuronModel,
        params: Any,
        emission: Emission,
        *,
        current: torch.Tensor,
        dt_ms: float,
        coupling: Any = None,
        uniforms: torch.Tensor | None = None,
        observed: torch.Tensor | None = None,
        observed_mask: torch.Tensor | None = None,
        carry: RolloutCarry | None = None,
        backend: str = "auto",
    ) -> Driven:
        """Return what `rollout` returns for the same arguments, with the gradient of e-prop."""
        given = {"uniforms": uniforms, "observed": observed, "observed_mask": observed_mask, "carry": carry, "backend": backend}
        if not torch.is_grad_enabled() and not self.by_autograd:  # whose carries are not those of `rollout`
            return rollout(neuron, params, emission, current=current, dt_ms=dt_ms, coupling=coupling, **given)
        is_sampled = _is_sampled(current.shape[-1], observed, observed_mask).to(current.device)
        if self.by_autograd:
            bins = _Bins(current, uniforms, observed, is_sampled, carry)
            return _by_autograd(self, neuron, params, emission, bins, coupling, dt_ms)
        if not bool(is_sampled.any()):
            return rollout(neuron, params, emission, current=current, dt_ms=dt_ms, coupling=coupling, **given)
        with torch.no_grad():
            spikes = rollout(neuron, params, emission, current=current, dt_ms=dt_ms, coupling=coupling, **given).spikes
        last = spikes.new_zeros(spikes[:, 0].shape) if carry is None else carry.spikes.detach()
        previous = torch.cat([last.unsqueeze(1), spikes], dim=1)[:, :-1]
        past = None
        if coupling is not None:
            before = coupling.init_state(len(spikes)) if carry is None else carry.coupling
            past, recurrent = coupling.currents(map_tensors(before, torch.Tensor.detach), previous)
            current = current + recurrent
        if not current.requires_grad:
            current = current.detach().requires_grad_()
        own = RolloutCarry(carry.neuron, last, None) if carry is not None else None
        local = rollout(neuron, params, emission, current=current, dt_ms=dt_ms, observed=spikes, carry=own, backend=backend)
        run = _Run(self, neuron, params, emission, coupling, dt_ms, current, local.drive, spikes, previous, is_sampled, own)
        known, drive = _Signals.apply(run, local.drive)
        return Driven(known, drive, RolloutCarry(local.carry.neuron, spikes[:, -1], past))


def _is_sampled(n_units: int, observed: torch.Tensor | None, observed_mask: torch.Tensor | None) -> torch.Tensor:
    """Return which units are sampled, (n_units,) bool."""
    if observed is None:
        return torch.ones(n_units, dtype=torch.bool)
    return torch.zeros(n_units, dtype=torch.bool) if observed_mask is None else ~observed_mask


class _Signals(torch.autograd.Function):
    """Spikes and drive as they came out; backward, what both are told becomes what the drive of each unit is told."""

    @staticmethod
    def forward(ctx, run: _Run, drive: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        ctx.run = run
        ctx.set_materialize_grads(False)
        return run.spikes.view_as(run.spikes), drive.view_as(drive)

    @staticmethod
    def backward(ctx, spike_signal: torch.Tensor | None, drive_signal: torch.Tensor | None) -> tuple[None, torch.Tensor]:
        return None, ctx.run.drive_adjoint(drive_signal, spike_signal)


@dataclass(frozen=True, eq=False)
class _Run:
    """One run of the units, for its backward pass. current, drive : of the graph in which all spikes are numbers."""

    driver: Driver
    neuron: NeuronModel
    params: Any
    emission: Emission
    coupling: Any
    dt_ms: float
    current: torch.Tensor
    drive: torch.Tensor
    spikes: torch.Tensor
    previous: torch.Tensor
    is_sampled: torch.Tensor
    carry: RolloutCarry | None

    def drive_adjoint(self, drive_signal: torch.Tensor | None, spike_signal: torch.Tensor | None) -> torch.Tensor:
        """Return dE/du with all that reaches u on its neuron's own path, (n_trials, n_bins, n_units); see the module. None is 0."""
        n_recorded, n_units = self.driver.n_recorded, self.drive.shape[-1]
        local = self._local() if self.driver.own_spike != "none" else None
        recorded = self._own(local, drive_signal, spike_signal, slice(n_recorded))
        if n_recorded == n_units:
            return recorded
        hidden = slice(n_recorded, None)
        if self.coupling is not None and bool(recorded.any()):
            fed_back = self._fed_back(recorded)
            spike_signal = fed_back if spike_signal is None else spike_signal + fed_back
        return torch.cat([recorded, self._own(local, drive_signal, spike_signal, hidden)], dim=-1)

    def _own(
        self, local: LocalDerivatives | None, drive_signal: torch.Tensor | None, spike_signal: torch.Tensor | None, which: slice
    ) -> torch.Tensor:
        """Return the drive's adjoint of some units."""
        drive, is_sampled = self.drive.detach()[..., which], self.is_sampled[which]
        drive_signal, spike_signal = (value if value is None else value[..., which] for value in (drive_signal, spike_signal))
        if not bool(is_sampled.any()):
            return torch.zeros_like(drive) if drive_signal is None else drive_signal
        slope = self.emission.slope(drive, self.dt_ms)
        if not bool(is_sampled.all()):
            slope = slope * is_sampled
        if local is not None and (own := local.units(which).of_sampled(is_sampled)).has_own_spike:
            return adjoint(own, slope, drive_signal, spike_signal).drive
        by_spikes = torch.zeros_like(drive) if spike_signal is None else slope * spike_signal
        return by_spikes if drive_signal is None else drive_signal + by_spikes

    def _fed_back(self, recorded: torch.Tensor) -> torch.Tensor:
        """Return what the recorded neurons' currents say about spikes of hidden ones before, (n_trials, n_bins, n_units)."""
        n_recorded = self.driver.n_recorded
        told = torch.nn.functional.pad(recorded, (0, self.drive.shape[-1] - n_recorded))
        (by_current,) = torch.autograd.grad(self.drive, self.current, told, retain_graph=True)
        weight = self.coupling.weight.detach()
        back = torch.zeros_like(weight)
        back[:n_recorded, n_recorded:] = self.driver.feedback(weight[:n_recorded, n_recorded:])
        with torch.enable_grad():
            previous = self.previous.detach().requires_grad_()
            _, currents = replace(self.coupling, weight=back).currents(self._silent_past(), previous)
        (found,) = torch.autograd.grad(currents, previous, by_current)
        return torch.cat([found[:, 1:], torch.zeros_like(found[:, :1])], dim=1)

    def _silent_past(self) -> Any:
        return map_tensors(self.coupling.init_state(len(self.spikes)), torch.Tensor.detach)

    def _local(self) -> LocalDerivatives:
        """Return the local derivatives of all units."""
        n_trials, _, n_units = self.drive.shape
        params = {name: value.detach() for name, value in self.params.items()}
        own_spike, current, drive = self.driver.own_spike, self.current.detach(), self.drive.detach()
        is_linear = isinstance(self.neuron, HasLinearForm)
        if is_linear and (own_spike != "all" or self.carry is None or isinstance(self.carry.neuron, LinearState)):
            form = self.neuron.linear_form(params, self.dt_ms)
            states = None
            if own_spike == "all" and form.reset == "to_value":
                start = linear_start(form, n_trials, n_units) if self.carry is None else _components(self.carry.neuron)
                states, _ = states_before(linear_step(form, n_units), start, current, self.previous)
            return from_linear_form(form, drive, self.previous, own_spike, states)
        step = model_step(self.neuron, params, self.dt_ms)
        start = self.neuron.init_state(params, n_trials) if self.carry is None else map_tensors(self.carry.neuron, torch.Tensor.detach)
        return from_step(step, states_before(step, start, current, self.previous), current, self.previous, own_spike)


def _components(state: LinearState) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the state of a run by linear form as that of `linear_step`."""
    return state.components.detach().transpose(1, 2), state.bins_left.detach()


# -- the same by automatic differentiation of a graph that is cut -------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Bins:
    """What comes in, bin by bin."""

    current: torch.Tensor
    uniforms: torch.Tensor | None
    observed: torch.Tensor | None
    is_sampled: torch.Tensor
    carry: RolloutCarry | None


def _by_autograd(driver: Driver, neuron: NeuronModel, params: Any, emission: Emission, bins: _Bins, coupling: Any, dt_ms: float) -> Driven:
    """Return the run of a graph cut where e-prop cuts, which automatic differentiation goes through bin by bin: slow, and simple."""
    n_trials, n_bins, n_units = bins.current.shape
    step, state = _cut_step(neuron, params, dt_ms, n_trials, n_units, driver.own_spike, bins.carry)
    spikes = bins.current.new_zeros(n_trials, n_units) if bins.carry is None else bins.carry.spikes.detach()
    recurrent = _CutCoupling.of(coupling, driver, n_trials, bins.carry) if coupling is not None else None
    uniforms = bins.uniforms.unbind(1) if bins.uniforms is not None else [None] * n_bins
    observed = bins.observed.to(spikes.dtype).unbind(1) if bins.observed is not None else [None] * n_bins
    all_spikes, all_drives = [], []
    for t, current in enumerate(bins.current.unbind(1)):
        if recurrent is not None:
            current = current + recurrent.step(spikes)
        state, drive = step(state, current, spikes)
        known = spikes.new_zeros(drive.shape) if observed[t] is None else observed[t]
        spikes = known
        if bool(bins.is_sampled.any()):
            spikes = torch.where(bins.is_sampled, emission.sample(drive, uniforms[t], dt_ms), known)
        all_spikes.append(spikes)
        all_drives.append(drive)
    carry = RolloutCarry(state, spikes, recurrent.numbers if recurrent is not None else None)
    return Driven(torch.stack(all_spikes, dim=1), torch.stack(all_drives, dim=1), carry)


def _cut_step(
    neuron: NeuronModel, params: Any, dt_ms: float, n_trials: int, n_units: int, own_spike: str, carry: RolloutCarry | None
) -> tuple[Callable[..., Any], Any]:
    """Return a step in which the own spikes that are not followed are numbers, and the state it starts from."""
    step: Step
    if own_spike == "adaptation" and isinstance(neuron, HasLinearForm):
        form = neuron.linear_form(params, dt_ms)
        step, state = linear_step(form, n_units), linear_start(form, n_trials, n_units)
    else:
        step, state = model_step(neuron, params, dt_ms), neuron.init_state(params, n_trials)
    if carry is not None:
        state = carry.neuron

    def cut(state: Any, current: torch.Tensor, spikes: torch.Tensor) -> tuple[Any, torch.Tensor]:
        numbers = spikes.detach()
        return step(state, current, numbers if own_spike == "none" else spikes, spikes if own_spike == "all" else numbers)

    return cut, state


@dataclass
class _CutCoupling:
    """Coupling in which spikes are numbers, but for those of hidden neurons in the currents of recorded ones."""

    plain: Any
    back: Any
    numbers: Any
    live: Any
    n_recorded: int

    @classmethod
    def of(cls, coupling: Any, driver: Driver, n_trials: int, carry: RolloutCarry | None) -> _CutCoupling:
        weight = coupling.weight.detach()
        back = torch.zeros_like(weight)
        n_recorded = driver.n_recorded
        if n_recorded < len(weight):
            back[:n_recorded, n_recorded:] = driver.feedback(weight[:n_recorded, n_recorded:])
        start = coupling.init_state(n_trials) if carry is None else map_tensors(carry.coupling, torch.Tensor.detach)
        return cls(coupling, replace(coupling, weight=back), start, start, n_recorded)

    def step(self, spikes: torch.Tensor) -> torch.Tensor:
        """Return the current of a bin: its value from the weights, its derivative by hidden spikes from the feedback."""
        self.numbers, current = self.plain.step(self.numbers, spikes.detach())
        self.live, back = self.back.step(self.live, spikes)
        return current + (back - back.detach())
