"""The recurrent network of `fused_rollout.py`, and the torch loop over its bins; imported by both interpreters."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable

import numpy as np
import torch

N_NEURONS, N_INPUTS, N_BINS, DECAY = 200, 50, 1000, 0.9


class Problem:
    """Inputs (n_trials, n_bins, n_inputs), weights, thresholds of the drive and the adjoint of the spikes, float32, of a fixed seed."""

    def __init__(self, n_trials: int, n_bins: int = N_BINS) -> None:
        rng = np.random.default_rng(n_trials)

        def normal(*shape: int, scale: float = 1.0) -> torch.Tensor:
            return torch.as_tensor(rng.normal(0.0, scale, shape).astype(np.float32))

        self.n_trials, self.n_bins = n_trials, n_bins
        self.inputs = normal(n_trials, n_bins, N_INPUTS)
        self.w_in = normal(N_NEURONS, N_INPUTS, scale=0.5 * N_INPUTS**-0.5).requires_grad_()
        self.w_rec = normal(N_NEURONS, N_NEURONS, scale=0.2 * N_NEURONS**-0.5).requires_grad_()
        self.bias = -5.0  # about 10 Hz in bins of 1 ms
        self.threshold = torch.as_tensor(rng.logistic(size=(n_trials, n_bins, N_NEURONS)).astype(np.float32))
        self.to_spikes = normal(n_trials, n_bins, N_NEURONS)

    def longer(self, n_bins: int) -> Problem:
        """Return the same network without inputs, thresholds and adjoint, for `n_bins` bins."""
        new = copy.copy(self)
        new.n_bins, new.inputs, new.threshold, new.to_spikes = n_bins, None, None, None
        new.gradients()
        return new

    def gradients(self) -> list[torch.Tensor]:
        """Return the gradients of the weights, and forget them."""
        found = [self.w_in.grad, self.w_rec.grad]
        self.w_in.grad = self.w_rec.grad = None
        return found


class Spike(torch.autograd.Function):
    """A step in the forward pass, times p (1 - p), p = 1 / (1 + exp(-drive)), in the backward pass."""

    @staticmethod
    def forward(ctx, drive: torch.Tensor, threshold: torch.Tensor) -> torch.Tensor:
        """Return 1 where the drive exceeds the threshold."""
        ctx.save_for_backward(drive)
        return (drive > threshold).to(drive.dtype)

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        """Return the gradient times the slope."""
        p = torch.sigmoid(ctx.saved_tensors[0])
        return gradient * p * (1.0 - p), None


def steps(
    state: torch.Tensor,
    spikes: torch.Tensor,
    currents: list[torch.Tensor],
    thresholds: list[torch.Tensor],
    w_rec: torch.Tensor,
    bias: float,
) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
    """Return the state and the spikes after some bins, and the spikes of each.

    s(t) = decay s(t-1) + current(t) + w_rec z(t-1) - z(t-1),   z(t) = 1 where s(t) + bias > threshold(t)
    """
    found = []
    for current, threshold in zip(currents, thresholds, strict=True):
        state = DECAY * state + current + spikes @ w_rec.T - spikes
        spikes = Spike.apply(state + bias, threshold)
        found.append(spikes)
    return state, spikes, found


def torch_loop(problem: Problem, run: Callable = steps, chunk: int | None = None) -> torch.Tensor:
    """Return the spikes (n_trials, n_bins, n_neurons), bin by bin; `run` is `steps` or that compiled, for `chunk` bins at a time."""
    currents = (problem.inputs @ problem.w_in.T).unbind(1)
    thresholds = problem.threshold.unbind(1)
    state = spikes = torch.zeros(problem.n_trials, N_NEURONS)
    found, chunk = [], chunk or problem.n_bins
    for first in range(0, problem.n_bins, chunk):
        part = slice(first, first + chunk)
        state, spikes, some = run(state, spikes, list(currents[part]), list(thresholds[part]), problem.w_rec, problem.bias)
        found += some
    return torch.stack(found, dim=1)


def seconds(run: Callable[[], torch.Tensor], to_spikes: torch.Tensor) -> tuple[float, torch.Tensor]:
    """Return how long a forward and a backward pass take, and the spikes."""
    began = time.perf_counter()
    spikes = run()
    spikes.backward(to_spikes)
    return time.perf_counter() - began, spikes.detach()
