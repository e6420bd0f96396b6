"""What is measured in one window of ten seconds of the winner-take-all network, of which three neurons per population are recorded."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from _neulvm_baselines import gpfa_all, pooled_r, smoothed_all
from fitspike_datasets.generators_populations import PopulationNetwork

import fitspike
from fitspike.models.neulvm.activity import free_activity, pulse_response
from fitspike.models.neulvm.populations import as_constants
from fitspike.plugin import NeuronTable
from fitspike.rng import Stream
from fitspike.statistics.winners import box_smoothed, switch_bins, winning_population

SEED, DT_MS, DT_S = 0, 4.0, 0.004
DURATION_S, WINDOW_S, HISTORY_S, N_OBSERVED, N_RECORDED = 200.0, 10.0, 1.0, 3, 20
NETWORK = PopulationNetwork(duration_s=DURATION_S, n_observed=N_RECORDED)
WEIGHT = np.array([9.984, 9.984, 19.968])
SETTINGS = {
    "n_neurons": [400, 400, 200],
    "signs": [1, 1, -1],
    "pattern": [[1, 0, 1], [0, 1, 1], [1, 1, 1]],
    "rest": 14.4,
    "threshold": 6.0 - float(np.log(10.0)),
    "tau_m_ms": 20.0,
    "tau_syn_ms": [3.0, 3.0, 6.0],
}
PROTOCOLS = ((1, 40.0), (1, 80.0), (1, 160.0), (2, 160.0))
"""Population that a 100 ms pulse is given to, and its amplitude per second; population 0 is ahead before."""
HIGH_HZ = (18.9, 6.0, 24.5)
BEFORE_S, AFTER_S, READ_S = 0.5, 0.6, (1.0, 1.2)
N_MICRO, N_MESO, BOX_S = 100, 200, 0.02
FREE_S = 200.0


@dataclass(frozen=True)
class Found:
    """One fit of one window. ratio, sd (3,): fitted over true weights, relative standard errors. r: of the pooled latent activity.

    held_out_bits: of the neurons that were not given, per spike. switches, high_hz, low_hz: of a free run. psth_r, psth_rmse_hz,
    probability_error (4,): answers to pulses against the microscopic network's.
    """

    ratio: np.ndarray
    sd: np.ndarray
    r: float
    held_out_bits: float
    switches: int
    high_hz: float
    low_hz: float
    psth_r: np.ndarray
    psth_rmse_hz: np.ndarray
    probability_error: np.ndarray
    message: str


@cache
def truth() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return activity (n_bins, 3) Hz, all recorded spikes (n_bins, 60), their populations, and the times of switches, s."""
    values = NETWORK.truth(seed=SEED).values
    spikes = np.minimum(np.asarray(NETWORK.load(seed=SEED).bin(DT_MS).dense_numpy())[0], 1)
    return values["activity_hz"][0], spikes, values["membership"], values["switch_s"]


@cache
def windows(with_switch: bool = True) -> tuple[float, ...]:
    """Return the starts of the scored parts of all windows, s, or of those in which the lead changes."""
    switch_s = truth()[3]
    begins = np.arange(HISTORY_S, DURATION_S - WINDOW_S, WINDOW_S + HISTORY_S)
    return tuple(b for b in begins if not with_switch or ((switch_s > b + 0.2) & (switch_s < b + WINDOW_S - 0.2)).any())


def recorded(begin_s: float) -> tuple[fitspike.Recording, np.ndarray, np.ndarray]:
    """Return the recording of a window with its history, and the spikes and activity of its scored part."""
    activity, spikes, membership, _ = truth()
    first, stop = round((begin_s - HISTORY_S) / DT_S), round((begin_s + WINDOW_S) / DT_S)
    given = np.flatnonzero(np.arange(len(membership)) % N_RECORDED < N_OBSERVED)
    names = [f"p{m}n{i}" for i, m in zip(given, membership[given], strict=True)]
    neurons = NeuronTable.make(names, populations=membership[given].astype(str))
    recording = fitspike.Recording.from_counts([spikes[first:stop, given].astype(np.int64)], dt_ms=DT_MS, neurons=neurons)
    scored = slice(round(begin_s / DT_S), stop)
    return recording, spikes[scored], activity[scored]


def fit(begin_s: float, **settings: object) -> fitspike.FitResult:
    """Return a fit of one window, as a user would make it."""
    return fitspike.fit(
        recorded(begin_s)[0],
        "neulvm",
        settings={**SETTINGS, **settings},
        dt_ms=DT_MS,
        split="none",
        simulation={"max_seconds": 0},
        report=False,
        threads=1,
        seed=round(begin_s),
        progress="off",
    )


