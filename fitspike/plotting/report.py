"""report.html: everything about one run in one file, made from the files of its folder; no network, no plugin, no model needed."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from fitspike.plotting import style
from fitspike.plotting.figures import Drawing, available, part_shown, significant
from fitspike.plotting.learning_curve import TITLES, selection_rows
from fitspike.plotting.run_files import RunFiles

SCORES = {
    "bits_per_spike": (
        "bits per spike",
        "log-likelihood gained over a model that knows each neuron's mean training rate, all spikes pooled",
    ),
    "pseudo_r2": ("pseudo-R2", "share of the way from the mean-rate model to a perfect one, mean over neurons"),
    "co_smoothing": ("co-smoothing", "bits per spike of neurons predicted while their own spikes are hidden"),
    "psth_correlation": ("PSTH correlation", "predicted and recorded mean response, median over neurons"),
    "psth_correlation_ceiling": (
        "PSTH ceiling",
        "what the true mean response would reach with these repeats, median over neurons; predictions given the past may exceed it",
    ),
    "time_rescaling_inside_band": ("time rescaling", "share of neurons inside the 95 % band"),
    "log_likelihood": ("log-likelihood", "nats, all held-out bins and neurons"),
    "bits_per_spike_median": ("bits per spike, median", "over neurons"),
    "pseudo_r2_median": ("pseudo-R2, median", "over neurons"),
    "pseudo_r2_pooled": ("pseudo-R2, pooled", "all neurons' deviances summed first"),
    "time_rescaling_ks_median": ("time rescaling, KS distance", "median over neurons"),
}
"""Names in score.json that get a plain title; others are shown by their name."""

SIMULATION = {
    "rate_mean_hz": "mean rate (Hz)",
    "max_rate_hz": "fastest neuron (Hz)",
    "interval_cv_mean": "CV of intervals, mean over neurons",
    "interval_lv_mean": "LV of intervals, mean over neurons",
    "fano_mean": "Fano factor, mean over neurons",
    "noise_correlation_mean": "noise correlation, mean over pairs",
    "population_sd_hz": "standard deviation of the population rate (Hz)",
}
"""Quantities that simulation.json gives for data and simulation."""
AGREEMENT = {
    "rate_r2": "rates: R2 over neurons",
    "psth_r2": "mean responses: R2 over conditions, times and neurons",
    "psth_correlation_median": "mean responses: correlation, median over neurons",
    "noise_correlation_r2": "noise correlations: R2 over pairs",
    "fano_r2": "Fano factors: R2 over neurons",
    "interval_cv_r2": "CV of intervals: R2 over neurons",
    "population_sd_ratio": "population rate: ratio of standard deviations",
}
"""How well simulation and data agree, 1 being perfect."""
COUNTED = {"n_runaway": "neurons that run away", "n_silent": "neurons that fall silent"}
STRONGEST = 15
PIXELS_PER_INCH = 115


def write_report(run_dir: Path, *, with_figures: bool = False) -> Path:
    """Write report.html into a run folder, from the files there, and return its path.

    `with_figures` also writes the report's figures, as drawn, into `figures` of the run folder.

    Raises
    ------
    RunFolderError
        If the folder is no run folder or a file in it is damaged.
    """
    run = RunFiles.read(Path(run_dir))
    path = run.path / "report.html"
    temporary = path.with_name(".report.html.tmp")
    folder = run.path / "figures" if with_figures else None
    if folder is not None:
        folder.mkdir(exist_ok=True)
    temporary.write_text(render(run, folder), encoding="utf-8")
    temporary.replace(path)
    return path


def render(run: RunFiles, figure_folder: Path | None = None) -> str:
    """Return the text of the report; its figures are also written into `figure_folder`, if one is given."""
    folder = Path(__file__).parent / "templates"
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder), autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["number"] = number
    environment.globals["with_error"] = with_error
    model = run.specs.get("model", {})
    return environment.get_template("report.html").render(
        title=_title(run),
        model=model,
        state=run.status.get("state", ""),
        status=run.fit.get("status") or run.status.get("status") or run.status.get("state", ""),
        message=run.fit.get("message") or run.status.get("message", ""),
        advice=run.fit.get("advice", ""),
        warnings=_warnings(run),
        fitted=_fitted(run),
        settings=_flat(model.get("settings", {})),
        is_scorable=model.get("settings", {}).get("emission") != "threshold",
        parameters=_parameters(run),
        data=_data(run),
        checks=_checks(run.checks),
        scores=_scores(run.score),
        score_notes=run.score.get("notes", ()),
        score_extent=_score_extent(run.score),
        neurons=_neurons(run),
        selection=selection_rows(run.selection),
        selection_method=run.selection.get("method", ""),
        part_shown=part_shown(run),
        simulation=_simulation(run.simulation),
        agreement=_agreement(run.simulation),
        counted_neurons=[(text, run.simulation[name]) for name, text in COUNTED.items() if run.simulation.get(name) is not None],
        targets=target_rows(run.simulation),
        couplings=_couplings(run),
        figures={name: _embedded(drawing, figure_folder) for name, drawing in available(run).items()},
        provenance=_flat({name: value for name, value in run.provenance.items() if name not in ("data", "packages", "plugins", "command")}),
        packages=dict(run.provenance.get("packages", {})),
        plugins=run.provenance.get("plugins", ()),
        command=run.provenance.get("command", ""),
        source=_flat(run.provenance.get("data", {})),
        citations=run.fit.get("citations", ()),
        settings_text=run.settings_text,
    )


def number(value: Any) -> str:
    """Return a number as a reader wants it: four significant digits, thousands apart, a dash for nothing."""
    if value is None or (isinstance(value, float) and not np.isfinite(value)):
        return "–"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int) or (abs(value) >= 10_000 and value == round(value)):
        return f"{int(value):,}".replace(",", "\u202f")
    if value != 0 and (abs(value) < 1e-3 or abs(value) >= 1e6):
        return f"{value:.3e}"
    return f"{value:,.0f}".replace(",", "\u202f") if abs(value) >= 10_000 else f"{value:.4g}"


def with_error(value: Any, error: Any) -> str:
    """Return value and standard error to two digits of the error: 0.077 ± 0.009 (one digit if it is 3 or more)."""
    if value is None or error is None or not np.isfinite(error) or error <= 0:
        return number(value)
    first = int(np.floor(np.log10(error)))
    digits = max(0, -first + (1 if error / 10.0**first < 3 else 0))
    return f"{value:.{digits}f} ± {error:.{digits}f}"


def _title(run: RunFiles) -> str:
    name = str(run.specs.get("model", {}).get("qualified_name", "model")).rpartition(":")[2]
    path = run.provenance.get("data", {}).get("path") or ""
    return f"{name} fitted to {Path(path).name}" if path else f"{name}: {run.path.name}"


def _embedded(drawing: Drawing, folder: Path | None) -> dict[str, str]:
    """Return a figure as a data address, apart from the page so that styles and names of several figures do not meet."""
    figure = drawing.figure()
    width, height = figure.get_size_inches()
    data = style.svg_bytes(figure)
    if folder is not None:
        (folder / f"{drawing.stem}.svg").write_bytes(data)
    return {
        "caption": drawing.caption,
        "address": f"data:image/svg+xml;base64,{base64.b64encode(data).decode('ascii')}",
        "width": str(round(PIXELS_PER_INCH * width)),
        "height": str(round(PIXELS_PER_INCH * height)),
    }


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return nested plain values as (dotted name, text) rows."""
    rows = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            if "qualified_name" in value:
                rows.append((prefix + name, str(value["qualified_name"])))
                value = value.get("settings", {})
            rows += _flat(value, f"{prefix}{name}.")
        elif isinstance(value, list | tuple) and len(value):
            shown = [number(item) for item in value[:12]]
            rows.append((prefix + name, ", ".join(shown) + (f" and {len(value) - 12} more" if len(value) > 12 else "")))
        elif value not in ("", None, [], ()):
            rows.append((prefix + name, number(value)))
    return rows


