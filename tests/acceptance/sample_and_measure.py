"""Sample-and-measure: networks fitted to statistics of their free activity, on benchmarks with known truth and on recordings.

    python tests/acceptance/sample_and_measure.py [P] [NH] [I] [TM] [recordings] [--seeds=10] [--workers=N]

Without names all parts run. P: PSTH and rates under unobserved slow noise. NH: noise correlations and couplings with hidden assemblies.
I: couplings where a hidden block mediates inhibition. TM: trials of two kinds, by trial matching (two seeds). Each runs over fixed seeds,
in processes of one thread each (default: one per core). Every seed is printed, beside the generator's ceiling. The recordings are looked
for in $FITSPIKE_DATA (default: ../shared/data beside the project).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from _seeds import run_seeds
from _sm_benchmarks import BENCHMARKS, Rows
from _sm_trial_matching import check_trial_matching, two_areas
from _table import Bounds

DATA = Path(os.environ.setdefault("FITSPIKE_DATA", str(Path(__file__).parents[3] / "shared" / "data")))

Results = list[Rows]
"""One per seed, in order."""

RUN: dict[str, Callable[[int], Rows]] = {**BENCHMARKS, "TM": two_areas}
MOST_SEEDS = {"TM": 2}

CONVERGED = 0.005
"""Part by which the held-out NLL of a likelihood-only fit may exceed that of the optimum."""


def values(results: Results, row: str, score: str) -> np.ndarray:
    """Return one score of one row over seeds, (n_seeds,)."""
    return np.array([rows[row][score] for rows in results])


def print_scores(title: str, results: Results, scores: tuple[str, ...]) -> None:
    """Print every seed's score of every row that has it, with the median."""
    print(f"\n{title}\n{'score':<15}{'row':<20}{'median':>8}   " + "".join(f"{f'seed {k}':>8}" for k in range(len(results))))
    for score in scores:
        for row in results[0]:
            if score in results[0][row]:
                one = values(results, row, score)
                print(f"{score:<15}{row:<20}{np.median(one):>8.3f}   " + "".join(f"{value:>8.3f}" for value in one))
    sys.stdout.flush()


def check_converged(b: Bounds, name: str, results: Results) -> None:
    """Check that likelihood-only fits are at the optimum, so that what they lack is the method's."""
    excess = values(results, "likelihood", "nll") / values(results, "optimum", "nll") - 1
    b.check(
        f"{name}: held-out NLL of likelihood-only fits within {100 * CONVERGED:g} % of the L-BFGS optimum, every seed",
        f"{100 * excess.min():+.3f} to {100 * excess.max():+.3f} %",
        bool((np.abs(excess) <= CONVERGED).all()),
    )


def check_slow_noise(b: Bounds, results: Results) -> None:
    """P."""
    print_scores("P: unobserved slow noise", results, ("psth_r2", "rate_r2", "nll", "popvar"))
    check_converged(b, "P", results)
    plain, fitted, ceiling = (values(results, row, "psth_r2") for row in ("likelihood", "with PSTH", "ceiling"))
    share, rate = fitted / ceiling, values(results, "with PSTH", "rate_r2")
    worse = values(results, "with PSTH", "nll") / values(results, "likelihood", "nll") - 1
    b.check("P: likelihood-only PSTH R2 at most 0.1, median", median_range(plain), np.median(plain) <= 0.1)
    b.check("P: PSTH R2 with the PSTH loss at least 0.6 of the ceiling, median", median_range(share), np.median(share) >= 0.6)
    b.check("P: rate R2 with the PSTH loss at least 0.95, median", median_range(rate), np.median(rate) >= 0.95)
    b.check("P: held-out NLL with the PSTH loss at most 3 % worse, median", median_range(100 * worse, "%"), np.median(worse) <= 0.03)


def check_assemblies(b: Bounds, results: Results) -> None:
    """N and H."""
    scores = ("nc_r2", "popvar", "psth_r2", "coupling_r2", "coupling_r", "coupling_bias", "nll")
    print_scores("N and H: hidden assemblies", results, scores)
    check_converged(b, "N", results)
    plain, fitted = (values(results, row, "nc_r2") for row in ("likelihood", "sample-and-measure"))
    ratio = values(results, "sample-and-measure", "popvar")
    b.check("N: likelihood-only noise-correlation R2 at most 0.25, median", median_range(plain), np.median(plain) <= 0.25)
    b.check("N: sample-and-measure noise-correlation R2 at least 0.55, median", median_range(fitted), np.median(fitted) >= 0.55)
    b.check("N: sample-and-measure population variance ratio 0.9 to 1.1, median", median_range(ratio), 0.9 <= np.median(ratio) <= 1.1)
    gain = values(results, "sample-and-measure", "coupling_r2") - values(results, "likelihood", "coupling_r2")
    b.check("H: coupling R2 above likelihood-only by at least 0.08, median", median_range(gain), np.median(gain) >= 0.08)
    n_better, enough = int((gain > 0).sum()), 0.9 * len(gain)
    b.check("H: coupling R2 above likelihood-only on at least 9 of 10 seeds", f"{n_better} of {len(gain)}", n_better >= enough)


