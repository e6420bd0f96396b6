"""From the name of a dataset to the path of a native recording in the cache, with its truth beside it."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fitspike.datasets.base import DataCard, GroundTruth
from fitspike.datasets.cache import cache_folder
from fitspike.datasets.truth import save_truth
from fitspike.errors import InvalidInputError, PluginError
from fitspike.plugin.registry import Entry, get_registry
from fitspike.recording.npz_io import FORMAT_VERSION
from fitspike.recording.recording import Recording


def native_path(name: str, *, refresh: bool = False) -> Path:
    """Return the folder of "NAME" or "NAME/ITEM" as a native recording, converted (or generated with seed 0) if it is not there yet.

    Raises
    ------
    UnknownNameError, InvalidInputError
        If there is no such dataset or item, or the item has to be said.
    MissingDataError
        If a file is neither at hand nor to be downloaded.
    """
    entry, dataset, item = _find(name)
    cache = cache_folder()
    key = _key(entry, dataset, item)
    stem = re.sub(r"[^\w.-]+", "-", name)
    target = cache / "recordings" / f"{stem}-{key}.fitspike"
    if target.is_dir() and not refresh:
        return target
    with entry.guard(f"loading {name!r}"):
        recording = dataset.load(cache, item=item)
        truth = _truth(dataset, item, seed=0)
    return store(recording, truth, target, overwrite=True)


def card_of(entry: Entry, dataset: Any) -> DataCard:
    """Return the card of a dataset made from its entry; PluginError if its plugin fails at it."""
    with entry.guard(f"describing {entry.name!r}"):
        found = dataset.describe()
    if not isinstance(found, DataCard):
        raise PluginError(f"{entry.origin}: describe() of dataset {entry.name!r} returned a {type(found).__name__}, not a DataCard.")
    return found


def make(name: str, out: Path, *, seed: int = 0, settings: Mapping[str, Any] | None = None, overwrite: bool = False) -> Path:
    """Generate a synthetic dataset into the folder `out`, the truth in it as truth.npz, and return its path."""
    entry = get_registry().entry("datasets", name)
    dataset = entry.create(settings)
    if not card_of(entry, dataset).is_synthetic:
        raise InvalidInputError(f"dataset {name!r} is recorded, not generated. Use `fitspike datasets get {name}`.")
    if out.suffix == ".npz":
        raise InvalidInputError(f"{out} is no name for a folder: recording and truth are written into one. Leave .npz out.")
    if out.exists() and not overwrite:
        raise InvalidInputError(f"{out} exists. Choose another name, or say --overwrite.")
    with entry.guard(f"generating {name!r}"):
        recording = dataset.load(cache_folder(), seed=seed)
        truth = dataset.truth(seed=seed)
    return store(recording, truth, out, overwrite=overwrite)


def store(recording: Recording, truth: GroundTruth | None, target: Path, *, overwrite: bool = False) -> Path:
    """Write a recording and its truth into one folder: under a temporary name first, so that it is whole or absent."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".making-") as folder:
        made = recording.save(Path(folder) / "recording.fitspike")
        if truth is not None:
            save_truth(truth, made)
        if target.exists():
            if not overwrite:
                raise InvalidInputError(f"{target} exists. Choose another name.")
            shutil.rmtree(target)
        os.replace(made, target)
    return target


def _find(name: str) -> tuple[Entry, Any, str | None]:
    """Return entry, dataset and item of "NAME", "NAME/ITEM" or "plugin:NAME/ITEM"."""
    bare, slash, item = name.partition("/")
    entry = get_registry().entry("datasets", bare)
    dataset = entry.create()
    chosen = item if slash else None
    if hasattr(dataset, "item"):
        chosen = dataset.item(chosen).name
    elif chosen is not None and chosen not in (items := card_of(entry, dataset).items):
        raise InvalidInputError(f"dataset {bare!r} has no item {chosen!r}. Items: {', '.join(items) or 'none'}.")
    return entry, dataset, chosen


def _key(entry: Entry, dataset: Any, item: str | None) -> str:
    """Return 10 digits that change with the card's entry, its files, the code that reads them, and the native format."""
    about: dict[str, Any] = {"plugin": entry.qualified_name, "code": _code_digest("fitspike.recording"), "format": FORMAT_VERSION}
    if hasattr(dataset, "item"):
        chosen = dataset.item(item)
        about |= {"reader": dict(chosen.reader), "loader": chosen.loader, "truth": chosen.truth}
        about["files"] = {file: dataset.sha256[file] for file in chosen.files}
        about["own_code"] = [
            _code_digest(target.partition(":")[0].rpartition(".")[0]) for target in (chosen.loader, chosen.truth) if target
        ]
    else:
        about |= {"settings": repr(dataset), "own_code": _code_digest(type(dataset).__module__.partition(".")[0])}
    return hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode()).hexdigest()[:10]


def _code_digest(package: str) -> str:
    """Return the SHA-256 of a package's own files, so that nothing read by older code is taken from the cache."""
    spec = importlib.util.find_spec(package)
    digest = hashlib.sha256()
    for folder in (spec.submodule_search_locations or []) if spec is not None else []:
        for path in sorted(Path(folder).glob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _truth(dataset: Any, item: str | None, *, seed: int) -> GroundTruth | None:
    truth = dataset.truth(seed=seed, item=item) if hasattr(dataset, "item") else dataset.truth(seed=seed)
    if truth is not None and not isinstance(truth, GroundTruth):
        raise PluginError(f"dataset {dataset.name!r} returned a {type(truth).__name__} as its truth, not a GroundTruth.")
    return truth
