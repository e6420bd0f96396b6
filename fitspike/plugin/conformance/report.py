"""Collecting the outcome of many checks of one thing, so that its author reads every failure at once."""

from __future__ import annotations

import pickle
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, is_dataclass
from typing import Any, TypeVar

from fitspike.citation import Citation
from fitspike.errors import ConformanceError, FitspikeError
from fitspike.plugin.kinds import Kind
from fitspike.plugin.registry import missing_members

T = TypeVar("T")


class Mismatch(Exception):
    """A check found the protocol broken; the text says how."""


class NotChecked(Exception):
    """A check cannot be made here; the text says why."""


def expect(is_met: bool, otherwise: str) -> None:
    """Raise Mismatch with the text unless the condition is met."""
    if not is_met:
        raise Mismatch(otherwise)


@dataclass(frozen=True)
class Outcome:
    """Names of the checks passed, and a sentence per check that failed or could not be made."""

    passed: tuple[str, ...]
    skipped: tuple[str, ...] = ()
    failures: tuple[str, ...] = ()


class Report:
    """Runs named checks one after the other. Whatever a check raises is a failure of that check alone."""

    def __init__(self, subject: str) -> None:
        self.subject = subject
        self._passed: list[str] = []
        self._skipped: list[str] = []
        self._failures: list[str] = []
        self._unmet: set[str] = set()

    def check(self, name: str, function: Callable[..., T], *arguments: Any, needs: Sequence[str] = ()) -> T | None:
        """Run one check and return its value, or None if it failed. It is left out if a check in `needs` did not pass."""
        if lacking := [need for need in needs if need in self._unmet]:
            self._unmet.add(name)
            self._skipped.append(f"{name}, since it needs: {', '.join(lacking)}")
            return None
        try:
            value = function(*arguments)
        except NotChecked as reason:
            self._unmet.add(name)
            self._skipped.append(f"{name}: {reason}")
            return None
        except Mismatch as mismatch:
            self._fail(name, str(mismatch))
            return None
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the code under test may raise anything, and that is the finding
            self._fail(name, f"raised {type(error).__name__}: {error}{_where(error)}")
            return None
        self._passed.append(name)
        return value

    def _fail(self, name: str, text: str) -> None:
        self._unmet.add(name)
        self._failures.append(f"{name}: {text}")

    def outcome(self) -> Outcome:
        """Return what passed.

        Raises
        ------
        ConformanceError
            With every failure, if there is any; its `outcome` holds them one by one.
        """
        outcome = Outcome(tuple(self._passed), tuple(self._skipped), tuple(self._failures))
        if outcome.failures:
            listed = "\n".join(f"  {i}. {text}" for i, text in enumerate(outcome.failures, start=1))
            raise ConformanceError(f"{self.subject} does not conform, {len(outcome.failures)} failed checks:\n{listed}", outcome)
        return outcome


def instance_of(report: Report, target: Any, kind: Kind) -> Any:
    """Return an instance of a class or object under test after the checks that all kinds share; None if it cannot be used at all."""
    instance = report.check("default settings", _made, target)
    if instance is None:
        return None
    report.check("members", _has_members, instance, kind)
    report.check("name", _has_name, instance)
    if "citation" in kind.members:
        report.check("citation", _has_citation, instance, needs=("members",))
    report.check("pickling", _is_picklable, instance)
    return instance


def _made(target: Any) -> Any:
    if not isinstance(target, type):
        return target
    try:
        made = target()
    except TypeError as error:
        raise Mismatch(f"{target.__name__}() cannot be made without arguments ({error}). Give every setting a default.") from error
    settings = getattr(target, "conformance_settings", None)
    return made if settings is None else target(**settings)


def _has_members(instance: Any, kind: Kind) -> None:
    missing = missing_members(instance, kind)
    expect(not missing, f"a {kind.label} has {', '.join(kind.members)}; this one lacks {', '.join(missing)}.")


def _has_name(instance: Any) -> None:
    name = getattr(instance, "name", None)
    expect(isinstance(name, str) and bool(name.strip()), f"name is {name!r}; expected a text.")


def _has_citation(instance: Any) -> None:
    given = instance.citation
    citations = given if isinstance(given, tuple | list) else (given,)
    expect(bool(citations), "citation is empty. Give the paper or book this comes from, or say in words that it is new.")
    for one in citations:
        expect(
            isinstance(one, Citation) and bool(one.text.strip()), f"citation holds {one!r}; expected Citation('Author Year, Title, ...')."
        )


def _is_picklable(instance: Any) -> None:
    copy = pickle.loads(pickle.dumps(instance))  # noqa: S301 - bytes made one line above
    if is_dataclass(instance):
        expect(copy == instance, f"a pickled copy is {copy!r}, which is not equal to {instance!r}. Compare settings by value.")


def _where(error: BaseException) -> str:
    """Return file and line of the innermost frame outside fitspike, if there is one; fitspike's own errors speak for themselves."""
    if isinstance(error, FitspikeError):
        return ""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/fitspike/" not in frame.filename]
    frames = [frame for frame in frames if "/site-packages/" not in frame.filename]
    return f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
