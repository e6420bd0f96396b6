"""Which figures a run has, each drawn from the numbers its folder holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from fitspike.errors import InvalidInputError, UnknownNameError, did_you_mean
from fitspike.plotting import connectivity, learning_curve, populations, psth, raster, statistics, style, targets
from fitspike.plotting.run_files import RunFiles

FALSE_DISCOVERY = 0.05
"""Share of false ones among the couplings called significant (Benjamini, Hochberg 1995)."""


@dataclass(frozen=True)
class Drawing:
    """A figure with its caption; `figure` is drawn when called."""

    name: str
    caption: str
    figure: Callable[[], Figure]

    @property
    def stem(self) -> str:
        """Return the name of its file; signals and losses may be called "a/b"."""
        return self.name.replace("/", "-")


def available(run: RunFiles) -> dict[str, Drawing]:
    """Return every figure whose numbers the run holds, by name."""
    found = [make(run) for make in (_raster, _panel, _intervals, _psth, _psth_scores, _rescaling, _neuron_scores)]
    found += [_population_activity(run), _population_coupling(run), _dwell_times(run), _pulse_responses(run)]
    found += [_coupling(run), _coupling_filters(run), _history_filters(run), *_stimulus_filters(run), *_targets(run)]
    found += [_selection(run), _learning(run)]
    return {drawing.name: drawing for drawing in found if drawing is not None}


NAMES = (
    "raster",
    "simulation",
    "intervals",
    "psth",
    "psth-scores",
    "rescaling",
    "neuron-scores",
    "population-activity",
    "population-coupling",
    "dwell-times",
    "pulse-responses",
    "coupling",
    "coupling-filters",
    "history-filters",
    "filters-NAME",
    "targets-NAME",
    "selection",
    "learning-curve",
)


def draw(run_dir: Path, what: Sequence[str] = (), folder: Path | None = None, format: str = "svg") -> list[Path]:
    """Draw a run's figures from its saved numbers into a folder and return their paths.

    Parameters
    ----------
    run_dir : Path
    what : names of figures (see `NAMES`); default: all that the run's numbers allow
    folder : Path, optional
        Default: `figures` in the run folder.
    format : "png", "svg" or "pdf"

    Raises
    ------
    UnknownNameError
        If there is no figure of such a name.
    InvalidInputError
        If the run does not hold the numbers of a figure asked for, or the format is unknown.
    """
    if format not in style.FORMATS:
        raise InvalidInputError(f"no figure format {format!r}{did_you_mean(format, style.FORMATS)} Known: {', '.join(style.FORMATS)}.")
    drawings = available(RunFiles.read(run_dir))
    for name in what:
        if name not in drawings and name not in NAMES and not name.startswith(("filters-", "targets-")):
            raise UnknownNameError(f"no figure {name!r}{did_you_mean(name, [*NAMES, *drawings])} Known: {', '.join(NAMES)}.")
    missing = [name for name in what if name not in drawings]
    if missing:
        raise InvalidInputError(f"{run_dir} does not hold the numbers for {', '.join(missing)}. It has: {', '.join(drawings) or 'none'}.")
    folder = Path(run_dir) / "figures" if folder is None else Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    return [style.save(drawings[name].figure(), folder / f"{drawings[name].stem}.{format}") for name in (what or drawings)]


def part_shown(run: RunFiles) -> str:
    """Return which data figures and simulation refer to: what was held out, or without that the training data."""
    is_held_out = run.statistics.get("recorded/is_held_out", "n_bins" in run.score)  # runs of before it was stored have none
    return "held-out data" if is_held_out else "training data"


def _raster(run: RunFiles) -> Drawing | None:
    recorded, simulated = run.group("recorded"), run.group("simulated")
    parts = ("raster_time_s", "raster_neuron", "raster_count")
    if not {*parts, "raster_stop_s", "raster_trial_start_s"} <= set(recorded):
        return None
    panels = {"data": tuple(recorded[name] for name in parts)}
    stop_s = float(recorded["raster_stop_s"])
    if set(parts) <= set(simulated):
        panels["free simulation"] = tuple(simulated[name] for name in parts)
        stop_s = min(stop_s, float(simulated["raster_stop_s"]))
    panels = {name: tuple(values[part[0] < stop_s] for values in part) for name, part in panels.items()}
    starts = recorded["raster_trial_start_s"]
    free = " and of the fitted model running freely" if len(panels) > 1 else ""
    return Drawing(
        "raster",
        f"Spikes of the {part_shown(run)}{free}, neurons in the order of their recorded rate, with the mean rate over neurons below"
        f"{' each' if free else ''}.",
        lambda: raster.draw_raster(panels, len(run.neuron_ids), stop_s, trial_start_s=starts[starts < stop_s], neuron_ids=run.neuron_ids),
    )


def _panel(run: RunFiles) -> Drawing | None:
    recorded, simulated = run.group("recorded"), run.group("simulated")
    if not recorded or not simulated:
        return None
    return Drawing(
        "simulation",
        "Data against free simulation, one point per neuron (or pair). On the dashed line both agree.",
        lambda: statistics.draw_data_against_simulation(recorded, simulated),
    )


def _intervals(run: RunFiles) -> Drawing | None:
    recorded, simulated = run.group("recorded"), run.group("simulated")
    if "interval_histogram" not in recorded:
        return None
    return Drawing(
        "intervals",
        "Inter-spike intervals of all neurons, and the local irregularity of each.",
        lambda: statistics.draw_intervals(recorded, simulated or None),
    )


def _psth_inputs(run: RunFiles) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]] | None:
    """Return the recorded summary and the model's PSTHs by kind, on the same axes; None without repeats."""
    recorded = run.group("recorded")
    if "psth_hz" not in recorded:
        return None
    models = {"prediction": run.statistics.get("model/psth_hz"), "free simulation": run.statistics.get("simulated/psth_hz")}
    return recorded, {name: value for name, value in models.items() if value is not None and value.shape == recorded["psth_hz"].shape}


