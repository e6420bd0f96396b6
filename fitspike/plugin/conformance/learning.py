"""The checks of losses, learning rules and update transforms, on toys whose right answer is known."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from fitspike.citation import Citation
from fitspike.errors import FitspikeError, InvalidInputError
from fitspike.learning.base import Batch, HasReparametrisation, UpdateStep
from fitspike.learning.free_runs import run_free
from fitspike.learning.nest import fill, leaves, map_tensors
from fitspike.learning.optimisers import OptimiserSlots
from fitspike.losses.base import HasCheck, LossContext, LossTerms
from fitspike.losses.likelihood import NegativeLogLikelihood
from fitspike.losses.total import all_specs, record_all
from fitspike.models.base import DataInfo, Rollout
from fitspike.models.spiking_network import SpikingNetwork
from fitspike.params import ParamSpec, constrain, initial_params, to_raw
from fitspike.plugin.conformance.report import Mismatch, NotChecked, Outcome, Report, expect, instance_of
from fitspike.plugin.conformance.toys import SEED, perturbed, toy_binned, toy_task
from fitspike.plugin.kinds import KINDS
from fitspike.recording.binned import BinnedSpikes, SpikeChunk
from fitspike.rng import Stream
from fitspike.types import Carry, Params

_N = 3
_BINS = 60
_NEEDS = frozenset({"chunk", "rollout", "latents"})
_STEP = 1e-3


def _stream() -> Stream:
    return Stream(SEED, "conformance/learning")


def _chunk() -> SpikeChunk:
    return toy_binned(_N).chunk(range(4), 0, _BINS)


def _second_chunk() -> SpikeChunk:
    return toy_binned(_N).chunk(range(4), _BINS, _BINS)


def _data() -> DataInfo:
    return toy_binned(_N).info()


# -- losses -------------------------------------------------------------------------------------------------------------------------


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
        return model, binned, specs, perturbed(to_raw(specs, initial_params(specs, _stream()), dtype=torch.float64))
    raise NotChecked(f"the loss refuses every toy: {refusal}")


def _loss_terms(loss: Any, raw: Mapping[str, torch.Tensor]) -> LossTerms:
    model, data, specs, _ = _network(loss)
    params, chunk = constrain(specs, raw), data.chunk(range(4), 0, _BINS)
    context = LossContext(
        model,
        params,
        chunk,
        data.info(),
        _stream(),
        recorded=record_all({"checked": (loss, 1.0)}, data),
        run_free=lambda: run_free(model, params, chunk, None, _stream(), has_repeats=data.info().has_repeats),
    )
    return loss(context)


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


# -- learning rules -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _QuadraticModel:
    """A model without spikes: its log-likelihood is -(w - target)^2 per neuron, the same in every trial.

    The carry is the sign of the targets, which turns from chunk to chunk; where w starts, the gradients of two chunks are opposed. Those
    of the neurons add to 0, so that no other assignment of them to neurons descends.
    """

    name: ClassVar[str] = "quadratic"
    citation: ClassVar[Citation] = Citation("a toy of the conformance suite")
    emissions: ClassVar[tuple[str, ...]] = ("bernoulli",)
    targets: tuple[float, ...] = (3.5, -1.5, -0.5)

    def param_specs(self, data: DataInfo) -> Mapping[str, ParamSpec]:
        return {"w": ParamSpec((data.n_neurons,), "1", init=0.5), "fixed": ParamSpec((1,), "1", init=1.0, trainable=False)}

    def log_likelihood(self, params: Params, chunk: SpikeChunk, carry: Carry, rng: Stream) -> tuple[torch.Tensor, Carry]:
        sign = torch.ones_like(params["w"]) if carry is None else carry
        value = -((params["w"] - sign * params["w"].new_tensor(self.targets)) ** 2)
        return value.expand(chunk.n_trials, -1), -sign + 0.0 * params["w"]  # a state that hangs on parameters, as those of networks do

    def rollout(self, params: Params, context: SpikeChunk, **how: Any) -> Rollout:
        raise NotImplementedError("a quadratic has no spikes")


@dataclass(frozen=True)
class _QuadraticLoss:
    """Minus the toy model's log-likelihood, per neuron and trial."""

    name: ClassVar[str] = "quadratic"
    needs: ClassVar[frozenset[str]] = frozenset({"chunk"})

    def __call__(self, context: LossContext) -> LossTerms:
        values, context.new_carry = context.model.log_likelihood(context.params, context.chunk, context.carry, context.rng)
        return {"quadratic": -values.mean()}


@dataclass(frozen=True)
class _Against:
    """Minus twice another loss."""

    loss: Any
    name: ClassVar[str] = "against"
    needs: ClassVar[frozenset[str]] = frozenset({"chunk"})

    def __call__(self, context: LossContext) -> LossTerms:
        return {"against": -2.0 * torch.stack(list(self.loss(context).values())).sum()}


