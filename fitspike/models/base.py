"""The protocol of a model, what it may be able to do beyond it, and the values that cross its border."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from fitspike.citation import Citation
from fitspike.params import ParamSpec
from fitspike.recording.info import DataInfo
from fitspike.rng import Stream
from fitspike.types import Carry, ParamArrays, Params

if TYPE_CHECKING:
    import torch

    from fitspike.models.connectivity import Connectivity
    from fitspike.neurons.base import Emission, NeuronModel
    from fitspike.recording.binned import BinnedSpikes, SpikeChunk
    from fitspike.rollout import Driven


class _WhenAsked:
    """A field whose value may be given as a function without arguments, which is called when the field is first read."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.key = f"_{name}"

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None:
            raise AttributeError(self.key)  # so that the field has no default
        value = vars(instance)[self.key]
        if callable(value):
            value = vars(instance)[self.key] = value()
        return value

    def __set__(self, instance: Any, value: Any) -> None:
        vars(instance)[self.key] = value


@dataclass(frozen=True)
class Rollout:
    """What driving a model gives.

    spikes : (n_trials, n_bins, n_neurons)
    log_prob : (n_trials, n_neurons), nats of the observed neurons; may be given as a function without arguments that returns it, which is
        called when it is first asked for
    """

    spikes: torch.Tensor
    log_prob: torch.Tensor = _WhenAsked()  # type: ignore[assignment]
    latents: Mapping[str, torch.Tensor] = field(default_factory=dict)
    carry: Carry = None


@runtime_checkable
class Model(Protocol):
    """A frozen settings object. `emissions` lists the emissions it can use, the default first.

    Optional: `devices`, the kinds of devices that it computes on, such as ("cpu",); a fit on another is refused. Default: all.
    """

    name: str
    citation: Citation | tuple[Citation, ...]
    emissions: tuple[str, ...]

    def param_specs(self, data: DataInfo) -> Mapping[str, ParamSpec]:
        """Return the specs of all parameters for data of this shape."""
        ...

    def log_likelihood(self, params: Params, chunk: SpikeChunk, carry: Carry, rng: Stream) -> tuple[torch.Tensor, Carry]:
        """Return the log-likelihood of a chunk given its past, (n_trials, n_neurons) nats, and the carry for the next chunk."""
        ...

    def rollout(
        self,
        params: Params,
        context: SpikeChunk,
        *,
        uniforms: torch.Tensor,
        observed: torch.Tensor | None = None,
        observed_mask: torch.Tensor | None = None,
        carry: Carry = None,
    ) -> Rollout:
        """Drive the model over the bins of `context`, whose trials, conditions, times and signals are used, not its spikes.

        `uniforms` (n_trials, n_bins, `n_uniforms(model, n_neurons)`) decide sampled spikes. `observed` (n_trials, n_bins, n_neurons) with
        `observed_mask` (n_neurons,) bool clamps those neurons: all True is a clamped run, None is free, else mixed.
        """
        ...


def n_uniforms(model: Model, n_neurons: int) -> int:
    """Return how many uniforms a rollout takes per trial and bin.

    One per recorded neuron, one per hidden unit (the model's `n_hidden`, where it has that) and one per latent that is constant in a trial
    (`trial_latents`), of which the first bin's counts.
    """
    return n_neurons + getattr(model, "n_hidden", 0) + getattr(model, "trial_latents", 0)


@dataclass(frozen=True)
class SolverReport:
    """How a solver ended. `status` is a FitStatus name; `history` one mapping of plain floats per log point."""

    status: str
    message: str
    n_steps: int
    history: tuple[Mapping[str, float], ...] = ()
    extras: Mapping[str, Any] = field(default_factory=dict)
    """Arrays and plain values worth keeping: standard errors, chosen penalties, cross-validation table."""


@dataclass(frozen=True)
class SolverContext:
    """What a fit hands to a model's solver.

    report(step, metrics) logs plain floats and may raise KeyboardInterrupt to stop; checkpoint(step, arrays) stores solver state at most
    as often as the settings say (arrays: a flat mapping of numpy arrays); `resume` is the last such mapping or None; `deadline_s` is the
    time.monotonic() value to stop at, or None.
    """

    init: ParamArrays
    stream: Stream
    settings: Mapping[str, Any] = field(default_factory=dict)
    report: Callable[[int, Mapping[str, float]], None] = lambda step, metrics: None
    checkpoint: Callable[[int, Mapping[str, np.ndarray]], None] = lambda step, arrays: None
    resume: Mapping[str, np.ndarray] | None = None
    max_steps: int | None = None
    deadline_s: float | None = None
    threads: int = 1
    backend: str = "auto"


