"""LSNN neurons against closed forms, and networks of them on tasks that need memory, trained by back-propagation through time.

    python tests/acceptance/lsnn.py [neurons] [B2] [B3] [--seeds=5] [--workers=N]

Without names the parts `neurons` and `B2` run; B3 takes longer and runs when it is named. neurons: threshold and voltage of adaptive LIF
neurons, dependence on the bin width, the fused rollout against the plain loop. B2: store-recall with 10 LIF and 10 adaptive neurons, and
with 20 LIF neurons as control. B3: evidence accumulation with 50 LIF and 50 adaptive neurons, and with 100 LIF neurons as control. Seeds
run in processes of one thread each (default: one per core); every seed is printed.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))
from _lsnn_tasks import Setup, evidence, iterate, progress, store_recall
from _seeds import run_seeds
from _table import Bounds
from fitspike_neurons.alif import ALIF
from fitspike_neurons.current_lif import CurrentLIF

from fitspike.learning.bptt import BPTT
from fitspike.neurons.emissions import Bernoulli, Threshold
from fitspike.params import initial_params, to_tensors
from fitspike.rng import Stream
from fitspike.rollout import rollout

# -- neurons ------------------------------------------------------------------------------------------------------------------------


def driven(neuron: ALIF, current: np.ndarray, dt_ms: float = 1.0, backend: str = "auto") -> tuple[np.ndarray, np.ndarray]:
    """Return spikes and drive (n_bins,) of a deterministic neuron under a current (n_bins,)."""
    params = to_tensors(initial_params(neuron.param_specs(1), Stream(0, "init")))
    given = torch.as_tensor(current)[None, :, None]
    run = rollout(neuron, params, Threshold(), current=given, uniforms=torch.full_like(given, 0.5), dt_ms=dt_ms, backend=backend)
    return run.spikes[0, :, 0].numpy(), run.drive[0, :, 0].numpy()


def check_neurons(b: Bounds) -> None:
    """T1 to T3 of adaptive LIF neurons, and both linear neurons on the fused path."""
    neuron = ALIF(tau_m_ms=1e-2, threshold=1.0, adaptation=0.5, tau_adapt_ms=200.0)  # the voltage forgets within a bin
    pulse = np.where(np.arange(1000) == 3, 1.5, 0.0)
    spikes, drive = driven(neuron, pulse)
    lag = np.arange(2, 997)
    error = np.abs((-1.0 - drive[5:]) / 0.5 - np.exp(-(lag - 1) / 200.0)).max()
    b.check("T1: adaptation k bins after one spike is rho^(k-1), error at most 1e-12", f"{error:.1e}", spikes.sum() == 1 and error <= 1e-12)

    neuron, alpha = ALIF(tau_m_ms=20.0, threshold=0.6, adaptation=0.0), np.exp(-1 / 20.0)
    closed = 0.05 * (1 - alpha ** np.arange(1, 201)) / (1 - alpha)
    spikes, drive = driven(neuron, np.full(200, 0.05))
    first, expected = int(np.flatnonzero(spikes)[0]), int(np.flatnonzero(closed > 0.6)[0])
    b.check("T2: first spike of a LIF neuron under constant current at the exact bin", f"{first}, expected {expected}", first == expected)
    voltage = 0.6 * drive + 0.6
    error = max(np.abs(voltage - closed)[: first + 1].max(), abs(voltage[first + 1] - (closed[first + 1] - 0.6)))
    b.check("T2: voltage before the spike and after the reset, error at most 1e-12", f"{error:.1e}", error <= 1e-12)

    for name, adaptation in (("LIF", 0.0), ("ALIF", 0.05)):
        counts = []
        for dt_ms in (1.0, 0.5, 0.25):
            neuron = ALIF(threshold=0.6, adaptation=adaptation, tau_adapt_ms=200.0)
            counts.append(int(driven(neuron, np.full(round(2000 / dt_ms), 0.05 * dt_ms), dt_ms)[0].sum()))
        worst = max(abs(count / counts[0] - 1) for count in counts)
        b.check(f"T3: spikes of {name} in 2 s at bins of 1, 0.5, 0.25 ms within 5 %", f"{counts}, {100 * worst:.1f} %", worst < 0.05)

    for neuron in (
        ALIF(adaptation=0.3, tau_adapt_ms=50.0, n_adaptive=3, refractory_ms=2.0, train=("adaptation", "tau_m_ms")),
        CurrentLIF(),
    ):
        for emission in (Threshold(), Bernoulli()):
            same, error = fused_against_loop(neuron, emission)
            b.check(
                f"{neuron.name}, {emission.name}: fused rollout has the loop's spikes, and its gradients to 1e-9",
                f"{'equal' if same else 'different'}, {error:.1e}",
                same and error <= 1e-9,
            )


def fused_against_loop(neuron: ALIF | CurrentLIF, emission: Threshold | Bernoulli) -> tuple[bool, float]:
    """Return whether both paths give the same spikes, and the largest relative difference of their gradients (float64)."""
    draw, found = np.random.default_rng(1), []
    scale = 5.0 if isinstance(neuron, CurrentLIF) else 0.15
    current = torch.as_tensor(draw.gamma(1.0, scale, (4, 500, 6))).requires_grad_()
    uniforms, weight = torch.as_tensor(draw.random((4, 500, 6))), torch.as_tensor(draw.normal(size=(4, 500, 6)))
    for backend in ("step", "numba"):
        arrays = initial_params(neuron.param_specs(6), Stream(0, "init"))
        params = {name: value.requires_grad_() for name, value in to_tensors(arrays).items()}
        run = rollout(neuron, params, emission, current=current, uniforms=uniforms, dt_ms=1.0, backend=backend)
        found.append((run.spikes.detach(), torch.autograd.grad((run.spikes * weight).sum(), [*params.values(), current])))
    (spikes, plain), (fused_spikes, fused) = found
    assert 0 < float(spikes.mean()) < 1, "the neurons have to spike now and then"
    return torch.equal(spikes, fused_spikes), max(float((a - c).abs().max() / a.abs().max()) for a, c in zip(plain, fused, strict=True))


# -- tasks --------------------------------------------------------------------------------------------------------------------------


def errors(setup: Setup, seed: int, n_iterations: int) -> list[float]:
    """Return the fraction of wrong decisions of each iteration, on trials not seen before."""
    return [metrics["readout_error"] for metrics in iterate(setup, BPTT(), seed, n_iterations)]


def recall_200(seed: int) -> list[float]:
    """Return the errors of store-recall with symbols of 200 ms."""
    return errors(store_recall(200.0, 1200.0), seed, 150)


def recall_200_lif(seed: int) -> list[float]:
    """Return the same for LIF neurons alone."""
    return errors(store_recall(200.0, 1200.0, n_adaptive=0), seed, 200)


def recall_100(seed: int) -> list[float]:
    """Return the errors of store-recall with symbols of 100 ms."""
    return errors(store_recall(100.0, 600.0), seed, 200)


def evidence_adaptive(seed: int) -> list[float]:
    """Return the errors of evidence accumulation."""
    return errors(evidence(), seed, 250)


def evidence_lif(seed: int) -> list[float]:
    """Return the same for LIF neurons alone."""
    return errors(evidence(n_adaptive=0), seed, 200)


RUN = {one.__name__: one for one in (recall_200, recall_200_lif, recall_100, evidence_adaptive, evidence_lif)}
TASKS = {"B2": ("recall_200", "recall_200_lif", "recall_100"), "B3": ("evidence_adaptive", "evidence_lif")}


def last(runs: list[list[float]], n_last: int = 10) -> np.ndarray:
    """Return each seed's mean error of the last iterations, (n_seeds,)."""
    return np.array([np.mean(one[-n_last:]) for one in runs])


