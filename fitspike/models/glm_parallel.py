"""Work on many target neurons at once: a thread per target, each with matrix products on one thread."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

import numpy as np  # noqa: F401  loaded, like scipy.linalg, before the matrix libraries are listed
import scipy.linalg  # noqa: F401
from threadpoolctl import ThreadpoolController

Item = TypeVar("Item")
Result = TypeVar("Result")


@cache
def _matrix_libraries() -> ThreadpoolController:
    return ThreadpoolController()


def in_threads(function: Callable[[Item], Result], items: Sequence[Item], threads: int) -> list[Result]:
    """Return the function of every item, in order; `function` must release the interpreter for most of its time.

    A library that splits products of a few hundred rows over threads spends its time waiting for them, on a busy machine many times over.
    The result does not depend on the number of threads.
    """
    with _matrix_libraries().limit(limits=1, user_api="blas"):
        if threads <= 1 or len(items) <= 1:
            return [function(item) for item in items]
        with ThreadPoolExecutor(min(threads, len(items))) as pool:
            return list(pool.map(function, items))
