"""Which parameters are matrices of connections, which connections there can be, and with which sign: what both transforms share."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch

from fitspike.plugin import Citation, InvalidInputError, OptimiserSlots, ParamSpec, Problems, Stream, TrainingPlan, real

CITATION = Citation(
    "Bellec, Kappel, Maass, Legenstein 2018, Deep rewiring: training very sparse deep networks, ICLR",
    title="Deep Rewiring: Training very sparse deep networks",
    year="2018",
)
SIGNS = ("auto", "resample", "fixed", "dale")
SLOTS = ("neutral", "reset", "keep")
_UNSCALED = ("sgd", "asgd")
_MEAN_SQUARES = ("exp_avg_sq", "max_exp_avg_sq", "square_avg", "exp_inf", "sum", "acc_delta")

Raw = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Wiring:
    """What a transform knows of one matrix, each entry a possible connection.

    active : bool, the connections there are. possible : bool, those there can be. sign : +1 or -1. may_flip : bool, whether the sign is
    drawn anew when the connection is made. n_begun : integer of no axis, how many were active at the start.
    """

    active: torch.Tensor
    possible: torch.Tensor
    sign: torch.Tensor
    may_flip: torch.Tensor
    n_begun: torch.Tensor


def setting_problems(settings: Any) -> Problems:
    """Return what is wrong with the settings that both transforms have."""
    problems = Problems(settings.name)
    if isinstance(settings.parameters, str):
        problems.add(f"parameters={settings.parameters!r} is one text. Give a list of names, parameters=[{settings.parameters!r}].")
    if not all(isinstance(share, Real) and 0 < share <= 1 for share in _each(settings.density)):
        problems.add(f"density={settings.density} is outside (0, 1]; it is the part of the possible connections that there are.")
    if settings.n_active is not None and not all(isinstance(n, Integral) and n >= 1 for n in _each(settings.n_active)):
        problems.add(f"n_active={settings.n_active} must be a whole number, at least 1, of all matrices or in a table by matrix.")
    if settings.signs not in SIGNS:
        problems.add(f"unknown signs {settings.signs!r}. Known: {', '.join(SIGNS)}.")
    if settings.excitatory is not None and not 0 <= settings.excitatory <= 1:
        problems.add(f"excitatory={settings.excitatory} is outside [0, 1]; it is the part of presynaptic neurons that excite.")
    if settings.excitatory is not None and settings.signs in ("resample", "fixed"):
        problems.add(f"signs={settings.signs!r} draws no signs of neurons, so that excitatory says nothing. Leave it out, or use 'dale'.")
    if settings.slots not in SLOTS:
        problems.add(f"unknown slots {settings.slots!r}. Known: {', '.join(SLOTS)}.")
    if not all(0 <= value < math.inf for value in (settings.l1, settings.temperature)):
        problems.add(f"l1={settings.l1} and temperature={settings.temperature} must be finite and not negative.")
    return problems


def _each(setting: Any) -> list[Any]:
    """Return the values of a table by matrix, or the one value for all."""
    return list(setting.values()) if isinstance(setting, Mapping) else [setting]


def check_training(settings: Any, plan: TrainingPlan) -> None:
    """Raise where the matrices cannot be told, or where the optimiser is known to stall."""
    for name in matrices(settings, plan.specs):
        _check_signs(settings, name, plan.specs[name])
    is_adaptive = plan.optimiser not in _UNSCALED
    if is_adaptive and "nll" in plan.losses and not settings.allow_adaptive:
        raise InvalidInputError(
            f"{settings.name} with optimiser {plan.optimiser!r} stalls when connections are inferred from a likelihood: it rescales the "
            "gradient of each weight, so that l1 is no longer comparable with it. Use optimiser.name='sgd' with a learning rate to suit "
            "(see the README of fitspike-deepr), or set allow_adaptive=true to go on all the same."
        )


def matrices(settings: Any, specs: Mapping[str, ParamSpec]) -> tuple[str, ...]:
    """Return the names of the parameters to rewire: those named, or all trainable ones with axes "post" and "pre"."""
    found = tuple(name for name, spec in specs.items() if spec.trainable and {"post", "pre"} <= set(spec.axes))
    chosen = settings.parameters or found
    unknown = [name for name in chosen if name not in specs or not specs[name].trainable]
    if unknown or not chosen:
        trained = [name for name, spec in specs.items() if spec.trainable]
        told = f"{', '.join(unknown)} cannot be rewired" if unknown else "no trainable parameter has the axes post and pre"
        raise InvalidInputError(
            f"{settings.name}: {told}. Name matrices in parameters=(...). Trainable parameters: {', '.join(trained) or 'none'}."
        )
    return chosen


def unsigned(settings: Any, specs: Mapping[str, ParamSpec]) -> dict[str, ParamSpec]:
    """Return the specs with constraints on signs taken off the matrices, so that a weight can be 0."""
    names = matrices(settings, specs)
    return {name: replace(spec, constraint=real) if name in names else spec for name, spec in specs.items()}


def possible_connections(name: str, raw: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Return where there can be connections: where the fixed parameter NAME_mask is not 0, if there is one; else everywhere."""
    weight = raw[name]
    mask = raw.get(f"{name}_mask")
    if mask is None:
        return torch.ones_like(weight, dtype=torch.bool)
    mask = mask.reshape(mask.shape + (1,) * (weight.ndim - mask.ndim)) != 0
    return mask.expand(weight.shape).clone()


