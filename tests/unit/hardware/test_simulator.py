"""The simulator runs a model as it is: the same spikes as the model's own rollout, whatever the chunks."""

import numpy as np
import pytest
import torch

from fitspike.errors import InvalidInputError
from fitspike.hardware.simulator import Simulator
from fitspike.models.base import DataInfo
from fitspike.models.spiking_network import SpikingNetwork
from fitspike.params import initial_params, to_tensors
from fitspike.recording.binned import SpikeChunk
from fitspike.rng import Stream


def test_a_run_longer_than_its_chunks_equals_one_rollout():
    n_trials, n_bins, n_neurons = 2, 1300, 3
    model = SpikingNetwork(n_hidden=1, signal_before_ms=4.0, n_signal=2)
    info = DataInfo(n_neurons, 1, 2.0, np.array([10]), signals={"light": 1}, mean_count=np.full(n_neurons, 0.05))
    params = to_tensors(initial_params(model.param_specs(info), Stream(0, "init")))
    params["signal"] = params["signal"] + 0.5
    light = np.sin(np.arange(n_bins) / 30.0)[:, None].astype(np.float32)
    target, stream = Simulator(n_neurons=n_neurons, dt_ms=2.0), Stream(0, "run")
    outcome = target.run(target.compile(model, params), {"light": light}, n_trials, n_bins, stream)

    context = SpikeChunk.empty(n_trials, n_bins, n_neurons, 2.0, signals={"light": np.stack([light] * n_trials)})
    uniforms = torch.as_tensor(stream.uniforms(n_trials, range(n_bins), n_neurons + 1))
    expected = model.rollout(params, context, uniforms=uniforms).spikes.numpy()
    assert expected.sum() > 50
    np.testing.assert_array_equal(outcome.spikes.bin(2.0).dense_numpy(), expected)
    assert outcome.target == "simulator" and outcome.wall_s > 0


def test_it_needs_a_neuron():
    with pytest.raises(InvalidInputError, match="n_neurons=0"):
        Simulator(n_neurons=0).compile(SpikingNetwork(), {})
