"""`fitspike plugins`: what is installed and whether it works, the conformance suite, a skeleton for a new plugin."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fitspike.cli.output import print_json, print_table
from fitspike.errors import UnknownNameError, did_you_mean
from fitspike.plugin.kinds import EXTRA_TABLES, KINDS, kind_of
from fitspike.plugin.registry import BUILT_IN, Entry, Registry, get_registry
from fitspike.plugin.version import API_VERSION

if TYPE_CHECKING:
    from fitspike.plugin.conformance.report import Outcome
    from fitspike.plugin.manager import PluginRecord

_KIND_OPTIONS = [kind.option for kind in KINDS.values()]


class _KindOption(click.Choice[str]):
    """A kind, spelt as an option; a misspelt one gets a suggestion."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value not in self.choices:
            self.fail(f"no kind {value!r}{did_you_mean(value, self.choices)} Kinds: {', '.join(self.choices)}.", param, ctx)
        return value


@click.group()
def plugins() -> None:
    """List, check and write plugins."""


@plugins.command("list")
@click.option("--kind", type=_KindOption([*_KIND_OPTIONS, "kernel", "command"]), help="List what is registered of this kind alone.")
@click.option("--traceback", "with_traceback", is_flag=True, help="Show the traceback of every problem.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def list_plugins(kind: str | None, with_traceback: bool, as_json: bool) -> None:
    """List the plugins found, their problems, and everything registered."""
    registry = get_registry()
    records = registry.records()
    tables = [*KINDS, *EXTRA_TABLES]
    if kind is not None:
        tables = [f"{kind}s"] if kind in ("kernel", "command") else [kind_of(kind).table]
    if as_json:
        print_json(
            {
                "api_version": list(API_VERSION),
                "plugins": [
                    {
                        "name": record.name,
                        "distribution": record.distribution,
                        "version": record.version,
                        "status": record.status,
                        "hooks": list(record.hooks),
                        "problems": [problem.text for problem in record.problems],
                    }
                    for record in records
                ],
                "registered": {table: [_as_dict(entry) for entry in registry.entries(table)] for table in tables},
            }
        )
        return
    if kind is None:
        rows = [(record.name, record.distribution, record.version, record.status, record.error) for record in records]
        print_table(("plugin", "distribution", "version", "status", "problem"), rows)
    rows = [(table.replace("_", " "), entry.name, entry.plugin, _remark(entry)) for table in tables for entry in registry.entries(table)]
    print_table(("registered", "name", "plugin", "remark"), rows)
    if with_traceback:
        for record in records:
            for problem in record.problems:
                click.echo(f"\n{record.name}: {problem.text}\n{problem.traceback}")


def _as_dict(entry: Entry) -> dict[str, Any]:
    about = {"name": entry.name, "qualified_name": entry.qualified_name, "plugin": entry.plugin, "aliases": list(entry.aliases)}
    if isinstance(entry.target, str):
        about["target"] = entry.target
    return about


def _remark(entry: Entry) -> str:
    if "help" in entry.details:
        return str(entry.details["help"])
    return f"also {', '.join(entry.aliases)}" if entry.aliases else ""


@plugins.command("check")
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option("--kind", type=_KindOption(_KIND_OPTIONS), help="Check what is registered of this kind alone.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def check(ctx: click.Context, names: tuple[str, ...], kind: str | None, as_json: bool) -> None:
    """Run the conformance suite on what plugins registered.

    NAME is a plugin, a registered name, or plugin:name; without one every plugin but the built-ins ("fitspike") is checked. Exit status 1
    if anything fails.
    """
    from fitspike.plugin.conformance.entry import check_entry

    registry = get_registry()
    entries = _chosen(registry, names, kind)
    broken = [record for record in registry.records() if record.problems and (not names or record.name in names)]
    results = []
    for entry in entries:
        click.echo(f"checking {KINDS[entry.kind].label} {entry.qualified_name}", err=True)
        results.append((entry, check_entry(entry)))
    n_failed = sum(bool(outcome.failures) for _, outcome in results)
    if as_json:
        print_json(
            {
                "checked": [
                    {
                        "kind": entry.kind,
                        "qualified_name": entry.qualified_name,
                        "passed": list(outcome.passed),
                        "skipped": list(outcome.skipped),
                        "failures": list(outcome.failures),
                    }
                    for entry, outcome in results
                ],
                "broken_plugins": {record.name: record.error for record in broken},
            }
        )
    else:
        _show_checks(results, broken)
        click.echo(f"{len(results)} checked, {n_failed} failed" if results else _nothing_to_check(names))
    ctx.exit(1 if n_failed or broken else 0)


def _show_checks(results: list[tuple[Entry, Outcome]], broken: list[PluginRecord]) -> None:
    """Print a row per thing checked and per broken plugin, then every failure and every check that could not be made."""
    rows = [
        (KINDS[entry.kind].label, entry.qualified_name, "failed" if outcome.failures else "passed", *map(len, _parts(outcome)))
        for entry, outcome in results
    ]
    rows += [("plugin", record.name, "failed", "", "", "") for record in broken]
    if rows:
        print_table(("kind", "name", "result", "passed", "failed", "not checked"), rows)
    for record in broken:
        click.echo(f"{record.name}: {record.error}")
    for entry, outcome in results:
        for text in outcome.failures:
            click.echo(f"{entry.qualified_name}: {text}")
        for text in outcome.skipped:
            click.echo(f"{entry.qualified_name}: not checked: {text}")


def _parts(outcome: Outcome) -> tuple[tuple[str, ...], ...]:
    return outcome.passed, outcome.failures, outcome.skipped


def _chosen(registry: Registry, names: tuple[str, ...], kind: str | None) -> list[Entry]:
    """Return the entries that the arguments of `check` mean."""
    tables = list(KINDS) if kind is None else [kind_of(kind).table]
    entries = [entry for table in tables for entry in registry.entries(table)]
    if not names:
        return [entry for entry in entries if entry.plugin != BUILT_IN]
    chosen = []
    for name in names:
        found = [entry for entry in entries if name in (entry.plugin, entry.name, entry.qualified_name, *entry.aliases)]
        is_plugin = name in {record.name for record in registry.records()}
        if not found and not is_plugin:
            known = sorted({entry.plugin for entry in entries} | {entry.name for entry in entries})
            raise UnknownNameError(f"no plugin and nothing registered is called {name!r}{did_you_mean(name, known)}")
        chosen += [entry for entry in found if entry not in chosen]
    return chosen


def _nothing_to_check(names: tuple[str, ...]) -> str:
    if names:
        return "nothing to check: this plugin registers nothing of that kind"
    return "nothing to check: no plugin registers anything. `fitspike plugins check fitspike` checks the built-ins."


@plugins.command("new")
@click.argument("name")
@click.option("--kind", required=True, type=_KindOption(_KIND_OPTIONS), help="What the plugin registers.")
@click.option("--out", "folder", type=click.Path(path_type=Path), help="Folder to write. Default: fitspike-NAME here.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def new(name: str, kind: str, folder: Path | None, as_json: bool) -> None:
    """Write a new plugin: a working example of its kind, with its packaging and a test."""
    from fitspike.plugin.scaffold import write_plugin

    target = folder if folder is not None else Path(f"fitspike-{name}")
    files = write_plugin(target, name, kind_of(kind), get_registry())
    if as_json:
        print_json({"folder": str(target), "files": [str(file.relative_to(target)) for file in files]})
        return
    for file in files:
        click.echo(file)
    click.echo(f"Install it with `pip install -e {shlex.quote(str(target))}`, then run `fitspike plugins check {name}`.")