def numbers_active(settings: Any, n_possible: Mapping[str, int]) -> dict[str, int]:
    """Return how many connections each matrix gets, at least one.

    A number in `n_active` is for all matrices together, in proportion to their possible connections; a table holds one for each.
    """
    given, wanted = settings.n_active, {}
    problems = Problems(settings.name)
    for setting, table in (("density", settings.density), ("n_active", given)):
        if isinstance(table, Mapping) and (unknown := [name for name in table if name not in n_possible]):
            problems.add(f"{setting} names {', '.join(unknown)}, and the matrices to rewire are {', '.join(n_possible)}.")
    for name, n in n_possible.items():
        if n == 0:
            problems.add(f"{name} has no possible connection. Allow some, or name other matrices in parameters=(...).")
    if isinstance(given, Integral):
        if given < len(n_possible):
            problems.add(f"n_active={given} for {len(n_possible)} matrices, {', '.join(n_possible)}; each needs at least one connection.")
        wanted = _in_proportion(int(given), n_possible)
    else:
        for name, n in n_possible.items():
            share = settings.density.get(name) if isinstance(settings.density, Mapping) else settings.density
            number = None if given is None else given.get(name)
            if number is None and share is None:
                problems.add(f"neither n_active nor density says how many connections {name} has.")
                continue
            wanted[name] = int(number) if number is not None else max(1, round(share * n))
    for name, number in wanted.items():
        if 0 < n_possible[name] < number:
            problems.add(f"{number} active connections of {name}, which has {n_possible[name]} possible ones. Lower n_active or density.")
    problems.raise_if_any()
    return wanted


def _in_proportion(total: int, n_possible: Mapping[str, int]) -> dict[str, int]:
    """Return a number of connections shared over matrices: one for each, the rest in proportion to what else is possible."""
    n_rest, room = total - len(n_possible), max(1, sum(n_possible.values()) - len(n_possible))
    edges = np.floor(np.cumsum([0.0, *(n_rest * (n - 1) / room for n in n_possible.values())]) + 0.5).astype(int)
    return {name: 1 + int(n) for name, n in zip(n_possible, np.diff(edges), strict=True)}


def given_signs(settings: Any, name: str, spec: ParamSpec, like: torch.Tensor, rng: Stream) -> tuple[torch.Tensor, torch.Tensor]:
    """Return each entry's sign and whether it is drawn anew; the weights to begin with say the sign where nothing else does."""
    drawn = random_signs(like, rng.child("signs"))
    own = torch.where(like == 0, drawn, torch.sign(like))
    rule = _check_signs(settings, name, spec)
    if rule != "dale":
        return own, torch.full_like(like, rule == "resample", dtype=torch.bool)
    if spec.constraint.kind == "sign":
        fixed = torch.as_tensor(spec.constraint.signs, dtype=like.dtype, device=like.device).expand(like.shape)
    else:
        column = rng.child("excitatory").numpy().random(like.shape[1]) < settings.excitatory
        fixed = torch.as_tensor(np.where(column, 1.0, -1.0), dtype=like.dtype, device=like.device)
        fixed = fixed.reshape((1, -1) + (1,) * (like.ndim - 2)).expand(like.shape)
    return torch.where(fixed == 0, own, fixed), fixed == 0


