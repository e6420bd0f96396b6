"""Return to the data of a stored run: which part of a recording may be scored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fitspike.config import parse_config
from fitspike.datasets.selection import absolute_paths, load_data
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
    FitspikeError
        If the path leads to the file of the run, but the run's selection (an attached file, say) can no longer be applied to it.
    """
    config = parse_config(result.config, f"{result.run_dir}/run.toml")
    own = config.data.model_dump(exclude_none=True)
    if not data.get("path") and not own["path"]:
        raise RunFolderError(f"{result.run_dir} was fitted to a recording in memory. Give the recording to score.")
    recording, failure = None, None
    if set(data) <= {"path"}:
        try:
            recording = load_data(**{**own, **data})
        except FitspikeError as error:  # another kind of file, perhaps, to which the run's selection does not apply
            if "path" not in data:
                raise
            failure = error
    if recording is None or recording.fingerprint() != result.provenance.data["fingerprint"]:
        recording = load_data(**{"path": own["path"], **data})
    has_its_hash = bool(recording.source.sha256) and recording.source.sha256 == result.provenance.data["sha256"]
    is_fitted_file = has_its_hash or absolute_paths(data.get("path", own["path"]), {})[0] == tuple(own["path"])
    if is_fitted_file and failure is not None and not use_all:
        raise failure
    if use_all or recording.fingerprint() != result.provenance.data["fingerprint"]:
        return recording, "all of the recording" + (" (the file that the run was fitted to)" if is_fitted_file else "")
    parts = split(recording, parse_split(config.split), dt_ms=config.dt_ms)
    if parts.test is None:
        raise RunFolderError(f"{result.run_dir} held nothing out of this recording. Give other data, or --all to score training data.")
    return parts.test, "the held-out part of the recording"
