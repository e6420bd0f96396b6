"""Optimisers of torch.optim by name, their schedules, and their state as flat arrays."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from fitspike.errors import InvalidInputError, UnknownNameError, did_you_mean

_NEEDS_CLOSURE = ("lbfgs",)
_NEEDS_SPARSE = ("sparseadam",)
SCHEDULES = ("cosine", "constant")


def known_optimisers() -> dict[str, type[torch.optim.Optimizer]]:
    """Return the optimisers that can be used, by lower-case name."""
    found = {}
    for name, value in vars(torch.optim).items():
        if isinstance(value, type) and issubclass(value, torch.optim.Optimizer) and value is not torch.optim.Optimizer:
            if name.lower() not in _NEEDS_CLOSURE + _NEEDS_SPARSE:
                found[name.lower()] = value
    return found


def make_optimiser(
    name: str, tensors: list[torch.Tensor], learning_rate: float, options: Mapping[str, Any] | None = None
) -> torch.optim.Optimizer:
    """Return an optimiser over the tensors.

    The Adam family gets eps = 1e-12 instead of torch's 1e-8 unless told otherwise: gradients of a loss per spike-bin are often below 1e-8
    in a network of many weights, and would be damped.

    Raises
    ------
    UnknownNameError, InvalidInputError
        For a name that torch.optim does not have, or options that the optimiser does not take.
    """
    known = known_optimisers()
    if name.lower() not in known:
        why = " It asks for the loss several times per step; use a model with a solver instead." if name.lower() in _NEEDS_CLOSURE else ""
        raise UnknownNameError(f"no optimiser {name!r}{did_you_mean(name.lower(), known) or '.'}{why} Known: {', '.join(sorted(known))}.")
    chosen = {"eps": 1e-12} if name.lower() in ("adam", "adamw", "nadam", "radam", "adamax") else {}
    try:
        return known[name.lower()](tensors, lr=learning_rate, **(chosen | dict(options or {})))
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"optimiser {name!r} with learning_rate={learning_rate} and {dict(options or {})}: {error}.") from error


def learning_rate_at(step: int, n_steps: int, start: float, schedule: str, final_fraction: float) -> float:
    """Return the learning rate of a step (0, 1, ...): constant, or on half a cosine from `start` to `start * final_fraction`."""
    if schedule == "constant":
        return start
    if schedule != "cosine":
        raise UnknownNameError(f"no schedule {schedule!r}{did_you_mean(schedule, SCHEDULES) or '.'} Known: {', '.join(SCHEDULES)}.")
    progress = min(1.0, step / max(1, n_steps - 1))
    return start * (final_fraction + (1.0 - final_fraction) * 0.5 * (1.0 + math.cos(math.pi * progress)))


def optimiser_arrays(optimiser: torch.optim.Optimizer, names: list[str]) -> dict[str, np.ndarray]:
    """Return the optimiser's state as arrays called "parameter/key", its tensors being called `names` in order."""
    arrays = {}
    for i, state in optimiser.state_dict()["state"].items():
        for key, value in state.items():
            if value is not None:
                arrays[f"{names[i]}/{key}"] = torch.as_tensor(value).detach().cpu().numpy().copy()
    return arrays


def load_optimiser(optimiser: torch.optim.Optimizer, names: list[str], arrays: Mapping[str, np.ndarray]) -> None:
    """Put the state that `optimiser_arrays` gave back into a fresh optimiser of the same kind."""
    state: dict[int, dict[str, torch.Tensor]] = {}
    for path, value in arrays.items():
        name, _, key = path.rpartition("/")
        state.setdefault(names.index(name), {})[key] = torch.as_tensor(np.array(value))
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})


class OptimiserSlots:
    """What an optimiser remembers of each entry of a parameter: momenta, mean squares. Update transforms read and set it."""

    def __init__(self, optimiser: torch.optim.Optimizer, tensors: Mapping[str, torch.Tensor]) -> None:
        self._optimiser, self._tensors = optimiser, tensors

    def get(self, parameter: str) -> dict[str, torch.Tensor]:
        """Return copies of the slots of a parameter, each of its shape, by the optimiser's names ("exp_avg", "momentum_buffer", ...)."""
        return {key: value.detach().clone() for key, value in self._of(parameter).items()}

    def set(self, parameter: str, key: str, value: torch.Tensor) -> None:
        """Put a value into a slot of a parameter."""
        with torch.no_grad():
            self._of(parameter)[key].copy_(value)

    def _of(self, parameter: str) -> dict[str, torch.Tensor]:
        tensor = self._tensors[parameter]
        state = self._optimiser.state.get(tensor, {})
        return {key: value for key, value in state.items() if isinstance(value, torch.Tensor) and value.shape == tensor.shape}