def _warnings(run: RunFiles) -> list[str]:
    """Return the notes of the fit and of its simulation, each once; those on scores stand beside the scores."""
    texts = dict.fromkeys([*run.fit.get("notes", ()), *run.simulation.get("warnings", ())])
    return [text for text in texts if text not in run.score.get("notes", ())]


def _fitted(run: RunFiles) -> list[tuple[str, str]]:
    model, data = run.specs.get("model", {}), run.specs.get("data", {})
    rows = [("model", str(model.get("qualified_name", "")))]
    if model.get("distribution"):
        rows.append(("from", f"{model['distribution']} {model.get('version', '')}".strip()))
    for name, text in (
        ("dt_ms", "bin width (ms)"),
        ("n_neurons", "neurons"),
        ("n_trials", "training trials"),
        ("n_spikes", "training spikes"),
    ):
        if data.get(name) is not None:
            rows.append((text, number(data[name])))
    if "neuron_ids" in data and data.get("n_neurons") is None:
        rows.append(("neurons", number(len(data["neuron_ids"]))))
    for name in ("split", "selection", "description"):
        if isinstance(data.get(name), str) and data[name]:
            rows.append((name, data[name]))
    return rows


def _parameters(run: RunFiles) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "shape": " x ".join(map(str, one.get("shape", ()))) or "1",
            "axes": ", ".join(one.get("axes", ())),
            "unit": "" if one.get("unit") == "1" else one.get("unit", ""),
            "doc": one.get("doc", ""),
        }
        for name, one in run.specs.get("params", {}).items()
    ]


def _data(run: RunFiles) -> list[tuple[str, str]]:
    data, recorded = run.provenance.get("data", {}), run.group("recorded")
    rows = [(text, number(data[name])) for name, text in _DATA_ROWS.items() if data.get(name) is not None]
    if "rate_hz" in recorded:
        low, middle, high = np.percentile(recorded["rate_hz"], [0, 50, 100])
        rows.append((f"rates in the {part_shown(run)} (Hz)", f"median {middle:.3g}, {low:.3g} to {high:.3g}"))
        rows.append((f"time of the {part_shown(run)} (s)", number(float(recorded["duration_s"]))))
    return rows


