"""Drives of a coupled GLM on chunks of spikes, as differentiable torch tensors, and its clamped, free and mixed runs."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from fitspike.errors import InvalidInputError
from fitspike.kernels.coupled_drive import DriveFilters, Regulation, coupled_drive, coupled_drive_adjoint
from fitspike.models.base import Rollout
from fitspike.models.bases import LagBasis
from fitspike.models.glm_covariates import chunk_covariates
from fitspike.models.glm_layout import Layout, check_finite, layout_from_shapes
from fitspike.models.glm_regulation import expected_counts, fading_sums, log_gain, make_regulation, regulated
from fitspike.neurons.base import Emission
from fitspike.neurons.emissions import get_emission
from fitspike.recording.chunk import SpikeChunk
from fitspike.types import Carry, Params

if TYPE_CHECKING:
    from fitspike.models.coupled_glm import CoupledGLM

_FADED = 1e-12  # where an exponential trace is read from the recording, spikes that count less than this are left out


def layout_of(model: CoupledGLM, params: Params, chunk: SpikeChunk) -> Layout:
    """Return the layout that given parameters have: their names and shapes say which terms there are.

    Raises
    ------
    InvalidInputError
        If the chunk's signals are not those the parameters belong to.
    """
    names = tuple(sorted(chunk.signal_values)) if model.signals == "all" else tuple(model.signals)
    if "signal" not in params:
        names = ()
    missing = [name for name in names if name not in chunk.signal_values]
    channels = tuple((name, int(chunk.signal_values[name].shape[2])) for name in names if name not in missing)
    expected = params["signal"].shape[1] if "signal" in params else 0
    if missing or sum(n for _, n in channels) != expected:
        raise InvalidInputError(
            f"the model was fitted to signals with {expected} channels; these data offer {dict(channels) or 'none'}"
            f"{' and lack ' + ', '.join(missing) if missing else ''}. Attach the same signals."
        )
    dt_ms = float(params["dt_ms"][0]) if "dt_ms" in params else chunk.dt_ms
    if abs(dt_ms - chunk.dt_ms) > 1e-9:
        raise InvalidInputError(f"the model was fitted to bins of {dt_ms:g} ms; these are {chunk.dt_ms:g} ms wide. Use bin({dt_ms:g}).")
    shapes = {name: tuple(int(n) for n in value.shape) for name, value in params.items()}
    return layout_from_shapes(model, shapes, dict(channels), chunk.dt_ms)


def drive(model: CoupledGLM, params: Params, chunk: SpikeChunk, carry: Carry) -> tuple[torch.Tensor, np.ndarray, Carry]:
    """Return the drive given the chunk's spikes (n_trials, n_bins, n_neurons) float64, the spikes, and the carry.

    Without a carry in the middle of a trial the spikes before the chunk are read from the recording, if it is known.
    """
    if chunk.is_first:
        carry = None
    value, spikes, after = _unregulated(model, params, chunk, carry)
    regulation = _regulation(model, params, chunk.dt_ms)
    if regulation is not None:
        sums = _sums_before(model, params, chunk, regulation) if carry is None else carry["sums"]
        value, after["sums"] = _regulate(value, spikes, regulation, sums, _emission(model))
    return value, spikes, after


def _unregulated(model: CoupledGLM, params: Params, chunk: SpikeChunk, carry: Carry) -> tuple[torch.Tensor, np.ndarray, dict]:
    """Return what terms and filters add up to, the spikes, and the carry but for the slow gain's part."""
    layout = layout_of(model, params, chunk)
    base, filters, decay = _base(layout, params, chunk), *_filters(layout, params)
    spikes = chunk.dense_numpy("float64")
    n_past = max([0, *(f.shape[axis] for f, axis in zip(filters, (1, 1, 0), strict=True) if f is not None)]) if decay is None else 0
    if carry is None:
        carry = _before(chunk, n_past, decay)
    state = torch.zeros(chunk.n_trials, 0, layout.n_neurons, dtype=torch.float64)
    if decay is not None:
        state = _state(filters, torch.as_tensor(carry["trace"]))
    value = _CoupledDrive.apply(base, *filters, state, decay, carry["past"], spikes)
    return value, spikes, _after(carry, spikes, n_past, decay)


