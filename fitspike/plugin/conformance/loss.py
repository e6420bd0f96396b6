"""The checks of losses, on a small network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from fitspike.errors import InvalidInputError
from fitspike.learning.free_runs import run_free
from fitspike.losses.base import HasCheck, HasTraces, LossContext, LossTerms
from fitspike.losses.total import all_specs, record_all
from fitspike.models.spiking_network import SpikingNetwork
from fitspike.params import ParamSpec, constrain, initial_params, to_raw
from fitspike.plugin.conformance.report import Mismatch, NotChecked, Outcome, Report, expect, instance_of
from fitspike.plugin.conformance.toys import perturbed, toy_binned, toy_stream, toy_task
from fitspike.plugin.kinds import KINDS
from fitspike.recording.binned import BinnedSpikes

_N = 3
_BINS = 60
_NEEDS = frozenset({"chunk", "rollout", "latents"})


def check_loss(loss: Any) -> Outcome:
    """Check a loss, given as a class or an object, on a small network, and return what passed.

    Raises
    ------
    ConformanceError
        With every failed check.
    """
    report = Report(f"loss {getattr(loss, 'name', loss)!r}")
    loss = instance_of(report, loss, KINDS["losses"])
    if loss is None:
        return report.outcome()
    report.check("needs", _check_needs, loss, needs=("members",))
    report.check("terms", _check_terms, loss, needs=("members", "needs"))
    report.check("equal calls", _check_repeat, loss, needs=("terms",))
    report.check("gradient", _check_loss_gradient, loss, needs=("terms",))
    report.check("traces", _check_traces, loss, needs=("terms",))
    return report.outcome()


def _network(loss: Any = None) -> tuple[SpikingNetwork, BinnedSpikes, Mapping[str, ParamSpec], dict[str, torch.Tensor]]:
    """Return a small network with what it is fitted to: with hidden neurons, and on a task, if the loss asks for them."""
    for model, binned in (
        (SpikingNetwork(), toy_binned(_N)),
        (SpikingNetwork(n_hidden=2), toy_binned(_N)),
        (SpikingNetwork(n_hidden=2, signals=()), toy_task(_N, _BINS)),
    ):
        try:
            if isinstance(loss, HasCheck):
                loss.check(binned, model)
            specs = all_specs(model, {} if loss is None else {"checked": (loss, 1.0)}, binned.info())
        except InvalidInputError as error:
            refusal = error
            continue
        return model, binned, specs, perturbed(to_raw(specs, initial_params(specs, toy_stream()), dtype=torch.float64))
    raise NotChecked(f"the loss refuses every toy: {refusal}")


def _loss_terms(loss: Any, raw: Mapping[str, torch.Tensor]) -> LossTerms:
    return loss(_context(loss, raw))


def _context(loss: Any, raw: Mapping[str, torch.Tensor]) -> LossContext:
    model, data, specs, _ = _network(loss)
    params, chunk = constrain(specs, raw), data.chunk(range(4), 0, _BINS)
    return LossContext(
        model,
        params,
        chunk,
        data.info(),
        toy_stream(),
        recorded=record_all({"checked": (loss, 1.0)}, data),
        run_free=lambda: run_free(model, params, chunk, None, toy_stream(), has_repeats=data.info().has_repeats),
    )


def _check_needs(loss: Any) -> None:
    expect(isinstance(loss.needs, frozenset), f"needs is {loss.needs!r}; expected a frozenset.")
    expect(loss.needs <= _NEEDS, f"needs holds {sorted(loss.needs - _NEEDS)}; a loss can need {', '.join(sorted(_NEEDS))}.")
    if "latents" in loss.needs:
        raise NotChecked("the loss needs latents, which the network it is checked on does not have")


def _check_terms(loss: Any) -> None:
    terms = _loss_terms(loss, _network(loss)[-1])
    expect(isinstance(terms, Mapping) and bool(terms), "the loss returns no terms; expected a mapping of scalar tensors by name.")
    for name, value in terms.items():
        expect(isinstance(name, str) and isinstance(value, torch.Tensor), f"term {name!r} is {type(value).__name__}; expected a tensor.")
        expect(value.ndim == 0, f"term {name!r} has shape {tuple(value.shape)}; expected a scalar.")
        expect(bool(torch.isfinite(value)), f"term {name!r} is {float(value.detach())}.")


def _check_repeat(loss: Any) -> None:
    raw = _network(loss)[-1]
    first, second = (_loss_terms(loss, raw) for _ in range(2))
    for name in first:
        expect(bool(first[name] == second[name]), f"term {name!r} differs between two equal calls. Draw numbers from context.rng only.")


def _check_loss_gradient(loss: Any) -> None:
    model, _, specs, raw = _network(loss)
    trained = [name for name, spec in specs.items() if spec.trainable]
    # sampled spikes carry a pseudo-derivative, which finite differences do not reproduce
    is_sampled = "rollout" in loss.needs or model.n_hidden > 0
    exact = [name for name in trained if not is_sampled or name.startswith(f"{loss.name}/")]

    def total(*values: torch.Tensor) -> torch.Tensor:
        return torch.stack(list(_loss_terms(loss, {**raw, **dict(zip(exact, values, strict=True))}).values())).sum()

    inputs = tuple(raw[name] for name in exact)
    value = total(*inputs)
    expect(value.requires_grad, "the loss carries no gradient of the parameters.")
    gradients = torch.autograd.grad(value, [raw[name] for name in trained], allow_unused=True)
    expect(all(g is None or bool(torch.isfinite(g).all()) for g in gradients), "the gradient of the parameters is not finite.")
    if not exact:
        return
    try:
        torch.autograd.gradcheck(total, inputs, eps=1e-6, atol=1e-5, rtol=1e-3, fast_mode=True)
    except RuntimeError as error:
        raise Mismatch(f"torch's gradient disagrees with finite differences in float64: {' '.join(str(error).split())[:300]}") from error


def _check_traces(loss: Any) -> None:
    if not isinstance(loss, HasTraces):
        raise NotChecked("the loss shows nothing over time")
    context = _context(loss, _network(loss)[-1])
    traces, n_trials = loss.traces(context), context.chunk.n_trials
    shape = tuple(traces.output.shape)
    expect(len(shape) == 3 and shape[:2] == (n_trials, _BINS), f"output has shape {shape}; expected ({n_trials}, {_BINS}, n_out).")
    for name, wanted in (("target", shape), ("weight", shape[:2])):
        found = tuple(getattr(traces, name).shape)
        expect(found == wanted, f"{name} has shape {found}; expected {wanted}.")
    expect(bool(torch.isfinite(traces.output).all()), "output is not finite everywhere.")
    expect(bool((traces.weight >= 0).all()), "weight is negative in some bins.")
