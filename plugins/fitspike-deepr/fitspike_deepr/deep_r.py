"""DEEP R: a fixed number of connections, of which those that reach zero are replaced by others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
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

State = dict[str, Wiring]


@dataclass(frozen=True)
class DeepR:
    """DEEP R (Bellec, Kappel, Maass, Legenstein 2018): exactly K connections are active after every step.

    An active connection has the weight w = sign * theta, theta >= 0; a dormant one has w = 0. Each step, for active connections,

        theta <- theta + sign * update - eta l1 + sqrt(2 eta temperature) nu,    nu ~ N(0, 1)

    where `update` is what the optimiser proposes (-eta dE/dw for plain gradient descent) and eta the learning rate of the step. Where
    theta < 0 the connection becomes dormant, and as many others, drawn uniformly from the dormant ones, become active with theta = 0.
    Without data theta of active connections is distributed exponentially with mean temperature / l1.

    parameters : matrices to rewire; default: every trainable parameter with axes "post" and "pre". Where the model has a fixed parameter
        NAME_mask, only entries at which it is not 0 can be connected, and at the end it shows which are: a later fit that starts from
        these parameters keeps to them. Each entry of a matrix counts as a connection, also along further axes such as "basis"
    density, n_active : part of the possible connections that are active, or how many; each for all matrices, or a table by name.
        `n_active` wins
    scope : "per_matrix" keeps the number of each matrix, "global" their sum: what one loses another may gain, in proportion to the numbers
        they began with
    signs : "resample" draws the sign when a connection becomes active; "fixed" keeps one drawn at the start; "dale" is the presynaptic
        neuron's; "auto": dale where the model gives signs, else resample
    excitatory : part of presynaptic neurons that excite, to draw signs where the model gives none
    l1 : strength of the exponential prior, in units of the loss's gradient: the setting that matters most
    temperature : of the exploring noise; 0 leaves exploration to the noise of the gradients
    slots : what the optimiser remembers of a connection that becomes active: "neutral" (no momentum, the mean of the others' mean
        squares), "reset" (nothing) or "keep"
    allow_adaptive : fit a likelihood with an optimiser that rescales gradients although that is known to stall
    """

    name: ClassVar[str] = "deep-r"
    citation: ClassVar[Citation] = CITATION
    parameters: tuple[str, ...] = ()
    density: float | Mapping[str, float] = 0.1
    n_active: int | Mapping[str, int] | None = None
    scope: str = "per_matrix"
    signs: str = "auto"
    excitatory: float | None = None
    l1: float = 0.0
    temperature: float = 0.0
    slots: str = "neutral"
    allow_adaptive: bool = False

    def __post_init__(self) -> None:
        problems = setting_problems(self)
        if self.scope not in ("per_matrix", "global"):
            problems.add(f"unknown scope {self.scope!r}. Known: per_matrix, global.")
        problems.raise_if_any()

    def check(self, plan: TrainingPlan) -> None:
        """Raise where this training would stall."""
        check_training(self, plan)

    def reparametrise(self, specs: Mapping[str, ParamSpec]) -> dict[str, ParamSpec]:
        """Return the specs without constraints of sign on the matrices, whose signs the transform keeps itself."""
        return unsigned(self, specs)

    def init(self, specs: Mapping[str, ParamSpec], raw: Raw, rng: Stream) -> tuple[Raw, State]:
        """Return weights with all but the active connections at 0, and the wiring of each matrix."""
        names = matrices(self, specs)
        possible = {name: possible_connections(name, raw) for name in names}
        wanted = numbers_active(self, {name: int(one.sum()) for name, one in possible.items()})
        state, changed = {}, dict(raw)
        for name in names:
            stream = rng.child(name)
            sign, may_flip = given_signs(self, name, specs[name], raw[name].detach(), stream)
            active = draw(possible[name], wanted[name], stream.child("active"))
            state[name] = Wiring(active, possible[name], sign, may_flip, torch.tensor(wanted[name]))
            changed[name] = torch.where(active, sign * raw[name].detach().abs(), 0.0)
        return with_masks(changed, raw, state), state

    def apply(self, state: State, raw: Raw, update: Raw, step: UpdateStep) -> tuple[Raw, State]:
        """Return the parameters after the step, rewired, and the new wiring."""
        moved = {
            name: self._moved(wiring, raw[name], update[name], step, step.rng.child(f"{name}/noise")) for name, wiring in state.items()
        }
        new = self._rewired(state, moved, step)
        changed = {name: value + update[name] if name in update else value for name, value in raw.items()}
        for name, wiring in new.items():
            changed[name] = torch.where(wiring.active, wiring.sign * moved[name].clamp_min(0.0), 0.0)
        return with_masks(changed, raw, new), new

    def _moved(self, wiring: Wiring, weight: torch.Tensor, update: torch.Tensor, step: UpdateStep, rng: Stream) -> torch.Tensor:
        """Return theta after the step, 0 for dormant connections."""
        theta = wiring.sign * (weight + update) - step.learning_rate * self.l1
        if self.temperature:
            theta = theta + (2.0 * step.learning_rate * self.temperature) ** 0.5 * normals(theta, rng)
        return torch.where(wiring.active, theta, 0.0)

    def _rewired(self, state: State, moved: Raw, step: UpdateStep) -> State:
        """Return the wiring without connections that crossed zero, and with as many others."""
        kept = {name: wiring.active & (moved[name] >= 0) for name, wiring in state.items()}
        n_missing = {name: int(wiring.active.sum()) - int(kept[name].sum()) for name, wiring in state.items()}
        if self.scope == "global":
            n_dormant = {name: int((wiring.possible & ~kept[name]).sum()) for name, wiring in state.items()}
            n_missing = _shared(sum(n_missing.values()), {name: int(w.n_begun) for name, w in state.items()}, n_dormant, step.rng)
        new = {}
        for name, wiring in state.items():
            if not n_missing[name]:
                new[name] = replace(wiring, active=kept[name])
                continue
            stream = step.rng.child(name)
            fresh = draw(wiring.possible & ~kept[name], n_missing[name], stream.child("fresh"))
            # a connection that crossed zero and is drawn at once begins anew: theta is 0 either way, since negative ones are clamped
            new[name] = replace(wiring, active=kept[name] | fresh, sign=flipped(wiring, fresh, stream.child("signs")))
            settle_slots(step.slots, name, fresh, kept[name], self.slots)
        return new


def _shared(n: int, weights: Mapping[str, int], room: Mapping[str, int], rng: Stream) -> dict[str, int]:
    """Return n shared over matrices at random in proportion to weights, none getting more than it has room for."""
    names, drawn = list(weights), rng.child("shares").numpy()
    left = np.array([room[name] for name in names])
    shares = np.array([weights[name] for name in names], dtype=float)
    got = np.zeros(len(names), dtype=int)
    while n:
        chance = shares * (left > 0)
        taken = np.minimum(drawn.multinomial(n, chance / chance.sum()), left)
        got, left, n = got + taken, left - taken, n - int(taken.sum())
    return dict(zip(names, got.tolist(), strict=True))
