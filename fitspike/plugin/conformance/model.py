"""The checks of a model: likelihood and free runs, in chunks and in one piece, and the capabilities it offers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from fitspike.errors import InvalidInputError
from fitspike.models.base import HasConnectivity, HasIntensity, HasLatents, HasSolver, HasUnits, Model, Rollout, SolverContext, n_uniforms
from fitspike.neurons.emissions import get_emission
from fitspike.params import ParamSpec, constrain, initial_params, to_raw, to_tensors
from fitspike.plugin.conformance.report import Mismatch, NotChecked, Outcome, Report, expect, instance_of
from fitspike.plugin.conformance.toys import DT_MS, SEED, TRIAL_BINS, perturbed, toy_binned
from fitspike.plugin.kinds import KINDS
from fitspike.recording.binned import BinnedSpikes, SpikeChunk
from fitspike.recording.recording import Recording
from fitspike.rng import Stream
from fitspike.rollout import Driven, rollout
from fitspike.types import Params

_N = 3
_BINS = max(TRIAL_BINS)
_TRIALS = len(TRIAL_BINS)
_STATUSES = ("CONVERGED", "STEP_LIMIT", "TIME_LIMIT", "PLATEAU", "DIVERGED", "INTERRUPTED")
_SOLVER_STEPS = 30


def check_model(model: Any) -> Outcome:
    """Check a model, given as a class or an object, on a small made-up recording, and return what passed.

    Raises
    ------
    ConformanceError
        With every failed check.
    """
    report = Report(f"model {getattr(model, 'name', model)!r}")
    model = instance_of(report, model, KINDS["models"])
    if model is None:
        return report.outcome()
    data = toy_binned(_N)
    specs = report.check("parameter specs", _check_specs, model, data, needs=("members",))
    needs = ("members", "parameter specs")
    report.check("emissions", _check_emissions, model, needs=("members",))
    if specs is None:
        return report.outcome()
    params = _moved(specs)
    report.check("likelihood", _check_likelihood, model, params, data, needs=needs)
    needs = (*needs, "likelihood")
    report.check("likelihood in chunks", _check_chunks, model, params, data, needs=needs)
    report.check("likelihood of a mask", _check_mask, model, params, data, needs=needs)
    report.check("no dependence between trials", _check_trials, model, params, data, needs=needs)
    report.check("gradient of the likelihood", _check_gradient, model, specs, data, needs=needs)
    report.check("free run", _check_free, model, params, data, needs=needs[:2])
    report.check("free run in chunks", _check_free_chunks, model, params, data, needs=("free run",))
    report.check("replay of a free run", _check_replay, model, params, data, needs=("free run",))
    report.check("likelihood of a free run", _check_free_likelihood, model, params, data, needs=("free run", "likelihood"))
    if isinstance(model, HasIntensity):
        report.check("intensity", _check_intensity, model, params, data, needs=("likelihood",))
    if isinstance(model, HasConnectivity):
        report.check("connectivity", _check_connectivity, model, params, data, needs=("likelihood",))
    if isinstance(model, HasUnits):
        report.check("units driven by somebody else", _check_units, model, params, data, needs=("likelihood",))
    if isinstance(model, HasSolver):
        report.check("solver", _check_solver, model, specs, data, needs=("likelihood",))
    return report.outcome()


# -- what the checks run on ---------------------------------------------------------------------------------------------------------


def _moved(specs: Mapping[str, ParamSpec]) -> dict[str, torch.Tensor]:
    raw = to_raw(specs, initial_params(specs, Stream(SEED, "conformance/init")), dtype=torch.float64)
    return {name: value.detach() for name, value in constrain(specs, perturbed(raw)).items()}


def _stream() -> Stream:
    return Stream(SEED, "conformance/model")


def _whole(data: BinnedSpikes) -> SpikeChunk:
    return data.chunk(range(data.n_trials), 0, int(data.bins_per_trial.max()))


def _likelihood(model: Model, params: Params, chunk: SpikeChunk, carry: Any = None) -> tuple[torch.Tensor, Any]:
    return model.log_likelihood(params, chunk, carry, _stream())


def _uniforms(model: Model, n_bins: int = _BINS) -> torch.Tensor:
    return torch.as_tensor(_stream().child("free").uniforms(_TRIALS, range(n_bins), n_uniforms(model, _N)))


def _free(model: Model, params: Params, data: BinnedSpikes) -> Rollout:
    return model.rollout(params, _whole(data), uniforms=_uniforms(model))


def _needs_exact_likelihood(model: Model, data: BinnedSpikes) -> None:
    """Raise NotChecked where the log-likelihood depends on the random stream, that is, where it is a sampled estimate."""
    params = _moved(model.param_specs(data.info()))
    values = [model.log_likelihood(params, _whole(data), None, Stream(SEED, name))[0] for name in ("one", "other")]
    if isinstance(model, HasLatents) or not torch.equal(*values):
        raise NotChecked("the log-likelihood is a sampled estimate")


def _relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Return the largest difference relative to the largest expected value."""
    return float((found - expected).abs().max() / expected.abs().max().clamp_min(1e-300))


