"""Priors on parameters as losses: L1, L2, group and smoothness penalties.

Each is minus the logarithm of a prior density, up to a constant, divided by the number of spike-bins of the training data. Beside a
negative log-likelihood per spike-bin the weighted sum is then the negative log-posterior per spike-bin, and a weight of 1 is a prior of
strength `scale` in nats, whatever the length of the recording. `parameters` names what is penalised; empty means every trainable
parameter with a "pre" axis, which are the couplings.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch

from fitspike.errors import InvalidInputError, did_you_mean
from fitspike.losses.base import LossContext, LossTerms


@dataclass(frozen=True)
class L1:
    """Laplace prior: scale * sum |w| nats."""

    name: ClassVar[str] = "l1"
    needs: ClassVar[frozenset[str]] = frozenset()
    scale: float = 1.0
    parameters: tuple[str, ...] = ()

    def __call__(self, context: LossContext) -> LossTerms:
        """Return {"l1": nats per spike-bin}."""
        return {self.name: _penalty(context, self.parameters, self.scale, lambda value, axes: value.abs().sum())}


@dataclass(frozen=True)
class L2:
    """Normal prior: scale / 2 * sum w^2 nats."""

    name: ClassVar[str] = "l2"
    needs: ClassVar[frozenset[str]] = frozenset()
    scale: float = 1.0
    parameters: tuple[str, ...] = ()

    def __call__(self, context: LossContext) -> LossTerms:
        """Return {"l2": nats per spike-bin}."""
        return {self.name: _penalty(context, self.parameters, self.scale, lambda value, axes: 0.5 * value.square().sum())}


@dataclass(frozen=True)
class Group:
    """Group penalty: scale * sum over groups of the root of the sum of squares; a group is all weights of one (post, pre) pair.

    Yuan and Lin 2006, J. R. Statist. Soc. B 68:49, Eq. 2.1, with all groups of one size. Parameters with fewer than three axes have
    groups of one weight, for which this is L1. The gradient at a group of zeros is 0.
    """

    name: ClassVar[str] = "group"
    needs: ClassVar[frozenset[str]] = frozenset()
    scale: float = 1.0
    parameters: tuple[str, ...] = ()

    def __call__(self, context: LossContext) -> LossTerms:
        """Return {"group": nats per spike-bin}."""
        return {self.name: _penalty(context, self.parameters, self.scale, _group_norms)}


@dataclass(frozen=True)
class Smoothness:
    """Normal prior on curvature: scale / 2 * sum of squared second differences along the last axis (lags, or neighbouring functions)."""

    name: ClassVar[str] = "smoothness"
    needs: ClassVar[frozenset[str]] = frozenset()
    scale: float = 1.0
    parameters: tuple[str, ...] = ()

    def __call__(self, context: LossContext) -> LossTerms:
        """Return {"smoothness": nats per spike-bin}."""
        return {self.name: _penalty(context, self.parameters, self.scale, lambda value, axes: 0.5 * value.diff(n=2, dim=-1).square().sum())}


def _group_norms(value: torch.Tensor, axes: tuple[str, ...]) -> torch.Tensor:
    squares = value.square() if value.ndim < 3 else value.square().flatten(2).sum(-1)
    is_zero = squares == 0
    return torch.where(is_zero, 0.0, torch.sqrt(torch.where(is_zero, 1.0, squares))).sum()


def _penalty(
    context: LossContext, parameters: tuple[str, ...], scale: float, measure: Callable[[torch.Tensor, tuple[str, ...]], torch.Tensor]
) -> torch.Tensor:
    """Return scale times the summed measure of the parameters, per spike-bin of the training data."""
    specs = context.model.param_specs(context.data)
    names = parameters or tuple(name for name, spec in specs.items() if spec.trainable and "pre" in spec.axes)
    for name in names:
        if name not in specs:
            raise InvalidInputError(f"a prior names {name!r}{did_you_mean(name, specs)} Parameters of this model: {', '.join(specs)}.")
    data = context.data
    n_bins = int(data.bins_per_trial.sum()) if data.n_scored_bins is None else data.n_scored_bins
    n_spike_bins = max(1, n_bins * data.n_neurons)
    values = [measure(context.params[name], specs[name].axes) for name in names]
    if not values:
        return next(iter(context.params.values())).new_zeros(())
    return scale * torch.stack(values).sum() / n_spike_bins
