"""How a coupled GLM with given settings does on folds of training data: fits, drives on the validation part, score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from fitspike.errors import InvalidInputError
from fitspike.kernels.coupled_drive import Regulation
from fitspike.models.base import SolverContext
from fitspike.models.glm_problem import Problem
from fitspike.models.glm_regulation import make_regulation, regulated, training_ceiling
from fitspike.models.glm_solver import solve
from fitspike.params import initial_params
from fitspike.types import ParamArrays

if TYPE_CHECKING:
    from fitspike.models.coupled_glm import CoupledGLM
    from fitspike.recording.binned import BinnedSpikes

Fold = tuple["BinnedSpikes", "BinnedSpikes"]
"""(training, validation)"""


DRIFT = 1.0
"""Standard deviation of the log of the factor by which a neuron's rate may change between training and use."""

_N_FOLDS = 3
_LEAST_BINS = 18
_WARM_UP_BINS = 100
_TOLERANCE = 1e-5
_LARGEST_PASS = 2e9  # multiply-adds at spikes in one pass over the training data
_LARGEST_DRIVES = 2e7  # bins times target neurons
_LARGEST_METRIC = 6e10  # multiply-adds of the inverses of all targets' Hessians
_LEAST_TARGETS = 32
_N_STRETCHES, _LEAST_STRETCHES = 12, 4  # of all trials together, and of each
_SPAN_VALUES = 8_000_000


@dataclass(frozen=True, eq=False)
class Outcome:
    """A model on the folds.

    gain (n_folds,): log-likelihood of the targets' validation bins, with slow gain and ceiling, over that of the training folds' constant
    rate, nats. n_spikes (n_folds,): in the validation bins. params: the weights of each fold.

    drift_loss, nats: what couplings would lose if every sender's rate had changed by an own random factor, of log standard deviation
    `DRIFT`: to second order DRIFT^2 / 2 * sum of expected counts * sum over senders of (their part of the drive)^2. With a slow gain,
    which takes up changes of the mean drive, the variance of the part stands for its mean square. Folds cannot show this loss where the
    training data come from one state of the preparation, and use is in another.
    """

    gain: np.ndarray
    n_spikes: np.ndarray
    drift_loss: float
    params: tuple[ParamArrays, ...]

    @property
    def score(self) -> float:
        """Return what candidates are compared by, nats."""
        return float(self.gain.sum()) - self.drift_loss


@dataclass(frozen=True, eq=False)
class _Validation:
    """Drives and counts of all validation bins (n_bins, n_neurons) float32, scored bins, trials' edges, bin width.

    ceilings: per quantile, (n_neurons,), from the training part. constant (n_neurons,): expected count of the training mean.
    """

    drives: np.ndarray
    counts: np.ndarray
    scored: np.ndarray
    trial_edge: np.ndarray
    dt_ms: float
    ceilings: dict[float, np.ndarray]
    constant: np.ndarray


@dataclass(frozen=True, eq=False)
class Folds:
    """The folds, the target neurons that are fitted and judged on them, (n_targets,) rows, and what both are in words."""

    pairs: list[Fold]
    targets: np.ndarray
    description: str