def check_learning_rule(rule: Any, model: Any = None) -> Outcome:
    """Check a learning rule, given as a class or an object, and return what passed.

    One step along its directions must lower a quadratic toy loss, or, where `model` is given or the toy lacks what the rule requires, the
    negative log-likelihood of a small network.

    Raises
    ------
    ConformanceError
        With every failed check.
    """
    report = Report(f"learning rule {getattr(rule, 'name', rule)!r}")
    rule = instance_of(report, rule, KINDS["learning_rules"])
    if rule is None:
        return report.outcome()
    report.check("requires", _check_requires, rule, needs=("members",))
    setting = report.check("a model to learn", _rule_setting, rule, model, needs=("members", "requires"))
    if rule_requires := getattr(rule, "requires", None):
        report.check("refusal of other models", _check_refusal, rule, rule_requires, needs=("members", "requires"))
    report.check("directions", _check_directions, rule, setting, needs=("a model to learn",))
    report.check("equal calls", _check_rule_repeat, rule, setting, needs=("directions",))
    report.check("one step lowers the loss", _check_descent, rule, setting, needs=("directions",))
    report.check("weights of losses", _check_weights, rule, setting, needs=("one step lowers the loss",))
    report.check("chunks of a trial", _check_rule_carry, rule, setting, needs=("one step lowers the loss",))
    report.check("state", _check_rule_state, rule, setting, needs=("directions",))
    return report.outcome()


@dataclass(frozen=True)
class _Setting:
    """A model, a loss and raw parameters on which a rule is tried."""

    model: Any
    loss: Any
    specs: Mapping[str, ParamSpec]
    raw: dict[str, torch.Tensor]

    def bind(self, rule: Any, **others: tuple[Any, float]) -> Any:
        return rule.bind(self.model, self.specs, {self.loss.name: (self.loss, 1.0), **others}, _data(), _stream())

    def copy(self) -> dict[str, torch.Tensor]:
        return {name: value.detach().clone().requires_grad_(value.requires_grad) for name, value in self.raw.items()}

    def value(self, raw: Mapping[str, torch.Tensor], carry: Carry = None) -> float:
        with torch.no_grad():
            params = constrain(self.specs, raw)
            context = LossContext(self.model, params, _chunk(), _data(), _stream(), carry=carry)
            return float(sum(self.loss(context).values()))

    def change(self, directions: Mapping[str, torch.Tensor], carry: Carry = None) -> tuple[float, float]:
        """Return the loss before and after a short step against the directions."""
        length = float(torch.stack([(d**2).sum() for d in directions.values()]).sum().sqrt())
        expect(length > 0, "every direction is 0 although the loss is not at its minimum.")
        moved = {name: value - _STEP * directions[name] / length if name in directions else value for name, value in self.raw.items()}
        return self.value(self.raw, carry), self.value(moved, carry)


def _check_requires(rule: Any) -> None:
    is_types = isinstance(rule.requires, frozenset) and all(isinstance(one, type) for one in rule.requires)
    expect(is_types, f"requires is {rule.requires!r}; expected a frozenset of capability protocols, empty for none.")


def _rule_setting(rule: Any, given: Any) -> _Setting:
    candidates = [(given, NegativeLogLikelihood())] if given is not None else []
    candidates += [(_QuadraticModel(), _QuadraticLoss()), (SpikingNetwork(), NegativeLogLikelihood())]
    for model, loss in candidates:
        if all(isinstance(model, capability) for capability in rule.requires):
            specs = model.param_specs(_data())
            raw = perturbed(to_raw(specs, initial_params(specs, _stream()), dtype=torch.float64))
            return _Setting(model, loss, specs, raw)
    needed = ", ".join(sorted(capability.__name__ for capability in rule.requires))
    raise NotChecked(f"no built-in toy has {needed}; give check_learning_rule(rule, model=...) one that does")


def _check_refusal(rule: Any, requires: frozenset[type]) -> None:
    model = _QuadraticModel()
    if all(isinstance(model, capability) for capability in requires):
        raise NotChecked("the toy has everything the rule requires")
    specs = model.param_specs(_data())
    try:
        rule.bind(model, specs, {"quadratic": (_QuadraticLoss(), 1.0)}, _data(), _stream())
    except FitspikeError:
        return
    raise Mismatch("bind accepts a model that lacks what `requires` lists. Raise InvalidInputError there, and say what is missing.")


def _directions(rule: Any, setting: _Setting) -> tuple[dict[str, torch.Tensor], Mapping[str, float], Batch]:
    batch = Batch(_chunk(), None, _stream())
    directions, metrics = setting.bind(rule).directions(setting.copy(), batch)
    return directions, metrics, batch


