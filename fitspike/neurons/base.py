"""The protocol of a neuron model, its linear form, and the emission that turns drive into spikes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from fitspike.citation import Citation
from fitspike.params import ParamSpec
from fitspike.types import Params, State

if TYPE_CHECKING:
    import torch


@runtime_checkable
class NeuronModel(Protocol):
    """A frozen settings object without tensors inside. A plugin inherits nothing; it only has these members."""

    name: str
    citation: Citation

    def param_specs(self, n_neurons: int) -> Mapping[str, ParamSpec]:
        """Return the specs of one population's parameters, first axis the neuron."""
        ...

    def init_state(self, params: Params, n_trials: int) -> State:
        """Return the state before the first bin; the first axis of every tensor is the trial."""
        ...

    def step(self, params: Params, state: State, current: torch.Tensor, spikes: torch.Tensor, dt_ms: float) -> tuple[State, torch.Tensor]:
        """Return the new state and the drive (n_trials, n_neurons), dimensionless.

        `current` (n_trials, n_neurons) is the input of this bin; `spikes` (n_trials, n_neurons) are the spikes of the previous bin,
        observed or sampled. The emission turns drive into a spike probability.
        """
        ...


@dataclass(frozen=True)
class LinearForm:
    """A neuron that is linear between spikes; D state components per neuron.

    With z the spikes of the previous bin: first the reset of the components `reset_components` ("subtract": s - reset_value z;
    "to_value": s + (reset_value - s) min(z, 1)), then s' = decay * s + gain * current + jump * z, then drive = readout . s' + bias.
    In the `n_refractory` bins after a spike the drive is `fitspike.neurons.emissions.NEVER_DRIVE`, at which no neuron spikes.

    decay, gain, jump: Tensor (D,) or (D, n_neurons). readout: (D,) or (D, n_neurons). bias: () or (n_neurons,). reset: "none",
    "subtract" or "to_value". reset_value: None (0), () or broadcasting against (n_reset_components, n_neurons). initial: the state before
    the first bin, None (0), (D,) or (D, n_neurons); it must say the same as the neuron model's `init_state`.
    """

    decay: torch.Tensor
    gain: torch.Tensor
    jump: torch.Tensor
    readout: torch.Tensor
    bias: torch.Tensor
    reset: str = "none"
    reset_components: tuple[int, ...] = ()
    reset_value: torch.Tensor | None = None
    n_refractory: int = 0
    initial: torch.Tensor | None = None


@runtime_checkable
class HasLinearForm(Protocol):
    """A neuron model that offers the fused path."""

    def linear_form(self, params: Params, dt_ms: float) -> LinearForm:
        """Return the linear form for bins of `dt_ms`."""
        ...


@runtime_checkable
class HasSeparateReset(Protocol):
    """A neuron model without a linear form that tells the reset from the other effects of a neuron's own spikes.

    Learning rules that follow adaptation but cut the reset, such as e-prop, need to know which is which.
    """

    def step_with_reset(
        self, params: Params, state: State, current: torch.Tensor, spikes: torch.Tensor, reset_spikes: torch.Tensor, dt_ms: float
    ) -> tuple[State, torch.Tensor]:
        """Return what `step` returns where both are its `spikes`; `reset_spikes` act on the reset alone, `spikes` on everything else."""
        ...


@runtime_checkable
class Emission(Protocol):
    """A link and a distribution: what drive means for the spikes of one bin."""

    name: str

    def log_prob(self, drive: torch.Tensor, spikes: torch.Tensor, dt_ms: float) -> torch.Tensor:
        """Return log P(spikes | drive) in nats, elementwise."""
        ...

    def expected(self, drive: torch.Tensor, dt_ms: float) -> torch.Tensor:
        """Return the expected spike count of the bin, elementwise."""
        ...

    def mean_square(self, expected: torch.Tensor) -> torch.Tensor:
        """Return the mean of the squared spike count of the bin, elementwise, given the expected count."""
        ...

    def sample(self, drive: torch.Tensor, uniforms: torch.Tensor, dt_ms: float) -> torch.Tensor:
        """Return spikes drawn by inverting the distribution at the uniforms, with a straight-through or surrogate gradient."""
        ...
