"""Run the acceptance scripts, all or those named: `python tests/acceptance/run.py recordings,stability`; with `--bench` the benchmarks.

Each script runs in a process of its own and prints its table; exit status 1 if any of them misses a bound or fails.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
BENCHMARKS = HERE.parent / "benchmarks"


def main(arguments: list[str]) -> int:
    """Run the scripts and return the exit status."""
    is_bench = "--bench" in arguments
    folder, kind = (BENCHMARKS, "benchmark") if is_bench else (HERE, "acceptance script")
    known = sorted(path.stem for path in folder.glob("*.py") if not path.stem.startswith("_") and path.stem != "run")
    names = [argument for argument in arguments if argument != "--bench"]
    wanted = [name for argument in names for name in argument.replace(",", " ").split()] or known
    unknown = [name for name in wanted if name not in known]
    if unknown:
        print(f"no {kind} {', '.join(unknown)}. Known: {', '.join(known)}.", file=sys.stderr)
        return 2
    failed = []
    for name in wanted:
        print(f"== {name}", flush=True)
        if subprocess.run([sys.executable, str(folder / f"{name}.py")], check=False).returncode:
            failed.append(name)
    print(f"{len(wanted) - len(failed)} of {len(wanted)} {kind}s met all bounds." + (f" Missed: {', '.join(failed)}." if failed else ""))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
