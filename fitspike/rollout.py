"""One driver of a neuron model over bins: clamped to observed spikes, free, or mixed.

Which spikes a neuron and its targets see in the next bin is all that differs: observed ones (clamped), ones sampled at given uniforms
(free), or observed ones for some neurons and sampled ones for the rest (mixed). Likelihood, simulation, hidden neurons and the replay of
hardware runs thus share one piece of science. Spikes are a function of parameters, inputs and uniforms: not of chunk size, which only
says how often a carry is handed on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import torch

from fitspike.errors import BackendError, InvalidInputError
from fitspike.kernels.linear_rollout import LinearCarry, LinearNeuron, linear_rollout
from fitspike.neurons.base import Emission, HasLinearForm, NeuronModel
from fitspike.neurons.emissions import NEVER_DRIVE, kernel_sampling
from fitspike.types import Params, State


class Coupling(Protocol):
    """Input current from the spikes of other neurons; the state holds as much of the past as the delays ask for.

    A coupling that also has `linear`, `to_kernel` and `from_kernel` (see `fitspike.models.network_coupling`) can run in the kernel. Where
    every spike is known, one that has `currents(state, previous)` gives those of all bins at once to a neuron driven bin by bin.
    """

    def init_state(self, n_trials: int) -> State:
        """Return the state of a silent past."""
        ...

    def step(self, state: State, spikes: torch.Tensor) -> tuple[State, torch.Tensor]:
        """Return the new state and the current (n_trials, n_neurons) of a bin, given the spikes of the bin before."""
        ...


@dataclass(frozen=True)
class RolloutCarry:
    """What one chunk of a trial hands to the next: neuron state, spikes of its last bin (n_trials, n_neurons), coupling state."""

    neuron: State
    spikes: torch.Tensor
    coupling: State


@dataclass(frozen=True)
class LinearState:
    """Neuron state of a run by linear form: components (n_trials, n_components, n_neurons), refractory bins left (n_trials, n_neurons)."""

    components: torch.Tensor
    bins_left: torch.Tensor


@dataclass(frozen=True)
class Driven:
    """A driven neuron model: spikes and drive, both (n_trials, n_bins, n_neurons), and the carry."""

    spikes: torch.Tensor
    drive: torch.Tensor
    carry: RolloutCarry


Current: TypeAlias = "torch.Tensor | Callable[[int, torch.Tensor], torch.Tensor]"
"""Input per bin, (n_trials, n_bins, n_neurons), or a function of the bin number and the previous bin's spikes (n_trials, n_neurons)."""


