"""Local derivatives: how state and drive of a neuron follow from its own state, input current and last spike, bin by bin.

Neurons reach one another through currents alone, so that these are all derivatives that a rule needs which never looks at a neuron's
neighbours. They come from a neuron model's linear form where it has one, else from its `step` by automatic differentiation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import torch

from fitspike.plugin import NEVER_DRIVE, HasLinearForm, HasSeparateReset, InvalidInputError, LinearForm, NeuronModel, fill, leaves

OWN_SPIKE = ("none", "adaptation", "all")
"""Which effects of a neuron's own spike on itself are differentiated: none, all but the reset, or all."""

Step: TypeAlias = "Callable[[Any, torch.Tensor, torch.Tensor, torch.Tensor], tuple[Any, torch.Tensor]]"
"""(state, current, spikes, reset_spikes) -> (state, drive), of one bin."""


class LocalDerivatives(NamedTuple):
    """Derivatives of new state s' (S entries per neuron) and drive u with respect to s, current I and spike z of the bin before.

    Every first axis is the trial and every second one the bin; either has length 1 where nothing changes along it.

    state_state : ds'/ds, (..., n_neurons, S, S) [new, old], or its diagonal (..., n_neurons, S) where the rest is 0
    state_current, state_spike, drive_state : ds'/dI, ds'/dz and du/ds, (..., n_neurons, S)
    drive_current, drive_spike : du/dI and du/dz, (..., n_neurons)
    free : bool, (n_trials, n_bins, n_neurons); where False, in refractory bins, the derivatives of the drive count as 0. None: nowhere
    """

    state_state: torch.Tensor
    state_current: torch.Tensor
    state_spike: torch.Tensor
    drive_state: torch.Tensor
    drive_current: torch.Tensor
    drive_spike: torch.Tensor
    free: torch.Tensor | None = None

    @property
    def is_diagonal(self) -> bool:
        """Return whether the entries of a state do not act on one another."""
        return self.state_state.ndim == self.state_current.ndim

    @property
    def n_state(self) -> int:
        """Return S."""
        return self.state_current.shape[-1]

    def at(self, t: int) -> LocalDerivatives:
        """Return the derivatives of bin t alone, without the axis of bins."""
        *derivatives, free = (value if value is None else value[:, t if value.shape[1] > 1 else 0] for value in self)
        now = LocalDerivatives(*derivatives)
        if free is None:
            return now
        return now._replace(
            drive_state=now.drive_state * free.unsqueeze(-1), drive_current=now.drive_current * free, drive_spike=now.drive_spike * free
        )

    def units(self, which: slice) -> LocalDerivatives:
        """Return the derivatives of some neurons."""
        return LocalDerivatives(*(value if value is None else value[:, :, which] for value in self))

    def of_sampled(self, is_sampled: torch.Tensor) -> LocalDerivatives:
        """Return the same without the effects of spikes that are data; is_sampled (n_neurons,) bool."""
        mask = is_sampled.to(self.drive_spike.dtype)
        return self._replace(state_spike=self.state_spike * mask.unsqueeze(-1), drive_spike=self.drive_spike * mask)

    @property
    def has_own_spike(self) -> bool:
        """Return whether any neuron's spike has an effect on itself that is followed."""
        return bool(self.state_spike.any()) or bool(self.drive_spike.any())


def check_own_spike(neuron: NeuronModel, own_spike: str) -> None:
    """Raise an InvalidInputError unless the neuron model lets reset and other effects of a spike be told apart where that is asked for."""
    if own_spike == "adaptation" and not isinstance(neuron, HasLinearForm | HasSeparateReset):
        raise InvalidInputError(
            f"own_spike='adaptation' follows adaptation and cuts the reset, and neuron model {neuron.name!r} does not tell them apart: it "
            "has neither linear_form nor step_with_reset. Use own_spike='all' or own_spike='none', or give it one of these methods."
        )


# -- neurons with a linear form -----------------------------------------------------------------------------------------------------


