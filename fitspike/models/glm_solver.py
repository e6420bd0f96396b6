"""The convex fit of a coupled GLM: which method, passes until every target neuron has converged, checkpoints, standard errors."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from fitspike.models.base import SolverContext, SolverReport
from fitspike.models.glm_covariates import fixed_numbers
from fitspike.models.glm_descent import Newton, QuasiNewton, State, descend, start_state
from fitspike.models.glm_layout import Layout
from fitspike.models.glm_metric import make_metric
from fitspike.models.glm_problem import Problem
from fitspike.types import ParamArrays

if TYPE_CHECKING:
    from fitspike.models.coupled_glm import CoupledGLM
    from fitspike.recording.binned import BinnedSpikes

_N_PAIRS = 8
_SINGLE_FROM = 1_000_000  # bins times targets from which passes over the data run in float32
# Rough costs on one core, to choose between methods: seconds per multiply-add of a matrix product, per multiply-add at a spike, and per
# expected count; passes that each method usually takes.
_S_PRODUCT, _S_SPIKE, _S_EXPECTED = 5e-11, 2e-10, 4e-9
_NEWTON_PASSES, _DESCENT_PASSES = 7, 20


def fit_rows(
    layout: Layout, binned: BinnedSpikes, context: SolverContext
) -> tuple[np.ndarray, Problem, str, str, list[Mapping[str, float]]]:
    """Return the weights at the optimum (n_neurons, n_weights), the problem, status, message and history."""
    fixed = fixed_numbers(layout, binned)
    model = layout.model
    probe = Problem(layout, fixed, binned, threads=context.threads, backend=context.backend)
    method = choose_method(layout, probe) if model.solver == "auto" else model.solver
    dtype = model.precision
    if dtype == "auto":
        dtype = "float32" if method != "newton" and binned.n_bins_total * layout.n_neurons >= _SINGLE_FROM else "float64"
    problem = probe if dtype == "float64" else Problem(layout, fixed, binned, dtype=dtype, threads=context.threads, backend=context.backend)
    rows = layout.pack(context.init) * layout.free
    silent = problem.n_spikes == 0
    targets = np.flatnonzero(~silent)
    if method == "newton":
        direction = Newton(problem, targets)
    else:
        direction = QuasiNewton(problem, targets, make_metric(problem, targets))
    state = start_state(rows[targets], 0 if method == "newton" else _N_PAIRS)
    if context.resume is not None:
        state = {name: np.array(context.resume[name]) for name in state}
    history: list[Mapping[str, float]] = []
    stop: list[str] = []

    def after_pass(step: int, metrics: Mapping[str, float], state: State) -> bool:
        shown = {**metrics, "objective": metrics["objective"] + float(problem.log_factorials.sum())}
        history.append({"step": step, **shown})
        context.checkpoint(step, state)
        try:
            context.report(step, shown)
        except KeyboardInterrupt:
            stop.append("INTERRUPTED")
        if context.deadline_s is not None and time.monotonic() >= context.deadline_s:
            stop.append("TIME_LIMIT")
        if context.max_steps is not None and step >= context.max_steps:
            stop.append("STEP_LIMIT")
        return bool(stop)

    state = descend(direction, state, model.tolerance * np.maximum(problem.n_spikes[targets], 1.0), dtype, after_pass)
    rows[targets] = state["rows"]
    rows[silent] = 0.0
    rows[silent, 0] = silent_bias(problem)
    status, message = _verdict(state, stop, problem, silent)
    return rows, problem, status, f"{message} Method: {method}, {dtype}, {int(state['n_passes'][0])} passes over the data.", history


def silent_bias(problem: Problem) -> float:
    """Return the bias of a neuron without spikes: the log of half a spike over all scored bins, where the optimum would be -infinity."""
    return float(np.log(0.5 / max(problem.binned.n_scored_bins, 1)))


def choose_method(layout: Layout, problem: Problem) -> str:
    """Return "newton" or "lbfgs", whichever should take less time."""
    if layout.model.penalty != "l2" or layout.bounds() is not None:
        return "proximal"
    newton, descent = method_costs(layout, problem)
    return "newton" if newton <= max(descent, 0.5) and layout.n_weights <= 2000 else "lbfgs"


def method_costs(layout: Layout, problem: Problem) -> tuple[float, float]:
    """Return the rough number of seconds that Newton's method and L-BFGS would take on one core."""
    n_bins, n = problem.binned.n_bins_total, layout.n_neurons
    newton = _NEWTON_PASSES * n * n_bins * layout.n_weights**2 * _S_PRODUCT
    lags = layout.coupling.n_lags or layout.coupling.n_basis if layout.coupling is not None else 0
    one_pass = problem.binned.n_spikes * lags * n * 2 * _S_SPIKE + n_bins * n * (_S_EXPECTED + 2 * layout.n_covariates * _S_PRODUCT)
    n_features = layout.n_weights
    metric = min(n_bins, max(20 * n_features, 100_000)) * n_features**2 * _S_PRODUCT + n * n_features**3 * _S_PRODUCT
    return newton, _DESCENT_PASSES * one_pass + metric


def _verdict(state: State, stop: list[str], problem: Problem, silent: np.ndarray) -> tuple[str, str]:
    """Return the status and a sentence on it."""
    n_open, n_stalled = int(state["is_open"].sum()), int(state["is_stalled"].sum())
    notes = ""
    if silent.any():
        which = ", ".join(str(i) for i in problem.binned.neurons.ids[silent][:10])
        notes = f" {int(silent.sum())} neurons without training spikes ({which}) were given the rate of half a spike in all bins."
    if n_open and stop:
        return stop[0], f"{n_open} of {len(state['is_open'])} target neurons had not converged.{notes}"
    if n_stalled and (state["decrement"][state["is_stalled"]] > 1e-3).any():
        return "PLATEAU", f"{n_stalled} target neurons stopped where no step lowers the objective by more than rounding.{notes}"
    return "CONVERGED", f"Every target neuron has converged.{notes}"


def solve(model: CoupledGLM, binned: BinnedSpikes, context: SolverContext) -> tuple[ParamArrays, SolverReport]:
    """Return the parameters at the optimum and the report; see `CoupledGLM.solve`."""
    layout = model.layout(binned.info())
    rows, problem, status, message, history = fit_rows(layout, binned, context)
    extras: dict[str, Any] = {}
    params = {**layout.unpack(rows), **problem.fixed}
    return params, SolverReport(status, message, len(history), tuple(history), extras)
