"""Scores of freely simulated trials against held-out trials of one repeated stimulus, and of couplings against the truth, in plain numpy.

Spikes are (n_trials, n_bins, n_neurons) 0/1 arrays of the same stimulus. R2 = 1 - sum (data - model)^2 / sum (data - mean data)^2, and may
be negative.
"""

from __future__ import annotations

import numpy as np


def r2(data: np.ndarray, model: np.ndarray) -> float:
    """Return the R2 of model values for data values of any one shape."""
    spread = np.square(data - data.mean()).sum()
    return float(1 - np.square(data - model).sum() / spread) if spread > 0 else np.nan


def psth_r2(data: np.ndarray, model: np.ndarray) -> float:
    """Return the mean over neurons of the R2 of the trial mean in each bin; neurons without spikes in the data do not count."""
    psth, simulated = data.mean(0), model.mean(0)
    return float(np.nanmean([r2(psth[:, i], simulated[:, i]) for i in range(psth.shape[1])]))


def rate_r2(data: np.ndarray, model: np.ndarray) -> float:
    """Return the R2 of mean rates over neurons."""
    return r2(data.mean((0, 1)), model.mean((0, 1)))


def noise_correlations(spikes: np.ndarray) -> np.ndarray:
    """Return the noise correlation of each pair i > j at lag 0, (n_pairs,).

    Covariance about the trial mean of each bin, times K / (K - 1) for K trials, over the product of the standard deviations about the
    neurons' overall means (Bellec et al. 2021 normalise by total variance). NaN where a neuron is silent.
    """
    spikes = spikes.astype(np.float64)
    n_trials, n_bins, n = spikes.shape
    centred = (spikes - spikes.mean(0)).reshape(-1, n)
    covariance = centred.T @ centred / (n_trials * n_bins) * n_trials / (n_trials - 1)
    sd = spikes.reshape(-1, n).std(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation = covariance / np.outer(sd, sd)
    return correlation[np.tril_indices(n, -1)]


def nc_r2(data: np.ndarray, model: np.ndarray) -> float:
    """Return the R2 of noise correlations over pairs of neurons; in a pair silent in the model the model's correlation is 0."""
    recorded, simulated = noise_correlations(data), np.nan_to_num(noise_correlations(model))
    known = np.isfinite(recorded)
    return r2(recorded[known], simulated[known])


def population_variance(spikes: np.ndarray) -> float:
    """Return the variance of the population mean about its trial mean in each bin, times K / (K - 1)."""
    mean = spikes.mean(2, dtype=np.float64)
    return float(np.square(mean - mean.mean(0)).mean() * len(spikes) / (len(spikes) - 1))


def popvar(data: np.ndarray, model: np.ndarray) -> float:
    """Return the model's population variance over that of the data."""
    return population_variance(model) / population_variance(data)


def activity_scores(data: np.ndarray, model: np.ndarray) -> dict[str, float]:
    """Return all scores of freely simulated trials by name."""
    return {"psth_r2": psth_r2(data, model), "rate_r2": rate_r2(data, model), "nc_r2": nc_r2(data, model), "popvar": popvar(data, model)}


def coupling_scores(truth: np.ndarray, fitted: np.ndarray) -> dict[str, float]:
    """Return Pearson r, R2 (scale counts) and mean bias of couplings [post, pre] summed over lags, without the diagonal."""
    off = ~np.eye(len(truth), dtype=bool)
    true, found = truth[off], fitted[off]
    return {"r": float(np.corrcoef(true, found)[0, 1]), "r2": r2(true, found), "bias": float((found - true).mean())}


def block_input(weight: np.ndarray, post: np.ndarray, pre: np.ndarray) -> float:
    """Return the summed weight from block `pre` onto a neuron of block `post`, mean over its neurons, without the diagonal.

    weight [post, pre]; post, pre (n_neurons,) bool.
    """
    without = weight - np.diag(np.diag(weight))
    return float(without[np.ix_(post, pre)].sum(1).mean())
