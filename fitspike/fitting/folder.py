"""The run folder from the fit's side: made or resumed with its checks, and every file that a fit writes."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fitspike.config import RunConfig, parse_config
from fitspike.errors import RunFolderError
from fitspike.fitting.optimise import Fitted
from fitspike.fitting.prepare import Prepared
from fitspike.fitting.request import Request
from fitspike.models.base import SolverReport
from fitspike.results.provenance import RunProvenance
from fitspike.results.result import FitResult
from fitspike.results.run_dir import RunFolder
from fitspike.toml_text import to_toml

MAY_CHANGE = ("stop", "score", "simulation", "report", "threads", "plugins", "format_version")
"""Settings that may differ when a run is resumed: they do not change what it converges to."""


def open_folder(request: Request) -> RunFolder | None:
    """Return the run folder: new, or resumed if the request says so and there is one; None for a fit that is not stored.

    Raises
    ------
    RunFolderError
        If the folder holds a run and is not to be resumed, is being written by a live process, or was made with other settings.
    """
    if request.out is None:
        if request.resume:
            raise RunFolderError("resume needs the folder of the run: give out=... (--out on the command line).")
        return None
    if not request.resume or not (request.out / "status.json").exists():
        return RunFolder.create(request.out)
    folder = RunFolder.open(request.out)
    folder.check_not_running()
    check_same_settings(stored_config(folder), request.config, folder.path)
    return folder


def stored_config(folder: RunFolder) -> RunConfig:
    """Return the configuration in run.toml."""
    path = folder.path / "run.toml"
    try:
        return parse_config(tomllib.loads(path.read_text(encoding="utf-8")), str(path))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise RunFolderError(
            f"cannot read {path}: {error}. Without it the run cannot be resumed; fit again into another folder."
        ) from error


def check_same_settings(stored: RunConfig, now: RunConfig, path: Path) -> None:
    """Raise RunFolderError that names every setting in which a resumed run would differ."""
    before, after = _flat(stored.to_dict()), _flat(now.to_dict())
    changed = [key for key in dict.fromkeys([*before, *after]) if before.get(key) != after.get(key) and key.split(".")[0] not in MAY_CHANGE]
    if changed:
        listed = "; ".join(f"{key} was {before.get(key)!r}, now {after.get(key)!r}" for key in changed)
        raise RunFolderError(
            f"{path} was started with other settings: {listed}. Resume with the same settings (only {', '.join(MAY_CHANGE[:-2])} may "
            "differ), or fit into another folder."
        )


def _flat(values: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in values.items():
        dotted = f"{path}.{key}" if path else key
        if isinstance(value, Mapping):
            flat |= _flat(value, dotted)
        else:
            flat[dotted] = value
    return flat


def write_start(folder: RunFolder, request: Request, prepared: Prepared, provenance: RunProvenance) -> None:
    """Write what is known before the first step. In a resumed folder: check that the data are the same, and keep its provenance.

    Raises
    ------
    RunFolderError
        If a run is resumed on other data.
    """
    if folder.has("provenance.json"):
        before = RunProvenance.from_json(folder.read_json("provenance.json"))
        if before.data["fingerprint"] != provenance.data["fingerprint"]:
            raise RunFolderError(
                f"{folder.path} was started on other data: the contents of {before.data['path'] or 'the recording in memory'} differ. "
                "Resume with the same recording."
            )
    else:
        folder.write_json("provenance.json", provenance.to_json())
    folder.write_json("checks.json", prepared.recording.checks().as_dict())
    lacking = request.not_in_config
    heading = f"# Lacks what was given as an object: {', '.join(lacking)}.\n" if lacking else ""
    folder.write_text("run.toml", heading + to_toml(request.config.to_dict()))


def read_fitted(folder: RunFolder, prepared: Prepared, model: Any) -> Fitted | None:
    """Return what an earlier process fitted and stored, or None if it did not get that far."""
    if not folder.has("params.npz"):
        return None
    stored = FitResult.load(folder.path, model=model)
    if not stored.status.is_usable or stored.status.name in ("STEP_LIMIT", "TIME_LIMIT"):
        return None
    report = SolverReport(stored.status.name, stored.message, len(stored.history), extras=stored.extras)
    return Fitted(model, prepared.specs, stored.params, report)
