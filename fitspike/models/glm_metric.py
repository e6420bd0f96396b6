"""The metric in which many target neurons are fitted at once: an approximate Hessian from one shared Gram matrix of features."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve

from fitspike.models.glm_covariates import summed_counts
from fitspike.models.glm_information import sampled_information
from fitspike.models.glm_parallel import in_threads
from fitspike.models.glm_problem import Problem
from fitspike.rng import Stream

_INVERSE_BYTES = 400e6  # each target gets its own inverse up to this size of all of them together
_SAMPLES_PER_WEIGHT, _LEAST_SAMPLES = 20, 4000
_JITTER = 1e-9  # of the mean diagonal: features that never vary would make the matrix singular


@dataclass(frozen=True, eq=False)
class Metric:
    """Inverses of M_n = (spikes of n) * (mean outer product of n's features) + ridge, up to what is shared between targets.

    For a rate that hardly varies this is the Hessian of the Poisson log-likelihood. Either `own` (n_targets, n_weights, n_weights) holds
    each target's inverse, or `shared` one for all, of the matrix per spike, with own-history blocks (n_targets, n_history, n_history).
    """

    own: np.ndarray | None
    shared: np.ndarray | None
    history: np.ndarray | None
    history_columns: slice
    n_spikes: np.ndarray
    free: np.ndarray

    def apply(self, vectors: np.ndarray, at: np.ndarray) -> np.ndarray:
        """Return M^-1 v for the targets numbered `at`, (len(at), n_weights)."""
        if self.own is not None:
            return np.matmul(self.own[at], vectors[:, :, None])[:, :, 0]
        result = (vectors @ self.shared) / self.n_spikes[at, None]
        if self.history is not None:
            result[:, self.history_columns] = np.matmul(self.history[at], vectors[:, self.history_columns, None])[:, :, 0]
        return result * self.free[at]


@dataclass(frozen=True, eq=False)
class Gram:
    """The mean outer product of all features (n_features, n_features), and where each target's weights are in it.

    `place` (n_targets, n_weights): the feature of every weight. n_spikes (n_targets,), at least 1.
    """

    matrix: np.ndarray
    place: np.ndarray
    n_spikes: np.ndarray


def make_gram(problem: Problem, targets: np.ndarray) -> Gram:
    """Return the Gram matrix for some targets, from as many bins as it needs, spread over the recording."""
    layout = problem.layout
    n_shared = 1 + layout.n_covariates
    n_history = layout.history.n_basis if layout.history is not None else 0
    n_coupling = layout.n_neurons * layout.coupling.n_basis if layout.coupling is not None else 0
    is_same = bool(n_history and n_coupling) and _same_basis(layout.history, layout.coupling)
    matrix = _mean_outer_product(problem, n_shared + n_coupling + (0 if is_same else layout.n_neurons * n_history), is_same)
    first_history = n_shared + (0 if is_same else n_coupling)
    place = np.concatenate([np.arange(n_shared), np.zeros(n_history, np.int64), n_shared + np.arange(n_coupling)])
    place = np.repeat(place[None].astype(np.int64), len(targets), axis=0)
    place[:, n_shared : n_shared + n_history] = first_history + targets[:, None] * n_history + np.arange(n_history)
    return Gram(matrix, place, np.maximum(problem.n_spikes[targets], 1.0))


def make_metric(problem: Problem, targets: np.ndarray) -> Metric:
    """Return the metric for some targets."""
    gram = make_gram(problem, targets)
    matrix, place, n_spikes = gram.matrix, gram.place, gram.n_spikes
    n, n_weights = place.shape
    free, ridge = problem.layout.free[targets], problem.ridge[targets]
    history = problem.layout.terms.get("history")
    columns = history.columns if history is not None else slice(0, 0)
    if n * n_weights**2 * 8 <= _INVERSE_BYTES:
        own = np.zeros((n, n_weights, n_weights))

        def invert(i: int) -> None:
            keep = np.flatnonzero(free[i])
            at = place[i, keep]
            own[i][np.ix_(keep, keep)] = _inverse(n_spikes[i] * matrix[np.ix_(at, at)] + np.diag(ridge[i, keep]))

        in_threads(invert, range(n), problem.threads)
        return Metric(own, None, None, columns, n_spikes, free)
    keep = np.ones(n_weights, dtype=bool)
    keep[columns] = False
    at = place[0, keep]
    shared = np.zeros((n_weights, n_weights))
    typical = np.median(ridge / n_spikes[:, None], axis=0)
    shared[np.ix_(keep, keep)] = _inverse(matrix[np.ix_(at, at)] + np.diag(typical[keep]))
    blocks = None
    if history is not None:
        parts = zip(n_spikes, place[:, columns], ridge[:, columns], strict=True)
        blocks = np.stack([_inverse(spikes * matrix[np.ix_(at, at)] + np.diag(r)) for spikes, at, r in parts])
    return Metric(None, shared, blocks, columns, n_spikes, free)


def n_metric_samples(n_weights: int) -> int:
    """Return from how many bins the metric of one target is renewed."""
    return max(_SAMPLES_PER_WEIGHT * n_weights, _LEAST_SAMPLES)


def renewed(problem: Problem, metric: Metric, rows: np.ndarray, targets: np.ndarray, at: np.ndarray, stream: Stream) -> None:
    """Put the information at `rows` (len(at), n_weights), from a sample of bins, into the metric of the targets numbered `at`."""
    assert metric.own is not None
    n_samples = n_metric_samples(rows.shape[1])
    for number, (information, _) in zip(at, sampled_information(problem, rows, targets[at], n_samples, stream), strict=True):
        metric.own[number] = information + np.diag(problem.ridge[targets[number]])

    def invert(number: int) -> None:
        keep = np.flatnonzero(metric.free[number])
        inverse = _inverse(metric.own[number][np.ix_(keep, keep)])
        metric.own[number] = 0.0
        metric.own[number][np.ix_(keep, keep)] = inverse

    in_threads(invert, at, problem.threads)


def _same_basis(one, other) -> bool:
    if one.decay is not None:
        return np.array_equal(one.decay, other.decay)
    return one.values.shape == other.values.shape and np.array_equal(one.values, other.values)


def _mean_outer_product(problem: Problem, n_features: int, is_same: bool) -> np.ndarray:
    """Return the mean outer product of all features, (n_features, n_features): shared ones, coupling, then history.

    Bins weigh by half their share of all spikes and half equally: where the population is active rates are higher, and the Hessian
    weighs bins by rate.
    """
    total = summed_counts(problem.binned)
    mean = total.mean() or 1.0

    def summed(spans: list[range]) -> tuple[np.ndarray, float]:
        gram, weight_sum = np.zeros((n_features, n_features)), 0.0
        for span in spans:
            parts = problem.features(span, dtype="float32")
            columns = [np.ones((len(span), 1), np.float32), parts["covariates"]]
            if "coupling" in parts:
                columns.append(parts["coupling"].reshape(len(span), -1))
            if "history" in parts and not is_same:
                columns.append(parts["history"].reshape(len(span), -1))
            features = np.concatenate(columns, axis=1)
            weight = (0.5 + 0.5 * total[span.start : span.stop] / mean) * problem.binned.scored[span.start : span.stop]
            features *= np.sqrt(weight, dtype=np.float32)[:, None]
            gram += features.T @ features
            weight_sum += weight.sum()
        return gram, weight_sum

    spans = _sampled_spans(problem, n_features)
    grams, weight_sums = zip(
        *in_threads(summed, [spans[i :: problem.threads] for i in range(problem.threads)], problem.threads), strict=True
    )
    return sum(grams) / max(sum(weight_sums), 1.0)


def _sampled_spans(problem: Problem, n_features: int) -> list[range]:
    """Return stretches of bins, spread evenly, with about 20 bins per feature in all."""
    n_bins = problem.binned.n_bins_total
    length = int(np.clip(8_000_000 // n_features, 1024, 16384))
    n_all = -(-n_bins // length)
    n_spans = min(n_all, max(8, -(-20 * n_features // length)))
    chosen = np.unique(np.linspace(0, n_all - 1, n_spans).round().astype(np.int64))
    return [range(int(i) * length, min((int(i) + 1) * length, n_bins)) for i in chosen]


def _inverse(matrix: np.ndarray) -> np.ndarray:
    """Return the inverse of a positive matrix, made so by a little jitter where features never vary or depend on each other."""
    if not len(matrix):
        return matrix
    return cho_solve(positive_factor(matrix, max(_JITTER * np.trace(matrix) / len(matrix), 1e-12)), np.eye(len(matrix)))


def positive_factor(matrix: np.ndarray, jitter: float) -> tuple[np.ndarray, bool]:
    """Return the Cholesky factor of a matrix that is positive but for rounding, with as much jitter on its diagonal as that takes."""
    while True:
        try:
            return cho_factor(matrix + np.diag(np.full(len(matrix), jitter)), lower=True)
        except LinAlgError:
            jitter *= 100.0