# -- the checks ---------------------------------------------------------------------------------------------------------------------


def _check_specs(model: Model, data: BinnedSpikes) -> Mapping[str, ParamSpec]:
    specs = model.param_specs(data.info())
    expect(isinstance(specs, Mapping) and bool(specs), "param_specs returns no parameters; expected a mapping of ParamSpec.")
    for name, spec in specs.items():
        expect(isinstance(spec, ParamSpec), f"parameter {name!r} is {type(spec).__name__}; expected ParamSpec.")
        expect(name.isidentifier(), f"parameter name {name!r} is no identifier.")
    initial_params(specs, Stream(SEED, "conformance/init"))
    return specs


def _check_emissions(model: Model) -> None:
    expect(isinstance(model.emissions, tuple) and bool(model.emissions), f"emissions is {model.emissions!r}; expected a tuple of names.")
    for name in model.emissions:
        get_emission(name)


def _check_likelihood(model: Model, params: Params, data: BinnedSpikes) -> None:
    values, _ = _likelihood(model, params, _whole(data))
    expect(
        isinstance(values, torch.Tensor) and values.shape == (_TRIALS, _N),
        f"log_likelihood has shape {tuple(getattr(values, 'shape', ()))}; expected (n_trials, n_neurons) = {(_TRIALS, _N)}.",
    )
    expect(values.dtype == torch.float64, f"log_likelihood is {values.dtype}; sum log-likelihoods in float64.")
    expect(bool(torch.isfinite(values).all()), f"log_likelihood is not finite: {values.tolist()}.")
    again, _ = _likelihood(model, params, _whole(data))
    expect(torch.equal(values, again), "log_likelihood differs between two equal calls. Draw numbers from the stream it is given only.")


def _check_chunks(model: Model, params: Params, data: BinnedSpikes) -> None:
    whole, _ = _likelihood(model, params, _whole(data))
    for n_bins in (5, 50):
        total, carry = torch.zeros_like(whole), None
        for chunk in data.chunks(n_bins, batch_trials=_TRIALS, carry=True):
            values, carry = _likelihood(model, params, chunk, carry)
            total = total + values
        worst = _relative(total, whole)
        expect(worst <= 1e-9, f"summed over chunks of {n_bins} bins the log-likelihood differs by {worst:.1e} relative; expected 1e-9.")


