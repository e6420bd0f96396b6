"""Couplings of network-izhikevich-100 against its true weights: 100 of 1000 simulated neurons, one hour, nine tenths of the input unseen.

The settings below are fixed in advance and use nothing of the truth. Off-diagonal pairs against unconnected pairs.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from _table import Bounds

import fitspike
from fitspike.datasets.fetching import native_path
from fitspike.datasets.truth import load_truth
from fitspike.models.base import SolverContext
from fitspike.models.connectivity import Connectivity, compare_with_truth
from fitspike.models.coupled_glm import CoupledGLM
from fitspike.params import initial_params
from fitspike.rng import Stream

os.environ.setdefault("FITSPIKE_DATA", str(Path(__file__).parents[3] / "shared" / "data"))

SETTINGS = {
    "basis": "boxes",
    "history_ms": 100.0,
    "n_history": 10,
    "coupling_ms": 20.0,
    "n_coupling": 5,
    "population_ms": 20.0,
    "n_population": 5,
    "drift_bumps": 0,
    "ridge_history": 20.0,
    "ridge_coupling": 20.0,
    "ridge_population": 20.0,
    "stabilise": "warn",
}
DT_MS = 2.0
BOUNDS = {10: (0.90, 0.47), 60: (0.98, 0.90)}
STRETCH = {60: (0.999, 0.981)}


def couplings(recording: fitspike.Recording) -> Connectivity:
    """Return the couplings of a coupled GLM with the settings above."""
    binned = recording.bin(DT_MS)
    model = CoupledGLM(**SETTINGS).resolved(binned.info())
    init = initial_params(model.param_specs(binned.info()), Stream(0, "init"))
    params, report = model.solve(binned, SolverContext(init=init, stream=Stream(0, "fit"), threads=2))
    return model.connectivity(params, report.extras)


def main() -> None:
    """Fit the first 10 and all 60 minutes and compare."""
    bounds = Bounds("connectivity")
    recording = fitspike.get("network-izhikevich-100")
    truth = load_truth(native_path("network-izhikevich-100")).weight
    for minutes, (excitatory, inhibitory) in BOUNDS.items():
        found = couplings(recording.select(start_s=0.0, stop_s=60.0 * minutes))
        scores = compare_with_truth(found, truth)
        for name, bound in (("excitatory", excitatory), ("inhibitory", inhibitory)):
            value = scores[f"average_precision_{name}"]
            bounds.check(f"{minutes} min: {name} average precision at least {bound}", f"{value:.4f}", value >= bound)
        turned = compare_with_truth(found, np.asarray(truth).T)["average_precision_excitatory"]
        right = scores["average_precision_excitatory"]
        bounds.check(f"{minutes} min: transposed truth scores below half of it", f"{turned:.4f}", turned < 0.5 * right)
        if minutes in STRETCH:
            bounds.note(f"stretch {STRETCH[minutes]}: {right:.4f}, {scores['average_precision_inhibitory']:.4f}")
    bounds.finish()


if __name__ == "__main__":
    main()
