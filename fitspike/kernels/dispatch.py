"""Which implementation of a kernel runs: a table of lazy targets, the choice among them, and the reasons for it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple

from fitspike.errors import BackendError, InvalidInputError, UnknownNameError, did_you_mean

logger = logging.getLogger("fitspike")


@dataclass(frozen=True)
class Implementation:
    """One way to run an operation.

    `target` and `supports` are callables or "module:function" strings, imported when first used. `supports(**facts)` gets the shape facts
    of a call (such as n_neurons=100, device="cpu", dtype="float64"), ignores those it does not know, and returns None if it can run that
    call, else the reason why not. `needs` names the packages without which it cannot run.
    """

    op: str
    backend: str
    target: str | Callable[..., Any]
    priority: int = 0
    supports: str | Callable[..., str | None] | None = None
    needs: tuple[str, ...] = ()

    def load(self) -> Callable[..., Any]:
        """Return the function."""
        return _loaded(self.target)

    def reason_against(self, **facts: Any) -> str | None:
        """Return why this implementation cannot run a call with these facts, or None if it can."""
        missing = [name for name in self.needs if not _is_installed(name)]
        if missing:
            return f"{' and '.join(missing)} not installed"
        if self.supports is None:
            device = str(facts.get("device", "cpu"))
            return None if device.startswith("cpu") or self.backend == "reference" else f"runs on the CPU only, not on {device}"
        return _loaded(self.supports)(**facts)


class Explanation(NamedTuple):
    """One row of `explain`."""

    backend: str
    chosen: bool
    reason: str


_TABLE: dict[str, dict[str, Implementation]] = {}


def register_kernel(
    op: str,
    backend: str,
    target: str | Callable[..., Any],
    *,
    priority: int = 0,
    supports: str | Callable[..., str | None] | None = None,
    needs: tuple[str, ...] = (),
) -> Implementation:
    """Add an implementation and return it; of those that support a call, the one with the highest priority runs it.

    Raises
    ------
    InvalidInputError
        If `op` already has another implementation called `backend`.
    """
    new = Implementation(op, backend, target, priority, supports, needs)
    known = _TABLE.setdefault(op, {})
    if known.get(backend, new) != new:
        raise InvalidInputError(
            f"kernel {op!r} already has a backend {backend!r} ({known[backend].target}). Register {target} under another backend name."
        )
    known[backend] = new
    return new


def operations() -> tuple[str, ...]:
    """Return the names of all operations."""
    return tuple(sorted(_TABLE))


def implementations(op: str) -> tuple[Implementation, ...]:
    """Return the implementations of an operation, the preferred first.

    Raises
    ------
    UnknownNameError
        If there is no such operation.
    """
    if op not in _TABLE:
        raise UnknownNameError(f"no kernel {op!r}{did_you_mean(op, _TABLE)} Known: {', '.join(operations())}.")
    return tuple(sorted(_TABLE[op].values(), key=lambda one: (-one.priority, one.backend)))


def choose(op: str, backend: str = "auto", **facts: Any) -> Implementation:
    """Return the implementation that will run a call with these facts.

    With "auto" the first that supports the call; that choice is logged once. A backend asked for by name runs or fails, nothing else does.

    Raises
    ------
    UnknownNameError
        If there is no such operation or backend.
    BackendError
        If the named backend, or with "auto" every backend, cannot run the call; the text gives each reason.
    """
    candidates = implementations(op)
    if backend != "auto":
        named = {one.backend: one for one in candidates}
        if backend not in named:
            raise UnknownNameError(
                f"kernel {op!r} has no backend {backend!r}{did_you_mean(backend, named)} Known: auto, {', '.join(named)}."
            )
        if (reason := named[backend].reason_against(**facts)) is not None:
            others = [one.backend for one in candidates if one.backend != backend and one.reason_against(**facts) is None]
            raise BackendError(
                f"backend {backend!r} cannot run kernel {op!r}: {reason}. Use backend='auto'{' or ' + repr(others[0]) if others else ''}."
            )
        return named[backend]
    reasons = []
    for one in candidates:
        reason = one.reason_against(**facts)
        if reason is None:
            _log_choice(op, one.backend, "; ".join(reasons))
            return one
        reasons.append(f"{one.backend}: {reason}")
    raise BackendError(f"no backend can run kernel {op!r} here: {'; '.join(reasons)}.")


def explain(op: str, **facts: Any) -> list[Explanation]:
    """Return for each backend of an operation whether "auto" would take it, and why."""
    rows, is_taken = [], False
    for one in implementations(op):
        reason = one.reason_against(**facts)
        if reason is not None:
            rows.append(Explanation(one.backend, False, reason))
        elif is_taken:
            rows.append(Explanation(one.backend, False, "can run; a preferred backend is taken"))
        else:
            rows.append(Explanation(one.backend, True, "the preferred backend that can run"))
            is_taken = True
    return rows


@cache
def _log_choice(op: str, backend: str, reasons: str) -> None:
    logger.info("kernel %s runs on backend %s%s", op, backend, f" ({reasons})" if reasons else "")


@cache
def _is_installed(package: str) -> bool:
    return find_spec(package) is not None


def _loaded(target: str | Callable[..., Any]) -> Callable[..., Any]:
    if callable(target):
        return target
    module, _, name = target.partition(":")
    return getattr(import_module(module), name)


# Operations whose folder stands in fitspike/kernels. Their modules are imported when a call chooses them.
register_kernel("correlogram", "numba", "fitspike.kernels.correlogram.numba_cpu:correlogram", priority=10, needs=("numba",))
register_kernel("correlogram", "reference", "fitspike.kernels.correlogram.reference:correlogram")
register_kernel("densify", "numba", "fitspike.kernels.densify.numba_cpu:densify", priority=10, needs=("numba",))
register_kernel("densify", "reference", "fitspike.kernels.densify.reference:densify")
register_kernel(
    "composite_descent", "numba", "fitspike.kernels.composite_descent.numba_cpu:composite_minimum", priority=10, needs=("numba",)
)
register_kernel("composite_descent", "reference", "fitspike.kernels.composite_descent.reference:composite_minimum")
register_kernel("coupled_drive", "numba", "fitspike.kernels.coupled_drive.numba_cpu:coupled_drive", priority=10, needs=("numba",))
register_kernel("coupled_drive", "reference", "fitspike.kernels.coupled_drive.reference:coupled_drive")
register_kernel(
    "coupled_drive_adjoint", "numba", "fitspike.kernels.coupled_drive.numba_cpu:coupled_drive_adjoint", priority=10, needs=("numba",)
)
register_kernel("coupled_drive_adjoint", "reference", "fitspike.kernels.coupled_drive.reference:coupled_drive_adjoint")
register_kernel("filtered_counts", "numba", "fitspike.kernels.filtered_counts.numba_cpu:filtered_counts", priority=10, needs=("numba",))
register_kernel("filtered_counts", "reference", "fitspike.kernels.filtered_counts.reference:filtered_counts")
register_kernel("microscopic", "numba", "fitspike.kernels.microscopic.numba_cpu:simulate", priority=10, needs=("numba",))
register_kernel("microscopic", "reference", "fitspike.kernels.microscopic.reference:simulate")
register_kernel("point_process", "numba", "fitspike.kernels.point_process.numba_cpu:likelihood_gradient", priority=10, needs=("numba",))
register_kernel("point_process", "reference", "fitspike.kernels.point_process.reference:likelihood_gradient")
register_kernel(
    "spike_trace",
    "numba",
    "fitspike.kernels.spike_trace.numba_cpu:spike_trace",
    priority=10,
    supports="fitspike.kernels.spike_trace.numba_cpu:supports",
    needs=("numba",),
)
register_kernel("spike_trace", "reference", "fitspike.kernels.spike_trace.reference:spike_trace")
register_kernel(
    "linear_rollout",
    "numba",
    "fitspike.kernels.linear_rollout.numba_cpu:linear_rollout",
    priority=10,
    supports="fitspike.kernels.linear_rollout.numba_cpu:supports",
    needs=("numba",),
)
register_kernel("linear_rollout", "reference", "fitspike.kernels.linear_rollout.reference:linear_rollout")
