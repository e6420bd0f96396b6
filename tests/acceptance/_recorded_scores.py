"""Held-out bits per spike on recordings made by others, against the best row of the baselines in their READMEs.

Each row of `RECORDINGS` gives what a README fixes and nothing else: bin width, units, split. Penalty and set of terms are left to
`fitspike.fit`, which chooses them on the training part. The null is a Poisson process of each unit's mean count per training bin, and the
score is pooled: (log L - log L_null) / (n_spikes ln 2) with sums over all test bins and units. Null and number of test spikes are counted
here once more, from the files as they are, by code that shares nothing with fitspike.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from _table import Bounds
from scipy import io
from scipy.special import gammaln

import fitspike

Counts = tuple[np.ndarray, np.ndarray]
"""Counts of the training and of the test bins, each (n_bins, n_units)."""


@dataclass(frozen=True)
class Recorded:
    """item: card and item. bound: bits per spike of the README's best row. count: the README's training and test counts, from the folder.

    The README's units: where, a rule on their columns; least_spikes, in the whole recording.
    """

    item: str
    dt_ms: float
    split: str
    bound: float
    count: Callable[[Path], Counts]
    where: str | None = None
    least_spikes: int = 0


def _by_time(counts: np.ndarray) -> Counts:
    """Return the first 80 % of the bins, rounded down, and the rest."""
    n_train = len(counts) * 4 // 5
    return counts[:n_train], counts[n_train:]


def _binned(times_s: np.ndarray, unit: np.ndarray, n_units: int, dt_ms: int, n_bins: int) -> np.ndarray:
    """Return counts (n_bins, n_units), from times rounded to whole nanoseconds; what follows the last whole bin is left out."""
    bins = [int(ns) // (dt_ms * 1_000_000) for ns in np.rint(times_s * 1e9)]
    counts = np.zeros((n_bins, n_units), dtype=np.int64)
    for at, who in zip(bins, unit.tolist(), strict=True):
        if at < n_bins:
            counts[at, who] += 1
    return counts


def _v1(folder: Path) -> Counts:
    """Session 6: units with contamination below 0.05; repeats with number % 5 == 4 for testing."""
    sessions = io.loadmat(folder / "v1-gratings" / "data_v1_binned_moving.mat", squeeze_me=True, struct_as_record=False)["data"]
    counts = np.asarray(sessions[6].spikes, dtype=np.int64)[np.asarray(sessions[6].contamination) < 0.05]
    is_test = np.arange(counts.shape[3]) % 5 == 4
    return tuple(counts[..., rows].reshape(len(counts), -1).T for rows in (~is_test, is_test))


def _aplysia(name: str) -> Callable[[Path], Counts]:
    """Stimulations 1 and 2 for training, 3 for testing; 6137 whole bins of 20 ms in 122.75 s."""

    def count(folder: Path) -> Counts:
        tables = [io.loadmat(folder / "aplysia-pedal" / f"{name}da0{k}.mat")["spks"] for k in (1, 2, 3)]
        n_units = int(max(table[:, 0].max() for table in tables))
        first, second, third = (_binned(table[:, 1], table[:, 0].astype(int) - 1, n_units, 20, 6137) for table in tables)
        return np.concatenate([first, second]), third

    return count


def _neuropixels(folder: Path) -> Counts:
    """Take the units with at least 120 spikes; 6000 bins of 20 ms in 120 s."""
    with np.load(folder / "neuropixels-snippet" / "ephys_snippet.npz") as content:
        ids, unit = np.unique(content["spike_clusters"], return_inverse=True)
        counts = _binned(content["spike_times"], unit, len(ids), 20, 6000)
    return _by_time(counts[:, np.bincount(unit) >= 120])


def _s1(folder: Path) -> Counts:
    return _by_time(np.asarray(io.loadmat(folder / "s1-reaching-binned" / "s1_data.mat")["spikes"], dtype=np.int64))


def _retina(folder: Path) -> Counts:
    """Take all units; 72040 bins of 50 ms in 3602 s."""
    with h5py.File(folder / "retinal-waves" / "Demas2003_P15_CTRL_MW2_2A.h5") as file:
        times_s, n_spikes = file["spikes"][()].ravel(), file["sCount"][()].ravel().astype(int)
    return _by_time(_binned(times_s, np.repeat(np.arange(len(n_spikes)), n_spikes), len(n_spikes), 50, 72_040))


RECORDINGS = {
    "v1": Recorded("v1-gratings/session-6", 10.0, "trial:every=5,offset=4,column=repeat", 0.920, count=_v1, where="contamination < 0.05"),
    "Sep2414": Recorded("aplysia-pedal/Sep2414", 20.0, "trial:test=2", 0.730, count=_aplysia("Sep2414")),
    "Jun1114": Recorded("aplysia-pedal/Jun1114", 20.0, "trial:test=2", 0.466, count=_aplysia("Jun1114")),
    "neuropixels": Recorded("neuropixels-snippet/ephys-snippet", 20.0, "time:0.2", 0.298, count=_neuropixels, least_spikes=120),
    "s1": Recorded("s1-reaching-binned/s1", 50.0, "time:0.2", 0.222, count=_s1),
    "retina": Recorded("retinal-waves/Demas2003_P15_CTRL_MW2_2A", 50.0, "time:0.2", 1.371, count=_retina),
}


def null_log_likelihood(train: np.ndarray, test: np.ndarray) -> float:
    """Return sum over test bins and units of y log r - r - log y!, r the unit's mean count per training bin."""
    rate = train.mean(axis=0)
    if (rate == 0).any():
        raise ValueError(f"units {np.flatnonzero(rate == 0)} are silent in training: the README's null is not defined for them")
    return float((test * np.log(rate) - rate - gammaln(test + 1.0)).sum())


