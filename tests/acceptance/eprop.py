"""E-prop: memory of its online form, hidden neurons in the likelihood of a recording, and learning of tasks (science/03).

    python tests/acceptance/eprop.py [memory] [hidden] [B1] [B2] [B3] [--seeds=5] [--iterations=500] [--workers=N]

Without names the parts `memory`, `hidden` and `B1` run; B2 and B3 take an hour or more and run when they are named. memory: what trials of
1000 and of 100000 bins add, batch 1. hidden: recorded neurons that act on others through neurons that are not recorded, fitted by e-prop
and by back-propagation. B1: pattern generation. B2: store-recall. B3: evidence accumulation. Seeds run in processes of one thread each;
every seed is printed. Bounds that were set from one seed (B2 at 200 ms with random feedback, B3) are on the median over seeds.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from _eprop_recordings import added_mib, hidden_scores
from _lsnn_tasks import Setup, evidence, iterate, pattern, progress, store_recall
from _seeds import one_thread_each, run_seeds
from _table import Bounds
from fitspike_eprop.rule import EProp

from fitspike.learning.bptt import BPTT

N_ITERATIONS = "N_PATTERN_ITERATIONS"
"""Environment variable that tells the processes of B1 how long to train."""

# -- memory -------------------------------------------------------------------------------------------------------------------------


def check_memory(b: Bounds) -> None:
    """Memory of the online form does not grow with the trial."""
    found = {
        (form, n_bins, piece): alone(added_mib, form, n_bins, piece)
        for form, n_bins, piece in (
            ("online", 1000, 100),
            ("online", 100_000, 100),
            ("adjoint", 1000, 1000),
            ("adjoint", 100_000, 100_000),
        )
    }
    short, long = found["online", 1000, 100], found["online", 100_000, 100]
    b.check(
        "memory: what online carries takes the same after 1000 and after 100000 bins, batch 1",
        f"{short['carry_bytes']} and {long['carry_bytes']} bytes",
        short["carry_bytes"] == long["carry_bytes"] > 0,
    )
    growth = long["added_mib"] - short["added_mib"]
    b.check(
        "memory: peak of online at 100000 bins at most 8 MiB above that at 1000, batch 1",
        f"{growth:.1f} MiB ({short['added_mib']:.1f} and {long['added_mib']:.1f} MiB added)",
        growth <= 8.0,
    )
    whole = found["adjoint", 100_000, 100_000]["added_mib"] - found["adjoint", 1000, 1000]["added_mib"]
    b.check(
        "memory: the adjoint form of a whole trial, control, takes at least 50 MiB more at 100000 bins", f"{whole:.1f} MiB", whole >= 50
    )


def alone(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return what a function returns in a fresh process of one thread."""
    with one_thread_each(), ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


# -- hidden neurons -----------------------------------------------------------------------------------------------------------------


def check_hidden(b: Bounds, found: dict[str, list[dict[str, float]]]) -> None:
    """Held-out score of fits with hidden neurons."""
    rows = found["hidden_scores"]
    for name in rows[0]:
        b.note(f"hidden: bits per spike, {name}: {listed(np.array([row[name] for row in rows]))}")
    none, exact, eprop = (np.array([row[name] for row in rows]) for name in ("no hidden neurons", "bptt", "e-prop"))
    b.check(
        "hidden: bptt gains from hidden neurons, at least 0.05 bits per spike on each seed", listed(exact - none), min(exact - none) > 0.05
    )
    share = (eprop - none) / (exact - none)
    b.check("hidden: e-prop reaches 0.95 of that gain, median", f"{np.median(share):.3f} ({listed(share)})", bool(np.median(share) >= 0.95))
    share = eprop / exact
    b.check("hidden: and 0.95 of bptt's bits per spike above constant rates, each seed", listed(share), bool((share >= 0.95).all()))


# -- tasks --------------------------------------------------------------------------------------------------------------------------


def learn_pattern(setup: Setup, rule: Any, seed: int) -> list[float]:
    """Return the squared error of each iteration in units of the target's variance."""
    return [metrics["readout_nmse"] for metrics in iterate(setup, rule, seed, int(os.environ[N_ITERATIONS]))]


