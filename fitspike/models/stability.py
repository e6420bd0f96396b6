"""Whether the free activity of a coupled GLM runs away: by short free runs of the fitted filters, with the linear gain beside them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import logit, logsumexp

from fitspike.kernels.coupled_drive import DriveFilters, Regulation, coupled_drive
from fitspike.models.glm_layout import Layout, check_finite, layout_from_shapes
from fitspike.models.glm_problem import spike_filters
from fitspike.models.glm_regulation import make_regulation
from fitspike.rng import Stream
from fitspike.types import ParamArrays

if TYPE_CHECKING:
    from fitspike.models.coupled_glm import CoupledGLM

LIMIT_HZ = 200.0
"""A neuron that fires faster than this over a second of a free run, and than `LIMIT_FACTOR` times its recorded rate, has run away."""

LIMIT_FACTOR = 5.0
_RUN_S, _CHUNK_S = 10.0, 1.0
_SAMPLED_VALUES = 5e6  # runs times bins times neurons
_MIN_RUNS, _MAX_RUNS = 4, 100
_EQUILIBRIUM_STEPS = 200


def stability(model: CoupledGLM, params: ParamArrays, *, rates_hz: np.ndarray | None = None, seed: int = 0) -> Mapping[str, Any]:
    """Return whether fitted parameters are stable, and why; see `CoupledGLM.stability`."""
    arrays = {name: np.asarray(value, dtype=np.float64) for name, value in params.items()}
    check_finite(arrays)
    shapes = {name: value.shape for name, value in arrays.items()}
    channels = {"signals": shapes["signal"][1]} if "signal" in shapes else {}
    layout = layout_from_shapes(model, shapes, channels, float(arrays["dt_ms"][0]))
    rows, scale = layout.pack(arrays), float(arrays.get("population_scale", [1.0])[0])
    return check_rows(layout, rows, scale, rates_hz=rates_hz, ceiling=arrays.get("drive_ceiling"), seed=seed)


def check_rows(
    layout: Layout,
    rows: np.ndarray,
    population_scale: float,
    *,
    rates_hz: np.ndarray | None,
    ceiling: np.ndarray | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Return whether rows of weights are stable: is_stable, message, which neurons run away, and the numbers behind it.

    runaway (n_neurons,) bool: in free runs of the network. runaway_alone: by their own history, the others firing at their mean rates.
    """
    n = layout.n_neurons
    own, pair, decay = spike_filters(layout, rows, np.arange(n), population_scale)
    shared = None
    if layout.population is not None:
        basis = layout.population
        values = np.diag(1.0 - basis.decay) if basis.decay is not None else basis.values
        shared = (rows[:, layout.terms["population"].columns] @ values).T / population_scale
    network = DriveFilters(own, pair, shared, decay)
    base = mean_base(layout, rows)
    if "signal" in layout.terms and not layout.model.standardise_signals and rates_hz is not None:
        base = base_at(rates_hz * layout.dt_ms * 1e-3, summed_filters(n, network), layout.model.emission)
    limit = np.full(n, LIMIT_HZ) if rates_hz is None else np.maximum(LIMIT_HZ, LIMIT_FACTOR * rates_hz)
    if own is None and pair is None and shared is None:
        nobody = np.zeros(n, dtype=bool)
        message = "No spike filters: activity cannot feed on itself."
        return {"is_stable": True, "message": message, "runaway": nobody, "runaway_alone": nobody}
    gain = linear_gain(base, network, layout.model.emission)
    regulation = make_regulation(layout.model, ceiling, n, layout.dt_ms)
    highest, n_away, n_runs = _free_runs(layout, base, network, limit, regulation, seed)
    runaway = highest > limit
    alone = runaway.copy()
    if runaway.any() and (pair is not None or shared is not None):
        alone = _runs_away_alone(layout, rows, base, network, limit, rates_hz, regulation, seed)
    numbers = f"{n_runs} free runs of {_RUN_S:g} s; highest rate over a second {highest.max():.1f} Hz, linear gain {gain:.3g}"
    if runaway.any():
        message = (
            f"Free activity runs away: {n_away} of {n_runs} runs passed {limit[runaway].min():.0f} Hz in {int(runaway.sum())} of {n} "
            f"neurons, {int(alone.sum())} of them by their own history alone ({numbers}). "
            "Raise the ridges on spike filters, or shorten them."
        )
    else:
        message = f"Stable: {numbers}."
    return {
        "is_stable": not runaway.any(),
        "message": message,
        "runaway": runaway,
        "runaway_alone": alone,
        "fraction_of_runs": n_away / n_runs,
        "highest_rate_hz": float(highest.max()),
        "linear_gain": gain,
        "n_runs": n_runs,
    }


def _runs_away_alone(
    layout: Layout,
    rows: np.ndarray,
    base: np.ndarray,
    network: DriveFilters,
    limit: np.ndarray,
    rates_hz: np.ndarray | None,
    regulation: Regulation | None,
    seed: int,
) -> np.ndarray:
    """Return which neurons run away by their own history when all others fire at their mean rates, (n_neurons,) bool."""
    if layout.history is None:
        return np.zeros(layout.n_neurons, dtype=bool)
    mean_count = np.exp(base) if rates_hz is None else rates_hz * layout.dt_ms * 1e-3
    basis = layout.history
    values = np.diag(1.0 - basis.decay) if basis.decay is not None else basis.values
    own = rows[:, layout.terms["history"].columns] @ values
    steps = np.ones(1) if network.decay is None else 1.0 / (1.0 - network.decay)  # an exponential filter's sum over lags
    driven = base.copy()
    if network.pair is not None:
        driven += mean_count @ (network.pair * steps[:, None]).sum(axis=1)
    if network.shared is not None:
        driven += (mean_count.sum() - mean_count) * (network.shared * steps[:, None]).sum(axis=0)
    return _free_runs(layout, driven, DriveFilters(own, decay=network.decay), limit, regulation, seed)[0] > limit


