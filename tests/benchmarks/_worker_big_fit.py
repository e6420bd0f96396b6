"""Loads the recording of `big_recording.py` and fits a coupled GLM for as many iterations as asked, and nothing else."""

from __future__ import annotations

import time

import numpy as np
from _workers import answer, given
from scipy.special import gammaln, xlogy

import fitspike
from fitspike.fitting.threads import available_threads

data = given()
began = time.perf_counter()
recording = fitspike.load(str(data["path"]))
load_s = time.perf_counter() - began

began = time.perf_counter()
binned = recording.bin(1.0)
bin_s = time.perf_counter() - began
counts = binned.counts().sum(axis=0).astype(np.float64)
log_factorials = 0.0 if binned.event_count is None else float(gammaln(binned.event_count + 1.0).sum())
# Of constant rates: expected counts equal the spikes, and each spike has the log of its neuron's mean count.
mean_rate_objective = float(counts.sum() - xlogy(counts, counts / binned.n_bins_total).sum()) + log_factorials
del binned

at, objective = [time.perf_counter()], []


def after_pass(step: int, metrics: dict[str, float]) -> None:
    """Note when a pass ended and what it found."""
    at.append(time.perf_counter())
    objective.append(metrics["objective"])


began = time.perf_counter()
result = fitspike.fit(
    recording,
    "coupled-glm",
    settings={
        "emission": "poisson",
        "basis": "exponential",
        "history_ms": 60.0,  # time constants of 5 and 20 ms
        "n_history": 2,
        "coupling_ms": 60.0,
        "n_coupling": 2,
        "standard_errors": False,
        "solver": "lbfgs",  # what "auto" takes at this size, and so in the small recording that only compiles
        "precision": "float32",
    },
    dt_ms=1.0,
    split="none",
    selection=False,
    stop={"max_steps": int(data["n_iterations"])},
    simulation={"max_seconds": 0},
    report=False,
    progress="off",
    callbacks=[after_pass],
)
fit_s = time.perf_counter() - began
assert result.params["coupling"].shape == (len(counts), len(counts), 2)
answer(
    load_s=load_s,
    bin_s=bin_s,
    fit_s=fit_s,
    pass_s=np.diff(at),
    objective=np.array(objective),
    mean_rate_objective=mean_rate_objective,
    threads=available_threads(),
)
