"""Integration over one bin of neurons that are not linear between spikes."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

_LARGEST_STEP_MS = 0.25
"""Membranes relax within a millisecond far from rest, and the Runge-Kutta method is unstable for steps of 2.8 time constants."""

Pair = tuple[torch.Tensor, torch.Tensor]


def substeps(given: int | None, dt_ms: float) -> int:
    """Return the number of integration steps of a bin: what is given, else at least 4 and none longer than 0.25 ms."""
    return int(given) if given is not None else max(4, math.ceil(dt_ms / _LARGEST_STEP_MS - 1e-9))


def runge_kutta(
    slope: Callable[[torch.Tensor, torch.Tensor], Pair], state: Pair, dt_ms: float, n_substeps: int, ceiling: torch.Tensor
) -> Pair:
    """Return voltage and recovery variable one bin later, by the classical Runge-Kutta method of fourth order in equal steps.

    slope(voltage, recovery) : time derivatives per ms; it has to bound the voltage itself where the model's upstroke would overflow
    ceiling : highest voltage; a voltage that has reached it has spiked, and stays there until it is reset
    """
    voltage, recovery = state
    h = dt_ms / n_substeps
    for _ in range(n_substeps):
        v1, w1 = slope(voltage, recovery)
        v2, w2 = slope(voltage + 0.5 * h * v1, recovery + 0.5 * h * w1)
        v3, w3 = slope(voltage + 0.5 * h * v2, recovery + 0.5 * h * w2)
        v4, w4 = slope(voltage + h * v3, recovery + h * w3)
        voltage = torch.minimum(voltage + h / 6.0 * (v1 + 2.0 * v2 + 2.0 * v3 + v4), ceiling)
        recovery = recovery + h / 6.0 * (w1 + 2.0 * w2 + 2.0 * w3 + w4)
    return voltage, recovery