def _check_directions(rule: Any, setting: _Setting) -> None:
    raw = setting.copy()
    batch = Batch(_chunk(), None, _stream())
    directions, metrics = setting.bind(rule).directions(raw, batch)
    trained = {name for name, spec in setting.specs.items() if spec.trainable}
    expect(
        set(directions) == trained, f"directions are given for {sorted(directions)}; expected the trainable parameters {sorted(trained)}."
    )
    for name, direction in directions.items():
        expect(
            direction.shape == raw[name].shape,
            f"the direction of {name} has shape {tuple(direction.shape)}; expected {tuple(raw[name].shape)}.",
        )
        expect(bool(torch.isfinite(direction).all()), f"the direction of {name} is not finite.")
        expect(not direction.requires_grad, f"the direction of {name} carries a gradient. Detach it.")
    not_plain = [name for name, value in metrics.items() if not isinstance(value, float | int)]
    expect(not not_plain, f"the metrics {not_plain} are not plain floats.")
    for name, value in raw.items():
        expect(
            torch.equal(value.detach(), setting.raw[name].detach()), f"the rule changes {name} itself; the trainer's optimiser does that."
        )


def _check_rule_repeat(rule: Any, setting: _Setting) -> None:
    first, second = (_directions(rule, setting)[0] for _ in range(2))
    same = all(torch.equal(first[name], second[name]) for name in first)
    expect(same, "a freshly bound rule gives other directions for an equal batch. Draw numbers from batch.rng and bind's rng only.")


def _check_descent(rule: Any, setting: _Setting) -> None:
    directions, _, _ = _directions(rule, setting)
    before, after = setting.change(directions)
    expect(after < before, f"a step of length {_STEP} against the directions raises the loss from {before:.9g} to {after:.9g}.")


def _check_weights(rule: Any, setting: _Setting) -> None:
    """Add minus twice the loss with a weight of 0.1: the sum falls with the loss, without the weight it would rise."""
    try:
        bound = setting.bind(rule, against=(_Against(setting.loss), 0.1))
    except InvalidInputError as error:
        raise NotChecked(f"the rule refuses a second loss: {error}") from error
    directions, _ = bound.directions(setting.copy(), Batch(_chunk(), None, _stream()))
    before, after = setting.change(directions)
    expect(after < before, "with a second loss of weight 0.1 against the first a step raises their weighted sum. Multiply by the weights.")


def _check_rule_carry(rule: Any, setting: _Setting) -> None:
    """Go on with a second chunk from what the rule handed on after the first."""
    carry = _directions(rule, setting)[2].new_carry
    expect(carry is not None, "no carry is handed on to a trial's next chunk. Set batch.new_carry.")
    with_graph = any(value.requires_grad for value in leaves(carry))
    expect(not with_graph, "batch.new_carry holds on to the chunk's gradients, which the next chunk cannot go back through. Detach it.")
    directions, _ = setting.bind(rule).directions(setting.copy(), Batch(_second_chunk(), carry, _stream()))
    if isinstance(setting.model, _QuadraticModel):
        before, after = setting.change(directions, carry=torch.tensor(-1.0, dtype=torch.float64))
        expect(
            after < before, "a step after the second chunk of a trial raises its loss: the carry of the first, batch.carry, is not used."
        )


def _check_rule_state(rule: Any, setting: _Setting) -> None:
    state = setting.bind(rule).state_dict()
    expect(isinstance(state, Mapping), f"state_dict returns {type(state).__name__}; expected a mapping (empty without a state).")


# -- update transforms --------------------------------------------------------------------------------------------------------------


def check_update_transform(transform: Any) -> Outcome:
    """Check an update transform, given as a class or an object, and return what passed.

    Raises
    ------
    ConformanceError
        With every failed check.
    """
    report = Report(f"update transform {getattr(transform, 'name', transform)!r}")
    transform = instance_of(report, transform, KINDS["update_transforms"])
    if transform is None:
        return report.outcome()
    report.check("constraints taken over", _check_reparametrise, transform, needs=("members",))
    report.check("parameters after a step", _check_apply, transform, needs=("members", "constraints taken over"))
    report.check("no side effects", _check_apply_purity, transform, needs=("parameters after a step",))
    report.check("equal calls", _check_apply_repeat, transform, needs=("parameters after a step",))
    report.check("resumed run", _check_apply_resumed, transform, needs=("equal calls",))
    return report.outcome()


