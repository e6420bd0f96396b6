"""Sample-and-measure against likelihood alone on recordings with repeated trials: the recipes of docs/examples, judged on held-out trials.

Each recipe is fitted twice through `fitspike.fit`, as it is and with the likelihood as its only loss: same network, same steps, same
seed. Weights, steps and filters were chosen on the training trials alone (fitted to the first three of five trials, judged on the
fourth); the held-out fifth is looked at here. The networks then run freely over the held-out trials, several times, and are measured by
the numpy code below. Beside each measure stand what one half of the held-out trials says of the other, and what the training trials say.

psth: Pearson correlation of the PSTHs over conditions and windows, mean over neurons. rate R2: of mean rates over neurons. popvar:
variance of the population mean about its mean over the trials of a condition, per bin, model over data. noise correlation: of counts in
windows of 100 ms, over pairs.
"""

from __future__ import annotations

import time
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from _table import Bounds

import fitspike
from fitspike import FitResult, Recording
from fitspike.datasets.selection import load_data

RECIPES = Path(__file__).parents[2] / "docs" / "examples"
COUNT_MS, N_RESAMPLES = 100.0, 200
LEAST_SIMULATED = 100
"""Simulated trials over which a model is measured, at least."""

Trials = tuple[np.ndarray, np.ndarray]
"""Counts (n_trials, n_bins, n_neurons), float64, and the number of each trial's condition (n_trials,)."""


@dataclass(frozen=True)
class Recorded:
    """item: of a dataset. recipe: file in docs/examples. held_out: which trials of the recording the recipe holds out."""

    item: str
    recipe: str
    held_out: Callable[[Recording], np.ndarray]


def _every_fifth_repeat(recording: Recording) -> np.ndarray:
    return np.asarray(recording.trials.column("repeat")) % 5 == 4


def _every_fifth(recording: Recording) -> np.ndarray:
    return np.arange(recording.n_trials) % 5 == 4


RECORDINGS = {
    "V1 session 2": Recorded("v1-gratings/session-2", "v1-gratings.toml", _every_fifth_repeat),
    "V1 session 6": Recorded("v1-gratings/session-6", "v1-gratings.toml", _every_fifth_repeat),
    "locust C3H_1": Recorded("locust-antennal-lobe/20010214-C3H_1", "locust-antennal-lobe.toml", _every_fifth),
}


# -- measures -----------------------------------------------------------------------------------------------------------------------


def windows(counts: np.ndarray, n_bins: int) -> np.ndarray:
    """Return counts in whole windows of so many bins."""
    n = counts.shape[1] // n_bins
    return counts[:, : n * n_bins].reshape(len(counts), n, n_bins, -1).sum(2)


def fluctuations(trials: Trials) -> np.ndarray:
    """Return counts less their mean over the K trials of a condition, times sqrt(K / (K - 1)); conditions of one trial are left out."""
    counts, condition = trials
    parts = []
    for c in np.unique(condition):
        own = counts[condition == c]
        if len(own) > 1:
            parts.append((own - own.mean(0)) * np.sqrt(len(own) / (len(own) - 1)))
    return np.concatenate(parts)


def population_variance(trials: Trials) -> float:
    """Return the variance of the mean over neurons about its mean over the trials of a condition."""
    return float(np.square(fluctuations(trials).mean(-1)).mean())


def psth_correlation(data: Trials, model: Trials, n_bins: int) -> np.ndarray:
    """Return the correlation of the PSTHs over conditions and windows, (n_neurons,); NaN where one is constant."""
    both = []
    for counts, condition in (data, model):
        psth = np.stack([windows(counts[condition == c], n_bins).mean(0) for c in np.unique(data[1])])
        flat = psth.reshape(-1, psth.shape[-1])
        both.append(flat - flat.mean(0))
    with np.errstate(invalid="ignore", divide="ignore"):
        return (both[0] * both[1]).sum(0) / np.sqrt(np.square(both[0]).sum(0) * np.square(both[1]).sum(0))


