"""Networks of LIF and adaptive LIF neurons on the three tasks, trained on fresh trials in every iteration by any learning rule."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from fitspike_datasets.task_evidence import EvidenceAccumulation
from fitspike_datasets.task_pattern import PatternGeneration
from fitspike_datasets.task_store_recall import StoreRecall
from fitspike_neurons.alif import ALIF
from fitspike_neurons.conventions import to_alif

from fitspike.learning.base import Batch
from fitspike.losses.rate_regulariser import RateRegulariser
from fitspike.losses.readout import Readout
from fitspike.losses.total import all_specs
from fitspike.models.spiking_network import SpikingNetwork
from fitspike.params import initial_params, to_raw
from fitspike.recording.binned import BinnedSpikes
from fitspike.rng import Stream


@dataclass(frozen=True)
class Setup:
    """A task with the network that is to learn it.

    batch : seed -> the trials of one iteration. learning_rate : of Adam, at each iteration. frozen : parameters that are not trained
    """

    batch: Callable[[int], BinnedSpikes]
    model: SpikingNetwork
    losses: Mapping[str, tuple[Any, float]]
    learning_rate: Callable[[int], float]
    frozen: tuple[str, ...] = ("background",)


def network(neuron: ALIF, n_hidden: int) -> SpikingNetwork:
    """Return a recurrent network of `n_hidden` deterministic neurons behind the task's inputs, with no delay beyond one bin."""
    return SpikingNetwork(
        neuron=neuron,
        n_hidden=n_hidden,
        emission="threshold",
        pseudo_derivative="triangle",
        dampening=0.3,
        basis="boxes",
        coupling_ms=1.0,
        signals=(),
        connect=("input->hidden", "hidden->hidden"),
    )


def store_recall(symbol_ms: float, tau_adapt_ms: float, n_adaptive: int = 10) -> Setup:
    """Return store-recall with 20 neurons, batches of 64; Adam 0.01, times 0.3 every 100 iterations.

    The cross-entropy is that of the mean output over each RECALL, as in the published code, beside which its regulariser of 0.01 stands.
    """
    task = StoreRecall(n_trials=64, symbol_ms=symbol_ms)
    published = to_alif("lsnn-2018", threshold=0.01, adaptation=1.7, tau_m_ms=20.0, tau_adapt_ms=tau_adapt_ms)
    losses = {"readout": (Readout(error="cross_entropy", classify="decision"), 1.0), "rate_regulariser": (RateRegulariser(), 0.01)}
    neuron = ALIF(**published, n_adaptive=n_adaptive, refractory_ms=2.0)
    return Setup(lambda seed: task.load(seed=seed).bin(), network(neuron, 20), losses, lambda step: 0.01 * 0.3 ** (step // 100))


def evidence(n_adaptive: int = 50) -> Setup:
    """Return evidence accumulation with 100 neurons, batches of 64, Adam 0.005."""
    task = EvidenceAccumulation(n_trials=64)
    losses = {"readout": (Readout(error="cross_entropy"), 1.0), "rate_regulariser": (RateRegulariser(), 1.0)}
    neuron = ALIF(threshold=0.6, adaptation=0.0174, tau_adapt_ms=2000.0, n_adaptive=n_adaptive, refractory_ms=4.0)
    return Setup(lambda seed: task.load(seed=seed).bin(), network(neuron, 100), losses, lambda step: 0.005)


def pattern(seed: int, n_targets: int = 1) -> Setup:
    """Return pattern generation with 100 LIF neurons, the same trial in every iteration; Adam 0.003."""
    binned = PatternGeneration(n_targets=n_targets).load(seed=seed).bin()
    neuron = ALIF(tau_m_ms=30.0, threshold=0.03, adaptation=0.0, input_scaling="one_minus_decay")
    # squared errors are averaged over the 1000 bins, which the published weight of 300 / 2 sums
    losses = {"readout": (Readout(tau_out_ms=30.0, bias=False), 1.0), "rate_regulariser": (RateRegulariser(), 0.15)}
    return Setup(lambda _: binned, network(neuron, 100), losses, lambda step: 0.003)


def weights_of(setup: Setup, n_inputs: int, stream: Stream) -> np.ndarray:
    """Return initial weights [post, pre, 1], normal with variance 1 / n_inputs from inputs and 1 / n_hidden between neurons."""
    n_units = n_inputs + setup.model.n_hidden
    weight = stream.numpy().standard_normal((n_units, n_units, 1))
    weight[:, :n_inputs] /= np.sqrt(n_inputs)
    weight[:, n_inputs:] /= np.sqrt(setup.model.n_hidden)
    return weight


def iterate(setup: Setup, rule: Any, seed: int, n_iterations: int) -> Iterator[Mapping[str, float]]:
    """Train, and yield the metrics of each iteration, taken on its trials before the step."""
    torch.set_num_threads(1)
    stream, first = Stream(seed, "lsnn"), setup.batch(seed * 1_000_000)
    info = first.info()
    specs = all_specs(setup.model, setup.losses, info)
    init = initial_params(specs, stream.child("init"), {"coupling": weights_of(setup, first.n_neurons, stream.child("coupling"))})
    raw = to_raw(specs, init)
    bound = rule.bind(setup.model, specs, setup.losses, info, stream.child("rule"))
    trained = [name for name, spec in specs.items() if spec.trainable and name not in setup.frozen]
    optimiser = torch.optim.Adam([raw[name] for name in trained])
    for step in range(n_iterations):
        binned = setup.batch(seed * 1_000_000 + step)
        chunk = binned.chunk(range(binned.n_trials), 0, int(binned.bins_per_trial.max()))
        directions, metrics = bound.directions(raw, Batch(chunk, None, stream.child(f"step/{step}")))
        for group in optimiser.param_groups:
            group["lr"] = setup.learning_rate(step)
        for name in trained:
            raw[name].grad = directions[name]
        optimiser.step()
        yield metrics


def progress(errors: list[float]) -> str:
    """Return how far one network came, in words."""
    return f"last 10 of {len(errors)} iterations {np.mean(errors[-10:]):.4f}"
