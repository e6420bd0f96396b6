"""Measures the memory of one forward and backward pass over a long trial; `path` says by what.

"loop": the torch loop. "fused": our kernel, all bins at once. "checkpointed": our kernel in pieces of sqrt(n_bins) bins, each run again in
the backward pass, inputs, thresholds and the adjoint of the spikes of a piece made when they are needed.
"""

from __future__ import annotations

import math
import resource
from collections.abc import Callable

import torch
from _rollout_problem import N_INPUTS, N_NEURONS, Problem, torch_loop
from _worker_rollout import kernel, rollout_of
from _workers import answer, given
from torch.utils.checkpoint import checkpoint

from fitspike.kernels.linear_rollout import LinearCarry
from fitspike.rng import Stream


def peak_gib() -> float:
    """Return the largest memory that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def piece_of(problem: Problem, bins: range) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return inputs, thresholds and the adjoint of the spikes of some bins."""
    names = ("inputs", "threshold", "to_spikes")
    uniforms = {name: torch.as_tensor(Stream(0, name).uniforms(problem.n_trials, bins, N_NEURONS)).float() for name in names}
    return uniforms["inputs"][..., :N_INPUTS] - 0.5, torch.logit(uniforms["threshold"]), uniforms["to_spikes"] - 0.5


def checkpointed(problem: Problem, run: Callable) -> torch.Tensor:
    """Return the sum of spikes times their adjoint, its graph holding the carries between pieces alone."""
    length = math.isqrt(problem.n_bins)

    def piece(first: int, *carry: torch.Tensor) -> tuple[torch.Tensor, ...]:
        inputs, threshold, to_spikes = piece_of(problem, range(first, min(first + length, problem.n_bins)))
        spikes, new = run(problem, inputs, threshold, LinearCarry(*carry))
        return (spikes * to_spikes).sum(), *new

    k, total = problem.n_trials, torch.zeros(())
    silent = torch.zeros(k, N_NEURONS)
    carry = LinearCarry(torch.zeros(k, 1, N_NEURONS), silent, silent, silent[:, None], torch.zeros(k, N_NEURONS, 0))
    for first in range(0, problem.n_bins, length):
        part, *carry = checkpoint(piece, first, *carry, use_reentrant=False)
        total = total + part
    return total


def main() -> None:
    """Answer with the memory that the pass has added, and the gradients."""
    settings = given()
    path = str(settings["path"])
    small = Problem(int(settings["n_trials"]), 50)  # loads, compiles and allocates what any pass needs
    run = {"loop": torch_loop, "fused": lambda problem: kernel(problem, "numba")}
    if path == "checkpointed":
        checkpointed(small, rollout_of).backward()
    else:
        run[path](small).backward(small.to_spikes)
    before = peak_gib()
    problem = small.longer(int(settings["n_bins"]))
    if path == "checkpointed":
        checkpointed(problem, rollout_of).backward()
    else:
        problem.inputs, problem.threshold, problem.to_spikes = piece_of(problem, range(problem.n_bins))
        run[path](problem).backward(problem.to_spikes)
    w_in, w_rec = problem.gradients()
    answer(added_gib=peak_gib() - before, w_in=w_in.numpy(), w_rec=w_rec.numpy())


if __name__ == "__main__":
    main()
