"""Uncertainty of sums over blocks of data: resample the blocks with replacement."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fitspike.rng import Stream

FEW_BLOCKS = 10
"""Below this many blocks a bootstrap standard error is itself too uncertain to be read as more than an order of magnitude."""


@dataclass(frozen=True)
class Uncertain:
    """A value with its bootstrap standard error and 95 % percentile interval; NaN where it could not be computed."""

    value: float
    se: float = float("nan")
    low: float = float("nan")
    high: float = float("nan")


def block_weights(n_blocks: int, n_bootstrap: int, stream: Stream) -> np.ndarray:
    """Return how often each block enters each bootstrap sample, (n_bootstrap, n_blocks) float64; rows sum to n_blocks."""
    if n_blocks == 0:
        return np.zeros((n_bootstrap, 0))
    return stream.numpy().multinomial(n_blocks, np.full(n_blocks, 1.0 / n_blocks), size=n_bootstrap).astype(np.float64)


def spread(value: float, replicates: np.ndarray) -> Uncertain:
    """Return a value with the standard deviation (ddof 1) and the 2.5 and 97.5 percentiles of its bootstrap replicates.

    Replicates that are not finite are left out; with fewer than half of them finite there is no uncertainty to state.
    """
    finite = replicates[np.isfinite(replicates)]
    if len(finite) < max(2, len(replicates) // 2):
        return Uncertain(float(value))
    low, high = np.percentile(finite, [2.5, 97.5])
    return Uncertain(float(value), float(finite.std(ddof=1)), float(low), float(high))


def spread_per_neuron(replicates: np.ndarray) -> np.ndarray:
    """Return each column's standard deviation over finite replicates (n_bootstrap, n_neurons) -> (n_neurons,); NaN with fewer than two."""
    finite = np.isfinite(replicates)
    number = finite.sum(axis=0)
    filled = np.where(finite, replicates, 0.0)
    mean = filled.sum(axis=0) / np.maximum(number, 1)
    squares = np.where(finite, (replicates - mean) ** 2, 0.0).sum(axis=0)
    return np.sqrt(np.divide(squares, number - 1, out=np.full(len(number), np.nan), where=number > 1))


def over_neurons(values: np.ndarray, n_bootstrap: int, stream: Stream, *, mean: bool = False) -> Uncertain:
    """Return the median (or mean) over neurons with finite values, and its uncertainty from resampling neurons; NaN without any."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return Uncertain(float("nan"))
    summary = np.mean if mean else np.median
    drawn = finite[stream.numpy().integers(0, len(finite), size=(n_bootstrap, len(finite)))]
    return spread(float(summary(finite)), summary(drawn, axis=1)) if len(finite) > 1 else Uncertain(float(finite[0]))