def rollout(
    neuron: NeuronModel,
    params: Params,
    emission: Emission,
    *,
    current: Current,
    dt_ms: float,
    coupling: Coupling | None = None,
    uniforms: torch.Tensor | None = None,
    observed: torch.Tensor | None = None,
    observed_mask: torch.Tensor | None = None,
    carry: RolloutCarry | None = None,
    backend: str = "auto",
) -> Driven:
    """Drive a neuron model over the bins of a chunk.

    A neuron model with a `linear_form` runs in the kernel `linear_rollout`; any other, and anything the kernel does not know (a current
    given as a function, an emission or coupling of somebody else), bin by bin with its `step`. Both are the same up to rounding.

    Parameters
    ----------
    current : Tensor (n_trials, n_bins, n_neurons), or a function of bin number and previous spikes that returns (n_trials, n_neurons)
        Input besides `coupling`, in the neuron model's own unit of current.
    coupling : adds the current that follows from the neurons' spikes
    uniforms : Tensor, (n_trials, n_bins, n_neurons), in (0, 1)
        Decide the sampled spikes. Not needed when every neuron is observed.
    observed : Tensor, (n_trials, n_bins, n_neurons), spikes, optional
    observed_mask : Tensor of bool, (n_neurons,), optional
        Which neurons are clamped to `observed`. Default: all if `observed` is given, else none.
    carry : the carry of the chunk before; None at the start of a trial, where there are no past spikes
        Gradients pass through it unless it is detached. With `torch.utils.checkpoint` around each of sqrt(n_bins) chunks, what a backward
        pass over a long trial holds grows as sqrt(n_bins).
    backend : "auto", "step" (never the kernel), or a backend of the kernel: "numba", "reference"

    Returns
    -------
    Driven. Sampled spikes carry the emission's pseudo-derivative; observed ones carry no gradient.

    Raises
    ------
    InvalidInputError
        If spikes must be sampled and there are no uniforms, or shapes do not agree.
    """
    is_sampled, is_observed = _who_is_sampled(observed, observed_mask, uniforms)
    source = uniforms if is_sampled else observed
    if isinstance(current, torch.Tensor) and current.shape != source.shape:
        raise InvalidInputError(
            f"current has shape {tuple(current.shape)}; expected (n_trials, n_bins, n_neurons) = {tuple(source.shape)}."
        )
    if (reason := _reason_against_kernel(neuron, emission, current, coupling, backend)) is None:
        clamped = (observed, observed_mask) if is_observed else (None, None)
        return _by_linear_form(
            neuron, params, emission, current, dt_ms, coupling, uniforms if is_sampled else None, clamped, carry, backend
        )
    if backend not in ("auto", "step"):
        raise BackendError(f"backend {backend!r} cannot drive {neuron.name!r}: {reason}. Use backend='auto'.")
    n_trials, n_bins, n_neurons = source.shape
    current_at = _current_per_bin(current)
    dtype = next(iter(params.values())).dtype
    observed_bins = observed.to(dtype).unbind(1) if is_observed else None
    uniform_bins = uniforms.unbind(1) if is_sampled else None
    clamp_mask = observed_mask if is_observed and is_sampled else None

    if carry is None:
        state = neuron.init_state(params, n_trials)
        spikes = torch.zeros(n_trials, n_neurons, dtype=dtype, device=source.device)
        past = coupling.init_state(n_trials) if coupling is not None else None
    else:
        state, spikes, past = carry.neuron, carry.spikes, carry.coupling
        if isinstance(state, LinearState):
            raise InvalidInputError("the carry comes from a run by linear form. Use one backend for all chunks of a trial.")

    known_currents = None
    if not is_sampled and hasattr(coupling, "currents"):
        past, known = coupling.currents(past, torch.cat([spikes.unsqueeze(1), observed.to(dtype)], dim=1)[:, :-1])
        known_currents = known.unbind(1)
    all_spikes, all_drives = [], []
    for t in range(n_bins):
        bin_current = current_at(t, spikes)
        if known_currents is not None:
            bin_current = bin_current + known_currents[t]
        elif coupling is not None:
            past, recurrent = coupling.step(past, spikes)
            bin_current = bin_current + recurrent
        state, drive = neuron.step(params, state, bin_current, spikes, dt_ms)
        if is_sampled:
            spikes = emission.sample(drive, uniform_bins[t], dt_ms)
            if clamp_mask is not None:
                spikes = torch.where(clamp_mask, observed_bins[t], spikes)
        else:
            spikes = observed_bins[t]
        all_spikes.append(spikes)
        all_drives.append(drive)
    stacked = [torch.stack(x, dim=1) if x else source.new_zeros(n_trials, 0, n_neurons, dtype=dtype) for x in (all_spikes, all_drives)]
    return Driven(*stacked, RolloutCarry(state, spikes, past))


def _who_is_sampled(observed: torch.Tensor | None, observed_mask: torch.Tensor | None, uniforms: torch.Tensor | None) -> tuple[bool, bool]:
    """Return whether any neuron is sampled and whether any is observed; checks the arguments."""
    if observed is None:
        if observed_mask is not None and bool(observed_mask.any()):
            raise InvalidInputError("observed_mask marks neurons as observed, but no observed spikes are given. Give `observed`.")
        is_sampled, is_observed = True, False
    else:
        is_sampled = observed_mask is not None and not bool(observed_mask.all())
        is_observed = observed_mask is None or bool(observed_mask.any())
    if is_sampled and uniforms is None:
        raise InvalidInputError("some neurons are to be sampled, but no uniforms are given. Give `uniforms`, or observe every neuron.")
    if is_sampled and is_observed and observed.shape != uniforms.shape:
        raise InvalidInputError(f"observed {tuple(observed.shape)} and uniforms {tuple(uniforms.shape)} must have one shape.")
    return is_sampled, is_observed