def pattern_readout(seed: int) -> list[float]:
    """B1, the readout alone trained."""
    setup = pattern(seed)
    return learn_pattern(replace(setup, frozen=(*setup.frozen, "coupling")), BPTT(), seed)


def pattern_random(seed: int) -> list[float]:
    """B1, random feedback."""
    return learn_pattern(pattern(seed), EProp(feedback="random"), seed)


def pattern_adaptive(seed: int) -> list[float]:
    """B1, adaptive feedback."""
    return learn_pattern(pattern(seed), EProp(feedback="adaptive", feedback_decay=1e-3), seed)


def pattern_symmetric(seed: int) -> list[float]:
    """B1, symmetric feedback."""
    return learn_pattern(pattern(seed), EProp(), seed)


def pattern_bptt(seed: int) -> list[float]:
    """B1, back-propagation."""
    return learn_pattern(pattern(seed), BPTT(), seed)


def recall(symbol_ms: float, tau_adapt_ms: float, feedback: str, seed: int, *, until: float = 0.0) -> list[float]:
    """Return the fraction of wrong decisions of up to 200 iterations of store-recall, ended by a mean of five below `until`."""
    rule, errors = EProp(feedback=feedback, feedback_scale=20**0.5), []  # random weights are published with variance 1
    for metrics in iterate(store_recall(symbol_ms, tau_adapt_ms), rule, seed, 200):
        errors.append(metrics["readout_error"])
        if first_below(errors, until, 5) is not None:
            break
    return errors


def recall_200_symmetric(seed: int) -> list[float]:
    """B2, symbols of 200 ms."""
    return recall(200.0, 1200.0, "symmetric", seed, until=0.05)


def recall_200_random(seed: int) -> list[float]:
    """B2, symbols of 200 ms."""
    return recall(200.0, 1200.0, "random", seed)


def recall_100_symmetric(seed: int) -> list[float]:
    """B2, symbols of 100 ms."""
    return recall(100.0, 600.0, "symmetric", seed)


def recall_100_random(seed: int) -> list[float]:
    """B2, symbols of 100 ms."""
    return recall(100.0, 600.0, "random", seed)


N_EVIDENCE, MOST_EVIDENCE = 250, 600
"""Iterations of B3 that every network trains for, and those within which symmetric feedback must have learned."""


def evidence_symmetric(seed: int) -> list[float]:
    """B3; ends once ten iterations in a row are below 7 % wrong in the mean, after the first 250."""
    errors: list[float] = []
    for metrics in iterate(evidence(), EProp(), seed, MOST_EVIDENCE):
        errors.append(metrics["readout_error"])
        if len(errors) >= N_EVIDENCE and first_below(errors, 0.07, 10) is not None:
            break
    return errors


def evidence_random(seed: int) -> list[float]:
    """B3; random weights are published with variance 1."""
    rule = EProp(feedback="random", feedback_scale=100**0.5)
    return [metrics["readout_error"] for metrics in iterate(evidence(), rule, seed, N_EVIDENCE)]


def first_below(errors: list[float], bound: float, n_mean: int) -> int | None:
    """Return the iteration at which the mean of the last `n_mean` errors first is below a bound, counted from 1."""
    if len(errors) < n_mean:
        return None
    is_below = np.convolve(errors, np.ones(n_mean) / n_mean, mode="valid") < bound
    return int(np.argmax(is_below)) + n_mean if is_below.any() else None


PATTERN = {"random": 0.08, "adaptive": 0.04, "symmetric": 0.03, "bptt": 0.015}
"""Bounds on the median squared error after 500 iterations."""


