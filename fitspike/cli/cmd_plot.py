"""`fitspike plot`: figures and report of a run from its saved numbers alone."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--what", default="", metavar="NAME,NAME", help="Figures to draw; default: all that the run's numbers allow, and the report.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for the figures. Default: `figures` in the run folder.")
@click.option("--format", "format_", default="svg", show_default=True, type=click.Choice(["png", "svg", "pdf"]), help="File format.")
@click.option("--list", "list_only", is_flag=True, help="List the figures this run has, and draw none.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def plot(run: Path, what: str, out: Path | None, format_: str, list_only: bool, as_json: bool) -> None:
    """Draw the figures of a RUN folder and write its report.html.

    Only files of the run folder are read: no model runs, no recording or plugin is needed.
    """
    from fitspike.plotting.figures import available, draw
    from fitspike.plotting.report import write_report
    from fitspike.plotting.run_files import RunFiles

    if list_only:
        captions = {name: drawing.caption for name, drawing in available(RunFiles.read(run)).items()}
        if as_json:
            click.echo(json.dumps({"figures": captions}))
        else:
            for name, caption in captions.items():
                click.echo(f"{name}: {caption}")
        return
    names = [name.strip() for name in what.split(",") if name.strip()]
    paths = draw(run, names, out, format_)
    report = None if names or out is not None else write_report(run)
    if as_json:
        click.echo(json.dumps({"figures": [str(path) for path in paths], "report": None if report is None else str(report)}))
        return
    for path in [*paths, *([report] if report is not None else [])]:
        click.echo(path)