def noise_correlations(trials: Trials, n_bins: int) -> np.ndarray:
    """Return the correlation of counts in windows about their condition's mean, (n_pairs,); NaN with a neuron that does not vary."""
    centred = fluctuations((windows(trials[0], n_bins), trials[1]))
    covariance = np.einsum("kti,ktj->ij", centred, centred)
    sd = np.sqrt(covariance.diagonal())
    with np.errstate(invalid="ignore", divide="ignore"):
        return (covariance / np.outer(sd, sd))[np.tril_indices(len(sd), -1)]


def r2(data: np.ndarray, model: np.ndarray) -> float:
    """Return 1 - sum (data - model)^2 / sum (data - mean data)^2 over entries that the data have; a missing model value counts as 0."""
    known = np.isfinite(data)
    data, model = data[known], np.nan_to_num(model[known])
    return float(1 - np.square(data - model).sum() / np.square(data - data.mean()).sum())


def halves(trials: Trials) -> tuple[Trials, Trials]:
    """Return the trials of even and of odd number within their condition."""
    counts, condition = trials
    rank = np.zeros(len(condition), dtype=int)
    for c in np.unique(condition):
        rank[condition == c] = np.arange((condition == c).sum())
    return tuple((counts[rank % 2 == side], condition[rank % 2 == side]) for side in (0, 1))


def independent_variance(trials: Trials, is_binary: bool) -> float:
    """Return the population variance of neurons that fire independently, in each bin, at the recorded PSTH."""
    counts, condition = trials
    mean = np.stack([counts[condition == c].mean(0) for c in condition])
    return float((mean * (1 - mean) if is_binary else mean).mean() / counts.shape[2])


def mean_interval(trials: Trials, n_bins: int) -> tuple[float, float, float]:
    """Return the mean noise correlation over pairs and its 95 % interval, resampling the trials of each condition."""
    counts, condition = trials
    rng = np.random.default_rng(0)
    found = []
    for _ in range(N_RESAMPLES):
        rows = np.concatenate([rng.choice(np.flatnonzero(condition == c), (condition == c).sum()) for c in np.unique(condition)])
        found.append(np.nanmean(noise_correlations((counts[rows], condition[rows]), n_bins)))
    low, high = np.quantile(found, [0.025, 0.975])
    return float(np.nanmean(noise_correlations(trials, n_bins))), float(low), float(high)


# -- fits ---------------------------------------------------------------------------------------------------------------------------


def fit(item: str, recipe: dict[str, Any], loss: dict[str, Any]) -> FitResult:
    """Return the recipe's fit with these losses."""
    how = {name: value for name, value in recipe.items() if name not in ("data", "model", "loss", "score")}
    return fitspike.fit(
        fitspike.get(item),
        recipe["model"],
        loss=loss,
        select=recipe["data"],
        score=recipe["score"],
        simulation={"max_seconds": 0},
        report=False,
        progress="off",
        threads=1,
        **how,
    )


def trials_of(result: FitResult, recording: Recording) -> Trials:
    """Return a recording's trials as the fit sees them, cut to the shortest."""
    binned = result.data.prepare(recording)
    n_bins = int(np.min(binned.bins_per_trial))
    return binned.dense_numpy()[:, :n_bins].astype(np.float64), np.asarray(binned.conditions)


