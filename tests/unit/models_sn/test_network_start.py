"""The constant input at which neurons start, against the closed form of a neuron that only adapts."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from scipy import optimize, special

import fitspike
from fitspike.citation import Citation
from fitspike.models.network_start import background_for_counts
from fitspike.models.spiking_network import SpikingNetwork
from fitspike.neurons.emissions import get_emission
from fitspike.params import ParamSpec
from fitspike.recording.recording import Recording
from fitspike.rng import Stream


@dataclass(frozen=True)
class Adapting:
    """drive_t = I_t - offset - jump a_t, a_t = decay a_{t-1} + z_{t-1}."""

    name: ClassVar[str] = "adapting"
    citation: ClassVar[Citation] = Citation("An example of a test")
    offset: float = 40.0
    jump: float = 2.0
    decay: float = 0.95

    def param_specs(self, n_neurons):
        return {"offset": ParamSpec((n_neurons,), "1", init=self.offset, axes=("neuron",), trainable=False)}

    def init_state(self, params, n_trials):
        return params["offset"].new_zeros(n_trials, len(params["offset"]))

    def step(self, params, state, current, spikes, dt_ms):
        state = self.decay * state + spikes
        return state, current - params["offset"] - self.jump * state


def closed_form(neuron, interval):
    """Return the input at which the mean of the logistic function over one interval between regular spikes is one per interval."""
    after = neuron.decay ** np.arange(interval) / (1 - neuron.decay**interval)  # the trace in the bins after a spike
    return optimize.brentq(
        lambda current: special.expit(current - neuron.offset - neuron.jump * after).mean() - 1 / interval, -200.0, 200.0
    )


def test_mean_counts_are_those_wanted():
    intervals = np.array([4, 10, 25, 100])
    found = background_for_counts(Adapting(), 1.0 / intervals, get_emission("bernoulli"), 1.0, Stream(0, "x"))
    np.testing.assert_allclose(found, [closed_form(Adapting(), k) for k in intervals], rtol=0.03)


@pytest.mark.parametrize("offset", [-1.0, 0.0, 1e7])
def test_inputs_of_either_sign_and_neurons_that_nothing_moves(offset):
    neuron = Adapting(offset=offset, jump=0.0)
    found = background_for_counts(neuron, np.array([0.1]), get_emission("bernoulli"), 1.0, Stream(0, "x"))
    expected = offset + special.logit(0.1)
    assert np.isfinite(found).all() and (offset > 1e5 or abs(float(found[0]) - expected) < 0.1)


def test_a_fit_starts_at_the_counts_of_the_recording():
    counts = (np.random.default_rng(0).random((8, 200, 3)) < [0.05, 0.1, 0.25]).astype(int)
    recording = Recording.from_counts(counts, dt_ms=1.0)
    how = {"split": "none", "stop": {"max_steps": 1}, "score": {"co_smoothing_bins": 0, "n_bootstrap": 2}, "simulation": {"max_seconds": 0}}
    result = fitspike.fit(recording, SpikingNetwork(neuron=Adapting(jump=0.1)), **how, report=False, progress="off")
    rate = counts.mean((0, 1))
    entropy = float(-(rate * np.log(rate) + (1 - rate) * np.log1p(-rate)).mean())
    assert result.history[0]["nll"] < 1.2 * entropy
    assert torch.as_tensor(result.params["background"]).abs().min() > 10.0
