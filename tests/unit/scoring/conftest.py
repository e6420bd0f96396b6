"""A two-line network whose likelihood any test can compute by hand."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from fitspike.models.base import Rollout


@dataclass(frozen=True)
class LastBinNetwork:
    """Expected count exp(bias + weight @ spikes of the last bin); Poisson, or Bernoulli with that probability."""

    name: str = "last-bin"
    citation: tuple = ()
    emissions: tuple = ("poisson", "bernoulli")
    emission: str = "poisson"

    def param_specs(self, data):
        raise NotImplementedError

    def _expected(self, params, spikes, carry):
        before = torch.cat([carry, spikes[:, :-1]], dim=1)
        return torch.exp(params["bias"] + before @ params["weight"].T)

    def _step(self, params, chunk, carry):
        spikes = chunk.dense("float64")
        start = torch.zeros_like(spikes[:, :1]) if carry is None else carry
        return spikes, self._expected(params, spikes, start), spikes[:, -1:]

    def log_likelihood(self, params, chunk, carry, rng):
        spikes, expected, carry = self._step(params, chunk, carry)
        if self.emission == "poisson":
            nats = torch.distributions.Poisson(expected).log_prob(spikes)
        else:
            nats = torch.distributions.Bernoulli(expected).log_prob(spikes)
        return (nats * chunk.mask[:, :, None]).sum(1), carry

    def intensity(self, params, chunk, carry):
        _, expected, carry = self._step(params, chunk, carry)
        return expected, carry

    def rollout(self, params, context, *, uniforms, observed=None, observed_mask=None, carry=None):
        last = torch.zeros(context.n_trials, context.n_neurons, dtype=torch.float64) if carry is None else carry
        bins = []
        for t in range(context.n_bins):
            expected = torch.exp(params["bias"] + last @ params["weight"].T).numpy()
            from scipy.stats import poisson

            sampled = poisson.ppf(uniforms[:, t].numpy(), expected) if self.emission == "poisson" else uniforms[:, t].numpy() < expected
            last = torch.as_tensor(sampled, dtype=torch.float64)
            if observed is not None:
                last = torch.where(observed_mask, observed[:, t], last)
            bins.append(last)
        return Rollout(torch.stack(bins, 1), torch.zeros(context.n_trials, context.n_neurons), carry=last)


@pytest.fixture
def last_bin_network():
    return LastBinNetwork


@pytest.fixture
def simulate_last_bin():
    def simulate(bias, weight, n_trials, n_bins, seed=0, emission="poisson"):
        """Return counts (n_trials, n_bins, n_neurons) and expected counts, drawn with numpy."""
        draw = np.random.default_rng(seed)
        counts = np.zeros((n_trials, n_bins, len(bias)))
        expected = np.zeros_like(counts)
        last = np.zeros((n_trials, len(bias)))
        for t in range(n_bins):
            expected[:, t] = np.exp(bias + last @ np.asarray(weight).T)
            last = draw.poisson(expected[:, t]) if emission == "poisson" else (draw.random(last.shape) < expected[:, t]) * 1.0
            counts[:, t] = last
        return counts, expected

    return simulate
