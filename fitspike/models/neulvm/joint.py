"""log p(spikes, population activity) as a function that torch can differentiate, over the compiled kernel."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from fitspike.kernels.mesoscopic import Constants, log_prob


class JointLogProb(torch.autograd.Function):
    """log p(spikes, activity) of one trial, nats, with gradients in activity and constants; all tensors float64.

    forward(fractions (n_bins, M), tau_s, rest, threshold (M,), coupling (M, M), constants, spikes, membership, drive_per_s, first_bin):
    `constants` gives what is not differentiated; the arrays are those of `mesoscopic.log_prob`.
    """

    @staticmethod
    def forward(
        ctx: Any,
        fractions: torch.Tensor,
        tau_s: torch.Tensor,
        rest: torch.Tensor,
        threshold: torch.Tensor,
        coupling: torch.Tensor,
        constants: Constants,
        spikes: np.ndarray,
        membership: np.ndarray,
        drive_per_s: np.ndarray,
        first_bin: int,
    ) -> torch.Tensor:
        """Return the value and keep the gradient, which comes with it."""
        log_fractions, log_spikes, gradient = log_prob(
            fractions.detach().cpu().numpy(), spikes, membership, drive_per_s, constants, first_bin=first_bin
        )
        assert gradient is not None
        ctx.gradient = tuple(
            torch.as_tensor(one) for one in (gradient.fractions, gradient.tau_s, gradient.rest, gradient.threshold, gradient.coupling)
        )
        return torch.tensor(log_fractions + log_spikes, dtype=torch.float64)

    @staticmethod
    def backward(ctx: Any, grad_output: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Return the gradients in the five tensors."""
        return (*(grad_output * one for one in ctx.gradient), None, None, None, None, None)
