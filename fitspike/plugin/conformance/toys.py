"""Small made-up data that the checks run on: three neurons, trials of different length, a signal, two conditions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from fitspike.recording.binned import BinnedSpikes
from fitspike.recording.recording import Recording, Signal
from fitspike.rng import Stream

if TYPE_CHECKING:
    import torch

SEED = 20
DT_MS = 1.0
TRIAL_BINS = (240, 180, 240, 210)


def toy_counts(n_neurons: int, trial_bins: tuple[int, ...] = TRIAL_BINS, *, rate: float = 0.1, seed: int = SEED) -> list[np.ndarray]:
    """Return spike counts (n_bins, n_neurons) of 0 or 1 per trial, each neuron with a rate of its own."""
    numbers = Stream(seed, "conformance/counts").uniforms(len(trial_bins), range(max(trial_bins)), n_neurons)
    rates = rate * (1.0 + np.arange(n_neurons) / max(1, n_neurons))
    return [(numbers[k, :n_bins] < rates).astype(np.int64) for k, n_bins in enumerate(trial_bins)]


def toy_recording(n_neurons: int = 3, *, order: np.ndarray | None = None) -> Recording:
    """Return a recording of `toy_counts`, its neurons in another order if one is given."""
    counts = toy_counts(n_neurons)
    if order is not None:
        counts = [trial[:, order] for trial in counts]
    conditions = ["a", "b", "a", "b"]
    return Recording.from_counts(counts, dt_ms=DT_MS, conditions=conditions)


def toy_binned(n_neurons: int = 3, *, order: np.ndarray | None = None) -> BinnedSpikes:
    """Return the toy recording in its bins."""
    return toy_recording(n_neurons, order=order).bin(DT_MS)


def toy_task(n_neurons: int = 3, n_bins: int = 60) -> BinnedSpikes:
    """Return trials of one length as input of a task, with the signal "target": two channels, each at 1 in half of the bins, else 0."""
    counts = toy_counts(n_neurons, (n_bins,) * 4)
    first = np.arange(4 * n_bins) // 7 % 2
    target = Signal(np.stack([first, 1 - first], axis=1).astype(np.float64), 1000 / DT_MS)
    return Recording.from_counts(counts, dt_ms=DT_MS, signals={"target": target}).bin(DT_MS)


def toy_stream() -> Stream:
    """Return the stream that losses, rules and transforms are checked with, from its beginning."""
    return Stream(SEED, "conformance/learning")


def perturbed(raw: Mapping[str, torch.Tensor], seed: int = SEED, size: float = 0.05) -> dict[str, torch.Tensor]:
    """Return raw parameters, each trainable entry moved by a small random amount of its own, so that neurons differ."""
    import torch

    moved = {}
    for name, value in raw.items():
        noise = torch.as_tensor(Stream(seed, f"conformance/{name}").numpy().standard_normal(tuple(value.shape)), dtype=value.dtype)
        is_trained = value.requires_grad
        step = size * value.detach().abs().clamp_min(1.0) * noise
        moved[name] = (value.detach() + step if is_trained else value.detach()).requires_grad_(is_trained)
    return moved
