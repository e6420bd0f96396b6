"""E-prop's reverse recursion against its traces forward in time, and the same recursion as back-propagation against a torch loop.

    make bench ONLY=eprop

100 deterministic neurons, half of them adaptive, 100 inputs, 1000 bins, 16 trials, a leaky readout; gradients of both weight matrices,
float32, in processor time of one thread. The two forms of e-prop start from the same run. Back-propagation is measured with its forward
pass: ours from the fused rollout, the other by a torch loop, of the same neurons.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from fitspike_eprop.adjoint import adjoint
from fitspike_eprop.local import from_linear_form
from fitspike_eprop.online import ReadoutFilter, online
from fitspike_neurons.alif import ALIF

from fitspike.models.network_coupling import LagCoupling
from fitspike.neurons.emissions import Threshold
from fitspike.params import initial_params, to_tensors
from fitspike.plugin import Stream
from fitspike.rollout import rollout

sys.path.insert(0, str(Path(__file__).parents[1] / "acceptance"))
from _table import Bounds  # noqa: E402

N_NEURONS, N_INPUTS, N_BINS, N_TRIALS, DAMPENING = 100, 100, 1000, 16, 0.3
READOUT = ReadoutFilter(decay=float(np.exp(-1 / 20)), gain=1.0)
N_FAST, N_SLOW = 9, 3

Gradients = tuple[torch.Tensor, torch.Tensor]


class Run(NamedTuple):
    """Inputs of a run (n_trials, n_bins, n_inputs) and its weights [post, pre]."""

    inputs: torch.Tensor
    w_in: torch.Tensor
    w_rec: torch.Tensor
    w_out: torch.Tensor
    neuron: Any
    params: Any

    @classmethod
    def drawn(cls, dtype: torch.dtype) -> Run:
        """Return the problem."""
        draw = np.random.default_rng(0)
        inputs = draw.random((N_TRIALS, N_BINS, N_INPUTS)) < 0.05
        w_in, w_rec = (draw.normal(size=(N_NEURONS, n)) / np.sqrt(n) for n in (N_INPUTS, N_NEURONS))
        np.fill_diagonal(w_rec, 0.0)
        w_out = draw.normal(size=(1, N_NEURONS)) / np.sqrt(N_NEURONS)
        neuron = ALIF(threshold=0.6, adaptation=0.0174, tau_adapt_ms=2000.0, n_adaptive=N_NEURONS // 2)
        params = to_tensors(initial_params(neuron.param_specs(N_NEURONS), Stream(0, "init")), dtype=dtype)
        return cls(*(torch.as_tensor(value).to(dtype) for value in (inputs, w_in, w_rec, w_out)), neuron, params)


def forward(run: Run) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return spikes, those of the bin before, drive and the derivative of the readout's square by its outputs."""
    with torch.no_grad():
        current = run.inputs @ run.w_in.T
        driven = rollout(
            run.neuron,
            run.params,
            Threshold(dampening=DAMPENING),
            current=current,
            coupling=LagCoupling(run.w_rec.unsqueeze(-1), None),
            uniforms=torch.zeros_like(current),
            dt_ms=1.0,
        )
        spikes = driven.spikes
        previous = torch.cat([torch.zeros_like(spikes[:, :1]), spikes[:, :-1]], dim=1)
        filtered, kept = torch.zeros_like(spikes[:, 0]), []
        for one in spikes.unbind(1):
            filtered = READOUT.decay * filtered + READOUT.gain * one
            kept.append(filtered)
        return spikes, previous, driven.drive, torch.stack(kept, dim=1) @ run.w_out.T


def by_recursion(run: Run, ahead: tuple[torch.Tensor, ...], *, is_bptt: bool) -> Gradients:
    """Return the gradients of both weight matrices by the reverse recursion."""
    _, previous, drive, error = ahead
    local = from_linear_form(run.neuron.linear_form(run.params, 1.0), drive, previous, "all" if is_bptt else "adaptation")
    slope, told = Threshold(dampening=DAMPENING).slope(drive, 1.0), READOUT.signal(error, run.w_out.T)
    current = adjoint(local, slope, None, told, recurrent_weight=run.w_rec if is_bptt else None).current.flatten(0, 1)
    return current.T @ run.inputs.flatten(0, 1), current.T @ previous.flatten(0, 1)


