"""The coupled GLM against nemos' PopulationGLM: the same spikes, the same basis, the same penalised objective, alternately in one run.

50 neurons at about 7 Hz, 10 min, bins of 5 ms, 5 raised cosines of 100 ms for all couplings and own histories, ridge 1e-5 on the mean
negative log-likelihood. The objective of both results is computed here, from a dense design in double precision.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
from _workers import PEERS, run_worker
from fitspike_datasets.generators_glm import CoupledGLMNetwork

from fitspike.models.bases import lag_basis

sys.path.insert(0, str(Path(__file__).parents[1] / "acceptance"))
from _table import Bounds  # noqa: E402

N_NEURONS, DURATION_S, DT_MS, WINDOW_MS, N_BASIS, RIDGE = 50, 600.0, 5.0, 100.0, 5, 1e-5
ROUNDS = 3


def problem() -> dict[str, np.ndarray]:
    """Return the spikes (bin and neuron of each), the basis (n_basis, n_lags) and the settings."""
    binned = CoupledGLMNetwork(n_neurons=N_NEURONS, duration_s=DURATION_S, rate_hz=7.0).load().bin(DT_MS)
    count = 1 if binned.event_count is None else binned.event_count
    return {
        "bin": np.repeat(np.repeat(np.arange(binned.n_bins_total), np.diff(binned.row_pointer)), count),
        "neuron": np.repeat(np.asarray(binned.event_neuron, dtype=np.int64), count),
        "n_bins": np.array(binned.n_bins_total),
        "n_neurons": np.array(N_NEURONS),
        "basis": lag_basis("raised-cosine", N_BASIS, WINDOW_MS, DT_MS).values,
        "window_ms": np.array(WINDOW_MS),
        "dt_ms": np.array(DT_MS),
        "ridge": np.array(RIDGE),
    }


def objective(data: dict[str, np.ndarray], bias: np.ndarray, coupling: np.ndarray) -> float:
    """Return the sum over neurons of the mean of expected - count * drive over bins, plus ridge / 2 * squared weights.

    bias (n_post,), coupling [post, pre, basis] with own histories on the diagonal.
    """
    n_bins, n_lags = int(data["n_bins"]), data["basis"].shape[1]
    counts = np.zeros((n_bins, N_NEURONS))
    np.add.at(counts, (data["bin"], data["neuron"]), 1.0)
    by_lag = np.asarray(coupling, dtype=np.float64) @ data["basis"]  # (n_post, n_pre, n_lags)
    drive = np.tile(np.asarray(bias, dtype=np.float64), (n_bins, 1))
    for lag in range(1, n_lags + 1):
        drive[lag:] += counts[:-lag] @ by_lag[:, :, lag - 1].T
    loss = (np.exp(drive) - counts * drive).mean(axis=0).sum()
    return float(loss + 0.5 * RIDGE * (np.asarray(coupling, dtype=np.float64) ** 2).sum())


def main() -> None:
    """Print the table."""
    bounds = Bounds("coupled_glm_nemos", kind="bench")
    data = problem()
    bounds.note(f"{N_NEURONS} neurons at {len(data['bin']) / N_NEURONS / DURATION_S:.2f} Hz, {int(data['n_bins'])} bins of {DT_MS:g} ms")
    theirs, ours = [], []
    with tempfile.TemporaryDirectory() as cache:  # empty: the first of our fits compiles everything
        for _ in range(ROUNDS):
            theirs.append(run_worker("_worker_nemos.py", data, python=PEERS))
            ours.append(run_worker("_worker_fitspike.py", data, NUMBA_CACHE_DIR=cache))
    one, other = (objective(data, run["bias"], run["coupling"]) for run in (ours[0], theirs[0]))
    difference = abs(one - other) / abs(min(one, other))
    bounds.check(
        "penalised objectives are equal to 1e-6 (relative)", f"{one:.9f} and nemos {other:.9f}, {difference:.1e}", difference <= 1e-6
    )
    our_s, their_s = (float(np.median([run["fit_s"] for run in runs])) for runs in (ours, theirs))
    ratio = float(np.median([theirs[i]["fit_s"] / ours[i]["fit_s"] for i in range(ROUNDS)]))
    bounds.check(
        "time to that result at least 10 times shorter than nemos 0.2.8", f"{ratio:.1f} times ({our_s:.2f} s, {their_s:.1f} s)", ratio >= 10
    )
    bounds.note(
        f"medians of {ROUNDS} rounds; ours from spike times to parameters, theirs from ready features, which took another "
        f"{np.median([run['features_s'] for run in theirs]):.1f} s; neither with compilation"
    )
    bounds.note(
        f"compilation: {ours[0]['compile_s']:.1f} s once, then {ours[-1]['compile_s']:.1f} s to load it from disk; "
        f"nemos {np.median([run['compile_s'] for run in theirs]):.1f} s in every process"
    )
    bounds.note(
        f"peak memory of a process that does this: {max(run['peak_gib'] for run in ours):.2f} GiB, nemos {theirs[0]['peak_gib']:.2f} GiB"
    )
    bounds.finish()


if __name__ == "__main__":
    main()
