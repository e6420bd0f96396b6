"""Log-likelihood and gradient of coupled point processes straight from spike events, without dense spikes or a design matrix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from fitspike.errors import InvalidInputError
from fitspike.kernels.dispatch import choose

EMISSION_CODES = {"poisson": 0, "bernoulli": 1}


@dataclass(frozen=True, eq=False)
class Events:
    """Spikes of all trials laid end to end.

    row_pointer (n_bins_total + 1,) int64: the events of bin b are row_pointer[b] : row_pointer[b + 1]; event_neuron (n_events,);
    event_count (n_events,) or None when all are one; trial_edge (n_trials + 1,) int64: first bin of each trial and the end;
    scored_from (n_trials,) int64: first bin of each trial that counts, the ones before only feed history.
    """

    row_pointer: np.ndarray
    event_neuron: np.ndarray
    event_count: np.ndarray | None
    trial_edge: np.ndarray
    scored_from: np.ndarray
    n_neurons: int

    @property
    def n_bins(self) -> int:
        """Return the number of bins."""
        return len(self.row_pointer) - 1


@dataclass(frozen=True, eq=False)
class SpikeFilters:
    """What a spike adds to later drives of the target neurons, in one of two forms.

    Finite (decay None): own[i, l] is added to target i at l + 1 bins after its own spike, pair[pre, l, i] after a spike of `pre`.
    Exponential (decay (n_filters,)): own[i, f] and pair[pre, f, i] times decay[f] ** (lag - 1), at every lag from 1 on.
    own and pair may be None. The entries of pair at a target's own place should be 0 when own is given: both are added.
    """

    own: np.ndarray | None
    pair: np.ndarray | None
    decay: np.ndarray | None = None


class LikelihoodGradient(NamedTuple):
    """Log-likelihood (n_targets,) float64 without the counts' factorials, and its derivatives, float64.

    bias (n_targets,), own (n_targets, n_lags) and pair (n_pre, n_lags, n_targets), None where the filters were; residual
    (n_bins, n_targets) is the derivative in `base`, 0 in unscored bins, None without `base`.
    """

    log_likelihood: np.ndarray
    bias: np.ndarray
    own: np.ndarray | None
    pair: np.ndarray | None
    residual: np.ndarray | None


@dataclass(eq=False)
class FilterState:
    """What exponential filters remember between two calls on neighbouring stretches of bins: the drive and the traces per filter."""

    drive: np.ndarray | None = None
    trace: np.ndarray | None = None


def likelihood_gradient(
    events: Events,
    span: range,
    targets: np.ndarray,
    bias: np.ndarray,
    filters: SpikeFilters,
    *,
    base: np.ndarray | None = None,
    emission: str = "poisson",
    dtype: str = "float64",
    state: FilterState | None = None,
    threads: int = 1,
    backend: str = "auto",
) -> LikelihoodGradient:
    """Return the log-likelihood of the target neurons' spikes in a stretch of bins, and its gradient.

    drive_i(t) = bias_i + base_i(t) + sum over earlier spikes in the trial of the filters at that lag. Poisson: sum over scored bins of
    count * drive - exp(drive). Bernoulli: count * drive - log(1 + exp(drive)).

    The gradient needs no design matrix either: with the residual r_i(t) = count - expected, a spike of `pre` at s adds r_i(s + 1 + l) to
    the derivative of pair[pre, l, i], which mirrors how it added pair[pre, l, i] to the drive.

    Parameters
    ----------
    events : Events
    span : range
        Bins to score; spikes before it in its first trial are felt.
    targets : ndarray of int, (n_targets,), each neuron at most once
    bias : ndarray, (n_targets,)
    filters : SpikeFilters
    base : ndarray, (n_bins, n_targets), optional
        Further drive over the bins of `span`. May be overwritten.
    dtype : "float32" or "float64"
        Of drives and residuals; sums over time are float64.
    state : FilterState, optional
        Needed for exponential filters when `span` starts inside a trial; updated to the end of the span.
    threads : int
        The result does not depend on it.
    """
    if emission not in EMISSION_CODES:
        raise InvalidInputError(f"the point-process kernel knows no emission {emission!r}. Use 'poisson' or 'bernoulli'.")
    if len(np.unique(targets)) != len(targets):
        raise InvalidInputError("a neuron is twice among the targets; give each once.")
    run = choose("point_process", backend, device="cpu", dtype=dtype).load()
    return run(events, span, np.asarray(targets), bias, filters, base, emission, dtype, FilterState() if state is None else state, threads)