@runtime_checkable
class HasSolver(Protocol):
    """A model with a better way to its own likelihood optimum than gradient steps."""

    def solve(self, binned: BinnedSpikes, context: SolverContext) -> tuple[ParamArrays, SolverReport]:
        """Return the constrained parameters at the optimum and how it went."""
        ...


@runtime_checkable
class HasSelection(Protocol):
    """A model that can choose its own open settings (terms, penalties) on training data."""

    def select(self, binned: BinnedSpikes, context: SolverContext) -> tuple[Model, Mapping[str, Any]]:
        """Return the model with every open setting fixed, and the table of what was tried (JSON-able).

        The table's key "rows" lists one mapping per candidate, in the order tried, for the report and its figure: "stage" (what was being
        chosen), "settings" (the values tried, by name), "bits_per_spike" (over the validation folds), "folds" (each fold's) and "taken".
        "method" says in words how the folds were made.
        """
        ...


@runtime_checkable
class HasIntensity(Protocol):
    """A model that gives the expected count of each bin given the past; needed for time rescaling, PSTH and per-bin scores."""

    def intensity(self, params: Params, chunk: SpikeChunk, carry: Carry) -> tuple[torch.Tensor, Carry]:
        """Return expected counts (n_trials, n_bins, n_neurons) of a clamped run and the carry."""
        ...


@runtime_checkable
class HasConnectivity(Protocol):
    """A model whose parameters hold couplings between the recorded neurons."""

    def connectivity(self, params: Params, extras: Mapping[str, Any]) -> Connectivity:
        """Return the couplings [post, pre]; `extras` is the solver report's (standard errors)."""
        ...


@runtime_checkable
class HasClamped(Protocol):
    """A model that shows the run behind its likelihood: losses read hidden neurons from it, rules put their own in its place."""

    def clamped(self, params: Params, chunk: SpikeChunk, carry: Carry, rng: Stream) -> Rollout:
        """Return the run clamped to a chunk's spikes, whose log_prob and carry are what `log_likelihood` returns.

        latents: "drive", (n_trials, n_bins, n_neurons), and with hidden units "hidden_spikes" and "hidden_drive".
        """
        ...


@runtime_checkable
class HasUnits(Protocol):
    """A model of neurons that reach one another through input currents alone, and whose units a learning rule can drive itself.

    `neuron` is the neuron model of all units, the recorded neurons being the first of them.
    """

    neuron: NeuronModel

    def emission_object(self) -> Emission:
        """Return the emission of all units."""
        ...

    def driven_by(self, drive: Callable[..., Driven]) -> Model:
        """Return this model with `drive` in place of `rollout`, with the same arguments, wherever it drives its units."""
        ...


@runtime_checkable
class HasLatents(Protocol):
    """A model with latent variables per trial."""

    def latent_specs(self, data: DataInfo) -> Mapping[str, ParamSpec]:
        """Return the specs of the latents of one trial."""
        ...

    def log_joint(self, params: Params, latents: Mapping[str, torch.Tensor], chunk: SpikeChunk) -> torch.Tensor:
        """Return log p(spikes, latents) per trial, (n_trials,) nats."""
        ...


@runtime_checkable
class HasPopulations(Protocol):
    """A model of whole populations, most of whose neurons were not recorded."""

    def populations(self, params: Params, extras: Mapping[str, Any], dt_ms: float, stream: Stream) -> Mapping[str, np.ndarray]:
        """Return what is drawn of the fitted populations, arrays by name; `extras` is the solver report's.

        names (n_populations,) text; coupling, coupling_sd [post, pre] (n_populations, n_populations); latent_time_s (n_bins,), latent_hz
        and latent_sd_hz (n_bins, n_populations), inferred activity; free_time_s, free_hz, free activity; response_time_ms (n_bins,) and
        response_hz (target, n_bins, n_populations), mean answers to a pulse; inferred_dwell_s, free_dwell_s. Only names is required.
        """
        ...


@runtime_checkable
class HasCaveats(Protocol):
    """A model with limits that its user should read beside every result."""

    def caveats(self) -> tuple[str, ...]:
        """Return sentences, none where there is nothing to say for these settings."""
        ...


@runtime_checkable
class HasStability(Protocol):
    """A model that can tell whether its free activity would run away."""

    def stability(self, params: Params) -> Mapping[str, Any]:
        """Return {"is_stable": bool, "message": str, ...} for the fitted parameters."""
        ...