def simulated(result: FitResult, recording: Recording) -> Trials:
    """Return free runs over the trials of a recording, repeated until there are LEAST_SIMULATED trials, four times at least."""
    n_times = max(4, -(-LEAST_SIMULATED // recording.n_trials))
    runs = [trials_of(result, result.simulate(signals_from=recording, seed=seed)) for seed in range(n_times)]
    return np.concatenate([counts for counts, _ in runs]), np.concatenate([condition for _, condition in runs])


def check_recording(b: Bounds, name: str) -> None:
    """Fit one recording twice and compare the free runs with its held-out trials."""
    row = RECORDINGS[name]
    recipe = tomllib.loads((RECIPES / row.recipe).read_text(encoding="utf-8"))
    whole = load_data(fitspike.get(row.item), **recipe["data"])
    is_held_out = row.held_out(whole)
    parts = {part: whole.select(trials=np.flatnonzero(which)) for part, which in (("test", is_held_out), ("train", ~is_held_out))}
    losses = {"likelihood": {"nll": 1.0}, "sample-and-measure": recipe["loss"]}
    results, models = {}, {}
    for kind, loss in losses.items():
        began = time.monotonic()
        results[kind] = result = fit(row.item, recipe, loss)
        models[kind] = simulated(result, parts["test"])
        b.note(
            f"{name}: {kind}, {result.status.name} in {time.monotonic() - began:.0f} s; held-out bits per spike "
            f"{result.scores.get('bits_per_spike', np.nan):.4f}, median PSTH correlation with the recorded past given "
            f"{result.scores.get('psth_correlation', np.nan):.3f}"
        )
    data, train = (trials_of(result, parts[part]) for part in ("test", "train"))
    sizes = f"{len(data[0])} trials x {data[0].shape[1]} bins x {data[0].shape[2]} units"
    b.check(
        f"{name}: the held-out part is the one that the fits did not see",
        f"{sizes}, {len(train[0])} trials for training",
        result.scores["n_spikes"] == result.data.prepare(parts["test"]).n_spikes
        and result.data.n_spikes == result.data.prepare(parts["train"]).n_spikes,
    )
    dt_ms = result.data.dt_ms
    _compare(b, name, data, train, models, round(recipe["score"]["psth_window_ms"] / dt_ms), round(COUNT_MS / dt_ms), result.is_binary)


def _compare(
    b: Bounds, name: str, data: Trials, train: Trials, models: dict[str, Trials], n_psth: int, n_count: int, is_binary: bool
) -> None:
    """Print the measures of both models beside halves and training trials, and check which is better."""
    plain, measured = models["likelihood"], models["sample-and-measure"]
    one, other = halves(data)

    def psth(model: Trials) -> float:
        return float(np.nanmean(psth_correlation(data, model, n_psth)))

    def popvar(model: Trials) -> float:
        return population_variance(model) / population_variance(data)

    half = np.maximum(psth_correlation(one, other, n_psth), 0)
    ceiling = float(np.nanmean(np.sqrt(2 * half / (1 + half))))  # of a perfect model with the mean over all held-out trials
    b.check(
        f"{name}: PSTH correlation of sample-and-measure above likelihood-only",
        f"{psth(measured):.3f}, {psth(plain):.3f}; split-half ceiling {ceiling:.3f}, training trials {psth(train):.3f}",
        psth(measured) > psth(plain),
    )
    floor = independent_variance(data, is_binary) / population_variance(data)
    b.check(
        f"{name}: population variance, model / data, nearer to 1",
        f"{popvar(measured):.3f}, {popvar(plain):.3f}; halves {population_variance(one) / population_variance(other):.3f}, training "
        f"trials {popvar(train):.3f}, independent {'Bernoulli' if is_binary else 'Poisson'} neurons {floor:.3f}",
        abs(np.log(popvar(measured))) < abs(np.log(popvar(plain))),
    )
    rates = [r2(data[0].mean((0, 1)), model[0].mean((0, 1))) for model in (measured, plain, train)]
    between = r2(one[0].mean((0, 1)), other[0].mean((0, 1)))
    b.note(
        f"{name}: rate R2 {rates[0]:.3f} sample-and-measure, {rates[1]:.3f} likelihood; halves {between:.3f}, training trials "
        f"{rates[2]:.3f}"
    )
    split = r2(noise_correlations(one, n_count), noise_correlations(other, n_count))
    if split > 0.2:
        found = [r2(noise_correlations(data, n_count), noise_correlations(model, n_count)) for model in (measured, plain, train)]
        b.note(
            f"{name}: noise-correlation R2 {found[0]:.3f} sample-and-measure, {found[1]:.3f} likelihood; halves {split:.3f}, training "
            f"trials {found[2]:.3f}"
        )
        return
    mean, low, high = mean_interval(data, n_count)
    own = [float(np.nanmean(noise_correlations(model, n_count))) for model in (measured, plain)]
    b.note(
        f"{name}: mean noise correlation {mean:.4f} ({low:.4f} to {high:.4f}) held out, {own[0]:.4f} sample-and-measure, {own[1]:.4f} "
        f"likelihood; halves explain each other's pairs by R2 {split:.2f} only"
    )


def check_recordings(b: Bounds, names: tuple[str, ...] = tuple(RECORDINGS)) -> None:
    """Check all recordings, or those named."""
    for name in names:
        check_recording(b, name)
