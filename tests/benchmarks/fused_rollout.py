"""The fused rollout against snnTorch, norse, a torch loop and that loop compiled: forward and backward, float32, all cores for everyone.

200 recurrent neurons, 50 inputs, 1000 bins at about 10 Hz, gradients of both weight matrices. Ours, the loop and the compiled loop compute
the same spikes from the same thresholds; snnTorch's RLeaky has the same leak, reset and recurrence without thresholds that vary, norse's
LIFRecurrent a synaptic current in addition. Inputs of the peers are scaled to the same rate.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from _workers import PEERS, run_worker

sys.path.insert(0, str(Path(__file__).parents[1] / "acceptance"))
from _table import Bounds  # noqa: E402

ROUNDS, RUNS, CHUNK = 3, 7, 50
PEER_NAMES = ("snntorch", "norse")
LONG = {"n_trials": 8, "n_bins": 10000}


def rounds(n_trials: int, n_rounds: int, cache: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the figures of our worker and of the peers', which take turns."""
    ours, theirs = [], []
    for _ in range(n_rounds):
        ours.append(
            run_worker("_worker_rollout.py", {"n_trials": n_trials, "is_compiled": 1, "chunk": CHUNK, "n_runs": RUNS}, **cached(cache))
        )
        gains = {f"{name}_gain": theirs[0][f"{name}_gain"] for name in PEER_NAMES} if theirs else {}
        theirs.append(run_worker("_worker_rollout_peers.py", {"n_trials": n_trials, "n_runs": RUNS, **gains}, python=PEERS))
    return ours, theirs


def cached(folder: str) -> dict[str, str]:
    """Return the environment in which both compilers keep what they make in a folder that is empty at first."""
    return {"NUMBA_CACHE_DIR": folder, "TORCHINDUCTOR_CACHE_DIR": f"{folder}/inductor"}


def compare_speed(bounds: Bounds, n_trials: int, n_rounds: int, cache: str) -> dict[str, float]:
    """Return how many times longer each other takes, from medians of rounds of medians of runs, and note the seconds."""
    ours, theirs = rounds(n_trials, n_rounds, cache)
    first = ours[0]
    bounds.check(
        f"batch {n_trials}: the same spikes as reference, loop and compiled loop, gradients to 1e-5",
        f"{max(first[f'{name}_differing'] for name in ('reference', 'loop', 'compiled')):.0f} spikes differ, "
        f"gradients by {max(first[f'{name}_error'] for name in ('reference', 'loop', 'compiled')):.1e}",
        all(first[f"{name}_differing"] == 0 and first[f"{name}_error"] <= 1e-5 for name in ("reference", "loop", "compiled")),
    )
    fused = [float(np.median(run["fused_s"])) for run in ours]
    medians = {name: [float(np.median(run[f"{name}_s"])) for run in ours] for name in ("loop", "compiled")}
    medians |= {name: [float(np.median(run[f"{name}_s"])) for run in theirs] for name in PEER_NAMES}
    hz = ", ".join(
        f"{name} {run[f'{key}_hz']:.1f}" for name, key, run in (("ours", "rate", first), *((n, n, theirs[0]) for n in PEER_NAMES))
    )
    seconds = ", ".join(f"{name} {np.median(values):.4f}" for name, values in (("fused", fused), *medians.items()))
    bounds.note(f"batch {n_trials}, seconds: {seconds}; rates in Hz: {hz}")
    floor_s, gflop = first["product_s"], 2e-9 * n_trials * 1000 * 200**2
    bounds.note(
        f"batch {n_trials}: floor {floor_s:.4f} s, the {gflop:.2f} GFLOP of matrix work in the backward pass at the rate of one large "
        f"product ({gflop / floor_s:.0f} GFLOP/s); fused takes {np.median(fused) / floor_s:.1f} times that"
    )
    bounds.note(f"batch {n_trials}, seconds with compilation: fused {first['fused_first_s']:.1f}, loop {first['compiled_first_s']:.1f}")
    return {name: float(np.median(np.array(values) / np.array(fused))) for name, values in medians.items()}


def main() -> None:
    """Print the table."""
    bounds = Bounds("fused_rollout", kind="bench")
    with tempfile.TemporaryDirectory() as cache:
        ratio = compare_speed(bounds, 32, ROUNDS, cache)
        for name, least, hoped in (("snntorch", 5.0, 8.0), ("norse", 5.0, 8.0), ("compiled", 2.5, 4.0)):
            bounds.check(
                f"batch 32: at least {least:g} times faster than {name} (hoped for: {hoped:g})", f"{ratio[name]:.1f}", ratio[name] >= least
            )
        bounds.note(f"batch 32: {ratio['loop']:.1f} times faster than the torch loop")
        ratio = compare_speed(bounds, 8, 1, cache)
        bounds.note("batch 8: times faster than " + ", ".join(f"{name} {value:.1f}" for name, value in ratio.items()))
        ratio = compare_speed(bounds, 1, 1, cache)
        bounds.check("batch 1: at least 10 times faster than the torch loop", f"{ratio['loop']:.1f}", ratio["loop"] >= 10)
        bounds.note("batch 1: times faster than " + ", ".join(f"{name} {value:.1f}" for name, value in ratio.items()))

        one = run_worker("_worker_default_iteration.py", {"n_runs": RUNS}, **cached(cache))
        total = float(np.median(one["total_s"]))
        bounds.check("default iteration, network part on one thread, at most 0.20 s (hoped for: 0.10)", f"{total:.3f} s", total <= 0.20)
        parts = ", ".join(f"{name} {np.median(one[f'{name}_s']):.3f}" for name in ("clamped", "free", "losses", "backward"))
        bounds.note(f"default iteration: {parts} s at {one['density']:.1%} of bins with a spike")

        memory = {
            path: run_worker("_worker_rollout_memory.py", {**LONG, "path": path}, **cached(cache))
            for path in ("loop", "fused", "checkpointed")
        }
    errors = [
        float(np.abs(memory[path][name] - memory["loop"][name]).max() / np.abs(memory["loop"][name]).max())
        for path in ("fused", "checkpointed")
        for name in ("w_in", "w_rec")
    ]
    bounds.check("10000 bins: gradients of loop, fused and checkpointed agree to 1e-5", f"{max(errors):.1e}", max(errors) <= 1e-5)
    share = memory["checkpointed"]["added_gib"] / memory["loop"]["added_gib"]
    bounds.check("10000 bins: checkpointed adds less than a quarter of the loop's memory", f"{share:.3f}", share < 0.25)
    bounds.note(
        "10000 bins, 8 trials, memory added: "
        + ", ".join(f"{path} {found['added_gib']:.3f} GiB" for path, found in memory.items())
        + "; inputs, thresholds, spikes, drives and their adjoints of all bins are part of the first two"
    )
    bounds.finish()


if __name__ == "__main__":
    main()
