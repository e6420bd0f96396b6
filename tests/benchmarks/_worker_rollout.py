"""Times the rollouts of `fused_rollout.py` that compute the same: fused, and as a torch loop, compiled or not; compares what they find."""

from __future__ import annotations

import time

import numpy as np
import torch
from _rollout_problem import DECAY, N_NEURONS, Problem, seconds, steps, torch_loop
from _workers import answer, given

from fitspike.fitting.threads import available_threads, use_threads
from fitspike.kernels.linear_rollout import LinearCarry, LinearCoupling, LinearNeuron, Sampling, Slope, linear_rollout


def logistic_slope(drive: torch.Tensor) -> torch.Tensor:
    """Return p (1 - p)."""
    p = torch.sigmoid(drive)
    return p * (1.0 - p)


def rollout_of(
    problem: Problem, inputs: torch.Tensor, threshold: torch.Tensor, carry: LinearCarry | None = None, backend: str = "numba"
) -> tuple[torch.Tensor, LinearCarry]:
    """Return spikes and carry of some bins by our kernel."""
    one, zero = torch.ones(1, N_NEURONS), torch.zeros(1, N_NEURONS)
    neuron = LinearNeuron(DECAY * one, one, -one, one, torch.full((N_NEURONS,), problem.bias), zero, "none", (False,), 0, -30.0)
    k, w = problem.n_trials, problem.w_rec
    coupling = LinearCoupling(w.T[None], w.new_zeros(0, N_NEURONS, N_NEURONS), w.new_zeros(0), 1)
    if carry is None:
        silent = torch.zeros(k, N_NEURONS)
        carry = LinearCarry(torch.zeros(k, 1, N_NEURONS), silent, silent, silent[:, None], torch.zeros(k, N_NEURONS, 0))
    sampling = Sampling("threshold", threshold, logistic_slope, closed_slope=Slope("logistic", 1.0, float("inf")))
    spikes, _, carry = linear_rollout(neuron, inputs @ problem.w_in.T, carry, coupling=coupling, sampling=sampling, backend=backend)
    return spikes, carry


def kernel(problem: Problem, backend: str) -> torch.Tensor:
    """Return the spikes by our kernel."""
    return rollout_of(problem, problem.inputs, problem.threshold, backend=backend)[0]


def product_s(n_rows: int, n_repeats: int = 200) -> float:
    """Return the seconds of the matrix work of a backward pass, 2 n_rows 200^2 operations a bin, at the rate of one large product."""
    rows, w = torch.randn(n_rows * N_NEURONS, N_NEURONS), torch.randn(N_NEURONS, N_NEURONS)
    best = np.inf
    for _ in range(10):
        began = time.perf_counter()
        rows @ w
        best = min(best, time.perf_counter() - began)
    return best / N_NEURONS * n_repeats


def main() -> None:
    """Answer with seconds (one per run) and differences."""
    settings = given()
    problem = Problem(int(settings["n_trials"]))
    paths = {"fused": lambda: kernel(problem, "numba"), "loop": lambda: torch_loop(problem)}
    compile_s = {}
    if settings["is_compiled"]:
        chunk = int(settings["chunk"])
        compiled = torch.compile(steps, fullgraph=True, dynamic=False)
        paths["compiled"] = lambda: torch_loop(problem, compiled, chunk)
    found, times = {}, {name: [] for name in paths}
    for name, path in paths.items():
        compile_s[name] = seconds(path, problem.to_spikes)[0]
        problem.gradients()
    for _ in range(int(settings["n_runs"])):
        for name, path in paths.items():
            took, spikes = seconds(path, problem.to_spikes)
            times[name].append(took)
            found[name] = [spikes, *problem.gradients()]
    found["reference"] = [seconds(lambda: kernel(problem, "reference"), problem.to_spikes)[1], *problem.gradients()]
    fused = found["fused"]
    differing = {name: int((other[0] != fused[0]).sum()) for name, other in found.items()}
    error = {
        name: max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(fused[1:], other[1:], strict=True))
        for name, other in found.items()
    }
    answer(
        rate_hz=float(fused[0].mean()) * 1e3,
        product_s=product_s(problem.n_trials, problem.n_bins),
        **{f"{name}_s": np.array(t) for name, t in times.items()},
        **{f"{name}_first_s": t for name, t in compile_s.items()},
        **{f"{name}_differing": n for name, n in differing.items()},
        **{f"{name}_error": e for name, e in error.items()},
    )


if __name__ == "__main__":
    with use_threads(available_threads()):
        main()
