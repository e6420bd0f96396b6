"""`fitspike datasets`: what there is, its cards, generated and fetched recordings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from fitspike.cli.options import KeyValue
from fitspike.cli.output import print_json, print_table
from fitspike.datasets.base import DataCard
from fitspike.datasets.fetching import card_of
from fitspike.errors import PluginError
from fitspike.plugin.registry import get_registry

_FLAGS = {"dt_ms": "--dt-ms", "units": "--units", "split": "--split", "emission": "--emission"}


@click.group()
def datasets() -> None:
    """List, make and fetch datasets."""


@datasets.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def list_datasets(as_json: bool) -> None:
    """List all datasets: generated ones, and recorded ones with their items."""
    cards, failed = [], {}
    for entry in get_registry().entries("datasets"):
        try:
            cards.append((entry, card_of(entry, entry.create())))
        except PluginError as error:
            failed[entry.qualified_name] = str(error)
            click.echo(f"left out: {error}", err=True)
    if as_json:
        print_json({"datasets": [{**_as_dict(card), "plugin": entry.plugin} for entry, card in cards], "failed": failed})
        return
    rows = [(card.name, "generated" if card.is_synthetic else "recorded", _count(card), card.summary) for _, card in cards]
    print_table(("name", "kind", "items", "what"), rows)
    click.echo("\nfitspike datasets card NAME shows one; get NAME/ITEM fetches a recorded one; make NAME generates.")


def _count(card: DataCard) -> str:
    return str(len(card.items)) if card.items else ""


def _as_dict(card: DataCard) -> dict[str, Any]:
    return {
        "name": card.name,
        "summary": card.summary,
        "licence": card.licence,
        "citation": card.citation,
        "origin": card.origin,
        "is_synthetic": card.is_synthetic,
        "items": list(card.items),
        "parameters": {name: value if _is_plain(value) else str(value) for name, value in card.parameters.items()},
        "notes": list(card.notes),
        "settings": {item: dict(settings) for item, settings in card.settings.items()},
    }


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float | bool)


@datasets.command("card")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def card(name: str, as_json: bool) -> None:
    """Show a dataset's card: origin, licence, citation, items, parameters, recommended settings. NAME may be NAME/ITEM."""
    bare, _, item = name.partition("/")
    entry = get_registry().entry("datasets", bare)
    dataset = entry.create()
    found = card_of(entry, dataset)
    if item and hasattr(dataset, "item"):
        dataset.item(item)
    if as_json:
        print_json(_as_dict(found))
        return
    for label, text in (
        ("name", found.name),
        ("what", found.summary),
        ("licence", found.licence),
        ("citation", found.citation),
        ("origin", found.origin),
    ):
        if text:
            click.echo(f"{label:<10}{text}")
    for note in found.notes:
        click.echo(f"{'note':<10}{note}")
    for parameter, value in found.parameters.items():
        click.echo(f"{'setting':<10}{parameter} = {value}")
    for listed in [item] if item else found.items:
        more = found.summaries.get(listed, "")
        click.echo(f"{'item':<10}{found.name}/{listed}{'  (' + more + ')' if more else ''}")
        click.echo(f"{'':<12}fitspike fit $(fitspike datasets get {found.name}/{listed}){_as_flags(found.settings.get(listed, {}))}")
    if found.is_synthetic:
        click.echo(f"{'make':<10}fitspike datasets make {found.name} --out {found.name} --seed 0 --set KEY=VALUE")


def _as_flags(settings: Mapping[str, Any]) -> str:
    """Return settings as options of `fitspike fit`."""
    text = ""
    for key, value in settings.items():
        flag = _FLAGS.get(key, f"--set {key}=")
        shown = f'"{value}"' if isinstance(value, str) and " " in value else f"{value:g}" if isinstance(value, float) else str(value)
        text += f" {flag}{'' if flag.endswith('=') else ' '}{shown}"
    return text


@datasets.command("get")
@click.argument("name")
@click.option("--refresh", is_flag=True, help="Convert again, although it is in the cache.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def get(name: str, refresh: bool, as_json: bool) -> None:
    """Print the path of NAME or NAME/ITEM as a native recording, fetched and converted if it is not in the cache.

    Files are taken from the folder $FITSPIKE_DATA, else from the cache ($FITSPIKE_CACHE), else downloaded; their checksums are compared
    with the card. Where the truth is known, it lies in the recording's folder as truth.npz.
    """
    from fitspike.datasets.fetching import native_path

    path = native_path(name, refresh=refresh)
    if as_json:
        print_json({"name": name, "path": str(path), "has_truth": (path / "truth.npz").is_file()})
        return
    click.echo(str(path))


@datasets.command("make")
@click.argument("name")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder to write.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of every random draw.")
@click.option("--set", "settings", type=KeyValue(), multiple=True, help="Setting of the generator: KEY=VALUE. Repeatable.")
@click.option("--overwrite", is_flag=True, help="Replace the folder if it exists.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def make(name: str, out: Path, seed: int, settings: tuple[tuple[str, Any], ...], overwrite: bool, as_json: bool) -> None:
    """Generate a synthetic dataset with its truth (truth.npz in the folder) and print the folder's path."""
    from fitspike.datasets.fetching import make as make_dataset

    path = make_dataset(name, out, seed=seed, settings=dict(settings), overwrite=overwrite)
    if as_json:
        print_json({"name": name, "path": str(path), "seed": seed, "settings": dict(settings), "has_truth": (path / "truth.npz").is_file()})
        return
    click.echo(str(path))
