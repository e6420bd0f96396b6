"""How long a user waits for the import and for the first word of the command line."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "acceptance"))
from _table import Bounds  # noqa: E402

RUNS = 11
LATE = ("torch", "elephant", "numba", "neo")


def seconds(*arguments: str) -> float:
    """Return the median time of an interpreter with these arguments."""
    taken = []
    for _ in range(RUNS):
        began = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
        taken.append(time.perf_counter() - began)
    return float(np.median(taken))


def loaded(statement: str) -> list[str]:
    """Return which of the slow packages a statement imports."""
    code = f"import sys\n{statement}\nprint('loaded:', *[name for name in {LATE!r} if name in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    return shown.rpartition("loaded:")[2].split()


def main() -> None:
    """Print the table."""
    bounds = Bounds("startup", kind="bench")
    empty_s = seconds("-c", "pass")
    import_s = seconds("-c", "import fitspike") - empty_s
    help_s = seconds("-m", "fitspike", "--help")
    bounds.check("import fitspike under 0.15 s", f"{import_s:.3f} s", import_s < 0.15)
    bounds.check("fitspike --help under 0.3 s", f"{help_s:.3f} s", help_s < 0.3)
    run_help = "from fitspike.cli.main import main\ntry:\n    main(['--help'])\nexcept SystemExit:\n    pass"
    found = loaded("import fitspike") + loaded(run_help)
    bounds.check(f"neither loads {', '.join(LATE)}", ", ".join(found) or "none of them", not found)
    bounds.note(f"medians of {RUNS} runs; the import without the {empty_s:.3f} s of the interpreter, --help with it")
    bounds.finish()


if __name__ == "__main__":
    main()
