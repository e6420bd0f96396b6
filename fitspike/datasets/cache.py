"""Files of datasets: from `$FITSPIKE_DATA`, else from the cache, else downloaded; each checked against its SHA-256."""

from __future__ import annotations

import logging
import os
import tempfile
from pathlib import Path

from fitspike.errors import MissingDataError
from fitspike.recording.reading import sha256_of

logger = logging.getLogger("fitspike.datasets")

DATA_VARIABLE, CACHE_VARIABLE = "FITSPIKE_DATA", "FITSPIKE_CACHE"


def data_root() -> Path | None:
    """Return the folder that `$FITSPIKE_DATA` names, or None if it is unset; a name of no folder is an error."""
    named = os.environ.get(DATA_VARIABLE)
    if not named:
        return None
    folder = Path(named)
    if not folder.is_dir():
        raise MissingDataError(f"${DATA_VARIABLE} is {named!r}, which is no folder. Set it to the folder of the datasets.")
    return folder


def cache_folder() -> Path:
    """Return the folder for downloaded and converted files: `$FITSPIKE_CACHE`, else the user's cache, else a temporary one.

    Home folders are read-only on some clusters: the temporary folder is used then, and a warning says so.
    """
    import pooch

    named = os.environ.get(CACHE_VARIABLE)
    folder = Path(named) if named else Path(pooch.os_cache("fitspike"))
    if _is_writable(folder):
        return folder
    if named:
        raise MissingDataError(f"${CACHE_VARIABLE} is {named!r}, where nothing can be written. Set it to a folder that can be written to.")
    fallback = Path(tempfile.gettempdir()) / f"fitspike-{os.getuid() if hasattr(os, 'getuid') else 'cache'}"
    if not _is_writable(fallback):
        raise MissingDataError(f"neither {folder} nor {fallback} can be written to. Set ${CACHE_VARIABLE} to a folder that can.")
    logger.warning("%s cannot be written to; datasets are cached in %s. Set $%s to choose the folder.", folder, fallback, CACHE_VARIABLE)
    return fallback


def _is_writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)


def find_file(dataset: str, name: str, *, sha256: str, url: str, cache: Path) -> Path:
    """Return the path of a dataset's file whose content has the given SHA-256.

    Parameters
    ----------
    dataset, name : the file is looked for as DATASET/NAME below `$FITSPIKE_DATA`, then below cache/files
    url : where to download it from, or "" where it is offered nowhere

    Raises
    ------
    MissingDataError
        If it is in none of the places, a download fails, or its content is not that of the card.
    """
    root = data_root()
    places = [folder for folder in (root, cache / "files") if folder is not None]
    for folder in places:
        path = folder / dataset / name
        if path.is_file():
            _check(path, sha256)
            return path
    searched = " and ".join(str(folder / dataset) for folder in places)
    if not url:
        raise MissingDataError(
            f"{dataset}: {name} is not in {searched}, and its origin offers no download. Put it there, or set ${DATA_VARIABLE} to the "
            f"folder that holds {dataset}/. `fitspike datasets card {dataset}` says where it comes from."
        )
    return _download(dataset, name, url, sha256, cache / "files", searched)


def _check(path: Path, expected: str) -> None:
    found = sha256_of([path])
    if found and found != expected:
        raise MissingDataError(
            f"{path} has SHA-256 {found[:12]}..., the card says {expected[:12]}...: it is another version or was changed. Fetch it again."
        )


def _download(dataset: str, name: str, url: str, sha256: str, folder: Path, searched: str) -> Path:
    import pooch

    target = folder / dataset / name
    logger.warning("downloading %s to %s", url, target)
    pooch.get_logger().setLevel("WARNING")
    try:
        return Path(pooch.retrieve(url, known_hash=f"sha256:{sha256}", fname=target.name, path=target.parent))
    except Exception as error:
        # pooch raises whatever its transport does (requests, urllib3, OSError), and ValueError for a wrong hash
        raise MissingDataError(
            f"{dataset}: {name} is not in {searched}, and downloading {url} failed ({type(error).__name__}: {str(error)[:200]}). "
            f"Without a network, copy the file to {target}, or set ${DATA_VARIABLE} to a folder that holds {dataset}/{name}."
        ) from error
