"""`fitspike fit`: from a recording to a fitted, judged and drawn model."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from fitspike.cli.options import data_settings, recording_options
from fitspike.cli.output import print_json, print_table
from fitspike.cli.settings import resolve_settings
from fitspike.config import ConfigError, RunConfig
from fitspike.errors import FitFailed, FitInterrupted, InvalidInputError, RunFolderError, counted

EXIT_INTERRUPTED, EXIT_FIT_FAILED = 3, 4

SCORE_ROWS = (
    ("bits_per_spike", "bits per spike over the mean-rate model, all spikes"),
    ("bits_per_spike_median", "the same, median neuron"),
    ("pseudo_r2", "pseudo-R2 (deviance explained), mean over neurons"),
    ("log_likelihood", "log-likelihood, nats"),
    ("co_smoothing", "bits per spike of neurons predicted from the others"),
    ("psth_correlation", "correlation of PSTHs, median neuron"),
    ("psth_correlation_ceiling", "its ceiling from the repeats"),
    ("time_rescaling_inside_band", "neurons that pass the time-rescaling test (95 % band)"),
)


@click.command()
@click.argument("recordings", metavar="[REC]...", nargs=-1)
@recording_options
@click.option("--model", metavar="NAME", help="Model. Default: coupled-glm; spiking-network with --neuron, or a rule that needs it.")
@click.option("--neuron", metavar="NAME", help="Neuron model, for models made of neurons.")
@click.option("--loss", metavar="NAME=WEIGHT,...", help="Losses with their weights. Default: nll=1.")
@click.option("--rule", metavar="NAME", help="Learning rule. Default: the model's own solver, else bptt.")
@click.option("--transform", "transforms", multiple=True, metavar="NAME", help="Update transform. Repeatable, in the order given.")
@click.option("--dt-ms", type=float, metavar="MS", help="Bin width. Default: the recording's native bins, else 1 ms.")
@click.option("--emission", metavar="NAME", help="bernoulli, hazard, poisson, threshold or auto.")
@click.option("--split", metavar="HOW", help='What is held out: "time:0.2", "trial:every=5,offset=4", "none", ...')
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="A setting; a bare key is one of the model. Repeatable.")
@click.option("--config", "file", type=click.Path(path_type=Path), help="Configuration file, such as run.toml of another run.")
@click.option("--index", type=int, metavar="N", help="With a folder for --config: take its file number N (0007.toml).")
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR", help="Run folder. Default: runs/RECORDING-MODEL-NUMBER.")
@click.option("--resume", is_flag=True, help="Go on with the interrupted run in --out.")
@click.option("--no-selection", is_flag=True, help="Take defaults for settings left at auto instead of choosing them on training data.")
@click.option("--no-report", is_flag=True, help="Draw no figures and no report.html.")
@click.option("--seed", type=int, metavar="N", help="Seed of every random stream. Default: 0.")
@click.option("--device", metavar="NAME", help="cpu, cuda or auto.")
@click.option("--backend", metavar="NAME", help="Kernel backend: auto, numba, reference, ...")
@click.option("--threads", type=int, metavar="N", help="Threads. Default: the cores given to the process.")
@click.option("--progress", type=click.Choice(["auto", "live", "lines", "off"]), default="auto", help="How progress is shown.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def fit(
    ctx: click.Context,
    recordings: tuple[str, ...],
    *,
    file: Path | None,
    index: int | None,
    out: Path | None,
    resume: bool,
    progress: str,
    as_json: bool,
    settings: tuple[str, ...],
    **options: Any,
) -> None:
    """Fit a model to a recording, score it on held-out data, and write a run folder with report.html.

    REC is a file, a folder, or several files of the same neurons. Settings come from the options, --set, --config, fitspike.toml and your
    own configuration file; `fitspike config show` lists them.
    """
    from fitspike.fitting.pipeline import run_fit
    from fitspike.fitting.prepare import raise_with_others
    from fitspike.fitting.request import Request

    if resume and out is None:
        raise click.UsageError("--resume needs --out, the folder of the run.")
    base = out / "run.toml" if resume and out is not None and (out / "run.toml").exists() else None
    try:
        config = resolve_settings(file=_numbered(file, index), base=base, options=_nested(recordings, options), settings=settings)
    except ConfigError as error:
        raise_with_others(error, Request(error.rest, out=out, resume=resume))
    if not config.data.path and resume:
        raise RunFolderError(f"{out} holds no run to go on with. Look at the path, or name a recording to begin a run there.")
    if not config.data.path:
        raise click.UsageError("no recording was given. Name a file: `fitspike fit FILE`, or a --config with path in [data].")
    folder = out if out is not None else default_folder(config)
    request = Request(config, out=folder, resume=resume, progress=progress, command=shlex.join(sys.argv))
    try:
        result = run_fit(request)
    except FitInterrupted as error:
        click.echo(str(error), err=True)
        ctx.exit(EXIT_INTERRUPTED)
    except FitFailed as error:
        if as_json and error.result is not None:
            print_json(as_plain(error.result))
        click.echo(f"error: {error}\nThe run is in {folder}.", err=True)
        ctx.exit(EXIT_FIT_FAILED)
    if as_json:
        print_json(as_plain(result))
    else:
        show(result)


def _nested(recordings: tuple[str, ...], options: dict[str, Any]) -> dict[str, Any]:
    """Return the options as nested settings, only those that were given."""
    taken = {name: options.pop(name) for name in ("model", "neuron", "loss", "rule", "transforms", "dt_ms", "emission", "split")}
    taken |= {name: options.pop(name) for name in ("seed", "device", "backend", "threads")}
    if options.pop("no_selection"):
        taken["selection"] = False
    if options.pop("no_report"):
        taken["report"] = False
    taken = {name: value for name, value in taken.items() if value is not None and value != ()}
    if "loss" in taken:
        taken["loss"] = parse_losses(taken["loss"])
    if "transforms" in taken:
        taken["transforms"] = [{"name": name} for name in taken["transforms"]]
    data = data_settings(recordings, **options)
    return taken | ({"data": data} if data else {})


def parse_losses(text: str) -> dict[str, dict[str, float]]:
    """Return the `[loss]` table of "nll=1,psth=0.5"; a name alone has weight 1.

    Raises
    ------
    InvalidInputError
        If a weight is no number.
    """
    table = {}
    for part in text.split(","):
        name, equals, weight = part.strip().partition("=")
        try:
            table[name.strip()] = {"weight": float(weight) if equals else 1.0}
        except ValueError as error:
            raise InvalidInputError(f"loss {part.strip()!r}: the weight is no number. Write for example nll=1,psth=0.5.") from error
    return table


def _numbered(file: Path | None, index: int | None) -> Path | None:
    """Return the configuration file: that given, or number `index` of a folder of them."""
    if index is None or file is None:
        if index is not None:
            raise click.UsageError("--index needs a folder of numbered files: --config FOLDER --index N.")
        return file
    found = sorted(path for path in file.glob("*.toml") if path.stem.isdigit() and int(path.stem) == index)
    if not found:
        known = sorted(int(path.stem) for path in file.glob("*.toml") if path.stem.isdigit())
        raise RunFolderError(
            f"{file} holds no file number {index}; it has {f'{known[0]} to {known[-1]}' if known else 'no numbered .toml file'}."
        )
    return found[0]


def default_folder(config: RunConfig) -> Path:
    """Return the first free folder runs/RECORDING-MODEL-NUMBER."""
    from fitspike.results.run_dir import next_folder

    stem = Path(config.data.path[0]).resolve().name.split(".")[0]
    return next_folder(Path("runs"), stem, config.model.name.rpartition(":")[2])


def as_plain(result: Any) -> dict[str, Any]:
    """Return a result as one JSON object: how it ended, scores, simulation, notes, files."""
    from fitspike.results.files import plain

    return plain(
        {
            "run": str(result.run_dir),
            "report": None if report_of(result) is None else str(report_of(result)),
            "status": result.status.name,
            "advice": result.status.advice,
            "message": result.message,
            "model": {"name": result.model.qualified_name, "settings": result.model.to_json()["settings"]},
            "n_neurons": result.data.n_neurons,
            "dt_ms": result.data.dt_ms,
            "split": result.data.split,
            **result.scores,
            "simulation": result.simulation,
            "notes": list(result.notes),
        }
    )


def score_table(scores: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """Return the rows (score, value, standard error, 95 % interval) of the scores that there are."""
    rows = []
    for name, meaning in SCORE_ROWS:
        value = scores.get(name)
        if value is None:
            continue
        digits = ".4g" if abs(value) >= 1e6 else ".1f" if name == "log_likelihood" else ".4f"
        se, (low, high) = scores.get(f"{name}_se"), scores.get(f"{name}_interval") or (None, None)
        interval = "" if low is None or high is None else f"{low:{digits}} to {high:{digits}}"
        rows.append((meaning, f"{value:{digits}}", "" if se is None else f"{se:{digits}}", interval))
    return rows


def show(result: Any) -> None:
    """Print scores, notes, how the fit ended, and where the report is."""
    if result.scores:
        print_table(("held-out score", "value", "s.e.", "95 % interval"), score_table(result.scores))
        scores = result.scores
        click.echo(
            f"{counted(scores['n_spikes'], 'spike')} of {counted(scores['n_neurons'], 'neuron')} in {counted(scores['n_bins'], 'bin')}; "
            f"errors from {scores['blocks']}."
        )
    for name, found in result.simulation.get("targets", {}).items():
        measures = ", ".join(f"{measure} {value:.4g}" for measure, value in found.items() if measure != "n_trials")
        part = "held-out" if result.statistics["recorded/is_held_out"] else "training"
        click.echo(f"target of {name}, {counted(found['n_trials'], f'{part} trial')}: {measures or 'nothing is asked in them'}")
    for note in result.notes:
        click.echo(f"note: {note}")
    click.echo(f"{result.status.name}: {result.message} {result.status.advice}")
    click.echo(f"run folder {result.run_dir}")
    if report_of(result) is not None:
        click.echo(f"report {report_of(result)}")


def report_of(result: Any) -> Path | None:
    """Return the path of report.html, or None if none was drawn."""
    path = Path(result.run_dir) / "report.html"
    return path if path.exists() else None