def _check_mask(model: Model, params: Params, data: BinnedSpikes) -> None:
    chunk = _whole(data)
    first = chunk.mask_numpy & (np.arange(chunk.n_bins) < chunk.n_bins // 2)
    parts = [_likelihood(model, params, replace(chunk, mask_numpy=mask))[0] for mask in (first, chunk.mask_numpy & ~first)]
    worst = _relative(parts[0] + parts[1], _likelihood(model, params, chunk)[0])
    expect(
        worst <= 1e-9,
        "the log-likelihoods of the first and second half of the bins do not add up to that of all. Bins outside chunk.mask must count "
        "nothing, but their spikes are still the past of later bins.",
    )


def _check_trials(model: Model, params: Params, data: BinnedSpikes) -> None:
    together, _ = _likelihood(model, params, _whole(data))
    for k in range(_TRIALS):
        alone, _ = _likelihood(model, params, data.chunk([k], 0, int(data.bins_per_trial[k])))
        worst = _relative(alone[0], together[k])
        expect(worst <= 1e-9, f"trial {k} alone and among the others has a log-likelihood that differs by {worst:.1e} relative.")


def _check_gradient(model: Model, specs: Mapping[str, ParamSpec], data: BinnedSpikes) -> None:
    _needs_exact_likelihood(model, data)
    raw = perturbed(to_raw(specs, initial_params(specs, Stream(SEED, "conformance/init")), dtype=torch.float64))
    trained = [name for name, spec in specs.items() if spec.trainable and raw[name].numel()]
    if not trained:
        raise NotChecked("no parameter is trainable")
    chunk = data.chunk([0, 1], 0, 30)

    def total(*values: torch.Tensor) -> torch.Tensor:
        params = constrain(specs, {**raw, **dict(zip(trained, values, strict=True))})
        return _likelihood(model, params, chunk)[0].sum()

    inputs = tuple(raw[name] for name in trained)
    expect(total(*inputs).requires_grad, "the log-likelihood does not depend on the parameters in a way torch can follow.")
    try:
        torch.autograd.gradcheck(total, inputs, eps=1e-6, atol=1e-4, rtol=1e-3, fast_mode=True)
    except RuntimeError as error:
        raise Mismatch(f"torch's gradient disagrees with finite differences in float64: {' '.join(str(error).split())[:300]}") from error


def _check_free(model: Model, params: Params, data: BinnedSpikes) -> None:
    free = _free(model, params, data)
    expect(isinstance(free, Rollout), f"rollout returns {type(free).__name__}; expected Rollout.")
    shape = (_TRIALS, _BINS, _N)
    expect(tuple(free.spikes.shape) == shape, f"spikes have shape {tuple(free.spikes.shape)}; expected {shape}.")
    expect(tuple(free.log_prob.shape) == (_TRIALS, _N), f"log_prob has shape {tuple(free.log_prob.shape)}; expected {(_TRIALS, _N)}.")
    expect(bool(((free.spikes >= 0) & (free.spikes == free.spikes.round())).all()), "spikes are not whole numbers from 0.")
    expect(torch.equal(free.spikes, _free(model, params, data).spikes), "two runs at the same uniforms give different spikes.")
    whole = _whole(data)
    silent = replace(whole, row_pointer=np.zeros_like(whole.row_pointer))
    again = model.rollout(params, silent, uniforms=_uniforms(model))
    expect(
        torch.equal(free.spikes, again.spikes), "a free run depends on the spikes of its context, of which only times and signals count."
    )


def _check_free_chunks(model: Model, params: Params, data: BinnedSpikes) -> None:
    whole, uniforms = _free(model, params, data), _uniforms(model)
    parts, carry = [], None
    for first in range(0, _BINS, 17):
        n_bins = min(17, _BINS - first)
        chunk = data.chunk(range(_TRIALS), first, n_bins)
        part = model.rollout(params, chunk, uniforms=uniforms[:, first : first + n_bins], carry=carry)
        parts.append(part.spikes)
        carry = part.carry
    expect(torch.equal(torch.cat(parts, dim=1), whole.spikes), "a free run in chunks of 17 bins has other spikes than in one piece.")


def _check_replay(model: Model, params: Params, data: BinnedSpikes) -> None:
    if isinstance(model, HasLatents):
        raise NotChecked("given spikes the latents are inferred, not simulated")
    free, uniforms = _free(model, params, data), _uniforms(model)
    observed = free.spikes.detach()
    clamped = model.rollout(params, _whole(data), uniforms=uniforms, observed=observed, observed_mask=torch.ones(_N, dtype=torch.bool))
    expect(torch.equal(clamped.spikes, free.spikes), "a clamped run has other spikes than those it was clamped to.")
    worst = float((clamped.log_prob - free.log_prob).abs().max())
    expect(worst == 0.0, f"replaying a free run clamped changes its log-probability by up to {worst:g}; expected 0.")
    mask = torch.tensor([True] * (_N - 1) + [False])
    mixed = model.rollout(params, _whole(data), uniforms=uniforms, observed=observed, observed_mask=mask)
    expect(torch.equal(mixed.spikes, free.spikes), "clamping all neurons but one to their own spikes changes that one's.")


def _check_free_likelihood(model: Model, params: Params, data: BinnedSpikes) -> None:
    _needs_exact_likelihood(model, data)
    free = _free(model, params, data)
    whole = _whole(data)
    counts = [free.spikes[k].detach().numpy() for k in range(_TRIALS)]
    if not sum(count.sum() for count in counts):
        raise NotChecked("the free run has no spike")
    again = Recording.from_counts([count.astype(np.int64) for count in counts], dt_ms=DT_MS).bin(DT_MS)
    replayed = replace(whole, row_pointer=_whole(again).row_pointer, event_neuron=again.event_neuron, event_count=again.event_count)
    every = np.ones_like(whole.mask_numpy)
    values, _ = _likelihood(model, params, replace(replayed, mask_numpy=every))
    masked = model.rollout(params, replace(whole, mask_numpy=every), uniforms=_uniforms(model))
    worst = _relative(values, masked.log_prob.double())
    expect(
        worst <= 1e-6, f"log_likelihood of simulated spikes and the rollout's own log_prob differ by {worst:.1e} relative; expected 1e-6."
    )


def _check_intensity(model: Any, params: Params, data: BinnedSpikes) -> None:
    chunk = _whole(data)
    expected, _ = model.intensity(params, chunk, None)
    expect(tuple(expected.shape) == (_TRIALS, _BINS, _N), f"intensity has shape {tuple(expected.shape)}; expected {(_TRIALS, _BINS, _N)}.")
    expect(bool((torch.isfinite(expected) & (expected >= 0)).all()), "intensity holds negative or non-finite expected counts.")
    emission = getattr(model, "emission", model.emissions[0])
    emission = model.emissions[0] if emission == "auto" else emission
    _needs_exact_likelihood(model, data)
    spikes, rate = chunk.dense("float64"), expected.double().clamp_min(1e-300)
    if emission == "poisson":
        terms = spikes * torch.log(rate) - rate - torch.lgamma(spikes + 1.0)
    else:
        terms = torch.where(spikes > 0, torch.log(rate), torch.log1p(-rate.clamp(max=1.0 - 1e-12)))
    total = (terms * chunk.mask[..., None]).sum(1)
    worst = _relative(total, _likelihood(model, params, chunk)[0])
    expect(
        worst <= 1e-6, f"the {emission} likelihood of these intensities differs from log_likelihood by {worst:.1e} relative; expected 1e-6."
    )


def _check_connectivity(model: Any, params: Params, data: BinnedSpikes) -> None:
    connectivity = model.connectivity(params, {})
    weight = np.asarray(connectivity.weight)
    expect(weight.shape[:2] == (_N, _N), f"connectivity.weight has shape {weight.shape}; expected [post, pre] or [post, pre, lag].")


def _check_units(model: HasUnits, params: Params, data: BinnedSpikes) -> None:
    chunk = data.chunk(range(_TRIALS), 0, _BINS)
    runs: list[Driven] = []

    def drive(*given: Any, **how: Any) -> Driven:
        runs.append(rollout(*given, **how))
        return replace(runs[-1], drive=runs[-1].drive + 1.0)

    plain, _ = model.log_likelihood(params, chunk, None, _stream())
    same, _ = model.driven_by(rollout).log_likelihood(params, chunk, None, _stream())
    expect(torch.equal(plain, same), "driven_by(rollout) changes the likelihood. Hand the same arguments to `drive` as to rollout.")
    other, _ = model.driven_by(drive).log_likelihood(params, chunk, None, _stream())
    expect(bool(runs), "driven_by(drive) never calls `drive` for the likelihood.")
    expect(not torch.equal(plain, other), "the likelihood does not depend on the drive that driven_by's function returns.")
    n_runs = len(runs)
    uniforms = torch.as_tensor(_stream().uniforms(_TRIALS, range(_BINS), n_uniforms(model, chunk.n_neurons)))
    model.driven_by(drive).rollout(params, chunk, uniforms=uniforms)
    expect(len(runs) > n_runs, "driven_by(drive) never calls `drive` for a free run.")
    after, _ = model.log_likelihood(params, chunk, None, _stream())
    expect(torch.equal(plain, after), "driven_by changes the model itself. Return another one.")


def _check_solver(model: Any, specs: Mapping[str, ParamSpec], data: BinnedSpikes) -> None:
    init = initial_params(specs, Stream(SEED, "conformance/init"))
    context = SolverContext(init=init, stream=_stream().child("solver"), max_steps=_SOLVER_STEPS)
    try:
        found, report = model.solve(data, context)
    except InvalidInputError as reason:
        raise NotChecked(str(reason).splitlines()[0]) from reason
    expect(set(found) == set(specs), f"solve returns the parameters {sorted(found)}; expected {sorted(specs)}.")
    for name, spec in specs.items():
        value = np.asarray(found[name])
        expect(value.shape == tuple(spec.shape), f"solve returns {name} of shape {value.shape}; expected {tuple(spec.shape)}.")
        wrong = spec.constraint.violations(value)
        expect(wrong is None or spec.constraint.kind != "interval", f"solve returns {name} with {wrong}.")
    expect(report.status in _STATUSES, f"the solver's status is {report.status!r}; expected one of {', '.join(_STATUSES)}.")
    before, after = (float(_likelihood(model, to_tensors(values), _whole(data))[0].sum()) for values in (init, found))
    expect(after >= before - 1e-6 * abs(before), f"the solver lowers the log-likelihood from {before:.6g} to {after:.6g} nats.")
