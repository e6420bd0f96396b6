"""Choice of a coupled GLM's open settings on training data alone: blocked cross-validation, one group of settings after another."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fitspike.models.base import SolverContext
from fitspike.models.glm_folds import Folds, Outcome, evaluate, make_folds, regulated_gains

if TYPE_CHECKING:
    from fitspike.models.coupled_glm import CoupledGLM
    from fitspike.recording.binned import BinnedSpikes

WINDOW_BINS = (10, 30, 100)
SIGNAL_BINS = ((0, 0), (10, 0), (30, 0), (5, 5), (15, 15))
"""How far signal filters reach back and ahead."""

RIDGES = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0)
_FIRST = {"ridge_history": 1.0, "ridge_population": 1.0, "ridge_coupling": 30.0, "ridge_signal": 10.0, "ridge_time": 1.0}
CEILINGS = (0.0, 0.99, 0.999)
TIME_BUMPS = (10, 20, 40)
_FUNCTIONS = ("n_history", "n_population", "n_coupling")  # follow from their windows, and are not shown
_GAINS_S = (0.0, 3.0, 10.0, 30.0)
_LEAST_RISE = 1e-4  # bits per spike by which a step along the ridges must raise the score
_SHORTEST_GAIN_TRIAL_S = 10.0  # in shorter trials there is no slow change to follow

Option = dict[str, Any]


def select(model: CoupledGLM, binned: BinnedSpikes, context: SolverContext) -> tuple[CoupledGLM, Mapping[str, Any]]:
    """Return the model with every open setting fixed, and the table of what was tried.

    Folds are whole trials where there are several, else alternating blocks of time; of long recordings, and of many neurons, a part is used
    (see `make_folds`). Settings are settled one group after another, each by the highest score, and ridges by walking along a row of values
    while the score rises: the signals' window, bumps over time, ridges on signals and time, own-history window and ridge, population
    covariate, coupling window and ridge, the history ridge again, then slow gain and ceiling. What the user set is kept.

    The score is the log-likelihood of the validation folds over the constant rate of the training folds, with the slow gain and the
    ceiling, less what couplings would lose if rates drifted (see `Outcome.drift_loss`). A row of the table holds the first part,
    "bits_per_spike", and the second, "drift_loss", both in bits per spike.
    """
    search = _Search(model, binned, context)
    search.settle_covariates()
    search.settle_history()
    if binned.n_neurons > 1:
        search.settle_population()
        search.settle_coupling()
    search.settle_regulation()
    return search.result()


class _Search:
    """The model as far as it is settled, the folds, and what was tried."""

    def __init__(self, model: CoupledGLM, binned: BinnedSpikes, context: SolverContext) -> None:
        self.begin = time.monotonic()
        self.binned, self.context = binned, context
        self.opened = model.open_settings()
        self.folds = self._make_folds(model)
        long_enough = float(np.median(binned.bins_per_trial)) * binned.dt_ms * 1e-3 >= _SHORTEST_GAIN_TRIAL_S
        self.gains = _GAINS_S if long_enough else (0.0,)
        start: Option = {"history_ms": 0.0, "population_ms": 0.0, "coupling_ms": 0.0, "drift_bumps": 0, "sparsity_coupling": 0.0}
        start |= {"n_time_bumps": TIME_BUMPS[0], "signal_before_ms": 0.0, "signal_after_ms": 0.0}
        start |= {"emission": "poisson", "gain_s": 10.0 if long_enough else 0.0, "ceiling": 0.999, **_FIRST}
        start = {name: value for name, value in start.items() if name in self.opened}
        self.model = replace(replace(model, **start).resolved(binned.info()), n_signal=model.n_signal)
        self.rows: list[dict[str, Any]] = []
        self.tried: dict[str, Outcome] = {}
        self.best: Outcome | None = None

    def _make_folds(self, model: CoupledGLM) -> Folds:
        has_couplings = model.coupling_ms != 0 and self.binned.n_neurons > 1
        lags = 1
        if has_couplings:
            lags = WINDOW_BINS[-1] if model.coupling_ms == "auto" else max(1, round(model.coupling_ms / self.binned.dt_ms))
        n_weights = 1 + model.n_history + model.n_population + (self.binned.n_neurons * model.n_coupling if has_couplings else 0)
        return make_folds(self.binned, lags, n_weights)

    # -- groups of settings ---------------------------------------------------------------------------------------------------------------

    def settle_covariates(self) -> None:
        """Settle the signals' window, the number of bumps over time, and the ridges on signals and on bumps over time."""
        terms = self.model.layout(self.binned.info()).terms
        windows = ("signal_before_ms", "signal_after_ms")
        if "signal" in terms and any(name in self.opened for name in windows):
            options = [{name: n * self.binned.dt_ms for name, n in zip(windows, bins, strict=True)} for bins in SIGNAL_BINS]
            options = [{name: value for name, value in option.items() if name in self.opened} for option in options]
            self.choose("signal window", [option for i, option in enumerate(options) if option not in options[:i]])
        is_timed = "trial_time" in terms or "condition_time" in terms
        if is_timed and "n_time_bumps" in self.opened:
            longest = int((self.binned.trial_bin + self.binned.bins_per_trial).max(initial=0))
            self.choose("time bumps", [{"n_time_bumps": n} for n in TIME_BUMPS if n <= max(longest, TIME_BUMPS[0])])
        for ridge, names in (("ridge_signal", ("signal",)), ("ridge_time", ("trial_time", "condition_time"))):
            if ridge in self.opened and any(name in terms for name in names):
                self.walk(ridge)

    def settle_history(self) -> None:
        """Settle the own-history window and its ridge."""
        if "history_ms" in self.opened:
            self.choose("own history", [{"history_ms": 0.0}, *self.windows("history")])
        if self.model.history_ms and "ridge_history" in self.opened:
            self.walk("ridge_history")

    def settle_population(self) -> None:
        """Settle whether the summed count of the others is a covariate."""
        if "population_ms" in self.opened:
            options = self.windows("population", at=self.model.history_ms or self.binned.dt_ms * WINDOW_BINS[1])
            self.choose("population", [{"population_ms": 0.0}, *options])

    def settle_coupling(self) -> None:
        """Settle the coupling window and ridge, then the history ridge once more, since couplings take over part of what it did.

        Couplings are left out if they do not help under the ridge that suits them best.
        """
        windows = self.windows("coupling") if "coupling_ms" in self.opened else []
        if windows:
            alone, without, row = self.model, self.try_out("coupling", {"coupling_ms": 0.0}), len(self.rows) - 1
            self.choose("coupling", windows)
        if self.model.coupling_ms and "ridge_coupling" in self.opened:
            self.walk("ridge_coupling")
        if windows and self.best.score <= without.score:
            self.model = alone
            for later in self.rows[row:]:
                later["taken"] = False
            self.take({"coupling_ms": 0.0}, without, row)
        elif self.model.coupling_ms and self.model.history_ms and "ridge_history" in self.opened:
            self.walk("ridge_history", " again")

    def settle_regulation(self) -> None:
        """Settle slow gain and ceiling, for which nothing has to be fitted again."""
        gains = self.gains if "gain_s" in self.opened else (self.model.gain_s,)
        ceilings = CEILINGS if "ceiling" in self.opened else (self.model.ceiling,)
        if len(gains) * len(ceilings) < 2:
            return
        outcome = self.best or self.evaluate({})
        options = [{"gain_s": gain, "ceiling": ceiling} for gain in gains for ceiling in ceilings]
        gains = regulated_gains([replace(self.model, **option) for option in options], outcome, self.folds, self.context)
        best = int(np.argmax(gains.sum(axis=1)))
        for i, (option, gain) in enumerate(zip(options, gains, strict=True)):
            self.note("gain, ceiling", option, replace(outcome, gain=gain))
            self.rows[-1]["taken"] = i == best
        self.model = replace(self.model, **options[best])

    def windows(self, term: str, *, at: float | None = None) -> list[Option]:
        """Return the windows to try for a term (or the one of `at` ms), none longer than a third of the typical trial.

        A term gets no more functions than bins. Exponential filters share their time constants: theirs is the first term's window.
        """
        n_basis = getattr(self.model, f"n_{term}")
        longest = max(float(np.median(self.binned.bins_per_trial)) / 3.0, WINDOW_BINS[0])
        lengths = WINDOW_BINS if at is None else (round(at / self.binned.dt_ms),)
        before = [name for name in ("history", "population", "coupling") if name != term and getattr(self.model, f"{name}_ms")]
        if self.model.basis == "exponential" and before:
            n_basis = getattr(self.model, f"n_{before[0]}")
            lengths = (round(getattr(self.model, f"{before[0]}_ms") / self.binned.dt_ms),)
        lengths = [n for n in lengths if n <= longest]
        return [{f"{term}_ms": n * self.binned.dt_ms, f"n_{term}": min(n_basis, n)} for n in lengths] if n_basis else []

    # -- moves ----------------------------------------------------------------------------------------------------------------------------

    def choose(self, stage: str, options: Sequence[Option]) -> None:
        """Settle on the option with the highest score; the first wins ties."""
        first = len(self.rows)
        outcomes = [self.try_out(stage, option) for option in options]
        best = max(range(len(options)), key=lambda i: outcomes[i].score)
        self.take(options[best], outcomes[best], first + best)

    def walk(self, ridge: str, again: str = "") -> None:
        """Settle a ridge by walking from its present value to stronger or weaker ones while the score rises."""
        stage = ridge.replace("_", " on ") + again
        start = int(np.argmin(np.abs(np.log(np.asarray(RIDGES) / getattr(self.model, ridge)))))
        option, row = {ridge: getattr(self.model, ridge)}, len(self.rows)
        best = self.try_out(stage, option)
        for step in (1, -1):
            at = start + step
            while 0 <= at < len(RIDGES):
                outcome = self.try_out(stage, {ridge: RIDGES[at]})
                if outcome.score <= best.score + _LEAST_RISE * np.log(2) * outcome.n_spikes.sum():
                    break
                best, option, row = outcome, {ridge: RIDGES[at]}, len(self.rows) - 1
                at += step
            if at != start + step:
                break
        self.take(option, best, row)

    def try_out(self, stage: str, option: Option) -> Outcome:
        """Return how a change of the model as settled does on the folds, and note it."""
        outcome = self.evaluate(option)
        self.note(stage, {name: value for name, value in option.items() if name not in _FUNCTIONS}, outcome)
        return outcome

    def evaluate(self, option: Option) -> Outcome:
        """Return how a change of the model as settled does on the folds; each is fitted once."""
        model = replace(self.model, **option)
        key = repr(tuple(getattr(model, name) for name in (*self.opened, "n_history", "n_population", "n_coupling", "n_signal")))
        if key not in self.tried:
            self.tried[key] = evaluate(model, self.folds, self.context, start=self.best)
        return self.tried[key]

    def take(self, option: Option, outcome: Outcome, row: int) -> None:
        """Make an option part of the model."""
        self.model, self.best = replace(self.model, **option), outcome
        self.rows[row]["taken"] = True

    # -- table ----------------------------------------------------------------------------------------------------------------------------

    def note(self, stage: str, settings: Option, outcome: Outcome) -> None:
        """Add a row to the table and report it."""
        total = float(outcome.gain.sum() / max(outcome.n_spikes.sum(), 1) / np.log(2))
        row = {
            "stage": stage,
            "settings": {name: _plain(value) for name, value in settings.items()},
            "bits_per_spike": total,
            "drift_loss": float(outcome.drift_loss / max(outcome.n_spikes.sum(), 1) / np.log(2)),
            "folds": (outcome.gain / np.maximum(outcome.n_spikes, 1) / np.log(2)).tolist(),
            "taken": False,
        }
        self.rows.append(row)
        self.context.report(len(self.rows), {"bits_per_spike": total})

    def result(self) -> tuple[CoupledGLM, Mapping[str, Any]]:
        """Return the settled model and the table."""
        table = {
            "method": f"cross-validation on training data: {self.folds.description}",
            "rows": self.rows,
            "chosen": {name: _plain(getattr(self.model, name)) for name in sorted(self.opened)},
            "seconds": round(time.monotonic() - self.begin, 1),
        }
        return self.model, table


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
