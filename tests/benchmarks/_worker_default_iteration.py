"""Times one iteration of sample-and-measure of the size of Bellec et al. 2021 on one thread: the network part, without the image encoder.

69 neurons, 641 bins, 20 trials, couplings of 9 lags, 1568 stimulus features, 15 % of bins with a spike: the likelihood of the recorded
spikes, and a free run with the cross-entropy of its PSTH and the square error of its noise covariances at 9 lags; the gradient of all.
"""

from __future__ import annotations

import time

import numpy as np
import torch
from _workers import answer, given

from fitspike.fitting.threads import use_threads
from fitspike.models.network_coupling import LagCoupling
from fitspike.neurons.emissions import Bernoulli
from fitspike.neurons.srm import SRM
from fitspike.rollout import rollout

N_NEURONS, N_BINS, N_TRIALS, N_LAGS, N_FEATURES, DT_MS = 69, 641, 20, 9, 1568, 1.0


def covariances(later: torch.Tensor, earlier: torch.Tensor) -> torch.Tensor:
    """Return the noise covariances (n_lags, n_neurons, n_neurons) of two (n_trials, n_bins, n_neurons), with no circular shift."""
    later, earlier = later - later.mean(0), earlier - earlier.mean(0)
    found = []
    for lag in range(N_LAGS):
        a, b = later[:, lag:].flatten(0, 1), earlier[:, : N_BINS - lag].flatten(0, 1)
        found.append(a.T @ b / (a.shape[0] * (1.0 - 1.0 / N_TRIALS)))
    return torch.stack(found)


def main() -> None:
    """Answer with the seconds of each part, one per run."""
    rng = np.random.default_rng(0)
    emission, neuron = Bernoulli(), SRM(post_spike_tau_ms=())

    def normal(*shape: int, scale: float) -> torch.Tensor:
        return torch.as_tensor(rng.normal(0.0, scale, shape).astype(np.float32))

    features = normal(N_BINS, N_FEATURES, scale=1.0)
    recorded = torch.as_tensor((rng.random((N_TRIALS, N_BINS, N_NEURONS)) < 0.15).astype(np.float32))
    uniforms = torch.as_tensor(rng.random((N_TRIALS, N_BINS, N_NEURONS)))
    weights = {
        "w_in": normal(N_FEATURES, N_NEURONS, scale=0.5 * N_FEATURES**-0.5),
        "coupling": normal(N_NEURONS, N_NEURONS, N_LAGS, scale=(N_NEURONS * N_LAGS) ** -0.5),
        "bias": torch.full((N_NEURONS,), -1.9),
    }
    weights = {name: w.requires_grad_() for name, w in weights.items()}
    psth, target = recorded.mean(0), covariances(recorded, recorded)
    is_pair = torch.ones(N_LAGS, N_NEURONS, N_NEURONS)
    is_pair[0].fill_diagonal_(0.0)

    def driven(**how: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        current = (features @ weights["w_in"]).expand(N_TRIALS, -1, -1)
        coupling = LagCoupling(weights["coupling"], None)
        run = rollout(neuron, {"bias": weights["bias"]}, emission, current=current, coupling=coupling, dt_ms=DT_MS, **how)
        return run.spikes, run.drive

    def iteration() -> tuple[dict[str, float], float]:
        marks = [time.perf_counter()]
        _, drive = driven(observed=recorded)
        likelihood = -emission.log_prob(drive, recorded, DT_MS).mean()
        marks.append(time.perf_counter())
        spikes, free = driven(uniforms=uniforms)
        marks.append(time.perf_counter())
        expected = emission.expected(free, DT_MS)
        mean = expected.mean(0).clamp(1e-6, 1.0 - 1e-6)
        cross_entropy = -(psth * mean.log() + (1.0 - psth) * (1.0 - mean).log()).mean()
        error = ((covariances(expected, spikes) - target) * is_pair).square().mean()
        loss = 0.4 * likelihood + 0.1 * cross_entropy + 50.0 * error
        marks.append(time.perf_counter())
        loss.backward()
        marks.append(time.perf_counter())
        for w in weights.values():
            assert bool(w.grad.isfinite().all())
            w.grad = None
        names = ("clamped", "free", "losses", "backward")
        return dict(zip(names, np.diff(marks), strict=True)), float(spikes.detach().mean())

    iteration()
    runs = [iteration() for _ in range(int(given()["n_runs"]))]
    figures = {f"{name}_s": np.array([run[name] for run, _ in runs]) for name in runs[0][0]}
    answer(density=runs[0][1], total_s=sum(figures.values()), **figures)


if __name__ == "__main__":
    with use_threads(1):
        main()
