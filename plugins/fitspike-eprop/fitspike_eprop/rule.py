"""The learning rule: e-prop for every model whose units it may drive itself, with any loss."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch

from fitspike.plugin import (
    Batch,
    Citation,
    DataInfo,
    HasUnits,
    Model,
    ParamSpec,
    Problems,
    Stream,
    check_can_learn,
    differentiate,
    leaky_readout,
)
from fitspike_eprop.checks import problems_of
from fitspike_eprop.driver import Driver
from fitspike_eprop.feedback import FEEDBACK, FeedbackWeights
from fitspike_eprop.local import OWN_SPIKE
from fitspike_eprop.remembered import OnlineCarry, OnlineDriver

IMPLEMENTATIONS = ("adjoint", "online", "autodiff")


@dataclass(frozen=True)
class EProp:
    """E-prop: every synapse combines what it knows itself, an eligibility trace, with a learning signal of its postsynaptic neuron.

    dE/dW_ji = sum_t (dE/du_j + psi_j (dE/dz_j + B_jk d_k)) du_j/dW_ji,    du_j/dW_ji along the neuron's own past only

    (Bellec et al. 2020, Nature Communications 11:3625.) u is the drive, z the spike, psi the pseudo-derivative. A likelihood of recorded
    spikes acts on u, a statistic of simulated ones on z or on the expected counts that follow from u. With all neurons recorded and
    clamped this is the exact gradient of the likelihood. Hidden neurons are told what the recorded neurons' drives, or a readout, would
    have them do, on the feedback weights B; paths from hidden neuron to hidden neuron pass nothing back, and equally those between
    freely running ones: what e-prop leaves out of `bptt`.

    implementation : "adjoint" goes back over the bins of a chunk, neuron by neuron; chunks are cut from one another. "online" hands
        eligibility from chunk to chunk, so that the sum over the chunks of a trial is the gradient of the whole, in memory that does not
        grow with the trial; for causal losses. "autodiff" differentiates a cut graph bin by bin: slow, for checks. All are the same within
        a chunk.
    feedback : "symmetric" (the forward weights), "random" (fixed), or "adaptive" (random, nearing the forward weights)
    own_spike : effects of a sampled neuron's spike on itself that are followed: "adaptation" (all but the reset), "none" or "all"
    feedback_scale : standard deviation of random feedback weights times the root of their number per target
    feedback_decay : fraction by which adaptive feedback nears the forward weights in a step
    """

    name: ClassVar[str] = "e-prop"
    citation: ClassVar[Citation] = Citation(
        "Bellec, Scherr, Subramoney, Hajek, Salaj, Legenstein, Maass 2020, A solution to the learning dilemma for recurrent networks of "
        "spiking neurons, Nature Communications 11:3625",
        doi="10.1038/s41467-020-17236-y",
        title="A solution to the learning dilemma for recurrent networks of spiking neurons",
        year="2020",
    )
    requires: ClassVar[frozenset[type]] = frozenset({HasUnits})
    implementation: str = "adjoint"
    feedback: str = "symmetric"
    own_spike: str | None = "adaptation"
    feedback_scale: float = 1.0
    feedback_decay: float = 1e-3

    def __post_init__(self) -> None:
        if self.own_spike is None:  # what the text "none" in a configuration stands for
            object.__setattr__(self, "own_spike", "none")
        problems = Problems("rule 'e-prop'")
        for name, value, known in (
            ("implementation", self.implementation, IMPLEMENTATIONS),
            ("feedback", self.feedback, FEEDBACK),
            ("own_spike", self.own_spike, OWN_SPIKE),
        ):
            if value not in known:
                problems.add(f"{name}={value!r} is unknown. Known: {', '.join(known)}.")
        if not 0.0 < self.feedback_scale < math.inf:
            problems.add(f"feedback_scale={self.feedback_scale} must be positive and finite.")
        if not 0.0 <= self.feedback_decay < 1.0:
            problems.add(f"feedback_decay={self.feedback_decay} is outside [0, 1).")
        problems.raise_if_any()

    def bind(
        self, model: Model, specs: Mapping[str, ParamSpec], losses: Mapping[str, tuple[Any, float]], data: DataInfo, rng: Stream
    ) -> BoundEProp:
        """Return the rule bound to a model and its losses.

        Raises
        ------
        InvalidInputError
            With everything that keeps e-prop from serving this model, its neurons or these losses, and what to do.
        """
        check_can_learn(model, specs, losses)
        problems = Problems(f"rule {self.name!r} cannot train model {model.name!r}")
        for problem in problems_of(self, model, specs, losses, data):
            problems.add(problem)
        problems.raise_if_any()
        weights = FeedbackWeights(self.feedback, self.feedback_scale, self.feedback_decay, rng.child("feedback"))
        return BoundEProp(self, model, dict(specs), dict(losses), data, weights)


@dataclass
class BoundEProp:
    """E-prop for one model and its losses."""

    rule: EProp
    model: Model
    specs: Mapping[str, ParamSpec]
    losses: Mapping[str, tuple[Any, float]]
    data: DataInfo
    weights: FeedbackWeights = field(repr=False)

    def directions(self, raw: Mapping[str, torch.Tensor], batch: Batch) -> tuple[dict[str, torch.Tensor], Mapping[str, float]]:
        """Return the e-prop gradient per trainable raw parameter, and every loss term; sets the batch's new carry."""
        driver = Driver(self.data.n_neurons, self.rule.own_spike, self._coupling_feedback, self.rule.implementation == "autodiff")
        if self.rule.implementation == "online":
            trained = [raw[name] for name, spec in self.specs.items() if spec.trainable]
            past = batch.carry
            driver = OnlineDriver.of(driver, trained, past)
            batch.carry = past.model if isinstance(past, OnlineCarry) else past
        model = self.model.driven_by(driver)
        found = differentiate(model, self.specs, self.losses, self.data, raw, batch, readout_by=self._read)
        if isinstance(driver, OnlineDriver):
            batch.carry, batch.new_carry = past, driver.carry_of(batch.new_carry)
        self.weights.after_step()
        return found

    def _coupling_feedback(self, weight: torch.Tensor) -> torch.Tensor:
        return self.weights.of("coupling", weight)

    def _read(self, name: str, spikes: torch.Tensor, weight: torch.Tensor, decay: torch.Tensor, gain: float) -> torch.Tensor:
        """Return a readout's outputs, whose signals travel back on the feedback weights."""
        outputs = leaky_readout(name, spikes.detach(), weight, decay, gain)
        sent = leaky_readout(name, spikes, self.weights.of(f"{name}/weight", weight), decay.detach(), gain)
        return outputs + (sent - sent.detach())

    def state_dict(self) -> dict[str, Any]:
        """Return the feedback weights that were drawn."""
        return self.weights.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over the feedback weights of another run."""
        self.weights.load_state_dict(state)
