"""Small recordings for the coupled GLM's tests, and a design matrix built by plain loops."""

from __future__ import annotations

import numpy as np

from fitspike.models.base import SolverContext
from fitspike.models.coupled_glm import CoupledGLM
from fitspike.params import initial_params
from fitspike.recording.binned import BinnedSpikes
from fitspike.recording.recording import Recording
from fitspike.recording.tables import Signal
from fitspike.rng import Stream

DT_MS = 5.0


def simulated_counts(n_trials: int, n_bins: int, n_neurons: int, *, seed: int = 0, rate: float = 0.12, binary: bool = False) -> np.ndarray:
    """Return counts (n_trials, n_bins, n_neurons) of neurons that inhibit themselves and are driven by their left neighbour."""
    random = Stream(seed, "simulated").numpy()
    counts = np.zeros((n_trials, n_bins, n_neurons), dtype=np.int64)
    trace = np.zeros((n_trials, n_neurons))
    for t in range(n_bins):
        drive = np.log(rate) - 0.8 * trace + 0.6 * np.roll(trace, 1, axis=1)
        counts[:, t] = random.random(trace.shape) < np.exp(drive) if binary else random.poisson(np.exp(np.minimum(drive, 1.0)))
        trace = 0.6 * trace + counts[:, t]
    return counts


def recording(counts: np.ndarray, *, with_signal: bool = False, conditions: list[str] | None = None) -> Recording:
    """Return counts as a recording, with a smooth two-channel signal if asked for."""
    result = Recording.from_counts(counts, dt_ms=DT_MS, conditions=conditions)
    if not with_signal:
        return result
    stop_s = float(result.trials.stop_ns.max()) * 1e-9
    noise = Stream(9, "signal").numpy().standard_normal((round(stop_s * 1000 / DT_MS) + 1, 2))
    smooth = np.stack([np.convolve(noise[:, c], np.ones(20) / 4, mode="same") for c in range(2)], axis=1)
    return result.attach(signals={"light": Signal(smooth + np.array([3.0, -1.0]), 1000.0 / DT_MS)})


def solve(model: CoupledGLM, binned: BinnedSpikes, **options):
    """Return parameters and report of a fit from the default initial values."""
    init = initial_params(model.param_specs(binned.info()), Stream(0, "init"))
    return model.solve(binned, SolverContext(init=init, stream=Stream(0, "solver"), **options))


def dense_design(counts: np.ndarray, target: int, history: np.ndarray | None, coupling: np.ndarray | None) -> np.ndarray:
    """Return covariates of one trial (n_bins, n_columns) without the constant: own history, then couplings of each other neuron.

    history, coupling : (n_basis, n_lags) at lags from one bin on.
    """
    n_bins, n_neurons = counts.shape
    sources = [] if history is None else [(target, history)]
    if coupling is not None:
        sources += [(pre, coupling) for pre in range(n_neurons) if pre != target]
    columns = []
    for pre, basis in sources:
        for function in basis:
            column = np.zeros(n_bins)
            for t in range(n_bins):
                for lag in range(1, min(len(function), t) + 1):
                    column[t] += function[lag - 1] * counts[t - lag, pre]
            columns.append(column)
    return np.array(columns).T