@dataclass(frozen=True)
class _Proposed:
    """Raw parameters of a small network, an update that Adam might propose after its first step, and the step."""

    specs: Mapping[str, ParamSpec]
    raw: dict[str, torch.Tensor]
    update: dict[str, torch.Tensor]
    slots: OptimiserSlots

    @classmethod
    def of(cls, transform: Any) -> _Proposed:
        """Return them in the parametrisation that a transform wants."""
        own = _network()[2]
        specs = transform.reparametrise(own) if isinstance(transform, HasReparametrisation) else own
        raw = perturbed(to_raw(specs, initial_params(specs, _stream()), dtype=torch.float64))
        update = {
            name: 0.01 * torch.sin(1.0 + torch.arange(value.numel(), dtype=value.dtype)).reshape(value.shape)
            for name, value in raw.items()
            if specs[name].trainable
        }
        tensors = {name: raw[name].detach().clone() for name in update}
        optimiser = torch.optim.Adam(list(tensors.values()))
        for name, tensor in tensors.items():
            tensor.grad = -update[name]
        optimiser.step()
        return cls(own, {name: value.detach() for name, value in raw.items()}, update, OptimiserSlots(optimiser, tensors))

    def step(self, number: int) -> UpdateStep:
        return UpdateStep(number, 2, 0.01, {}, _stream().child(f"step{number}"), self.slots)


def _check_reparametrise(transform: Any) -> None:
    if not isinstance(transform, HasReparametrisation):
        return
    own = _network()[2]
    specs = transform.reparametrise(own)
    expect(set(specs) == set(own), f"reparametrise returns specs of {sorted(specs)}; expected {sorted(own)}.")
    for name, spec in specs.items():
        same = tuple(spec.shape) == tuple(own[name].shape) and spec.trainable == own[name].trainable
        expect(same, f"reparametrise changes shape or trainable of {name}; only the constraint may change.")


def _apply(transform: Any) -> tuple[dict[str, torch.Tensor], Any]:
    proposed = _Proposed.of(transform)
    raw, state = _begin(transform, proposed)
    for number in range(2):
        changed, state = transform.apply(state, raw, proposed.update, proposed.step(number))
        raw = {**raw, **changed} if number == 0 else changed
    return raw, state


def _begin(transform: Any, proposed: _Proposed) -> tuple[dict[str, torch.Tensor], Any]:
    begun = transform.init(proposed.specs, proposed.raw, _stream())
    is_pair = isinstance(begun, tuple) and len(begun) == 2 and isinstance(begun[0], Mapping)
    expect(is_pair, f"init returns {type(begun).__name__}; expected (raw parameters to begin with, state).")
    return {**proposed.raw, **begun[0]}, begun[1]


def _check_apply(transform: Any) -> None:
    raw = _Proposed.of(transform).raw
    after, _ = _apply(transform)
    expect(set(after) == set(raw), f"apply returns the parameters {sorted(after)}; expected {sorted(raw)}.")
    for name, value in after.items():
        same = value.shape == raw[name].shape and value.dtype == raw[name].dtype
        expect(same, f"apply turns {name} {tuple(raw[name].shape)} {raw[name].dtype} into {tuple(value.shape)} {value.dtype}.")
        expect(bool(torch.isfinite(value).all()), f"apply returns values of {name} that are not finite.")


def _check_apply_purity(transform: Any) -> None:
    proposed = _Proposed.of(transform)
    given = {"raw parameters": proposed.raw}
    copies = map_tensors(given, torch.clone)
    raw, state = _begin(transform, proposed)
    _expect_unchanged("init", given, copies)
    given = {"raw parameters": raw, "update": proposed.update, "state": state}
    copies = map_tensors(given, torch.clone)
    transform.apply(state, raw, proposed.update, proposed.step(0))
    _expect_unchanged("apply", given, copies)


def _expect_unchanged(method: str, given: Mapping[str, Any], copies: Mapping[str, Any]) -> None:
    for name in given:
        same = all(torch.equal(a, b) for a, b in zip(leaves(given[name]), leaves(copies[name]), strict=True))
        expect(same, f"{method} changes the {name} it is given. Return new tensors; a checkpoint may still hold the old ones.")


def _check_apply_repeat(transform: Any) -> None:
    (first, _), (second, _) = _apply(transform), _apply(transform)
    same = all(torch.equal(first[name], second[name]) for name in first)
    expect(same, "two equal runs end with different parameters. Draw numbers from the streams given to init and to the step only.")


def _check_apply_resumed(transform: Any) -> None:
    """Go on from the state's tensors alone, which is what a checkpoint keeps, with a copy of the transform that has seen nothing."""
    expected, _ = _apply(transform)
    proposed, fresh = _Proposed.of(transform), copy.deepcopy(transform)
    raw, state = _begin(transform, proposed)
    changed, state = transform.apply(state, raw, proposed.update, proposed.step(0))
    kept = iter(map_tensors(leaves(state), torch.clone))
    restored = fill(_begin(fresh, proposed)[1], kept)
    resumed, _ = fresh.apply(restored, {**raw, **changed}, proposed.update, proposed.step(1))
    same = all(torch.equal(expected[name], resumed[name]) for name in expected)
    expect(same, "a run resumed from the tensors of the state differs. Keep what changes from step to step in tensors of the state.")
