"""After the computation: held-out scores, a free simulation beside the data, and the numbers that figures are drawn from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fitspike.config import RunConfig
from fitspike.errors import InvalidInputError
from fitspike.fitting.optimise import Fitted
from fitspike.fitting.prepare import Prepared
from fitspike.fitting.targets import beside_targets
from fitspike.models.base import HasCaveats, HasConnectivity, HasPopulations, HasStability
from fitspike.models.connectivity import Connectivity
from fitspike.neurons.emissions import spikes_by_drive_alone
from fitspike.params import to_tensors
from fitspike.recording.binned import BinnedSpikes
from fitspike.results.result import is_binary
from fitspike.results.simulation import simulate_recording
from fitspike.results.training_data import TrainingData
from fitspike.rng import Stream
from fitspike.scoring import Score, ScoreSettings, score_model
from fitspike.statistics.split_half import split_half_agreement
from fitspike.statistics.summary import SummarySettings, compare_summaries, summarise

SIMULATED_BINS = 120_000
"""Bins of the free simulation beside the data: two minutes at 1 ms."""

MAX_SIMULATED_VALUES = 5e7
"""Most bins times neurons of the free simulation beside the data."""


@dataclass(frozen=True, eq=False)
class Judgement:
    """score: None where nothing was held out. simulation: plain values. statistics: arrays by name. notes: sentences for the run record."""

    score: Score | None = None
    simulation: Mapping[str, Any] = field(default_factory=dict)
    statistics: Mapping[str, np.ndarray] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def score_settings(config: RunConfig) -> ScoreSettings:
    """Return the settings of `[score]`."""
    return ScoreSettings(**config.score.model_dump())


def score_held_out(prepared: Prepared, fitted: Fitted, config: RunConfig) -> Score | None:
    """Return the held-out scores, or None where nothing was held out or spikes do not happen by chance."""
    if prepared.test is None or spikes_by_drive_alone(fitted.model):
        return None
    hidden = prepared.held_out_neurons
    return score_model(
        fitted.model,
        fitted.params,
        prepared.test,
        prepared.data.rate,
        is_binary=is_binary(fitted.model),
        settings=score_settings(config),
        stream=Stream(config.seed, "score"),
        held_out_neurons=None if hidden is None else np.flatnonzero(hidden),
    )


def _only_drives(prepared: Prepared, fitted: Fitted) -> bool:
    """Return whether recorded neurons are but the input of a network without chance: running freely they would never fire."""
    mask = fitted.params.get("coupling_mask")
    return spikes_by_drive_alone(fitted.model) and mask is not None and not np.any(mask[: prepared.train.n_neurons])


def simulate_beside(prepared: Prepared, fitted: Fitted, config: RunConfig) -> tuple[dict[str, Any], dict[str, np.ndarray], list[str]]:
    """Return how a free simulation compares with the data (plain values, warnings included), and the summaries of both.

    The simulation runs over the trials that are scored (training trials where nothing is held out).
    """
    data = prepared.train if prepared.test is None else prepared.test
    settings = SummarySettings(psth_window_ms=config.score.psth_window_ms)
    recorded = {f"recorded/{name}": value for name, value in summarise(data, settings).items()}
    recorded["recorded/is_held_out"] = np.array(prepared.test is not None)
    if config.simulation.max_seconds == 0 or _only_drives(prepared, fitted):
        return {}, recorded, []
    stream = Stream(config.seed, "simulation")
    try:
        found, summary = simulate_and_compare(
            fitted.model, fitted.params, data, prepared.data, stream, settings, config.simulation.max_seconds
        )
    except InvalidInputError as error:  # it runs away
        return {"error": str(error)}, recorded, [str(error)]
    warnings = [str(text) for text in found.get("warnings", ())]
    return found, recorded | {f"simulated/{name}": value for name, value in summary.items()}, warnings


def simulate_and_compare(
    model: Any,
    params: Any,
    data: BinnedSpikes,
    training: TrainingData,
    stream: Stream,
    settings: SummarySettings,
    max_seconds: float | None = None,
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return how a free simulation compares with data of the same trials (`compare_summaries`), and the simulation's summary.

    The simulation has the trials, signals and conditions of the data and starts from an empty past; it ends after `max_seconds` (None:
    120 s per ms of bin width; less for very many neurons), and the data it is compared with are those same trials. "split_half" holds the
    same measures between two halves of these data.
    """
    seconds = SIMULATED_BINS * data.dt_ms / 1000 if max_seconds is None else max_seconds
    part = leading_part(data, min(seconds, MAX_SIMULATED_VALUES * data.dt_ms / 1000 / data.n_neurons))
    beside = summarise(part, settings)
    simulated = training.renumber(simulate_recording(model, params, part, training, stream).bin())
    summary = summarise(simulated, settings)
    found = compare_summaries(beside, summary)
    found |= {
        "split_half": split_half_agreement(part, settings),
        "duration_s": float(summary["duration_s"]),
        "n_trials": simulated.n_trials,
    }
    return found, summary


