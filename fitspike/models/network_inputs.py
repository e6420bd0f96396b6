"""What drives a spiking network from outside: background, filtered signals, bumps over trial time, an encoder, latents of a trial."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch

from fitspike.errors import InvalidInputError, did_you_mean
from fitspike.models.bases import lag_basis, raised_cosine_linear
from fitspike.models.encoders import PREFIX
from fitspike.params import ParamSpec
from fitspike.rng import Stream
from fitspike.types import Params

if TYPE_CHECKING:
    from fitspike.models.base import DataInfo
    from fitspike.models.spiking_network import SpikingNetwork
    from fitspike.recording.binned import BinnedSpikes, SpikeChunk


def signal_basis(model: SpikingNetwork, dt_ms: float) -> np.ndarray:
    """Return the signal filters' basis at lags 0, 1, ... bins, (n_signal, n_lags); the bin itself alone without a window."""
    if model.signal_before_ms == 0:
        return np.ones((1, 1))
    return lag_basis("raised-cosine", model.n_signal, model.signal_before_ms + dt_ms, dt_ms).values


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


def input_specs(model: SpikingNetwork, data: DataInfo, unit: str) -> dict[str, ParamSpec]:
    """Return the specs of all inputs from outside."""
    n_units = data.n_neurons + model.n_hidden
    own: dict[str, ParamSpec] = {}
    if not hasattr(model.neuron, "params_for_count"):
        own["background"] = ParamSpec((n_units,), unit, axes=("neuron",), symbol="I_0", doc="constant input current")
    names = signal_names(model, data.signals)
    n_channels = sum(int(data.signals[name]) for name in names)
    if model.encoder is not None:
        own |= _encoder_specs(model, n_channels, n_units, unit)
    elif n_channels:
        shape = (n_units, n_channels, len(signal_basis(model, data.dt_ms)))
        own["signal"] = ParamSpec(
            shape, unit, axes=("post", "channel", "basis"), symbol="k", doc="weight of a filtered, standardised signal"
        )
    if n_channels:
        for name, value, doc in (("signal_offset", 0.0, "taken off each channel"), ("signal_scale", 1.0, "each channel is divided by it")):
            own[name] = ParamSpec((n_channels,), "1", init=value, trainable=False, axes=("channel",), doc=doc)
    if model.trial_latents:
        own |= _latent_specs(model, n_units, unit)
    if model.time_bumps:
        shape = (n_units, max(1, data.n_conditions), model.time_bumps)
        own["evoked"] = ParamSpec(
            shape, unit, axes=("post", "condition", "basis"), symbol="e", doc="weight of a bump over trial time, in each condition"
        )
        longest_ms = float(np.max(data.bins_per_trial, initial=1)) * data.dt_ms
        own["trial_ms"] = ParamSpec((1,), "ms", init=longest_ms, trainable=False, doc="trial time over which the bumps are spread")
    return own


def _encoder_specs(model: SpikingNetwork, n_channels: int, n_units: int, unit: str) -> dict[str, ParamSpec]:
    if not n_channels:
        raise InvalidInputError(
            f"the {model.encoder.name!r} encoder has no signal to encode. Attach the stimulus (`--attach-signals`), or leave encoder out."
        )
    n_features = model.encoder.n_features(n_channels)
    scale = 1.0 / np.sqrt(n_features)

    def initial(stream: Stream) -> np.ndarray:
        return scale * stream.numpy().standard_normal((n_units, n_features))

    own = {PREFIX + name: spec for name, spec in model.encoder.param_specs(n_channels).items()}
    own["feature"] = ParamSpec(
        (n_units, n_features), unit, init=initial, axes=("post", "feature"), symbol="k", doc="weight of an encoder's feature"
    )
    return own


def _latent_specs(model: SpikingNetwork, n_units: int, unit: str) -> dict[str, ParamSpec]:
    """Return the specs of the network that turns a trial's latents into currents; its features have unit variance before rectification."""
    n_features, n_latents = model.latent_features, model.trial_latents

    def normal(shape: tuple[int, ...], size: float) -> Callable[[Stream], np.ndarray]:
        return lambda stream: size * stream.numpy().standard_normal(shape)

    return {
        "latent_in": ParamSpec(
            (n_features, n_latents),
            "1",
            init=normal((n_features, n_latents), np.sqrt(12.0 / n_latents)),
            axes=("feature", "latent"),
            doc="weight of a trial's latent, uniform between -1/2 and 1/2, in a feature",
        ),
        "latent_bias": ParamSpec(
            (n_features,), "1", init=normal((n_features,), 0.5), axes=("feature",), doc="added before a feature is rectified"
        ),
        "latent_out": ParamSpec(
            (n_units, n_features),
            unit,
            init=normal((n_units, n_features), 0.3 / np.sqrt(n_features)),
            axes=("post", "feature"),
            doc="current per rectified feature of a trial's latents",
        ),
    }


