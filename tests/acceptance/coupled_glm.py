"""The coupled GLM: exact where an outside optimum is known, right about its uncertainty, and good on recordings made by others.

    python tests/acceptance/coupled_glm.py [optimum] [gradient] [coverage] [v1] [Sep2414] [Jun1114] [neuropixels] [s1] [retina]

Without names all parts run. The recordings are looked for in $FITSPIKE_DATA (default: ../shared/data beside the project).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from _glm_exactness import check_coverage, check_gradient, check_optimum
from _recorded_scores import RECORDINGS, check_recorded
from _table import Bounds

EXACT = {"optimum": check_optimum, "gradient": check_gradient, "coverage": check_coverage}
DATA = Path(os.environ.setdefault("FITSPIKE_DATA", str(Path(__file__).parents[3] / "shared" / "data")))


def main(wanted: list[str]) -> None:
    """Run the parts that are asked for."""
    b = Bounds("coupled_glm")
    known = (*EXACT, *RECORDINGS)
    if unknown := [name for name in wanted if name not in known]:
        sys.exit(f"no part {', '.join(unknown)}. Known: {', '.join(known)}.")
    for name in wanted or known:
        if name in EXACT:
            EXACT[name](b)
            continue
        if not DATA.is_dir():
            b.check(f"{name}: the recording is there", f"no folder {DATA}", False)
            continue
        check_recorded(b, name, DATA)
    b.finish()


if __name__ == "__main__":
    main(sys.argv[1:])