def make_folds(binned: BinnedSpikes, lags: int, n_weights: int) -> Folds:
    """Return the folds for models whose spikes reach over `lags` bins and whose targets have up to `n_weights` weights.

    Whole trials where there are several, else alternating blocks of time. Where fits of all targets would take long, targets spread evenly
    from the slowest to the fastest stand for all (each with all its senders), and where one pass over all data would take more than some
    seconds, stretches spread over the recording stand for it.

    Raises
    ------
    InvalidInputError
        If there are too few bins.
    """
    targets = _spread_targets(binned, int(max(_LARGEST_METRIC / n_weights**3, _LEAST_TARGETS)))
    text = "" if len(targets) == binned.n_neurons else f", for {len(targets)} of {binned.n_neurons} neurons"
    cost = max(binned.n_spikes * lags * len(targets) / _LARGEST_PASS, binned.n_bins_total * len(targets) / _LARGEST_DRIVES)
    if cost > 1.0:
        binned, text = thinned(binned, cost), f"{text}, on {1.0 / cost:.2g} of the data in stretches spread evenly"
    several = binned.n_trials > 1
    n_folds = min(_N_FOLDS, binned.n_trials) if several else _N_FOLDS
    if not several and binned.n_bins_total < _LEAST_BINS:
        raise InvalidInputError(
            f"{binned.n_bins_total} training bins in one trial are too few to choose settings on folds; expected at least {_LEAST_BINS}. "
            "Use narrower bins or more data, or take the defaults with selection=False (--no-selection)."
        )
    gap = 0 if several else int(min(_WARM_UP_BINS, binned.bins_per_trial[0] // (12 * n_folds)))
    description = f"{n_folds} folds, blocked by {'trial' if several else 'time'}{text}"
    return Folds(binned.folds(n_folds, gap_bins=gap), targets, description)


def _spread_targets(binned: BinnedSpikes, n_most: int) -> np.ndarray:
    """Return all neurons, or `n_most` of those that fire, spread evenly over their ranks by rate."""
    if binned.n_neurons <= n_most:
        return np.arange(binned.n_neurons)
    counts = binned.counts(scored_only=True).sum(axis=0)
    order = np.argsort(counts, kind="stable")[(counts == 0).sum() :]
    return np.sort(order[np.unique(np.linspace(0, max(len(order) - 1, 0), n_most).round().astype(np.int64))]) if len(order) else order


def thinned(binned: BinnedSpikes, factor: float) -> BinnedSpikes:
    """Return about 1 / factor of the data: every so many trials of each condition, or, of fewer trials, stretches of each."""
    n_kept = int(binned.n_trials / factor)
    if n_kept >= _N_FOLDS:
        by_condition = np.argsort(binned.conditions, kind="stable")
        return binned.select_trials(np.sort(by_condition[np.linspace(0, binned.n_trials - 1, n_kept).round().astype(np.int64)]))
    pieces = []
    n_parts = max(_LEAST_STRETCHES, _N_STRETCHES // binned.n_trials)
    for trial in range(binned.n_trials):
        length = int(binned.bins_per_trial[trial]) // n_parts
        used = max(1, int(length / factor))
        pieces += [(trial, part * length, part * length + used, min(_WARM_UP_BINS, used // 10)) for part in range(n_parts)]
    return binned.pieces(pieces)


def evaluate(model: CoupledGLM, folds: Folds, context: SolverContext, *, start: Outcome | None = None) -> Outcome:
    """Return how a model without open settings does on the folds; `start` is an outcome whose weights are near."""
    quick = replace(model, standard_errors=False, stabilise="off", tolerance=_TOLERANCE, precision="float32", ceiling=0.0, gain_s=0.0)
    params, gains, losses = [], [], []
    for number, (training, validation) in enumerate(folds.pairs):
        layout = quick.layout(training.info())
        near = {} if start is None else start.params[number]
        near = {name: value for name, value in near.items() if name in layout.terms and value.shape == layout.shape(name)}
        init = initial_params(quick.param_specs(training.info()), context.stream.child("init"), near)
        quiet = replace(context, init=init, checkpoint=lambda step, arrays: None, report=lambda step, metrics: None, resume=None)
        fitted, _ = solve(quick, training, quiet, targets=folds.targets)
        losses.append(drift_loss(quick, fitted, (training, validation), folds.targets, context, is_centred=bool(model.gain_s)))
        gains.append(_gains(_validate(quick, fitted, (training, validation), folds.targets, [model.ceiling], context), [model])[0])
        params.append(fitted)
    n_spikes = np.array([int(validation.counts(scored_only=True)[:, folds.targets].sum()) for _, validation in folds.pairs])
    return Outcome(np.array(gains), n_spikes, float(sum(losses)), tuple(params))


def regulated_gains(models: Sequence[CoupledGLM], outcome: Outcome, folds: Folds, context: SolverContext) -> np.ndarray:
    """Return the gains of weights that are fitted already under the slow gain and ceiling of several models, (n_models, n_folds) nats."""
    quick = replace(models[0], precision="float32", ceiling=0.0, gain_s=0.0)
    quantiles = sorted({model.ceiling for model in models})
    columns = [
        _gains(_validate(quick, params, fold, folds.targets, quantiles, context), models)
        for params, fold in zip(outcome.params, folds.pairs, strict=True)
    ]
    return np.array(columns).T


def _gains(fold: _Validation, models: Sequence[CoupledGLM]) -> list[float]:
    """Return the gain of one fold under each model's slow gain and ceiling, nats."""
    emission, n, counts = models[0].emission, fold.drives.shape[1], fold.counts[fold.scored]
    constant = np.log(fold.constant) if emission == "poisson" else np.log(fold.constant / (1.0 - fold.constant))
    null = _log_likelihood(constant[None], counts, emission)
    gains = []
    for model in models:
        regulation = make_regulation(model, fold.ceilings[model.ceiling] if model.ceiling else None, n, fold.dt_ms)
        gains.append(_log_likelihood(_regulated_drives(fold, regulation, emission)[fold.scored], counts, emission) - null)
    return gains


def _regulated_drives(fold: _Validation, regulation: Regulation | None, emission: str) -> np.ndarray:
    """Return the drives of all validation bins after ceiling and slow gain, which starts anew in each trial."""
    if regulation is None:
        return fold.drives
    low = np.minimum(fold.drives, regulation.ceiling)
    if not regulation.fade:
        return low
    result = np.empty_like(low)
    for first, stop in zip(fold.trial_edge[:-1], fold.trial_edge[1:], strict=True):
        part, nothing = slice(first, stop), np.zeros((1, 2, low.shape[1]))
        result[part] = regulated(low[None, part], fold.counts[None, part], regulation, nothing, emission)[0]
    return result


def _log_likelihood(drive: np.ndarray, counts: np.ndarray, emission: str) -> float:
    """Return the summed log-likelihood without the counts' factorials, nats."""
    rest = np.exp(np.minimum(drive, 50.0)) if emission == "poisson" else np.logaddexp(0.0, drive)
    total = (counts * drive).sum(dtype=np.float64) - np.broadcast_to(rest, counts.shape).sum(dtype=np.float64)
    return float(total)


def _validate(
    model: CoupledGLM, params: ParamArrays, fold: Fold, targets: np.ndarray, quantiles: Sequence[float], context: SolverContext
) -> _Validation:
    """Return what the targets' weights say about the validation part of a fold, and ceilings from its training part."""
    training, validation = fold
    trained, problem = (_problem(model, params, part, context) for part in fold)
    rows = problem.layout.pack(params)
    drives = [problem.drives(rows[targets], targets, span).astype(np.float32, copy=False) for span in _spans(problem)]
    # Half a spike, or half a bin without one, where the training folds hold none, so that the comparison stays finite.
    n_bins = max(training.n_scored_bins, 1)
    constant = np.maximum(training.counts(scored_only=True).sum(axis=0)[targets], 0.5) / n_bins
    if model.emission == "bernoulli":
        constant = np.minimum(constant, 1.0 - 0.5 / n_bins)
    return _Validation(
        np.concatenate(drives),
        problem.dense_counts(range(validation.n_bins_total), targets).astype(np.float32),
        validation.scored,
        validation.trial_offset,
        validation.dt_ms,
        {quantile: training_ceiling(trained, rows, quantile, targets) for quantile in quantiles if quantile},
        constant,
    )


def drift_loss(
    model: CoupledGLM,
    params: ParamArrays,
    fold: Fold,
    targets: np.ndarray,
    context: SolverContext,
    *,
    is_centred: bool,
) -> float:
    """Return the loss of one fold's validation part, nats, by the variance of senders' parts or their mean square; see `Outcome`."""
    training, validation = fold
    problem = _problem(model, params, training, context)
    basis = problem.layout.coupling
    if basis is None:
        return 0.0
    moment, mean, n_bins = np.zeros((training.n_neurons, basis.n_basis, basis.n_basis)), np.zeros((training.n_neurons, basis.n_basis)), 0
    for span in _spans(problem, most=8):
        values = problem.features(span)["coupling"]
        moment += np.einsum("tja,tjb->jab", values, values, optimize=True)
        mean += values.sum(axis=0)
        n_bins += len(span)
    moment, mean = moment / max(n_bins, 1), mean / max(n_bins, 1)
    if is_centred:
        moment -= mean[:, :, None] * mean[:, None, :]
    weight = (params["coupling"] * (1.0 - np.eye(training.n_neurons))[:, :, None])[targets]
    square = np.einsum("ija,jab,ijb->i", weight, moment, weight, optimize=True)
    return float(0.5 * DRIFT**2 * (validation.counts(scored_only=True).sum(axis=0)[targets] * square).sum())


def _problem(model: CoupledGLM, params: ParamArrays, binned: BinnedSpikes, context: SolverContext) -> Problem:
    layout = model.layout(binned.info())
    fixed = {name: params[name] for name in layout.fixed_names}
    return Problem(layout, fixed, binned, dtype="float32", threads=context.threads, backend=context.backend)


def _spans(problem: Problem, most: int | None = None) -> list[range]:
    """Return stretches of bins whose features fit the memory, all of them or `most` spread evenly."""
    n_bins = problem.binned.n_bins_total
    length = max(256, _SPAN_VALUES // (problem.layout.n_weights + problem.layout.n_neurons * problem.layout.model.n_history))
    first = np.arange(0, n_bins, length)
    if most is not None and len(first) > most:
        first = first[np.unique(np.linspace(0, len(first) - 1, most).round().astype(np.int64))]
    return [range(int(at), min(int(at) + length, n_bins)) for at in first]
