"""Negative log-likelihood of the recorded neurons."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from fitspike.errors import InvalidInputError
from fitspike.losses.base import LossContext, LossTerms

if TYPE_CHECKING:
    from fitspike.recording.binned import BinnedSpikes


@dataclass(frozen=True)
class NegativeLogLikelihood:
    """Negative log-likelihood in nats per spike-bin: summed over trials, bins and recorded neurons, divided by how many of them are scored.

    A spike-bin is one (trial, bin, neuron) inside the chunk's mask. Dividing by their number makes chunks of any size comparable, and
    leaves weights of other losses meaningful on recordings of any length. The full-data likelihood is the term times the number of
    spike-bins. In a batch of trials that differ in length the short ones count less, as they do in the sum.

    With hidden neurons the model's log-likelihood is one sample of a lower bound (Bellec et al. 2021, NeurIPS 34), so this term is one
    sample of an upper bound on the negative log-likelihood.
    """

    name: ClassVar[str] = "nll"
    needs: ClassVar[frozenset[str]] = frozenset({"chunk"})

    def check(self, binned: BinnedSpikes, model: Any) -> None:
        """Raise where spikes do not happen by chance."""
        emission = model.emission_object() if hasattr(model, "emission_object") else None
        if getattr(emission, "is_deterministic", False):
            raise InvalidInputError(
                f"loss {self.name!r} needs spike probabilities, and emission {emission.name!r} is deterministic. Use emission='bernoulli', "
                "or a loss on a readout."
            )

    def __call__(self, context: LossContext) -> LossTerms:
        """Return {"nll": nats per spike-bin}; 0 for a chunk without scored bins. Sets the context's `new_carry`."""
        if hasattr(context.model, "clamped"):
            log_likelihood = context.clamped.log_prob
        else:
            log_likelihood, context.new_carry = context.model.log_likelihood(context.params, context.chunk, context.carry, context.rng)
        n_spike_bins = int(context.chunk.mask_numpy.sum()) * log_likelihood.shape[1]
        return {self.name: -log_likelihood.sum() / max(1, n_spike_bins)}
