"""The benchmarks of sample-and-measure, one seed at a time: data with known truth, fits through `fitspike.fit`, scores beside ceilings.

Each function returns rows of scores by name. Row "ceiling" scores fresh trials of the generator as if they were a model's, row "training
trials" those that were fitted.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from _sm_optimum import Optimum, fit_optimum
from _sm_scores import activity_scores, block_input, coupling_scores
from fitspike_datasets.generators_movie import MovieSettings
from fitspike_datasets.generators_v1_like import DisynapticMovie, HiddenAssembliesMovie, SlowNoiseMovie

import fitspike
from fitspike import FitResult, Recording
from fitspike.models.spiking_network import SpikingNetwork
from fitspike.neurons.srm import SRM

N_SIMULATED = 300
LAG_MS = 40.0
"""Bin width of the benchmarks, and so the length of a lag."""

Rows = dict[str, dict[str, Any]]


def dense(recording: Recording) -> np.ndarray:
    """Return spikes, (n_trials, n_bins, n_neurons) float64."""
    return np.asarray(recording.bin().dense_numpy(), dtype=np.float64)


class Case:
    """One data set: its recording, test trials, truth, and the scores that do not depend on a fit."""

    def __init__(self, dataset: MovieSettings, seed: int) -> None:
        self.dataset, self.seed = dataset, seed
        self.recording = dataset.load(seed=seed)
        spikes = dense(self.recording)
        self.train, self.test = spikes[: dataset.n_train], spikes[dataset.n_train :]
        self.truth = dataset.truth(seed=seed)
        self.stimulus = self.truth.values["stimulus"]

    def ceilings(self) -> Rows:
        """Return the scores of fresh trials of the generator, and of the training trials."""
        fresh = dense(replace(self.dataset, trial_seed=1, n_train=N_SIMULATED, n_test=0).load(seed=self.seed))
        return {"ceiling": activity_scores(self.test, fresh), "training trials": activity_scores(self.test, self.train)}

    def optimum(self, n_lags: int) -> Optimum:
        """Return the optimum of the likelihood without hidden neurons."""
        return fit_optimum(self.train, self.stimulus, n_lags)

    def oracle(self, n_lags: int) -> np.ndarray:
        """Return couplings among visible neurons, summed over lags, at the optimum where hidden neurons are observed, [post, pre]."""
        n = self.dataset.n_neurons
        everything = dense(replace(self.dataset, record_hidden=True).load(seed=self.seed))[: self.dataset.n_train]
        return fit_optimum(everything, self.stimulus, n_lags, n_post=n).coupling.sum(2)[:, :n]

    def fit(self, loss: Any, *, n_lags: int, n_hidden: int = 0, steps: int = 500) -> FitResult:
        """Return a fit of the network that generated the data, but for what is hidden: one free weight per lag, own history among them."""
        model = SpikingNetwork(
            neuron=SRM(post_spike_tau_ms=()),
            n_hidden=n_hidden,
            basis="boxes",
            coupling_ms=n_lags * LAG_MS,
            n_coupling=n_lags,
            self_coupling=True,
            n_signal=1,
            signal_before_ms=0.0,
        )
        return fitspike.fit(
            self.recording,
            model,
            loss=loss,
            rule="bptt",
            split=self.dataset.describe().settings[""]["split"],
            batch={"n_trials": 20, "n_free_trials": 20},
            optimiser={"learning_rate": 0.03, "clip_norm": 1.0},
            stop={"max_steps": steps, "patience": 10**6},
            simulation={"max_seconds": 0},
            score={"co_smoothing_bins": 0, "n_bootstrap": 2},
            report=False,
            progress="off",
            threads=1,
            seed=self.seed,
        )

    def scores(self, result: FitResult) -> dict[str, float]:
        """Return held-out NLL (nats per bin and neuron), scores of free simulations, and of couplings."""
        simulated = dense(result.simulate(n_trials=N_SIMULATED, signals_from=self._stimulus_trials(), seed=self.seed))
        nll = -result.scores["log_likelihood"] / self.test.size
        couplings = coupling_scores(self.truth.weight, result.connectivity().weight)
        return {"nll": nll, **activity_scores(self.test, simulated), **{f"coupling_{name}": value for name, value in couplings.items()}}

    def _stimulus_trials(self) -> Recording:
        """Return trials of the stimulus to simulate; their spikes are not used."""
        if self.recording.n_trials >= N_SIMULATED:
            return self.recording
        return replace(self.dataset, n_train=N_SIMULATED, n_test=0).load(seed=self.seed)


def slow_noise(seed: int) -> Rows:
    """P: the PSTH and the rates of free activity where slow noise is unobserved."""
    case = Case(SlowNoiseMovie(), seed)
    return {
        "optimum": {"nll": case.optimum(4).nll(case.test, case.stimulus)},
        "likelihood": case.scores(case.fit("nll", n_lags=4)),
        "with PSTH": case.scores(case.fit({"nll": 1.0, "psth": 5.0}, n_lags=4)),
        **case.ceilings(),
    }


def assemblies(seed: int) -> Rows:
    """N and H: noise correlations and couplings where hidden assemblies drive the recorded neurons."""
    case = Case(HiddenAssembliesMovie(), seed)
    losses = {"nll": 1.0, "psth": 1.0, "noise_correlation": 0.5, "hidden_rate": 0.1}
    oracle = coupling_scores(case.truth.weight, case.oracle(4))
    return {
        "optimum": {"nll": case.optimum(4).nll(case.test, case.stimulus)},
        "likelihood": case.scores(case.fit("nll", n_lags=4)),
        "sample-and-measure": case.scores(case.fit(losses, n_lags=4, n_hidden=20)),
        "oracle": {f"coupling_{name}": value for name, value in oracle.items()},
        **case.ceilings(),
    }


def feedforward(seed: int) -> Rows:
    """I, case 1: inhibition from A to B through hidden neurons; the direct coupling is 0."""
    case = Case(DisynapticMovie(), seed)
    n = case.dataset.n_neurons
    is_a = np.arange(n) < n // 2

    def scored(result: FitResult) -> dict[str, Any]:
        return {**case.scores(result), "A->B": block_input(result.connectivity().weight, ~is_a, is_a), "notes": result.notes}

    n_hidden = case.dataset.n_hidden
    optimum, optimum_3 = case.optimum(1), case.optimum(3)
    return {
        "optimum": {"nll": optimum.nll(case.test, case.stimulus), "A->B": block_input(optimum.coupling.sum(2), ~is_a, is_a)},
        "likelihood": scored(case.fit("nll", n_lags=1, steps=1000)),
        "hidden": scored(case.fit("nll", n_lags=1, n_hidden=n_hidden, steps=1000)),
        "optimum, 3 lags": {"A->B": block_input(optimum_3.coupling.sum(2), ~is_a, is_a)},
        "hidden, 3 lags": scored(case.fit("nll", n_lags=3, n_hidden=n_hidden, steps=1000)),
        "oracle": {"A->B": block_input(case.oracle(1), ~is_a, is_a)},
        **case.ceilings(),
    }


def feedback(seed: int) -> Rows:
    """I, case 2: inhibition of A by itself through hidden neurons; the direct coupling excites."""
    case = Case(DisynapticMovie(motif="feedback", n_neurons=30, n_hidden=10), seed)
    every = np.ones(30, dtype=bool)

    def scored(result: FitResult) -> dict[str, Any]:
        return {**case.scores(result), "A->A": block_input(result.connectivity().weight, every, every)}

    optimum = case.optimum(1)
    return {
        "optimum": {"nll": optimum.nll(case.test, case.stimulus), "A->A": block_input(optimum.coupling.sum(2), every, every)},
        "likelihood": scored(case.fit("nll", n_lags=1, steps=1000)),
        "hidden": scored(case.fit("nll", n_lags=1, n_hidden=case.dataset.n_hidden, steps=1000)),
        "oracle": {"A->A": block_input(case.oracle(1), every, every)},
        "truth": {"A->A": block_input(case.truth.weight, every, every)},
        **case.ceilings(),
    }


BENCHMARKS = {"P": slow_noise, "NH": assemblies, "I1": feedforward, "I2": feedback}
