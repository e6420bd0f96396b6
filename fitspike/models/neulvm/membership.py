"""Which population each observed neuron belongs to, from the spike trains."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.cluster.vq import kmeans2
from scipy.ndimage import gaussian_filter1d

from fitspike.errors import InvalidInputError
from fitspike.kernels.mesoscopic import Constants, log_prob
from fitspike.models.neulvm.latents import Problem
from fitspike.rng import Stream


def cluster_neurons(
    spikes: Sequence[np.ndarray], n_populations: int, *, dt_s: float, smoothing_s: float, stream: Stream, n_starts: int = 10
) -> tuple[np.ndarray, np.ndarray]:
    """Return each neuron's population (n_neurons,) and the confidence in it (n_neurons,), by k-means of smoothed spike trains.

    spikes: per trial (n_bins, n_neurons). Populations are numbered by falling mean rate of their neurons. Confidence is the silhouette-like
    1 - d_own / d_next of distances to the own and the next centre, from 0 (as near to another) to 1.

    Raises
    ------
    InvalidInputError
        If there are fewer neurons than populations, or a population stays empty.
    """
    traces = np.concatenate([gaussian_filter1d(np.minimum(s, 1).astype(np.float64), smoothing_s / dt_s, axis=0) for s in spikes]).T / dt_s
    if len(traces) < n_populations:
        raise InvalidInputError(f"{len(traces)} observed neurons cannot be split into {n_populations} populations. Ask for fewer.")
    best, best_spread = None, np.inf
    for start in range(n_starts):
        centres, labels = kmeans2(traces, n_populations, minit="++", rng=stream.child(f"start-{start}").numpy(), missing="warn")
        spread = float(((traces - centres[labels]) ** 2).sum())
        if spread < best_spread and len(np.unique(labels)) == n_populations:
            best, best_spread = (centres, labels), spread
    if best is None:
        raise InvalidInputError(
            f"no clustering of {len(traces)} neurons into {n_populations} populations leaves each with a neuron. "
            "Ask for fewer populations, or give the membership as population labels."
        )
    centres, labels = best
    order = np.argsort(-np.array([traces[labels == m].mean() for m in range(n_populations)]), kind="stable")
    rank = np.empty(n_populations, dtype=np.int64)
    rank[order] = np.arange(n_populations)
    distance = np.sqrt(((traces[:, None, :] - centres[None]) ** 2).sum(axis=2))
    own = distance[np.arange(len(labels)), labels]
    distance[np.arange(len(labels)), labels] = np.inf
    confidence = 1.0 - own / np.maximum(distance.min(axis=1), 1e-12) if n_populations > 1 else np.ones(len(labels))
    return rank[labels], np.clip(confidence, 0.0, 1.0)


def reassign(problem: Problem, activity: Sequence[np.ndarray], constants: Constants) -> tuple[np.ndarray, np.ndarray]:
    """Return the population under which each neuron's spikes are likeliest given the activity, and how sure that is (n_neurons,).

    One pass after a fit: each neuron is scored under every population's potential, all else fixed. The confidence is its posterior
    probability with equal priors. activity: per piece (n_bins, n_populations).
    """
    n_neurons, n_populations = len(problem.membership), len(constants.tau_s)
    table = np.zeros((n_neurons, n_populations))
    for piece, path in zip(problem.pieces, activity, strict=True):
        for i in range(n_neurons):
            for m in range(n_populations):
                _, log_spikes, _ = log_prob(
                    path,
                    piece.spikes[:, [i]],
                    np.array([m]),
                    piece.drive_per_s,
                    constants,
                    first_bin=piece.n_history,
                    with_gradient=False,
                )
                table[i, m] += log_spikes
    best = table.argmax(axis=1)
    odds = np.exp(table - table.max(axis=1, keepdims=True))
    return best, 1.0 / odds.sum(axis=1)
