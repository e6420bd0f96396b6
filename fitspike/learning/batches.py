"""The order in which training sees the data: a function of seed, epoch and position alone, so that a resumed run goes on where it was."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import islice

import numpy as np

from fitspike.recording.binned import BinnedSpikes, SpikeChunk
from fitspike.rng import Stream

_PIECE_CHUNKS = 5
_WARMUP_MS = 200.0


def cut_long_trials(binned: BinnedSpikes, n_bins: int, n_trials: int) -> BinnedSpikes:
    """Return the data with long trials cut into pieces, where there are too few trials to fill a batch of `n_trials`.

    A piece is five chunks of `n_bins`, shorter if that would leave fewer than `n_trials` pieces, but at least one chunk. It starts 200 ms
    early; those bins feed the history and are not scored, so that every bin is scored once.
    """
    if binned.n_trials >= n_trials:
        return binned
    length = max(n_bins, min(_PIECE_CHUNKS * n_bins, math.ceil(binned.n_bins_total / n_trials)))
    warmup = round(_WARMUP_MS / binned.dt_ms)
    cuts = []
    for trial, total in enumerate(binned.bins_per_trial.tolist()):
        n_pieces = max(1, round(total / length))
        edges = np.linspace(0, total, n_pieces + 1).round().astype(np.int64).tolist()
        for first, stop in zip(edges[:-1], edges[1:], strict=True):
            start = max(0, first - warmup)
            cuts.append((trial, start, stop, first - start))
    return binned.pieces(cuts) if len(cuts) > binned.n_trials else binned


def ordered_chunks(
    binned: BinnedSpikes, *, n_bins: int, n_trials: int, carry: bool, stream: Stream, epoch: int = 0, position: int = 0
) -> Iterator[tuple[int, int, SpikeChunk]]:
    """Yield (epoch, position, chunk) without end, from a given epoch and position within it on; every epoch is shuffled anew."""
    while True:
        shuffle = stream.child(f"epoch/{epoch}").numpy()
        chunks = binned.chunks(n_bins, batch_trials=n_trials, carry=carry, shuffle=shuffle)
        for at, chunk in enumerate(islice(chunks, position, None), start=position):
            yield epoch, at, chunk
        epoch, position = epoch + 1, 0