def listed(values: np.ndarray) -> str:
    """Return values of seeds in words."""
    return " ".join(f"{value:.3f}" for value in values)


def check_store_recall(b: Bounds, found: dict[str, list[list[float]]]) -> None:
    """B2."""
    runs = found["recall_200"]
    means = [np.convolve(one, np.ones(5) / 5, mode="valid") for one in runs]
    reached = [int(np.argmax(one < 0.05)) + 5 if (one < 0.05).any() else None for one in means]
    n_reached = sum(at is not None for at in reached)
    b.check(
        "B2: 200 ms, 10 LIF + 10 adaptive: 5-batch error below 0.05 within 150 iterations, 2 of 3 seeds",
        f"at {reached}; last 10: {listed(last(runs))}",
        n_reached >= 2 * len(runs) / 3,
    )
    control = last(found["recall_200_lif"])
    b.check("B2: 200 ms, 20 LIF: error of the last 10 of 200 iterations at least 0.40", listed(control), bool((control >= 0.40).all()))
    short = last(found["recall_100"])
    b.check("B2: 100 ms, 10 LIF + 10 adaptive: error of the last 10 of 200 at most 0.08", listed(short), bool((short <= 0.08).all()))


def check_evidence(b: Bounds, found: dict[str, list[list[float]]]) -> None:
    """B3."""
    adaptive, control = last(found["evidence_adaptive"], 25), last(found["evidence_lif"])
    b.check("B3: 50 LIF + 50 adaptive: error of iterations 226 to 250 at most 0.22", listed(adaptive), bool((adaptive <= 0.22).all()))
    b.check("B3: 100 LIF: error of the last 10 of 200 iterations at least 0.40", listed(control), bool((control >= 0.40).all()))


def main(arguments: list[str]) -> None:
    """Run the parts that are named."""
    options = dict(one.removeprefix("--").split("=", 1) for one in arguments if one.startswith("--"))
    parts = [one for one in arguments if not one.startswith("--")] or ["neurons", "B2"]
    if unknown := [one for one in parts if one not in ("neurons", *TASKS)]:
        sys.exit(f"no part {', '.join(unknown)}. Known: neurons, {', '.join(TASKS)}.")
    b = Bounds("lsnn")
    if "neurons" in parts:
        check_neurons(b)
    names = [name for part in parts for name in TASKS.get(part, ())]
    if names:
        seeds = {name: range(int(options.get("seeds", 5))) for name in names}
        found = run_seeds(RUN, seeds, int(options.get("workers", len(os.sched_getaffinity(0)))), progress)
        for part, check in (("B2", check_store_recall), ("B3", check_evidence)):
            if part in parts:
                check(b, found)
    b.finish()


if __name__ == "__main__":
    main(sys.argv[1:])
