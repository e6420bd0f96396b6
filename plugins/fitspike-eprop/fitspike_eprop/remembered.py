"""E-prop forward in time from chunk to chunk: a neuron's state comes with its eligibility, its derivative by every parameter of its own.

Within a chunk the reverse pass sums over bins. Over the border between chunks the chain rule goes forward: the state that a chunk begins
with is a node of the graph whose derivative by the parameters is known, and the state that it ends with is differentiated once more, one
pass per entry of the state, because every parameter belongs to one neuron. With chunks of one bin these are the eligibility vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from fitspike.plugin import Driven, LinearState, RolloutCarry, fill, leaves
from fitspike_eprop.driver import Driver

Eligibilities = list[list[torch.Tensor]]
"""By tensor of the state, by parameter: (n_trials, n_entries, *parameter's shape), the parameter's first axis being the neuron."""


@dataclass(frozen=True)
class OnlineCarry:
    """What one chunk hands to the next: the model's own carry, and the eligibility of the units' states."""

    model: Any
    eligibility: Eligibilities


@dataclass
class OnlineDriver(Driver):
    """A driver that begins with what it remembers of the chunk before. trained : the raw parameters."""

    trained: Sequence[torch.Tensor] = ()
    past: Eligibilities | None = None
    found: Eligibilities = field(default_factory=list)

    @classmethod
    def of(cls, driver: Driver, trained: Sequence[torch.Tensor], carry: Any) -> OnlineDriver:
        """Return the driver for a chunk that begins with a carry, None at the start of a trial."""
        past = carry.eligibility if isinstance(carry, OnlineCarry) else None
        return cls(driver.n_recorded, driver.own_spike, driver.feedback, driver.by_autograd, trained, past)

    def carry_of(self, model_carry: Any) -> OnlineCarry:
        """Return the carry for the next chunk."""
        return OnlineCarry(model_carry, self.found)

    def __call__(self, neuron: Any, params: Any, emission: Any, *, carry: RolloutCarry | None = None, **how: Any) -> Driven:
        """Return what `rollout` returns, with gradients that reach back before the chunk."""
        if torch.is_grad_enabled() and carry is not None and self.past is not None:
            carry = replace(carry, neuron=_with_past(carry.neuron, self.past, self.trained))
        driven = super().__call__(neuron, params, emission, carry=carry, **how)
        if torch.is_grad_enabled():
            self.found = _eligibilities(driven.carry.neuron, self.trained)
        return driven


def _with_past(state: Any, past: Eligibilities, trained: Sequence[torch.Tensor]) -> Any:
    """Return the state as nodes whose derivatives by the parameters are the eligibilities."""
    is_linear = isinstance(state, LinearState)
    nodes = [_Known.apply(value, is_linear, own, *trained) for value, own in zip(leaves(state), past, strict=True)]
    return fill(state, iter(nodes))


def _eligibilities(state: Any, trained: Sequence[torch.Tensor]) -> Eligibilities:
    """Return the derivative of every entry of every neuron's state by the neuron's own parameters."""
    is_linear = isinstance(state, LinearState)
    return [_of_tensor(value, is_linear, trained) for value in leaves(state)]


def _of_tensor(value: torch.Tensor, is_linear: bool, trained: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    by_entry = _by_entry(value, is_linear)  # (n_trials, n_entries, n_neurons)
    n_trials, n_entries = by_entry.shape[:2]
    found = [p.new_zeros(n_trials, n_entries, *p.shape) for p in trained]
    if not by_entry.requires_grad:
        return found
    for trial in range(n_trials):
        for entry in range(n_entries):
            row = by_entry[trial, entry].sum()
            for into, gradient in zip(found, torch.autograd.grad(row, trained, retain_graph=True, allow_unused=True), strict=True):
                if gradient is not None:
                    into[trial, entry] = gradient
    return found


def _by_entry(value: torch.Tensor, is_linear: bool) -> torch.Tensor:
    """Return a tensor of a state as (n_trials, n_entries, n_neurons)."""
    if value.ndim == 2:
        return value.unsqueeze(1)
    return value if is_linear else value.flatten(2).transpose(1, 2)


class _Known(torch.autograd.Function):
    """A value whose derivative by the parameters is known."""

    @staticmethod
    def forward(ctx, value: torch.Tensor, is_linear: bool, eligibility: list[torch.Tensor], *trained: torch.Tensor) -> torch.Tensor:
        ctx.is_linear, ctx.eligibility = is_linear, eligibility
        return value.clone()

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> tuple[Any, ...]:
        told = _by_entry(gradient, ctx.is_linear)
        by_parameter = []
        for eligibility in ctx.eligibility:
            weight = told.reshape(*told.shape, *[1] * (eligibility.ndim - told.ndim))
            by_parameter.append((weight * eligibility).sum((0, 1)))
        return None, None, None, *by_parameter
