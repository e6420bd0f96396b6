"""Fits the coupled GLM of `coupled_glm_nemos.py` with fitspike."""

from __future__ import annotations

import time

import numpy as np
from _workers import answer, given

import fitspike
from fitspike.fitting.threads import available_threads, use_threads
from fitspike.models.base import SolverContext
from fitspike.models.coupled_glm import CoupledGLM
from fitspike.params import initial_params
from fitspike.rng import Stream

data = given()
dt_ms, n_neurons = float(data["dt_ms"]), int(data["n_neurons"])


def recording(n_bins: int) -> fitspike.Recording:
    """Return the spikes of the leading bins, each in the middle of its bin."""
    keep = data["bin"] < n_bins
    times_ns = ((data["bin"][keep] + 0.5) * dt_ms * 1e6).astype(np.int64)
    return fitspike.Recording.from_arrays(times_ns, data["neuron"][keep], unit="ns", n_neurons=n_neurons, stop_s=n_bins * dt_ms / 1000)


def fit(spikes: fitspike.Recording) -> tuple[dict[str, np.ndarray], float]:
    """Return the parameters and the seconds from spike times to them."""
    began = time.perf_counter()
    binned = spikes.bin(dt_ms)
    ridge = float(data["ridge"]) * binned.n_bins_total  # nemos takes the mean over bins, fitspike the sum
    model = CoupledGLM(
        emission="poisson",
        basis="raised-cosine",
        history_ms=float(data["window_ms"]),
        n_history=len(data["basis"]),
        coupling_ms=float(data["window_ms"]),
        n_coupling=len(data["basis"]),
        ridge_history=ridge,
        ridge_coupling=ridge,
        condition_time=False,
        trial_time=False,
        standard_errors=False,
        stabilise="off",
    )
    context = SolverContext(
        init=initial_params(model.param_specs(binned.info()), Stream(0, "init")), stream=Stream(0, "fit"), threads=available_threads()
    )
    params, report = model.solve(binned, context)
    assert report.status == "CONVERGED", report.message
    return params, time.perf_counter() - began


with use_threads(available_threads()):
    whole = recording(int(data["n_bins"]))
    began = time.perf_counter()
    fit(recording(int(data["n_bins"])))
    first_s = time.perf_counter() - began
    seconds = [fit(whole) for _ in range(3)]
params, fit_s = seconds[0][0], float(np.median([s for _, s in seconds]))
coupling = params["coupling"].copy()
coupling[np.arange(n_neurons), np.arange(n_neurons)] = params["history"]
answer(fit_s=fit_s, compile_s=max(first_s - fit_s, 0.0), bias=params["bias"], coupling=coupling)
