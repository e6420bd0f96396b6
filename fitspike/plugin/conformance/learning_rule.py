"""The checks of learning rules, on a toy whose right answer is known and on a small network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from fitspike.citation import Citation
from fitspike.errors import FitspikeError, InvalidInputError
from fitspike.learning.base import Batch
from fitspike.learning.nest import leaves
from fitspike.losses.base import LossContext, LossTerms
from fitspike.losses.likelihood import NegativeLogLikelihood
from fitspike.models.base import DataInfo, Rollout
from fitspike.models.spiking_network import SpikingNetwork
from fitspike.params import ParamSpec, constrain, initial_params, to_raw
from fitspike.plugin.conformance.report import Mismatch, NotChecked, Outcome, Report, expect, instance_of
from fitspike.plugin.conformance.toys import perturbed, toy_binned, toy_stream
from fitspike.plugin.kinds import KINDS
from fitspike.recording.binned import SpikeChunk
from fitspike.rng import Stream
from fitspike.types import Carry, Params

_N = 3
_BINS = 60
_STEP = 1e-3


def _chunk() -> SpikeChunk:
    return toy_binned(_N).chunk(range(4), 0, _BINS)


def _second_chunk() -> SpikeChunk:
    return toy_binned(_N).chunk(range(4), _BINS, _BINS)


def _data() -> DataInfo:
    return toy_binned(_N).info()


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
        return rule.bind(self.model, self.specs, {self.loss.name: (self.loss, 1.0), **others}, _data(), toy_stream())

    def copy(self) -> dict[str, torch.Tensor]:
        return {name: value.detach().clone().requires_grad_(value.requires_grad) for name, value in self.raw.items()}

    def value(self, raw: Mapping[str, torch.Tensor], carry: Carry = None) -> float:
        with torch.no_grad():
            params = constrain(self.specs, raw)
            context = LossContext(self.model, params, _chunk(), _data(), toy_stream(), carry=carry)
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
            raw = perturbed(to_raw(specs, initial_params(specs, toy_stream()), dtype=torch.float64))
            return _Setting(model, loss, specs, raw)
    needed = ", ".join(sorted(capability.__name__ for capability in rule.requires))
    raise NotChecked(f"no built-in toy has {needed}; give check_learning_rule(rule, model=...) one that does")


def _check_refusal(rule: Any, requires: frozenset[type]) -> None:
    model = _QuadraticModel()
    if all(isinstance(model, capability) for capability in requires):
        raise NotChecked("the toy has everything the rule requires")
    specs = model.param_specs(_data())
    try:
        rule.bind(model, specs, {"quadratic": (_QuadraticLoss(), 1.0)}, _data(), toy_stream())
    except FitspikeError:
        return
    raise Mismatch("bind accepts a model that lacks what `requires` lists. Raise InvalidInputError there, and say what is missing.")


def _directions(rule: Any, setting: _Setting) -> tuple[dict[str, torch.Tensor], Mapping[str, float], Batch]:
    batch = Batch(_chunk(), None, toy_stream())
    directions, metrics = setting.bind(rule).directions(setting.copy(), batch)
    return directions, metrics, batch


def _check_directions(rule: Any, setting: _Setting) -> None:
    raw = setting.copy()
    batch = Batch(_chunk(), None, toy_stream())
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
    directions, _ = bound.directions(setting.copy(), Batch(_chunk(), None, toy_stream()))
    before, after = setting.change(directions)
    expect(after < before, "with a second loss of weight 0.1 against the first a step raises their weighted sum. Multiply by the weights.")


def _check_rule_carry(rule: Any, setting: _Setting) -> None:
    """Go on with a second chunk from what the rule handed on after the first."""
    carry = _directions(rule, setting)[2].new_carry
    expect(carry is not None, "no carry is handed on to a trial's next chunk. Set batch.new_carry.")
    with_graph = any(value.requires_grad for value in leaves(carry))
    expect(not with_graph, "batch.new_carry holds on to the chunk's gradients, which the next chunk cannot go back through. Detach it.")
    directions, _ = setting.bind(rule).directions(setting.copy(), Batch(_second_chunk(), carry, toy_stream()))
    if isinstance(setting.model, _QuadraticModel):
        before, after = setting.change(directions, carry=torch.tensor(-1.0, dtype=torch.float64))
        expect(
            after < before, "a step after the second chunk of a trial raises its loss: the carry of the first, batch.carry, is not used."
        )


def _check_rule_state(rule: Any, setting: _Setting) -> None:
    state = setting.bind(rule).state_dict()
    expect(isinstance(state, Mapping), f"state_dict returns {type(state).__name__}; expected a mapping (empty without a state).")
