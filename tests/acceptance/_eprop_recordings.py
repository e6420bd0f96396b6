"""Recordings that e-prop is judged on: a long trial learned piece by piece, and neurons that act through hidden ones."""

from __future__ import annotations

import resource
from typing import Any

import numpy as np
import torch
from fitspike_eprop.rule import EProp

import fitspike
from fitspike import Recording
from fitspike.losses.likelihood import NegativeLogLikelihood
from fitspike.models.spiking_network import SpikingNetwork
from fitspike.neurons.lif import EscapeLIF
from fitspike.neurons.srm import SRM
from fitspike.params import initial_params, to_raw
from fitspike.plugin import Batch, Stream

# -- memory -------------------------------------------------------------------------------------------------------------------------

N_LONG, N_LONG_BINS = 50, 100_000


def added_mib(implementation: str, n_bins: int, piece: int) -> dict[str, float]:
    """Return the memory that the gradient of a trial of `n_bins` bins takes at its peak, in pieces, and what the last piece hands on.

    The recording in memory is the same whatever `n_bins`; the first 100 bins, learned twice beforehand, load and compile.
    """
    torch.set_num_threads(1)
    draw = np.random.default_rng(0)
    counts = (draw.random((N_LONG_BINS, N_LONG), dtype=np.float32) < 0.01).astype(np.int8)
    binned = Recording.from_counts([counts], dt_ms=1.0).bin(1.0)
    losses = {"nll": (NegativeLogLikelihood(), 1.0)}
    model = SpikingNetwork(neuron=EscapeLIF(reset="subtract"))
    specs = model.param_specs(binned.info())
    raw = to_raw(specs, initial_params(specs, Stream(0, "init")))
    bound = EProp(implementation=implementation).bind(model, specs, losses, binned.info(), Stream(0, "rule"))
    total: dict[str, torch.Tensor] = {}

    def learn(first: int, stop: int, carry: Any) -> Any:
        batch = Batch(binned.chunk([0], first, stop - first), carry, Stream(0, f"bins/{first}"))
        found, _ = bound.directions(raw, batch)
        for name, value in found.items():
            total[name] = total.get(name, torch.zeros_like(value)) + value
        return batch.new_carry

    learn(100, 200, learn(0, 100, None))
    before, carry = peak_mib(), None
    for first in range(0, n_bins, piece):
        carry = learn(first, first + piece, carry)
    held = [value for own in getattr(carry, "eligibility", ()) for value in own]
    return {"added_mib": peak_mib() - before, "carry_bytes": sum(value.element_size() * value.nelement() for value in held)}


def peak_mib() -> float:
    """Return the largest memory that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


# -- hidden neurons -----------------------------------------------------------------------------------------------------------------

N_GROUP, N_TRIALS, N_TRIAL_BINS = 6, 50, 500


def relayed(seed: int) -> Recording:
    """Return a recording of senders and receivers, logistic neurons; a receiver is reached through two of the relays, unrecorded.

    Senders spike by chance. Each relay fires mostly when both of its two senders did in the bin before, each receiver when one of its
    relays did; so what a receiver does follows from senders two bins ago, in a way that no sum of effects of theirs gives.
    """
    draw = np.random.default_rng(seed)
    to_relay, to_receiver = (np.zeros((N_GROUP, N_GROUP)) for _ in range(2))
    for i in range(N_GROUP):
        to_relay[i, draw.choice(N_GROUP, 2, replace=False)] = 4.0
        to_receiver[i, draw.choice(N_GROUP, 2, replace=False)] = 4.0
    trials = []
    for _ in range(N_TRIALS):
        relays, counts = np.zeros(N_GROUP), np.zeros((N_TRIAL_BINS, 2 * N_GROUP), dtype=np.int64)
        for t in range(N_TRIAL_BINS):
            receivers = draw.random(N_GROUP) < logistic(to_receiver @ relays - 3.5)
            senders = counts[t - 1, :N_GROUP] if t else np.zeros(N_GROUP)
            relays = (draw.random(N_GROUP) < logistic(to_relay @ senders - 6.0)).astype(float)
            counts[t] = np.concatenate([draw.random(N_GROUP) < 0.25, receivers])
        trials.append(counts)
    return Recording.from_counts(trials, dt_ms=4.0)


def logistic(x: np.ndarray) -> np.ndarray:
    """Return 1 / (1 + exp(-x))."""
    return 1.0 / (1.0 + np.exp(-x))


def hidden_scores(seed: int) -> dict[str, float]:
    """Return held-out bits per spike of a network without hidden neurons, and of one with them by both rules."""
    recording = relayed(seed)
    rules = {"no hidden neurons": ("bptt", 0), "bptt": ("bptt", 2 * N_GROUP), "e-prop": ("e-prop", 2 * N_GROUP)}
    return {name: held_out(recording, rule, n_hidden, seed) for name, (rule, n_hidden) in rules.items()}


def held_out(recording: Recording, rule: str, n_hidden: int, seed: int, n_steps: int = 600) -> float:
    """Return the held-out bits per spike of one fit; couplings of one bin, hidden neurons connected with all."""
    model = SpikingNetwork(neuron=SRM(post_spike_tau_ms=()), n_hidden=n_hidden, basis="boxes", coupling_ms=4.0, n_coupling=1)
    result = fitspike.fit(
        recording,
        model,
        rule=rule,
        batch={"n_trials": 20, "n_bins": N_TRIAL_BINS},
        optimiser={"learning_rate": 0.03},
        stop={"max_steps": n_steps, "patience": 0},
        simulation={"max_seconds": 0},
        score={"co_smoothing_bins": 0, "n_bootstrap": 2},
        report=False,
        progress="off",
        threads=1,
        seed=seed,
    )
    return float(result.scores["bits_per_spike"])
