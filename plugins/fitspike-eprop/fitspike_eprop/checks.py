"""What keeps e-prop from serving a model, its neurons or losses, found before anything is computed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch

from fitspike.plugin import DataInfo, HasUnits, InvalidInputError, Model, NeuronModel, ParamSpec, Stream, fill, leaves
from fitspike_eprop.local import check_own_spike

if TYPE_CHECKING:
    from fitspike_eprop.rule import EProp

_N_PROBED = 3


def problems_of(
    rule: EProp, model: Model, specs: Mapping[str, ParamSpec], losses: Mapping[str, tuple[Any, float]], data: DataInfo
) -> Iterator[str]:
    """Yield every reason against training this model with this rule."""
    if not isinstance(model, HasUnits):
        yield (
            "it has no units to drive: e-prop needs a network of neurons that reach one another through currents, with `neuron`, "
            "`emission_object` and `driven_by`. Use rule='bptt', or model='spiking-network'."
        )
        return
    n_hidden = getattr(model, "n_hidden", 0)
    needs_free = [name for name, (loss, _) in losses.items() if "rollout" in loss.needs]
    if n_hidden or needs_free:
        why = "hidden neurons" if n_hidden else f"loss {needs_free[0]!r}"
        if not hasattr(model.emission_object(), "slope"):
            yield (
                f"its emission {model.emission_object().name!r} has no pseudo-derivative (`slope`), which sampled spikes need for "
                f"{why}. Use emission='bernoulli', 'hazard', 'poisson' or 'threshold'."
            )
        try:
            check_own_spike(model.neuron, rule.own_spike)
        except InvalidInputError as error:
            yield str(error)
    if (wrong := neuron_problem(model.neuron, data.dt_ms)) is not None:
        yield wrong
    if rule.implementation == "online":
        yield from _online_problems(model, specs, losses, data, n_hidden)


def neuron_problem(neuron: NeuronModel, dt_ms: float) -> str | None:
    """Return why there are no local derivatives of a neuron model, or None: one step, with and without a change of neuron 0."""
    stream = Stream(0, "e-prop/probe")
    params = {name: torch.as_tensor(spec.initial(stream.child(name))) for name, spec in neuron.param_specs(_N_PROBED).items()}
    start = neuron.init_state(params, 2)
    for value in leaves(start):
        if not value.is_floating_point() or value.shape[1:2] != (_N_PROBED,):
            return (
                f"the state of neuron model {neuron.name!r} holds a tensor {tuple(value.shape)} of {value.dtype} for 2 trials and "
                f"{_N_PROBED} neurons; e-prop follows tensors (n_trials, n_neurons, ...) of floating-point numbers. Use rule='bptt'."
            )
    uniforms = torch.as_tensor(stream.uniforms(2, range(2), _N_PROBED))
    spikes = (uniforms[:, 1] < 0.5).to(uniforms.dtype)
    change = torch.tensor([1.0, 0.0, 0.0], dtype=uniforms.dtype)

    def after(by: torch.Tensor) -> list[torch.Tensor]:
        state = fill(start, iter([value + by.reshape(-1, *[1] * (value.ndim - 2)) for value in leaves(start)]))
        new, drive = neuron.step(params, state, uniforms[:, 0] + by, (spikes + by).clamp(max=1.0), dt_ms)
        return [*leaves(new), drive]

    plain, changed = after(0.0 * change), after(change)
    if not all(torch.equal(a[:, 1:], b[:, 1:]) for a, b in zip(plain, changed, strict=True)):
        return (
            f"a step of neuron model {neuron.name!r} lets one neuron act on another besides through currents, so that there is no "
            "eligibility of a synapse on its own. Use rule='bptt'."
        )
    return None


def _online_problems(
    model: Any, specs: Mapping[str, ParamSpec], losses: Mapping[str, tuple[Any, float]], data: DataInfo, n_hidden: int
) -> Iterator[str]:
    """Yield what implementation='online' cannot do."""
    instead = "Use implementation='adjoint'."
    for name, (loss, _) in losses.items():
        if not getattr(loss, "is_causal", "rollout" not in loss.needs):
            yield (
                f"implementation='online' needs causal losses, and {name!r} looks at whole runs: no bin's signal is known in time. "
                f"{instead}"
            )
    if n_hidden:
        yield f"implementation='online' serves recorded neurons only, and there are {n_hidden} hidden ones. {instead}"
    n_units = data.n_neurons + n_hidden
    for name, spec in specs.items():
        if spec.trainable and "/" not in name and (spec.axes[:1] not in (("neuron",), ("post",)) or spec.shape[0] != n_units):
            yield (
                f"implementation='online' keeps eligibility of parameters that belong to one neuron each, and {name!r} "
                f"{tuple(spec.shape)} is shared. {instead}"
            )
