"""What a spiking network consists of for given data: units, bases of lag, allowed connections, signs, and its parameters' specs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from fitspike.errors import InvalidInputError, PluginError, did_you_mean
from fitspike.models.bases import LagBasis, lag_basis
from fitspike.models.glm_layout import dale_signs
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


def signal_basis(model: SpikingNetwork, dt_ms: float) -> np.ndarray:
    """Return the signal filters' basis at lags 0, 1, ... bins, (n_signal, n_lags); the bin itself alone without a window."""
    if model.signal_before_ms == 0:
        return np.ones((1, 1))
    return lag_basis("raised-cosine", model.n_signal, model.signal_before_ms + dt_ms, dt_ms).values


def delay_bins(model: SpikingNetwork, dt_ms: float) -> int:
    """Return after how many bins a spike reaches its targets, at least 1."""
    return max(1, round((model.delay_ms or 0.0) / dt_ms))


def signal_names(model: SpikingNetwork, known: Mapping[str, object]) -> tuple[str, ...]:
    """Return the names of the signals the network receives, in the order of its parameters."""
    names = tuple(sorted(known)) if model.signals == "all" else tuple(model.signals)
    for name in names:
        if name not in known:
            raise InvalidInputError(
                f"signals names {name!r}{did_you_mean(name, known)} The recording has: {', '.join(known) or 'none'}. "
                "Attach it, or leave it out of `signals`."
            )
    return names


def network_specs(model: SpikingNetwork, data: DataInfo) -> dict[str, ParamSpec]:
    """Return the specs of the neurons' parameters, then the network's own: background, signal, coupling and their fixed companions."""
    n_units = data.n_neurons + model.n_hidden
    specs = _neuron_specs(model, data)
    unit = getattr(model.neuron, "current_unit", "1")
    own: dict[str, ParamSpec] = {}
    if not hasattr(model.neuron, "params_for_count"):
        own["background"] = ParamSpec((n_units,), unit, axes=("neuron",), symbol="I_0", doc="constant input current")
    names = signal_names(model, data.signals)
    n_channels = sum(int(data.signals[name]) for name in names)
    if n_channels:
        shape = (n_units, n_channels, len(signal_basis(model, data.dt_ms)))
        own["signal"] = ParamSpec(
            shape, unit, axes=("post", "channel", "basis"), symbol="k", doc="weight of a filtered, standardised signal"
        )
        for name, value, doc in (("signal_offset", 0.0, "taken off each channel"), ("signal_scale", 1.0, "each channel is divided by it")):
            own[name] = ParamSpec((n_channels,), "1", init=value, trainable=False, axes=("channel",), doc=doc)
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
    n_units = data.n_neurons + model.n_hidden
    specs = dict(model.neuron.param_specs(n_units))
    if data.mean_count is None or not hasattr(model.neuron, "params_for_count"):
        return specs
    import torch

    # A silent neuron starts as if it had fired half a spike.
    floor = 0.5 / max(1, int(np.sum(data.bins_per_trial)))
    visible = np.maximum(np.nan_to_num(data.mean_count), floor)
    expected = np.concatenate([visible, np.full(model.n_hidden, visible.mean() if visible.size else floor)])
    for name, value in model.neuron.params_for_count(torch.as_tensor(expected), model.emission_object(), data.dt_ms).items():
        specs[name] = replace(specs[name], init=np.asarray(value))
    return specs


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
