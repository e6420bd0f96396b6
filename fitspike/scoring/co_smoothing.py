"""Co-smoothing: how well each neuron is predicted from the others alone."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import gammaln

from fitspike.errors import InvalidInputError
from fitspike.models.base import n_uniforms
from fitspike.recording.binned import BinnedSpikes, SpikeChunk
from fitspike.rng import Stream
from fitspike.scoring.blocks import BlockPlan, BlockSums, block_times_ns, plan_blocks, reference_sums

if TYPE_CHECKING:
    from fitspike.types import Params

RUNAWAY_RATE_HZ, RUNAWAY_FACTOR = 200.0, 5.0
"""A hidden neuron has run away if its expected rate over a block is above both this rate and this multiple of its training rate."""


def neuron_groups(n_neurons: int, n_groups: int, held_out: np.ndarray | None, stream: Stream) -> tuple[tuple[int, ...], ...]:
    """Return the groups of neurons to hide: the held-out ones if given, else all neurons dealt at random into `n_groups`."""
    if held_out is not None and len(held_out):
        return (tuple(int(i) for i in held_out),)
    order = stream.numpy().permutation(n_neurons)
    return tuple(tuple(sorted(int(i) for i in part)) for part in np.array_split(order, min(n_groups, n_neurons)))


def leading_blocks(binned: BinnedSpikes, plan: BlockPlan, max_bins: int) -> BlockPlan:
    """Return the leading blocks with at most `max_bins` scored bins together, time blocks cut finer where there would be fewer than ten."""
    if not plan.by_trial and max_bins < 10 * int(np.median(plan.stop_bin - plan.first_bin)):
        plan = plan_blocks(binned, max(1, max_bins // 10) * binned.dt_ms / 1000)
    total = np.cumsum(plan.stop_bin - plan.first_bin)
    used = slice(0, max(1, int(np.searchsorted(total, max_bins, side="right"))))
    return replace(plan, trial=plan.trial[used], first_bin=plan.first_bin[used], stop_bin=plan.stop_bin[used])


def co_smoothing_sums(
    model: Any,
    params: Params,
    binned: BinnedSpikes,
    plan: BlockPlan,
    rate: np.ndarray,
    *,
    groups: tuple[tuple[int, ...], ...],
    n_samples: int,
    is_binary: bool,
    stream: Stream,
) -> BlockSums:
    """Return block sums of the log-likelihood of neurons predicted from the other neurons' past only.

    Each group of neurons is hidden in turn: the others are clamped to the data, the hidden ones run free (a mixed rollout), and the
    expected count of a hidden neuron in a bin is averaged over `n_samples` such runs, which removes its own recorded past from the
    prediction. The likelihood is that of the mean expected count. It is the co-smoothing score of the Neural Latents Benchmark (Pei
    et al. 2021) in its causal form: the others' past is used, not their future. Few samples bias the score down by their
    sampling noise, never up in expectation (the logarithm is concave).

    Columns of neurons in no group are NaN.

    Raises
    ------
    InvalidInputError
        If hidden neurons run away: without their recorded past the model does not predict them but explodes.
    """
    null, saturated, n_spikes, n_bins = reference_sums(binned, plan, rate, is_binary=is_binary)
    total = np.full(null.shape, np.nan)
    for number, group in enumerate(groups):
        hidden = np.zeros(binned.n_neurons, dtype=bool)
        hidden[list(group)] = True
        total[:, hidden] = _hidden_log_likelihood(
            model, params, binned, plan, rate, hidden, n_samples, is_binary, stream.child(str(number))
        )
    known = np.isfinite(total).any(axis=0)
    start, stop = block_times_ns(binned, plan)
    hide = np.where(known, 1.0, np.nan)
    return BlockSums(total, null * hide, saturated * hide, n_spikes * hide, n_bins, start, stop)


def _hidden_log_likelihood(
    model: Any,
    params: Params,
    binned: BinnedSpikes,
    plan: BlockPlan,
    rate: np.ndarray,
    hidden: np.ndarray,
    n_samples: int,
    is_binary: bool,
    stream: Stream,
) -> np.ndarray:
    """Return the log-likelihood of the hidden neurons per block, (n_blocks, n_hidden) nats."""
    import torch

    total = np.zeros((plan.n_blocks, int(hidden.sum())))
    limit = np.maximum(RUNAWAY_RATE_HZ * binned.dt_ms / 1000, RUNAWAY_FACTOR * rate[hidden])
    clamped = torch.as_tensor(~hidden)
    n_units = n_uniforms(model, binned.n_neurons)
    for trial in np.unique(plan.trial):
        blocks = np.flatnonzero(plan.trial == trial)
        edges = sorted({0, *plan.first_bin[blocks].tolist(), *plan.stop_bin[blocks].tolist()})
        block_at = {int(plan.first_bin[b]): b for b in blocks}
        run_carry = intensity_carry = None
        for first, stop in zip(edges[:-1], edges[1:], strict=True):
            chunk = binned.chunk(np.full(n_samples, trial), first, stop - first)
            observed = chunk.dense("float64")
            uniforms = stream.uniforms(int(trial) * n_samples + np.arange(n_samples), range(first, stop), n_units)
            with torch.no_grad():
                run = model.rollout(
                    params, chunk, uniforms=torch.as_tensor(uniforms), observed=observed, observed_mask=clamped, carry=run_carry
                )
                run_carry = run.carry
                if "expected" in run.latents:
                    expected = run.latents["expected"]
                else:
                    mixed = chunk_of_spikes(chunk, run.spikes.detach().cpu().numpy())
                    expected, intensity_carry = model.intensity(params, mixed, intensity_carry)
            if first not in block_at:
                continue
            mean = expected.detach().cpu().numpy()[:, :, hidden].astype(np.float64).mean(axis=0)
            _check_bounded(mean, limit)
            spikes = observed[0].numpy()[:, hidden]
            total[block_at[first]] = _log_prob(spikes, mean, is_binary).sum(axis=0)
    return total


def _check_bounded(mean: np.ndarray, limit: np.ndarray) -> None:
    """Raise InvalidInputError if a neuron's mean expected count over a stretch (n_bins, n_hidden) is above its limit (n_hidden,)."""
    away = ~(mean.mean(axis=0) <= limit)
    if away.any():
        raise InvalidInputError(
            f"co-smoothing is undefined: {int(away.sum())} hidden neurons run away when they are predicted from the others and their own "
            "simulated past. Raise the penalties on history and coupling."
        )


