"""The metric in which many target neurons are fitted at once: an approximate Hessian from one shared Gram matrix of features."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from fitspike.models.glm_covariates import summed_counts
from fitspike.models.glm_problem import Problem

_INVERSE_BYTES = 400e6  # each target gets its own inverse up to this size of all of them together
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


def make_metric(problem: Problem, targets: np.ndarray) -> Metric:
    """Return the metric for some targets; the Gram matrix is taken from as many bins as it needs, spread over the recording."""
    layout, terms = problem.layout, problem.layout.terms
    n, n_neurons, n_weights = len(targets), layout.n_neurons, layout.n_weights
    n_shared = 1 + layout.n_covariates
    n_history = layout.history.n_basis if layout.history is not None else 0
    is_same = n_history and layout.coupling is not None and _same_basis(layout.history, layout.coupling)
    n_coupling = n_neurons * layout.coupling.n_basis if layout.coupling is not None else 0
    n_features = n_shared + n_coupling + (0 if is_same else n_neurons * n_history)
    gram = _gram(problem, n_features, is_same)
    n_spikes = np.maximum(problem.n_spikes[targets], 1.0)
    free, ridge = layout.free[targets], problem.ridge[targets]

    def history_at(target: int) -> np.ndarray:
        if is_same:
            return n_shared + target * n_history + np.arange(n_history)
        return n_shared + n_coupling + target * n_history + np.arange(n_history)

    columns = terms["history"].columns if n_history else slice(0, 0)
    if n * n_weights**2 * 8 <= _INVERSE_BYTES:
        own = np.zeros((n, n_weights, n_weights))
        for i, target in enumerate(targets):
            place = np.concatenate([np.arange(n_shared), history_at(target) if n_history else [], n_shared + np.arange(n_coupling)])
            place = place.astype(np.int64)
            keep = np.flatnonzero(free[i])
            matrix = n_spikes[i] * gram[np.ix_(place[keep], place[keep])] + np.diag(ridge[i, keep])
            own[i][np.ix_(keep, keep)] = _inverse(matrix)
        return Metric(own, None, None, columns, n_spikes, free)
    keep = np.concatenate([np.arange(n_shared), n_shared + np.arange(n_coupling)])
    in_row = np.concatenate([np.arange(n_shared), np.arange(n_weights - n_coupling, n_weights)])
    shared = np.zeros((n_weights, n_weights))
    typical = np.median(ridge / n_spikes[:, None], axis=0)
    shared[np.ix_(in_row, in_row)] = _inverse(gram[np.ix_(keep, keep)] + np.diag(typical[in_row]))
    history = None
    if n_history:
        history = np.stack(
            [
                _inverse(s * gram[np.ix_(history_at(t), history_at(t))] + np.diag(r[columns]))
                for s, t, r in zip(n_spikes, targets, ridge, strict=True)
            ]
        )
    return Metric(None, shared, history, columns, n_spikes, free)


def _same_basis(one, other) -> bool:
    if one.decay is not None:
        return np.array_equal(one.decay, other.decay)
    return one.values.shape == other.values.shape and np.array_equal(one.values, other.values)


def _gram(problem: Problem, n_features: int, is_same: bool) -> np.ndarray:
    """Return the mean outer product of all features, (n_features, n_features): shared ones, coupling, then history.

    Bins weigh by half their share of all spikes and half equally: where the population is active rates are higher, and the Hessian
    weighs bins by rate.
    """
    total = summed_counts(problem.binned)
    mean = total.mean() or 1.0
    gram, weight_sum = np.zeros((n_features, n_features)), 0.0
    for span in _sampled_spans(problem, n_features):
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
    return gram / max(weight_sum, 1.0)


def _sampled_spans(problem: Problem, n_features: int) -> list[range]:
    """Return stretches of bins, spread evenly, with about 20 bins per feature in all."""
    n_bins = problem.binned.n_bins_total
    length = int(np.clip(8_000_000 // n_features, 1024, 16384))
    n_all = -(-n_bins // length)
    n_spans = min(n_all, max(8, -(-20 * n_features // length)))
    chosen = np.unique(np.linspace(0, n_all - 1, n_spans).round().astype(np.int64))
    return [range(int(i) * length, min((int(i) + 1) * length, n_bins)) for i in chosen]


def _inverse(matrix: np.ndarray) -> np.ndarray:
    """Return the inverse of a positive matrix, made so by a little jitter where features never vary."""
    if not len(matrix):
        return matrix
    jitter = _JITTER * np.trace(matrix) / len(matrix)
    return cho_solve(cho_factor(matrix + np.diag(np.full(len(matrix), max(jitter, 1e-12))), lower=True), np.eye(len(matrix)))