def check_recorded(b: Bounds, name: str, folder: Path) -> None:
    """Fit one recording, judge it on the README's test part, and check the null and the number of spikes it was judged by."""
    row = RECORDINGS[name]
    recording = fitspike.get(row.item)
    if row.where is not None:
        recording = recording.select(where=row.where)
    if row.least_spikes:
        recording = recording.select(neurons=np.bincount(recording.spike_neuron, minlength=recording.n_neurons) >= row.least_spikes)
    began = time.monotonic()
    result = fitspike.fit(
        recording,
        "coupled-glm",
        dt_ms=row.dt_ms,
        split=row.split,
        score={"co_smoothing_bins": 0},
        simulation={"max_seconds": 0},
        report=False,
        progress="off",
    )
    seconds = time.monotonic() - began
    train, test = row.count(folder)
    n_spikes, found = int(test.sum()), int(result.scores["n_spikes"])
    sizes = f"{train.shape[1]} units, {len(train)} + {len(test)} bins, {n_spikes} test spikes"
    same_size = (result.scores["n_neurons"], result.scores["n_bins"], found) == (train.shape[1], len(test), n_spikes)
    b.check(f"{name}: units, test bins and spikes counted from the file", f"{sizes}; judged by {found}", same_size)
    null, judged = null_log_likelihood(train, test), float(result.blocks.null.sum())
    # 1e-9: sums of up to 1e6 terms in double precision, in another order
    b.check(f"{name}: null from the file's counts, relative 1e-9", f"{null:.3f}, {judged:.3f} nats", abs(judged / null - 1) < 1e-9)
    value = float(result.scores["bits_per_spike"])
    again = (float(result.scores["log_likelihood"]) - null) / (n_spikes * np.log(2))
    b.check(f"{name}: held-out bits per spike at least {row.bound}", f"{value:.4f}", value >= row.bound)
    b.check(f"{name}: the same from log-likelihood and the file's null", f"{again:.4f}", abs(again - value) < 1e-9)
    error, median = result.scores["bits_per_spike_se"], result.scores["bits_per_spike_median"]
    b.note(f"{name}: {sizes}; s.e. {error:.4f}, median unit {median:.3f}; {seconds:.0f} s; chosen {result.selection.get('chosen')}")
