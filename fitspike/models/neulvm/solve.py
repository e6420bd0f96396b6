"""From binned spikes to fitted populations: pieces, membership, start, the chosen engine, activity, intervals and warnings."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fitspike.errors import InvalidInputError
from fitspike.models.base import SolverContext, SolverReport
from fitspike.models.neulvm.hard_em import HardEM, hard_em
from fitspike.models.neulvm.latents import FRACTION_FLOOR, Piece, Problem, draw_many
from fitspike.models.neulvm.marginal_gradient import ClimbSettings, Estimate, Gradients, climb
from fitspike.models.neulvm.membership import cluster_neurons, reassign
from fitspike.models.neulvm.particle_em import EMSettings, particle_em
from fitspike.models.neulvm.populations import FreeSet, as_params
from fitspike.models.neulvm.starts import Start, candidate_starts, role_orders, start_table
from fitspike.types import ParamArrays

if TYPE_CHECKING:
    from fitspike.models.neulvm.model import NeuLVM
    from fitspike.recording.binned import BinnedSpikes

LEAST_PER_BIN = 3.0
"""Spikes of a whole population in a bin below which its noise is far from normal."""
GRADIENT_ROUNDS = 10
"""Most rounds of the engine that climbs the marginal likelihood from the start."""


def make_pieces(model: NeuLVM, binned: BinnedSpikes, n_populations: int) -> tuple[Piece, ...]:
    """Return every trial in pieces of at most `piece_s` scored seconds, each with the bins before it as history.

    Trials not longer than their history are left out; a trial's warm-up counts as history.
    """
    dt_s = binned.dt_ms / 1e3
    longest = max(1, round(model.piece_s / dt_s))
    pieces = []
    for k in range(binned.n_trials):
        n_bins = int(binned.bins_per_trial[k])
        n_history = max(round(model.history_s / dt_s), int(binned.warmup_bins[k]))
        for first in range(n_history, n_bins, longest):
            begin, stop = first - n_history, min(first + longest, n_bins)
            spikes = np.minimum(binned.dense_numpy(trials=[k], bins=range(begin, stop), dtype="float64")[0], 1.0)
            drive = np.zeros((stop - begin, n_populations))
            if model.input_signal is not None:
                offset = int(binned.trial_offset[k])
                drive = binned.signal_values(model.input_signal, offset + begin, offset + stop)
            pieces.append(Piece(spikes, drive, n_history, np.full(drive.shape, FRACTION_FLOOR), k, begin))
    return tuple(pieces)


class _Clock:
    """Steps and time that are left; the state of an interrupted fit."""

    def __init__(self, context: SolverContext) -> None:
        self.context = context
        self.state = dict(context.resume or {})
        self.step = int(self.state.get("step", 0))
        self.is_over = False
        self.limit = ""

    def tick(self, metrics: Mapping[str, float]) -> None:
        """Log a step, store the state, and note whether a limit has been reached."""
        self.step += 1
        self.state["step"] = np.array(self.step)
        self.context.report(self.step, metrics)
        self.context.checkpoint(self.step, dict(self.state))
        if self.context.deadline_s is not None and time.monotonic() >= self.context.deadline_s:
            self.is_over, self.limit = True, "TIME_LIMIT"
        if self.context.max_steps is not None and self.step >= self.context.max_steps:
            self.is_over, self.limit = True, "STEP_LIMIT"


def solve(model: NeuLVM, binned: BinnedSpikes, context: SolverContext) -> tuple[ParamArrays, SolverReport]:
    """Fit; see `NeuLVM.solve`."""
    names = model.population_names(binned.info())
    pieces = make_pieces(model, binned, len(names))
    if not pieces:
        raise InvalidInputError(
            f"no trial is longer than history_s={model.history_s:g} s (the longest lasts "
            f"{float(np.max(binned.bins_per_trial)) * binned.dt_ms / 1e3:g} s). Lower history_s, or fit longer trials."
        )
    base, pattern = model.start_constants(len(names), binned.dt_ms), model.signed_pattern(len(names))
    free = FreeSet(pattern, model.free)
    membership, confidence = np.asarray(context.init["membership"], dtype=np.int64), None
    orders = [tuple(range(len(names)))]
    smoothings_s = [ms / 1e3 for ms in model.smoothings_ms]
    if model.membership == "cluster":
        orders = role_orders(base, pattern)
        membership, confidence = cluster_neurons(
            [piece.spikes[piece.n_history :] for piece in pieces],
            len(names),
            dt_s=base.dt_s,
            smoothing_s=float(np.median(smoothings_s)),
            stream=context.stream.child("membership"),
        )
    starts = candidate_starts(
        Problem(pieces, membership, free, base),
        free.vector(base),
        context.stream.child("starts"),
        smoothings_s=smoothings_s,
        orders=orders,
        n_jittered=model.n_random_starts,
        threads=context.threads,
    )
    clock = _Clock(context)
    extras: dict[str, Any] = {"population_names": np.array(names), "starts": start_table(starts, names)}
    if not np.isfinite(starts[0].log_likelihood):
        text = "no start has a finite likelihood: check the constants, n_neurons and signs."
        return dict(context.init), SolverReport("DIVERGED", text, 0, (), extras)
    run = _hard if model.solver == "hard-em" else _particle
    problem, vector, warnings, found = run(model, starts[0], names, clock)
    # No number of further steps would settle a direction that the data leave open; hard EM has no optimum to converge to.
    status = clock.limit or ("CONVERGED" if np.isfinite(found.get("free_vector_sd", np.nan)).all() else "PLATEAU")
    extras |= found
    if confidence is not None:
        extras.setdefault("membership_confidence", confidence)
    params = _params(problem, vector)
    warnings += _warnings(model, problem, names, params["mean_rate_hz"], binned.n_trials)
    message = f"{clock.step} steps of {model.solver}." + "".join(f" {text[0].upper()}{text[1:]}" for text in warnings)
    return params, SolverReport(status, message, clock.step, (), extras)


def _particle(model: NeuLVM, start: Start, names: tuple[str, ...], clock: _Clock) -> tuple[Problem, np.ndarray, list[str], dict[str, Any]]:
    """Particle EM, then the climb of the marginal likelihood; "gradient" leaves EM out."""
    context, extras, problem = clock.context, {}, start.problem
    stored = dict(context.resume or {})
    settings = EMSettings(n_iterations=model.n_iterations, n_particles=model.n_particles, threads=context.threads)

    def after_step(iterates: np.ndarray, values: np.ndarray) -> bool:
        clock.state |= {"iterates": iterates, "iterate_values": values}
        clock.tick({"log_likelihood": float(values[-1])})
        return not clock.is_over

    vector = start.vector
    if model.solver == "particle-em":
        iterates = particle_em(
            problem,
            vector,
            settings,
            context.stream.child("em"),
            done=stored.get("iterates"),
            done_values=stored.get("iterate_values"),
            after_step=after_step,
        )
        vector, extras["iterates"] = iterates[-1], iterates
        if model.membership == "cluster" and not clock.is_over:
            problem, extras["membership_confidence"] = _reassigned(problem, vector, start.smoothing_s, model, context)
    rounds = model.n_rounds if model.solver == "particle-em" else GRADIENT_ROUNDS

    def checkpoint(n_points: int, gradients: Gradients) -> None:
        clock.state |= {f"gradients/{name}": value for name, value in gradients.to_arrays().items()}

    done = {name.removeprefix("gradients/"): value for name, value in stored.items() if name.startswith("gradients/")}
    estimate, gradients = climb(
        problem,
        vector,
        ClimbSettings(
            n_points=model.n_points, n_rounds=0 if clock.is_over else rounds, n_particles=model.n_particles, threads=context.threads
        ),
        context.stream.child("climb"),
        report=lambda n_points, metrics: clock.tick(metrics),
        done=Gradients.from_arrays(done) if done else None,
        checkpoint=checkpoint,
        out_of_time=lambda: clock.is_over,
    )
    extras |= _described(problem, estimate, gradients)
    warnings = [_direction_text(sd, weights, problem.free.labels(names)) for sd, weights in estimate.directions]
    return problem, estimate.vector, warnings, extras


def _reassigned(
    problem: Problem, vector: np.ndarray, smoothing_s: float, model: NeuLVM, context: SolverContext
) -> tuple[Problem, np.ndarray]:
    """Return the problem after one pass of reassignment by likelihood, and how sure each neuron's population is."""
    constants = problem.free.constants(vector, problem.base)
    stream = context.stream.child("reassign")
    _, paths = draw_many(problem, constants, stream, n_paths=8, n_particles=model.n_particles, threads=context.threads)
    best, confidence = reassign(problem, [several.mean(axis=0) for several in paths], constants)
    kept = np.unique(best).size == np.unique(problem.membership).size  # a pass that empties a population is not taken
    return (problem.with_membership(best, smoothing_s) if kept else problem), confidence


