"""Choice of a coupled GLM's open settings on training data alone: blocked cross-validation, one group of settings after another."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fitspike.models.base import SolverContext
from fitspike.models.glm_problem import Problem
from fitspike.models.glm_solver import solve
from fitspike.params import initial_params
from fitspike.types import ParamArrays

if TYPE_CHECKING:
    from fitspike.models.coupled_glm import CoupledGLM
    from fitspike.recording.binned import BinnedSpikes

WINDOW_BINS = (10, 30, 100)
RIDGES = (300.0, 100.0, 30.0, 10.0, 3.0, 1.0)
_FIRST_RIDGE = 30.0
_MANY_NEURONS = 100
_TOLERANCE = 1e-6


def select(model: CoupledGLM, binned: BinnedSpikes, context: SolverContext) -> tuple[CoupledGLM, Mapping[str, Any]]:
    """Return the model with every open setting fixed, and the table of what was tried.

    Folds are whole trials where there are several, else alternating blocks of time. Groups are settled in turn, each by the highest
    log-likelihood of the held-out folds, all neurons together: the ridge on covariates, the own-history window, the population covariate,
    then the coupling window and its ridge, walked from 30 in the direction that improves. Windows are tried at 10, 30 and 100 bins.
    What is set by the user is kept. "Rows" of the table hold the settings tried, bits per spike over the constant rate of the training
    folds, and whether they were taken.
    """
    search = _Search(model, binned, context)
    given = {name for name in model.open_settings()}
    is_open = given.__contains__
    search.model = replace(model, **{name: 0 for name in ("history_ms", "population_ms", "coupling_ms", "drift_bumps") if is_open(name)})
    search.model = replace(search.model, **{name: 1.0 for name in ("ridge_history", "ridge_population") if is_open(name)})
    dt_ms = binned.dt_ms
    for term, ridge in (("signal", "ridge_signal"), ("time", "ridge_time")):
        if is_open(ridge) and search.has(term):
            search.choose(f"ridge on {term}", [{ridge: value} for value in (1.0, 10.0, 100.0)])
    if is_open("history_ms"):
        windows = [{"history_ms": n * dt_ms, "n_history": min(model.n_history, n)} for n in WINDOW_BINS]
        search.choose("own history", [{"history_ms": 0}, *windows])
    window = search.model.history_ms or WINDOW_BINS[1] * dt_ms
    if binned.n_neurons > 1:
        if is_open("population_ms"):
            search.choose("population", [{"population_ms": 0}, {"population_ms": window}])
        if is_open("coupling_ms") or is_open("ridge_coupling"):
            search.choose_coupling(is_open("coupling_ms"), is_open("ridge_coupling"))
    chosen = search.model.resolved(binned.info())
    table = {
        "method": f"{len(search.folds)}-fold cross-validation on training data, blocked by {search.blocked_by}",
        "rows": search.rows,
        "chosen": {name: getattr(chosen, name) for name in sorted(given)},
        "seconds": round(time.monotonic() - search.begin, 1),
    }
    return chosen, table


@dataclass(eq=False)
class _Search:
    """The model as far as it is settled, the folds, and what was tried."""

    model: CoupledGLM
    binned: BinnedSpikes
    context: SolverContext
    rows: list[dict[str, Any]] = field(default_factory=list)
    begin: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        several = 2 <= self.binned.n_trials
        n_folds = min(3, self.binned.n_trials) if several else 3
        if self.binned.n_neurons > _MANY_NEURONS and not several:
            n_folds = 2
        self.blocked_by = "trial" if several else "time"
        warm_up = WINDOW_BINS[-1] if not several else 0
        self.folds = self.binned.folds(n_folds, gap_bins=warm_up)
        self.starts: list[dict[str, np.ndarray]] = [{} for _ in self.folds]
        self.best: float | None = None

    def has(self, term: str) -> bool:
        """Return whether the model as settled has terms of trial time, or signals."""
        names = self.model.layout(self.binned.info()).terms
        return any(name == term or (term == "time" and name in ("trial_time", "condition_time")) for name in names)

    def choose(self, stage: str, options: Iterable[Mapping[str, Any]]) -> None:
        """Settle on the option with the highest held-out log-likelihood; the first wins ties."""
        tried = [(self.score(stage, option), option) for option in options]
        best = max(range(len(tried)), key=lambda i: tried[i][0])
        self.take(tried[best][1], tried[best][0], -len(tried) + best)

    def take(self, option: Mapping[str, Any], value: float, row: int) -> None:
        """Make an option part of the model."""
        self.model = replace(self.model, **option)
        self.rows[row]["taken"] = True
        self.best = value

    def choose_coupling(self, window_is_open: bool, ridge_is_open: bool) -> None:
        """Settle the coupling window, then its ridge by walking from the first one while it improves, or leave couplings out."""
        ridge = {"ridge_coupling": _FIRST_RIDGE} if ridge_is_open else {}
        without = self.best if self.best is not None else self.score("coupling", {"coupling_ms": 0})
        windows: list[dict[str, Any]] = [{}]
        if window_is_open:
            windows = [{"coupling_ms": n * self.binned.dt_ms, "n_coupling": min(self.model.n_coupling, n)} for n in WINDOW_BINS]
        tried = [(self.score("coupling window", {**window, **ridge}), {**window, **ridge}, len(self.rows) - 1) for window in windows]
        value, option, row = max(tried, key=lambda entry: entry[0])
        if ridge_is_open:
            at = RIDGES.index(_FIRST_RIDGE)
            for step in (1, -1):
                place = at + step
                while 0 <= place < len(RIDGES):
                    trial = {**option, "ridge_coupling": RIDGES[place]}
                    score = self.score("coupling ridge", trial)
                    if score <= value:
                        break
                    value, option, row = score, trial, len(self.rows) - 1
                    place += step
                if option["ridge_coupling"] < _FIRST_RIDGE:
                    break
        if value > without or not window_is_open:
            self.take(option, value, row)
        elif ridge_is_open:
            self.model = replace(self.model, ridge_coupling=option["ridge_coupling"])

    def score(self, stage: str, option: Mapping[str, Any]) -> float:
        """Return the summed log-likelihood of the validation folds, nats over the training folds' constant rate, and note it."""
        model = replace(self.model, **option)
        layout = model.layout(self.binned.info())
        gained, n_spikes, per_fold = 0.0, 0, []
        for number, (train, validation) in enumerate(self.folds):
            quick = replace(layout.model, standard_errors=False, stabilise="off", tolerance=_TOLERANCE)
            given = {
                name: value for name, value in self.starts[number].items() if name in layout.terms and value.shape == layout.shape(name)
            }
            specs = quick.param_specs(train.info())
            init = initial_params(specs, self.context.stream.child("init"), given)
            fold_context = replace(self.context, init=init, checkpoint=lambda step, arrays: None, report=_silent, resume=None)
            params, _ = solve(quick, train, fold_context)
            self.starts[number] = {name: params[name] for name in layout.terms}
            gain, spikes = validation_gain(quick, params, train, validation, self.context)
            gained, n_spikes = gained + gain, n_spikes + spikes
            per_fold.append(gain / max(spikes, 1) / np.log(2))
        row = {
            "stage": stage,
            "settings": dict(option),
            "bits_per_spike": gained / max(n_spikes, 1) / np.log(2),
            "folds": per_fold,
            "taken": False,
        }
        self.rows.append(row)
        self.context.report(len(self.rows), {"bits_per_spike": row["bits_per_spike"]})
        return gained


