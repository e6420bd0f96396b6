"""The filters of a fitted coupled GLM as functions of lag, for figures and reports."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fitspike.models.bases import raised_cosine_linear
from fitspike.models.glm_layout import Layout, layout_from_shapes
from fitspike.types import Params

if TYPE_CHECKING:
    from fitspike.models.coupled_glm import CoupledGLM

N_PAIRS = 12
"""Couplings whose filters are returned: those with the largest total effect."""


def filters(model: CoupledGLM, params: Params) -> dict[str, np.ndarray]:
    """Return what a spike or a signal adds to the drive at each lag, by name; only for terms that the model has.

    history_lag_ms (n_lags,), history (n_neurons, n_lags). coupling_lag_ms (n_lags,), coupling (n_pairs, n_lags) and coupling_pair
    (n_pairs, 2), (post, pre). population_lag_ms (n_lags,), population (n_neurons, n_lags, 1), per standard deviation of the summed count.
    NAME_lag_ms (n_lags,), negative where the filter looks ahead, and NAME (n_neurons, n_lags, n_channels), for the signal of that name, or
    "signals" for several; per standard deviation of a channel unless standardise_signals is off.
    """
    weights = {name: np.asarray(value.detach().cpu() if hasattr(value, "detach") else value, np.float64) for name, value in params.items()}
    layout = layout_from_shapes(model, {name: value.shape for name, value in weights.items()}, {}, float(weights["dt_ms"][0]))
    found: dict[str, np.ndarray] = {}
    for term in ("history", "coupling", "population"):
        if term not in weights:
            continue
        n_lags = max(1, round(getattr(layout.model, f"{term}_ms") / layout.dt_ms))
        basis = getattr(layout, term).at_lags(n_lags)
        found[f"{term}_lag_ms"] = np.arange(1, n_lags + 1) * layout.dt_ms
        if term == "coupling":
            size = np.abs(weights[term]).sum(-1)
            strongest = np.argsort(-size, axis=None, kind="stable")[: min(N_PAIRS, np.count_nonzero(size))]
            pairs = np.stack(np.unravel_index(strongest, size.shape), axis=1)
            found["coupling"], found["coupling_pair"] = weights[term][pairs[:, 0], pairs[:, 1]] @ basis, pairs
        else:
            values = weights[term] @ basis
            found[term] = values if term == "history" else values[..., None]
    if "signal" in weights:
        found |= _signal_filters(layout, model.signals, weights["signal"])
    return found


def _signal_filters(layout: Layout, signals: str | tuple[str, ...], weight: np.ndarray) -> dict[str, np.ndarray]:
    """Return the filters of signals with weights (n_neurons, n_channels, n_basis)."""
    before, after = layout.signal_bins
    basis = raised_cosine_linear(weight.shape[2], np.linspace(0.0, 1.0, before + after + 1))
    values = np.moveaxis(weight @ (basis / basis.sum(axis=1, keepdims=True)), 1, 2)
    name = signals[0] if not isinstance(signals, str) and len(signals) == 1 else "signals"
    return {f"{name}_lag_ms": np.arange(-after, before + 1) * layout.dt_ms, name: values}
