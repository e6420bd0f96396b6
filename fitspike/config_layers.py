"""Where settings come from: defaults, the user's file, the project's file, a given file, single settings. Later layers win."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fitspike.errors import InvalidInputError

PROJECT_FILE = "fitspike.toml"
_COMPONENTS = ("model", "neuron", "rule")


@dataclass(frozen=True)
class Layer:
    """Settings from one place. `origin` says which, for messages."""

    origin: str
    values: Mapping[str, Any]


def user_file() -> Path:
    """Return where the user's own configuration lies, whether or not it exists."""
    base = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(base) / "fitspike" / "config.toml"


def project_file(folder: Path) -> Path | None:
    """Return the nearest fitspike.toml in a folder or above it."""
    for place in (folder, *folder.parents):
        if (place / PROJECT_FILE).is_file():
            return place / PROJECT_FILE
    return None


def read_layer(path: Path) -> Layer:
    """Return the settings of a TOML file.

    Raises
    ------
    InvalidInputError
        If the file cannot be read or is no TOML; the text says where.
    """
    try:
        return Layer(str(path), tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise InvalidInputError(f"cannot read configuration {path}: {error.strerror or error}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"{path} is no valid TOML: {error}. Text values need quotes.") from error


def standing_layers(folder: Path | None = None) -> list[Layer]:
    """Return the layers that apply to every run from a folder (default: the working folder): the user's file, then the project's."""
    places = [user_file(), project_file(Path.cwd() if folder is None else folder)]
    return [read_layer(place) for place in places if place is not None and place.is_file()]


def parse_settings(texts: Iterable[str], top_level: Iterable[str]) -> dict[str, Any]:
    """Return nested settings from "key=value" texts.

    Keys are dotted paths ("stop.max_steps=50"); a bare key that is not one of `top_level` is a setting of the model ("history_ms=100"). The
    value is read as TOML; what is no TOML value is text, so that quotes are not needed.

    Raises
    ------
    InvalidInputError
        For a text without "=" or an empty key.
    """
    known = set(top_level)
    settings: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        path = key.strip().split(".")
        if not equals or not all(path):
            raise InvalidInputError(f"setting {text!r} is not of the form key=value, such as stop.max_steps=50.")
        if len(path) == 1 and path[0] not in known:
            path = ["model", path[0]]
        place = settings
        for part in path[:-1]:
            below = place.setdefault(part, {})
            place[part] = place = _named(below) if isinstance(below, str) else below
        if isinstance(place.get(path[-1]), dict) and path[-1] in _COMPONENTS:
            place[path[-1]]["name"] = read_value(value)
        else:
            place[path[-1]] = read_value(value)
    return settings


def _named(name: str) -> dict[str, Any]:
    return {"name": name}


def read_value(text: str) -> Any:
    """Return a value written as TOML, or the text itself."""
    try:
        return tomllib.loads(f"value = {text.strip()}")["value"]
    except tomllib.TOMLDecodeError:
        return text.strip()


def merge(layers: Iterable[Layer]) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the merged settings and, for each dotted key given anywhere, the origin of the value that holds.

    Tables are merged key by key. Naming another model, neuron or rule drops the settings that earlier layers gave the one before.
    """
    merged: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for layer in layers:
        _merge_into(merged, origins, layer.values, layer.origin, ())
    return merged, origins


def _merge_into(target: dict[str, Any], origins: dict[str, str], values: Mapping[str, Any], origin: str, path: tuple[str, ...]) -> None:
    for key, value in values.items():
        dotted = ".".join((*path, key))
        is_component = not path and key in _COMPONENTS
        if is_component and isinstance(value, str):
            value = _named(value)
        if isinstance(value, Mapping):
            before = target.get(key)
            if not isinstance(before, dict):
                before = {}
            if is_component and "name" in value and before.get("name", value["name"]) != value["name"]:
                before = {}
                for old in [name for name in origins if name.startswith(f"{dotted}.")]:
                    del origins[old]
            target[key] = before
            _merge_into(before, origins, value, origin, (*path, key))
        else:
            target[key] = value
            origins[dotted] = origin