def mean_base(layout: Layout, rows: np.ndarray) -> np.ndarray:
    """Return each neuron's drive without spikes at the mean of its signals, over trial time, conditions and recording, (n_neurons,).

    Signals that are standardised add nothing on average; others are not looked at. Bumps over time add the logarithm of the mean factor
    by which they multiply the rate, from one bump to the next and over conditions: the mean of their heights would be far too low for a
    neuron with short responses.
    """
    base = rows[:, 0].copy()
    heights = {name: rows[:, layout.terms[name].columns] for name in ("trial_time", "condition_time", "drift") if name in layout.terms}
    if len({"trial_time", "condition_time"} & set(heights)) == 2:  # both at the same moments: they add up before the mean is taken
        heights["condition_time"] = heights["condition_time"] + np.tile(heights.pop("trial_time"), layout.n_conditions)
    for values in heights.values():
        base += logsumexp(values, axis=1) - np.log(values.shape[1])
    return base


def base_at(mean_count: np.ndarray, total: np.ndarray, emission: str) -> np.ndarray:
    """Return the drive without spikes at which mean counts (n_neurons,) are an equilibrium under summed filters [post, pre]."""
    mean = np.maximum(mean_count, 1e-12)
    drive = np.log(mean) if emission == "poisson" else logit(np.minimum(mean, 1.0 - 1e-12))
    return drive - total @ mean_count


def summed_filters(n_neurons: int, filters: DriveFilters) -> np.ndarray:
    """Return what a spike adds to drives in all, over lags, [post, pre]."""
    total = np.zeros((n_neurons, n_neurons))
    scale = np.ones(1) if filters.decay is None else 1.0 / (1.0 - filters.decay)  # an exponential filter's sum over lags
    if filters.own is not None:
        total[np.arange(n_neurons), np.arange(n_neurons)] += (filters.own * scale).sum(axis=1)
    if filters.pair is not None:
        total += (filters.pair * scale[:, None]).sum(axis=1).T
    if filters.shared is not None:
        total += (filters.shared * scale[:, None]).sum(axis=0)[:, None]
    return total


def linear_gain(base: np.ndarray, filters: DriveFilters, emission: str) -> float:
    """Return the spectral radius of d(expected counts) / d(counts) at the mean-field equilibrium; inf where there is none.

    Equilibrium: y = g(base + A y) with A[post, pre] the summed filters and g the emission's expected count. Around it a small change is
    passed on as diag(g') A; above 1 it grows (Gerhard, Deger, Truccolo 2017, PLoS Comput. Biol. 13:e1005390, for one neuron).
    """
    total = summed_filters(len(base), filters)

    def respond(drive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if emission == "poisson":
            expected = np.exp(np.minimum(drive, 50.0))
            return expected, expected
        expected = 0.5 * (1.0 + np.tanh(0.5 * drive))
        return expected, expected * (1.0 - expected)

    counts = respond(base)[0]
    for _ in range(_EQUILIBRIUM_STEPS):
        counts = 0.7 * counts + 0.3 * respond(base + total @ counts)[0]
        if not np.isfinite(counts).all() or counts.max(initial=0.0) > 1e6:
            return float("inf")
    slope = respond(base + total @ counts)[1]
    return float(np.abs(np.linalg.eigvals(slope[:, None] * total)).max(initial=0.0))


def _free_runs(
    layout: Layout, base: np.ndarray, filters: DriveFilters, limit_hz: np.ndarray, regulation: Regulation | None, seed: int
) -> tuple[np.ndarray, int, int]:
    """Return each neuron's highest rate over a second (n_neurons,) Hz, how many runs passed the limit, and how many there were."""
    n, dt_s = layout.n_neurons, layout.dt_ms * 1e-3
    n_chunk = max(1, round(_CHUNK_S / dt_s))
    n_chunks = round(_RUN_S / _CHUNK_S)
    n_runs = int(np.clip(_SAMPLED_VALUES / (n_chunk * n_chunks * n), _MIN_RUNS, _MAX_RUNS))
    n_filters = 0 if filters.decay is None else len(filters.decay)
    past, state, sums = np.zeros((n_runs, filters.n_lags, n)), np.zeros((n_runs, n_filters, n)), np.zeros((n_runs, 2, n))
    highest, is_away = np.zeros(n), np.zeros(n_runs, dtype=bool)
    stream = Stream(seed, "stability")
    for i in range(n_chunks):
        draws = stream.uniforms(n_runs, range(i * n_chunk, (i + 1) * n_chunk), n)
        driven = np.broadcast_to(base, (n_runs, n_chunk, n))
        start = {"past": past, "state": state, "sums": sums}
        run = coupled_drive(driven, filters, **start, uniforms=draws, emission=layout.model.emission, regulation=regulation)
        rate = run.spikes.sum(axis=1) / (n_chunk * dt_s)  # (n_runs, n_neurons) Hz
        highest = np.maximum(highest, rate.max(axis=0))
        is_away |= (rate > limit_hz).any(axis=1)
        if is_away.all():
            break
        joined = np.concatenate([past, run.spikes], axis=1)
        past, state, sums = joined[:, joined.shape[1] - filters.n_lags :], run.state, run.sums
    return highest, int(is_away.sum()), n_runs