def _silent(step: int, metrics: Mapping[str, float]) -> None:
    """Report nothing: the passes of one fold are not the search's progress."""


def validation_gain(
    model: CoupledGLM, params: ParamArrays, train: BinnedSpikes, validation: BinnedSpikes, context: SolverContext
) -> tuple[float, int]:
    """Return the log-likelihood of held-out bins over that of the training mean rate, nats, and the number of spikes in them."""
    layout = model.layout(validation.info())
    fixed = {name: params[name] for name in layout.fixed_names}
    problem = Problem(layout, fixed, validation, threads=context.threads, backend=context.backend)
    rows = layout.pack(params)
    objective, _ = problem.evaluate(rows, np.arange(layout.n_neurons))
    log_likelihood = -(objective - 0.5 * (problem.ridge * rows**2).sum(axis=1))
    counts = problem.n_spikes.astype(np.float64)
    # Half a spike where the training folds hold none, so that the comparison stays finite.
    rate = np.maximum(train.counts(scored_only=True).sum(axis=0), 0.5) / max(train.n_scored_bins, 1)
    n_bins = validation.n_scored_bins
    if model.emission == "poisson":
        constant = counts * np.log(rate) - rate * n_bins
    else:
        constant = counts * np.log(rate) + (n_bins - counts) * np.log1p(-np.minimum(rate, 1 - 1e-9))
    return float((log_likelihood - constant).sum()), int(counts.sum())
