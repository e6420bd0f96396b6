"""`fitspike connectivity`: the couplings of a fitted model, how sure they are, and how they compare with known ones."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from fitspike.cli.output import print_json, print_table
from fitspike.errors import InvalidInputError, counted

if TYPE_CHECKING:
    from fitspike.models.connectivity import Connectivity

_ROWS_SHOWN = 15


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--truth", type=click.Path(path_type=Path), help="Known weights [post, pre]: a recording's folder, .npz or .npy.")
@click.option(
    "--fdr", default=0.05, show_default=True, type=click.FloatRange(0, 1, min_open=True), help="False-discovery rate of the calls."
)
@click.option("--out", type=click.Path(path_type=Path), help="Folder for connectivity.csv and connectivity.npz. Default: the run folder.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def connectivity(run: Path, truth: Path | None, fdr: float, out: Path | None, as_json: bool) -> None:
    """Write the couplings of a RUN as a matrix [post, pre] and a table of pairs, and compare them with a truth."""
    from fitspike.datasets.truth import load_truth
    from fitspike.models.connectivity import compare_with_truth
    from fitspike.results.result import FitResult

    result = FitResult.load(run)
    found = result.connectivity()
    ids = np.asarray(result.data.neuron_ids).astype(str)
    scores = None
    if truth is not None:
        weight = load_truth(truth).weight
        if weight is None:
            raise InvalidInputError(f"the truth at {truth} holds no weights. Give one with `weight` [post, pre].")
        scores = compare_with_truth(found, weight, fdr=fdr)
    folder = run if out is None else out
    folder.mkdir(parents=True, exist_ok=True)
    table = pair_table(found, ids, fdr)
    files = [write_table(table, folder / "connectivity.csv"), write_arrays(found, ids, folder / "connectivity.npz")]
    summary = summarise(found, fdr)
    if as_json:
        plain = None if scores is None else {name: value if np.isfinite(value) else None for name, value in scores.items()}
        print_json({**summary, "truth": plain, "files": [str(file) for file in files]})
        return
    click.echo(
        f"{counted(summary['n_pairs'], 'pair')} of {counted(summary['n_neurons'], 'neuron')}; rows receive (post), columns send (pre)."
    )
    if found.p_value is None:
        click.echo(f"No p-values: {found.note or 'the fit kept no standard errors'}.")
    else:
        click.echo(f"{summary['n_significant']} pairs are coupled at a false-discovery rate of {fdr:g} (Wald test; {found.note}).")
    if table:
        shown = [[row[name] for name in ("post", "pre", "weight", "delay_ms", "q_value")] for row in table[:_ROWS_SHOWN]]
        print_table(
            ["to (post)", "from (pre)", f"weight ({found.unit})" if found.unit != "1" else "weight", "delay (ms)", "q"],
            [[_text(cell) for cell in row] for row in shown],
        )
    if scores is not None:
        print_table(["against the truth", ""], [[name.replace("_", " "), _text(value)] for name, value in scores.items()])
    for file in files:
        click.echo(file)


def summarise(found: Connectivity, fdr: float) -> dict[str, Any]:
    """Return counts as plain values; n_significant is None without p-values."""
    return {
        "n_neurons": found.n_neurons,
        "n_pairs": int(found.off_diagonal.sum()),
        "fdr": fdr,
        "n_significant": None if found.p_value is None else int(found.significant(fdr).sum()),
        "note": found.note,
    }


def pair_table(found: Connectivity, ids: np.ndarray, fdr: float) -> list[dict[str, Any]]:
    """Return one row per pair, the surest (or, without p-values, the strongest) first."""
    post, pre = np.nonzero(found.off_diagonal)
    columns: dict[str, np.ndarray] = {"post": ids[post], "pre": ids[pre], "weight": np.asarray(found.weight)[post, pre]}
    nothing = np.full(len(post), np.nan)
    columns["delay_ms"] = nothing if found.delay_ms is None else found.delay_ms[post, pre]
    columns["statistic"] = nothing if found.statistic is None else found.statistic[post, pre]
    columns["p_value"] = nothing if found.p_value is None else found.p_value[post, pre]
    columns["q_value"] = nothing if found.p_value is None else found.q_value()[post, pre]
    columns["excitation"], columns["inhibition"] = found.excitation[post, pre], found.inhibition[post, pre]
    rank = -np.abs(columns["weight"]) if found.statistic is None else -np.nan_to_num(columns["statistic"], nan=-np.inf)
    return [{name: values[i] for name, values in columns.items()} for i in np.argsort(rank, kind="stable")]


def write_table(rows: list[dict[str, Any]], path: Path) -> Path:
    """Write the pairs as csv and return the path; a run of one neuron gives the header alone."""
    names = ["post", "pre", "weight", "delay_ms", "statistic", "p_value", "q_value", "excitation", "inhibition"]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_arrays(found: Connectivity, ids: np.ndarray, path: Path) -> Path:
    """Write the matrices [post, pre] as .npz and return the path."""
    arrays = {"weight": np.asarray(found.weight), "excitation": found.excitation, "inhibition": found.inhibition, "neuron_ids": ids}
    optional = {"filters": found.filters, "lag_ms": found.lag_ms, "delay_ms": found.delay_ms, "p_value": found.p_value}
    np.savez(path, **arrays, **{name: value for name, value in optional.items() if value is not None})
    return path


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    return "-" if value is None or not np.isfinite(float(value)) else f"{float(value):.4g}"  # type: ignore[arg-type]
