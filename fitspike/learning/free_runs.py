"""Which trials a free run simulates, and the run itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from fitspike.learning.nest import map_tensors
from fitspike.losses.base import FreeRun
from fitspike.models.base import n_uniforms

if TYPE_CHECKING:
    from fitspike.models.base import Model
    from fitspike.recording.binned import SpikeChunk
    from fitspike.rng import Stream
    from fitspike.types import Carry

REPEATS = 10
"""Simulated repeats of one condition in a batch, where there are several conditions: two halves of five say enough of a covariance."""


def free_rows(chunk: SpikeChunk, n_trials: int, *, has_repeats: bool) -> np.ndarray:
    """Return which of the chunk's trials a free run of `n_trials` goes over, row numbers (n_trials,), some of them several times.

    Where trials repeat each other, statistics compare them within a condition: as many conditions as fit at ten trials each, in the order
    in which the chunk holds them, are run ten times or more, over its trials of that condition in turn. Elsewhere all trials in turn.
    """
    if not has_repeats:
        return np.arange(n_trials) % chunk.n_trials
    conditions = list(dict.fromkeys(np.asarray(chunk.condition).tolist()))
    conditions = conditions[: max(1, n_trials // REPEATS)]
    rows = []
    for number, condition in enumerate(conditions):
        members = np.flatnonzero(np.asarray(chunk.condition) == condition)
        n_here = n_trials // len(conditions) + (number < n_trials % len(conditions))
        rows.append(members[np.arange(n_here) % len(members)])
    return np.concatenate(rows)


class FreeStart(NamedTuple):
    """What decides a free run besides the parameters: bins, trials and signals, the recorded past, and uniforms."""

    chunk: SpikeChunk
    carry: Carry
    uniforms: torch.Tensor


def start_free(
    model: Model,
    params: Mapping[str, torch.Tensor],
    chunk: SpikeChunk,
    carry: Carry,
    rng: Stream,
    *,
    n_trials: int | None = None,
    has_repeats: bool = False,
) -> FreeStart:
    """Return the start of a free run over the bins of a chunk, from the recorded past.

    Parameters
    ----------
    carry : of the chunk before, None at the start of a trial; the first axis of its tensors is the chunk's trial
    n_trials : simulated trials; None: as many as the chunk has
    has_repeats : whether trials of one condition repeat each other, see `free_rows`
    """
    rows = free_rows(chunk, n_trials or chunk.n_trials, has_repeats=has_repeats)
    if not np.array_equal(rows, np.arange(chunk.n_trials)):
        index = torch.as_tensor(rows)
        carry = map_tensors(carry, lambda value: value[index.to(value.device)])
        chunk = chunk.rows(rows)
    n_columns = n_uniforms(model, chunk.n_neurons)
    bins = range(chunk.first_bin, chunk.first_bin + chunk.n_bins)
    like = next(iter(params.values()))
    uniforms = torch.as_tensor(rng.child("free").uniforms(len(rows), bins, n_columns), device=like.device)
    return FreeStart(chunk, carry, uniforms)


def run_free(
    model: Model,
    params: Mapping[str, torch.Tensor],
    chunk: SpikeChunk,
    carry: Carry,
    rng: Stream,
    *,
    n_trials: int | None = None,
    has_repeats: bool = False,
) -> FreeRun:
    """Return a free run; the arguments are those of `start_free`."""
    start = start_free(model, params, chunk, carry, rng, n_trials=n_trials, has_repeats=has_repeats)
    return FreeRun(model.rollout(params, start.chunk, uniforms=start.uniforms, carry=start.carry), start.chunk)
