"""What happens around the computation: progress, status, checkpoints, signals of the system, callbacks, plugins that listen."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack
from types import FrameType, TracebackType
from typing import Any, Self

import numpy as np

from fitspike.fitting.request import Callback
from fitspike.plugin.lifecycle import Lifecycle, RunInfo
from fitspike.progress import Progress
from fitspike.results.run_dir import RunFolder
from fitspike.results.status import FitStatus

logger = logging.getLogger("fitspike")

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_DOING = {"select": "choosing settings", "fit": "fitting"}


class Session:
    """One run in progress; entered as a context.

    Inside, a first SIGINT or SIGTERM during the fit only sets a flag: the solver stores a checkpoint at its next step and is stopped there
    by a KeyboardInterrupt. A second one, and any one in another stage, which has no state to store, stops at once. Signals are left alone
    outside the main thread, where Python cannot set handlers.
    """

    def __init__(
        self,
        folder: RunFolder | None,
        progress: Progress,
        run: RunInfo,
        lifecycle: Lifecycle,
        callbacks: tuple[Callback, ...],
        checkpoint_s: float,
    ) -> None:
        self.folder, self.progress, self.run = folder, progress, run
        self.lifecycle, self.callbacks, self.checkpoint_s = lifecycle, callbacks, checkpoint_s
        self.stage = "prepare"
        self.history: list[dict[str, Any]] = []
        self.is_interrupted = False
        self._latest: tuple[int, Mapping[str, np.ndarray]] | None = None
        self._began = time.monotonic()
        self._undo = ExitStack()

    def __enter__(self) -> Self:
        if self.folder is not None:
            self._open_log(self.folder)
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                self._undo.callback(signal.signal, number, signal.signal(number, self._on_signal))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._undo.close()

    def _open_log(self, folder: RunFolder) -> None:
        """Send the package's messages to log.txt, those below a warning to no other place."""
        log = logging.FileHandler(folder.path / "log.txt", encoding="utf-8")
        log.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        self._undo.callback(log.close)
        if logger.getEffectiveLevel() > logging.INFO:
            self._undo.callback(logger.setLevel, logger.level)
            for handler in logger.handlers:
                self._undo.callback(handler.setLevel, handler.level)
                handler.setLevel(max(handler.level, logger.getEffectiveLevel()))
            logger.setLevel(logging.INFO)
        logger.addHandler(log)
        self._undo.callback(logger.removeHandler, log)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.is_interrupted or self.stage != "fit":
            raise KeyboardInterrupt
        self.is_interrupted = True
        self.progress.say(f"{signal.Signals(number).name} received: storing the state and stopping. Once more stops at once.")

    def enter(self, stage: str, message: str = "") -> None:
        """Begin a stage: select, fit, score, simulate or report."""
        self.stage = stage
        logger.info("%s%s", stage, f": {message}" if message else "")
        if self.folder is not None:
            self.folder.set_status("running", stage=stage, message=message)
        self.stop_if_asked()

    def stop_if_asked(self) -> None:
        """Raise KeyboardInterrupt if a signal has asked the run to stop."""
        if self.is_interrupted:
            raise KeyboardInterrupt

    def report(self, step: int, metrics: Mapping[str, float]) -> None:
        """Take note of a log point; raises KeyboardInterrupt if the run is to stop."""
        numbers = {name: float(value) for name, value in metrics.items()}
        self.history.append({"stage": self.stage, "step": step, "wall_s": round(time.monotonic() - self._began, 3), **numbers})
        if self.folder is not None:
            self.folder.add_history(self.history[-1])
            self.folder.beat(stage=self.stage, step=step)
        shown = {name: value for name, value in numbers.items() if name not in ("step", "wall_s")}
        self.progress.update(step, shown, description=_DOING.get(self.stage, self.stage))
        for callback in self.callbacks:
            callback(step, numbers)
        self.lifecycle.notify("fitspike_fit_step", run=self.run, step=step, metrics=numbers)
        self.stop_if_asked()

    def save_latest(self) -> None:
        """Store the solver's last state, whatever the time since the last checkpoint."""
        if self.folder is not None and self._latest is not None:
            self.folder.save_checkpoint(*self._latest)

    @property
    def last_step(self) -> int:
        """Return the step of the last log point."""
        return int(self.history[-1]["step"]) if self.history else 0

    def full_history(self) -> tuple[Mapping[str, Any], ...]:
        """Return the log points of the whole run, those of earlier processes included."""
        return tuple(self.history) if self.folder is None else self.folder.history()

    def end_of_fit(self, status: FitStatus) -> None:
        """Keep the last solver state of a fit that a limit ended, so that it can be continued; else solver states are of no more use."""
        if self.folder is None:
            return
        if status in (FitStatus.STEP_LIMIT, FitStatus.TIME_LIMIT):
            self.save_latest()
        else:
            self.folder.drop_checkpoints()

    def checkpoint(self, step: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Store solver state if the last checkpoint is old enough, or if the run is about to stop."""
        if self.folder is None:
            return  # nor is the state kept in memory, of which it can be a good part
        self._latest = (step, arrays)
        if self.is_interrupted or self.folder.checkpoint_due(self.checkpoint_s):
            self.folder.save_checkpoint(step, arrays)
