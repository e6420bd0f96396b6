"""What fitted populations do on their own: free activity, who leads and for how long, and their answer to a pulse of input."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fitspike.errors import InvalidInputError
from fitspike.kernels.mesoscopic import Constants, PathState, simulate
from fitspike.rng import Stream
from fitspike.statistics.winners import dwell_times_s, switch_bins, winning_population

FREE_S, PULSE_MS, PULSE_PER_S, PULSE_TRIALS = 200.0, 100.0, 80.0, 100
BEFORE_S, AFTER_S = 0.3, 0.8
SETTLE_S = 1.0
SHOWN_S = 20.0
"""Seconds of free activity, of the standard pulse, around it, and of the traces that are drawn."""


def settled(constants: Constants, start_hz: np.ndarray, settle_s: float = SETTLE_S) -> PathState:
    """Return the state of populations that have fired at constant rates, (n_populations,) Hz, for a while."""
    n_bins = max(1, round(settle_s / constants.dt_s))
    given = np.broadcast_to(np.asarray(start_hz, dtype=np.float64) * constants.dt_s, (n_bins, len(constants.tau_s)))
    nothing = np.zeros(given.shape)
    return simulate(nothing, constants, nothing, given=given).state


def free_activity(constants: Constants, start_hz: np.ndarray, duration_s: float, stream: Stream) -> np.ndarray:
    """Return the activity of the populations without input from a start at constant rates, (n_bins, n_populations) Hz."""
    n_bins = round(duration_s / constants.dt_s)
    normals = stream.numpy().standard_normal((n_bins, len(constants.tau_s)))
    run = simulate(np.zeros_like(normals), constants, normals, state=settled(constants, start_hz))
    return run.fractions / constants.dt_s


def pulse_response(
    constants: Constants,
    start_hz: np.ndarray,
    *,
    population: int,
    stream: Stream,
    amplitude_per_s: float = PULSE_PER_S,
    pulse_ms: float = PULSE_MS,
    before_s: float = BEFORE_S,
    after_s: float = AFTER_S,
    n_trials: int = PULSE_TRIALS,
) -> np.ndarray:
    """Return the activity around a pulse of input to one population, (n_trials, n_bins, n_populations) Hz.

    amplitude_per_s : input, units of escape noise per second (du/dt); 80 raises what a membrane of 20 ms tends to by 1.6
    start_hz : (n_populations,), rates at which every trial starts, `before_s` before the pulse

    Raises
    ------
    InvalidInputError
        If there is no such population, or a duration is not positive.
    """
    n = len(constants.tau_s)
    if not 0 <= population < n:
        raise InvalidInputError(f"population={population} is none of the {n} populations 0 to {n - 1}.")
    if not (pulse_ms > 0 and before_s >= 0 and after_s > 0 and n_trials > 0):
        raise InvalidInputError(
            f"pulse_ms={pulse_ms}, after_s={after_s} and n_trials={n_trials} must be positive, before_s={before_s} not negative."
        )
    first, length = round(before_s / constants.dt_s), max(1, round(pulse_ms / 1e3 / constants.dt_s))
    drive = np.zeros((first + length + round(after_s / constants.dt_s), n))
    drive[first : first + length, population] = amplitude_per_s
    state = settled(constants, start_hz)
    activity = np.empty((n_trials, *drive.shape))
    for trial in range(n_trials):
        normals = stream.child(f"trial-{trial}").numpy().standard_normal(drive.shape)
        activity[trial] = simulate(drive, constants, normals, state=state).fractions / constants.dt_s
    return activity


def typical_state(activity_hz: np.ndarray, winner: np.ndarray | None) -> np.ndarray:
    """Return mean rates in the commonest state: of the leader that leads longest, or of all bins, (n_populations,) Hz."""
    known = np.isfinite(activity_hz).all(axis=1)
    if winner is not None and (winner[known] >= 0).any():
        leader = np.bincount(winner[known & (winner >= 0)]).argmax()
        known &= winner == leader
    return activity_hz[known].mean(axis=0)


def summary(
    constants: Constants, excitatory: np.ndarray, latents: Mapping[str, np.ndarray], mean_rate_hz: np.ndarray, stream: Stream
) -> dict[str, np.ndarray]:
    """Return the arrays behind the figures of a fit.

    latent_time_s (n,), latent_hz, latent_sd_hz (n, M): inferred activity of the leading seconds of the first trial; free_time_s, free_hz:
    of a free run; response_time_ms (n,), response_hz (target, n, M), response_start_hz (M,): mean answers to a standard pulse. With two or
    more excitatory populations also inferred_dwell_s and free_dwell_s, the times between changes of the leader, and free_switches_per_s.
    latents: latent_mean_K and latent_sd_K of each trial, as a fit keeps them.
    """
    dt_s = constants.dt_s
    found: dict[str, np.ndarray] = {}
    names = [name for name in latents if name.startswith("latent_mean_")]
    inferred = [np.asarray(latents[name], dtype=np.float64) for name in names]
    free = free_activity(constants, mean_rate_hz, FREE_S, stream.child("free"))
    competing = len(excitatory) > 1
    start = mean_rate_hz
    if inferred:
        scored = [one[np.isfinite(one).all(axis=1)] for one in inferred]
        winners = [winning_population(one[:, excitatory], dt_s) if competing else None for one in scored]
        start = typical_state(np.concatenate(scored), np.concatenate(winners) if competing else None)
        if competing:
            found["inferred_dwell_s"] = np.concatenate([dwell_times_s(one, dt_s) for one in winners])
            seconds = sum(map(len, scored)) * dt_s
            found["inferred_switches_per_s"] = np.array(sum(len(switch_bins(one)) for one in winners) / seconds)
        first = int(np.argmax(np.isfinite(inferred[0]).all(axis=1)))
        part = slice(first, first + round(SHOWN_S / dt_s))
        found |= {"latent_time_s": (np.arange(len(inferred[0]))[part] + 0.5) * dt_s, "latent_hz": inferred[0][part]}
        spread = latents.get(names[0].replace("mean", "sd"))
        if spread is not None:
            found["latent_sd_hz"] = np.asarray(spread, dtype=np.float64)[part]
    if competing:
        winner = winning_population(free[:, excitatory], dt_s)
        found |= {"free_dwell_s": dwell_times_s(winner, dt_s), "free_switches_per_s": np.array(len(switch_bins(winner)) / FREE_S)}
    shown = free[: round(SHOWN_S / dt_s)]
    found |= {"free_time_s": (np.arange(len(shown)) + 0.5) * dt_s, "free_hz": shown}
    answers = [
        pulse_response(constants, start, population=m, stream=stream.child(f"pulse-{m}")).mean(axis=0) for m in range(len(constants.tau_s))
    ]
    time_ms = ((np.arange(len(answers[0])) + 0.5) * dt_s - BEFORE_S) * 1e3
    pulse = {"response_pulse_ms": np.array(PULSE_MS), "response_per_s": np.array(PULSE_PER_S)}
    return found | pulse | {"response_time_ms": time_ms, "response_hz": np.array(answers), "response_start_hz": start}
