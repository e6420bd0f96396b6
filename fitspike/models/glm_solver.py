"""The convex fit of a coupled GLM: which method, passes until every target neuron has converged, stability, standard errors."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from fitspike.errors import counted
from fitspike.models.base import SolverContext, SolverReport
from fitspike.models.glm_covariates import fixed_numbers
from fitspike.models.glm_descent import Direction, Newton, QuasiNewton, State, descend, start_state
from fitspike.models.glm_errors import standard_errors
from fitspike.models.glm_layout import Layout
from fitspike.models.glm_metric import make_metric, n_metric_samples
from fitspike.models.glm_problem import Problem
from fitspike.models.glm_proximal import Proximal
from fitspike.models.glm_regulation import training_ceiling
from fitspike.models.stability import check_rows
from fitspike.types import ParamArrays

if TYPE_CHECKING:
    from fitspike.models.coupled_glm import CoupledGLM
    from fitspike.recording.binned import BinnedSpikes

_N_PAIRS = 8
_SINGLE_FROM = 1_000_000  # bins times targets from which passes over the data run in float32
# Rough costs on one core, to choose between methods: seconds per multiply-add of a matrix product, per multiply-add at a spike, per
# expected count, and per expected count that bins are drawn by; passes that each method usually takes.
_S_PRODUCT, _S_SPIKE, _S_EXPECTED, _S_DRAWN = 5e-11, 2e-10, 4e-9, 1.5e-7
_NEWTON_PASSES, _DESCENT_PASSES = 7, 15
_LARGEST_NEWTON = 2000
_MAX_REFITS = 8
_STRENGTHENED = {"history": ("history",), "network": ("history", "coupling", "population")}


def solve(
    model: CoupledGLM, binned: BinnedSpikes, context: SolverContext, *, targets: np.ndarray | None = None
) -> tuple[ParamArrays, SolverReport]:
    """Return the parameters at the optimum and the report; see `CoupledGLM.solve`.

    With `targets` only those neurons are fitted; the weights of the others stay where they start.
    """
    layout = model.layout(binned.info())
    fit = _Fit(layout, binned, context, targets)
    fit.run()
    extras: dict[str, Any] = {"method": fit.method, "precision": fit.problem.dtype, **fit.stability}
    if layout.coupling is not None:
        n_lags = layout.coupling.n_lags or round(layout.model.coupling_ms / layout.dt_ms)
        extras["coupling_basis"] = layout.coupling.at_lags(n_lags)
        extras["coupling_lag_ms"] = np.arange(1, n_lags + 1) * layout.dt_ms
    if (fit.n_refits > 0).any():
        extras["n_refits"] = fit.n_refits
    if model.standard_errors is not False and not fit.stopped:
        errors = standard_errors(fit.problem, fit.rows, model.standard_errors)
        extras["standard_errors"] = errors.note
        extras |= {f"standard_error_{name}": value for name, value in layout.unpack(errors.standard_error).items()}
        if errors.coupling_covariance is not None:
            extras["coupling_covariance"] = errors.coupling_covariance
    params = {**layout.unpack(fit.rows), **fit.problem.fixed}
    status, message = fit.verdict()
    return params, SolverReport(status, message, len(fit.history), tuple(fit.history), extras)


@dataclass(eq=False)
class _Fit:
    """One fit: passes until convergence, then free runs, then again with stronger ridges where those run away."""

    layout: Layout
    binned: BinnedSpikes
    context: SolverContext
    wanted: np.ndarray | None = None
    history: list[Mapping[str, float]] = field(default_factory=list)
    stopped: str = ""
    stability: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        model, options = self.layout.model, {"threads": self.context.threads, "backend": self.context.backend}
        fixed = fixed_numbers(self.layout, self.binned)
        problem = Problem(self.layout, fixed, self.binned, **options)
        self.method = choose_method(self.layout, problem) if model.solver == "auto" else model.solver
        dtype = model.precision
        if dtype == "auto":
            is_large = self.method != "newton" and self.binned.n_bins_total * self.layout.n_neurons >= _SINGLE_FROM
            dtype = "float32" if is_large else "float64"
        self.problem = problem if dtype == "float64" else Problem(self.layout, fixed, self.binned, dtype=dtype, **options)
        self.ridge = self.problem.ridge.copy()
        self.silent = self.problem.n_spikes == 0
        self.rows = self.layout.pack(self.context.init) * self.layout.free
        self.rows[self.silent] = 0.0
        self.rows[self.silent, 0] = silent_bias(self.problem)
        self.targets = np.flatnonzero(~self.silent)
        if self.wanted is not None:
            self.targets = np.intersect1d(self.targets, self.wanted)
        self.n_refits = np.zeros(self.layout.n_neurons, dtype=np.int64)
        self.state: State | None = None
        self.n_left = 0

    def run(self) -> None:
        """Fit; `rows`, `stability`, `history` and `stopped` hold the result."""
        if self.context.resume is not None:
            self._restore(self.context.resume)
        while True:
            self._descend()
            self._regulate()
            if self.stopped or self.layout.model.stabilise == "off":
                return
            rates_hz = self.problem.n_spikes / max(self.binned.n_scored_bins * self.binned.dt_ms * 1e-3, 1e-12)
            self.stability = check_rows(
                self.layout, self.rows, self._population_scale(), rates_hz=rates_hz, ceiling=self.problem.fixed.get("drive_ceiling")
            )
            mode = self.layout.model.stabilise
            away = self.stability["runaway_alone" if mode == "history" else "runaway"] & ~self.silent
            if not away.any() or mode == "warn" or self.n_refits.max() >= _MAX_REFITS:
                return
            self.n_refits[away] += 1
            self.targets, self.state = np.flatnonzero(away), None

    def _regulate(self) -> None:
        """Set the ceiling of the drives from those on the training data."""
        if self.layout.model.ceiling:
            self.problem.fixed["drive_ceiling"] = training_ceiling(self.problem, self.rows, self.layout.model.ceiling)

    def _population_scale(self) -> float:
        return float(self.problem.fixed.get("population_scale", [1.0])[0])

    def _descend(self) -> None:
        """Run passes over the data for the current targets, from `state` if there is one."""
        self.problem.ridge = strengthened(self.layout, self.ridge, self.n_refits)
        direction = self._direction()
        if self.state is None:
            start = self.rows[self.targets]
            self.state = start_state(direction.inside(start) if isinstance(direction, Proximal) else start, self._n_pairs())
            self.state["n_passes"][0] = self.state["last_look"][0] = len(self.history)
        elif isinstance(direction, QuasiNewton):
            direction.restore(self.state)
        self.state = descend(direction, self.state, self._tolerance(), self.problem.dtype, self._after_pass)
        self.rows[self.targets] = self.state["rows"]
        self.n_left += int(self.state["is_open"].sum())

    def _tolerance(self) -> np.ndarray:
        """Return the expected decrease of the current targets below which they have converged, nats."""
        return self.layout.model.tolerance * np.maximum(self.problem.n_spikes[self.targets], 1.0)

    def _n_pairs(self) -> int:
        return _N_PAIRS if self.method == "lbfgs" else 0

    def _direction(self) -> Direction:
        if self.method == "newton":
            return Newton(self.problem, self.targets)
        if self.method == "proximal":
            newton, descent = method_costs(self.layout, self.problem)
            return Proximal(self.problem, self.targets, is_exact=newton <= descent and self.problem.dtype == "float64")
        stream = self.context.stream.child(f"metric/{self.n_refits.max()}")
        return QuasiNewton(
            self.problem,
            self.targets,
            make_metric(self.problem, self.targets),
            stream,
            tolerance=self._tolerance(),
            renewal_passes=renewal_passes(self.layout, self.problem),
        )

    def _after_pass(self, step: int, metrics: Mapping[str, float], state: State) -> bool:
        """Log, store and decide whether to stop before convergence."""
        shown = {**metrics, "objective": metrics["objective"] + float(self.problem.log_factorials[self.targets].sum())}
        self.history.append({"step": step, **shown})
        self.context.checkpoint(step, {**state, "all_rows": self.rows, "targets": self.targets, "n_refits": self.n_refits})
        try:
            self.context.report(step, shown)
        except KeyboardInterrupt:
            self.stopped = "INTERRUPTED"
        if self.context.deadline_s is not None and time.monotonic() >= self.context.deadline_s:
            self.stopped = self.stopped or "TIME_LIMIT"
        if self.context.max_steps is not None and step >= self.context.max_steps:
            self.stopped = self.stopped or "STEP_LIMIT"
        return bool(self.stopped) and bool(state["is_open"].any())

    def _restore(self, saved: Mapping[str, np.ndarray]) -> None:
        arrays = {name: np.array(value) for name, value in saved.items()}
        self.rows, self.targets, self.n_refits = arrays.pop("all_rows"), arrays.pop("targets"), arrays.pop("n_refits")
        self.state = arrays
        n_passes = int(arrays["n_passes"][0])
        self.history = [{"step": float(step)} for step in range(1, n_passes + 1)]

    def verdict(self) -> tuple[str, str]:
        """Return the status and what it means, in words."""
        assert self.state is not None
        parts = [f"Method: {self.method}, {self.problem.dtype}, {int(self.state['n_passes'][0])} passes over the data."]
        if self.silent.any():
            which = ", ".join(str(i) for i in self.binned.neurons.ids[self.silent][:10])
            silent = counted(int(self.silent.sum()), "neuron")
            parts.append(f"{silent} without training spikes ({which}) got the rate of half a spike in all bins.")
        if (self.n_refits > 0).any():
            which = ", ".join(str(i) for i in self.binned.neurons.ids[self.n_refits > 0][:10])
            n_again = int((self.n_refits > 0).sum())
            again = f"{counted(n_again, 'neuron')} ({which}) {'was' if n_again == 1 else 'were'} fitted again"
            terms = " and ".join(_STRENGTHENED[self.layout.model.stabilise])
            times = f"up to {counted(int(self.n_refits.max()), 'time')}"
            parts.append(f"The plain optimum ran away in free runs; {again} with stronger ridges on {terms} ({times}).")
        if self.stability:
            parts.append(self.stability["message"])
        stalled = self.state["is_stalled"]
        if self.stopped:
            return self.stopped, " ".join([f"{int(self.state['is_open'].sum())} target neurons had not converged.", *parts])
        if not (self.state["decrement"][stalled] <= 1e-3).all():  # NaN where there was no direction
            lead = f"{int(stalled.sum())} target neurons stopped where no step lowers the objective by more than rounding."
            return "PLATEAU", " ".join([lead, *parts])
        return "CONVERGED", " ".join(["Every target neuron has converged.", *parts])


def strengthened(layout: Layout, ridge: np.ndarray, n_refits: np.ndarray) -> np.ndarray:
    """Return the ridge with that on history (or all spike filters) raised: max(ridge, 1) * 10 ** n_refits where a neuron was refitted."""
    result = ridge.copy()
    again = n_refits > 0
    for name in _STRENGTHENED.get(layout.model.stabilise, ()):
        if name in layout.terms and again.any():
            columns = layout.terms[name].columns
            result[again, columns] = np.maximum(ridge[again, columns], 1.0) * 10.0 ** n_refits[again, None]
    return result


def silent_bias(problem: Problem) -> float:
    """Return the bias of a neuron without spikes: the log of half a spike over all scored bins, where the optimum would be -infinity."""
    return float(np.log(0.5 / max(problem.binned.n_scored_bins, 1)))


def choose_method(layout: Layout, problem: Problem) -> str:
    """Return "newton" or "lbfgs", whichever should take less time, or "proximal" where there is a penalty or bound that is not smooth."""
    if layout.model.penalty != "l2" or layout.bounds() is not None:
        return "proximal"
    newton, descent = method_costs(layout, problem)
    return "newton" if newton <= max(descent, 0.05) and layout.n_weights <= _LARGEST_NEWTON else "lbfgs"


def method_costs(layout: Layout, problem: Problem) -> tuple[float, float]:
    """Return the rough number of seconds that Newton's method and L-BFGS would take on one core."""
    n_bins, n, n_weights = problem.binned.n_bins_total, layout.n_neurons, layout.n_weights
    newton = _NEWTON_PASSES * n * n_bins * n_weights**2 * _S_PRODUCT
    metric = min(n_bins, max(20 * n_weights, 100_000)) * n_weights**2 * _S_PRODUCT + n * n_weights**3 * _S_PRODUCT
    return newton, _DESCENT_PASSES * _pass_cost(layout, problem) + metric


def renewal_passes(layout: Layout, problem: Problem) -> float:
    """Return roughly how many passes over the data take as long as renewing the metric of the same targets."""
    values, n_weights = problem.binned.n_bins_total * layout.n_neurons, layout.n_weights
    products = layout.n_neurons * (n_metric_samples(n_weights) * n_weights**2 + n_weights**3)
    return (values * _S_DRAWN + products * _S_PRODUCT) / _pass_cost(layout, problem)


def _pass_cost(layout: Layout, problem: Problem) -> float:
    """Return the rough number of seconds of one pass over the data, likelihood and gradient, on one core."""
    n_bins, n = problem.binned.n_bins_total, layout.n_neurons
    lags = (layout.coupling.n_lags or layout.coupling.n_basis) if layout.coupling is not None else 0
    return problem.binned.n_spikes * lags * n * 2 * _S_SPIKE + n_bins * n * (_S_EXPECTED + 2 * problem.shared.n_dense * _S_PRODUCT)
