"""Running a worker of a benchmark in a process of its own, with an interpreter of its own: settings and arrays in, figures and arrays out.

A worker is a script beside this file. It gets two paths, reads its arrays from the first and calls `answer` with what it found.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
PEERS = HERE.parents[1] / ".venv-bench" / "bin" / "python"


def run_worker(script: str, arrays: dict[str, Any], *, python: Path | str = sys.executable, **environment: str) -> dict[str, Any]:
    """Return what a worker answers: arrays, and plain numbers as floats.

    Raises
    ------
    SystemExit
        If the interpreter is missing or the worker fails.
    """
    if not Path(python).exists():
        raise SystemExit(f"no interpreter {python}. `make bench` builds the peers' environment from {HERE / 'peers.txt'}.")
    with tempfile.TemporaryDirectory() as folder:
        given, answered = Path(folder) / "given.npz", Path(folder) / "answered.npz"
        np.savez(given, **arrays)
        command = [str(python), str(HERE / script), str(given), str(answered)]
        status = subprocess.run(command, check=False, stdout=sys.stderr, env={**os.environ, **environment}).returncode
        if status or not answered.exists():
            raise SystemExit(f"{script} failed with status {status}; its messages are above.")
        with np.load(answered) as found:
            return {name: found[name] if found[name].ndim else found[name].item() for name in found.files}


def given() -> dict[str, np.ndarray]:
    """Return the arrays that this worker was given."""
    with np.load(sys.argv[1]) as found:
        return {name: found[name] for name in found.files}


def answer(**figures: Any) -> None:
    """Hand figures back, with the largest memory that this process has held, GiB, as `peak_gib`."""
    peak_gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    np.savez(sys.argv[2], peak_gib=peak_gib, **figures)
    shown = {name: round(float(value), 4) for name, value in figures.items() if np.ndim(value) == 0}
    print(f"{Path(sys.argv[0]).name}: {json.dumps({**shown, 'peak_gib': round(peak_gib, 3)})}")
