"""Held-out data cut into blocks (trials, or stretches of a long trial), and log-likelihoods summed per block and neuron.

Every likelihood score and its uncertainty is computed from these sums alone, and two models are compared by pairing their blocks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import gammaln

from fitspike.errors import InvalidInputError
from fitspike.units import NS_PER_S

if TYPE_CHECKING:
    from fitspike.recording.binned import BinnedSpikes

TRIALS_AS_BLOCKS = 20
"""From this many trials on, each trial is one block; with fewer, trials are cut into blocks of time."""

N_TIME_BLOCKS = 40
SHORTEST_BLOCK_S = 1.0


@dataclass(frozen=True, eq=False)
class BlockPlan:
    """Which block each bin belongs to. trial, first_bin, stop_bin (n_blocks,): the scored bins of each block."""

    trial: np.ndarray
    first_bin: np.ndarray
    stop_bin: np.ndarray
    block_s: float
    by_trial: bool

    @property
    def n_blocks(self) -> int:
        """Return the number of blocks."""
        return len(self.trial)

    def describe(self) -> str:
        """Return the blocks in words, as a report states them."""
        return f"{self.n_blocks} trials" if self.by_trial else f"{self.n_blocks} time blocks of {self.block_s:g} s"


def plan_blocks(binned: BinnedSpikes, block_s: float | None = None) -> BlockPlan:
    """Return the blocks of binned data.

    With at least 20 trials each trial is a block. Otherwise the scored part of each trial is cut into stretches of `block_s` (default: a
    fortieth of the scored time, at least 1 s); a rest shorter than half a block joins the one before it.
    """
    scored = np.asarray(binned.bins_per_trial) - np.asarray(binned.warmup_bins)
    if block_s is None and int((scored > 0).sum()) >= TRIALS_AS_BLOCKS:
        trial = np.flatnonzero(scored > 0)
        block = float(scored[trial].mean()) * binned.dt_ns / NS_PER_S
        return BlockPlan(trial, np.asarray(binned.warmup_bins)[trial], np.asarray(binned.bins_per_trial)[trial], block, True)
    total_s = float(scored.sum()) * binned.dt_ns / NS_PER_S
    # Rounded to 10 ms so that runs of different bin widths cut the same data into the same blocks.
    seconds = max(SHORTEST_BLOCK_S, round(total_s / N_TIME_BLOCKS, 2)) if block_s is None else block_s
    n_bins = max(1, round(seconds * NS_PER_S / binned.dt_ns))
    rows = []
    for k in np.flatnonzero(scored > 0):
        warmup, stop = int(binned.warmup_bins[k]), int(binned.bins_per_trial[k])
        number = max(1, round((stop - warmup) / n_bins))
        edges = [warmup + i * n_bins for i in range(number)] + [stop]
        rows += [(k, first, last) for first, last in zip(edges[:-1], edges[1:], strict=True)]
    table = np.array(rows, dtype=np.int64).reshape(-1, 3)
    return BlockPlan(table[:, 0], table[:, 1], table[:, 2], n_bins * binned.dt_ns / NS_PER_S, False)


def block_of_bin(binned: BinnedSpikes, plan: BlockPlan) -> np.ndarray:
    """Return the block of each global bin, (n_bins_total,) int64, -1 in warm-ups."""
    block = np.full(binned.n_bins_total, -1, dtype=np.int64)
    offset = np.asarray(binned.trial_offset)
    for number, (trial, first, stop) in enumerate(zip(plan.trial, plan.first_bin, plan.stop_bin, strict=True)):
        block[offset[trial] + first : offset[trial] + stop] = number
    return block


@dataclass(frozen=True, eq=False)
class BlockSums:
    """Log-likelihoods, nats, and spike counts summed over each block, all (n_blocks, n_neurons).

    `null` is the mean-rate model: every bin has the neuron's mean training count. `saturated` gives each bin its own count.
    start_ns, stop_ns (n_blocks,): where each block lies in the recording. n_bins (n_blocks,): scored bins.
    """

    model: np.ndarray
    null: np.ndarray
    saturated: np.ndarray
    n_spikes: np.ndarray
    n_bins: np.ndarray
    start_ns: np.ndarray
    stop_ns: np.ndarray

    @property
    def n_blocks(self) -> int:
        """Return the number of blocks."""
        return len(self.n_bins)

    @property
    def n_neurons(self) -> int:
        """Return the number of neurons."""
        return self.model.shape[1]

    def arrays(self) -> dict[str, np.ndarray]:
        """Return all arrays by name, as a run folder stores them."""
        return {entry.name: getattr(self, entry.name) for entry in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> BlockSums:
        """Return block sums from stored arrays."""
        return cls(**{entry.name: np.asarray(arrays[entry.name]) for entry in fields(cls)})


def null_rate(mean_count: np.ndarray, n_training_bins: int, *, is_binary: bool) -> np.ndarray:
    """Return each neuron's expected count per bin under the mean-rate model, (n_neurons,).

    That is the mean count per training bin. A neuron silent in training would make every held-out spike infinitely unlikely; it gets the
    rate of half a spike in the training time. A binary neuron that spikes in every bin likewise loses half a spike.
    """
    half = 0.5 / max(1, n_training_bins)
    rate = np.maximum(np.nan_to_num(np.asarray(mean_count, dtype=np.float64)), half)
    return np.minimum(rate, 1.0 - half) if is_binary else rate


def reference_sums(
    binned: BinnedSpikes, plan: BlockPlan, rate: np.ndarray, *, is_binary: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return null and saturated log-likelihood, spike counts (n_blocks, n_neurons) and bins (n_blocks,), straight from events.

    Poisson: log L = sum_t k log r - r - log k!, saturated with r = k (k log k - k - log k!). Binary: log L = sum_t k log p +
    (1 - k) log(1 - p), saturated 0.

    Raises
    ------
    InvalidInputError
        If a binary model meets a bin with several spikes.
    """
    block = block_of_bin(binned, plan)[np.asarray(binned.event_bin)]
    keep = block >= 0
    count = np.ones(len(block)) if binned.event_count is None else np.asarray(binned.event_count, dtype=np.float64)
    block, count = block[keep], count[keep]
    if is_binary and (count > 1).any():
        raise InvalidInputError(
            f"{np.count_nonzero(count > 1)} bins hold several spikes of one neuron, which a Bernoulli model cannot score. "
            "Use a smaller dt_ms or a model with emission='poisson'."
        )
    neuron = np.asarray(binned.event_neuron)[keep].astype(np.int64)
    shape = (plan.n_blocks, binned.n_neurons)

    def per_cell(values: np.ndarray) -> np.ndarray:
        flat = np.bincount(block * shape[1] + neuron, weights=values, minlength=shape[0] * shape[1])
        return flat.reshape(shape)

    n_spikes, n_bins = per_cell(count), plan.stop_bin - plan.first_bin
    if is_binary:
        silent = n_bins[:, None] - n_spikes
        return n_spikes * np.log(rate) + silent * np.log1p(-rate), np.zeros(shape), n_spikes, n_bins
    log_factorial = per_cell(gammaln(count + 1))
    null = n_spikes * np.log(rate) - n_bins[:, None] * rate - log_factorial
    saturated = per_cell(count * np.log(count) - count - gammaln(count + 1))
    return null, saturated, n_spikes, n_bins


