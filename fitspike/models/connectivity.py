"""Couplings between recorded neurons: the matrix [post, pre], how sure each entry is, and how it compares with known connections."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.stats import chi2, rankdata

from fitspike.errors import InvalidInputError


@dataclass(frozen=True, eq=False)
class Connectivity:
    """Inferred couplings; rows receive, columns send. Diagonals carry no coupling and are left out of every table and score.

    weight : (n_neurons, n_neurons) [post, pre], each filter summed over its lags, in `unit`
    filters : (n_neurons, n_neurons, n_lags) [post, pre, lag] at lag_ms (n_lags,), or None
    statistic, p_value : (n_neurons, n_neurons), Wald statistic and its p-value; NaN where there is none; None without standard errors
    n_basis : degrees of freedom of the Wald statistic
    note : what to know about the p-values
    """

    weight: np.ndarray
    unit: str = "1"
    filters: np.ndarray | None = None
    lag_ms: np.ndarray | None = None
    statistic: np.ndarray | None = None
    p_value: np.ndarray | None = None
    n_basis: int = 0
    note: str = ""

    def __post_init__(self) -> None:
        shape = np.shape(self.weight)
        if len(shape) != 2 or shape[0] != shape[1]:
            raise InvalidInputError(f"connectivity weight has shape {shape}; expected a square matrix [post, pre].")

    @property
    def n_neurons(self) -> int:
        """Return the number of neurons."""
        return len(self.weight)

    @property
    def off_diagonal(self) -> np.ndarray:
        """Return which entries are pairs of two neurons, (n_neurons, n_neurons) bool."""
        return ~np.eye(self.n_neurons, dtype=bool)

    @property
    def delay_ms(self) -> np.ndarray | None:
        """Return the lag of each filter's largest absolute value, (n_neurons, n_neurons), ms; NaN where the filter is zero."""
        if self.filters is None or self.lag_ms is None:
            return None
        size = np.abs(self.filters)
        return np.where(size.max(axis=2) > 0, self.lag_ms[size.argmax(axis=2)], np.nan)

    @property
    def excitation(self) -> np.ndarray:
        """Return how much each pair looks excitatory, (n_neurons, n_neurons), higher is more.

        The filter's maximum over lags, each lag less its mean over all targets of the same sender: what a sender seems to do to every
        neuron alike is the trace of input they share with it, not of its synapses. Nothing is taken off where a sender has one target.
        """
        if self.filters is None:
            return self.weight
        n = self.n_neurons
        if n < 3:
            return self.filters.max(axis=2)
        shared = np.where(self.off_diagonal[..., None], self.filters, 0.0).sum(axis=0) / (n - 1)
        return (self.filters - shared[None]).max(axis=2)

    @property
    def inhibition(self) -> np.ndarray:
        """Return how much each pair looks inhibitory, (n_neurons, n_neurons): minus the filter's minimum over lags."""
        return -self.weight if self.filters is None else -self.filters.min(axis=2)

    def q_value(self) -> np.ndarray:
        """Return Benjamini-Hochberg adjusted p-values over all pairs, (n_neurons, n_neurons), NaN on the diagonal.

        Raises
        ------
        InvalidInputError
            If the fit kept no standard errors.
        """
        if self.p_value is None:
            raise InvalidInputError(
                f"there are no p-values: {self.note or 'the fit kept no standard errors'}. Fit with standard_errors=True; for "
                "very many neurons also with fewer coupling functions (n_coupling), or choose a part of the neurons."
            )
        q = np.full(self.p_value.shape, np.nan)
        usable = self.off_diagonal & np.isfinite(self.p_value)
        q[usable] = benjamini_hochberg(self.p_value[usable])
        return q

    def significant(self, fdr: float = 0.05) -> np.ndarray:
        """Return which pairs are coupled at a false-discovery rate, (n_neurons, n_neurons) bool."""
        with np.errstate(invalid="ignore"):
            return self.q_value() <= fdr


def from_basis_weights(weights: np.ndarray, extras: Mapping[str, object], *, unit: str = "1") -> Connectivity:
    """Return the couplings of a model whose filters are weighted sums of basis functions of sum 1.

    weights : (n_post, n_pre, n_basis). Of a solver's extras, if there: coupling_basis (n_basis, n_lags) at coupling_lag_ms (n_lags,),
    coupling_covariance (n_post, n_pre, n_basis, n_basis), and the note standard_errors.
    """
    weights = np.asarray(weights, dtype=np.float64)
    basis, covariance = extras.get("coupling_basis"), extras.get("coupling_covariance")
    statistic = p_value = None
    if covariance is not None:
        statistic, p_value = wald_test(weights, np.asarray(covariance))
    return Connectivity(
        weights.sum(axis=2),
        unit,
        None if basis is None else weights @ np.asarray(basis),
        None if basis is None else np.asarray(extras["coupling_lag_ms"]),
        statistic,
        p_value,
        weights.shape[2],
        str(extras.get("standard_errors", "")),
    )


