"""The penalised negative log-likelihood of a coupled GLM on binned spikes, its gradient and its Hessian, for any target neurons."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import numpy as np
from scipy.special import gammaln

from fitspike.kernels.filtered_counts import filtered_counts
from fitspike.kernels.point_process import Events, FilterState, SpikeFilters, likelihood_gradient
from fitspike.models.bases import LagBasis
from fitspike.models.glm_layout import Layout
from fitspike.models.glm_parallel import in_threads
from fitspike.models.glm_shared import SharedCovariates
from fitspike.recording.binned import BinnedSpikes
from fitspike.types import ParamArrays

_RANGE_VALUES = 4_000_000  # bins times targets (or covariates) driven in one call
_FEATURE_VALUES = 1_500_000  # bins times features held at once for Hessians: products of arrays that fit the cache


def event_arrays(binned: BinnedSpikes) -> Events:
    """Return the spikes of a recording as the kernels take them."""
    edge = binned.trial_offset
    return Events(
        binned.row_pointer,
        binned.event_neuron,
        binned.event_count,
        edge,
        np.minimum(edge[:-1] + binned.warmup_bins, edge[1:]),
        binned.n_neurons,
    )


class Problem:
    """One objective per target neuron: summed negative log-likelihood (without the counts' factorials) + 0.5 * ridge * squared weights.

    Weights are rows (n_targets, n_weights) as `Layout` describes them. Nothing of the size bins x neurons x lags is ever held.
    """

    def __init__(
        self, layout: Layout, fixed: ParamArrays, binned: BinnedSpikes, *, dtype: str = "float64", threads: int = 1, backend: str = "auto"
    ) -> None:
        self.layout, self.fixed, self.binned = layout, fixed, binned
        self.dtype, self.threads, self.backend = dtype, threads, backend
        self.events = event_arrays(binned)
        self.ridge = layout.ridge()
        self.emission = layout.model.emission
        self.shared = SharedCovariates(layout, fixed, binned, dtype)

    @cached_property
    def n_spikes(self) -> np.ndarray:
        """Return each neuron's spike count in scored bins, (n_neurons,)."""
        return self.binned.counts(scored_only=True).sum(axis=0)

    @cached_property
    def log_factorials(self) -> np.ndarray:
        """Return the sum of log(count!) over scored bins, (n_neurons,): what the objective leaves out for Poisson counts."""
        result = np.zeros(self.layout.n_neurons)
        if self.binned.event_count is not None and self.emission == "poisson":
            bins = np.repeat(self.binned.scored, np.diff(self.binned.row_pointer))
            np.add.at(result, self.binned.event_neuron[bins], gammaln(self.binned.event_count[bins] + 1.0))
        return result

    # -- filters --------------------------------------------------------------------------------------------------------------------------

    def filters(self, rows: np.ndarray, targets: np.ndarray) -> SpikeFilters:
        """Return what spikes add to the targets' drives under rows of weights."""
        own, pair, decay = spike_filters(self.layout, rows, targets, float(self.fixed.get("population_scale", [1.0])[0]))
        return SpikeFilters(own, pair, decay)

    def _ranges(self, n_values: int, limit: int = _RANGE_VALUES) -> Iterator[range]:
        """Yield stretches of bins short enough for `n_values` numbers per bin."""
        length = max(1024, limit // max(n_values, 1))
        for first in range(0, self.binned.n_bins_total, length):
            yield range(first, min(first + length, self.binned.n_bins_total))

    # -- objective ------------------------------------------------------------------------------------------------------------------------

    def evaluate(self, rows: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return objective (n_targets,) and gradient (n_targets, n_weights) at rows (n_targets, n_weights), float64."""
        layout, n_covariates = self.layout, self.layout.n_covariates
        filters = self.filters(rows, targets)
        options = {"emission": self.emission, "dtype": self.dtype, "threads": self.threads, "backend": self.backend}
        weights = rows[:, 1 : 1 + n_covariates]
        log_likelihood, d_bias = np.zeros(len(targets)), np.zeros(len(targets))
        d_weights = np.zeros((len(targets), n_covariates))
        d_own = None if filters.own is None else np.zeros(filters.own.shape)
        d_pair = None if filters.pair is None else np.zeros(filters.pair.shape)
        state = FilterState()
        spans = self._ranges(max(len(targets), n_covariates)) if n_covariates else [range(self.binned.n_bins_total)]
        for span in spans:
            base = self.shared.drive(weights, span) if n_covariates else None
            part = likelihood_gradient(self.events, span, targets, rows[:, 0], filters, base=base, state=state, **options)
            log_likelihood += part.log_likelihood
            d_bias += part.bias
            if n_covariates:
                d_weights += self.shared.adjoint(part.residual, span)
            if d_own is not None:
                d_own += part.own
            if d_pair is not None:
                d_pair += part.pair
        gradient = np.zeros(rows.shape)
        gradient[:, 0], gradient[:, 1 : 1 + n_covariates] = d_bias, d_weights
        scale = float(self.fixed.get("population_scale", [1.0])[0])
        add_filter_gradient(layout, gradient, targets, d_own, d_pair, scale)
        ridge = self.ridge[targets]
        return 0.5 * (ridge * rows**2).sum(axis=1) - log_likelihood, ridge * rows - gradient

    def features(self, bins: range | np.ndarray, *, dtype: str | None = None) -> dict[str, np.ndarray]:
        """Return what designs of these bins are made of: covariates (n_bins, n), history and coupling (n_bins, n_neurons, n_basis)."""
        dtype = dtype or self.dtype
        parts = {"covariates": self.shared.columns(bins).astype(dtype, copy=False)}
        for name in ("history", "coupling", "population"):
            basis: LagBasis | None = getattr(self.layout, name)
            if basis is not None:
                at_lag, decay = (basis.values, None) if basis.decay is None else (1.0 - basis.decay, basis.decay)
                parts[name] = filtered_counts(self.events, bins, at_lag, decay=decay, dtype=dtype, backend=self.backend)
        return parts

    def drives(self, rows: np.ndarray, targets: np.ndarray, span: range) -> np.ndarray:
        """Return the targets' drives over a stretch of bins under rows (n_targets, n_weights), (n_bins, n_targets) of `dtype`."""
        layout, parts = self.layout, self.features(span)
        rows = rows.astype(self.dtype) * layout.free[targets]
        drive = rows[:, 0] + parts["covariates"] @ rows[:, 1 : 1 + layout.n_covariates].T
        if "population" in parts:
            weight = rows[:, layout.terms["population"].columns] / float(self.fixed["population_scale"][0])
            drive -= np.einsum("tib,ib->ti", parts["population"][:, targets], weight)
        if "history" in parts:
            drive += np.einsum("tib,ib->ti", parts["history"][:, targets], rows[:, layout.terms["history"].columns])
        if "coupling" in parts:
            drive += parts["coupling"].reshape(len(span), -1) @ rows[:, layout.terms["coupling"].columns].T
        return drive

    def design(self, parts: dict[str, np.ndarray], target: int) -> np.ndarray:
        """Return the design matrix of one target over the bins of `parts`, (n_bins, n_weights); its own coupling columns are 0."""
        columns = parts["covariates"]
        design = np.zeros((len(columns), self.layout.n_weights), dtype=columns.dtype)
        design[:, 0] = 1.0
        design[:, 1 : 1 + columns.shape[1]] = columns
        terms = self.layout.terms
        if "population" in terms:
            design[:, terms["population"].columns] -= parts["population"][:, target] / float(self.fixed["population_scale"][0])
        if "history" in terms:
            design[:, terms["history"].columns] = parts["history"][:, target]
        if "coupling" in terms:
            coupling = design[:, terms["coupling"].columns]
            coupling[:] = parts["coupling"].reshape(len(columns), -1)
            n_basis = self.layout.coupling.n_basis
            coupling[:, target * n_basis : (target + 1) * n_basis] = 0.0
        return design

    def feature_spans(self) -> Iterator[tuple[range, np.ndarray]]:
        """Yield stretches of bins for `features`, each with its scored bins (n_bins,) bool."""
        layout = self.layout
        n_spike = sum(b.n_basis * layout.n_neurons for b in (layout.history, layout.coupling, layout.population) if b is not None)
        for span in self._ranges(n_spike + layout.n_weights, _FEATURE_VALUES):
            yield span, self.binned.scored[span.start : span.stop]

    def newton_parts(self, rows: np.ndarray, targets: np.ndarray, dtype: str | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return objective (n,), gradient (n, n_weights) and Hessian (n, n_weights, n_weights) of the targets, float64.

        With dtype "float32" the products within stretches of bins are in single precision, which halves their time.
        """
        n, n_weights = rows.shape
        objective, gradient, hessian = np.zeros(n), np.zeros((n, n_weights)), np.zeros((n, n_weights, n_weights))
        for span, scored in self.feature_spans():
            parts = self.features(span, dtype=dtype or "float64")
            count = self.dense_counts(span, targets)

            def add(i: int, parts=parts, count=count, scored=scored) -> None:
                design = self.design(parts, int(targets[i]))
                if not scored.all():
                    design = design[scored]
                drive = design @ rows[i].astype(design.dtype)
                expected, weight, cost = _expected(drive, self.emission)
                y = count[scored, i]
                objective[i] += cost.sum() - y @ drive
                gradient[i] += (expected - y) @ design
                design *= np.sqrt(weight)[:, None]
                with np.errstate(over="ignore"):  # far from the optimum; such points are refused
                    hessian[i] += design.T @ design  # one array with itself: half the work of a general product

            in_threads(add, range(n), self.threads)
        ridge = self.ridge[targets]
        hessian[:, np.arange(n_weights), np.arange(n_weights)] += ridge
        return objective + 0.5 * (ridge * rows**2).sum(axis=1), gradient + ridge * rows, hessian

    def dense_counts(self, span: range, targets: np.ndarray) -> np.ndarray:
        """Return the targets' counts over a stretch of bins, (n_bins, n_targets) float64."""
        events, column = self.events, np.full(self.layout.n_neurons, -1)
        column[targets] = np.arange(len(targets))
        dense = np.zeros((len(span), len(targets)))
        rows = events.row_pointer[span.start : span.stop + 1]
        at = slice(int(rows[0]), int(rows[-1]))
        bins, columns = np.repeat(np.arange(len(span)), np.diff(rows)), column[events.event_neuron[at]]
        is_target = columns >= 0
        value = np.ones(at.stop - at.start) if events.event_count is None else events.event_count[at].astype(np.float64)
        dense[bins[is_target], columns[is_target]] = value[is_target]
        return dense


def spike_filters(
    layout: Layout, rows: np.ndarray, targets: np.ndarray, population_scale: float
) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]:
    """Return own (n_targets, n_lags), pair (n_pre, n_lags, n_targets) and decay of rows of weights; lags are filters if exponential.

    The population covariate sums over all neurons; the part of a target's own spikes is taken out of its own filter here.
    """
    own, pair, decay = None, None, None
    for name, factor in (("history", 1.0), ("population", -1.0 / population_scale)):
        basis: LagBasis | None = getattr(layout, name)
        if basis is None:
            continue
        decay = basis.decay
        n_lags = max(b.n_lags for b in (layout.history, layout.population) if b is not None)
        added = factor * _by_lag(rows[:, layout.terms[name].columns], basis, n_lags)
        own = added if own is None else own + added
    if layout.coupling is not None:
        basis, decay = layout.coupling, layout.coupling.decay
        weights = rows[:, layout.terms["coupling"].columns].reshape(len(rows), layout.n_neurons, basis.n_basis).copy()
        weights[np.arange(len(targets)), targets] = 0.0
        pair = np.ascontiguousarray(_by_lag(weights, basis, basis.n_lags).transpose(1, 2, 0))
    return own, pair, decay


def add_filter_gradient(
    layout: Layout, gradient: np.ndarray, targets: np.ndarray, d_own: np.ndarray | None, d_pair: np.ndarray | None, population_scale: float
) -> None:
    """Add to rows of a gradient what derivatives by the filters of `spike_filters` mean for the weights: its transpose."""
    for name, factor in (("history", 1.0), ("population", -1.0 / population_scale)):
        basis: LagBasis | None = getattr(layout, name)
        if basis is not None and d_own is not None:
            gradient[:, layout.terms[name].columns] += factor * _by_function(d_own, basis)
    if layout.coupling is not None and d_pair is not None:
        weights = _by_function(d_pair.transpose(2, 0, 1), layout.coupling)  # (n_targets, n_pre, n_basis)
        weights[np.arange(len(targets)), targets] = 0.0
        gradient[:, layout.terms["coupling"].columns] += weights.reshape(len(targets), -1)


def _by_lag(weights: np.ndarray, basis: LagBasis, n_lags: int) -> np.ndarray:
    """Return what a spike adds at each lag under weights (..., n_basis): (..., n_lags), or the size of each exponential (..., n_basis)."""
    return weights * (1.0 - basis.decay) if basis.decay is not None else weights @ basis.at_lags(n_lags)


def _by_function(derivative: np.ndarray, basis: LagBasis) -> np.ndarray:
    """Return the derivative by the weights (..., n_basis) from that by what `_by_lag` gives: its transpose."""
    if basis.decay is not None:
        return derivative * (1.0 - basis.decay)
    return derivative @ basis.at_lags(derivative.shape[-1]).T


def _expected(drive: np.ndarray, emission: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return expected count, its derivative by the drive, and the part of the cost without spikes, each as `drive`."""
    if emission == "poisson":
        expected = np.exp(np.minimum(drive, 700.0))
        return expected, expected, expected
    probability = 0.5 * (1.0 + np.tanh(0.5 * drive))
    return probability, probability * (1.0 - probability), np.logaddexp(0.0, drive)
