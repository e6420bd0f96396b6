"""The optimum of a coupled Bernoulli GLM's likelihood by scipy's L-BFGS on a dense design: the problem is convex, so no fit does better."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit


@dataclass(frozen=True, eq=False)
class Optimum:
    """bias (n_post,); stimulus_weight (n_post, n_features); coupling (n_post, n_pre, n_lags) [post, pre, lag]; log-odds."""

    bias: np.ndarray
    stimulus_weight: np.ndarray
    coupling: np.ndarray

    def nll(self, spikes: np.ndarray, stimulus: np.ndarray) -> float:
        """Return the negative log-likelihood of the first n_post neurons, nats per bin and neuron."""
        features = self.coupling.shape[2]
        weights = np.concatenate([self.bias[None], self.stimulus_weight.T, self.coupling.transpose(2, 1, 0).reshape(-1, len(self.bias))])
        drive = design(spikes, stimulus, features) @ weights
        return _mean_nll(drive, _rows(spikes, len(self.bias)))


def design(spikes: np.ndarray, stimulus: np.ndarray, n_lags: int) -> np.ndarray:
    """Return the regressors of every bin, (n_trials * n_bins, 1 + n_features + n_lags * n_neurons): 1, stimulus, spikes of lags 1, 2, ...

    Trials begin with a silent past. spikes (n_trials, n_bins, n_neurons); stimulus (n_bins, n_features), the same in every trial.
    """
    n_trials, n_bins, n = spikes.shape
    columns = [np.ones((n_trials, n_bins, 1)), np.broadcast_to(stimulus, (n_trials, *stimulus.shape))]
    for lag in range(1, n_lags + 1):
        shifted = np.zeros((n_trials, n_bins, n))
        shifted[:, lag:] = spikes[:, :-lag]
        columns.append(shifted)
    return np.concatenate(columns, axis=2).reshape(n_trials * n_bins, -1)


def fit_optimum(spikes: np.ndarray, stimulus: np.ndarray, n_lags: int, *, n_post: int | None = None) -> Optimum:
    """Return the parameters that maximise the likelihood of the first `n_post` neurons given all neurons' past."""
    n = spikes.shape[2]
    n_post = n if n_post is None else n_post
    x, y = design(spikes, stimulus, n_lags), _rows(spikes, n_post)
    size = len(x) * n_post

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        drive = x @ flat.reshape(-1, n_post)
        return _mean_nll(drive, y), (x.T @ (expit(drive) - y) / size).ravel()

    start = np.zeros((x.shape[1], n_post))
    start[0] = np.log(y.mean(0) / (1 - y.mean(0)))
    found = minimize(loss, start.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": 1000, "maxcor": 20, "ftol": 1e-9, "gtol": 1e-7})
    weights = found.x.reshape(-1, n_post)
    n_features = stimulus.shape[1]
    coupling = weights[1 + n_features :].reshape(n_lags, n, n_post).transpose(2, 1, 0)
    return Optimum(weights[0], weights[1 : 1 + n_features].T, coupling)


def _rows(spikes: np.ndarray, n_post: int) -> np.ndarray:
    return spikes[..., :n_post].reshape(-1, n_post).astype(np.float64)


def _mean_nll(drive: np.ndarray, spikes: np.ndarray) -> float:
    """Return the mean of log(1 + exp(drive)) - spike * drive."""
    return float((np.logaddexp(0.0, drive) - spikes * drive).mean())
