"""`fitspike compare`: held-out scores of several runs side by side, with paired differences."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fitspike.cli.output import print_json, print_table
from fitspike.errors import RunFolderError

if TYPE_CHECKING:
    from fitspike.results.result import FitResult


@click.command()
@click.argument("runs", metavar="RUN RUN...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--bootstrap", "n_bootstrap", type=click.IntRange(min=2), default=2000, help="Bootstrap samples over blocks.")
@click.option("--seed", type=int, default=0, help="Seed of the bootstrap.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def compare(runs: tuple[Path, ...], n_bootstrap: int, seed: int, as_json: bool) -> None:
    """Compare runs on the same held-out data; differences are to the first RUN, in bits per spike, paired by block."""
    from fitspike.results.result import FitResult

    if len(runs) < 2:
        raise click.UsageError("give at least two run folders.")
    results = [FitResult.load(run) for run in runs]
    without = [str(run) for run, result in zip(runs, results, strict=True) if result.blocks is None]
    if without:
        raise RunFolderError(f"{', '.join(without)} has no held-out scores: nothing was held out, or the fit did not end well.")
    rows = [_row(run, result, results[0], n_bootstrap, seed) for run, result in zip(runs, results, strict=True)]
    if as_json:
        print_json({"reference": str(runs[0]), "runs": rows})
        return
    columns = ("run", "model", "dt_ms", "bits/spike", "s.e.", "difference", "s.e.", "95 % interval", "better neurons")
    print_table(columns, [_cells(row) for row in rows])
    _print_simulations(rows)
    for row in rows:
        if row["not_paired"]:
            click.echo(f"note: {row['run']} is not compared with {runs[0]}: {row['not_paired']}.")
    widths = {row["dt_ms"] for row in rows}
    if len(widths) > 1:
        click.echo("note: bin widths differ; each score is the gain over a mean-rate model in its own bins.")
    click.echo(f"Differences are paired over {rows[0]['n_blocks']} blocks ({results[0].scores['blocks']}).")


def _row(run: Path, result: FitResult, reference: FitResult, n_bootstrap: int, seed: int) -> dict[str, Any]:
    """Return one run's scores and its difference to the reference as plain values."""
    from fitspike.results.files import plain
    from fitspike.rng import Stream
    from fitspike.scoring import paired_difference, reason_not_paired
    from fitspike.statistics.summary import AGREEMENT

    scores = result.scores
    row: dict[str, Any] = {
        "run": str(run),
        "model": result.model.name,
        "status": result.status.name,
        "dt_ms": result.data.dt_ms,
        **{name: scores[name] for name in ("bits_per_spike", "bits_per_spike_se", "bits_per_spike_median", "pseudo_r2", "log_likelihood")},
        "n_spikes": scores["n_spikes"],
        "n_neurons": scores["n_neurons"],
        "n_blocks": scores["n_blocks"],
        "simulation": {name: result.simulation[name] for name in AGREEMENT if result.simulation.get(name) is not None},
        "split_half": result.simulation.get("split_half", {}),
        "not_paired": None,
        "difference": None,
    }
    if result is reference:
        return row
    row["not_paired"] = reason_not_paired(reference.blocks, reference.scores["data_hash"], result.blocks, scores["data_hash"])
    if row["not_paired"] is None:
        found = paired_difference(reference.blocks, result.blocks, n_bootstrap, Stream(seed, "compare"))
        one = found.difference
        row["difference"] = {"bits_per_spike": one.value, "se": one.se, "interval": [one.low, one.high]}
        row["difference"] |= {"n_better": found.n_better, "n_neurons": found.n_neurons}
    return plain(row)


def _print_simulations(rows: list[dict[str, Any]]) -> None:
    """Print how each run's free simulation agrees with the data, below how half of the data agrees with the other half."""
    names = list(dict.fromkeys(name for row in rows for name in row["simulation"]))
    if not names:
        return
    click.echo("\nFree simulations against the data; 1 is perfect:")
    halves = next((row["split_half"] for row in rows if row["split_half"]), {})
    cells = [("half the data, other half", *(_short(halves.get(name)) for name in names))] if halves else []
    cells += [(row["run"], *(_short(row["simulation"].get(name)) for name in names)) for row in rows]
    print_table(("run", *names), cells)


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    """Return the cells of a row of the table."""
    cells = (row["run"], row["model"], f"{row['dt_ms']:g}", _number(row["bits_per_spike"]), _number(row["bits_per_spike_se"]))
    difference = row["difference"]
    if difference is None:
        return (*cells, "not paired" if row["not_paired"] else "reference", "", "", "")
    low, high = difference["interval"]
    interval = "" if low is None else f"{low:+.4f} to {high:+.4f}"
    better = f"{difference['n_better']} of {difference['n_neurons']}"
    return (*cells, f"{difference['bits_per_spike']:+.4f}", _number(difference["se"]), interval, better)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
