"""The table that acceptance scripts and benchmarks share: rows of (bound, figure, met or missed), a table, a last line and an exit status.

>>> from _table import Bounds
>>> b = Bounds("recordings")
>>> b.check("every file loads", "31 of 31", True)
>>> b.note("read with neo 0.14.6")
>>> b.finish()
"""

from __future__ import annotations

import sys
import time
from typing import NoReturn


class Bounds:
    """Collects the bounds of one script. Each is printed when it is known, so that a long run shows how far it is."""

    def __init__(self, name: str, *, kind: str = "acceptance") -> None:
        self.name, self.kind = name, kind
        self.rows: list[tuple[str, str, bool]] = []
        self.notes: list[str] = []
        self._begin = time.monotonic()

    def check(self, bound: str, figure: object, met: bool) -> None:
        """Note one bound: what must hold, the figure found, and whether it is met."""
        row = (bound, str(figure), bool(met))
        self.rows.append(row)
        print(
            f"[{time.monotonic() - self._begin:7.1f} s] {'met   ' if row[2] else 'MISSED'} {bound}: {figure}", file=sys.stderr, flush=True
        )

    def note(self, text: str) -> None:
        """Note something to print below the table."""
        self.notes.append(text)
        print(f"[{time.monotonic() - self._begin:7.1f} s] {text}", file=sys.stderr, flush=True)

    def finish(self) -> NoReturn:
        """Print the table and the last line `KIND NAME: N bounds, M missed`; exit 1 if any bound is missed or none was checked."""
        widths = [max((len(row[i]) for row in self.rows), default=5) for i in (0, 1)]
        widths = [max(width, len(title)) for width, title in zip(widths, ("bound", "figure"), strict=True)]
        print(f"{'bound':<{widths[0]}}  {'figure':<{widths[1]}}  result")
        for bound, figure, met in self.rows:
            print(f"{bound:<{widths[0]}}  {figure:<{widths[1]}}  {'met' if met else 'MISSED'}")
        for text in self.notes:
            print(f"note: {text}")
        n_missed = sum(not met for _, _, met in self.rows)
        print(f"{self.kind} {self.name}: {len(self.rows)} bounds, {n_missed} missed", flush=True)
        sys.exit(1 if n_missed or not self.rows else 0)