def _log_prob(spikes: np.ndarray, mean: np.ndarray, is_binary: bool) -> np.ndarray:
    """Return log P(spikes) under a Bernoulli or Poisson distribution of that mean, elementwise."""
    if is_binary:
        mean = np.clip(mean, 1e-12, 1 - 1e-12)
        return spikes * np.log(mean) + (1 - spikes) * np.log1p(-mean)
    mean = np.maximum(mean, 1e-12)
    return spikes * np.log(mean) - mean - gammaln(spikes + 1)


def chunk_of_spikes(context: SpikeChunk, spikes: np.ndarray) -> SpikeChunk:
    """Return the chunk with its spikes replaced by dense ones, (n_trials, n_bins, n_neurons)."""
    row, bins, neuron = np.nonzero(spikes)
    count = np.rint(spikes[row, bins, neuron]).astype(np.int64)
    per_bin = np.bincount(row * context.n_bins + bins, minlength=context.n_trials * context.n_bins)
    flat = np.concatenate([[0], np.cumsum(per_bin)])
    at = np.arange(context.n_trials)[:, None] * context.n_bins + np.arange(context.n_bins + 1)[None, :]
    kind = np.uint16 if context.n_neurons <= np.iinfo(np.uint16).max else np.uint32
    return replace(
        context,
        row_pointer=flat[at].astype(np.int64),
        event_neuron=neuron.astype(kind),
        event_count=None if (count == 1).all() else count.astype(np.uint16),
    )
