"""How far a long computation is: a live line in a terminal or notebook, a plain line a minute in a log file; always on standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Literal, Self, TextIO

from fitspike.errors import InvalidInputError

LINE_EVERY_S = 60.0

Style = Literal["auto", "live", "lines", "off"]


class Progress:
    """Shows the steps of one computation while it is entered as a context.

    >>> with Progress("off", "fitting", total=100) as progress:
    ...     progress.update(1, {"nll": 0.52})

    Parameters
    ----------
    enabled : "auto" takes "live" in a terminal or notebook and "lines" elsewhere; True is "auto", False is "off"
    description : what is going on, in a word or two
    total : number of steps, if it is known
    stream : where to write; default: standard error as it is when the context is entered
    clock : seconds, for the time shown and for the distance between lines
    """

    def __init__(
        self,
        enabled: Style | bool = "auto",
        description: str = "working",
        total: int | None = None,
        *,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        style = {True: "auto", False: "off"}.get(enabled, enabled) if isinstance(enabled, bool) else enabled
        if style not in ("auto", "live", "lines", "off"):
            raise InvalidInputError(f"progress={enabled!r} is unknown. Use 'auto', 'live', 'lines' or 'off'.")
        self.style = style
        self.description = description
        self.total = total
        self._stream = stream
        self._clock = clock
        self._begin = self._last_line = clock()
        self._latest: tuple[int, Mapping[str, float], str] | None = None
        self._is_latest_shown = True
        self._live: Any = None
        self._task: Any = None

    def __enter__(self) -> Self:
        self._begin = self._clock()
        self._last_line = self._begin - LINE_EVERY_S
        stream = self._stream or sys.stderr
        if self.style == "auto":
            self.style = "live" if stream.isatty() or _in_notebook() else "lines"
        self._stream = stream
        if self.style == "live":
            self._live = _live_display(stream)
            self._task = self._live.add_task(self.description, total=self.total, state="")
            self._live.start()
        return self

    def update(self, step: int, metrics: Mapping[str, float] | None = None, message: str = "", *, description: str | None = None) -> None:
        """Show that `step` steps are done. `metrics` are plain floats by name; with a new `description`, other steps are counted now."""
        self.description = description or self.description
        self._latest, self._is_latest_shown = (step, metrics or {}, message), False
        if self.style == "live":
            self._live.update(self._task, completed=step, description=self.description, state=_state(metrics or {}, message))
            self._is_latest_shown = True
        elif self.style == "lines" and self._clock() - self._last_line >= LINE_EVERY_S:
            self._write_line()

    def say(self, text: str) -> None:
        """Show a line that stays, such as what the computation is about to do."""
        if self.style == "live":
            self._live.console.print(text, markup=False, highlight=False)
        elif self.style == "lines":
            print(text, file=self._stream, flush=True)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._live is not None:
            self._live.stop()
        elif self.style == "lines" and not self._is_latest_shown:
            self._write_line()

    def _write_line(self) -> None:
        assert self._latest is not None, "a line is written after an update"
        step, metrics, message = self._latest
        self._last_line, self._is_latest_shown = self._clock(), True
        of_total = f"/{self.total}" if self.total else ""
        elapsed = _minutes(self._last_line - self._begin)
        parts = [f"{self.description} {step}{of_total}", elapsed, _state(metrics, message)]
        print("  ".join(part for part in parts if part), file=self._stream, flush=True)


def _state(metrics: Mapping[str, float], message: str) -> str:
    """Return metrics and message in one line."""
    return "  ".join([*(f"{name}={value:.6g}" for name, value in metrics.items()), *([message] if message else [])])


def _minutes(seconds: float) -> str:
    """Return seconds as h:mm:ss or m:ss."""
    whole = int(seconds)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _in_notebook() -> bool:
    """Return whether this process is the kernel of a notebook; IPython counts only if something else imported it."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return type(shell).__name__ == "ZMQInteractiveShell"


def _live_display(stream: TextIO) -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as RichProgress

    console = Console(file=None if _in_notebook() else stream, stderr=not _in_notebook())
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[state]}", markup=False),
    )
    return RichProgress(*columns, console=console, transient=False)
