"""The drives of coupled neurons bin by bin, spikes given or sampled on the way, and the derivatives of given-spike drives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from fitspike.kernels.dispatch import choose

MAX_EXPECTED = 500.0
"""Expected spike count per bin at which drives saturate in sampled runs: one that runs away stays finite, and exp(-count) above 0."""


@dataclass(frozen=True, eq=False)
class DriveFilters:
    """What a spike adds to later drives; each part may be None, all float64.

    own (n_neurons, n_lags): to the neuron itself. pair (n_pre, n_lags, n_post). shared (n_lags, n_post): of any neuron. With `decay`
    (n_filters,) the lag axis is the filter axis, and filter f goes on as decay[f] ** (lag - 1) without end.
    """

    own: np.ndarray | None = None
    pair: np.ndarray | None = None
    shared: np.ndarray | None = None
    decay: np.ndarray | None = None

    @property
    def n_lags(self) -> int:
        """Return how many bins of the past are needed; 0 for exponential filters."""
        if self.decay is not None:
            return 0
        lags = [0 if a is None else a.shape[axis] for a, axis in ((self.own, 1), (self.pair, 1), (self.shared, 0))]
        return max(lags)


@dataclass(frozen=True, eq=False)
class Regulation:
    """What bounds a drive and lets it follow slow changes of a neuron's rate, after all filters.

    drive' = low + log gain with low = min(drive, ceiling) and gain = (prior + Y) / (prior + E), where Y and E are fading sums of the
    counts so far and of those expected under `low`: Y(t + 1) = fade * (Y(t) + count(t)), both 0 at first. It is the posterior mean of a
    factor on the rate with a gamma prior of mean 1 worth `prior` spikes, under exponential forgetting. |log gain| stays within `limit`.

    ceiling (n_neurons,), inf where there is none. fade 0: no gain.
    """

    ceiling: np.ndarray
    fade: float = 0.0
    prior: float = 1.0
    limit: float = 0.0


class Driven(NamedTuple):
    """drive, spikes (n_trials, n_bins, n_neurons), float64; state (n_trials, n_filters, n_neurons) of exponential filters at the end.

    sums (n_trials, 2, n_neurons): a regulation's fading sums of counts and of expected counts at the end.
    """

    drive: np.ndarray
    spikes: np.ndarray
    state: np.ndarray
    sums: np.ndarray


def coupled_drive(
    base: np.ndarray,
    filters: DriveFilters,
    *,
    past: np.ndarray,
    state: np.ndarray,
    spikes: np.ndarray | None = None,
    clamped: np.ndarray | None = None,
    uniforms: np.ndarray | None = None,
    emission: str = "poisson",
    regulation: Regulation | None = None,
    sums: np.ndarray | None = None,
    threads: int | None = None,
    backend: str = "auto",
) -> Driven:
    """Return drives and spikes of consecutive bins.

    drive_i(t) = base_i(t) + what all earlier spikes add. Contributions are summed in the order of the spikes' time and neuron, whether
    spikes are given or sampled and however the bins are cut into calls, so that a replay gives the same numbers bit for bit.

    Parameters
    ----------
    base : ndarray, (n_trials, n_bins, n_neurons)
    past : ndarray, (n_trials, n_past, n_neurons)
        Counts in the bins before, the latest last; only finite filters read it.
    state : ndarray, (n_trials, n_filters, n_neurons)
        What exponential filters hold at the first bin.
    spikes : ndarray, (n_trials, n_bins, n_neurons), optional
        Given counts, used where `clamped`.
    clamped : ndarray of bool, (n_neurons,), optional
        Default: all, if spikes are given.
    uniforms : ndarray, (n_trials, n_bins, n_neurons), optional
        For the neurons that are not clamped. Bernoulli: a spike if drive > logit(u). Poisson: the smallest count whose cumulative
        probability reaches u. With them, drives saturate at `MAX_EXPECTED` expected spikes, those of
        clamped neurons too, so that a run replays exactly.
    regulation : Regulation, optional
        Applied to every drive before it is sampled from.
    sums : ndarray, (n_trials, 2, n_neurons), optional
        The regulation's fading sums at the first bin. Default: 0.
    threads : int, optional
        Default: as numba is set.
    """
    shape = base.shape
    if clamped is None:
        clamped = np.full(shape[2], spikes is not None)
    given = np.zeros(shape) if spikes is None else np.array(spikes, dtype=np.float64)
    run = choose("coupled_drive", backend, device="cpu").load()
    return run(
        np.array(base, dtype=np.float64, order="C"),
        filters,
        np.ascontiguousarray(past, dtype=np.float64),
        np.array(state, dtype=np.float64, order="C"),
        given,
        np.asarray(clamped, dtype=bool),
        np.zeros((0, 0, 0)) if uniforms is None else np.ascontiguousarray(uniforms, dtype=np.float64),
        emission,
        regulation,
        np.zeros((shape[0], 2, shape[2])) if sums is None else np.array(sums, dtype=np.float64, order="C"),
        threads,
    )


def coupled_drive_adjoint(
    residual: np.ndarray, filters: DriveFilters, *, past: np.ndarray, spikes: np.ndarray, backend: str = "auto"
) -> tuple[DriveFilters, np.ndarray]:
    """Return the derivatives of sum(residual * drive) by the filters, and by the state at the first bin (n_trials, n_filters, n_neurons).

    Parameters
    ----------
    residual, spikes : ndarray, (n_trials, n_bins, n_neurons)
    past : ndarray, (n_trials, n_past, n_neurons)
    """
    run = choose("coupled_drive_adjoint", backend, device="cpu").load()
    arrays = (np.ascontiguousarray(a, dtype=np.float64) for a in (residual, past, spikes))
    return run(*arrays, filters)