def _psth(run: RunFiles) -> Drawing | None:
    inputs = _psth_inputs(run)
    if inputs is None:
        return None
    recorded, models = inputs
    name, model_hz = next(iter(models.items()), ("", None))
    what = {"prediction": "the model's prediction given the recorded past", "free simulation": "the model running freely"}.get(name)
    return Drawing(
        "psth",
        "Mean response over repeated trials" + (f", and {what}" if what else "") + ", for the neurons with the clearest response. r: "
        "correlation of model and data over all conditions, and the ceiling that the number of repeats allows.",
        lambda: psth.draw_psth(
            recorded["psth_time_ms"],
            recorded["psth_hz"],
            model_hz,
            conditions=recorded["psth_conditions"],
            neuron_ids=run.neuron_ids,
            n_trials=recorded["psth_n_trials"],
            ceiling=recorded["psth_ceiling"],
        ),
    )


def _psth_scores(run: RunFiles) -> Drawing | None:
    inputs = _psth_inputs(run)
    if inputs is None or not inputs[1]:
        return None
    recorded, models = inputs
    return Drawing(
        "psth-scores",
        "Correlation of model and recorded mean responses against the ceiling, from the split-half reliability of the data; one point per "
        "neuron. A prediction given the past of the very trials knows some of their noise and may lie above the ceiling.",
        lambda: psth.draw_psth_scores(recorded["psth_hz"], models, recorded["psth_ceiling"]),
    )


def _rescaling(run: RunFiles) -> Drawing | None:
    found = run.group("rescaling")
    if not {"quantile", "cdf", "statistic", "n_intervals"} <= set(found):
        return None
    return Drawing(
        "rescaling",
        "Time-rescaling test: with the right model, intervals rescaled by the predicted intensity are exponential and each neuron's curve "
        "stays inside its band in 95 of 100 cases.",
        lambda: statistics.draw_time_rescaling(found["quantile"], found["cdf"], found["statistic"], found["n_intervals"]),
    )


