"""Telling plugins about a running fit: one by one, so that a plugin can slow a fit but not stop it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

logger = logging.getLogger("fitspike.plugin")


@dataclass(frozen=True)
class RunInfo:
    """What lifecycle hooks may know of a fit. Names are qualified ("plugin:name"); `settings` is the resolved configuration."""

    model: str
    n_neurons: int
    n_trials: int
    n_bins: int
    dt_ms: float
    seed: int
    loss: Mapping[str, float] = field(default_factory=dict)
    rule: str = ""
    run_dir: Path | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Listener:
    """One plugin's implementation of a lifecycle hook; `call` takes every argument of the hook by name."""

    plugin: str
    call: Callable[..., Any]


class Lifecycle:
    """The listeners of one run. A listener that raises is named in the log and hears nothing more of this run."""

    def __init__(self, listeners: Mapping[str, Sequence[Listener]]) -> None:
        self._listeners = listeners
        self.muted: dict[str, str] = {}

    def notify(self, hook: str, **arguments: Any) -> None:
        """Call every listener of `hook` whose plugin has not failed in this run. KeyboardInterrupt passes."""
        for listener in self._listeners.get(hook, ()):
            if listener.plugin in self.muted:
                continue
            try:
                listener.call(**arguments)
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # noqa: BLE001 - a plugin may raise anything, SystemExit included
                self.muted[listener.plugin] = f"{type(error).__name__}: {error}"
                logger.warning(
                    "plugin %r failed in %s and hears nothing more of this run: %s", listener.plugin, hook, self.muted[listener.plugin]
                )
                # One line is enough for a terminal; the log of the run, which takes this level too, gets the traceback.
                logger.info("where plugin %r failed", listener.plugin, exc_info=error)
