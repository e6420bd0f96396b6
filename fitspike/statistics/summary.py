"""The summary of a recording or of a simulation that a run folder keeps: plain arrays by name, from which every figure is drawn.

`summarise` is called on the recorded test data and on the free simulation of the fitted model, with the same settings; `statistics.npz`
of a run folder holds both and what else the figures need. N = n_neurons, K = n_trials, C = repeated conditions, all times in the unit of
the name. Every key but those marked * is always there; figures and report leave out what is missing.

============================================ ================== ==========================================================================
key                                          shape              meaning
============================================ ================== ==========================================================================
recorded/..., simulated/...                                     what `summarise` returns (below) for the data and for the free simulation
rescaling/quantile *                         (Q,)               values of the rescaled interval's distribution function under the model
rescaling/cdf *                              (N, Q)             empirical distribution of each neuron's rescaled intervals at `quantile`
rescaling/statistic *                        (N,)               Kolmogorov-Smirnov distance over all intervals
rescaling/n_intervals *                      (N,)               intervals behind it; the 95 % band is 1.36 / sqrt(n_intervals)
score/bits_per_spike *                       (N,)               held-out bits per spike of each neuron
score/bits_per_spike_error *                  (N,)               its standard error, NaN where unknown
score/n_spikes *                             (N,)               spikes scored
model/psth_hz *                              (C, T, N)          PSTH of the model's clamped intensity, on the recorded PSTH's axes
connectivity/weight *                        (N, N) [post,pre]  coupling summed over lags
connectivity/unit *                          ()                 its unit; "1": log rate or log-odds
connectivity/p_value *                       (N, N) [post,pre]
filter/history_lag_ms, filter/history *      (L,), (N, L)       spike-history filters
filter/coupling_lag_ms, filter/coupling *    (L,), (P, L)       coupling filters of the P strongest pairs
filter/coupling_pair *                       (P, 2)             their (post, pre)
filter/NAME_lag_ms, filter/NAME *            (L,), (N, L, D)    filters of the signal NAME with D channels
============================================ ================== ==========================================================================

What `summarise` returns:

================================= ==================== ===================================================================================
dt_ms, duration_s                 ()                   bin width; scored time, all trials
neuron_ids, populations           (N,) text
rate_hz                           (N,)
trial_rate_hz                     (K,)                 mean over neurons, per trial
interval_mean_ms, interval_cv     (N,)                 NaN with fewer than 1 (cv2, lv: 2) intervals
interval_cv2, interval_lv         (N,)
n_intervals                       (N,)
interval_edges_ms                 (H + 1,)             classes of the interval histogram
interval_histogram                (N, H)               intervals per class
count_window_ms                   ()                   window of the next three
fano                              (N,)                 NaN for a silent neuron
noise_correlation                 (M, M) float32       of the neurons in correlation_neurons; NaN on the diagonal and for silent ones
correlation_neurons               (M,)                 all neurons up to `max_correlation_neurons`, else evenly chosen
is_centred_on_repeats             ()                   whether the PSTH was removed (trials repeat) or each trial's mean
population_window_ms              ()
population_rate_hz                (W,)                 first trials laid end to end, at most `max_trace_windows`
population_rate_sd_hz             ()                   sd over all windows
population_frequency_hz, _power   (F,)                 spectrum of the population rate, Hz^2 / Hz
autocorrelogram_lag_ms            (L,)                 lags > 0
autocorrelogram_hz                (N, L)               rate at this lag after a spike; as long as trials allow
psth_hz, psth_time_ms             (C, T, N), (T,)      only where trials repeat
psth_conditions, psth_n_trials    (C,)
psth_split_half, psth_ceiling     (N,)                 see `over_time.PSTH`
raster_time_s, raster_neuron      (n_events,)          excerpt of `raster_s` seconds
raster_count                      (n_events,)          spikes of the neuron in that bin
raster_trial_start_s              (n_excerpt_trials,)  where trials begin in the excerpt
raster_stop_s                     ()
================================= ==================== ===================================================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fitspike.statistics import from_events, over_time

if TYPE_CHECKING:
    from fitspike.recording.binned import BinnedSpikes
    from fitspike.recording.recording import Recording

RUNAWAY_RATE_HZ = 200.0
"""A simulated neuron above this rate is called run-away: no cortical neuron keeps it up for seconds."""


AGREEMENT = (
    "rate_r2",
    "psth_r2",
    "psth_correlation_median",
    "noise_correlation_r2",
    "fano_r2",
    "interval_cv_r2",
    "population_sd_ratio",
)
"""Measures of `compare_summaries` that say how well two sets of spikes agree; 1 is perfect."""


@dataclass(frozen=True)
class SummarySettings:
    """Windows and limits of a summary. Windows are rounded up to whole bins of the data."""

    count_window_ms: float = 100.0
    population_window_ms: float = 10.0
    psth_window_ms: float = 10.0
    autocorrelogram_ms: float = 100.0
    longest_interval_ms: float = 10_000.0
    n_interval_classes: int = 60
    raster_s: float = 10.0
    max_correlation_neurons: int = 512
    max_trace_windows: int = 6000


def summarise(data: BinnedSpikes | Recording, settings: SummarySettings | None = None) -> dict[str, np.ndarray]:
    """Return the summary of spikes as plain arrays by name; the module's table says which.

    Parameters
    ----------
    data : BinnedSpikes or Recording
        A Recording is binned at its native width or at 1 ms.
    settings : SummarySettings, optional
        Use the same for two summaries that are to be compared.
    """
    settings = settings or SummarySettings()
    binned = data if hasattr(data, "row_pointer") else data.bin()
    out: dict[str, Any] = {
        "dt_ms": binned.dt_ms,
        "duration_s": from_events.scored_duration_s(binned).sum(),
        "neuron_ids": np.asarray(binned.neurons.ids, dtype=np.str_),
        "populations": np.asarray(binned.neurons.populations, dtype=np.str_),
        "rate_hz": from_events.firing_rates_hz(binned),
        "trial_rate_hz": from_events.trial_rates_hz(binned),
    }
    out |= _intervals(binned, settings) | _counts(binned, settings) | _population(binned, settings)
    out |= _autocorrelogram(binned, settings) | _psth(binned, settings) | _raster(binned, settings)
    return {name: np.asarray(value) for name, value in out.items()}


def _whole_bins_ms(binned: BinnedSpikes, window_ms: float) -> float:
    """Return the window rounded up to whole bins."""
    return max(1, int(np.ceil(window_ms / binned.dt_ms - 1e-9))) * binned.dt_ms


def _intervals(binned: BinnedSpikes, settings: SummarySettings) -> dict[str, Any]:
    n_longest = max(2.0, settings.longest_interval_ms / binned.dt_ms)
    classes = np.unique(np.rint(np.geomspace(1, n_longest, settings.n_interval_classes)))
    edges_ms = np.concatenate([[0.0], classes]) * binned.dt_ms
    found = from_events.interval_statistics(binned, edges_ms)
    return {
        "interval_mean_ms": found.mean_ms,
        "interval_cv": found.cv,
        "interval_cv2": found.cv2,
        "interval_lv": found.lv,
        "n_intervals": found.n_intervals,
        "interval_edges_ms": edges_ms,
        "interval_histogram": found.histogram.astype(np.int32),
    }


def _counts(binned: BinnedSpikes, settings: SummarySettings) -> dict[str, Any]:
    window_ms = _whole_bins_ms(binned, settings.count_window_ms)
    n_used = min(binned.n_neurons, settings.max_correlation_neurons)
    chosen = np.unique(np.linspace(0, binned.n_neurons - 1, n_used).astype(np.int64)) if n_used else np.zeros(0, np.int64)
    found = from_events.count_statistics(binned, window_ms)
    correlation = found.correlation[np.ix_(chosen, chosen)].astype(np.float32)
    np.fill_diagonal(correlation, np.nan)
    return {
        "count_window_ms": window_ms,
        "fano": found.fano,
        "noise_correlation": correlation,
        "correlation_neurons": chosen,
        "is_centred_on_repeats": found.is_centred_on_repeats,
    }


def _population(binned: BinnedSpikes, settings: SummarySettings) -> dict[str, Any]:
    window_ms = _whole_bins_ms(binned, settings.population_window_ms)
    traces = over_time.population_rate_hz(binned, window_ms)
    everything = np.concatenate([np.zeros(0), *traces])
    frequency, power = over_time.power_spectrum(traces, window_ms)
    return {
        "population_window_ms": window_ms,
        "population_rate_hz": everything[: settings.max_trace_windows],
        "population_rate_sd_hz": everything.std() if len(everything) else np.nan,
        "population_frequency_hz": frequency,
        "population_power": power,
    }


def _autocorrelogram(binned: BinnedSpikes, settings: SummarySettings) -> dict[str, Any]:
    from fitspike.statistics.correlograms import autocorrelogram_hz

    longest = int(np.max(binned.bins_per_trial, initial=1)) - 1
    n_lags = max(0, min(longest, round(settings.autocorrelogram_ms / binned.dt_ms)))
    return {
        "autocorrelogram_lag_ms": np.arange(1, n_lags + 1) * binned.dt_ms,
        "autocorrelogram_hz": autocorrelogram_hz(binned, n_lags)[:, 1:],
    }


def _psth(binned: BinnedSpikes, settings: SummarySettings) -> dict[str, Any]:
    longest_bins = int(np.max(binned.bins_per_trial, initial=0))
    n_conditions = max(1, len(binned.condition_names))
    n_fine = n_conditions * binned.n_neurons * longest_bins * binned.dt_ms / over_time.MAX_PSTH_VALUES
    found = over_time.psth(binned, _whole_bins_ms(binned, max(settings.psth_window_ms, 1.01 * n_fine)))
    if found is None:
        return {}
    return {
        "psth_hz": found.rate_hz.astype(np.float32),
        "psth_time_ms": found.time_ms,
        "psth_conditions": found.conditions,
        "psth_n_trials": found.n_trials,
        "psth_split_half": found.split_half,
        "psth_ceiling": found.ceiling,
    }


def _raster(binned: BinnedSpikes, settings: SummarySettings) -> dict[str, Any]:
    found = over_time.raster_excerpt(binned, settings.raster_s)
    return {
        "raster_time_s": found.time_s,
        "raster_neuron": found.neuron.astype(np.uint32),
        "raster_count": found.count.astype(np.uint32),
        "raster_trial_start_s": found.trial_start_s,
        "raster_stop_s": found.stop_s,
    }


def r_squared(truth: np.ndarray, model: np.ndarray) -> float:
    """Return 1 - sum (truth - model)^2 / sum (truth - mean truth)^2 over entries finite in both; NaN where that is undefined."""
    truth, model = np.ravel(truth), np.ravel(model)
    finite = np.isfinite(truth) & np.isfinite(model)
    truth, model = truth[finite].astype(np.float64), model[finite].astype(np.float64)
    spread = ((truth - truth.mean()) ** 2).sum() if len(truth) else 0.0
    return float(1 - ((truth - model) ** 2).sum() / spread) if spread > 0 else float("nan")


def compare_summaries(recorded: Mapping[str, np.ndarray], simulated: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Return how far a free simulation is from the data: plain floats by name, and `warnings`, a list of sentences.

    rate_r2, interval_cv_r2, fano_r2, noise_correlation_r2, psth_r2: `r_squared` of simulated against recorded values, over neurons (pairs;
    conditions, times and neurons); 1 is perfect, 0 no better than the recorded mean, below 0 worse. Short data have noisy statistics, and a
    perfect model then stays below 1: rate_r2_ceiling is what counts over these lengths would leave. psth_correlation_median: over
    neurons. rate_ratio: simulated over recorded mean rate. NAME_recorded and NAME_simulated stand side by side for rate_mean_hz,
    max_rate_hz (fastest neuron), interval_cv_mean, interval_lv_mean, fano_mean (over neurons), noise_correlation_mean (over pairs) and
    population_sd_hz (of the population rate); population_sd_ratio is their quotient. n_runaway, n_silent: neurons the warnings speak of.
    """
    sides = {"recorded": recorded, "simulated": simulated}
    off_diagonal = ~np.eye(len(recorded["correlation_neurons"]), dtype=bool)
    correlation = {side: summary["noise_correlation"][off_diagonal] for side, summary in sides.items()}
    rate, simulated_rate = recorded["rate_hz"], simulated["rate_hz"]
    expected_spikes = rate * float(simulated["duration_s"])
    is_runaway = simulated_rate > np.maximum(RUNAWAY_RATE_HZ, 1.5 * rate)
    is_silent = (simulated_rate == 0) & (expected_spikes >= 10)
    found: dict[str, Any] = {
        "rate_r2": r_squared(rate, simulated_rate),
        "rate_r2_ceiling": _rate_ceiling(recorded, simulated),
        "rate_ratio": _ratio(simulated_rate.mean(), rate.mean()),
        "interval_cv_r2": r_squared(recorded["interval_cv"], simulated["interval_cv"]),
        "fano_r2": r_squared(recorded["fano"], simulated["fano"]),
        "noise_correlation_r2": r_squared(correlation["recorded"], correlation["simulated"]),
        "population_sd_ratio": _ratio(float(simulated["population_rate_sd_hz"]), float(recorded["population_rate_sd_hz"])),
    }
    for side, summary in sides.items():
        found |= {
            f"rate_mean_hz_{side}": float(summary["rate_hz"].mean()),
            f"max_rate_hz_{side}": float(summary["rate_hz"].max(initial=0)),
            f"interval_cv_mean_{side}": _mean(summary["interval_cv"]),
            f"interval_lv_mean_{side}": _mean(summary["interval_lv"]),
            f"fano_mean_{side}": _mean(summary["fano"]),
            f"noise_correlation_mean_{side}": _mean(correlation[side]),
            f"population_sd_hz_{side}": float(summary["population_rate_sd_hz"]),
        }
    if "psth_hz" in recorded and "psth_hz" in simulated and recorded["psth_hz"].shape == simulated["psth_hz"].shape:
        flat = (s["psth_hz"].reshape(-1, s["psth_hz"].shape[-1]).astype(np.float64) for s in (recorded, simulated))
        correlations = over_time.column_correlation(*flat)
        found["psth_r2"] = r_squared(recorded["psth_hz"], simulated["psth_hz"])
        found["psth_correlation_median"] = float(np.nanmedian(correlations)) if np.isfinite(correlations).any() else float("nan")
    found |= {"n_runaway": int(is_runaway.sum()), "n_silent": int(is_silent.sum())}
    found["warnings"] = _warnings(found, recorded, is_runaway, is_silent)
    return found


