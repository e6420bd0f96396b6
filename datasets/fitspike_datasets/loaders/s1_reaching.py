"""Reaching: counts with the hand's position and velocity, and what tuning curves of reaching are usually given in: speed and direction."""

from pathlib import Path

import numpy as np
from scipy import io

from fitspike import Recording
from fitspike.plugin import Signal

DT_MS = 50.0


def reaching(paths: list[Path]) -> Recording:
    """Return the counts with position, velocity, speed, and the unit vector of the velocity (0 where the hand rests)."""
    content = io.loadmat(paths[0])
    position, velocity = (np.asarray(content[name], dtype=np.float64) for name in ("pos", "vel"))
    speed = np.linalg.norm(velocity, axis=1, keepdims=True)
    direction = np.divide(velocity, speed, out=np.zeros_like(velocity), where=speed > 0)
    recording = Recording.from_counts(content["spikes"][None], dt_ms=DT_MS)
    signals = {
        "pos": (position, ("x", "y")),
        "vel": (velocity, ("x", "y")),
        "speed": (speed, ("speed",)),
        "direction": (direction, ("x", "y")),
    }
    start = int(recording.trials.start_ns[0])
    return recording.attach(signals={name: Signal(values, 1000.0 / DT_MS, start, "", axes) for name, (values, axes) in signals.items()})
