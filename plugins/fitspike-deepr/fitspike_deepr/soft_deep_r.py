"""Soft DEEP R: connections come and go by themselves, around a number given by the prior."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from fitspike.plugin import Citation, ParamSpec, Stream, TrainingPlan, UpdateStep
from fitspike_deepr.connections import (
    CITATION,
    Raw,
    Wiring,
    check_training,
    draw,
    flipped,
    given_signs,
    matrices,
    normals,
    numbers_active,
    possible_connections,
    setting_problems,
    settle_slots,
    unsigned,
    with_masks,
)


@dataclass(frozen=True)
class SoftWiring:
    """Wiring of one matrix, and theta of every possible connection, positive where it is active."""

    wiring: Wiring
    theta: torch.Tensor


State = dict[str, SoftWiring]


@dataclass(frozen=True)
class SoftDeepR:
    """Soft DEEP R (Bellec, Kappel, Maass, Legenstein 2018): dormant connections diffuse, and are active while theta > 0.

    theta <- max(theta + active * (sign * update - eta l1) + sqrt(2 eta temperature) nu, theta_min),    nu ~ N(0, 1)

    with the weight sign * theta where theta > 0, else 0, and theta_min = -(temperature / l1) (1 - p) / p, so that without data a part
    p = density of the possible connections is active, with theta of mean temperature / l1. The number that are active fluctuates.

    parameters, signs, excitatory, slots, allow_adaptive : see DeepR
    density : p, of all matrices or a table by name
    l1, temperature : strength of the exponential prior, and of the noise; both above 0
    """

    name: ClassVar[str] = "soft-deep-r"
    citation: ClassVar[Citation] = CITATION
    n_active: ClassVar[None] = None
    parameters: tuple[str, ...] = ()
    density: float | Mapping[str, float] = 0.1
    signs: str = "auto"
    excitatory: float | None = None
    l1: float = 1e-3
    temperature: float = 1e-6
    slots: str = "neutral"
    allow_adaptive: bool = False

    def __post_init__(self) -> None:
        problems = setting_problems(self)
        if self.l1 == 0 or self.temperature == 0:
            problems.add(f"l1={self.l1} and temperature={self.temperature} must be above 0; without noise no connection would come back.")
        problems.raise_if_any()

    def check(self, plan: TrainingPlan) -> None:
        """Raise where this training would stall."""
        check_training(self, plan)

    def reparametrise(self, specs: Mapping[str, ParamSpec]) -> dict[str, ParamSpec]:
        """Return the specs without constraints of sign on the matrices, whose signs the transform keeps itself."""
        return unsigned(self, specs)

    def lowest_theta(self, name: str) -> float:
        """Return theta_min of a matrix."""
        p = self.density[name] if isinstance(self.density, Mapping) else self.density
        return -self.temperature / self.l1 * (1.0 - p) / p

    def init(self, specs: Mapping[str, ParamSpec], raw: Raw, rng: Stream) -> tuple[Raw, State]:
        """Return weights of which a part `density` is active, and the state; theta of dormant ones is drawn from its prior, uniform."""
        names = matrices(self, specs)
        possible = {name: possible_connections(name, raw) for name in names}
        wanted = numbers_active(self, {name: int(one.sum()) for name, one in possible.items()})
        state, changed = {}, dict(raw)
        for name in names:
            stream, weight = rng.child(name), raw[name].detach()
            sign, may_flip = given_signs(self, name, specs[name], weight, stream)
            active = draw(possible[name], wanted[name], stream.child("active")) & (weight != 0)
            uniform = torch.as_tensor(stream.child("theta").numpy().random(tuple(weight.shape)), dtype=weight.dtype, device=weight.device)
            theta = torch.where(active, weight.abs(), self.lowest_theta(name) * uniform)
            state[name] = SoftWiring(Wiring(active, possible[name], sign, may_flip, torch.tensor(wanted[name])), theta)
            changed[name] = torch.where(active, sign * theta, 0.0)
        return with_masks(changed, raw, _wirings(state)), state

    def apply(self, state: State, raw: Raw, update: Raw, step: UpdateStep) -> tuple[Raw, State]:
        """Return the parameters after the step, and the new state."""
        changed = {name: value + update[name] if name in update else value for name, value in raw.items()}
        new = {}
        noise_size = (2.0 * step.learning_rate * self.temperature) ** 0.5
        for name, soft in state.items():
            wiring, stream = soft.wiring, step.rng.child(name)
            driven = wiring.sign * (raw[name] + update[name]) - step.learning_rate * self.l1
            theta = torch.where(wiring.active, driven, soft.theta) + noise_size * normals(driven, stream.child("noise"))
            theta = theta.clamp_min(self.lowest_theta(name))
            active = (theta > 0) & wiring.possible
            fresh = active & ~wiring.active
            sign = flipped(wiring, fresh, stream.child("signs"))
            new[name] = SoftWiring(replace(wiring, active=active, sign=sign), theta)
            changed[name] = torch.where(active, sign * theta, 0.0)
            settle_slots(step.slots, name, fresh, active & wiring.active, self.slots)
        return with_masks(changed, raw, _wirings(new)), new


def _wirings(state: State) -> dict[str, Wiring]:
    return {name: soft.wiring for name, soft in state.items()}
