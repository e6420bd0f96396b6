"""Linear rollout with compiled loops over spikes, and its hand-written adjoint, on blocks of trials in threads.

See `numba_forward` and `numba_backward`. Blocks depend on the number of trials alone and their sums are taken in order, so that nothing
depends on the number of threads.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch

from fitspike.kernels.linear_rollout import LinearCarry, LinearCoupling, LinearNeuron, Sampling
from fitspike.kernels.linear_rollout import numba_backward as adjoint
from fitspike.kernels.linear_rollout import numba_forward as compiled
from fitspike.kernels.linear_rollout import reference as reference_module
from fitspike.kernels.linear_rollout.numba_product import packed

_RESETS = {"none": compiled.NO_RESET, "subtract": compiled.SUBTRACT, "to_value": compiled.TO_VALUE}
_KINDS = {"threshold": compiled.THRESHOLD, "logistic": compiled.LOGISTIC, "hazard": compiled.HAZARD, "poisson": compiled.POISSON}
_SLOPES = {
    "logistic": adjoint.LOGISTIC_SLOPE,
    "triangle": adjoint.TRIANGLE_SLOPE,
    "exponential": adjoint.EXPONENTIAL_SLOPE,
    "hazard": adjoint.HAZARD_SLOPE,
}
_MOST_SUMS = 16
"""Sums over trials that are kept apart, each with gradients of all weights; more threads than that find no work in a backward pass."""

_SMALL = 20_000
"""Neurons times bins times trials below which starting a thread takes longer than the work."""

Result = TypeVar("Result")


def supports(device: str = "cpu", dtype: str = "float64", **_: object) -> str | None:
    """Return why this implementation cannot run such a call, or None."""
    if not device.startswith("cpu"):
        return f"runs on the CPU only, not on {device}"
    return None if dtype in ("float32", "float64") else f"takes float32 and float64, not {dtype}"


def linear_rollout(
    neuron: LinearNeuron,
    current: torch.Tensor,
    carry: LinearCarry,
    coupling: LinearCoupling | None,
    sampling: Sampling | None,
    observed: torch.Tensor | None,
    observed_mask: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor, LinearCarry]:
    """Return spikes, drive and carry; see `fitspike.kernels.linear_rollout.linear_rollout`.

    A Poisson rate beyond 500 spikes per bin, which only runaway activity reaches, is handed to the reference.
    """
    run = _Run(neuron, current, carry, coupling, sampling, observed, observed_mask)
    if coupling is None:
        empty = current.new_zeros(0, 1, 1)
        lag_weight, trace_weight = empty, empty
    else:
        lag_weight, trace_weight = coupling.lag_weight, coupling.trace_weight
    # In order of time, so that bin t is row n_known + t.
    known = torch.cat([carry.past.flip(1), carry.spikes.unsqueeze(1)], dim=1)
    weights = [neuron.decay, neuron.gain, neuron.jump, neuron.readout, neuron.bias, neuron.reset_value]
    spikes, drive, state, trace = _LinearRollout.apply(run, current, lag_weight, trace_weight, *weights, carry.state, known, carry.trace)
    if run.is_out_of_range:
        return reference_module.linear_rollout(neuron, current, carry, coupling, sampling, observed, observed_mask)
    n_known = known.shape[1]
    last = torch.cat([known, spikes[:, max(spikes.shape[1] - n_known, 0) :]], dim=1)[:, -n_known:]
    return spikes, drive, LinearCarry(state, torch.as_tensor(run.bins_left), last[:, -1], last[:, :-1].flip(1), trace)


class _Run:
    """What one call is given besides tensors that want gradients."""

    def __init__(
        self,
        neuron: LinearNeuron,
        current: torch.Tensor,
        carry: LinearCarry,
        coupling: LinearCoupling | None,
        sampling: Sampling | None,
        observed: torch.Tensor | None,
        observed_mask: torch.Tensor | None,
    ) -> None:
        self.shape = n_trials, n_bins, n_neurons = tuple(current.shape)
        self.dtype = dtype = np.float32 if current.dtype == torch.float32 else np.float64
        self.resets = np.array([_RESETS[neuron.reset] if is_reset else compiled.NO_RESET for is_reset in neuron.is_reset], dtype=np.int64)
        self.n_refractory, self.never_drive = neuron.n_refractory, neuron.never_drive
        self.n_delay, self.n_lags = (1, 0) if coupling is None else (coupling.n_delay, coupling.lag_weight.shape[0])
        self.trace_decay = np.zeros(0, dtype=dtype) if coupling is None else _plain(coupling.trace_decay, dtype)
        self.bins_left = _plain(carry.bins_left, dtype).copy()
        self.is_clamped = np.zeros(n_neurons, dtype=np.bool_)
        self.observed = np.zeros((1, 1, 1), dtype=dtype)
        if observed is not None:
            self.is_clamped[:] = True if observed_mask is None else observed_mask.cpu().numpy()
            self.observed = _plain(observed, dtype)
        self.sampling = None if self.is_clamped.all() else sampling
        self.border = max(1, math.isqrt(n_bins))
        self.blocks = trial_blocks(n_trials)
        self.n_threads = 1 if current.numel() < _SMALL else torch.get_num_threads()
        self.is_out_of_range = False

    def forget_inputs(self) -> None:
        """Let go of the arrays that only the forward pass needs."""
        self.observed = np.zeros((1, 1, 1), dtype=self.dtype)
        if self.sampling is not None:
            self.sampling = self.sampling._replace(values=None)

    @property
    def wants_sampled(self) -> bool:
        """Return whether any neuron is sampled."""
        return self.sampling is not None

    def neuron(self, tensors: tuple[torch.Tensor, ...]) -> compiled.Neuron:
        """Return the neuron for compiled code."""
        decay, gain, jump, readout, bias, reset_value = (_plain(x, self.dtype) for x in tensors)
        return compiled.Neuron(decay, gain, jump, readout, bias, reset_value, self.resets, self.n_refractory, float(self.never_drive))

    def coupling(self, lag_weight: torch.Tensor, trace_weight: torch.Tensor) -> compiled.Coupling:
        """Return the coupling for compiled code."""
        by_lag, by_trace = (_plain(x.transpose(0, 1), self.dtype) for x in (lag_weight, trace_weight))
        by_lag = by_lag.reshape(len(by_lag), by_lag.shape[1] * by_lag.shape[2])
        return compiled.Coupling(by_lag, by_trace, self.trace_decay, self.n_delay, self.n_lags)

    def who(self) -> compiled.Draw:
        """Return who is clamped, for compiled code that draws nothing."""
        return compiled.Draw(compiled.THRESHOLD, np.zeros((1, 1, 1)), 0.0, 0.0, self.is_clamped, self.observed)

    def draw(self) -> compiled.Draw:
        """Return where spikes come from, for compiled code."""
        if self.sampling is None:
            return self.who()
        values = self.sampling.values.detach()
        dtype = np.float32 if self.dtype == values.numpy().dtype == np.float32 else np.float64
        how = _KINDS[self.sampling.kind], _plain(values, dtype), float(self.sampling.log_ceiling), float(self.sampling.log_bin_s)
        return compiled.Draw(*how, self.is_clamped, self.observed)

    def slope(self, drive: torch.Tensor) -> adjoint.SlopeOf:
        """Return the pseudo-derivative for compiled code."""
        none = np.zeros((1, 1, 1), dtype=self.dtype)
        if self.sampling is None:
            return adjoint.SlopeOf(adjoint.GIVEN_SLOPE, 0.0, 0.0, 0.0, none)
        closed = self.sampling.closed_slope
        if closed is None:
            return adjoint.SlopeOf(adjoint.GIVEN_SLOPE, 0.0, 0.0, 0.0, _plain(self.sampling.slope(drive), self.dtype))
        return adjoint.SlopeOf(_SLOPES[closed.form], float(closed.scale), float(closed.ceiling), float(closed.log_bin_s), none)

    def in_blocks(self, function: Callable[[int, int], Result], groups: list[list[tuple[int, int]]]) -> list[list[Result]]:
        """Return the function of each block of trials, groups of blocks side by side in threads."""

        def run(group: list[tuple[int, int]]) -> list[Result]:
            return [function(*block) for block in group]

        if self.n_threads == 1 or len(groups) == 1:
            return [run(group) for group in groups]
        with ThreadPoolExecutor(min(self.n_threads, len(groups))) as pool:
            return list(pool.map(run, groups))


class _LinearRollout(torch.autograd.Function):
    @staticmethod
    def forward(ctx, run, current, lag_weight, trace_weight, *others):
        *neuron_tensors, state, known, trace = others
        n_trials, n_bins, n_neurons = run.shape
        n_filters = len(run.trace_decay)
        neuron, coupling = run.neuron(neuron_tensors), run.coupling(lag_weight, trace_weight)
        initial_trace = _plain(trace, run.dtype)
        post_trace = np.einsum("kic,cij->kcj", initial_trace, _plain(trace_weight, run.dtype)).astype(run.dtype)
        new_state, new_trace = (_plain(x, run.dtype).copy() for x in (state, trace))
        n_borders = -(-n_bins // run.border) if _needs_states(run, ctx.needs_input_grad) else 0
        states, traces = (np.empty((n_borders, *x.shape), dtype=run.dtype) for x in (new_state, post_trace))
        spikes, drive = (np.empty(run.shape, dtype=run.dtype) for _ in range(2))
        powers = run.trace_decay[:, None] ** np.arange(n_bins + 1, dtype=run.dtype)  # (n_filters, n_bins + 1)
        draw, inputs, past = run.draw(), _plain(current, run.dtype), _plain(known, run.dtype)

        def block(first: int, last: int) -> tuple[bool, compiled.Events]:
            is_fine, events = compiled.forward(
                first, last, neuron, coupling, draw, inputs, past, post_trace, run.bins_left, new_state, spikes, drive, run.border,
                states, traces,
            )  # fmt: skip
            if is_fine and n_filters:
                compiled.trace_after(first, last, events, run.n_delay, powers, new_trace)
            return is_fine, events

        found = [result for (result,) in run.in_blocks(block, [[one] for one in run.blocks])]
        run.is_out_of_range = not all(is_fine for is_fine, _ in found)
        outputs = [torch.as_tensor(x) for x in (spikes, drive, new_state, new_trace)]
        # All that is large is saved as a tensor, so that `torch.utils.checkpoint` can let go of it.
        kept = [torch.as_tensor(x) for _, events in found for x in events[:3]] if any(ctx.needs_input_grad) else []
        borders = [torch.as_tensor(x) for x in (states, traces)]
        run.forget_inputs()
        ctx.run, ctx.n_known = run, past.shape[1]
        ctx.save_for_backward(
            current if n_borders else None, outputs[1], lag_weight, trace_weight, *neuron_tensors, trace, *borders, *kept
        )  # fmt: skip
        ctx.set_materialize_grads(False)
        if not run.wants_sampled:
            ctx.mark_non_differentiable(outputs[0])
        return tuple(outputs)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, to_spikes, to_drive, to_new_state, to_new_trace):
        run = ctx.run
        current, drive, lag_weight, trace_weight, *others = ctx.saved_tensors
        neuron_tensors, (trace, states, traces), kept = others[:6], others[6:9], others[9:]
        states, traces = states.numpy(), traces.numpy()
        needs = ctx.needs_input_grad
        dtype, (n_trials, _, n_neurons) = run.dtype, run.shape
        neuron, coupling = run.neuron(neuron_tensors), run.coupling(lag_weight, trace_weight)
        none = [np.zeros((0,) * 3, dtype=dtype)] * 4
        given = adjoint.Given(
            *(
                empty if x is None else _plain(x, dtype)
                for x, empty in zip((to_spikes, to_drive, to_new_state, to_new_trace), none, strict=True)
            )
        )
        weights = needs[2] or needs[3]
        wanted = adjoint.Wanted(
            weights=weights, known=needs[11], trace=needs[12], decay=needs[4], gain=needs[5], jump=needs[6], readout=needs[7],
            reset_value=needs[9], states=len(states) > 0,
        )  # fmt: skip
        panels = [
            packed(_plain(x.transpose(1, 2).flatten(0, 1), dtype)) if run.wants_sampled or needs[11] else np.zeros((1, 1, 1), dtype=dtype)
            for x in (lag_weight, trace_weight)
        ]
        to_current = np.empty(run.shape, dtype=dtype)
        to_known = np.empty((n_trials, ctx.n_known, n_neurons), dtype=dtype)
        to_state, to_trace = np.empty((n_trials, *neuron.decay.shape), dtype=dtype), np.empty(trace.shape, dtype=dtype)
        arrays = (
            neuron, coupling, adjoint.Packed(*panels), run.slope(drive), run.who(), wanted, given,
            np.zeros((n_trials, 0, 0), dtype=dtype) if current is None else _plain(current, dtype), _plain(drive, dtype),
        )  # fmt: skip
        parts = [x.numpy() for x in kept]
        events = {block: compiled.Events(*parts[3 * b : 3 * b + 3], ctx.n_known) for b, block in enumerate(run.blocks)}

        def block(first: int, last: int) -> adjoint.Found:
            return adjoint.backward(
                first, last, *arrays, events[first, last], states, traces, _plain(trace, dtype), run.border,
                to_current, to_known, to_state, to_trace,
            )  # fmt: skip

        total = _summed([_no_gradient(coupling, neuron), *(_summed(found) for found in run.in_blocks(block, _in_groups(run.blocks)))])
        by_weight = [
            x.reshape(n_neurons, weight.shape[0], -1).transpose(1, 0, 2) if weight.numel() else np.zeros(weight.shape, dtype=dtype)
            for x, weight in ((total.by_lag, lag_weight), (total.by_trace, trace_weight))
        ]
        of_neuron = [total.decay, total.gain, total.jump, total.readout, total.bias, total.reset_value]
        gradients = [
            to_current, *by_weight, *(x.astype(dtype, copy=False) for x in of_neuron), to_state, to_known, to_trace
        ]  # fmt: skip
        return None, *(torch.as_tensor(x) if need else None for x, need in zip(gradients, needs[1:], strict=True))


def trial_blocks(n_trials: int) -> list[tuple[int, int]]:
    """Return first and last + 1 of blocks of trials that are run together: up to 8 from 16 trials on, else up to 4, as equal as can be."""
    n_blocks = -(-n_trials // (8 if n_trials >= 16 else 4))
    borders = [n_trials * b // n_blocks for b in range(n_blocks + 1)] if n_blocks else []
    return list(zip(borders, borders[1:], strict=False))


def _in_groups(blocks: list[tuple[int, int]]) -> list[list[tuple[int, int]]]:
    """Return the blocks in at most `_MOST_SUMS` groups of neighbours."""
    n_groups = min(len(blocks), _MOST_SUMS)
    return [blocks[len(blocks) * g // n_groups : len(blocks) * (g + 1) // n_groups] for g in range(n_groups)]


def _no_gradient(coupling: compiled.Coupling, neuron: compiled.Neuron) -> adjoint.Found:
    weights = [np.zeros_like(x) for x in (coupling.by_lag, coupling.by_trace)]
    return adjoint.Found(*weights, *(np.zeros(neuron.decay.shape) for _ in range(5)), np.zeros(neuron.bias.shape))


def _summed(parts: list[adjoint.Found]) -> adjoint.Found:
    """Add to the first the others, in order."""
    total, *rest = parts
    for part in rest:
        for a, b in zip(total, part, strict=True):
            a += b
    return total


def _needs_states(run: _Run, needs: tuple[bool, ...]) -> bool:
    """Return whether a backward pass needs states or inputs: for decay, gain, readout, and for spikes that reset to a value."""
    is_to_value = bool((run.resets == compiled.TO_VALUE).any())
    return needs[4] or needs[5] or needs[7] or (is_to_value and (needs[11] or (run.wants_sampled and any(needs))))


def _plain(tensor: torch.Tensor, dtype: type) -> np.ndarray:
    """Return a contiguous array."""
    return np.ascontiguousarray(tensor.detach().numpy(), dtype=dtype)
