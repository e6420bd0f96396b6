"""`fitspike config`: every setting, its value here, and the layer that value comes from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from fitspike.cli.output import print_json, print_table
from fitspike.cli.settings import DEFAULT, default_layer, merge_layers
from fitspike.config import Component, LossTerm, RunConfig, all_keys, explain, parse_config
from fitspike.config_layers import Layer, parse_settings, project_file, read_layer, standing_layers, user_file


@click.group()
def config() -> None:
    """Show the configuration and where each value comes from."""


def _layer_options(command: Any) -> Any:
    for option in (
        click.option("--set", "settings", metavar="KEY=VALUE", multiple=True, help="A setting, as `fitspike fit` takes it. Repeatable."),
        click.option("--config", "file", type=click.Path(path_type=Path), help="A configuration file, as `fitspike fit` takes it."),
        click.option("--json", "as_json", is_flag=True, help="Print one JSON object."),
    ):
        command = option(command)
    return command


@config.command()
@_layer_options
@click.option("--changed", is_flag=True, help="Show only what some layer sets.")
def show(settings: tuple[str, ...], file: Path | None, as_json: bool, changed: bool) -> None:
    """Show every setting with its value and origin."""
    resolved, origins = _resolve(settings, file)
    rows = [(key, _value_of(resolved, key), _origin(origins, key)) for key in all_keys()]
    if changed:
        rows = [row for row in rows if row[2] != DEFAULT]
    if as_json:
        print_json({"settings": {key: {"value": _plain(value), "origin": origin} for key, value, origin in rows}, "files": _files()})
        return
    print_table(("key", "value", "from"), [(key, _text(value), origin) for key, value, origin in rows])
    click.echo()
    for path, is_there in _files().items():
        click.echo(f"{'read  ' if is_there else 'absent'}  {path}")


@config.command("explain")
@click.argument("key")
@_layer_options
def explain_key(key: str, settings: tuple[str, ...], file: Path | None, as_json: bool) -> None:
    """Say what a setting means, its default, its value here and where that comes from."""
    meaning = explain(key)
    resolved, origins = _resolve(settings, file)
    value, origin = _value_of(resolved, key), _origin(origins, key)
    if as_json:
        print_json({"key": key, "meaning": meaning, "value": _plain(value), "origin": origin})
        return
    click.echo(f"{key}: {meaning}")
    click.echo(f"Here: {_text(value)} (from {origin}).")


def _resolve(settings: tuple[str, ...], file: Path | None) -> tuple[RunConfig, dict[str, str]]:
    """Return the checked configuration and the origin of every key that a layer gave."""
    layers = [default_layer(), *standing_layers()]
    if file is not None:
        layers.append(read_layer(file))
    if settings:
        layers.append(Layer("--set", parse_settings(settings, RunConfig.model_fields)))
    merged, origins = merge_layers(layers)
    return parse_config(merged), origins


def _value_of(resolved: RunConfig, key: str) -> Any:
    value: Any = resolved
    for part in key.split("."):
        value = getattr(value, part)
    return value


def _origin(origins: dict[str, str], key: str) -> str:
    """Return the layer of a key; of a component, the layers of its name and settings."""
    found = [origin for name, origin in origins.items() if name == key or name.startswith(f"{key}.")]
    return ", ".join(dict.fromkeys(found)) or DEFAULT


def _files() -> dict[str, bool]:
    """Return the configuration files that count here, and whether they exist."""
    project = project_file(Path.cwd())
    return {str(user_file()): user_file().is_file(), str(project or Path.cwd() / "fitspike.toml"): project is not None}


def _plain(value: Any) -> Any:
    """Return a setting as JSON can hold it."""
    if isinstance(value, Component | LossTerm):
        return value.model_dump()
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(inner) for inner in value]
    return value


def _text(value: Any) -> str:
    """Return a setting on one line."""
    if value is None or value == () or value == {}:
        return "none"
    if isinstance(value, Component):
        return " ".join([value.name, *(f"{name}={inner}" for name, inner in value.settings.items())])
    if isinstance(value, LossTerm):
        return " ".join([f"{value.weight:g}", *(f"{name}={inner}" for name, inner in value.settings.items())])
    if isinstance(value, dict):
        return ", ".join(f"{name}={_text(inner)}" for name, inner in value.items())
    if isinstance(value, tuple | list):
        return ", ".join(map(_text, value))
    return str(value)
