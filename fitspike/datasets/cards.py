"""Recorded datasets described by cards: TOML files that say what a set is, which files each item needs, and how they are read."""

from __future__ import annotations

import fnmatch
import functools
import importlib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from fitspike import __version__
from fitspike.datasets.base import DataCard, GroundTruth
from fitspike.errors import InvalidInputError, Problems, UnknownNameError, did_you_mean
from fitspike.recording.text_tables import natural_key

if TYPE_CHECKING:
    from fitspike.recording.recording import Recording

_CARD_KEYS = (
    "name",
    "summary",
    "licence",
    "citation",
    "origin",
    "notes",
    "url",
    "loader",
    "truth",
    "reader",
    "settings",
    "items",
    "sha256",
)
_ITEM_KEYS = ("files", "loader", "truth", "reader", "settings", "summary")


@dataclass(frozen=True)
class Item:
    """One recording of a dataset.

    files : names within the set, in the order in which they are read
    loader : "module:function" called with the paths and the reader options; "" for `fitspike.load`
    truth : "module:function" called with the paths, giving a GroundTruth; "" where none is known
    reader : options of the loader or of `fitspike.load`
    settings : recommended settings of a fit
    """

    name: str
    files: tuple[str, ...]
    loader: str = ""
    truth: str = ""
    reader: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    summary: str = ""


@dataclass(frozen=True)
class RecordedDataset:
    """A dataset read from files that others made. Made by `read_cards`."""

    name: str
    card: DataCard
    items: Mapping[str, Item]
    sha256: Mapping[str, str]
    urls: Mapping[str, str]

    def describe(self) -> DataCard:
        """Return the card."""
        return self.card

    def item(self, name: str | None) -> Item:
        """Return an item by name; without a name, the only one.

        Raises
        ------
        InvalidInputError, UnknownNameError
            Without a name where there are several; for an unknown one. The text lists the items.
        """
        listed = ", ".join(self.items)
        if name is None:
            if len(self.items) > 1:
                raise InvalidInputError(
                    f"dataset {self.name!r} has {len(self.items)} items; say which, as {self.name}/ITEM. Items: {listed}."
                )
            return next(iter(self.items.values()))
        if name not in self.items:
            raise UnknownNameError(f"dataset {self.name!r} has no item {name!r}{did_you_mean(name, self.items)} Items: {listed}.")
        return self.items[name]

    def files(self, cache: Path, item: str | None = None) -> list[Path]:
        """Return the paths of an item's files, fetched if need be and checked."""
        from fitspike.datasets.cache import find_file

        return [
            find_file(self.name, file, sha256=self.sha256[file], url=self.urls.get(file, ""), cache=cache) for file in self.item(item).files
        ]

    def load(self, cache: Path, *, item: str | None = None, seed: int = 0) -> Recording:
        """Return an item's recording. `seed` has no effect: nothing is random here."""
        from fitspike.datasets.loading import load
        from fitspike.recording.reading import source_of

        chosen, paths = self.item(item), self.files(cache, item)
        if chosen.loader:
            recording = _attribute(chosen.loader)(paths, **chosen.reader)
            source = source_of(Path(self.name) / chosen.name, chosen.loader, __version__, recording.source.notes, files=paths)
            return replace(recording, source=source)
        options = dict(chosen.reader)
        return load(paths[0] if len(paths) == 1 else paths, format=options.pop("format", None), **options)

    def truth(self, *, seed: int = 0, item: str | None = None) -> GroundTruth | None:
        """Return what is known of the network behind an item, or None."""
        from fitspike.datasets.cache import cache_folder

        if item is None and len(self.items) > 1:
            return None
        chosen = self.item(item)
        return _attribute(chosen.truth)(self.files(cache_folder(), item)) if chosen.truth else None


def _attribute(target: str) -> Any:
    module, _, attribute = target.partition(":")
    return functools.reduce(getattr, attribute.split("."), importlib.import_module(module))


def read_cards(folder: Path) -> list[RecordedDataset]:
    """Return the datasets of all cards (*.toml) in a folder, by name."""
    return [read_card(path) for path in sorted(Path(folder).glob("*.toml"))]


def read_card(path: Path) -> RecordedDataset:
    """Return the dataset that a card describes.

    Raises
    ------
    InvalidInputError
        If the card is no TOML, lacks an entry or has an unknown one; the text lists every problem.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise InvalidInputError(f"card {path} is no valid TOML: {error}") from error
    problems = Problems(f"card {path}")
    for key in ("name", "summary", "licence", "citation", "origin", "items", "sha256"):
        if key not in content:
            problems.add(f"{key!r} is missing.")
    for key in content:
        if key not in _CARD_KEYS:
            problems.add(f"unknown entry {key!r}{did_you_mean(key, _CARD_KEYS)}")
    hashes: Mapping[str, str] = content.get("sha256", {})
    for file, digest in hashes.items():
        if not re.fullmatch(r"[0-9a-f]{64}", str(digest)):
            problems.add(f"the SHA-256 of {file!r} is no text of 64 hexadecimal digits.")
    items = {name: _item(name, about, content, hashes, problems) for name, about in content.get("items", {}).items()}
    problems.raise_if_any()
    urls = {file: _url(content["url"], file) for file in hashes} if "url" in content else {}
    card = DataCard(
        name=content["name"],
        summary=content["summary"],
        licence=content["licence"],
        citation=content["citation"],
        origin=content["origin"],
        items=tuple(items),
        notes=tuple(content.get("notes", ())),
        settings={name: dict(item.settings) for name, item in items.items()},
        summaries={name: item.summary for name, item in items.items() if item.summary},
    )
    return RecordedDataset(content["name"], card, items, hashes, urls)


def _item(name: str, about: Mapping[str, Any], card: Mapping[str, Any], hashes: Mapping[str, str], problems: Problems) -> Item:
    """Return an item; reader options and settings of the card hold where the item says nothing else."""
    for key in about:
        if key not in _ITEM_KEYS:
            problems.add(f"item {name!r} has an unknown entry {key!r}{did_you_mean(key, _ITEM_KEYS)}")
    given = about.get("files", [])
    patterns = [given] if isinstance(given, str) else list(given)
    files: list[str] = []
    for pattern in patterns:
        matches = [pattern] if pattern in hashes else sorted(fnmatch.filter(hashes, pattern), key=natural_key)
        if not matches:
            problems.add(f"item {name!r}: no file {pattern!r} in [sha256].")
        files += matches
    if not patterns:
        problems.add(f"item {name!r} names no files.")
    return Item(
        name,
        tuple(files),
        about.get("loader", card.get("loader", "")),
        about.get("truth", card.get("truth", "")),
        {**card.get("reader", {}), **about.get("reader", {})},
        {**card.get("settings", {}), **about.get("settings", {})},
        about.get("summary", ""),
    )


def _url(templates: str | Mapping[str, str], file: str) -> str:
    """Return the address of a file: {path} is its path within the set, {name} and {folder} are parts of it; "" if no pattern matches."""
    path = PurePosixPath(file)
    by_pattern = {"*": templates} if isinstance(templates, str) else templates
    template = next((template for pattern, template in by_pattern.items() if fnmatch.fnmatch(file, pattern)), "")
    return template.format(path=file, name=path.name, folder=path.parent.name)