def leading_part(binned: BinnedSpikes, max_seconds: float) -> BinnedSpikes:
    """Return the leading trials that last at most `max_seconds` together, the last one cut if it alone is longer."""
    total = np.cumsum(np.asarray(binned.bins_per_trial)) * binned.dt_ms / 1000
    n_trials = int(np.searchsorted(total, max_seconds + 1e-9, side="right"))
    if n_trials >= binned.n_trials:
        return binned
    if n_trials > 0:
        return binned.select_trials(range(n_trials))
    stop = max(1, min(int(binned.bins_per_trial[0]), int(binned.warmup_bins[0]) + round(max_seconds * 1000 / binned.dt_ms)))
    return binned.select_bins(0, 0, stop, warmup_bins=int(min(binned.warmup_bins[0], stop - 1)))


def stability_note(fitted: Fitted) -> list[str]:
    """Return what a model says of its own stability if that is a warning; a solver that has looked is not asked again."""
    found = fitted.report.extras
    if "is_stable" not in found:
        if not isinstance(fitted.model, HasStability):
            return []
        found = fitted.model.stability(to_tensors(fitted.params))
    return [] if found["is_stable"] else [str(found["message"])]


def score_statistics(score: Score) -> dict[str, np.ndarray]:
    """Return the arrays of a score that figures are drawn from."""
    arrays = {
        "score/bits_per_spike": score.per_neuron["bits_per_spike"],
        "score/bits_per_spike_error": score.per_neuron["bits_per_spike_se"],
        "score/n_spikes": score.per_neuron["n_spikes"],
    }
    if score.rescaling is not None:
        arrays |= {
            "rescaling/quantile": score.rescaling.quantile,
            "rescaling/cdf": score.rescaling.cdf.astype(np.float32),
            "rescaling/statistic": score.rescaling.statistic,
            "rescaling/n_intervals": score.rescaling.n_intervals,
        }
    return arrays


def model_statistics(fitted: Fitted, dt_ms: float, stream: Stream) -> dict[str, np.ndarray]:
    """Return couplings, filters and populations of the model that figures are drawn from; nothing for a model without them."""
    arrays: dict[str, np.ndarray] = {}
    if isinstance(fitted.model, HasPopulations):
        found = fitted.model.populations(to_tensors(fitted.params), fitted.report.extras, dt_ms, stream)
        arrays |= {f"population/{name}": value for name, value in found.items()}
    if (couplings := _couplings(fitted)) is not None:
        arrays["connectivity/weight"], arrays["connectivity/unit"] = couplings.weight, np.array(couplings.unit)
        if couplings.p_value is not None:
            arrays["connectivity/p_value"] = couplings.p_value
    if hasattr(fitted.model, "filters"):
        arrays |= {f"filter/{name}": np.asarray(value) for name, value in fitted.model.filters(to_tensors(fitted.params)).items()}
    return arrays


def _couplings(fitted: Fitted) -> Connectivity | None:
    """Return the couplings, or None for a model that has none or was fitted without them."""
    if not isinstance(fitted.model, HasConnectivity):
        return None
    try:
        return fitted.model.connectivity(to_tensors(fitted.params), fitted.report.extras)
    except InvalidInputError:
        return None


def judge(prepared: Prepared, fitted: Fitted, config: RunConfig, stop_if_asked: Any) -> Judgement:
    """Return scores, simulation and statistics of a fit.

    A score that cannot be computed (infinite parameters, say) is an error; a simulation that cannot is a note, as it says something about
    the model, and the figures show the data alone.
    """
    score = score_held_out(prepared, fitted, config)
    stop_if_asked()
    notes = ["Deterministic spikes have no likelihood, so that there is no held-out score."] if spikes_by_drive_alone(fitted.model) else []
    notes += [*stability_note(fitted), *(fitted.model.caveats() if isinstance(fitted.model, HasCaveats) else ())]
    simulation, statistics, warnings = simulate_beside(prepared, fitted, config)
    stop_if_asked()
    targets, traces = beside_targets(prepared, fitted, config)
    simulation, statistics = simulation | ({"targets": targets} if targets else {}), statistics | traces
    statistics |= model_statistics(fitted, prepared.data.dt_ms, Stream(config.seed, "populations"))
    if score is not None:
        statistics |= score_statistics(score)
        if score.psth is not None:
            statistics |= {"model/psth_hz": score.psth.model_hz.astype(np.float32), "model/psth_time_ms": score.psth.time_ms}
    return Judgement(score, simulation, statistics, (*notes, *warnings))