def from_linear_form(
    form: LinearForm, drive: torch.Tensor, previous: torch.Tensor, own_spike: str, states: torch.Tensor | None = None
) -> LocalDerivatives:
    """Return the local derivatives of a linear neuron.

    Parameters
    ----------
    drive : Tensor, (n_trials, n_bins, n_neurons); bins where it is `NEVER_DRIVE` are refractory, and no derivative passes through them
    previous : Tensor, (n_trials, n_bins, n_neurons), the spikes of the bin before each bin
    own_spike : see `OWN_SPIKE`
    states : Tensor, (n_trials, n_bins, n_neurons, S), before each bin; needed for a reset to a value whose spikes are followed
    """
    n_neurons = drive.shape[-1]
    n_state = form.decay.shape[0]

    def spread(value: torch.Tensor) -> torch.Tensor:
        """Return (S,) or (S, n_neurons) as (1, 1, n_neurons, S)."""
        value = value.detach()
        return (value if value.ndim == 2 else value.unsqueeze(-1)).expand(n_state, n_neurons).T[None, None]

    decay, gain, jump, readout = (spread(value) for value in (form.decay, form.gain, form.jump, form.readout))
    is_reset = torch.tensor([d in form.reset_components for d in range(n_state)], device=decay.device)
    z = previous.unsqueeze(-1)
    value = _reset_value(form, n_state, n_neurons)
    state_state, state_spike = decay, (jump if own_spike != "none" else torch.zeros_like(jump))
    if form.reset == "to_value" and form.reset_components:
        state_state = decay * torch.where(is_reset, 1.0 - z.clamp(max=1.0), 1.0)
    if own_spike == "all" and form.reset_components:
        if form.reset == "subtract":
            state_spike = state_spike - torch.where(is_reset, decay * value, 0.0)
        elif form.reset == "to_value":
            assert states is not None, "a reset to a value depends on the state"
            state_spike = state_spike + torch.where(is_reset & (z <= 1.0), decay * (value - states), 0.0)
    return LocalDerivatives(
        state_state,
        gain,
        state_spike,
        readout * state_state,
        (readout * gain).sum(-1),
        (readout * state_spike).sum(-1),
        drive > NEVER_DRIVE if form.n_refractory else None,
    )


def _reset_value(form: LinearForm, n_state: int, n_neurons: int) -> torch.Tensor:
    """Return the reset value of every component, 0 of those that are not reset, (1, 1, n_neurons, S)."""
    value = form.decay.detach().new_zeros(n_state, n_neurons)
    if form.reset_value is not None and form.reset_components:
        value[list(form.reset_components)] = form.reset_value.detach().expand(len(form.reset_components), n_neurons)
    return value.T[None, None]


def linear_step(form: LinearForm, n_neurons: int) -> Step:
    """Return the step of a linear neuron; the state is its components (n_trials, n_neurons, S) and the refractory bins left."""
    n_state = form.decay.shape[0]

    def spread(value: torch.Tensor) -> torch.Tensor:
        return (value if value.ndim == 2 else value.unsqueeze(-1)).expand(n_state, n_neurons).T

    decay, gain, jump, readout = (spread(value) for value in (form.decay, form.gain, form.jump, form.readout))
    is_reset = torch.tensor([d in form.reset_components for d in range(n_state)], device=decay.device)
    value = torch.zeros_like(decay)
    if form.reset_value is not None and form.reset_components:
        rows = form.reset_value.expand(len(form.reset_components), n_neurons).T
        value = value.index_copy(1, torch.tensor(form.reset_components, device=decay.device), rows)

    def step(
        state: tuple[torch.Tensor, torch.Tensor], current: torch.Tensor, spikes: torch.Tensor, reset_spikes: torch.Tensor
    ) -> tuple[tuple[torch.Tensor, torch.Tensor], torch.Tensor]:
        components, bins_left = state
        z, z_reset = spikes.unsqueeze(-1), reset_spikes.unsqueeze(-1)
        if form.reset == "subtract":
            components = torch.where(is_reset, components - value * z_reset, components)
        elif form.reset == "to_value":
            components = torch.where(is_reset, components + (value - components) * z_reset.clamp(max=1.0), components)
        components = decay * components + gain * current.unsqueeze(-1) + jump * z
        drive = (readout * components).sum(-1) + form.bias
        if form.n_refractory:
            bins_left = torch.where(spikes.detach() > 0, float(form.n_refractory), (bins_left - 1.0).clamp_min(0.0))
            drive = torch.where(bins_left > 0, NEVER_DRIVE, drive)
        return (components, bins_left), drive

    return step


