"""Connections inferred from spikes (benchmark B5): 60 neurons of known wiring, fitted by `fitspike.fit`, beside exact maximum likelihood.

    u_j(t) = -3.2 + v_j(t),    v_j(t) = exp(-1/5) v_j(t - 1) + sum_i W_ji z_i(t - 1) - 2 z_j(t - 1),    P(spike) = 1 / (1 + exp(-u))

One in ten connections exists, 354 in all; 48 neurons excite with weights between 0.3 and 0.8, 12 inhibit, 1.8 times as strongly. Trials of
250 bins begin in silence. Scores: precision among the 354 strongest weights, and bits per spike on 20000 held-out bins, computed here from
the fitted parameters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

import fitspike
from fitspike import Recording

N, N_EXCITATORY, N_TRUE, TRIAL, N_TEST = 60, 48, 354, 250, 20000
DECAY, BIAS, RESET = np.exp(-1 / 5), -3.2, 2.0
SIGNS = (1,) * N_EXCITATORY + (-1,) * (N - N_EXCITATORY)
OFF = ~np.eye(N, dtype=bool)
L1 = {20000: 1e-3, 5000: 1.5e-3}
"""Per bin, as the loss of one neuron is; fitspike's loss is per spike-bin, so that learning rates grow and l1 shrinks by N."""
RATE, STEPS, REFIT_STEPS = 25.0, 1500, 400


@dataclass(frozen=True)
class Spikes:
    """Spikes of trials (n_trials, n_bins, n_neurons), and `trace`, each neuron's past spikes filtered as its targets see them."""

    spikes: np.ndarray
    trace: np.ndarray

    @classmethod
    def of(cls, spikes: np.ndarray) -> Spikes:
        trace = np.zeros(spikes.shape)
        for t in range(1, spikes.shape[1]):
            trace[:, t] = DECAY * trace[:, t - 1] + spikes[:, t - 1]
        return cls(spikes, trace)

    @property
    def flat(self) -> tuple[np.ndarray, np.ndarray]:
        """Return spikes and trace of all bins, (n_bins, n_neurons)."""
        return self.spikes.reshape(-1, N), self.trace.reshape(-1, N)


@dataclass(frozen=True)
class Weights:
    """bias (n_neurons,), and weight [post, pre], a neuron's effect on itself on the diagonal."""

    bias: np.ndarray
    weight: np.ndarray

    @property
    def coupling(self) -> np.ndarray:
        return self.weight * OFF


def draw_network(seed: int) -> Weights:
    """Return the true network."""
    rng = np.random.default_rng(seed)
    strength = rng.uniform(0.3, 0.8, (N, N)) * np.where(np.array(SIGNS) > 0, 1.0, -1.8)
    exists = np.zeros(N * N, dtype=bool)
    exists[rng.choice(np.flatnonzero(OFF), N_TRUE, replace=False)] = True
    return Weights(np.full(N, BIAS), strength * exists.reshape(N, N) - RESET * np.eye(N))