_DATA_ROWS = {"n_neurons": "neurons in the recording", "n_spikes": "spikes", "n_trials": "trials", "duration_s": "duration (s)"}


def _checks(checks: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return the data report's findings as severity and text."""
    findings = checks.get("findings", checks.get("value", ()))
    rows = []
    for one in findings if isinstance(findings, list | tuple) else ():
        if isinstance(one, Mapping):
            rows.append(
                {"level": str(one.get("level", one.get("severity", "note"))), "text": str(one.get("text", one.get("message", one)))}
            )
        else:
            rows.append({"level": "note", "text": str(one)})
    return rows


def _scores(score: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return each score that has a standard error, those with a title first."""
    names = [name for name in score if f"{name}_se" in score]
    ordered = [name for name in SCORES if name in names] + [name for name in names if name not in SCORES]
    rows = []
    for name in ordered:
        title, meaning = SCORES.get(name, (name.replace("_", " "), ""))
        low, high = score.get(f"{name}_interval") or (None, None)
        rows.append({"title": title, "meaning": meaning, "value": score[name], "se": score[f"{name}_se"], "low": low, "high": high})
    return rows


def _score_extent(score: Mapping[str, Any]) -> str:
    if "n_spikes" not in score:
        return ""
    neurons = "1 neuron" if score.get("n_neurons") == 1 else f"{number(score.get('n_neurons'))} neurons"
    text = f"{number(score['n_spikes'])} spikes of {neurons} in {number(score.get('n_bins'))} held-out bins"
    if score.get("blocks"):
        text += f"; uncertainty from {number(score.get('n_bootstrap'))} resamplings of blocks ({score['blocks']})"
    return text + "."


def _simulation(values: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Return quantities with their value in the data and in the simulation."""
    pairs = ((text, values.get(f"{name}_recorded"), values.get(f"{name}_simulated")) for name, text in SIMULATION.items())
    return [row for row in pairs if row[1] is not None or row[2] is not None]


def _agreement(values: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Return measures of agreement: of one half of the data with the other, and of the simulation with the data."""
    halves = values.get("split_half", {})
    return [(text, halves.get(name), values[name]) for name, text in AGREEMENT.items() if values.get(name) is not None]


def target_rows(values: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Return each measure of how a network meets the targets of its losses, and over how many trials."""
    rows = []
    for name, measures in values.get("targets", {}).items():
        titles = {name: f"{name}: loss", "n_trials": f"{name}: trials"} | TITLES
        rows += [(titles.get(measure, f"{name}: {measure}"), value) for measure, value in measures.items()]
    return rows


def _neurons(run: RunFiles) -> list[dict[str, Any]]:
    found, recorded, simulated = run.group("score"), run.group("recorded"), run.group("simulated")
    rows = []
    for i, name in enumerate(run.neuron_ids):
        row = {
            "id": str(name),
            "n_spikes": _entry(found.get("n_spikes"), i),
            "bits_per_spike": _entry(found.get("bits_per_spike"), i),
            "error": _entry(found.get("bits_per_spike_error"), i),
            "rate_hz": _entry(recorded.get("rate_hz"), i),
            "simulated_hz": _entry(simulated.get("rate_hz"), i),
        }
        rows.append(row)
    return rows if len(found) or len(recorded) else []


def _entry(values: np.ndarray | None, i: int) -> Any:
    return None if values is None or i >= len(values) else values[i].item()


def _couplings(run: RunFiles) -> dict[str, Any]:
    """Return how many couplings there are and the strongest, those that are significant first."""
    found = run.group("connectivity")
    if "weight" not in found or len(found["weight"]) < 2:
        return {}
    weight = found["weight"]
    off = ~np.eye(len(weight), dtype=bool)
    p_value = found.get("p_value")
    marked = None if p_value is None else significant(p_value)
    strength = np.where(off, np.abs(weight), -1.0)
    if marked is not None and marked.any():
        strength = np.where(marked, strength + np.abs(weight).max(), strength)
    order = np.argsort(-strength, axis=None)[: min(STRONGEST, int(np.count_nonzero(weight[off])))]
    ids = run.neuron_ids
    rows: Sequence[Mapping[str, Any]] = [
        {
            "post": str(ids[i]),
            "pre": str(ids[j]),
            "weight": float(weight[i, j]),
            "p_value": None if p_value is None else float(p_value[i, j]),
        }
        for i, j in zip(*np.unravel_index(order, weight.shape), strict=True)
    ]
    unit = str(found.get("unit", "1"))
    return {
        "unit": "" if unit == "1" else unit,
        "n_pairs": int(off.sum()),
        "n_nonzero": int(np.count_nonzero(weight[off])),
        "n_significant": None if marked is None else int(marked.sum()),
        "rows": rows,
    }
