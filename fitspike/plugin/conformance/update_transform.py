"""The checks of update transforms, on the parameters of a small network."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from fitspike.learning.base import HasReparametrisation, UpdateStep
from fitspike.learning.nest import fill, leaves, map_tensors
from fitspike.learning.optimisers import OptimiserSlots
from fitspike.models.spiking_network import SpikingNetwork
from fitspike.params import ParamSpec, initial_params, to_raw
from fitspike.plugin.conformance.report import Outcome, Report, expect, instance_of
from fitspike.plugin.conformance.toys import perturbed, toy_binned, toy_stream
from fitspike.plugin.kinds import KINDS


def _specs() -> Mapping[str, ParamSpec]:
    """Return the specs of a small network."""
    return SpikingNetwork().param_specs(toy_binned().info())


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
        own = _specs()
        specs = transform.reparametrise(own) if isinstance(transform, HasReparametrisation) else own
        raw = perturbed(to_raw(specs, initial_params(specs, toy_stream()), dtype=torch.float64))
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
        return UpdateStep(number, 2, 0.01, {}, toy_stream().child(f"step{number}"), self.slots)


def _check_reparametrise(transform: Any) -> None:
    if not isinstance(transform, HasReparametrisation):
        return
    own = _specs()
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
    begun = transform.init(proposed.specs, proposed.raw, toy_stream())
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
