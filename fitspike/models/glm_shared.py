"""The shared covariates of a fit: what they add to all targets' drives, and back, with trial-time bumps looked up in a table."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from scipy.signal import lfilter
from scipy.sparse import csr_matrix

from fitspike.models.glm_covariates import bin_covariates, summed_counts, trial_time_table
from fitspike.models.glm_layout import Layout
from fitspike.recording.binned import BinnedSpikes
from fitspike.types import ParamArrays

_KEPT_BYTES = 400e6  # columns up to this size are computed once and kept
_LEAST_SHARING = 4  # trials per row of the table from which looking up is worth it


class SharedCovariates:
    """The columns 1 .. n_covariates of every target's design, but for the targets' own spikes in the population's.

    Bumps over trial time are the same in all trials of a condition. They are kept as a table with one row per condition and bin of the
    trial, and which row each bin has, so that a pass costs the same for any number of bumps and conditions.
    """

    def __init__(self, layout: Layout, fixed: ParamArrays, binned: BinnedSpikes, dtype: str) -> None:
        self.layout, self.fixed, self.binned, self.dtype = layout, fixed, binned, dtype
        self.n_columns = layout.n_covariates
        timed = [layout.terms[name] for name in ("trial_time", "condition_time") if name in layout.terms]
        self._timed = slice(timed[0].start - 1, timed[-1].stop - 1) if timed else slice(0, 0)
        self._table: np.ndarray | None = None
        if timed:
            n_rows = (layout.n_conditions + 1) * int((binned.trial_bin + binned.bins_per_trial).max(initial=0))
            if n_rows * _LEAST_SHARING <= binned.n_bins_total:
                table, self._row = trial_time_table(layout, fixed, binned)
                self._table = table.astype(dtype)
        if self._table is None:
            self._timed = slice(0, 0)
        is_dense = np.ones(self.n_columns, dtype=bool)
        is_dense[self._timed] = False
        self._dense = np.flatnonzero(is_dense)
        self.n_dense = self._dense.size

    def columns(self, bins: range | np.ndarray) -> np.ndarray:
        """Return all covariates over bins, (n_bins, n_columns)."""
        at = slice(bins.start, bins.stop) if isinstance(bins, range) else bins
        dense = self._dense_columns(bins)
        if self._table is None:
            return dense
        result = np.empty((len(bins), self.n_columns), dtype=self.dtype)
        result[:, self._dense] = dense
        result[:, self._timed] = self._table[self._row[at]]
        return result

    def drive(self, weights: np.ndarray, span: range) -> np.ndarray:
        """Return what the covariates add to drives over a stretch of bins, (n_bins, n_targets); weights (n_targets, n_columns)."""
        weights = weights.astype(self.dtype)
        drive = self._dense_columns(span) @ weights[:, self._dense].T
        if self._table is not None:
            drive += (self._table @ weights[:, self._timed].T)[self._row[span.start : span.stop]]
        return drive

    def adjoint(self, residual: np.ndarray, span: range) -> np.ndarray:
        """Return the sum over bins of residual (n_bins, n_targets) times covariates, (n_targets, n_columns): `drive` transposed."""
        result = np.empty((residual.shape[1], self.n_columns))
        result[:, self._dense] = residual.astype(self.dtype).T @ self._dense_columns(span)
        if self._table is not None:
            row = self._row[span.start : span.stop]
            gather = csr_matrix((np.ones(len(row)), (row, np.arange(len(row)))), shape=(len(self._table), len(row)))
            result[:, self._timed] = (gather @ residual).T @ self._table
        return result

    def _dense_columns(self, bins: range | np.ndarray) -> np.ndarray:
        """Return the columns that are not in the table."""
        if not self._dense.size:
            return np.zeros((len(bins), 0), dtype=self.dtype)
        if self._kept is not None:
            return self._kept[bins.start : bins.stop] if isinstance(bins, range) else self._kept[bins]
        if isinstance(bins, range):
            return self._computed(bins.start, bins.stop)
        return np.concatenate([np.zeros((0, self._dense.size), dtype=self.dtype), *(self._computed(b, b + 1) for b in bins)])

    @cached_property
    def _kept(self) -> np.ndarray | None:
        n_bytes = self.binned.n_bins_total * self._dense.size * np.dtype(self.dtype).itemsize
        return self._computed(0, self.binned.n_bins_total) if n_bytes <= _KEPT_BYTES else None

    def _computed(self, first: int, stop: int) -> np.ndarray:
        skipped = ("trial_time", "condition_time") if self._table is not None else ()
        columns = bin_covariates(self.layout, self.fixed, self.binned, first, stop, without=skipped)
        if self.layout.population is not None:
            columns = np.concatenate([columns, self._population[first:stop]], axis=1)
        return columns.astype(self.dtype, copy=False)

    @cached_property
    def _population(self) -> np.ndarray:
        """Return the filtered and scaled count of all neurons, (n_bins_total, n_basis)."""
        total = summed_counts(self.binned)
        basis, scale = self.layout.population, float(self.fixed["population_scale"][0])
        result = np.zeros((len(total), basis.n_basis), dtype=self.dtype)
        for start, n_bins in zip(self.binned.trial_offset, self.binned.bins_per_trial, strict=False):
            if n_bins < 2:
                continue
            past = total[start : start + n_bins - 1] / scale
            for b in range(basis.n_basis):
                if basis.decay is not None:
                    result[start + 1 : start + n_bins, b] = lfilter([1.0 - basis.decay[b]], [1.0, -basis.decay[b]], past)
                else:
                    result[start + 1 : start + n_bins, b] = lfilter(basis.values[b], [1.0], past)
        return result