def _hard(model: NeuLVM, start: Start, names: tuple[str, ...], clock: _Clock) -> tuple[Problem, np.ndarray, list[str], dict[str, Any]]:
    """Run the published algorithm; an interrupted run of it starts again, since no step is drawn by chance."""
    problem, clock.step = start.problem, 0

    def after_step(metrics: Mapping[str, float]) -> bool:
        clock.tick(metrics)
        return not clock.is_over

    vector, modes, value = hard_em(problem, start.vector, HardEM(), after_step=after_step)
    extras: dict[str, Any] = {"negative_log_joint": value, "free_vector": vector}
    extras |= by_trial(problem, [mode / problem.base.dt_s for mode in modes], "latent_mean")
    return problem, vector, ["hard EM biases couplings by several percent and its objective does not compare models."], extras


def _described(problem: Problem, estimate: Estimate, gradients: Gradients) -> dict[str, Any]:
    """Return what is kept of a climb: standard errors, likelihoods, and the activity with its standard deviation, Hz."""
    n, dt_s = problem.free.n_populations, problem.base.dt_s
    coupling = np.abs(problem.free.constants(estimate.vector, problem.base).coupling)
    extras: dict[str, Any] = {
        "free_vector": estimate.vector,
        "free_vector_sd": estimate.sd,
        "free_vector_monte_carlo_sd": estimate.monte_carlo_sd,
        "information": estimate.information,
        "coupling_sd": coupling * estimate.sd[:n][None, :],
        "gradient_points": gradients.points,
        "marginal_log_likelihood": gradients.log_likelihood,
    }
    if not gradients.moments:
        return extras
    means = [moments[0] / len(gradients.points) for moments in gradients.moments]
    sds = [
        np.sqrt(np.maximum(moments[1] / len(gradients.points) - mean**2, 0.0))
        for moments, mean in zip(gradients.moments, means, strict=True)
    ]
    extras |= by_trial(problem, [mean / dt_s for mean in means], "latent_mean")
    return extras | by_trial(problem, [sd / dt_s for sd in sds], "latent_sd")