def check_pattern(b: Bounds, found: dict[str, list[list[float]]]) -> None:
    """B1."""
    n_iterations = len(found["pattern_readout"][0])
    last = {name: np.array([one[-1] for one in found[f"pattern_{name}"]]) for name in ("readout", *PATTERN)}
    median = float(np.median(last["readout"]))
    b.check(
        f"B1: readout alone, nMSE at iteration {n_iterations} at least 0.2, median",
        f"{median:.3f} ({listed(last['readout'])})",
        median >= 0.2,
    )
    for name, bound in PATTERN.items():
        reached = [next((i for i, value in enumerate(one, 1) if value < 0.1), None) for one in found[f"pattern_{name}"]]
        median = float(np.median(last[name]))
        figure = f"{median:.4f} ({listed(last[name])}); below 0.1 at {reached}"
        b.check(f"B1: {name}, nMSE at iteration {n_iterations} at most {bound:g}, median", figure, median <= bound)
    in_order = (last["readout"] > last["random"]) & (last["random"] > last["symmetric"])
    b.note(f"B1: readout > random > symmetric on {int(in_order.sum())} of {len(in_order)} seeds")


def check_recall(b: Bounds, found: dict[str, list[list[float]]]) -> None:
    """B2."""
    reached = [first_below(one, 0.05, 5) for one in found["recall_200_symmetric"]]
    enough = sum(at is not None for at in reached) >= 2 * len(reached) / 3
    b.check("B2: 200 ms, symmetric: 5-batch error below 0.05 within 200 iterations, 2 of 3 seeds", f"at {reached}", enough)
    last = {name: np.array([np.mean(one[-10:]) for one in values]) for name, values in found.items()}
    median = float(np.median(last["recall_200_random"]))
    figure = f"{median:.3f} ({listed(last['recall_200_random'])})"
    b.check("B2: recall_200_random: error of the last 10 of 200 at most 0.15, median", figure, median <= 0.15)
    for name, bound in (("recall_100_symmetric", 0.10), ("recall_100_random", 0.20)):
        worst = float(last[name].max())
        b.check(f"B2: {name}: error of the last 10 of 200 at most {bound:g}, each seed", listed(last[name]), worst <= bound)


def check_evidence(b: Bounds, found: dict[str, list[list[float]]]) -> None:
    """B3."""
    for name, runs in found.items():
        late = np.array([np.mean(one[N_EVIDENCE - 25 : N_EVIDENCE]) for one in runs])
        median = float(np.median(late))
        b.check(f"B3: {name}: error of iterations 226 to 250 at most 0.22, median", f"{median:.3f} ({listed(late)})", median <= 0.22)
    reached = [first_below(one, 0.07, 10) for one in found["evidence_symmetric"]]
    figure = f"at {reached}"
    b.check("B3: symmetric: 10-batch error below 0.07 before iteration 600", figure, all(at is not None for at in reached))


def listed(values: np.ndarray) -> str:
    """Return values of seeds in words."""
    return " ".join(f"{value:.3f}" for value in values)


TASKS: dict[str, dict[str, Callable[[int], Any]]] = {
    "hidden": {"hidden_scores": hidden_scores},
    "B1": {f.__name__: f for f in (pattern_readout, pattern_random, pattern_adaptive, pattern_symmetric, pattern_bptt)},
    "B2": {f.__name__: f for f in (recall_200_symmetric, recall_200_random, recall_100_symmetric, recall_100_random)},
    "B3": {f.__name__: f for f in (evidence_symmetric, evidence_random)},
}
CHECKS = {"hidden": check_hidden, "B1": check_pattern, "B2": check_recall, "B3": check_evidence}


def main(arguments: list[str]) -> None:
    """Run the parts that are named."""
    options = dict(one.removeprefix("--").split("=", 1) for one in arguments if one.startswith("--"))
    parts = [one for one in arguments if not one.startswith("--")] or ["memory", "hidden", "B1"]
    if unknown := [one for one in parts if one not in ("memory", *TASKS)]:
        sys.exit(f"no part {', '.join(unknown)}. Known: memory, {', '.join(TASKS)}.")
    os.environ[N_ITERATIONS] = options.get("iterations", "500")
    b = Bounds("eprop")
    if "memory" in parts:
        check_memory(b)
    seeds, n_workers = range(int(options.get("seeds", 5))), int(options.get("workers", len(os.sched_getaffinity(0))))
    for part, functions in TASKS.items():
        if part in parts:
            found = run_seeds(functions, dict.fromkeys(functions, seeds), n_workers, str if part == "hidden" else progress)
            CHECKS[part](b, found)
    b.finish()


if __name__ == "__main__":
    main(sys.argv[1:])