def _rate_ceiling(recorded: Mapping[str, np.ndarray], simulated: Mapping[str, np.ndarray]) -> float:
    """Return the R2 of rates to be expected over neurons if simulation and data had the same rates.

    Counts vary as their recorded Fano factor says (that of Poisson counts at least).
    """
    rate = recorded["rate_hz"]
    spread = float(((rate - rate.mean()) ** 2).sum())
    fano = np.maximum(np.nan_to_num(recorded["fano"], nan=1.0), 1.0)
    noise = float((fano * rate).sum() * sum(1 / max(float(summary["duration_s"]), 1e-300) for summary in (recorded, simulated)))
    return 1 - noise / spread if spread > 0 else float("nan")


def _ratio(a: float, b: float) -> float:
    return float(a / b) if b > 0 else float("nan")


def _mean(values: np.ndarray) -> float:
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")


def _warnings(found: Mapping[str, Any], recorded: Mapping[str, np.ndarray], is_runaway: np.ndarray, is_silent: np.ndarray) -> list[str]:
    texts = []
    if is_runaway.any():
        texts.append(
            f"Runaway: {found['n_runaway']} of {len(is_runaway)} neurons exceed {RUNAWAY_RATE_HZ:g} Hz in the free simulation "
            f"({_names(recorded, is_runaway)}). The model predicts the next bin but does not generate such activity; "
            "add a penalty on history and coupling, or limit the history filters."
        )
    elif found["rate_ratio"] > 2:
        texts.append(
            f"The free simulation fires {found['rate_ratio']:.1f} times as much as the data. Raise the coupling penalty, "
            "or look at the population rate for bursts that feed themselves."
        )
    elif found["rate_ratio"] < 0.5:
        texts.append(
            f"The free simulation fires only {found['rate_ratio']:.2f} times as much as the data. The data may drift in time, "
            "or bursts are not generated by the model."
        )
    if is_silent.any():
        texts.append(
            f"Silent: {found['n_silent']} of {len(is_silent)} neurons never fire in the free simulation although the data "
            f"lead one to expect ten spikes or more ({_names(recorded, is_silent)})."
        )
    ceiling = found["rate_r2_ceiling"]
    if 0.5 <= found["rate_ratio"] <= 2 and not is_runaway.any() and found["rate_r2"] < min(0.9, 1 - 3 * (1 - ceiling)):
        texts.append(
            f"Simulated rates explain the recorded ones badly: R2 {found['rate_r2']:.2f} over neurons, where counting noise alone would "
            f"leave {ceiling:.2f}. A good likelihood does not make this model a good generator of activity; the data may also drift."
        )
    return texts


def _names(recorded: Mapping[str, np.ndarray], which: np.ndarray, most: int = 5) -> str:
    ids = [str(name) for name in recorded["neuron_ids"][which]]
    return ", ".join(ids[:most]) + (f" and {len(ids) - most} more" if len(ids) > most else "")
