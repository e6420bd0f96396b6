"""One number of threads for numba, BLAS and torch."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

_VARIABLE = "OMP_NUM_THREADS"


def available_threads() -> int:
    """Return the cores given to this process: its CPU affinity, and SLURM's share of a node if that is smaller."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    given = os.environ.get("SLURM_CPUS_PER_TASK", "")
    return min(cores, int(given)) if given.isdigit() and int(given) > 0 else cores


@contextmanager
def use_threads(n_threads: int) -> Iterator[None]:
    """Let BLAS, torch and numba use `n_threads` while inside: those loaded at once, a torch that is loaded later by its environment."""
    from threadpoolctl import threadpool_limits

    before = os.environ.get(_VARIABLE)
    with ExitStack() as stack:
        stack.enter_context(threadpool_limits(limits=n_threads))
        stack.callback(_restore_environment, before)
        os.environ[_VARIABLE] = str(n_threads)
        if (torch := sys.modules.get("torch")) is not None:
            stack.callback(torch.set_num_threads, torch.get_num_threads())
            torch.set_num_threads(n_threads)
        if (numba := sys.modules.get("numba")) is not None:
            stack.callback(numba.set_num_threads, numba.get_num_threads())
            numba.set_num_threads(min(n_threads, numba.config.NUMBA_NUM_THREADS))
        yield


def _restore_environment(before: str | None) -> None:
    if before is None:
        os.environ.pop(_VARIABLE, None)
    else:
        os.environ[_VARIABLE] = before
