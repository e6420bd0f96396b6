"""Compare models judged on the same held-out data: paired differences of their block log-likelihoods."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fitspike.rng import Stream
from fitspike.scoring.blocks import BlockSums
from fitspike.scoring.bootstrap import Uncertain, block_weights, spread
from fitspike.scoring.likelihood import bits_per_spike


@dataclass(frozen=True)
class PairedDifference:
    """How much better `other` is than the reference, bits per spike. n_better: neurons for which it is better, of n_neurons that spiked."""

    difference: Uncertain
    n_better: int
    n_neurons: int
    n_blocks: int


def reason_not_paired(reference: BlockSums, reference_hash: str, other: BlockSums, other_hash: str) -> str | None:
    """Return why two scores cannot be paired, or None if they can."""
    if reference_hash != other_hash:
        return "they were scored on different data (other neurons, trials, time range or spikes)"
    if reference.n_blocks != other.n_blocks or not np.array_equal(reference.start_ns, other.start_ns):
        return "their blocks differ; score both with the same block_s"
    return None


def paired_difference(reference: BlockSums, other: BlockSums, n_bootstrap: int, stream: Stream) -> PairedDifference:
    """Return the difference in bits per spike, pooled over neurons, with its bootstrap uncertainty over paired blocks.

    Each model's gain over its own mean-rate model is compared, so that models of different bin widths are measured on one scale.
    """
    gain = (other.model - other.null) - (reference.model - reference.null)  # (n_blocks, n_neurons)
    zero = np.zeros(())
    weights = block_weights(reference.n_blocks, n_bootstrap, stream)
    replicates = bits_per_spike(weights @ gain.sum(axis=1), np.zeros(n_bootstrap), weights @ reference.n_spikes.sum(axis=1))
    value = float(bits_per_spike(gain.sum(), zero, reference.n_spikes.sum()))
    spiked = reference.n_spikes.sum(axis=0) > 0
    n_better = int((gain.sum(axis=0)[spiked] > 0).sum())
    uncertain = spread(value, replicates) if reference.n_blocks > 1 else Uncertain(value)
    return PairedDifference(uncertain, n_better, int(spiked.sum()), reference.n_blocks)