def check_blocks(b: Bounds, feedforward: Results, feedback: Results) -> None:
    """I, both cases."""
    print_scores("I, case 1: A excites hidden H, H inhibits B", feedforward, ("A->B", "nc_r2", "popvar", "psth_r2", "nll"))
    print_scores("I, case 2: A excites hidden H, H inhibits A", feedback, ("A->A", "nc_r2", "popvar", "psth_r2", "nll"))
    check_converged(b, "I, case 1", feedforward)
    check_converged(b, "I, case 2", feedback)
    before, after = (np.abs(values(feedforward, row, "A->B")) for row in ("likelihood", "hidden"))
    b.check("I, case 1: |A->B| shrinks by at least 60 % with hidden neurons, median", *at_least(100 * (1 - after / before), 60))
    truth = values(feedback, "truth", "A->A")
    before, after = (np.abs(values(feedback, row, "A->A") - truth) for row in ("likelihood", "hidden"))
    b.check("I, case 2: the error of A->A shrinks by at least 30 % with hidden neurons, median", *at_least(100 * (1 - after / before), 30))
    three = np.abs(values(feedforward, "hidden, 3 lags", "A->B"))
    b.check("I, case 1: three free lags fail, |A->B| at least 5, median", median_range(three), np.median(three) >= 5)
    warned = [any("absorb paths" in note for note in rows["hidden, 3 lags"]["notes"]) for rows in feedforward]
    b.check("I, case 1: the fit with three free lags warns of it", f"{sum(warned)} of {len(warned)}", all(warned))
    silent = [not any("absorb paths" in note for note in rows["hidden"]["notes"]) for rows in feedforward]
    b.check("I, case 1: the fit with one lag does not", f"{sum(silent)} of {len(silent)}", all(silent))


def at_least(percent: np.ndarray, bound: float) -> tuple[str, bool]:
    """Return the figure of percentages and whether their median reaches the bound."""
    return median_range(percent, "%"), bool(np.median(percent) >= bound)


def median_range(one: np.ndarray, unit: str = "") -> str:
    """Return median and range over seeds in words."""
    digits = 1 if unit == "%" else 3
    return f"{np.median(one):.{digits}f}{unit} ({one.min():.{digits}f} to {one.max():.{digits}f})"


def check_recorded(b: Bounds) -> None:
    """Check the recordings with repeated trials."""
    from _sm_recordings import check_recordings

    if DATA.is_dir():
        check_recordings(b)
    else:
        b.check("the recordings are there", f"no folder {DATA}", False)


PARTS: dict[str, tuple[tuple[str, ...], Callable[..., None]]] = {
    "P": (("P",), check_slow_noise),
    "NH": (("NH",), check_assemblies),
    "I": (("I1", "I2"), check_blocks),
    "TM": (("TM",), check_trial_matching),
    "recordings": ((), check_recorded),
}
"""Each part by name: the benchmarks that it runs over seeds, and what checks their results. A part without benchmarks gets none."""


def main(arguments: list[str]) -> None:
    """Run the parts that are asked for."""
    b = Bounds("sample_and_measure")
    options = dict(argument.removeprefix("--").split("=", 1) for argument in arguments if argument.startswith("--"))
    wanted = [argument for argument in arguments if not argument.startswith("--")] or list(PARTS)
    if unknown := [name for name in wanted if name not in PARTS]:
        sys.exit(f"no part {', '.join(unknown)}. Known: {', '.join(PARTS)}.")
    n_seeds = int(options.get("seeds", 10))
    n_workers = int(options.get("workers", len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1))
    benchmarks = tuple(name for part in wanted for name in PARTS[part][0])
    seeds = {name: range(min(n_seeds, MOST_SEEDS.get(name, n_seeds))) for name in benchmarks}
    results = run_seeds(RUN, seeds, n_workers) if benchmarks else {}
    for part in wanted:
        names, check = PARTS[part]
        check(b, *(results[name] for name in names))
    b.finish()


if __name__ == "__main__":
    main(sys.argv[1:])
