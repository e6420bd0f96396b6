"""What the neuron models' settings have in common: checks, refractory bins, and specs of parameters that start at a setting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from numbers import Real
from typing import Any

import torch

from fitspike.plugin import NEVER_DRIVE, InvalidInputError, ParamSpec, Problems


def check_settings(neuron: Any, positive: Sequence[str], *, may_be_zero: Sequence[str] = ()) -> None:
    """Raise an InvalidInputError that names every setting of another type than declared, not positive, or (where it may be 0) negative."""
    problems = Problems(f"neuron {neuron.name!r}")
    wrong = set()
    for field in fields(neuron):
        if (expected := _unlike(getattr(neuron, field.name), str(field.type))) is not None:
            wrong.add(field.name)
            problems.add(f"{field.name}={getattr(neuron, field.name)!r} must be {expected}.")
    for name in positive:
        if name not in wrong and not getattr(neuron, name) > 0:
            problems.add(f"{name}={getattr(neuron, name)} must be positive.")
    for name in may_be_zero:
        if name not in wrong and not getattr(neuron, name) >= 0:
            problems.add(f"{name}={getattr(neuron, name)} must not be negative.")
    problems.raise_if_any()


def _unlike(value: Any, declared: str) -> str | None:
    """Return what a value should be by its declaration, or None if it is."""
    if value is None and "None" in declared:
        return None
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if declared.startswith("tuple"):
        return None if isinstance(value, tuple | list) else "a list"
    if declared.startswith("int"):
        return None if is_number and value == value // 1 else "a whole number"
    if declared.startswith("float"):
        return None if is_number or ("tuple" in declared and isinstance(value, tuple | list)) else "a number"
    return None


def with_trained(name: str, train: Sequence[str], specs: Mapping[str, ParamSpec]) -> dict[str, ParamSpec]:
    """Return the specs of the neuron called `name`, those in `train` trainable and all others fixed.

    Raises
    ------
    InvalidInputError
        If `train` names no parameter of this neuron, or the softness, which only scales drives.
    """
    able = [parameter for parameter in specs if not parameter.startswith("softness")]
    unknown = [parameter for parameter in train if parameter not in able]
    if unknown:
        raise InvalidInputError(f"neuron {name!r}: train names {', '.join(unknown)}. It can name: {', '.join(able)}.")
    return {parameter: replace(spec, trainable=parameter in train) for parameter, spec in specs.items()}


def n_refractory(refractory_ms: float, dt_ms: float) -> int:
    """Return in how many bins after a spike a neuron cannot spike."""
    return round(refractory_ms / dt_ms)


def refractory(n_bins: int, bins_left: torch.Tensor, spikes: torch.Tensor, drive: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the refractory bins left, this one included, and the drive with NEVER_DRIVE where there are any."""
    if not n_bins:
        return bins_left, drive
    bins_left = torch.where(spikes.detach() > 0, float(n_bins), (bins_left - 1.0).clamp_min(0.0))
    return bins_left, torch.where(bins_left > 0, NEVER_DRIVE, drive)
