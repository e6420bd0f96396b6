"""`fitspike score`: held-out scores of a fitted model on a recording."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fitspike.cli.cmd_fit import score_table
from fitspike.cli.options import data_settings, recording_options
from fitspike.cli.output import print_json, print_table
from fitspike.errors import InvalidInputError, counted

if TYPE_CHECKING:
    from fitspike.recording.recording import Recording
    from fitspike.results.result import FitResult


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("recordings", metavar="[REC]...", nargs=-1)
@recording_options
@click.option("--all", "use_all", is_flag=True, help="Score all of REC, also if the run was fitted to part of it.")
@click.option("--per-neuron", is_flag=True, help="List every neuron.")
@click.option("--simulate/--no-simulate", default=True, help="Compare a free simulation with REC too.")
@click.option("--seed", type=int, default=0, help="Seed of bootstrap, rescaling, co-smoothing and simulation.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def score(
    run: Path, recordings: tuple[str, ...], *, use_all: bool, per_neuron: bool, simulate: bool, seed: int, as_json: bool, **options: Any
) -> None:
    """Score the model of RUN on REC, a recording of the same neurons.

    If REC is the recording that the run was fitted to (or none is given), only the part that was held out is scored; other recordings are
    scored whole.
    """
    from fitspike.fitting.again import scored_part
    from fitspike.results.result import FitResult

    result = FitResult.load(run)
    part, text = scored_part(result, data_settings(recordings, **options), use_all=use_all)
    found = result.score(part, seed=seed)
    agreement = _simulated(result, part, seed) if simulate else {}
    if as_json:
        print_json({"run": str(run), "scored": text, **found.to_json(per_neuron=per_neuron), "simulation": agreement or None})
        return
    plain = found.to_json()
    print_table(("score", "value", "s.e.", "95 % interval"), score_table(plain))
    click.echo(
        f"{text}: {counted(plain['n_spikes'], 'spike')} of {counted(plain['n_neurons'], 'neuron')} in {counted(plain['n_bins'], 'bin')}; "
        f"errors from {plain['blocks']}."
    )
    if "split_half" in agreement:
        from fitspike.statistics.summary import AGREEMENT

        click.echo(f"\nAgreement of {counted(agreement['n_trials'], 'freely simulated trial')} with the data; 1 is perfect:")
        names = [name for name in AGREEMENT if name in agreement]
        rows = [(name, _value(agreement["split_half"].get(name)), _value(agreement[name])) for name in names]
        print_table(("measure", "half the data, other half", "simulation, data"), rows)
    for note in (*found.notes, *agreement.get("warnings", ())):
        click.echo(f"note: {note}")
    if per_neuron:
        columns = list(found.per_neuron)
        rows = [(name, *(f"{found.per_neuron[column][i]:.4g}" for column in columns)) for i, name in enumerate(found.neuron_ids)]
        print_table(("neuron", *columns), rows)


def _simulated(result: FitResult, part: Recording, seed: int) -> dict[str, Any]:
    """Return how a free simulation agrees with the scored part, as plain values; where none can be made, why."""
    from fitspike.config import parse_config
    from fitspike.fitting.judge import simulate_and_compare
    from fitspike.results.files import plain
    from fitspike.rng import Stream
    from fitspike.statistics.summary import SummarySettings

    settings = SummarySettings(psth_window_ms=parse_config(result.config).score.psth_window_ms)
    binned = result.data.prepare(part)
    try:
        found, _ = simulate_and_compare(result.build_model(), result.params, binned, result.data, Stream(seed, "simulation"), settings)
    except InvalidInputError as error:
        return {"error": str(error), "warnings": [str(error)]}
    return plain(found)


def _value(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
