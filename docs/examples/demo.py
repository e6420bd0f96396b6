"""Fit a recording and open its report: a real one where it can be had, else a synthetic one. Called by `make demo`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

REAL = "cockroach-antennal-lobe/e060817citron"
SYNTHETIC = "coupled-glm-network"


def fitspike(*arguments: str, capture: bool = False) -> subprocess.CompletedProcess[str]:
    """Run a fitspike command; with `capture`, keep what it prints."""
    return subprocess.run([sys.executable, "-m", "fitspike", *arguments], capture_output=capture, text=True, check=False)


def main() -> int:
    """Fetch or make the recording, fit it, and return the exit status of the fit."""
    runs = Path("runs")
    runs.mkdir(exist_ok=True)
    fetched = fitspike("datasets", "get", REAL, capture=True)
    if fetched.returncode == 0:
        recording, bins = fetched.stdout.strip().splitlines()[-1], "10"
        print(f"Fitting a real recording: {REAL} (`fitspike datasets card {REAL.split('/')[0]}` names its authors and licence).")
    else:
        reason = fetched.stderr.strip().splitlines()
        print(f"{REAL} cannot be had here ({reason[0] if reason else 'no reason given'}).")
        print(f"Fitting a synthetic recording instead: {SYNTHETIC}.")
        made = runs / "demo-recording"
        if not made.exists():
            done = fitspike("datasets", "make", SYNTHETIC, "--out", str(made))
            if done.returncode:
                return done.returncode
        recording, bins = str(made), "5"
    return fitspike("fit", recording, "--model", "coupled-glm", "--dt-ms", bins, *sys.argv[1:]).returncode


if __name__ == "__main__":
    sys.exit(main())
