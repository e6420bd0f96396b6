"""`fitspike score`: held-out scores of a fitted model on a recording."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from fitspike.cli.cmd_fit import score_table
from fitspike.cli.options import data_settings, recording_options
from fitspike.cli.output import print_json, print_table
from fitspike.errors import counted


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("recordings", metavar="[REC]...", nargs=-1)
@recording_options
@click.option("--all", "use_all", is_flag=True, help="Score all of REC, also if the run was fitted to part of it.")
@click.option("--per-neuron", is_flag=True, help="List every neuron.")
@click.option("--seed", type=int, default=0, help="Seed of bootstrap, rescaling and co-smoothing.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def score(run: Path, recordings: tuple[str, ...], *, use_all: bool, per_neuron: bool, seed: int, as_json: bool, **options: Any) -> None:
    """Score the model of RUN on REC, a recording of the same neurons.

    If REC is the recording that the run was fitted to (or none is given), only the part that was held out is scored; other recordings are
    scored whole.
    """
    from fitspike.fitting.again import scored_part
    from fitspike.results.result import FitResult

    result = FitResult.load(run)
    part, text = scored_part(result, data_settings(recordings, **options), use_all=use_all)
    found = result.score(part, seed=seed)
    if as_json:
        print_json({"run": str(run), "scored": text, **found.to_json(per_neuron=per_neuron)})
        return
    plain = found.to_json()
    print_table(("score", "value", "s.e.", "95 % interval"), score_table(plain))
    click.echo(
        f"{text}: {counted(plain['n_spikes'], 'spike')} of {counted(plain['n_neurons'], 'neuron')} in {counted(plain['n_bins'], 'bin')}; "
        f"errors from {plain['blocks']}."
    )
    for note in found.notes:
        click.echo(f"note: {note}")
    if per_neuron:
        columns = list(found.per_neuron)
        rows = [(name, *(f"{found.per_neuron[column][i]:.4g}" for column in columns)) for i, name in enumerate(found.neuron_ids)]
        print_table(("neuron", *columns), rows)
