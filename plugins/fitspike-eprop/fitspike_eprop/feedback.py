"""The weights on which learning signals travel back: those of the forward way, random ones, or random ones that come to agree with it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from fitspike.plugin import Stream

FEEDBACK = ("symmetric", "random", "adaptive")


class FeedbackWeights:
    """Feedback weights by name of the forward weights; drawn when first asked for, and kept.

    symmetric : the forward weights. random : fixed, normal, of standard deviation `scale` / sqrt(n_pre). adaptive : B = W + D, D starting
    from the random B less the first W and shrinking by `decay` a step. That is the difference of two matrices which receive the same
    updates and both decay by that fraction, from whatever values they start (Kolen and Pollack 1994); W itself is left to the optimiser.
    """

    def __init__(self, kind: str, scale: float, decay: float, rng: Stream) -> None:
        self.kind, self.scale, self.decay, self.rng = kind, scale, decay, rng
        self.kept: dict[str, torch.Tensor] = {}

    def of(self, name: str, weight: torch.Tensor) -> torch.Tensor:
        """Return the feedback weights of forward weights [post, pre, ...], of their shape."""
        weight = weight.detach()
        if self.kind == "symmetric":
            return weight
        if name not in self.kept:
            drawn = self.rng.child(name).numpy().standard_normal(tuple(weight.shape)) * self.scale / math.sqrt(weight[0].numel())
            random = torch.as_tensor(drawn).to(weight)
            self.kept[name] = random if self.kind == "random" else random - weight
        kept = self.kept[name].to(weight)
        return kept if self.kind == "random" else weight + kept

    def after_step(self) -> None:
        """Let adaptive feedback come nearer to the forward weights."""
        if self.kind == "adaptive":
            self.kept = {name: (1.0 - self.decay) * value for name, value in self.kept.items()}

    def state_dict(self) -> dict[str, Any]:
        """Return what is kept: random weights, or the differences of adaptive ones."""
        return {f"feedback/{name}": value for name, value in self.kept.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what another run kept."""
        self.kept = {name.removeprefix("feedback/"): torch.as_tensor(value) for name, value in state.items()}
