"""The compiled network of populations, neuron by neuron, against the same steps in numpy: 1000 neurons at 0.2 ms on one core."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import numpy as np

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

from fitspike_datasets.generators_populations import PopulationNetwork  # noqa: E402

from fitspike.kernels.microscopic import MicroscopicRun, simulate_microscopic, start_microscopic  # noqa: E402
from fitspike.rng import Stream  # noqa: E402

sys.path.insert(0, str(Path(__file__).parents[1] / "acceptance"))
from _table import Bounds  # noqa: E402

NETWORK = PopulationNetwork(n_observed=20, duration_s=20.0)
RUNS = 7
NUMPY_S = 2.0


def simulated(backend: str, seconds: float) -> tuple[MicroscopicRun, float]:
    """Return a run of the default network and the processor time it took, s."""
    constants, generator = NETWORK.constants(), Stream(0, "population network").numpy()
    state = start_microscopic(constants, generator, np.array([18.9, 6.0, 24.5]))
    recorded = np.concatenate([np.arange(20), 400 + np.arange(20), 800 + np.arange(20)])
    n_steps = round(seconds / constants.dt_s)
    began = time.process_time()
    run = simulate_microscopic(np.zeros((1, 3)), constants, generator, recorded=recorded, n_steps=n_steps, state=state, backend=backend)
    return run, time.process_time() - began


def main() -> None:
    """Print the table."""
    bounds = Bounds("population_network", kind="bench")
    simulated("numba", 0.01)
    compiled, _ = simulated("numba", NUMPY_S)
    readable, numpy_s = simulated("reference", NUMPY_S)
    n_differing = sum(
        not np.array_equal(getattr(compiled, name), getattr(readable, name)) for name in ("counts", "spike_step", "spike_neuron")
    )
    bounds.check(
        f"the same spikes as numpy in {NUMPY_S:g} s", f"{compiled.counts.sum()} spikes, {n_differing} arrays differ", n_differing == 0
    )
    kernel_s = float(np.median([simulated("numba", NETWORK.duration_s)[1] for _ in range(RUNS)]))
    factor, numpy_factor = NETWORK.duration_s / kernel_s, NUMPY_S / numpy_s
    bounds.check("1000 neurons at 0.2 ms at least 20 times faster than real time", f"{factor:.1f} times", factor >= 20)
    began = time.process_time()
    recording = NETWORK.load(seed=0)
    whole = (NETWORK.duration_s + NETWORK.burn_in_s) / (time.process_time() - began)
    bounds.check("the generator, recording included, as well", f"{whole:.1f} times, {recording.n_spikes} spikes kept", whole >= 20)
    bounds.note(f"numpy, vectorised over neurons: {numpy_factor:.2f} times real time, so that compiling gains {factor / numpy_factor:.0f}")
    bounds.note(f"processor time of one thread, median of {RUNS} runs of {NETWORK.duration_s:g} s")
    bounds.finish()


if __name__ == "__main__":
    main()