def by_traces(run: Run, ahead: tuple[torch.Tensor, ...]) -> Gradients:
    """Return the same gradients of e-prop forward in time."""
    _, previous, drive, error = ahead
    with torch.no_grad():
        local = from_linear_form(run.neuron.linear_form(run.params, 1.0), drive, previous, "adaptation")
        lines = torch.cat([run.inputs, previous], dim=-1)
        slope = Threshold(dampening=DAMPENING).slope(drive, 1.0)
        found, _ = online(local, slope, lines, readout_signal=error @ run.w_out, readout=READOUT)
    return found[:, :N_INPUTS], found[:, N_INPUTS:]


def by_autograd(run: Run) -> Gradients:
    """Return the gradients of back-propagation by a torch loop over bins of the neurons' own step."""
    w_in, w_rec = (value.clone().requires_grad_() for value in (run.w_in, run.w_rec))
    emission, current = Threshold(dampening=DAMPENING), run.inputs @ w_in.T
    state = run.neuron.init_state(run.params, N_TRIALS)
    spikes = filtered = torch.zeros(N_TRIALS, N_NEURONS, dtype=w_in.dtype)
    total = 0.0
    for bin_current in current.unbind(1):
        state, drive = run.neuron.step(run.params, state, bin_current + spikes @ w_rec.T, spikes, 1.0)
        spikes = emission.sample(drive, drive.detach(), 1.0)
        filtered = READOUT.decay * filtered + READOUT.gain * spikes
        total = total + 0.5 * (filtered @ run.w_out.T).square().sum()
    return torch.autograd.grad(total, (w_in, w_rec))


def worst(a: Gradients, b: Gradients) -> float:
    """Return the largest difference relative to the largest entry of each matrix."""
    return max(float((x - y).abs().max() / y.abs().max()) for x, y in zip(a, b, strict=True))


def seconds(function: Callable[[], Any], n: int) -> float:
    """Return the median processor time of n calls."""
    found = []
    for _ in range(n):
        begin = time.process_time()
        function()
        found.append(time.process_time() - begin)
    return float(np.median(found))


def main() -> None:
    """Print the table."""
    bounds = Bounds("eprop", kind="bench")
    torch.set_num_threads(1)
    exact = Run.drawn(torch.float64)
    ahead = forward(exact)
    error = worst(by_recursion(exact, ahead, is_bptt=False), by_traces(exact, ahead))
    bounds.check("reverse recursion equals traces to 1e-10, float64", f"{error:.1e}", error <= 1e-10)
    error = worst(by_recursion(exact, ahead, is_bptt=True), by_autograd(exact))
    bounds.check("as back-propagation it equals automatic differentiation to 1e-10, float64", f"{error:.1e}", error <= 1e-10)

    run = Run.drawn(torch.float32)
    ahead = forward(run)
    by_recursion(run, ahead, is_bptt=False)
    fast, slow = seconds(lambda: by_recursion(run, ahead, is_bptt=False), N_FAST), seconds(lambda: by_traces(run, ahead), 1)
    bounds.check("e-prop: recursion at least 20 times faster than traces", f"{slow / fast:.0f}", slow >= 20 * fast)
    ours = seconds(lambda: by_recursion(run, forward(run), is_bptt=True), N_FAST)
    theirs = seconds(lambda: by_autograd(run), N_SLOW)
    bounds.check(
        "back-propagation, forward and backward: at least 3 times faster than a torch loop", f"{theirs / ours:.1f}", theirs >= 3 * ours
    )
    hz = 1000 * float(ahead[0].mean())
    bounds.note(f"seconds: recursion {fast:.3f}, traces {slow:.1f}; back-propagation {ours:.3f}, torch loop {theirs:.2f}; rate {hz:.0f} Hz")
    bounds.finish()


if __name__ == "__main__":
    main()
