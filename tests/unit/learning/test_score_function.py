"""The score-function rule: unbiased by enumeration, noisier than straight-through, and back-propagation for all other losses."""

import itertools
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

import fitspike
from fitspike.errors import InvalidInputError
from fitspike.learning.base import Batch
from fitspike.learning.bptt import BPTT
from fitspike.learning.score_function import ScoreFunction
from fitspike.losses.likelihood import NegativeLogLikelihood
from fitspike.losses.summary_statistics import StatisticLoss
from fitspike.losses.total import record_all
from fitspike.models.spiking_network import SpikingNetwork
from fitspike.neurons.srm import SRM
from fitspike.params import constrain, initial_params, to_raw
from fitspike.recording.recording import Recording
from fitspike.rng import Stream
from fitspike.statistics.population import PopulationSpectrum
from fitspike.statistics.rates import FiringRate

MODEL = SpikingNetwork(neuron=SRM(post_spike_tau_ms=()), n_hidden=1, basis="boxes", coupling_ms=1.0, self_coupling=True, coupling_init=3.0)


@dataclass(frozen=True)
class Given:
    """A stream whose free runs spike as told: `trains` (n_bins, n_units) by run."""

    trains: dict
    run: str = ""

    def child(self, name):
        return replace(self, run=name if name.startswith("run/") else self.run)

    def uniforms(self, trials, bins, n_units):
        if not self.run:  # hidden spikes beside the recorded ones, which no loss here sees
            return np.full((len(trials), len(bins), n_units), 0.5)
        train = self.trains[self.run]
        assert (train.shape, int(trials)) == ((len(bins), n_units), 1)
        return np.where(train[None] > 0, 1e-9, 1 - 1e-9)


@dataclass(frozen=True)
class LastBin:
    """How far spikes and expected counts of the scored bins are from half a spike."""

    name = "last_bin"
    needs = frozenset({"rollout"})

    def __call__(self, context):
        run, mask = context.free.rollout, context.free.chunk.mask[..., None]
        value = ((run.spikes - 0.5) * run.latents["expected"] * mask).sum() + (run.spikes * mask).sum().square()
        return {self.name: value}


def setting(trials, dt_ms=1.0, model=MODEL):
    binned = Recording.from_counts(list(trials), dt_ms=dt_ms, conditions=["a"] * len(trials)).bin()
    specs = model.param_specs(binned.info())
    return binned, specs, to_raw(specs, initial_params(specs, Stream(3, "init")), torch.float64)


@pytest.mark.parametrize("n_warmup", [0, 1])
def test_estimator_is_unbiased_by_enumeration(n_warmup):
    """One recorded and one hidden neuron, two bins, all 16 trains of both: every pair of runs, weighted by its probability.

    The truth is the derivative of the sum of the loss times the probability over all trains. A warm-up bin, which no loss sees, still
    decides the bin after it.
    """
    binned, specs, raw = setting(np.zeros((5, 2, 1), int))
    chunk = binned.chunk([0], 0, 2)
    chunk = replace(chunk, mask_numpy=np.arange(2)[None] >= n_warmup)
    trains = np.array(list(itertools.product([0.0, 1.0], repeat=4))).reshape(16, 2, 2)
    losses = {"last_bin": (LastBin(), 0.7), "firing_rate": (StatisticLoss(FiringRate(), distance="mse", two_half=False), 1e-4)}
    recorded = {"firing_rate": torch.tensor([300.0]).double()}
    bound = ScoreFunction(n_runs=2).bind(MODEL, specs, losses, binned.info(), Stream(0, "rule"))
    trained = [name for name, spec in specs.items() if spec.trainable]

    def replayed(raw, train):
        params, given = constrain(specs, raw), torch.as_tensor(train)[None]
        whole = replace(chunk, mask_numpy=np.ones((1, 2), bool))
        return MODEL.rollout(params, whole, uniforms=torch.full((1, 2, 2), 0.5).double(), observed=given)

    probability, exact = [], []
    for train in trains:
        run = replayed(raw, train)
        drive = torch.cat([run.latents["drive"][0], torch.logit(run.latents["hidden_expected"][0])], 1)
        p = torch.sigmoid(drive)  # by hand, not by the emission
        chance = torch.where(torch.as_tensor(train) > 0, p, 1 - p).prod()
        mask = torch.as_tensor(chunk.mask_numpy)[0, :, None]
        z, expected = torch.as_tensor(train[:, :1]), p[:, :1]
        value = 0.7 * (((z - 0.5) * expected * mask).sum() + (z * mask).sum().square())
        value = value + 1e-4 * (1000 * (expected * mask).sum() / mask.sum() - 300.0).square()
        probability.append(float(chance.detach()))
        exact.append(value * chance)
    assert sum(probability) == pytest.approx(1.0)
    truth = torch.autograd.grad(sum(exact), [raw[name] for name in trained])

    estimate = {name: torch.zeros_like(raw[name]) for name in trained}
    for i, j in itertools.product(range(16), repeat=2):
        batch = Batch(chunk, None, Given({"run/0": trains[i], "run/1": trains[j]}), recorded=recorded, n_free_trials=1)
        directions, metrics = bound.directions(raw, batch)
        for name in trained:
            estimate[name] += probability[i] * probability[j] * directions[name]
    for name, true in zip(trained, truth, strict=True):
        torch.testing.assert_close(estimate[name], true, rtol=1e-7, atol=1e-9)
    assert metrics["loss"] == pytest.approx(0.7 * metrics["last_bin"] + 1e-4 * metrics["firing_rate"])


