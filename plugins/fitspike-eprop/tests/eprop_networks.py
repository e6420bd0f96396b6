"""Networks written out from their published equations with plain torch, which the tests compare the plugin with.

P2020 (Bellec et al. 2020, Nature Communications 11:3625): LIF and adaptive LIF neurons, leaky readout. Nothing here uses the plugin but
`local`, which states the same neurons as a linear form in units of the threshold: u = (v - A) / threshold.
"""

from dataclasses import dataclass

import torch
from fitspike_eprop.local import LocalDerivatives, from_linear_form

from fitspike.plugin import NEVER_DRIVE, LinearForm

F64 = torch.float64


@dataclass
class Network:
    """Deterministic network with a leaky readout. rho and beta: (N,); w_in (N, n_in), w_rec (N, N), w_out (n_out, N), all [post, pre]."""

    w_in: torch.Tensor
    w_rec: torch.Tensor
    w_out: torch.Tensor
    alpha: float
    rho: torch.Tensor
    beta: torch.Tensor
    threshold: float
    zeta: float = 1.0
    kappa: float = 0.9
    omega: float = 1.0
    n_ref: int = 1
    gamma: float = 0.3

    @property
    def n_neurons(self):
        return len(self.w_in)

    def form(self):
        """Return the neurons as a linear form whose drive is (v - threshold - beta a) / threshold."""
        one, zero = torch.ones(self.n_neurons, dtype=F64), torch.zeros(self.n_neurons, dtype=F64)
        return LinearForm(
            decay=torch.stack([self.alpha * one, self.rho]),
            gain=torch.stack([self.zeta * one, zero]),
            jump=torch.stack([zero, one]),
            readout=torch.stack([one / self.threshold, -self.beta / self.threshold]),
            bias=-one,
            reset="subtract",
            reset_components=(0,),
            reset_value=(self.threshold / self.alpha * one)[None],
            n_refractory=max(self.n_ref - 1, 0),
        )


@dataclass
class Simulated:
    """spikes, drive, slope (n_trials, n_bins, N); readout and filtered spikes; `main`: the spikes as all but adaptation sees them."""

    spikes: torch.Tensor
    drive: torch.Tensor
    slope: torch.Tensor
    output: torch.Tensor
    filtered: torch.Tensor
    main: list

    @property
    def previous(self):
        return torch.cat([torch.zeros_like(self.spikes[:, :1]), self.spikes[:, :-1]], dim=1).detach()

    def local(self, net: Network, own_spike: str) -> LocalDerivatives:
        return from_linear_form(net.form(), self.drive.detach(), self.previous, own_spike)


class Spike(torch.autograd.Function):
    """1 where u > 0; backward: a given slope by u."""

    @staticmethod
    def forward(ctx, u, slope, at_zero):
        ctx.save_for_backward(slope)
        return ((u >= 0) if at_zero else (u > 0)).to(u.dtype)

    @staticmethod
    def backward(ctx, gradient):
        return gradient * ctx.saved_tensors[0], None, None


def simulate(net: Network, x, *, cut=(), back=None, at_zero=False) -> Simulated:
    """Return the network's run over inputs x (n_trials, n_bins, n_in), bin by bin.

    cut : of "recurrent", "reset", "adaptation", the uses of a spike that are numbers for differentiation. back : weights in place of w_out
    in the backward pass.
    """
    n_trials, n_bins, _ = x.shape
    zero = torch.zeros(n_trials, net.n_neurons, dtype=F64)
    v, a, z, main, filtered, left = zero, zero, zero, zero, torch.zeros_like(zero), zero
    found, kept = [], []
    for t in range(n_bins):
        of_others, of_reset = (main.detach() if use in cut else main for use in ("recurrent", "reset"))
        v = net.alpha * v + net.zeta * (x[:, t] @ net.w_in.T + of_others @ net.w_rec.T) - net.threshold * of_reset
        a = net.rho * a + (z.detach() if "adaptation" in cut else z)
        left = torch.where(z.detach() > 0, float(net.n_ref), (left - 1.0).clamp_min(0.0))
        left = torch.where(z.detach() > 0, left - 1.0, left).clamp_min(0.0)
        u = (v - net.threshold - net.beta * a) / net.threshold
        is_free = left <= 0
        slope = torch.where(is_free, net.gamma * (1.0 - u.detach().abs()).clamp_min(0.0), 0.0)
        z = Spike.apply(torch.where(is_free, u, NEVER_DRIVE), slope, at_zero)
        main = z + 0.0
        if main.requires_grad:
            main.retain_grad()
        filtered = net.kappa * filtered + net.omega * main
        output = filtered @ net.w_out.T
        if back is not None:
            sent = filtered @ back.T
            output = (filtered.detach() @ net.w_out.T) + sent - sent.detach()
        found.append((z, torch.where(is_free, u, NEVER_DRIVE), slope, output, filtered))
        kept.append(main)
    return Simulated(*(torch.stack(values, dim=1) for values in zip(*found, strict=True)), kept)


def relative(a, b):
    """Return the largest difference in units of the largest reference value."""
    scale = float(b.abs().max())
    assert scale > 0, "the reference is 0: the test would show nothing"
    return float((a - b).abs().max()) / scale
