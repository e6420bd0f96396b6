"""What others would say about hidden population activity from the same few spike trains: Gaussian smoothing, and elephant's GPFA.

    python tests/acceptance/_neulvm_baselines.py [SEED]

prints how well each follows the true activity of the default `population-network` in windows that contain a switch.

Each takes spikes (n_bins, n_observed), the population of each neuron and the bin, and returns the fraction of each population that fires
in a bin, (n_bins, n_populations). None sees the truth.
"""

from __future__ import annotations

import contextlib
import io
import sys
import time

import neo
import numpy as np
import quantities as pq
from elephant.gpfa import GPFA
from fitspike_datasets.generators_populations import PopulationNetwork
from scipy.ndimage import gaussian_filter1d

SMOOTHING_SD_S = (0.05, 0.07, 0.1, 0.14, 0.2, 0.28, 0.4)
GPFA_BIN_S, GPFA_SEGMENT_S, GPFA_DIMS, GPFA_ITERATIONS = 0.02, 0.8, (1, 2, 3), 200
"""elephant cuts trials into pieces of 20 bins, at random places unless those make up the trial: segments are two of them."""
RIDGES = (0.0, 1.0, 10.0, 100.0, 1000.0)
N_FOLDS = 5


def pooled(spikes: np.ndarray, membership: np.ndarray) -> np.ndarray:
    """Return the mean spike count of each population's observed neurons, (n_bins, n_populations)."""
    return np.stack([spikes[:, membership == m].mean(axis=1) for m in range(int(membership.max()) + 1)], axis=1)


def smoothed(spikes: np.ndarray, membership: np.ndarray, dt_s: float, sd_s: float) -> np.ndarray:
    """Return the pooled trains after a Gaussian of one width."""
    return gaussian_filter1d(pooled(spikes, membership), sd_s / dt_s, axis=0, mode="reflect")


def smoothed_all(spikes: np.ndarray, membership: np.ndarray, dt_s: float) -> dict[float, np.ndarray]:
    """Return the smoothed trains for every width, so that a comparison can grant this baseline the width that turns out best."""
    return {sd_s: smoothed(spikes, membership, dt_s, sd_s) for sd_s in SMOOTHING_SD_S}


def smoothed_by_likelihood(spikes: np.ndarray, membership: np.ndarray, dt_s: float) -> np.ndarray:
    """Return the smoothed trains at the width by which others of a population best predict a neuron's train (Poisson likelihood)."""
    scores = []
    for sd_s in SMOOTHING_SD_S:
        score = 0.0
        for i in range(spikes.shape[1]):
            others = (membership == membership[i]) & (np.arange(spikes.shape[1]) != i)
            if others.any():
                rate = gaussian_filter1d(spikes[:, others].mean(axis=1), sd_s / dt_s, mode="reflect")
                rate = np.maximum(rate, 1e-4)
                score += float(spikes[:, i] @ np.log(rate) - rate.sum())
        scores.append(score)
    return smoothed(spikes, membership, dt_s, SMOOTHING_SD_S[int(np.argmax(scores))])


def gpfa(spikes: np.ndarray, membership: np.ndarray, dt_s: float, n_dims: int | None = None) -> np.ndarray:
    """Return activities read from the latents of Gaussian-process factor analysis (Yu et al. 2009), as elephant does it.

    Without a number of latents it is the one of the highest log-likelihood on every fifth segment, held out in turn. The fit is on
    segments, the latents are those of the whole trial at once. Activities are a ridge regression of the pooled trains on the latents, its
    penalty cross-validated on blocks of time.
    """
    n_bins = len(spikes)
    segments = _segments(spikes, dt_s)
    model = _fitted(_best_dims(segments) if n_dims is None else n_dims, segments)
    latent = model.transform([_trains(spikes, dt_s, 0.0, n_bins * dt_s)])[0].T  # (n_coarse, n_dims)
    middles = (np.arange(len(latent)) + 0.5) * GPFA_BIN_S
    time_s = (np.arange(n_bins) + 0.5) * dt_s
    fine = np.stack([np.interp(time_s, middles, one) for one in latent.T], axis=1)
    return np.stack([_ridge_prediction(fine, one) for one in pooled(spikes, membership).T], axis=1)


def gpfa_all(spikes: np.ndarray, membership: np.ndarray, dt_s: float) -> dict[int, np.ndarray]:
    """Return the activities for every number of latents, so that a comparison can grant the one that turns out best."""
    return {n_dims: gpfa(spikes, membership, dt_s, n_dims) for n_dims in GPFA_DIMS}


