"""What a spiking network consists of for given data: units, bases of lag, allowed connections, signs, and its parameters' specs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from fitspike.errors import InvalidInputError, PluginError, did_you_mean
from fitspike.models.bases import LagBasis, lag_basis
from fitspike.models.glm_layout import dale_signs
from fitspike.models.network_inputs import input_specs
from fitspike.neurons.emissions import spikes_by_drive_alone
from fitspike.params import ParamSpec, sign
from fitspike.rng import Stream

if TYPE_CHECKING:
    from fitspike.models.base import DataInfo
    from fitspike.models.spiking_network import SpikingNetwork

HIDDEN = "hidden"
"""Population label of the hidden neurons."""

_PILLOW = "Pillow et al. 2008, Nature 454:995"


def coupling_basis(model: SpikingNetwork, dt_ms: float) -> LagBasis | None:
    """Return the basis of the coupling filters, or None without coupling."""
    return lag_basis(model.basis, model.n_coupling, model.coupling_ms, dt_ms) if model.coupling_ms > 0 else None


def delay_bins(model: SpikingNetwork, dt_ms: float) -> int:
    """Return after how many bins a spike reaches its targets, at least 1."""
    return max(1, round((model.delay_ms or 0.0) / dt_ms))


def network_specs(model: SpikingNetwork, data: DataInfo) -> dict[str, ParamSpec]:
    """Return the specs of the neurons' parameters, then the network's own: inputs from outside and coupling."""
    specs = _neuron_specs(model, data)
    unit = getattr(model.neuron, "current_unit", "1")
    own = input_specs(model, data, unit)
    if "background" in own and (expected := _counts_to_start_at(model, data)) is not None:
        own["background"] = replace(own["background"], init=_background(model, expected, data.dt_ms))
    basis = coupling_basis(model, data.dt_ms)
    if basis is not None:
        own |= _coupling_specs(model, data, basis.n_basis, unit)
    if clash := sorted(set(own) & set(specs)):
        raise PluginError(
            f"neuron model {model.neuron.name!r} has parameters called {', '.join(clash)}, which spiking-network uses itself. Rename them."
        )
    return specs | own


def _neuron_specs(model: SpikingNetwork, data: DataInfo) -> dict[str, ParamSpec]:
    """Return the neuron model's specs, started at the data's spike counts where the neuron model says how."""
    specs = dict(model.neuron.param_specs(data.n_neurons + model.n_hidden))
    if hasattr(model.neuron, "params_for_count") and (expected := _counts_to_start_at(model, data)) is not None:
        import torch

        for name, value in model.neuron.params_for_count(torch.as_tensor(expected), model.emission_object(), data.dt_ms).items():
            specs[name] = replace(specs[name], init=np.asarray(value))
    return specs


def _counts_to_start_at(model: SpikingNetwork, data: DataInfo) -> np.ndarray | None:
    """Return mean counts per bin of all units, hidden ones at the recorded ones' mean; None where there is nothing to start at."""
    if data.mean_count is None or spikes_by_drive_alone(model):
        return None
    # A silent neuron starts as if it had fired half a spike.
    floor = 0.5 / max(1, int(np.sum(data.bins_per_trial)))
    visible = np.maximum(np.nan_to_num(data.mean_count), floor)
    return np.concatenate([visible, np.full(model.n_hidden, visible.mean() if visible.size else floor)])


def _background(model: SpikingNetwork, expected: np.ndarray, dt_ms: float) -> Callable[[Stream], np.ndarray]:
    """Return what finds the background at which the neurons have these mean counts."""

    def initial(stream: Stream) -> np.ndarray:
        from fitspike.models.network_start import background_for_counts

        return background_for_counts(model.neuron, expected, model.emission_object(), dt_ms, stream)

    return initial


def _coupling_specs(model: SpikingNetwork, data: DataInfo, n_basis: int, unit: str) -> dict[str, ParamSpec]:
    n_units = data.n_neurons + model.n_hidden
    allowed = allowed_connections(model, data)
    signs = unit_signs(model, data)
    scale = model.coupling_init / np.sqrt(max(1, n_units * n_basis))

    def initial(stream: Stream) -> np.ndarray:
        weight = scale * stream.numpy().standard_normal((n_units, n_units, n_basis))
        if signs is not None:
            column = signs[None, :, None]
            weight = np.where(column == 0, weight, column * np.abs(weight))
        return weight * (allowed[:, :, None] if signs is None else 1.0)

    return {
        "coupling": ParamSpec(
            (n_units, n_units, n_basis),
            unit,
            init=initial,
            **({"constraint": sign(signs[None, :, None])} if signs is not None else {}),
            axes=("post", "pre", "basis"),
            symbol="W",
            source=_PILLOW,
            doc="current summed over the time after one presynaptic spike, per basis function",
        ),
        "coupling_mask": ParamSpec(
            (n_units, n_units),
            "1",
            init=allowed.astype(np.float64),
            trainable=False,
            axes=("post", "pre"),
            doc="1 where a connection is allowed, 0 where there is none; multiplies coupling",
        ),
    }


def unit_labels(model: SpikingNetwork, data: DataInfo) -> tuple[str, ...]:
    """Return the population label of every unit, "hidden" for the hidden ones."""
    visible = tuple(data.populations) or ("",) * data.n_neurons
    return visible + (HIDDEN,) * model.n_hidden


def unit_signs(model: SpikingNetwork, data: DataInfo) -> np.ndarray | None:
    """Return +1, -1 or 0 (free) per presynaptic unit, or None without Dale's law."""
    visible = dale_signs(model.dale, data.populations, data.n_neurons)
    if visible is None:
        if any(model.hidden_signs):
            visible = np.zeros(data.n_neurons, dtype=int)
        else:
            return None
    hidden = np.asarray(model.hidden_signs or (0,) * model.n_hidden, dtype=int)
    return np.concatenate([visible, hidden])


def allowed_connections(model: SpikingNetwork, data: DataInfo) -> np.ndarray:
    """Return which connections there may be, (n_post, n_pre) bool, from `connect` and `self_coupling`."""
    labels = np.array(unit_labels(model, data), dtype=object)
    known = sorted(set(labels.tolist()))
    allowed = np.zeros((len(labels), len(labels)), dtype=bool)
    for rule in model.connect:
        parts = [part.strip() for part in rule.split("->")]
        if len(parts) != 2:
            raise InvalidInputError(f"connect has the rule {rule!r}; expected 'PRE->POST' with population labels or *.")
        for label in parts:
            if label != "*" and label not in known:
                raise InvalidInputError(
                    f"connect rule {rule!r} names {label!r}{did_you_mean(label, known)} Populations: {', '.join(map(repr, known))}, or *."
                )
        is_pre, is_post = (np.full(len(labels), label == "*") | (labels == label) for label in parts)
        allowed |= is_post[:, None] & is_pre[None, :]
    if not model.self_coupling:
        np.fill_diagonal(allowed, False)
    return allowed