def by_trial(problem: Problem, values: Sequence[np.ndarray], name: str) -> dict[str, np.ndarray]:
    """Return the scored bins of all pieces as one array per trial, (n_bins, n_populations) float32, NaN in the unscored history."""
    trials: dict[int, list[np.ndarray]] = {}
    for piece, value in zip(problem.pieces, values, strict=True):
        parts = trials.setdefault(piece.trial, [])
        if not parts:
            parts.append(np.full((piece.first_bin + piece.n_history, value.shape[1]), np.nan))
        parts.append(value[piece.n_history :])
    return {f"{name}_{trial}": np.concatenate(parts).astype(np.float32) for trial, parts in trials.items()}


def _params(problem: Problem, vector: np.ndarray) -> dict[str, np.ndarray]:
    constants = problem.free.constants(vector, problem.base)
    scored = [piece.guess[piece.n_history :] for piece in problem.pieces]
    rates = np.concatenate(scored).mean(axis=0) / constants.dt_s
    return as_params(constants) | {"mean_rate_hz": rates, "membership": problem.membership.astype(np.float64)}


def _warnings(model: NeuLVM, problem: Problem, names: tuple[str, ...], rate_hz: np.ndarray, n_trials: int) -> list[str]:
    found, membership = [], problem.membership
    n_left_out = n_trials - len({piece.trial for piece in problem.pieces})
    if n_left_out:
        found.append(f"{n_left_out} of {n_trials} trials were left out: they are not longer than history_s={model.history_s:g} s.")
    delay_ms = problem.base.delay_bins * problem.base.dt_s * 1e3
    if not np.isclose(delay_ms, model.delay_ms):
        found.append(f"the delay of {model.delay_ms:g} ms was rounded to whole bins, {delay_ms:g} ms; narrower bins can hold it.")
    per_bin = problem.base.n_neurons * rate_hz * problem.base.dt_s
    few = [f"{name} ({count:.2g})" for name, count in zip(names, per_bin, strict=True) if count < LEAST_PER_BIN]
    if few:
        found.append(
            f"few spikes per bin are expected of whole populations: {', '.join(few)}. The noise of the model is normal, which needs some "
            f"{LEAST_PER_BIN:g} or more; use wider bins, or check n_neurons."
        )
    if model.free != "connectivity":
        found.append(
            "with free resting potentials an inhibitory weight is hardly identifiable: rest and weight trade off. Fix rest if the weight "
            "matters."
        )
    unobserved = [name for m, name in enumerate(names) if not (membership == m).any()]
    if unobserved:
        found.append(f"no neuron of {', '.join(unobserved)} was recorded; spikes alone do not identify their activity and couplings.")
    return found


def _direction_text(sd: float, weights: np.ndarray, labels: tuple[str, ...]) -> str:
    main = ", ".join(f"{w:+.2f} {label}" for w, label in zip(weights, labels, strict=True) if abs(w) > 0.2)
    size = "unbounded" if not sd < 10.0 else f"{sd:.2f}"
    return f"the data hardly determine the direction ({main}): standard deviation {size}."
