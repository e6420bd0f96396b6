"""Trial matching where the mean over trials says nothing: a second area that responds in four trials of five.

    python tests/acceptance/_sm_trial_matching.py [SEED ...]

prints every score of some seeds (default: 0 1) and checks the bounds, as `sample_and_measure.py` does over its seeds.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from scipy.stats import ks_2samp

sys.path.insert(0, str(Path(__file__).parent))
from _table import Bounds
from fitspike_datasets.generators_two_areas import TwoAreaTrials

import fitspike
from fitspike import Recording
from fitspike.models.spiking_network import SpikingNetwork

DATASET = TwoAreaTrials(dt_ms=4.0, stimulus_ms=100.0, rise_ms=20.0, decay_ms=80.0, gain=10.0)
"""30 neurons of an area tell a response from none in a single trial only if it is strong and longer than the windows."""

WINDOW_MS, STEP_MS = 48.0, 24.0

Rows = dict[str, dict[str, float]]


def windowed(values: np.ndarray, window_ms: float, step_ms: float) -> np.ndarray:
    """Return means over windows along axis 1."""
    n_bins, n_step = round(window_ms / DATASET.dt_ms), round(step_ms / DATASET.dt_ms)
    starts = range(0, values.shape[1] - n_bins + 1, n_step)
    return np.stack([values[:, start : start + n_bins].mean(1) for start in starts], axis=1)


def trial_scores(test: np.ndarray, simulated: np.ndarray) -> dict[str, float]:
    """Return how alike two sets of trials (n_trials, n_bins, n_neurons) of 0/1 are, equally many of each.

    trial_r : Pearson correlation of the areas' windowed rates, in units of their standard deviations, between trials that are matched so
        that their squared distances are least; each feature's mean over trials is taken off first, so that what all trials share, which
        any fit of the PSTH has, does not count. peak_ks : Kolmogorov-Smirnov distance of the peak windowed rates of area 2.
        psth_r : mean over neurons of the correlation of their PSTHs in windows of 12 ms
    """
    n = test.shape[2] // 2
    features = [windowed(np.stack([z[..., :n].mean(-1), z[..., n:].mean(-1)], -1), WINDOW_MS, STEP_MS) for z in (test, simulated)]
    offset, scale = features[0].mean((0, 1)), features[0].std((0, 1))
    a, b = (((one - offset) / scale).reshape(len(one), -1) for one in features)
    rows, columns = linear_sum_assignment(cdist(a, b, "sqeuclidean"))
    deviation_a, deviation_b = a[rows] - a.mean(0), b[columns] - b.mean(0)
    psth_a, psth_b = (windowed(z.mean(0)[None], 12.0, 8.0)[0] for z in (test, simulated))
    with np.errstate(invalid="ignore"):
        psth_r = np.nanmean([np.corrcoef(x, y)[0, 1] for x, y in zip(psth_a.T, psth_b.T, strict=True)])
    return {
        "trial_r": float(np.corrcoef(deviation_a.ravel(), deviation_b.ravel())[0, 1]),
        "peak_ks": float(ks_2samp(*(one[..., 1].max(1) for one in features)).statistic),
        "psth_r": float(psth_r),
    }


def two_areas(seed: int) -> Rows:
    """Return the scores of fits of the PSTH without and with trial matching, of networks with five latents of a trial, and the ceiling."""
    recording = DATASET.load(seed=seed)
    spikes = np.asarray(recording.bin().dense_numpy(), dtype=np.float64)
    train, test = spikes[: DATASET.n_train], spikes[DATASET.n_train :]
    return {
        "PSTH": trial_scores(test, _simulated(recording, {}, seed)),
        "with trial matching": trial_scores(test, _simulated(recording, {"trial_matching": {"weight": 1.0, "window_ms": WINDOW_MS}}, seed)),
        "ceiling": trial_scores(test, train),
    }


def _simulated(recording: Recording, more: dict, seed: int) -> np.ndarray:
    """Return as many free trials of a fitted network as there are test trials."""
    model = SpikingNetwork(n_coupling=2, coupling_ms=8.0, signals=(), time_bumps=20, trial_latents=5)
    result = fitspike.fit(
        recording,
        model,
        loss={"psth": {"weight": 1.0, "distance": "unexplained"}, **more},
        split=DATASET.describe().settings[""]["split"],
        batch={"n_trials": 100, "n_free_trials": 100},
        optimiser={"learning_rate": 0.02, "clip_norm": 1.0},
        stop={"max_steps": 400, "patience": 10**6},
        simulation={"max_seconds": 0},
        score={"co_smoothing_bins": 0, "n_bootstrap": 2},
        report=False,
        progress="off",
        threads=1,
        seed=seed,
    )
    fresh = replace(DATASET, n_train=DATASET.n_test, n_test=0).load(seed=seed)  # its spikes are not used
    return np.asarray(result.simulate(signals_from=fresh, seed=seed).bin().dense_numpy(), dtype=np.float64)


def check_trial_matching(b: Bounds, results: list[Rows]) -> None:
    """Check the scores of some seeds, all of which must reach each bound."""

    def over_seeds(row: str, score: str) -> np.ndarray:
        return np.array([rows[row][score] for rows in results])

    reached, ks = over_seeds("with trial matching", "trial_r"), over_seeds("with trial matching", "peak_ks")
    gain = reached - over_seeds("PSTH", "trial_r")
    b.check("TM: correlation of matched trials at least 0.60, every seed", spread(reached), bool((reached >= 0.60).all()))
    b.check("TM: at least 0.2 above the fit of the PSTH alone, every seed", spread(gain), bool((gain >= 0.2).all()))
    b.check("TM: Kolmogorov-Smirnov distance of area 2's peaks at most 0.35, every seed", spread(ks), bool((ks <= 0.35).all()))


def spread(one: np.ndarray) -> str:
    """Return the range over seeds."""
    return f"{one.min():.3f} to {one.max():.3f}"


if __name__ == "__main__":
    bounds, found = Bounds("trial_matching"), []
    for number in [int(text) for text in sys.argv[1:]] or [0, 1]:
        found.append(two_areas(number))
        for row, scores in found[-1].items():
            print(f"seed {number}  {row:<20}" + "".join(f"  {name} {value:.3f}" for name, value in scores.items()), flush=True)
    check_trial_matching(bounds, found)
    bounds.finish()
