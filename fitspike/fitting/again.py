"""Return to the data of a stored run: which part of a recording may be scored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fitspike.config import parse_config
from fitspike.datasets.selection import load_data
from fitspike.errors import FitspikeError, RunFolderError
from fitspike.recording.recording import Recording
from fitspike.recording.split import parse_split, split
from fitspike.results.result import FitResult


def scored_part(result: FitResult, data: Mapping[str, Any], *, use_all: bool = False) -> tuple[Recording, str]:
    """Return the recording to score and what it is, in words.

    Parameters
    ----------
    data : keys of `[data]`; without "path" those of the run itself
    use_all : score everything, training data too

    With nothing but a path that leads to the file which the run was fitted to, the run's own selection and split apply and the held-out
    part is returned, so that nothing is scored on its training data by mistake. Everything else is returned whole.

    Raises
    ------
    RunFolderError
        If the run held nothing out, or its data cannot be found again.
    """
    config = parse_config(result.config, f"{result.run_dir}/run.toml")
    own = config.data.model_dump(exclude_none=True)
    if not data.get("path") and not own["path"]:
        raise RunFolderError(f"{result.run_dir} was fitted to a recording in memory. Give the recording to score.")
    recording = _as_fitted(result, own, data) if set(data) <= {"path"} else None
    if recording is None:
        recording = load_data(**{"path": own["path"], **data})
    if use_all or recording.fingerprint() != result.provenance.data["fingerprint"]:
        holds_training = recording.source.sha256 and recording.source.sha256 == result.provenance.data["sha256"]
        return recording, "all of the recording" + (" (the file that the run was fitted to)" if holds_training else "")
    parts = split(recording, parse_split(config.split), dt_ms=config.dt_ms)
    if parts.test is None:
        raise RunFolderError(f"{result.run_dir} held nothing out of this recording. Give other data, or --all to score training data.")
    return parts.test, "the held-out part of the recording"


def _as_fitted(result: FitResult, own: Mapping[str, Any], data: Mapping[str, Any]) -> Recording | None:
    """Return the recording that the run was fitted to if the path leads to it, else None."""
    try:
        recording = load_data(**{**own, **data})
    except FitspikeError:
        if "path" not in data:
            raise
        return None  # another kind of file, to which the run's selection does not apply
    return recording if recording.fingerprint() == result.provenance.data["fingerprint"] else None