def _emission_object(name: str) -> Emission:
    """Return the emission; expected counts given a recorded past do not saturate, and `coupled_drive` has limits of its own."""
    return get_emission(name, **({"highest_hz": math.inf} if name == "poisson" else {}))


def log_likelihood(model: CoupledGLM, params: Params, chunk: SpikeChunk, carry: Carry) -> tuple[torch.Tensor, Carry]:
    """Return the log-likelihood (n_trials, n_neurons) and the carry; see `CoupledGLM.log_likelihood`."""
    value, spikes, carry = drive(model, params, chunk, carry)
    log_prob = _emission_object(_emission(model)).log_prob(value, torch.as_tensor(spikes), chunk.dt_ms)
    return (log_prob * chunk.mask[:, :, None]).sum(1), carry


def intensity(model: CoupledGLM, params: Params, chunk: SpikeChunk, carry: Carry) -> tuple[torch.Tensor, Carry]:
    """Return expected counts (n_trials, n_bins, n_neurons) and the carry; see `CoupledGLM.intensity`."""
    value, _, carry = drive(model, params, chunk, carry)
    return _emission_object(_emission(model)).expected(value, chunk.dt_ms), carry


def rollout(
    model: CoupledGLM,
    params: Params,
    context: SpikeChunk,
    uniforms: torch.Tensor,
    observed: torch.Tensor | None,
    observed_mask: torch.Tensor | None,
    carry: Carry,
) -> Rollout:
    """Return a clamped, free or mixed run; see `CoupledGLM.rollout`."""
    with torch.no_grad():
        check_finite({name: value.detach().cpu().numpy() for name, value in params.items()})
        layout = layout_of(model, params, context)
        base, tensors, decay = _base(layout, params, context), *_filters(layout, params)
        filters = DriveFilters(*(None if f is None else f.numpy() for f in tensors), decay)
        n_filters = 0 if decay is None else len(decay)
        if carry is None:
            shape = (context.n_trials, filters.n_lags, layout.n_neurons)
            carry = {"past": np.zeros(shape), "state": np.zeros((context.n_trials, n_filters, layout.n_neurons)), "sums": None}
        if observed is not None and observed_mask is None:
            observed_mask = torch.ones(layout.n_neurons, dtype=torch.bool)
        emission_name = _emission(model)
        run = coupled_drive(
            base.numpy(),
            filters,
            past=carry["past"],
            state=carry["state"],
            spikes=None if observed is None else observed.detach().cpu().double().numpy(),
            clamped=np.zeros(layout.n_neurons, dtype=bool) if observed_mask is None else observed_mask.cpu().numpy(),
            uniforms=uniforms.detach().cpu().double().numpy(),
            emission=emission_name,
            regulation=_regulation(model, params, context.dt_ms),
            sums=carry["sums"],
        )
        value, spikes = torch.as_tensor(run.drive), torch.as_tensor(run.spikes)
        emission = _emission_object(emission_name)

        def log_prob() -> torch.Tensor:
            return (emission.log_prob(value, spikes, context.dt_ms) * context.mask[:, :, None]).sum(1)

        past = np.concatenate([carry["past"], run.spikes], axis=1)
        new_carry = {"past": past[:, past.shape[1] - filters.n_lags :], "state": run.state, "sums": run.sums}
        return Rollout(spikes, log_prob, {"drive": value, "expected": emission.expected(value, context.dt_ms)}, new_carry)


def _emission(model: CoupledGLM) -> str:
    return "poisson" if model.emission == "auto" else model.emission


def _base(layout: Layout, params: Params, chunk: SpikeChunk) -> torch.Tensor:
    """Return the drive without spikes, (n_trials, n_bins, n_neurons) float64."""
    bias = params["bias"].double()
    covariates = chunk_covariates(layout, {name: params[name].detach().double().numpy() for name in layout.fixed_names}, chunk)
    base = bias.expand(chunk.n_trials, chunk.n_bins, -1)
    if covariates.shape[2]:
        names = [name for name in ("signal", "trial_time", "condition_time", "drift") if name in layout.terms]
        weight = torch.cat([params[name].double().reshape(layout.n_neurons, -1) for name in names], dim=1)
        base = base + torch.as_tensor(covariates) @ weight.T
    return base