def _check_signs(settings: Any, name: str, spec: ParamSpec) -> str:
    """Return "dale", "resample" or "fixed"."""
    is_signed = spec.constraint.kind == "sign"
    if spec.constraint.kind not in ("real", "sign"):
        raise InvalidInputError(
            f"{settings.name}: {name} has the constraint {spec.constraint.kind!r}, under which no weight is 0. Only real and signed "
            "parameters can be rewired."
        )
    if settings.excitatory is not None and not is_signed and len(spec.shape) < 2:
        raise InvalidInputError(
            f"{settings.name}: excitatory draws a sign per presynaptic neuron, and {name} {tuple(spec.shape)} has no axis of them. "
            "Leave it out of parameters, or excitatory unset."
        )
    if settings.signs == "dale" and not is_signed and settings.excitatory is None:
        raise InvalidInputError(
            f"{settings.name}: signs='dale', and {name} has no signs. Give the model signs (dale=true, or one per neuron), or excitatory, "
            "the part of presynaptic neurons that excite, to draw them."
        )
    if is_signed and settings.signs in ("resample", "fixed"):
        raise InvalidInputError(
            f"{settings.name}: signs={settings.signs!r}, and the model gives {name} signs. Use 'auto' or 'dale', or a model without signs."
        )
    if settings.signs == "auto":
        return "dale" if is_signed or settings.excitatory is not None else "resample"
    return settings.signs


def random_signs(like: torch.Tensor, rng: Stream) -> torch.Tensor:
    """Return +1 and -1, each with probability one half."""
    drawn = rng.numpy().integers(0, 2, tuple(like.shape)) * 2 - 1
    return torch.as_tensor(drawn, dtype=like.dtype, device=like.device)


def flipped(wiring: Wiring, fresh: torch.Tensor, rng: Stream) -> torch.Tensor:
    """Return the signs, drawn anew for fresh connections where they may."""
    drawn = fresh & wiring.may_flip
    if not drawn.any():
        return wiring.sign
    sign = wiring.sign.clone()
    sign[drawn] = random_signs(sign[drawn], rng)
    return sign


def normals(like: torch.Tensor, rng: Stream) -> torch.Tensor:
    """Return standard normals."""
    return torch.as_tensor(rng.numpy().standard_normal(tuple(like.shape)), dtype=like.dtype, device=like.device)


def draw(available: torch.Tensor, n: int, rng: Stream) -> torch.Tensor:
    """Return n of the available connections, bool, drawn uniformly without replacement."""
    index = np.flatnonzero(available.cpu().numpy())
    chosen = torch.zeros(available.numel(), dtype=torch.bool)
    chosen[torch.as_tensor(rng.numpy().choice(index, n, replace=False, shuffle=False))] = True
    return chosen.reshape(available.shape).to(available.device)


def settle_slots(slots: OptimiserSlots, name: str, fresh: torch.Tensor, others: torch.Tensor, policy: str) -> None:
    """Give the optimiser's memory of fresh connections a start: "neutral", "reset" (all 0) or "keep".

    neutral: momenta 0, mean squares the mean of the other active connections', so that the first step is no larger than theirs.
    """
    if policy == "keep" or not fresh.any():
        return
    for key, value in slots.get(name).items():
        is_mean = policy == "neutral" and key in _MEAN_SQUARES and bool(others.any())
        start = value[others].mean() if is_mean else value.new_zeros(())
        slots.set(name, key, torch.where(fresh, start, value))


def with_masks(changed: Raw, raw: Mapping[str, torch.Tensor], state: Mapping[str, Wiring]) -> Raw:
    """Return parameters with NAME_mask, where the model has one, showing which connections there are."""
    masks = {}
    for name, wiring in state.items():
        mask = raw.get(f"{name}_mask")
        if mask is not None:
            active = wiring.active.flatten(mask.ndim).any(-1) if wiring.active.ndim > mask.ndim else wiring.active
            masks[f"{name}_mask"] = active.to(mask.dtype)
    return {**changed, **masks}