def wald_test(weights: np.ndarray, covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the Wald statistic w' C^-1 w of every pair and its p-value under chi-squared with n_basis degrees of freedom.

    weights : (n_post, n_pre, n_basis); covariance : (n_post, n_pre, n_basis, n_basis). NaN where the covariance is not finite,
    or singular.
    """
    n_basis = weights.shape[-1]
    usable = np.isfinite(covariance).all(axis=(2, 3))
    usable[usable] = np.linalg.matrix_rank(covariance[usable], hermitian=True) == n_basis
    statistic = np.full(usable.shape, np.nan)
    if usable.any():
        w, c = weights[usable], covariance[usable]
        statistic[usable] = np.einsum("pb,pb->p", w, np.linalg.solve(c, w[..., None])[..., 0])
    return statistic, chi2.sf(statistic, n_basis)


def benjamini_hochberg(p_value: np.ndarray) -> np.ndarray:
    """Return p-values adjusted so that q <= alpha controls the false-discovery rate (Benjamini, Hochberg 1995, J. R. Stat. Soc. B)."""
    p = np.asarray(p_value, dtype=np.float64)
    order = np.argsort(p)
    scaled = p[order] * len(p) / np.arange(1, len(p) + 1)
    q = np.empty_like(p)
    q[order] = np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 1.0)
    return q


def roc_auc(is_positive: np.ndarray, score: np.ndarray) -> float:
    """Return the probability that a positive scores above a negative, ties counting half; NaN without either."""
    is_positive = np.asarray(is_positive, dtype=bool)
    n, m = int(is_positive.sum()), int((~is_positive).sum())
    if not n or not m:
        return float("nan")
    ranks = rankdata(score)
    return float((ranks[is_positive].sum() - n * (n + 1) / 2) / (n * m))


def average_precision(is_positive: np.ndarray, score: np.ndarray) -> float:
    """Return the sum over thresholds of (recall step) * precision, entries of equal score taken together; NaN without positives."""
    is_positive = np.asarray(is_positive, dtype=bool)
    if not is_positive.any():
        return float("nan")
    order = np.argsort(-np.asarray(score, dtype=np.float64), kind="stable")
    hits, ordered = np.cumsum(is_positive[order]), np.asarray(score)[order]
    last_of_tie = np.append(np.flatnonzero(np.diff(ordered)), len(ordered) - 1)
    recall = hits[last_of_tie] / is_positive.sum()
    precision = hits[last_of_tie] / (last_of_tie + 1)
    return float((np.diff(recall, prepend=0.0) * precision).sum())


def matthews(is_positive: np.ndarray, is_called: np.ndarray) -> float:
    """Return the Matthews correlation coefficient of calls with the truth; 0 when either is constant."""
    a, b = np.asarray(is_positive, dtype=np.float64), np.asarray(is_called, dtype=np.float64)
    spread = a.std() * b.std()
    return float(((a - a.mean()) * (b - b.mean())).mean() / spread) if spread > 0 else 0.0


def compare_with_truth(found: Connectivity, truth: np.ndarray, *, fdr: float = 0.05) -> Mapping[str, float]:
    """Return how well couplings match known weights [post, pre], off-diagonal pairs only.

    auc, average_precision: excitatory (inhibitory) connections against unconnected pairs. sign_accuracy: sign of the summed weight on
    true connections. mcc, precision, recall: pairs called at the false-discovery rate against connections of either sign, NaN without
    p-values; false_positive_rate: of the unconnected pairs, how many are called. correlation: of summed and true weights over true
    connections. A truth without any connection (a control) leaves only n_called and false_positive_rate; the others are NaN.

    Raises
    ------
    InvalidInputError
        If the truth has another shape, holds NaN off the diagonal, or, without p-values, no connection.
    """
    truth = np.asarray(truth, dtype=np.float64)
    if truth.shape != found.weight.shape:
        raise InvalidInputError(
            f"the truth has shape {truth.shape}, the couplings {found.weight.shape}. Give weights [post, pre] of the fitted neurons."
        )
    pairs = found.off_diagonal
    true, weight = truth[pairs], np.asarray(found.weight)[pairs]
    if not np.isfinite(true).all():
        raise InvalidInputError(
            f"the truth is NaN or infinite for {np.count_nonzero(~np.isfinite(true))} of {true.size} pairs, which would count as neither "
            "connected nor unconnected. Give 0 where there is no connection, or fit only neurons whose connections are known."
        )
    if not true.any() and found.p_value is None:
        raise InvalidInputError(
            "the truth holds no connection, so nothing can be ranked, and without p-values no pair can be called wrongly. "
            "Fit with standard_errors=True; for "
            "very many neurons also with fewer coupling functions (n_coupling), or choose a part of the neurons."
        )
    scores: dict[str, float] = {"n_pairs": int(pairs.sum())}
    for name, sign, score in (("excitatory", 1, found.excitation), ("inhibitory", -1, found.inhibition)):
        kept = (np.sign(true) == sign) | (true == 0)
        scores[f"n_{name}"] = int((np.sign(true) == sign).sum())
        scores[f"auc_{name}"] = roc_auc(np.sign(true[kept]) == sign, score[pairs][kept])
        scores[f"average_precision_{name}"] = average_precision(np.sign(true[kept]) == sign, score[pairs][kept])
    linked = true != 0
    is_right = np.sign(weight[linked]) == np.sign(true[linked])
    scores["sign_accuracy"] = float(is_right.mean()) if linked.any() else float("nan")
    varied = linked.sum() > 1 and np.ptp(true[linked]) > 0 and np.ptp(weight[linked]) > 0
    scores["correlation"] = float(np.corrcoef(weight[linked], true[linked])[0, 1]) if varied else float("nan")
    if found.p_value is None:
        return {**scores, **dict.fromkeys(("mcc", "precision", "recall", "false_positive_rate"), float("nan"))}
    called = found.significant(fdr)[pairs]
    hits = float((called & linked).sum())
    return {
        **scores,
        "n_called": int(called.sum()),
        "mcc": matthews(linked, called) if linked.any() else float("nan"),
        "precision": hits / called.sum() if called.any() and linked.any() else float("nan"),
        "recall": hits / linked.sum() if linked.any() else float("nan"),
        "false_positive_rate": float(called[~linked].mean()) if not linked.all() else float("nan"),
    }