def _filters(layout: Layout, params: Params) -> tuple[tuple[torch.Tensor | None, ...], np.ndarray | None]:
    """Return own, pair and shared as differentiable tensors (see `DriveFilters`), and the decay."""
    own, pair, shared, decay = None, None, None, None

    def values(basis: LagBasis, n_lags: int) -> torch.Tensor:
        return torch.as_tensor(np.diag(1.0 - basis.decay) if basis.decay is not None else basis.at_lags(n_lags))

    bases = [basis for basis in (layout.history, layout.population) if basis is not None]
    if layout.population is not None:
        decay = layout.population.decay
        weight = params["population"].double() / params["population_scale"].double()
        shared = (weight @ values(layout.population, layout.population.n_lags)).T
        own = -weight @ values(layout.population, max(b.n_lags for b in bases))
    if layout.history is not None:
        decay = layout.history.decay
        added = params["history"].double() @ values(layout.history, max(b.n_lags for b in bases))
        own = added if own is None else own + added
    if layout.coupling is not None:
        decay = layout.coupling.decay
        weight = params["coupling"].double() * (1.0 - torch.eye(layout.n_neurons, dtype=torch.float64))[:, :, None]
        pair = (weight @ values(layout.coupling, layout.coupling.n_lags)).permute(1, 2, 0)
    return (own, pair, shared), decay


def _state(filters: tuple[torch.Tensor | None, ...], trace: torch.Tensor) -> torch.Tensor:
    """Return what exponential filters hold after the spikes summed up in `trace` (n_trials, n_neurons, n_filters)."""
    own, pair, shared = filters
    state = torch.zeros(len(trace), trace.shape[2], trace.shape[1], dtype=torch.float64)
    if pair is not None:
        state = state + torch.einsum("kjf,jfi->kfi", trace, pair)
    if own is not None:
        state = state + torch.einsum("kif,if->kfi", trace, own)
    if shared is not None:
        state = state + trace.sum(1)[:, :, None] * shared
    return state


def _before(chunk: SpikeChunk, n_past: int, decay: np.ndarray | None) -> dict[str, np.ndarray]:
    """Return the carry at the chunk's first bin: from the recording, or empty at the start of a trial."""
    n_filters = 0 if decay is None else len(decay)
    carry = {
        "past": np.zeros((chunk.n_trials, n_past, chunk.n_neurons)),
        "trace": np.zeros((chunk.n_trials, chunk.n_neurons, n_filters)),
    }
    if chunk.is_first or chunk.first_bin == 0:
        return carry
    if chunk.source is None:
        raise InvalidInputError(
            f"a chunk that starts at bin {chunk.first_bin} of its trial came without carry. Hand on the carry of the chunk before."
        )
    reach = n_past if decay is None else int(np.ceil(np.log(_FADED) / np.log(decay.max())))
    reach = min(reach, chunk.first_bin)
    earlier = chunk.source.chunk(chunk.trial, chunk.first_bin - reach, reach).dense_numpy("float64")
    return _after(carry, earlier, n_past, decay)


def _after(carry: dict[str, np.ndarray], spikes: np.ndarray, n_past: int, decay: np.ndarray | None) -> dict[str, np.ndarray]:
    """Return the carry after further spikes (n_trials, n_bins, n_neurons)."""
    past = np.concatenate([carry["past"], spikes[:, max(0, spikes.shape[1] - n_past) :]], axis=1)
    trace = carry["trace"]
    if decay is not None:
        fade = decay[:, None] ** np.arange(spikes.shape[1])[::-1]
        trace = trace * decay ** spikes.shape[1] + np.einsum("ktn,ft->knf", spikes, fade)
    return {"past": past[:, past.shape[1] - n_past :], "trace": trace}