def _neuron_scores(run: RunFiles) -> Drawing | None:
    found = run.group("score")
    if not {"bits_per_spike", "n_spikes"} <= set(found):
        return None
    return Drawing(
        "neuron-scores",
        "Held-out bits per spike of each neuron over a model that knows only its mean training rate; error bars: one standard error.",
        lambda: statistics.draw_neuron_scores(
            found["bits_per_spike"], found.get("bits_per_spike_error"), run.neuron_ids, found["n_spikes"]
        ),
    )


def significant(p_value: np.ndarray, rate: float = FALSE_DISCOVERY) -> np.ndarray:
    """Return which off-diagonal entries are significant at a false-discovery rate (Benjamini, Hochberg 1995), [post, pre] bool."""
    off = ~np.eye(len(p_value), dtype=bool) & np.isfinite(p_value)
    ordered = np.sort(p_value[off])
    below = np.flatnonzero(ordered <= rate * np.arange(1, len(ordered) + 1) / max(len(ordered), 1))
    return off & (p_value <= (ordered[below[-1]] if len(below) else -1.0))


def _population_activity(run: RunFiles) -> Drawing | None:
    found = run.group("population")
    if not {"latent_hz", "free_hz"} <= set(found):
        return None
    return Drawing(
        "population-activity",
        "Activity of whole populations, inferred from the few recorded neurons, and of the fitted populations running freely.",
        lambda: populations.draw_population_activity(
            found["names"], found["latent_time_s"], found["latent_hz"], found.get("latent_sd_hz"), found["free_time_s"], found["free_hz"]
        ),
    )


def _population_coupling(run: RunFiles) -> Drawing | None:
    found = run.group("population")
    if "coupling" not in found:
        return None
    return Drawing(
        "population-coupling",
        "Couplings between populations: the row receives, the column sends; red excites, blue inhibits. Below each value its standard "
        "error; a question mark where the data do not determine it.",
        lambda: populations.draw_population_coupling(found["coupling"], found.get("coupling_sd"), found["names"]),
    )


def _dwell_times(run: RunFiles) -> Drawing | None:
    found = run.group("population")
    if not {"inferred_dwell_s", "free_dwell_s"} <= set(found) or not (len(found["inferred_dwell_s"]) or len(found["free_dwell_s"])):
        return None
    return Drawing(
        "dwell-times",
        "How long one excitatory population leads the others, in the inferred activity and in a long free run. Times between changes of "
        "the lead vary by orders of magnitude with couplings a few percent apart, so that agreement is a sharp test.",
        lambda: populations.draw_dwell_times(found["inferred_dwell_s"], found["free_dwell_s"]),
    )


def _pulse_responses(run: RunFiles) -> Drawing | None:
    found = run.group("population")
    if "response_hz" not in found:
        return None
    pulse_ms, amplitude = float(found.get("response_pulse_ms", np.nan)), float(found.get("response_per_s", np.nan))
    return Drawing(
        "pulse-responses",
        "Predicted answer of all populations to a pulse of input to one of them, as by photo-stimulation; mean of simulated trials that "
        "start in the commonest state.",
        lambda: populations.draw_pulse_responses(found["names"], found["response_time_ms"], found["response_hz"], pulse_ms, amplitude),
    )


def couples(weight: np.ndarray) -> bool:
    """Return whether some neuron reaches another one: not so in tasks, whose inputs reach hidden neurons alone. [post, pre]"""
    return bool(np.count_nonzero(weight) > np.count_nonzero(np.diagonal(weight)))


def _coupling(run: RunFiles) -> Drawing | None:
    found = run.group("connectivity")
    if "weight" not in found or len(found["weight"]) < 2 or not couples(found["weight"]):
        return None
    marked = significant(found["p_value"]) if "p_value" in found else None
    return Drawing(
        "coupling",
        "Couplings summed over lag: the row neuron receives, the column neuron sends; red excites, blue inhibits."
        + (f" Marked: significant at a false-discovery rate of {FALSE_DISCOVERY:g}." if marked is not None else ""),
        lambda: connectivity.draw_coupling_matrix(
            found["weight"], unit=str(found.get("unit", "1")), is_significant=marked, neuron_ids=run.neuron_ids
        ),
    )