def judge(begin_s: float, **settings: object) -> Found:
    """Return everything that is measured of one fit of one window."""
    result = fit(begin_s, **settings)
    _, spikes, activity = recorded(begin_s)
    constants = as_constants(result.params, DT_MS)
    vector = np.asarray(result.extras["free_vector"])
    latent = np.asarray(result.extras["latent_mean_0"], dtype=np.float64)[-len(activity) :]
    free = free_activity(constants, activity.mean(axis=0), FREE_S, Stream(round(begin_s), "acceptance/free"))
    switches, high, low = free_statistics(free)
    answers = [meso_answer(constants, *protocol) for protocol in PROTOCOLS]
    psth_r, rmse, error = (np.array(values) for values in zip(*map(compared, answers, map(micro_answer, PROTOCOLS)), strict=True))
    sd = np.asarray(result.extras.get("free_vector_sd", np.full(len(vector), np.nan)))[:3]
    r = pooled_r(latent * DT_S, activity * DT_S, DT_S)
    bits = held_out_bits(latent * DT_S, spikes)
    return Found(np.exp(vector[:3]) / WEIGHT, sd, r, bits, switches, high, low, psth_r, rmse, error, result.message)


def baselines(begin_s: float) -> dict[str, tuple[float, float]]:
    """Return pooled r and held-out bits per spike of the best smoothing and the best GPFA, the setting chosen with the truth in view."""
    _, spikes, activity = recorded(begin_s)
    membership = truth()[2]
    given = np.flatnonzero(np.arange(len(membership)) % N_RECORDED < N_OBSERVED)
    y, found = spikes[:, given].astype(np.float64), {}
    for name, every in (("smoothing", smoothed_all), ("GPFA", gpfa_all)):
        tried = every(y, membership[given], DT_S)
        r = {setting: pooled_r(one, activity * DT_S, DT_S) for setting, one in tried.items()}
        best = max(r, key=r.__getitem__)
        found[name] = (r[best], max(held_out_bits(one, spikes) for one in tried.values()))
    return found


def held_out_bits(fractions: np.ndarray, spikes: np.ndarray) -> float:
    """Return the Poisson log-likelihood of the neurons that were not given over that of their mean rates, bits per spike."""
    membership = truth()[2]
    others = np.flatnonzero(np.arange(len(membership)) % N_RECORDED >= N_OBSERVED)
    y, rate = spikes[:, others].astype(np.float64), np.maximum(fractions[:, membership[others]], 1e-5)
    mean = np.maximum(y.mean(axis=0), 1e-9)
    gained = (y * np.log(rate) - rate).sum() - (y * np.log(mean) - mean).sum()
    return float(gained / np.log(2) / y.sum())


def free_statistics(activity_hz: np.ndarray) -> tuple[int, float, float]:
    """Return the number of switches, and the mean rates of the leading and of the other excitatory population while the lead is clear."""
    pair = activity_hz[:, :2]
    winner = winning_population(pair, DT_S)
    smooth = box_smoothed(pair, round(0.08 / DT_S))
    clear = np.abs(smooth[:, 0] - smooth[:, 1]) > 6.0
    if not clear.any():
        return len(switch_bins(winner)), float("nan"), float("nan")
    return len(switch_bins(winner)), float(smooth[clear].max(axis=1).mean()), float(smooth[clear].min(axis=1).mean())


@cache
def micro_answer(protocol: tuple[int, float]) -> np.ndarray:
    """Return the microscopic network's activity around a pulse, (n_trials, n_bins, 3) Hz."""
    population, amplitude = protocol
    network = PopulationNetwork(
        duration_s=BEFORE_S + 0.1 + AFTER_S,
        n_trials=N_MICRO,
        start_hz=HIGH_HZ,
        burn_in_s=0.0,
        pulse_starts_s=(BEFORE_S,),
        pulse_population=population,
        pulse_per_s=amplitude,
        pulse_ms=100.0,
    )
    return network.truth(seed=1).values["activity_hz"]


def meso_answer(constants: object, population: int, amplitude: float) -> np.ndarray:
    """Return the answer of fitted populations, (n_trials, n_bins, 3) Hz."""
    return pulse_response(
        constants,  # type: ignore[arg-type]
        np.array(HIGH_HZ),
        population=population,
        stream=Stream(2, f"acceptance/pulse-{population}-{amplitude:g}"),
        amplitude_per_s=amplitude,
        pulse_ms=100.0,
        before_s=BEFORE_S,
        after_s=AFTER_S,
        n_trials=N_MESO,
    )


def compared(found: np.ndarray, expected: np.ndarray) -> tuple[float, float, float]:
    """Return r and RMSE, Hz, of the mean answers in boxes of 20 ms, and how far apart the shares of trials with a new leader are."""
    n = min(found.shape[1], expected.shape[1])
    width = round(BOX_S / DT_S)
    a, b = (box_smoothed(one[:, :n].mean(axis=0), width) for one in (found, expected))
    read = slice(round(READ_S[0] / DT_S), round(READ_S[1] / DT_S))
    changed = [(one[:, read, 1].mean(axis=1) > one[:, read, 0].mean(axis=1)).mean() for one in (found, expected)]
    r = float(np.corrcoef(a.ravel(), b.ravel())[0, 1])
    return r, float(np.sqrt(np.mean((a - b) ** 2))), float(abs(changed[0] - changed[1]))