def linear_start(form: LinearForm, n_trials: int, n_neurons: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the state of `linear_step` before the first bin."""
    n_state = form.decay.shape[0]
    if form.initial is None:
        components = form.decay.new_zeros(n_neurons, n_state)
    else:
        components = (form.initial if form.initial.ndim == 2 else form.initial.unsqueeze(-1)).expand(n_state, n_neurons).T
    return components.expand(n_trials, -1, -1), components.new_zeros(n_trials, n_neurons)


# -- any neuron ---------------------------------------------------------------------------------------------------------------------


def model_step(neuron: NeuronModel, params: Any, dt_ms: float) -> Step:
    """Return a neuron model's own step; where it does not tell the reset apart, `spikes` act on the reset too."""
    if isinstance(neuron, HasSeparateReset):
        return lambda state, current, spikes, reset_spikes: neuron.step_with_reset(params, state, current, spikes, reset_spikes, dt_ms)
    return lambda state, current, spikes, reset_spikes: neuron.step(params, state, current, spikes, dt_ms)


def states_before(step: Step, start: Any, current: torch.Tensor, previous: torch.Tensor) -> Any:
    """Return the states before each bin, a nest like `start` whose tensors have shape (n_trials, n_bins, ...)."""
    found, state = [], start
    with torch.no_grad():
        for bin_current, spikes in zip(current.unbind(1), previous.unbind(1), strict=True):
            found.append(leaves(state))
            state, _ = step(state, bin_current, spikes, spikes)
    return fill(start, iter([torch.stack(values, dim=1) for values in zip(*found, strict=True)]))


def from_step(step: Step, states: Any, current: torch.Tensor, previous: torch.Tensor, own_spike: str) -> LocalDerivatives:
    """Return the local derivatives of any neuron by automatic differentiation of its step, all bins at once.

    As neurons do not act on one another in a step, one backward pass per entry of the state gives its derivatives for all neurons.

    Parameters
    ----------
    states : nest of tensors (n_trials, n_bins, n_neurons, ...), before each bin, from `states_before`
    current, previous : Tensor, (n_trials, n_bins, n_neurons); previous: the spikes of the bin before each bin
    """
    n_trials, n_bins, n_neurons = current.shape
    flat = n_trials * n_bins
    with torch.enable_grad():
        given = [value.detach().reshape(flat, *value.shape[2:]).clone().requires_grad_() for value in leaves(states)]
        drives = [value.detach().reshape(flat, n_neurons).clone().requires_grad_() for value in (current, previous, previous)]
        bin_current, spikes, reset_spikes = drives
        state, drive = step(fill(states, iter(given)), bin_current, spikes, reset_spikes)
        rows = [*_entries(leaves(state), drive).unbind(-1), drive]
        found = [_gradients(row, [*given, *drives]) for row in rows]
    own = {"none": (), "adaptation": (-2,), "all": (-2, -1)}[own_spike]
    by_state = torch.stack([_entries(row[:-3], drive) for row in found], dim=-2)
    by_current = torch.stack([row[-3] for row in found], dim=-1)
    by_spike = sum((torch.stack([row[i] for row in found], dim=-1) for i in own), torch.zeros_like(by_current))

    def shaped(value: torch.Tensor) -> torch.Tensor:
        return value.reshape(n_trials, n_bins, *value.shape[1:])

    return LocalDerivatives(
        shaped(by_state[..., :-1, :]),
        shaped(by_current[..., :-1]),
        shaped(by_spike[..., :-1]),
        shaped(by_state[..., -1, :]),
        shaped(by_current[..., -1]),
        shaped(by_spike[..., -1]),
    )


def _entries(values: list[torch.Tensor], drive: torch.Tensor) -> torch.Tensor:
    """Return the tensors of a state, (n, n_neurons, ...), as one, (n, n_neurons, S); S is 0 for a neuron without a state."""
    return torch.cat([drive.detach().new_zeros(*drive.shape, 0), *(value.reshape(*drive.shape, -1) for value in values)], dim=-1)


def _gradients(row: torch.Tensor, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
    """Return the derivatives of one entry of every neuron's new state; 0 where it does not depend on an input."""
    if not row.requires_grad:
        return [torch.zeros_like(value) for value in inputs]
    found = torch.autograd.grad(row.sum(), inputs, retain_graph=True, allow_unused=True)
    return [torch.zeros_like(value) if gradient is None else gradient for gradient, value in zip(found, inputs, strict=True)]
