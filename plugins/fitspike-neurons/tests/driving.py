"""What the tests share: a neuron driven by given currents, bin by bin or on the fused path."""

import numpy as np
import torch

from fitspike.neurons.emissions import get_emission
from fitspike.params import initial_params, to_tensors
from fitspike.rng import Stream
from fitspike.rollout import rollout

THRESHOLD = {"pseudo_derivative": "triangle", "dampening": 0.3}


def params_of(neuron, n_neurons=1, **values):
    """Return the neuron's initial parameters in float64, some of them replaced."""
    arrays = initial_params(neuron.param_specs(n_neurons), Stream(0, "init"))
    for name, value in values.items():
        arrays[name] = np.broadcast_to(np.asarray(value, dtype=float), arrays[name].shape).copy()
    return to_tensors(arrays)


def drive(neuron, current, *, params=None, emission="threshold", dt_ms=1.0, backend="auto", uniforms=None, observed=None):
    """Return what a rollout under `current` (n_bins, n_neurons) gives: spikes and drive, (n_bins, n_neurons), as arrays."""
    current = torch.as_tensor(np.asarray(current, dtype=np.float64))[None]
    uniforms = torch.full_like(current, 0.5) if uniforms is None else torch.as_tensor(uniforms)[None]
    observed = None if observed is None else torch.as_tensor(np.asarray(observed, dtype=np.float64))[None]
    made = get_emission(emission, **THRESHOLD) if emission == "threshold" else get_emission(emission)
    params = params_of(neuron, current.shape[2]) if params is None else params
    run = rollout(neuron, params, made, current=current, uniforms=uniforms, observed=observed, dt_ms=dt_ms, backend=backend)
    return run.spikes[0].detach().numpy(), run.drive[0].detach().numpy()
