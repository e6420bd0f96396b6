"""The folder of one run: made once, each file written whole, resumed after an interruption, read without the plugins that made it."""

from __future__ import annotations

import json
import os
import platform
import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from fitspike.errors import RunFolderError
from fitspike.plotting.run_files import FORMAT_VERSION, check_format_version
from fitspike.results.files import plain, read_arrays, read_json, write_arrays, write_json, write_text

N_CHECKPOINTS = 2
HEARTBEAT_S = 5.0
STALE_S = 120.0
"""A heartbeat older than this, from another machine, is taken for that of a dead process."""

_CHECKPOINT = re.compile(r"step_(\d+)\.npz\Z")


def next_folder(parent: Path, stem: str, model: str) -> Path:
    """Return the first free folder parent/stem-model-NUMBER, numbers from 1."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", f"{stem}-{model}").strip("._") or "run"
    number = 1
    while (parent / f"{name}-{number}").exists():
        number += 1
    return parent / f"{name}-{number}"


class RunFolder:
    """A run folder opened for reading or writing; every method that writes replaces one file atomically."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._started = time.monotonic()
        self._last_beat = -np.inf
        self._last_checkpoint_at = -np.inf
        self._status: dict[str, Any] = {}

    # -- opening --------------------------------------------------------------------------------------------------------------------

    @classmethod
    def create(cls, path: Path) -> RunFolder:
        """Return a new run folder.

        Raises
        ------
        RunFolderError
            If the folder exists and is not empty, or cannot be made.
        """
        path = Path(path)
        cls.check_free(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
            (path / "checkpoints").mkdir()
        except FileExistsError as error:  # another process was faster, or the path is a file
            raise RunFolderError(f"{path} is taken. Choose another folder with --out.") from error
        except OSError as error:
            raise RunFolderError(f"cannot make {path}: {error.strerror or error}. Choose a folder you can write to with --out.") from error
        return cls(path)

    @staticmethod
    def check_free(path: Path) -> None:
        """Raise RunFolderError if there is anything at a path that a new run folder is to be made at."""
        try:
            is_free = not path.exists() or (path.is_dir() and not any(path.iterdir()))
            holds_run = (path / "status.json").exists()
        except OSError as error:
            raise RunFolderError(f"cannot look into {path}: {error.strerror or error}. Choose another folder with --out.") from error
        if holds_run:
            raise RunFolderError(f"{path} already holds a run. Continue that run with --resume, or choose another folder with --out.")
        if not is_free:
            what = "is not empty" if path.is_dir() else "is a file"
            raise RunFolderError(f"{path} {what}. Choose another folder with --out.")

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """Return an existing run folder.

        Raises
        ------
        RunFolderError
            If there is no run, or it was written by a newer format.
        """
        path = Path(path)
        if not (path / "status.json").is_file():
            what = "does not exist" if not path.exists() else "is no run folder (it has no status.json)"
            raise RunFolderError(f"{path} {what}. Give the folder that `fitspike fit` printed.")
        folder = cls(path)
        folder._status = read_json(path / "status.json")
        check_format_version(path, folder._status)
        return folder

    def check_not_running(self) -> None:
        """Raise RunFolderError if the process that works on this run is alive, as far as can be told."""
        status = self._status
        if status.get("state") != "running":
            return
        age_s = time.time() - float(status.get("heartbeat_unix") or 0)
        if status.get("host") == platform.node():
            is_alive = status.get("pid") != os.getpid() and _is_process(int(status.get("pid") or 0))
        else:
            is_alive = age_s < STALE_S
        if is_alive:
            raise RunFolderError(
                f"{self.path} is being written by process {status.get('pid')} on {status.get('host')}, last heard of {age_s:.0f} s ago. "
                "Wait for it or stop it first."
            )

    # -- status and history ---------------------------------------------------------------------------------------------------------

    @property
    def status(self) -> Mapping[str, Any]:
        """Return what status.json says."""
        return self._status

    def set_status(self, state: str, *, stage: str, step: int = 0, message: str = "", status: str | None = None) -> None:
        """Write status.json. state: running, finished, failed or interrupted; status: name of a FitStatus, once there is one."""
        now = datetime.now(UTC)
        self._status = {
            "format_version": FORMAT_VERSION,
            "state": state,
            "stage": stage,
            "status": status,
            "step": step,
            "message": message,
            "wall_s": round(time.monotonic() - self._started, 3),
            "time": now.isoformat(timespec="seconds"),
            "heartbeat_unix": now.timestamp(),
            "pid": os.getpid(),
            "host": platform.node(),
        }
        write_json(self.path / "status.json", self._status)
        self._last_beat = time.monotonic()

    def beat(self, *, stage: str, step: int, message: str = "") -> None:
        """Renew the heartbeat in status.json, at most every few seconds."""
        if time.monotonic() - self._last_beat >= HEARTBEAT_S:
            self.set_status("running", stage=stage, step=step, message=message)

    def add_history(self, row: Mapping[str, Any]) -> None:
        """Append one log point, a mapping with "stage" and "step", to history.jsonl."""
        with (self.path / "history.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(plain(row)) + "\n")

    def history(self) -> tuple[dict[str, Any], ...]:
        """Return the log points; a last line cut off by a crash is left out."""
        path = self.path / "history.jsonl"
        if not path.exists():
            return ()
        lines = path.read_text(encoding="utf-8").splitlines()
        rows = []
        for number, line in enumerate(lines):
            try:
                rows.append(json.loads(line))
            except ValueError as error:
                if number != len(lines) - 1:
                    raise RunFolderError(f"{path} line {number + 1} is damaged: {error}.") from error
        return tuple(rows)

    def cut_history(self, stage: str, last_step: int) -> None:
        """Drop log points of a stage after `last_step`: they will be computed again."""
        rows = [row for row in self.history() if row["stage"] != stage or row["step"] <= last_step]
        write_text(self.path / "history.jsonl", "".join(json.dumps(row) + "\n" for row in rows))

    # -- checkpoints ----------------------------------------------------------------------------------------------------------------

    def checkpoint_due(self, every_s: float) -> bool:
        """Return whether the last checkpoint of this process is at least `every_s` old."""
        return time.monotonic() - self._last_checkpoint_at >= every_s

    def save_checkpoint(self, step: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Store solver state; the last two checkpoints are kept."""
        write_arrays(self.path / "checkpoints" / f"step_{step:08d}.npz", arrays)
        self._last_checkpoint_at = time.monotonic()
        for _, path in self._checkpoints()[:-N_CHECKPOINTS]:
            path.unlink(missing_ok=True)

    def load_checkpoint(self) -> tuple[int, dict[str, np.ndarray]] | None:
        """Return step and arrays of the newest checkpoint, or None. Checkpoints appear by renaming, so that each is whole."""
        found = self._checkpoints()
        return None if not found else (found[-1][0], read_arrays(found[-1][1]))

    def drop_checkpoints(self) -> None:
        """Remove all checkpoints."""
        for _, path in self._checkpoints():
            path.unlink(missing_ok=True)

    def _checkpoints(self) -> list[tuple[int, Path]]:
        folder = self.path / "checkpoints"
        matches = ((_CHECKPOINT.match(path.name), path) for path in folder.glob("step_*.npz"))
        return sorted((int(match.group(1)), path) for match, path in matches if match)

    # -- plain files ----------------------------------------------------------------------------------------------------------------

    def has(self, name: str) -> bool:
        """Return whether a file of this name is there."""
        return (self.path / name).exists()

    def write_json(self, name: str, value: Any) -> None:
        """Write plain values as JSON."""
        write_json(self.path / name, value)

    def read_json(self, name: str) -> Any:
        """Return the values of a JSON file."""
        return read_json(self.path / name)

    def write_arrays(self, name: str, arrays: Mapping[str, Any]) -> None:
        """Write arrays as .npz."""
        write_arrays(self.path / name, arrays)

    def read_arrays(self, name: str) -> dict[str, np.ndarray]:
        """Return the arrays of an .npz file."""
        return read_arrays(self.path / name)

    def write_text(self, name: str, text: str) -> None:
        """Write a text file."""
        write_text(self.path / name, text)


def _is_process(pid: int) -> bool:
    """Return whether a process of this number is alive on this machine."""
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    # A killed process that its parent has not yet collected is dead all the same.
    state = Path(f"/proc/{pid}/stat")
    return not (state.exists() and state.read_text().rpartition(")")[2].split()[:1] == ["Z"])
