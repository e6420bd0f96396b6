"""The score function (REINFORCE) as gradient estimator for losses on free runs: unbiased, and noisy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from fitspike.citation import Citation
from fitspike.errors import InvalidInputError
from fitspike.learning.base import Batch, RawParams, StepMetrics
from fitspike.learning.bptt import check_can_learn, gradients_of
from fitspike.learning.free_runs import start_free
from fitspike.losses.base import FreeRun, LossContext
from fitspike.losses.total import WeightedLosses, weighted_terms
from fitspike.params import ParamSpec, constrain
from fitspike.rng import Stream

if TYPE_CHECKING:
    from fitspike.models.base import DataInfo, Model
    from fitspike.recording.binned import SpikeChunk
    from fitspike.types import Params


@dataclass(frozen=True)
class ScoreFunction:
    """Gradient of losses on free runs by the score function, of all other losses by back-propagation.

    With the loss l(z, theta) of one free run z of all its trials, and R runs,

        d E[l] / d theta = E[ dl/dtheta (z held) + (l - b) d log P(z) / d theta ],   b = mean of l over the R - 1 other runs

    (Williams 1992, section 5), P being the probability of every sampled spike, those of hidden neurons too. No pseudo-derivative enters,
    so that this is the unbiased gradient which `bptt` approximates. Its variance grows with the number of trials, bins and neurons: use
    it to check surrogate gradients on small problems, or where spikes come from a device that nothing can be propagated through. A
    likelihood with hidden neurons still has its pseudo-derivative.

    n_runs : independent free runs per step, at least 2, each of as many trials as a free run has
    """

    name: ClassVar[str] = "score-function"
    citation: ClassVar[Citation] = Citation(
        "Williams 1992, Simple statistical gradient-following algorithms for connectionist reinforcement learning, "
        "Machine Learning 8:229-256",
        doi="10.1007/BF00992696",
        title="Simple statistical gradient-following algorithms for connectionist reinforcement learning",
        year="1992",
    )
    requires: ClassVar[frozenset[type]] = frozenset()
    n_runs: int = 4

    def __post_init__(self) -> None:
        if self.n_runs < 2:
            raise InvalidInputError(f"n_runs={self.n_runs}: each run is compared with the mean of the others. Use at least 2.")

    def bind(self, model: Model, specs: Mapping[str, ParamSpec], losses: WeightedLosses, data: DataInfo, rng: Stream) -> BoundScoreFunction:
        """Return the rule bound to a model and its losses.

        Raises
        ------
        InvalidInputError
            If no parameter is trainable, there is no loss, or a loss needs latents that the model does not have.
        """
        check_can_learn(model, specs, losses)
        return BoundScoreFunction(model, dict(specs), dict(losses), data, self.n_runs)


@dataclass(frozen=True)
class BoundScoreFunction:
    """The score function for one model and its losses."""

    model: Model
    specs: Mapping[str, ParamSpec]
    losses: WeightedLosses
    data: DataInfo
    n_runs: int

    def directions(self, raw: RawParams, batch: Batch) -> tuple[RawParams, StepMetrics]:
        """Return the estimated gradient per trainable raw parameter, and every loss term, its mean over runs; sets the new carry."""
        params = constrain(self.specs, raw)
        is_free = {name: "rollout" in loss.needs for name, (loss, _) in self.losses.items()}
        on_runs, others = ({name: self.losses[name] for name in is_free if is_free[name] == wanted} for wanted in (True, False))
        context = self._context(params, batch)
        terms, metrics = weighted_terms(others, context) if others else ({}, {"loss": 0.0})
        if on_runs:
            own, found = self._on_runs(on_runs, params, batch, context)
            terms, metrics = {**terms, **own}, {**metrics, **found, "loss": metrics["loss"] + found["loss"]}
        return gradients_of(terms, metrics, self.specs, raw, batch, context)

    def _context(self, params: Params, batch: Batch, run: FreeRun | None = None) -> LossContext:
        return LossContext(
            model=self.model,
            params=params,
            chunk=batch.chunk,
            data=self.data,
            rng=batch.rng,
            carry=batch.carry,
            recorded=batch.recorded,
            run_free=None if run is None else lambda: run,
        )

    def _on_runs(
        self, losses: WeightedLosses, params: Params, batch: Batch, context: LossContext
    ) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
        """Return per term a scalar with the estimated gradient, and the terms' means over runs."""
        found, log_probs, rows = [], [], []
        for number in range(self.n_runs):
            run, log_prob = self._run(params, batch, batch.rng.child(f"run/{number}"))
            of_run = self._context(params, batch, run)
            terms, metrics = weighted_terms(losses, of_run)
            context.new_carry = of_run.new_carry if of_run.new_carry is not None else context.new_carry
            found.append(terms)
            rows.append(metrics)
            log_probs.append(log_prob)
        surrogates = {}
        for name in found[0]:
            values = torch.stack([terms[name] for terms in found])
            others = (values.detach().sum() - values.detach()) / (self.n_runs - 1)
            surrogates[name] = (values + (values.detach() - others) * torch.stack(log_probs)).mean()
        return surrogates, {name: sum(row[name] for row in rows) / self.n_runs for name in rows[0]}

    def _run(self, params: Params, batch: Batch, rng: Stream) -> tuple[FreeRun, torch.Tensor]:
        """Return a free run replayed with all its spikes given, and the log-probability of all its spikes."""
        start = start_free(
            self.model, params, batch.chunk, batch.carry, rng, n_trials=batch.n_free_trials, has_repeats=self.data.has_repeats
        )
        given = {"uniforms": start.uniforms, "carry": start.carry}
        with torch.no_grad():
            sampled = self.model.rollout(params, start.chunk, **given)
        hidden = [sampled.latents["hidden_spikes"]] if "hidden_spikes" in sampled.latents else []
        spikes = torch.cat([sampled.spikes, *hidden], dim=-1)
        replayed = self.model.rollout(params, _all_sampled(start.chunk), observed=spikes, **given)
        log_prob = replayed.log_prob.sum()
        if hidden:
            log_prob = log_prob + replayed.latents["hidden_log_prob"].sum()
        return FreeRun(replayed, start.chunk), log_prob

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: runs are compared within a step."""
        return {}


def _all_sampled(chunk: SpikeChunk) -> SpikeChunk:
    """Return the chunk with every bin scored up to each trial's last: spikes of a warm-up, too, decide what comes after them."""
    return replace(chunk, mask_numpy=np.maximum.accumulate(chunk.mask_numpy[:, ::-1], axis=1)[:, ::-1].copy())