def _current_per_bin(current: Current) -> Callable[[int, torch.Tensor], torch.Tensor]:
    """Return a function of bin number and previous spikes that gives the bin's current."""
    if callable(current):
        return current
    bins = current.unbind(1)
    return lambda t, spikes: bins[t]


def _reason_against_kernel(
    neuron: NeuronModel, emission: Emission, current: Current, coupling: Coupling | None, backend: str
) -> str | None:
    """Return why the kernel cannot run this, or None."""
    if backend == "step":
        return "bin by bin is asked for"
    if not isinstance(neuron, HasLinearForm):
        return "it has no linear_form"
    if not isinstance(current, torch.Tensor):
        return "its current is a function of past spikes"
    if coupling is not None and not hasattr(coupling, "linear"):
        return "its coupling has no linear form"
    return None if hasattr(emission, "sampling") else f"emission {emission.name!r} does not say how to sample it"


def _by_linear_form(
    neuron: HasLinearForm,
    params: Params,
    emission: Emission,
    current: torch.Tensor,
    dt_ms: float,
    coupling: Coupling | None,
    uniforms: torch.Tensor | None,
    clamped: tuple[torch.Tensor | None, torch.Tensor | None],
    carry: RolloutCarry | None,
    backend: str,
) -> Driven:
    """Return the same as `rollout`, run by the kernel."""
    n_trials, n_bins, n_neurons = current.shape
    form = neuron.linear_form(params, dt_ms)
    n_components = form.decay.shape[0]
    like = form.decay
    full = (n_components, n_neurons)

    def spread(value: torch.Tensor) -> torch.Tensor:
        return (value if value.ndim == 2 else value.unsqueeze(-1)).expand(full)

    is_reset = tuple(d in form.reset_components for d in range(n_components))
    reset_value = like.new_zeros(full)
    if form.reset_value is not None and form.reset_components:
        rows = form.reset_value.expand(len(form.reset_components), n_neurons)
        reset_value = reset_value.index_copy(0, torch.tensor(form.reset_components, device=like.device), rows)
    linear = LinearNeuron(
        *(spread(value) for value in (form.decay, form.gain, form.jump, form.readout)),
        form.bias.expand(n_neurons),
        reset_value,
        form.reset,
        is_reset,
        form.n_refractory,
        NEVER_DRIVE,
    )
    if carry is None:
        initial = like.new_zeros(full) if form.initial is None else spread(form.initial)
        silent = like.new_zeros(n_trials, n_neurons)
        state = LinearState(initial.expand(n_trials, *full), silent)
        spikes, past = silent, coupling.init_state(n_trials) if coupling is not None else None
    else:
        state, spikes, past = carry.neuron, carry.spikes, carry.coupling
        if not isinstance(state, LinearState):
            raise InvalidInputError("the carry comes from a run bin by bin. Use one backend for all chunks of a trial.")
    none = like.new_zeros(n_trials, 0, n_neurons), like.new_zeros(n_trials, n_neurons, 0)
    kernel_past, kernel_trace = coupling.to_kernel(past) if coupling is not None else none
    sampling = kernel_sampling(emission, uniforms, dt_ms) if uniforms is not None else None
    all_spikes, drive, new = linear_rollout(
        linear,
        current.to(like.dtype),
        LinearCarry(state.components, state.bins_left, spikes, kernel_past, kernel_trace),
        coupling=coupling.linear() if coupling is not None else None,
        sampling=sampling,
        observed=clamped[0],
        observed_mask=clamped[1],
        backend=backend,
    )
    new_past = coupling.from_kernel(new.past, new.trace) if coupling is not None else None
    return Driven(all_spikes, drive, RolloutCarry(LinearState(new.state, new.bins_left), new.spikes, new_past))