def _coupling_filters(run: RunFiles) -> Drawing | None:
    found = run.group("filter")
    if not {"coupling", "coupling_lag_ms", "coupling_pair"} <= set(found) or not len(found["coupling"]):
        return None
    ids = run.neuron_ids
    labels = [f"{ids[post]} ← {ids[pre]}" for post, pre in found["coupling_pair"]]
    return Drawing(
        "coupling-filters",
        "Coupling filters of the strongest pairs: change of the log rate after one spike of the neuron on the right of the arrow.",
        lambda: connectivity.draw_coupling_filters(found["coupling_lag_ms"], found["coupling"], labels),
    )


def _history_filters(run: RunFiles) -> Drawing | None:
    found = run.group("filter")
    if not {"history", "history_lag_ms"} <= set(found):
        return None
    return Drawing(
        "history-filters",
        "Spike-history filters: change of a neuron's log rate after its own spike.",
        lambda: connectivity.draw_history_filters(found["history_lag_ms"], found["history"]),
    )


def _stimulus_filters(run: RunFiles) -> list[Drawing]:
    found = run.group("filter")
    names = [name.removesuffix("_lag_ms") for name in found if name.endswith("_lag_ms")]
    return [
        Drawing(
            f"filters-{name}",
            f"Filters of {'the other neurons’ summed activity' if name == 'population' else name} for the neurons it drives most.",
            lambda name=name: connectivity.draw_stimulus_filters(found[f"{name}_lag_ms"], found[name], name, run.neuron_ids),
        )
        for name in names
        if name not in ("history", "coupling") and name in found
    ]


def _targets(run: RunFiles) -> list[Drawing]:
    found = run.group("targets")
    drawings = []
    for name in dict.fromkeys(one.rpartition("/")[0] for one in found):
        time_ms, output, target, weight, is_class = (
            found[f"{name}/{part}"] for part in ("time_ms", "output", "target", "weight", "is_class")
        )
        what = (
            "probabilities that the network gives to the classes; shaded: the right class, where one is asked for"
            if is_class
            else ("outputs of the network over their targets")
        )
        drawings.append(
            Drawing(
                f"targets-{name}",
                f"Loss {name}, {part_shown(run)}: {what}.",
                lambda parts=(time_ms, output, target, weight), is_class=is_class: targets.draw_targets(*parts, is_class=bool(is_class)),
            )
        )
    return drawings


def _selection(run: RunFiles) -> Drawing | None:
    rows = [row for row in learning_curve.selection_rows(run.selection) if row["score"] is not None]
    if len(rows) < 2:
        return None
    n_folds = max(1, *(len(row["folds"]) for row in rows))
    folds = np.array([[_number(value) for value in row["folds"]] + [np.nan] * (n_folds - len(row["folds"])) for row in rows])
    return Drawing(
        "selection",
        "What was tried before the settings were fixed, by " + str(run.selection.get("method") or "validation on training data") + ".",
        lambda: learning_curve.draw_selection(
            [row["stage"] for row in rows],
            [row["label"] for row in rows],
            np.array([row["score"] for row in rows], dtype=np.float64),
            folds,
            np.array([row["is_taken"] for row in rows]),
        ),
    )


def _learning(run: RunFiles) -> Drawing | None:
    """Draw the last stage of the history; earlier ones chose settings."""
    if not run.history:
        return None
    stage = run.history[-1].get("stage")
    rows = [row for row in run.history if row.get("stage") == stage]
    names = [name for name in dict.fromkeys(key for row in rows for key in row) if name not in ("stage", "step", "wall_s", "epoch")]
    terms: dict[str, np.ndarray] = {}
    for name in names:
        values = np.array([_number(row.get(name)) for row in rows])
        if not any(np.array_equal(values, other, equal_nan=True) for other in terms.values()):  # a loss of one term equals that term
            terms[name] = values
    step, wall_s = (np.array([_number(row.get(name)) for row in rows]) for name in ("step", "wall_s"))
    return Drawing("learning-curve", "The course of the fit.", lambda: learning_curve.draw_learning_curve(step, terms, wall_s))


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else float("nan")
