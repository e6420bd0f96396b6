"""Compilation of numba kernels with the cache on disk where there is a writable one."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

logger = logging.getLogger("fitspike")


def cached(njit: Callable[..., Any], **options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator: `njit(cache=True, **options)`, or without the cache where no cache folder can be written.

    numba tries the folder of the module and the user's cache folder (or NUMBA_CACHE_DIR) and raises if it can write neither, which is
    usual on clusters with a read-only home. The kernel then compiles anew in every process. `njit` is handed in so that numba is imported
    by the kernels only:

        @cached(numba.njit, nogil=True)
        def kernel(...): ...
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        try:
            return njit(cache=True, **options)(function)
        except RuntimeError as error:
            if "cannot cache" not in str(error):
                raise
            logger.info("no writable numba cache for %s; set NUMBA_CACHE_DIR to a writable folder to compile only once", function.__name__)
            return njit(**options)(function)

    return decorate
