"""The log-likelihood as a readable dense computation; its gradient by autograd."""

from __future__ import annotations

import numpy as np
import torch

from fitspike.kernels.point_process import Events, FilterState, LikelihoodGradient, SpikeFilters


def likelihood_gradient(
    events: Events,
    span: range,
    targets: np.ndarray,
    bias: np.ndarray,
    filters: SpikeFilters,
    base: np.ndarray | None,
    emission: str,
    dtype: str,
    state: FilterState,
    threads: int,
) -> LikelihoodGradient:
    """Return log-likelihood and gradient; see `fitspike.kernels.point_process.likelihood_gradient`.

    Filters are laid out on the lags of a whole trial and every trial is driven from its start, so `state` and `threads` are not used.
    """
    leaf = {"bias": bias, "own": filters.own, "pair": filters.pair, "base": base}
    leaf = {name: torch.tensor(np.asarray(v), dtype=getattr(torch, dtype), requires_grad=True) for name, v in leaf.items() if v is not None}
    counts = dense_counts(events)
    total = torch.zeros(len(targets), dtype=torch.float64)
    for start, stop, scored in zip(events.trial_edge[:-1], events.trial_edge[1:], events.scored_from, strict=True):
        low, high = max(int(start), span.start), min(int(stop), span.stop)
        if low >= high:
            continue
        spikes = torch.tensor(counts[start:stop], dtype=getattr(torch, dtype))
        drive = leaf["bias"] + _filtered(spikes, targets, leaf, filters.decay)
        drive = drive[low - start : high - start]
        if base is not None:
            drive = drive + leaf["base"][low - span.start : high - span.start]
        count = spikes[low - start : high - start, targets]
        expected = torch.exp(drive) if emission == "poisson" else torch.nn.functional.softplus(drive)
        is_scored = torch.arange(low, high) >= int(scored)
        total = total + ((count * drive - expected) * is_scored[:, None]).double().sum(0)
    total.sum().backward() if leaf and total.requires_grad else None
    gradient = {name: (torch.zeros_like(v) if v.grad is None else v.grad).double().numpy() for name, v in leaf.items()}
    return LikelihoodGradient(total.detach().numpy(), gradient["bias"], gradient.get("own"), gradient.get("pair"), gradient.get("base"))


def dense_counts(events: Events) -> np.ndarray:
    """Return counts (n_bins, n_neurons), float64."""
    counts = np.zeros((events.n_bins, events.n_neurons))
    bins = np.repeat(np.arange(events.n_bins), np.diff(events.row_pointer))
    counts[bins, events.event_neuron] = 1.0 if events.event_count is None else events.event_count
    return counts


def _filtered(spikes: torch.Tensor, targets: np.ndarray, leaf: dict[str, torch.Tensor], decay: np.ndarray | None) -> torch.Tensor:
    """Return the drive that the spikes (n_bins, n_neurons) of one trial add to the targets, (n_bins, n_targets)."""
    n_bins = len(spikes)
    drive = torch.zeros(n_bins, len(targets), dtype=spikes.dtype)
    if decay is None:
        basis = None
    else:
        basis = torch.tensor(np.asarray(decay)[:, None] ** np.arange(n_bins), dtype=spikes.dtype)  # (n_filters, n_lags)
    for name, equation in (("own", "il,ti->ti"), ("pair", "pli,tp->ti")):
        if name not in leaf:
            continue
        by_lag = leaf[name] if basis is None else torch.einsum({"own": "if,fl->il", "pair": "pfi,fl->pli"}[name], leaf[name], basis)
        source = spikes[:, targets] if name == "own" else spikes
        for lag in range(1, min(by_lag.shape[1], n_bins - 1) + 1):
            at_lag = by_lag[:, lag - 1 : lag]
            term = torch.einsum(equation, at_lag, source[: n_bins - lag])
            drive = drive + torch.nn.functional.pad(term, (0, 0, lag, 0))
    return drive
