"""What a network was asked to put out beside what it does put out, on trials that it was not trained on."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch

from fitspike.config import RunConfig
from fitspike.fitting.optimise import Fitted
from fitspike.fitting.prepare import Prepared
from fitspike.learning.free_runs import run_free
from fitspike.losses.base import HasTraces, LossContext
from fitspike.losses.total import record_all
from fitspike.params import to_tensors
from fitspike.rng import Stream

MAX_VALUES = 5e6
"""Most trials x bins x neurons, hidden ones included, that are run."""

SHOWN_TRIALS, SHOWN_BINS = 4, 10_000
"""Trials and bins of each that are kept for the figure."""


def beside_targets(prepared: Prepared, fitted: Fitted, config: RunConfig) -> tuple[dict[str, dict[str, Any]], dict[str, np.ndarray]]:
    """Return by loss how well its target is met (its terms and metrics, "n_trials"), and the arrays that are drawn.

    For losses that have traces, on held-out trials, or training trials where nothing is held out: all of them, or as many as `MAX_VALUES`
    allows. Recorded neurons are clamped to their spikes. Where nothing is compared in these trials there are no terms and metrics. The
    arrays begin with the first bin that is judged; outputs past a trial's end and in its warm-up are NaN.
    """
    data = prepared.train if prepared.test is None else prepared.test
    found: dict[str, dict[str, Any]] = {}
    arrays: dict[str, np.ndarray] = {}
    params = to_tensors(fitted.params)
    for name, (loss, weight) in prepared.components.losses.items():
        if not isinstance(loss, HasTraces):
            continue
        n_bins = int(data.bins_per_trial.max())
        n_units = data.n_neurons + getattr(fitted.model, "n_hidden", 0)
        n_trials = max(1, min(data.n_trials, int(MAX_VALUES / (n_bins * n_units))))
        chunk, info, rng = data.chunk(range(n_trials), 0, n_bins), data.info(), Stream(config.seed, f"targets/{name}")
        context = LossContext(
            model=fitted.model,
            params=params,
            chunk=chunk,
            data=info,
            rng=rng,
            recorded=record_all({name: (loss, weight)}, prepared.train),
            run_free=partial(run_free, fitted.model, params, chunk, None, rng, has_repeats=info.has_repeats),
        )
        with torch.no_grad():
            terms = {term: float(value) for term, value in loss(context).items()}
            traces = loss.traces(context)
        is_compared = bool((traces.weight > 0).any())
        found[name] = (terms | context.metrics if is_compared else {}) | {"n_trials": n_trials}
        is_judged = chunk.mask_numpy[:SHOWN_TRIALS]
        first = int(is_judged.any(0).argmax())
        shown = slice(first, first + SHOWN_BINS)
        for part in ("output", "target", "weight"):
            arrays[f"targets/{name}/{part}"] = getattr(traces, part)[:SHOWN_TRIALS, shown].numpy().astype(np.float32)
        arrays[f"targets/{name}/output"][~is_judged[:, shown]] = np.nan
        arrays[f"targets/{name}/is_class"] = np.array(traces.is_class)
        arrays[f"targets/{name}/time_ms"] = (np.arange(n_bins)[shown] + 0.5) * data.dt_ms
    return found, arrays
