"""A third party's neuron model, as the documentation prints it, through the network, the likelihood and the free run."""

from dataclasses import dataclass

import numpy as np
import torch

from fitspike.models.spiking_network import SpikingNetwork
from fitspike.params import initial_params, to_tensors
from fitspike.plugin import Citation, ParamSpec, positive
from fitspike.recording.recording import Recording
from fitspike.rng import Stream


@dataclass(frozen=True)
class ThirdPartyLIF:
    """LIF that resets to rest; log-odds of a spike = (voltage - threshold) / softness."""

    name = "escape-lif"
    citation = Citation("Gerstner, Kistler, Naud, Paninski 2014, Neuronal Dynamics, ch. 9")

    def param_specs(self, n_neurons):
        each = (n_neurons,)
        return {
            "tau_m_ms": ParamSpec(each, unit="ms", init=10.0, constraint=positive),
            "rest_mv": ParamSpec(each, unit="mV", init=-65.0, trainable=False),
            "threshold_mv": ParamSpec(each, unit="mV", init=-50.0),
            "softness_mv": ParamSpec(each, unit="mV", init=2.0, constraint=positive),
        }

    def init_state(self, params, n_trials):
        return params["rest_mv"].expand(n_trials, -1)

    def step(self, params, voltage, current, spikes, dt_ms):
        rest = params["rest_mv"]
        decay = torch.exp(-dt_ms / params["tau_m_ms"])
        voltage = rest + decay * (voltage - rest) * (1 - spikes) + current
        return voltage, (voltage - params["threshold_mv"]) / params["softness_mv"]


def network():
    rng = np.random.default_rng(0)
    binned = Recording.from_counts((rng.random((2, 15, 3)) < 0.2).astype(int), dt_ms=1.0).bin()
    model = SpikingNetwork(neuron=ThirdPartyLIF(), coupling_ms=6.0)
    params = to_tensors(initial_params(model.param_specs(binned.info()), Stream(0, "init")))
    return model, params, binned


def test_clamped_likelihood_passes_gradcheck():
    model, params, binned = network()
    chunk = next(binned.chunks(15, batch_trials=2))
    names = [name for name, spec in model.param_specs(binned.info()).items() if spec.trainable]
    assert "background" in names and "coupling" in names

    def likelihood(*values):
        return model.log_likelihood(params | dict(zip(names, values, strict=True)), chunk, None, Stream(0, "x"))[0].sum()

    assert torch.autograd.gradcheck(likelihood, [params[name].requires_grad_() for name in names])


def test_replay_of_its_free_run_is_exact():
    model, params, binned = network()
    params["threshold_mv"] = params["threshold_mv"] - 12.0
    chunk = next(binned.chunks(15, batch_trials=2))
    uniforms = torch.as_tensor(Stream(0, "u").uniforms(2, range(15), 3))
    free = model.rollout(params, chunk, uniforms=uniforms)
    replay = model.rollout(params, chunk, uniforms=uniforms, observed=free.spikes)
    assert free.spikes.sum() > 5
    assert torch.equal(free.spikes, replay.spikes) and torch.equal(free.log_prob, replay.log_prob)
