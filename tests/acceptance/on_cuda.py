"""Fits on a CUDA device against the same fits on the CPU; needs a CUDA device, and says so where there is none.

    python tests/acceptance/on_cuda.py [--device=cuda] [NAME ...]

Every neuron model, learning rule and update transform that is registered with us, and every statistic that is a loss, takes a few steps in
double precision from the same seed on both devices: losses and fitted parameters must agree, spikes drawn on the way being the same.
Seconds per step are printed, for information.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))
from _table import Bounds

import fitspike
from fitspike import Recording
from fitspike.models.spiking_network import SpikingNetwork

N_STEPS = 4
TOLERANCE = 1e-6
"""Largest relative difference of losses, and of parameters relative to the largest of their array."""

STATISTICS = {
    "psth": 1.0, "noise_correlation": 0.1, "fano_factor": 0.1, "firing_rate": 0.1, "population_rate": 0.1, "autocorrelogram": 0.1,
    "cross_correlogram": 0.1, "signal_correlation": 0.1, "population_spectrum": 0.1, "trial_matching": 0.1, "mmd": 0.1,
}  # fmt: skip


def cases() -> dict[str, dict[str, Any]]:
    """Return the fits: what `fitspike.fit` is given besides recording, device and seed."""
    hidden, free = SpikingNetwork(n_hidden=3), {"nll": 1.0, **STATISTICS}
    found: dict[str, dict[str, Any]] = {
        "network, likelihood": {"model": SpikingNetwork(time_bumps=4)},
        "network, hidden neurons": {"model": hidden},
        "network, all statistics": {"model": SpikingNetwork(time_bumps=4), "loss": free},
        "network, hidden neurons, all statistics": {"model": SpikingNetwork(n_hidden=3, time_bumps=4), "loss": free},
        "score function": {"model": SpikingNetwork(n_hidden=3), "rule": "score-function"},
        "deep-r": {"model": SpikingNetwork(), "transforms": {"name": "deep-r", "density": 0.3}, "optimiser": {"name": "sgd"}},
        "soft-deep-r": {"model": SpikingNetwork(), "transforms": {"name": "soft-deep-r", "density": 0.3}, "optimiser": {"name": "sgd"}},
    }
    for name in ("lif", "srm", "adex", "alif", "current-lif", "gif", "izhikevich"):
        found[f"neurons {name}"] = {"model": "spiking-network", "neuron": name}
    for feedback in ("symmetric", "random", "adaptive"):
        found[f"e-prop, {feedback}"] = {"model": hidden, "rule": {"name": "e-prop", "feedback": feedback}}
    found["e-prop, online"] = {
        "model": SpikingNetwork(),
        "rule": {"name": "e-prop", "implementation": "online"},
        "batch": {"n_trials": 2, "n_bins": 20},
    }
    found["e-prop, adex"] = {"model": SpikingNetwork(n_hidden=2), "neuron": "adex", "rule": "e-prop"}
    found["e-prop, statistics"] = {"model": SpikingNetwork(n_hidden=3, time_bumps=4), "rule": "e-prop", "loss": free}
    return found


def recording() -> Recording:
    """Return 12 trials of 60 bins of 5 ms of 4 neurons, two conditions."""
    counts = (np.random.default_rng(0).random((12, 60, 4)) < 0.2).astype(int)
    return Recording.from_counts(counts, dt_ms=5.0, conditions=["a", "b"] * 6)


def fitted(case: Mapping[str, Any], device: str) -> tuple[list[dict[str, float]], dict[str, np.ndarray], float]:
    """Return the terms of each step, the fitted parameters, and seconds per step."""
    how = {"batch": {"n_trials": 12}, **case}
    optimiser = {"precision": "float64", **how.pop("optimiser", {})}
    began = time.perf_counter()
    result = fitspike.fit(
        recording(),
        how.pop("model"),
        **how,
        optimiser=optimiser,
        stop={"max_steps": N_STEPS, "patience": 0, "log_every": 1},
        split="none",
        simulation={"max_seconds": 0},
        score={"co_smoothing_bins": 0, "n_bootstrap": 2},
        device=device,
        report=False,
        progress="off",
    )
    seconds = (time.perf_counter() - began) / N_STEPS
    history = [
        {name: value for name, value in row.items() if isinstance(value, float) and not name.endswith("_s")} for row in result.history
    ]
    return history, {name: np.asarray(value) for name, value in result.params.items()}, seconds


def differences(one: list[dict[str, float]], other: list[dict[str, float]]) -> float:
    """Return the largest relative difference of the terms of all steps; infinite where their names differ."""
    if [sorted(row) for row in one] != [sorted(row) for row in other]:
        return float("inf")
    pairs = [(row[name], second[name]) for row, second in zip(one, other, strict=True) for name in row]
    return max(abs(a - b) / max(abs(a), 1e-3) for a, b in pairs)


def main(arguments: list[str]) -> None:
    """Run the fits that are named, or all."""
    options = dict(one.removeprefix("--").split("=", 1) for one in arguments if one.startswith("--"))
    wanted = [one for one in arguments if not one.startswith("--")]
    device = options.get("device", "cuda")
    b = Bounds("on_cuda")
    if device != "cpu" and not torch.cuda.is_available():
        print("acceptance on_cuda: skipped, nothing was checked: this machine has no CUDA device.")
        return
    for name, case in cases().items():
        if wanted and name not in wanted:
            continue
        try:
            (history, params, cpu_s), (on_device, device_params, device_s) = fitted(case, "cpu"), fitted(case, device)
        except Exception as error:  # noqa: BLE001 - every case is tried
            b.check(f"{name}: runs on both devices", f"{type(error).__name__}: {error}"[:300], False)
            continue
        by_loss = differences(history, on_device)
        by_params = max(float(np.abs(device_params[n] - value).max() / max(np.abs(value).max(), 1e-3)) for n, value in params.items())
        figure = f"{by_loss:.1e}, {by_params:.1e} ({cpu_s:.2f} and {device_s:.2f} s per step, with all set-up)"
        is_met = len(history) >= N_STEPS and max(by_loss, by_params) <= TOLERANCE
        b.check(f"{name}: losses and parameters of {N_STEPS} steps equal to {TOLERANCE:g}", figure, is_met)
    b.finish()


if __name__ == "__main__":
    main(sys.argv[1:])