def simulate(truth: Weights, n_bins: int, seed: int) -> Spikes:
    """Return spikes of n_bins bins in trials."""
    uniform = np.random.default_rng(seed).random((n_bins // TRIAL, TRIAL, N))
    voltage, last, spikes = np.zeros((len(uniform), N)), np.zeros((len(uniform), N)), np.zeros(uniform.shape)
    for t in range(TRIAL):
        voltage = DECAY * voltage + last @ truth.weight.T
        last = (uniform[:, t] < 1 / (1 + np.exp(-truth.bias - voltage))).astype(float)
        spikes[:, t] = last
    return Spikes.of(spikes)


def bits_per_spike(weights: Weights, test: Spikes, training: Spikes) -> float:
    """Return the log-likelihood above that of each neuron's mean rate in training, in bits per spike."""
    spikes, trace = test.flat
    drive = weights.bias + trace @ weights.weight.T
    mean = training.flat[0].mean(0)
    model = -np.logaddexp(0, np.where(spikes > 0, -drive, drive)).sum()
    null = (spikes * np.log(mean) + (1 - spikes) * np.log1p(-mean)).sum()
    return float((model - null) / spikes.sum() / np.log(2))


def precision(weights: Weights, truth: Weights) -> float:
    """Return which part of the 354 strongest weights belongs to true connections."""
    strongest = np.argsort(-np.abs(weights.coupling).ravel(), kind="stable")[:N_TRUE]
    return float((truth.coupling.ravel()[strongest] != 0).mean())


def maximum_likelihood(training: Spikes, support: np.ndarray = OFF) -> Weights:
    """Return the exact optimum with connections in the support alone, by Newton's method for each neuron."""
    spikes, trace = training.flat
    bias, weight = np.zeros(N), np.zeros((N, N))
    for j in range(N):
        pre = np.flatnonzero(support[j] | (np.arange(N) == j))
        x = np.column_stack([np.ones(len(trace)), trace[:, pre]])
        beta = np.zeros(x.shape[1])
        beta[0] = -3.0
        for _ in range(50):
            prob = 1 / (1 + np.exp(-x @ beta))
            gradient = x.T @ (spikes[:, j] - prob)
            change = np.linalg.solve((x.T * (prob * (1 - prob))) @ x + 1e-6 * np.eye(len(beta)), gradient)
            beta += change * min(1.0, 2.0 / np.abs(change).max())
            if np.abs(change).max() < 1e-6:
                break
        bias[j], weight[j, pre] = beta[0], beta[1:]
    return Weights(bias, weight)


def strongest_support(weights: Weights) -> np.ndarray:
    """Return where the 354 strongest couplings are."""
    size = np.abs(weights.coupling)
    return size >= np.sort(size.ravel())[-N_TRUE]


def fit(training: Spikes, *, transforms: list[Any], dale: bool, seed: int, steps: int, optimiser: dict[str, Any], init: Any = None) -> Any:
    """Return the network that has the generator's form, fitted to the training data."""
    n_trials = len(training.spikes)
    return fitspike.fit(
        Recording.from_counts(training.spikes.astype(int), dt_ms=1.0),
        "spiking-network",
        settings={"coupling_ms": 1.0, "basis": "boxes", "signals": (), "dale": SIGNS if dale else False},
        neuron={"name": "srm", "post_spike_tau_ms": [5.0], "tau_m_ms": 5.0},
        transforms=transforms,
        optimiser=optimiser,
        init=init,
        split="none",
        batch={"n_bins": TRIAL, "n_trials": 8 if transforms else n_trials},
        stop={"max_steps": steps, "patience": 0, "log_every": 100},
        simulation={"max_seconds": 0},
        report=False,
        threads=1,
        seed=seed,
        progress="off",
    )


def weights_of(result: Any) -> Weights:
    """Return bias and weights of a fitted network."""
    return Weights(result.params["bias"], result.connectivity().weight + np.diag(result.params["post_spike_weight"][:, 0]))


def inferred(training: Spikes, seed: int, *, dale: bool = False, optimiser: str = "sgd", n_active: int = N_TRUE, **settings: Any) -> Any:
    """Return the fit through DEEP R, and that its number of connections is as asked."""
    n_bins = training.spikes.shape[0] * TRIAL
    rate = RATE * N if optimiser == "sgd" else 0.02
    transform = {"name": "deep-r", "n_active": n_active, "l1": L1[n_bins] / N, "allow_adaptive": optimiser != "sgd", **settings}
    how = {"name": optimiser, "learning_rate": rate, "final_fraction": 0.01}
    result = fit(training, transforms=[transform], dale=dale, seed=seed, steps=STEPS, optimiser=how)
    mask = result.params["coupling_mask"] != 0
    assert mask.sum() == n_active and not (result.params["coupling"][..., 0] * ~mask).any() and not mask[~OFF].any()
    return result


def refitted(training: Spikes, result: Any, seed: int, *, dale: bool) -> Weights:
    """Return the fit on the connections that were found, without prior."""
    support = result.params["coupling_mask"] * (result.params["coupling"][..., 0] != 0)
    init, how = {**result.params, "coupling_mask": support}, {"name": "adam", "learning_rate": 0.02}
    return weights_of(fit(training, transforms=[], dale=dale, seed=seed, steps=REFIT_STEPS, optimiser=how, init=init))


def inference(n_bins: int, seed: int) -> dict[str, dict[str, float]]:
    """Return precision and bits per spike by method, on data of n_bins bins."""
    truth = draw_network(seed)
    training, test = simulate(truth, n_bins, 1000 + seed), simulate(truth, N_TEST, 2000 + seed)
    dense = maximum_likelihood(training)
    pruned = maximum_likelihood(training, strongest_support(dense))
    exact = maximum_likelihood(training, truth.coupling != 0)
    rows = {
        "truth": {"bits": bits_per_spike(truth, test, training), "rate": float(training.spikes.mean())},
        "true support": {"bits": bits_per_spike(exact, test, training)},
        "dense": {"precision": precision(dense, truth), "bits": bits_per_spike(dense, test, training)},
        "pruned": {"precision": precision(dense, truth), "bits": bits_per_spike(pruned, test, training)},
    }
    for name, dale in (("resample", False), ("dale", True)):
        result = inferred(training, seed, dale=dale)
        found, again = weights_of(result), refitted(training, result, seed, dale=dale)
        rows[name] = {
            "precision": precision(found, truth),
            "bits": bits_per_spike(found, test, training),
            "refit": bits_per_spike(again, test, training),
            "above 0": float((found.coupling != 0).sum()),
        }
    if n_bins == 20000:
        for name, how in (("fixed signs", {"signs": "fixed"}), ("adam", {"optimiser": "adam"})):
            found = weights_of(inferred(training, seed, **how))
            rows[name] = {"precision": precision(found, truth), "bits": bits_per_spike(found, test, training)}
        more = inferred(training, seed, n_active=round(1.5 * N_TRUE))
        active, exists = more.params["coupling_mask"] != 0, truth.coupling != 0
        above = weights_of(more).coupling != 0
        rows["1.5 K"] = {
            "recall": float((active & exists).sum() / N_TRUE),
            "precision": float((active & exists).sum() / active.sum()),
            "precision above 0": float((above & exists).sum() / above.sum()),
        }
    return rows