def block_times_ns(binned: BinnedSpikes, plan: BlockPlan) -> tuple[np.ndarray, np.ndarray]:
    """Return where each block starts and stops in the recording, (n_blocks,) int64 ns each."""
    begin = np.asarray(binned.start_ns)[plan.trial]
    return begin + plan.first_bin * binned.dt_ns, begin + plan.stop_bin * binned.dt_ns


def data_hash(binned: BinnedSpikes) -> str:
    """Return a SHA-256 of what is scored: neuron ids, scored time of each trial, and spikes per neuron in each trial.

    Two runs with equal hashes were judged on the same spikes, whatever their bin width.
    """
    digest = hashlib.sha256()
    digest.update("\0".join(map(str, binned.neurons.ids)).encode())
    start = np.asarray(binned.start_ns) + np.asarray(binned.warmup_bins) * binned.dt_ns
    stop = np.asarray(binned.start_ns) + np.asarray(binned.bins_per_trial) * binned.dt_ns
    # Whole 100 ms: the last bin of a trial may be cut differently by different bin widths.
    digest.update(np.stack([start, stop]).astype("<i8") // 100_000_000)
    digest.update(np.ascontiguousarray(binned.counts(scored_only=True), dtype="<i8"))
    return digest.hexdigest()


def plan_batches(binned: BinnedSpikes, plan: BlockPlan, max_values: int) -> Iterator[tuple[np.ndarray, list[int]]]:
    """Yield (trials, bin edges) such that every trial is covered once and every block starts and stops at an edge.

    At most `max_values` entries (n_trials, n_bins, n_neurons) lie between two edges.
    """
    per_bin = max(1, binned.n_neurons)
    if plan.by_trial:
        longest = int(np.max(binned.bins_per_trial))
        n_bins = max(1, min(longest, max_values // per_bin))
        batch = max(1, max_values // (per_bin * n_bins))
        for at in range(0, plan.n_blocks, batch):
            trials = plan.trial[at : at + batch]
            stop = int(np.max(np.asarray(binned.bins_per_trial)[trials]))
            yield trials, _edges([0, stop], n_bins)
        return
    n_bins = max(1, max_values // per_bin)
    for k in np.unique(plan.trial):
        cuts = {0, *plan.first_bin[plan.trial == k].tolist(), *plan.stop_bin[plan.trial == k].tolist()}
        yield np.array([k]), _edges(sorted(cuts), n_bins)


def _edges(cuts: list[int], longest: int) -> list[int]:
    """Return the cuts with further ones between them so that none is further than `longest` from the next."""
    edges = [cuts[0]]
    for stop in cuts[1:]:
        edges += [*range(edges[-1] + longest, stop, longest), stop]
    return edges