def trial_current(params: Params, latents: torch.Tensor) -> torch.Tensor:
    """Return the current that is constant in a trial, latent_out relu(latent_in xi + latent_bias), (n_trials, n_units).

    latents : xi, (n_trials, n_latents)
    """
    return torch.relu(latents @ params["latent_in"].T + params["latent_bias"]) @ params["latent_out"].T


def signal_scales(model: SpikingNetwork, binned: BinnedSpikes) -> dict[str, np.ndarray]:
    """Return mean and standard deviation of each signal channel over the scored bins, to standardise the signals by."""
    names = signal_names(model, binned.source_signals)
    if not names:
        return {}
    values = np.concatenate([binned.signals[name][binned.scored] for name in names], axis=1).astype(np.float64)
    scale = values.std(axis=0)
    return {"signal_offset": values.mean(axis=0), "signal_scale": np.where(scale > 0, scale, 1.0)}


def external_current(
    model: SpikingNetwork, params: Params, chunk: SpikeChunk, past: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return the current from outside, (n_trials, n_bins, n_units), and the signals' last bins for the next chunk.

    past : (n_trials, n_past, n_channels), what the chunk before returned; None where there was none, which counts as zeros.
    """
    like = next(iter(params.values()))
    n_units = chunk.n_neurons + model.n_hidden
    current = params["background"] if "background" in params else like.new_zeros(n_units)
    current = current.expand(chunk.n_trials, chunk.n_bins, n_units)
    if "evoked" in params:
        current = current + _evoked(params, chunk)
    if "signal_scale" not in params:
        return current, None
    values = torch.cat([chunk.signals[name] for name in signal_names(model, chunk.signal_values)], dim=-1).to(like.dtype).to(like.device)
    values = (values - params["signal_offset"]) / params["signal_scale"]  # (n_trials, n_bins, n_channels)
    basis = torch.as_tensor(signal_basis(model, chunk.dt_ms), dtype=like.dtype, device=like.device)  # (n_basis, n_lags)
    n_past = basis.shape[1] - 1 if model.encoder is None else model.encoder.n_past_bins
    past = values.new_zeros(chunk.n_trials, n_past, values.shape[-1]) if past is None else past
    known = torch.cat([past, values], dim=1)
    # Repeats of one stimulus are filtered once.
    distinct, row_of = _distinct_rows(known)
    if model.encoder is not None:
        own = {name.removeprefix(PREFIX): value for name, value in params.items() if name.startswith(PREFIX)}
        driven = model.encoder.features(own, distinct) @ params["feature"].T
    else:
        windows = distinct.unfold(1, basis.shape[1], 1).flip(-1)  # (n_stimuli, n_bins, n_channels, n_lags), lag 0 first
        driven = (windows @ basis.T).flatten(-2) @ params["signal"].flatten(1).T
    return current + (driven if row_of is None else driven[row_of]), known[:, known.shape[1] - n_past :]


def _distinct_rows(known: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return the different rows of (n_trials, n_bins, n_channels), and for each trial which it is; None where every row is its own."""
    if len(known) < 2:
        return known, None
    if bool((known == known[:1]).all()):
        return known[:1], torch.zeros(len(known), dtype=torch.int64, device=known.device)
    kept: list[int] = []
    row_of = []
    for k in range(len(known)):
        same = [at for at, j in enumerate(kept) if torch.equal(known[j], known[k])]
        if not same:
            kept.append(k)
        row_of.append(same[0] if same else len(kept) - 1)
    if len(kept) == len(known):
        return known, None
    return known[kept], torch.tensor(row_of, device=known.device)


def _evoked(params: Params, chunk: SpikeChunk) -> torch.Tensor:
    """Return the current from bumps over trial time, (n_trials, n_bins, n_units); none in a condition that was not fitted."""
    weight = params["evoked"]  # (n_units, n_conditions, n_bumps)
    n_bumps = weight.shape[2]
    trial_ms = float(params["trial_ms"])
    # The same for all trials that start at one bin of their original trial, which is nearly always the case.
    currents = []
    condition = np.asarray(chunk.condition)
    is_known = (condition >= 0) & (condition < weight.shape[1])
    if weight.shape[1] == 1 and not (condition >= 0).any():  # trials without conditions
        is_known = np.ones(chunk.n_trials, dtype=bool)
    which = np.where(is_known, condition, 0).clip(0)
    for start in np.unique(chunk.trial_bin):
        position = (start + np.arange(chunk.n_bins) + 0.5) * chunk.dt_ms / trial_ms
        currents.append(torch.as_tensor(raised_cosine_linear(n_bumps, position).T, dtype=weight.dtype, device=weight.device))
    bumps = torch.stack(currents)[torch.as_tensor(np.searchsorted(np.unique(chunk.trial_bin), chunk.trial_bin))]
    per_condition = weight.permute(1, 2, 0)[torch.as_tensor(which)]  # (n_trials, n_bumps, n_units)
    known = torch.as_tensor(np.asarray(is_known, dtype=np.float64), dtype=weight.dtype, device=weight.device)
    return torch.bmm(bumps.to(weight.device), per_condition) * known[:, None, None]
