"""Runs of fitted populations over a chunk of trials: filtered by recorded spikes, or free."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from fitspike.kernels.mesoscopic import Constants, PathState, simulate
from fitspike.kernels.mesoscopic_filter import FilterNoise, FilterState, run_filter
from fitspike.models.neulvm.populations import as_constants
from fitspike.rng import Stream, philox4x32
from fitspike.types import ParamArrays

_NOISE_BLOCK = 256
_NOISE_KEY = (0x6E65754C, 0x564D0001)


@dataclass(frozen=True, eq=False)
class Populations:
    """Fitted populations: membership (n_neurons,) of the recorded neurons, mean_rate_hz (n_populations,) from which trials start."""

    constants: Constants
    membership: np.ndarray
    mean_rate_hz: np.ndarray
    history_s: float

    @classmethod
    def of(cls, params: ParamArrays, dt_ms: float, history_s: float) -> Populations:
        """Return the populations that parameters stand for."""
        membership, mean_rate_hz = (np.asarray(params[name]) for name in ("membership", "mean_rate_hz"))
        return cls(as_constants(params, dt_ms), membership.astype(np.int64), mean_rate_hz.astype(np.float64), history_s)

    @property
    def n_populations(self) -> int:
        """Return the number of populations."""
        return len(self.constants.tau_s)

    def history(self) -> np.ndarray:
        """Return the fractions of `history_s` at the mean rates, (n_bins, n_populations)."""
        n_bins = max(1, round(self.history_s / self.constants.dt_s))
        return np.tile(self.mean_rate_hz * self.constants.dt_s, (n_bins, 1))


@dataclass(frozen=True, eq=False)
class Filtered:
    """predicted, spikes (n_trials, n_bins, n_neurons); fractions (n_trials, n_bins, n_populations), filtered mean; states after."""

    predicted: np.ndarray
    spikes: np.ndarray
    fractions: np.ndarray
    states: list[FilterState]


def run_filtered(
    populations: Populations,
    spikes: np.ndarray,
    drive_per_s: np.ndarray,
    streams: Sequence[Stream],
    *,
    first_bin: int,
    n_particles: int,
    is_clamped: np.ndarray | None = None,
    uniforms: np.ndarray | None = None,
    states: Sequence[FilterState] | None = None,
) -> Filtered:
    """Return the activity given recorded spikes, and each neuron's spike probability given the past.

    spikes (n_trials, n_bins, n_neurons), of which those of neurons that are not clamped are drawn with `uniforms` instead; drive_per_s
    (n_trials, n_bins, n_populations); streams: one per trial, of which each bin takes its own part, so that chunks do not matter.
    """
    m = populations.n_populations
    predicted, fired = np.empty_like(spikes), np.empty_like(spikes)
    fractions, after = np.empty((*spikes.shape[:2], m)), []
    for row, stream in enumerate(streams):
        run = run_filter(
            spikes[row],
            populations.membership,
            drive_per_s[row],
            populations.constants,
            noise_of_bins(stream, first_bin, spikes.shape[1], n_particles, m),
            is_clamped=is_clamped,
            neuron_uniforms=None if uniforms is None else uniforms[row],
            state=_settled_particles(populations, stream.child("start"), n_particles) if states is None else states[row],
        )
        predicted[row], fired[row], fractions[row] = run.predicted, run.spikes, run.filtered
        after.append(run.state)
    return Filtered(predicted, fired, fractions, after)


def run_free(
    populations: Populations, drive_per_s: np.ndarray, uniforms: np.ndarray, states: Sequence[PathState] | None = None
) -> tuple[np.ndarray, np.ndarray, list[PathState]]:
    """Return spikes, fractions and states of free runs; the populations' noise is keyed by the first neuron's uniforms.

    drive_per_s (n_trials, n_bins, n_populations); uniforms, spikes (n_trials, n_bins, n_neurons).
    """
    spikes, fractions, after = np.empty_like(uniforms), np.empty(drive_per_s.shape), []
    for row, numbers in enumerate(uniforms):
        run = simulate(
            drive_per_s[row],
            populations.constants,
            keyed_normals(numbers[:, 0], populations.n_populations),
            membership=populations.membership,
            uniforms=numbers,
            state=_settled_path(populations) if states is None else states[row],
        )
        spikes[row], fractions[row] = run.spikes, run.fractions
        after.append(run.state)
    return spikes, fractions, after


def _settled_particles(populations: Populations, stream: Stream, n_particles: int) -> FilterState:
    """Return particles after a history at the mean rates; when the recorded neurons last fired is unknown."""
    given, c = populations.history(), populations.constants
    noise = FilterNoise.draw(stream.numpy(), len(given), n_particles, populations.n_populations)
    silence = np.zeros((len(given), len(populations.membership)))
    state = run_filter(silence, populations.membership, np.zeros(given.shape), c, noise, given=given).state
    return replace(state, age=np.full_like(state.age, -1))


def _settled_path(populations: Populations) -> PathState:
    """Return a path after a history at the mean rates; when the recorded neurons last fired is unknown."""
    given = populations.history()
    nothing, silence = np.zeros_like(given), np.ones((len(given), len(populations.membership)))
    run = simulate(nothing, populations.constants, nothing, given=given, membership=populations.membership, uniforms=silence)
    return replace(run.state, age=np.full_like(run.state.age, -1))


def noise_of_bins(stream: Stream, first_bin: int, n_bins: int, n_particles: int, n_populations: int) -> FilterNoise:
    """Return the noise of some bins, which is the same however a trial is cut into chunks."""
    blocks = range(first_bin // _NOISE_BLOCK, -(-(first_bin + n_bins) // _NOISE_BLOCK))
    drawn = [FilterNoise.draw(stream.child(f"bins-{k}").numpy(), _NOISE_BLOCK, n_particles, n_populations) for k in blocks]
    part = slice(first_bin - blocks[0] * _NOISE_BLOCK, first_bin - blocks[0] * _NOISE_BLOCK + n_bins)
    return FilterNoise(*(np.concatenate([getattr(one, name) for one in drawn])[part] for name in ("normals", "uniforms")))


def keyed_normals(uniform: np.ndarray, n: int) -> np.ndarray:
    """Return standard normals (len(uniform), n) keyed by one uniform per row, by Philox and the Box-Muller transform."""
    bits = np.floor(uniform * 2.0**32).astype(np.uint64).astype(np.uint32)
    words = philox4x32((bits[:, None], np.arange(n, dtype=np.uint32)[None, :], np.uint32(0), np.uint32(0)), _NOISE_KEY)
    first, second = ((word.astype(np.float64) + 0.5) * 2.0**-32 for word in words[:2])
    return np.sqrt(-2.0 * np.log(first)) * np.cos(2.0 * np.pi * second)
