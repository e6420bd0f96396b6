"""The error family of fitspike, wording that messages share, and a collector that reports all problems at once."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class FitspikeError(Exception):
    """Base of every error that fitspike raises on purpose. Its text says what was wrong, what was expected and what to do next."""

    def __str__(self) -> str:
        # KeyError would show the repr of its argument, quotes and all.
        return str(self.args[0]) if self.args else ""


class InvalidInputError(FitspikeError, ValueError):
    """An argument or setting is wrong. The text may list several problems."""


class BinWidthError(InvalidInputError):
    """A bin width is not a whole number of nanoseconds, not positive, or no multiple of a recording's native bin width."""


class DenseTooLargeError(FitspikeError, MemoryError):
    """A dense spike array would exceed the stated memory limit."""


class RecordingError(InvalidInputError):
    """A recording is inconsistent: unsorted, out of range, empty where it must not be."""


class ReadError(FitspikeError, OSError):
    """A file could not be read as a recording. The text lists every attempt and its reason."""


class NoSpikeTrainsError(ReadError):
    """A file could be read, and there is no spike train in it."""


class MissingDependencyError(FitspikeError, ImportError):
    """An optional package is needed; the text names the extra that installs it."""


class MissingDataError(FitspikeError, FileNotFoundError):
    """A dataset's file is neither in `$FITSPIKE_DATA`, nor cached, nor to be downloaded."""


class UnknownNameError(FitspikeError, KeyError):
    """A name is registered nowhere; the text suggests near ones."""


class AmbiguousNameError(FitspikeError, KeyError):
    """Two plugins registered one name; the text lists the qualified names."""


class PluginError(FitspikeError, RuntimeError):
    """Something a plugin registered does not keep its protocol; the text names plugin, distribution and version."""


class ConformanceError(FitspikeError, AssertionError):
    """Something registered fails checks of its protocol; the text lists every failure, `outcome` holds them one by one."""

    def __init__(self, message: str, outcome: object = None) -> None:
        super().__init__(message)
        self.outcome = outcome


class UnitError(InvalidInputError):
    """A unit string is not one that `fitspike.units` knows."""


class TooFewTrialsError(InvalidInputError):
    """A statistic needs more trials than there are."""


class BackendError(FitspikeError, RuntimeError):
    """An explicitly chosen kernel backend cannot run this call; the text says why."""


class RunFolderError(FitspikeError, OSError):
    """A run folder cannot be written, resumed or read."""


class HardwareLimitError(InvalidInputError):
    """A model breaks limits of a hardware target; the text lists every one."""


class FitFailed(FitspikeError, RuntimeError):
    """A fit ended without a usable optimum. `result` holds what there is."""

    def __init__(self, message: str, result: object = None) -> None:
        super().__init__(message)
        self.result = result


class FitInterrupted(FitFailed):
    """A fit was stopped by a signal; its state is in the run folder, if it has one."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return "; did you mean 'x'?" for the nearest known name, or a full stop: the end of a sentence that names what is unknown."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else "."


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: "1 neuron", "2,000 neurons"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


class Problems:
    """Collects problems while input is checked, and raises them all in one error.

    >>> problems = Problems("cannot fit")
    >>> problems.add("dt_ms is 0. Use a positive bin width in milliseconds.")
    >>> problems.raise_if_any()
    Traceback (most recent call last):
        ...
    fitspike.errors.InvalidInputError: cannot fit: dt_ms is 0. Use a positive bin width in milliseconds.
    """

    def __init__(self, heading: str) -> None:
        self.heading = heading
        self.texts: list[str] = []

    def add(self, text: str) -> None:
        """Note one problem, a full sentence that says what to do; the same one twice counts once."""
        if text not in self.texts:
            self.texts.append(text)

    def add_error(self, error: FitspikeError) -> None:
        """Note the text of an error that would have been raised."""
        self.add(str(error))

    def raise_if_any(self, error: type[FitspikeError] = InvalidInputError) -> None:
        """Raise `error` with all problems, numbered when there are several; do nothing when there are none."""
        if not self.texts:
            return
        if len(self.texts) == 1:
            raise error(f"{self.heading}: {self.texts[0]}")
        lines = "\n".join(f"  {i}. {text}" for i, text in enumerate(self.texts, start=1))
        raise error(f"{self.heading}, {len(self.texts)} problems:\n{lines}")
