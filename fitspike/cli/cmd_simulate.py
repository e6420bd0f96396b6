"""`fitspike simulate`: free activity of a fitted model as a recording."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from fitspike.cli.options import load_selected, recording_options
from fitspike.cli.output import print_json
from fitspike.errors import counted


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="PATH", help="Where to write the recording.")
@click.option("--n-trials", type=click.IntRange(min=1), metavar="K", help="Trials. Default: one, or one of each condition.")
@click.option("--duration", "duration_s", type=float, metavar="S", help="Length of a trial, s. Default: that of the median training trial.")
@click.option("--seed", type=int, default=0, help="Seed of the spikes.")
@click.option("--signals-from", metavar="REC", help="Recording with the signals, trials and conditions to run over.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@recording_options
def simulate(
    run: Path,
    *,
    out: Path,
    n_trials: int | None,
    duration_s: float | None,
    seed: int,
    signals_from: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Simulate the model of RUN freely and write the spikes as a native recording.

    The options that choose a part of a recording apply to --signals-from; --condition without it says which conditions to run.
    """
    from fitspike.results.result import FitResult

    result = FitResult.load(run)
    conditions = None
    if signals_from is None:
        conditions = options.pop("conditions") or None
        unused = [name for name, value in options.items() if value not in (None, ())]
        if unused:
            raise click.UsageError(f"{', '.join(unused)} choose a part of a recording; give one with --signals-from.")
        source = None
    else:
        source = load_selected((signals_from,), **options)
    recording = result.simulate(n_trials=n_trials, duration_s=duration_s, seed=seed, signals_from=source, conditions=conditions)
    path = recording.save(out)
    rate_hz = recording.n_spikes / max(recording.duration_s * recording.n_neurons, 1e-12)
    if as_json:
        summary = {"n_neurons": recording.n_neurons, "n_trials": recording.n_trials, "n_spikes": recording.n_spikes}
        print_json({"path": str(path), **summary, "duration_s": recording.duration_s, "rate_hz": rate_hz, "seed": seed})
        return
    click.echo(
        f"{counted(recording.n_spikes, 'spike')} of {counted(recording.n_neurons, 'neuron')} in {counted(recording.n_trials, 'trial')}, "
        f"{recording.duration_s:g} s "
        f"({rate_hz:.3g} Hz per neuron) in {path}"
    )