def _segments(spikes: np.ndarray, dt_s: float) -> list[list[neo.SpikeTrain]]:
    begins = np.arange(int(len(spikes) * dt_s / GPFA_SEGMENT_S + 1e-9)) * GPFA_SEGMENT_S
    return [_trains(spikes, dt_s, begin, begin + GPFA_SEGMENT_S) for begin in begins]


def _best_dims(segments: list[list[neo.SpikeTrain]]) -> int:
    scores = dict.fromkeys(GPFA_DIMS, 0.0)
    for n_dims in GPFA_DIMS:
        for fold in range(N_FOLDS):
            training = [one for k, one in enumerate(segments) if k % N_FOLDS != fold]
            held_out = [one for k, one in enumerate(segments) if k % N_FOLDS == fold]
            scores[n_dims] += _fitted(n_dims, training).score(held_out)
    return max(scores, key=scores.__getitem__)


def _fitted(n_dims: int, trials: list[list[neo.SpikeTrain]]) -> GPFA:
    with contextlib.redirect_stdout(io.StringIO()):  # elephant prints its progress
        return GPFA(bin_size=GPFA_BIN_S * pq.s, x_dim=n_dims, em_max_iters=GPFA_ITERATIONS).fit(trials)


def _trains(spikes: np.ndarray, dt_s: float, start_s: float, stop_s: float) -> list[neo.SpikeTrain]:
    """Return the trains of a stretch of time, counted from its start; spikes in the middle of their bins."""
    first, last = round(start_s / dt_s), round(stop_s / dt_s)
    duration = (last - first) * dt_s
    return [neo.SpikeTrain((np.flatnonzero(train) + 0.5) * dt_s * pq.s, t_stop=duration * pq.s) for train in spikes[first:last].T]


def _ridge_prediction(features: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return the fit of a target by features and a constant; the penalty has the least squared error on blocks of time held out."""
    x = np.column_stack([(features - features.mean(0)) / features.std(0), np.ones(len(features))])
    penalised = np.diag([1.0] * features.shape[1] + [0.0])

    def weights(rows: np.ndarray, ridge: float) -> np.ndarray:
        return np.linalg.solve(x[rows].T @ x[rows] + ridge * penalised, x[rows].T @ target[rows])

    block = np.arange(len(target)) * N_FOLDS // len(target)
    errors = [sum(np.sum((target - x @ weights(block != k, ridge))[block == k] ** 2) for k in range(N_FOLDS)) for ridge in RIDGES]
    return x @ weights(np.ones(len(target), dtype=bool), RIDGES[int(np.argmin(errors))])


def pooled_r(found: np.ndarray, true: np.ndarray, dt_s: float, sd_s: float = 0.02) -> float:
    """Return the Pearson correlation over all bins and populations after a Gaussian of `sd_s` on both."""
    a, b = (gaussian_filter1d(one, sd_s / dt_s, axis=0, mode="reflect").ravel() for one in (found, true))
    return float(np.corrcoef(a, b)[0, 1])


def main(seed: int) -> None:
    """Print a row per window."""
    network = PopulationNetwork(duration_s=200.0)
    truth = network.truth(seed=seed).values
    dt_s = network.dt_ms / 1000
    spikes = np.minimum(np.asarray(network.load(seed=seed).bin(network.dt_ms).dense_numpy())[0], 1)
    membership = truth["membership"]
    begins = [begin for begin in np.arange(1.0, 190.0, 11.0) if ((truth["switch_s"] > begin) & (truth["switch_s"] < begin + 10)).any()]
    print("window  smoothing: best sd  by likelihood   GPFA: best dims  by likelihood   seconds")
    for begin in begins[:8]:
        window = slice(round(begin / dt_s), round((begin + 10) / dt_s))
        true = truth["activity_hz"][0, window] * dt_s
        y = spikes[window].astype(np.float64)
        began = time.process_time()
        cells = []
        for every, chosen in ((smoothed_all, smoothed_by_likelihood), (gpfa_all, gpfa)):
            r = {setting: pooled_r(one, true, dt_s) for setting, one in every(y, membership, dt_s).items()}
            best = max(r, key=r.__getitem__)
            cells.append(f"{r[best]:.4f} ({best:g})  {pooled_r(chosen(y, membership, dt_s), true, dt_s):.4f}")
        print(f"{begin:6.0f}  {'   '.join(cells)}  {time.process_time() - began:.1f}", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 0)