def directions_of(rule, model, binned, specs, raw, losses, seed):
    bound = rule.bind(model, specs, losses, binned.info(), Stream(0, "rule"))
    chunk = binned.chunk(range(binned.n_trials), 0, int(binned.bins_per_trial[0]))
    batch = Batch(chunk, None, Stream(seed, "step"), recorded=record_all(losses, binned), n_free_trials=8, wants_term_norms=True)
    directions, metrics = bound.directions(raw, batch)
    return torch.cat([directions[name].flatten() for name, spec in specs.items() if spec.trainable]), metrics


def test_variance_is_far_above_that_of_straight_through():
    """Population spectrum, 8 trials of 20 bins, 2 neurons: the summed variance of 60 gradients by the score function with 4 runs
    is over 5 times that of straight-through gradients of one run, while their means agree within the error that this leaves.
    """
    rng = np.random.default_rng(0)
    model = replace(MODEL, n_hidden=0, coupling_init=1.0)
    binned, specs, raw = setting((rng.random((8, 20, 2)) < 0.2).astype(int), model=model)
    losses = {"population_spectrum": (StatisticLoss(PopulationSpectrum(20.0), two_half=False), 1.0)}
    through, score = (
        torch.stack([directions_of(rule, model, binned, specs, raw, losses, seed)[0] for seed in range(60)])
        for rule in (BPTT(), ScoreFunction())
    )
    assert score.var(0).sum() > 5 * through.var(0).sum()
    error = ((score.var(0) + through.var(0)) / 60).sum().sqrt()
    assert (score.mean(0) - through.mean(0)).norm() < 3 * error


def test_losses_on_the_chunk_are_back_propagated():
    rng = np.random.default_rng(0)
    model = replace(MODEL, n_hidden=0)
    binned, specs, raw = setting((rng.random((6, 30, 2)) < 0.2).astype(int), model=model)
    losses = {"nll": (NegativeLogLikelihood(), 1.0)}
    (ours, metrics), (theirs, expected) = (directions_of(rule, model, binned, specs, raw, losses, 0) for rule in (ScoreFunction(), BPTT()))
    assert torch.equal(ours, theirs) and metrics == expected


def test_fit_by_score_function_lowers_a_loss_on_free_runs():
    rng = np.random.default_rng(0)
    recording = Recording.from_counts(list((rng.random((20, 30, 3)) < 0.3).astype(int)), dt_ms=1.0, conditions=["a"] * 20)
    result = fitspike.fit(
        recording,
        SpikingNetwork(n_hidden=1),
        loss={"firing_rate": {"weight": 1, "distance": "poisson"}, "nll": 0.01},
        rule="score-function",
        init={"bias": np.full(4, -3.0)},
        split="none",
        optimiser={"learning_rate": 0.1},
        stop={"max_steps": 60},
        threads=1,
        progress="off",
        report=False,
    )
    rates = [row["firing_rate"] for row in result.history]
    assert rates[-1] < 0.2 * rates[0]
    assert "gradient_norm/firing_rate" in result.history[0]


def test_a_single_run_has_no_baseline():
    with pytest.raises(InvalidInputError, match="n_runs=1.*at least 2"):
        ScoreFunction(n_runs=1)