def _sums_before(model: CoupledGLM, params: Params, chunk: SpikeChunk, regulation: Regulation) -> np.ndarray:
    """Return the slow gain's fading sums at the chunk's first bin (n_trials, 2, n_neurons): from the recording, or 0 at a start."""
    nothing = np.zeros((chunk.n_trials, 2, chunk.n_neurons))
    if chunk.is_first or chunk.first_bin == 0 or not regulation.fade or chunk.source is None:
        return nothing
    reach = min(int(np.ceil(np.log(_FADED) / np.log(regulation.fade))), chunk.first_bin)
    earlier = chunk.source.chunk(chunk.trial, chunk.first_bin - reach, reach)
    with torch.no_grad():
        value, spikes, _ = _unregulated(model, params, earlier, None)
        return _regulate(value, spikes, regulation, nothing, _emission(model))[1]


def _regulation(model: CoupledGLM, params: Params, dt_ms: float) -> Regulation | None:
    """Return what a fitted model does to its drives, or None if nothing. A gain left open is none."""
    ceiling = params["drive_ceiling"].detach().cpu().double().numpy() if "drive_ceiling" in params else None
    closed = model if model.gain_s != "auto" else replace(model, gain_s=0.0)
    return make_regulation(closed, ceiling, int(params["bias"].shape[0]), dt_ms)


def _regulate(
    drive: torch.Tensor, spikes: np.ndarray, regulation: Regulation, sums: np.ndarray, emission: str
) -> tuple[torch.Tensor, np.ndarray]:
    """Return the regulated drive and the fading sums after the last bin; see `Regulation` for the equation.

    Parameters
    ----------
    drive : Tensor, (n_trials, n_bins, n_neurons) float64
        Its gradient is exact but for what the sums at the first bin owe to it.
    spikes : ndarray, (n_trials, n_bins, n_neurons)
    sums : ndarray, (n_trials, 2, n_neurons)
        Fading sums of counts and of expected counts at the first bin.
    """
    value = _Regulated.apply(drive, spikes, regulation, sums, emission)
    low = np.minimum(drive.detach().numpy(), regulation.ceiling)
    after = np.stack(
        [fading_sums(x, sums[:, i], regulation.fade)[1] for i, x in enumerate((spikes, expected_counts(low, emission)))], axis=1
    )
    return value, after


class _CoupledDrive(torch.autograd.Function):
    """`coupled_drive` with given spikes; the backward pass is `coupled_drive_adjoint`."""

    @staticmethod
    def forward(ctx, base, own, pair, shared, state, decay, past, spikes):
        arrays = [None if f is None else f.detach().numpy() for f in (own, pair, shared)]
        ctx.filters, ctx.past, ctx.spikes = DriveFilters(*arrays, decay), past, spikes
        run = coupled_drive(base.detach().numpy(), ctx.filters, past=past, state=state.detach().numpy(), spikes=spikes)
        return torch.as_tensor(run.drive)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        filters, d_state = coupled_drive_adjoint(gradient.numpy(), ctx.filters, past=ctx.past, spikes=ctx.spikes)
        parts = [None if f is None else torch.as_tensor(f) for f in (filters.own, filters.pair, filters.shared)]
        return gradient, *parts, torch.as_tensor(d_state), None, None, None


class _Regulated(torch.autograd.Function):
    """`regulated` of the drive cut at the ceiling, differentiable in the drive."""

    @staticmethod
    def forward(ctx, drive, spikes, regulation, sums, emission):
        ctx.drive, ctx.rest = drive.detach().numpy(), (spikes, regulation, sums, emission)
        return torch.as_tensor(regulated(np.minimum(ctx.drive, regulation.ceiling), *ctx.rest))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        spikes, regulation, sums, emission = ctx.rest
        low = np.minimum(ctx.drive, regulation.ceiling)
        total = gradient.numpy().copy()
        if regulation.fade:
            _, is_within, expected = log_gain(low, spikes, regulation, sums, emission)
            by_sum = np.where(is_within, -gradient.numpy() / (regulation.prior + expected), 0.0)
            # E(t) holds fade^(t - s) of what was expected at s < t, so the derivative runs the same recursion backwards.
            back, _ = fading_sums(by_sum[:, ::-1], np.zeros_like(by_sum[:, 0]), regulation.fade)
            mean = expected_counts(low, emission)
            total += back[:, ::-1] * (mean if emission == "poisson" else mean * (1.0 - mean))
        return torch.as_tensor(np.where(ctx.drive <= regulation.ceiling, total, 0.0)), None, None, None, None
