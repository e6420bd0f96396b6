"""Runs functions of a seed in processes of one thread each, for acceptance scripts whose bounds are over several seeds."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
"""Environment variables that say how many threads a process may start."""


def run_seeds(
    functions: Mapping[str, Callable[[int], Any]],
    seeds: Mapping[str, Sequence[int]],
    n_workers: int,
    figure: Callable[[Any], str] = lambda result: "done",
) -> dict[str, list[Any]]:
    """Return by name what a function of that name, defined at the top of a module, returns for each of its seeds, in their order.

    What `figure` says of a result is printed as soon as it is there, so that a long run can be judged before its end.
    """
    began, found = time.monotonic(), {}
    jobs = [(name, seed) for name, own in seeds.items() for seed in own]
    with one_thread_each(), ProcessPoolExecutor(n_workers, mp_context=get_context("spawn")) as pool:
        running = {pool.submit(functions[name], seed): (name, seed) for name, seed in jobs}
        for done, future in enumerate(as_completed(running), start=1):
            name, seed = running[future]
            try:
                found[name, seed] = future.result()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
            print(
                f"[{time.monotonic() - began:7.1f} s] {name} seed {seed}: {figure(found[name, seed])} ({done} of {len(jobs)})",
                file=sys.stderr,
                flush=True,
            )
    return {name: [found[name, seed] for seed in own] for name, own in seeds.items()}


@contextmanager
def one_thread_each() -> Iterator[None]:
    """Let processes started meanwhile run in one thread."""
    before = {name: os.environ.get(name) for name in THREADS}
    os.environ.update(dict.fromkeys(THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
