"""Likelihood scores from block sums: bits per spike, pseudo-R2, log-likelihood, each with its bootstrap uncertainty."""

from __future__ import annotations

import numpy as np

from fitspike.rng import Stream
from fitspike.scoring.blocks import BlockSums
from fitspike.scoring.bootstrap import Uncertain, block_weights, spread, spread_per_neuron

LN2 = float(np.log(2.0))


def bits_per_spike(model: np.ndarray, null: np.ndarray, n_spikes: np.ndarray) -> np.ndarray:
    """Return (log L_model - log L_null) / (n_spikes ln 2), elementwise; NaN without spikes.

    The null model fires each neuron at its mean training rate (the convention of the Neural Latents Benchmark: Pei et al. 2021,
    NeurIPS Datasets and Benchmarks, with the training mean).
    """
    n_spikes = np.asarray(n_spikes, dtype=np.float64)
    return np.divide(model - null, n_spikes * LN2, out=np.full(np.shape(n_spikes), np.nan), where=n_spikes > 0)


def pseudo_r2(model: np.ndarray, null: np.ndarray, saturated: np.ndarray) -> np.ndarray:
    """Return 1 - (log L_sat - log L_model) / (log L_sat - log L_null), elementwise; NaN where the null is perfect.

    The fraction of the deviance of the mean-rate model that is explained (Cameron, Windmeijer 1997, J. Econometrics 77:329; as used by
    Benjamin et al. 2018, Front. Comput. Neurosci. 12:56). For a Bernoulli emission it is the Bernoulli deviance, with L_sat = 1.
    """
    gap = saturated - null
    return 1.0 - np.divide(saturated - model, gap, out=np.full(np.shape(gap), np.nan), where=gap > 1e-12)


def likelihood_scores(sums: BlockSums, n_bootstrap: int, stream: Stream) -> tuple[dict[str, Uncertain], dict[str, np.ndarray]]:
    """Return scores by name and, per neuron, arrays by name.

    Scores: log_likelihood (nats, all blocks and neurons), bits_per_spike (pooled: sums over all neurons' spikes), bits_per_spike_median
    (over neurons), pseudo_r2 (mean over neurons), pseudo_r2_median, pseudo_r2_pooled. Arrays (n_neurons,): bits_per_spike,
    bits_per_spike_se, pseudo_r2, log_likelihood, n_spikes.
    """
    totals = {name: getattr(sums, name).sum(axis=0) for name in ("model", "null", "saturated", "n_spikes")}
    weights = block_weights(sums.n_blocks, n_bootstrap, stream)
    drawn = {name: weights @ getattr(sums, name) for name in totals}  # (n_bootstrap, n_neurons)
    values = _values(totals)
    replicates = _values(drawn)
    if sums.n_blocks < 2:
        replicates = {name: np.full(n_bootstrap, np.nan) for name in replicates}
    scores = {name: spread(float(values[name]), replicates[name]) for name in values}
    neuron_bits = bits_per_spike(drawn["model"], drawn["null"], drawn["n_spikes"])
    per_neuron = {
        "bits_per_spike": bits_per_spike(totals["model"], totals["null"], totals["n_spikes"]),
        "bits_per_spike_se": spread_per_neuron(neuron_bits) if sums.n_blocks > 1 else np.full(sums.n_neurons, np.nan),
        "pseudo_r2": pseudo_r2(totals["model"], totals["null"], totals["saturated"]),
        "log_likelihood": totals["model"],
        "n_spikes": totals["n_spikes"].astype(np.int64),
    }
    return scores, per_neuron


def _values(totals: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return each score from totals (..., n_neurons), shape (...)."""
    pooled = {name: value.sum(axis=-1) for name, value in totals.items()}
    neuron_bits = bits_per_spike(totals["model"], totals["null"], totals["n_spikes"])
    neuron_r2 = pseudo_r2(totals["model"], totals["null"], totals["saturated"])
    return {
        "log_likelihood": pooled["model"],
        "bits_per_spike": bits_per_spike(pooled["model"], pooled["null"], pooled["n_spikes"]),
        "bits_per_spike_median": _over_neurons(np.nanmedian, neuron_bits),
        "pseudo_r2": _over_neurons(np.nanmean, neuron_r2),
        "pseudo_r2_median": _over_neurons(np.nanmedian, neuron_r2),
        "pseudo_r2_pooled": pseudo_r2(pooled["model"], pooled["null"], pooled["saturated"]),
    }


def _over_neurons(function, values: np.ndarray) -> np.ndarray:  # noqa: ANN001
    """Return a NaN-ignoring reduction over the last axis; NaN where all are."""
    known = np.isfinite(values).any(axis=-1)
    safe = np.where(known[..., None], values, 0.0)
    return np.where(known, function(safe, axis=-1), np.nan)
