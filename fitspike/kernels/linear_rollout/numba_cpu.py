"""Linear rollout with compiled loops over events, and its hand-written adjoint.

Forward: a spike adds its row of coupling weights to the currents of the bins it reaches; bins without spikes cost no coupling at all.
Backward, for bins t from the last to the first, with G the adjoint of a quantity:

    G_drive = given G_drive + slope(drive) G_z          (the second where z was sampled; both 0 where the neuron was refractory)
    G_s    += readout G_drive;   G_I = gain . G_s;   G_s~ = decay G_s
    G_z(t-1) = given G_z + jump . G_s + reset terms + sum over lags of weight^T G_I of the bins that the spike reaches
    G_s(t-1) = G_s~ (times 1 - min(z, 1) where the reset is to a value)

The product with weight^T is one matrix product per bin for all trials, left out when nothing is sampled; the gradient of the weights
is summed over spikes.
"""

from __future__ import annotations

import numba
import numpy as np
import torch

from fitspike.kernels.compiling import cached
from fitspike.kernels.linear_rollout import LinearCarry, LinearCoupling, LinearNeuron, Sampling
from fitspike.kernels.linear_rollout import reference as reference_module
from fitspike.kernels.linear_rollout.sampling import SEQUENTIAL_LIMIT

_RESETS = {"none": 0, "subtract": 1, "to_value": 2}
_KINDS = {"threshold": 0, "poisson": 1}


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
    weights = [neuron.decay, neuron.gain, neuron.jump, neuron.readout, neuron.bias, neuron.reset_value]
    spikes, drive = _LinearRollout.apply(run, current, lag_weight, trace_weight, *weights)
    if run.is_out_of_range:
        return reference_module.linear_rollout(neuron, current, carry, coupling, sampling, observed, observed_mask)
    return spikes, drive, run.carry_out()


class _Run:
    """The arrays of one call, time first, and what its forward pass leaves for the backward pass."""

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
        n_trials, n_bins, n_neurons = current.shape
        dtype = _numpy_dtype(current)
        self.dtype, self.shape = dtype, (n_bins, n_trials, n_neurons)
        self.neuron, self.carry, self.coupling, self.sampling = neuron, carry, coupling, sampling
        self.is_clamped = np.zeros(n_neurons, dtype=np.bool_)
        self.observed = np.zeros((1, 1, 1), dtype=dtype)
        if observed is not None:
            self.is_clamped[:] = True if observed_mask is None else observed_mask.cpu().numpy()
            self.observed = _time_first(observed, dtype)
        self.is_sampled = not self.is_clamped.all()
        self.values = _time_first(sampling.values, np.float64) if self.is_sampled else np.zeros((1, 1, 1))
        self.kind = _KINDS[sampling.kind] if self.is_sampled else 0
        self.log_ceiling = sampling.log_ceiling if self.is_sampled else 0.0
        self.is_reset = np.array(neuron.is_reset, dtype=np.bool_)
        n_delay = 1 if coupling is None else coupling.n_delay
        # Rows 0 .. n_delay - 1 + n_lags of `spikes` are the past in order of time, so that bin t is row n_past + 1 + t - 1.
        past = torch.cat([carry.past.flip(1), carry.spikes.unsqueeze(1)], dim=1)
        self.n_known = past.shape[1]
        self.n_delay = n_delay
        self.spikes = np.empty((self.n_known + n_bins, n_trials, n_neurons), dtype=dtype)
        self.spikes[: self.n_known] = _time_first(past, dtype)
        self.states = np.empty((n_bins + 1, n_trials, len(self.is_reset), n_neurons), dtype=dtype)
        self.states[0] = carry.state.detach().numpy()
        self.drives, self.inputs = (np.empty(self.shape, dtype=dtype) for _ in range(2))
        self.bins_left = carry.bins_left.detach().numpy().astype(dtype)
        self.trace = carry.trace.detach().numpy().astype(dtype)
        self.trace_decay = np.zeros(0, dtype=dtype) if coupling is None else coupling.trace_decay.detach().numpy().astype(dtype)
        self.is_out_of_range = False

    def forward(self, current: np.ndarray, lag_weight: np.ndarray, trace_weight: np.ndarray, neuron: list[np.ndarray]) -> None:
        """Fill spikes, drives and states."""
        self.initial_trace = self.trace.copy()
        post_trace = np.einsum("kic,cij->ckj", self.trace, trace_weight) if len(self.trace_decay) else np.zeros((0, 1, 1), self.dtype)
        self.is_out_of_range = not _forward(
            current,
            *neuron,
            _RESETS[self.neuron.reset],
            self.is_reset,
            self.neuron.n_refractory,
            self.neuron.never_drive,
            self.is_clamped,
            self.observed,
            self.values,
            self.kind,
            self.log_ceiling,
            lag_weight,
            trace_weight,
            self.trace_decay,
            self.n_delay,
            self.n_known,
            np.ascontiguousarray(post_trace.astype(self.dtype)),
            self.bins_left,
            self.trace,
            self.spikes,
            self.states,
            self.drives,
            self.inputs,
        )

    def carry_out(self) -> LinearCarry:
        """Return the carry after the last bin."""
        last = self.spikes[self.spikes.shape[0] - self.n_known :]
        trial_first = torch.as_tensor(np.ascontiguousarray(last.transpose(1, 0, 2)))
        return LinearCarry(
            torch.as_tensor(self.states[-1].copy()),
            torch.as_tensor(self.bins_left),
            trial_first[:, -1],
            trial_first[:, :-1].flip(1),
            torch.as_tensor(self.trace),
        )


class _LinearRollout(torch.autograd.Function):
    @staticmethod
    def forward(ctx, run: _Run, current: torch.Tensor, lag_weight: torch.Tensor, trace_weight: torch.Tensor, *neuron: torch.Tensor):
        arrays = [_time_first(current, run.dtype), *(_plain(x, run.dtype) for x in (lag_weight, trace_weight))]
        run.forward(*arrays, [_plain(x, run.dtype) for x in neuron])
        ctx.run = run
        ctx.save_for_backward(lag_weight, trace_weight, *neuron)
        return _trial_first(run.spikes[run.n_known :]), _trial_first(run.drives)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, to_spikes: torch.Tensor, to_drive: torch.Tensor):
        run: _Run = ctx.run
        lag_weight, trace_weight, *neuron = ctx.saved_tensors
        dtype = run.dtype
        to_neuron = [np.zeros(x.shape, dtype=dtype) for x in neuron]
        to_current = np.empty(run.shape, dtype=dtype)
        slope = np.zeros((1, 1, 1), dtype=dtype)
        if run.is_sampled:
            slope = run.sampling.slope(torch.as_tensor(run.drives)).numpy().astype(dtype, copy=False)
        to_lag, to_trace = (np.zeros(x.shape, dtype=dtype) for x in (lag_weight, trace_weight))
        _backward(
            _time_first(to_spikes, dtype),
            _time_first(to_drive, dtype),
            slope,
            run.inputs,
            *(_plain(x, dtype) for x in neuron),
            _RESETS[run.neuron.reset],
            run.is_reset,
            run.neuron.n_refractory > 0,
            run.neuron.never_drive,
            run.is_clamped,
            _plain(lag_weight.transpose(1, 2), dtype),
            _plain(trace_weight.transpose(1, 2), dtype),
            run.trace_decay,
            run.n_delay,
            run.n_known,
            run.initial_trace,
            run.spikes,
            run.states,
            run.drives,
            to_current,
            to_lag,
            to_trace,
            *to_neuron,
        )
        gradients = [torch.as_tensor(x) for x in (to_lag, to_trace, *to_neuron)]
        return None, _trial_first(to_current), *gradients


def _numpy_dtype(tensor: torch.Tensor) -> type:
    return np.float32 if tensor.dtype == torch.float32 else np.float64


def _plain(tensor: torch.Tensor, dtype: type) -> np.ndarray:
    """Return a contiguous array."""
    return np.ascontiguousarray(tensor.detach().numpy(), dtype=dtype)


def _time_first(tensor: torch.Tensor, dtype: type) -> np.ndarray:
    """Return (n_trials, n_bins, n_neurons) as a contiguous (n_bins, n_trials, n_neurons)."""
    return np.ascontiguousarray(tensor.detach().numpy().transpose(1, 0, 2), dtype=dtype)


def _trial_first(array: np.ndarray) -> torch.Tensor:
    return torch.as_tensor(np.ascontiguousarray(array.transpose(1, 0, 2)))


@cached(numba.njit, nogil=True)
def _poisson_quantile(mean: float, uniform: float) -> float:
    """Return the smallest count whose cumulative probability reaches the uniform; as in `sampling.poisson_quantile`."""
    probability = np.exp(-mean)
    cumulative, count = probability, 0.0
    limit = mean + 50.0 * np.sqrt(mean) + 50.0
    while cumulative < uniform and count < limit:
        count += 1.0
        probability = probability * mean / count
        cumulative += probability
    return count


@cached(numba.njit, nogil=True)
def _forward(
    current,
    decay,
    gain,
    jump,
    readout,
    bias,
    reset_value,
    reset,
    is_reset,
    n_refractory,
    never_drive,
    is_clamped,
    observed,
    values,
    kind,
    log_ceiling,
    lag_weight,
    trace_weight,
    trace_decay,
    n_delay,
    n_known,
    post_trace,
    bins_left,
    trace,
    spikes,
    states,
    drives,
    inputs,
):
    """Fill `spikes` (after its first n_known rows), `states` (after its first), `drives` and `inputs`.

    Return False as soon as a Poisson rate is out of range.
    """
    n_bins, n_trials, n_neurons = current.shape
    n_components, n_lags, n_filters = decay.shape[0], lag_weight.shape[0], trace_weight.shape[0]
    n_ring = n_delay + n_lags
    arriving = np.zeros((n_ring if n_lags > 0 else 1, n_trials, n_neurons), dtype=current.dtype)
    one = np.ones(1, dtype=current.dtype)[0]
    for row in range(n_known):
        _spread(spikes[row], row - n_known, lag_weight, n_delay, arriving)
    for t in range(n_bins):
        slot = t % n_ring if n_lags > 0 else 0
        for k in range(n_trials):
            if n_filters > 0:
                _trace_step(spikes[n_known + t - n_delay, k], trace_weight, trace_decay, post_trace, trace, k)
            last, input_row, drive = spikes[n_known + t - 1, k], inputs[t, k], drives[t, k]
            for i in range(n_neurons):
                input_row[i] = current[t, k, i] + arriving[slot, k, i]
                drive[i] = bias[i]
            for c in range(n_filters):
                for i in range(n_neurons):
                    input_row[i] += post_trace[c, k, i]
            for d in range(n_components):
                state = states[t + 1, k, d]
                _reset(states[t, k, d], last, reset_value[d], reset if is_reset[d] else 0, one, state)
                for i in range(n_neurons):
                    state[i] = decay[d, i] * state[i] + gain[d, i] * input_row[i] + jump[d, i] * last[i]
                    drive[i] += readout[d, i] * state[i]
            for i in range(n_neurons):
                if n_refractory > 0:
                    bins_left[k, i] = n_refractory if last[i] > 0.0 else max(bins_left[k, i] - 1.0, 0.0)
                    if bins_left[k, i] > 0.0:
                        drive[i] = never_drive
                if is_clamped[i]:
                    spikes[n_known + t, k, i] = observed[t, k, i]
                elif kind == 0:
                    spikes[n_known + t, k, i] = 1.0 if drive[i] > values[t, k, i] else 0.0
                else:
                    mean = np.exp(min(np.float64(drive[i]), log_ceiling))
                    if mean > SEQUENTIAL_LIMIT:
                        return False
                    spikes[n_known + t, k, i] = _poisson_quantile(mean, values[t, k, i])
        if n_lags > 0:
            arriving[slot] = 0.0
            _spread(spikes[n_known + t], t, lag_weight, n_delay, arriving)
    return True


@cached(numba.njit, nogil=True)
def _reset(before, last, value, reset, one, after):
    """Fill `after` with one component's state of all neurons, reset where they have just spiked."""
    for i in range(before.shape[0]):
        if reset == 1:
            after[i] = before[i] - value[i] * last[i]
        elif reset == 2:
            after[i] = before[i] + (value[i] - before[i]) * min(last[i], one)
        else:
            after[i] = before[i]


@cached(numba.njit, nogil=True)
def _spread(spikes, t, lag_weight, n_delay, arriving):
    """Add the effect of the spikes of bin t, (n_trials, n_neurons), to the ring of currents that are still to arrive."""
    n_lags, n_ring = lag_weight.shape[0], arriving.shape[0]
    for k in range(spikes.shape[0]):
        for i in range(spikes.shape[1]):
            z = spikes[k, i]
            if z != 0.0:
                for l in range(n_lags):
                    at = t + n_delay + l
                    if at >= 0:
                        row = arriving[at % n_ring, k]
                        weight = lag_weight[l, i]
                        for j in range(weight.shape[0]):
                            row[j] += z * weight[j]


@cached(numba.njit, nogil=True)
def _trace_step(arrived, trace_weight, trace_decay, post_trace, trace, k):
    """Advance the filtered spikes of trial k and the currents that follow from them by one bin."""
    n_filters, n_pre, n_post = trace_weight.shape
    for c in range(n_filters):
        filtered = post_trace[c, k]
        for j in range(n_post):
            filtered[j] *= trace_decay[c]
        for i in range(n_pre):
            z = arrived[i]
            trace[k, i, c] = trace_decay[c] * trace[k, i, c] + z
            if z != 0.0:
                weight = trace_weight[c, i]
                for j in range(n_post):
                    filtered[j] += z * weight[j]


@cached(numba.njit, nogil=True)
def _backward(
    to_spikes,
    to_drive,
    slope,
    inputs,
    decay,
    gain,
    jump,
    readout,
    bias,
    reset_value,
    reset,
    is_reset,
    is_refractory,
    never_drive,
    is_clamped,
    lag_weight_t,
    trace_weight_t,
    trace_decay,
    n_delay,
    n_known,
    initial_trace,
    spikes,
    states,
    drives,
    to_current,
    to_lag,
    to_trace,
    to_decay,
    to_gain,
    to_jump,
    to_readout,
    to_bias,
    to_reset_value,
):
    """Fill the gradients, those of weights and neuron parameters being zero at first. The weights come as (n, n_post, n_pre)."""
    n_bins, n_trials, n_neurons = inputs.shape
    n_components, n_lags, n_filters = decay.shape[0], lag_weight_t.shape[0], trace_weight_t.shape[0]
    is_sampled = not is_clamped.all()
    adjoint = np.zeros((n_trials, n_components, n_neurons), dtype=inputs.dtype)
    to_z = np.zeros((n_trials, n_neurons), dtype=inputs.dtype)  # through the neuron's own state, from the bin after
    filtered = np.zeros((max(n_filters, 1), n_trials, n_neurons), dtype=inputs.dtype)  # adjoint of the post-synaptic traces
    ring = np.zeros((n_delay, max(n_filters, 1), n_trials, n_neurons), dtype=inputs.dtype)  # and what it was up to n_delay bins later
    through = np.zeros((n_trials, n_neurons), dtype=inputs.dtype)
    g_drive, kept = np.zeros(n_neurons, dtype=inputs.dtype), np.zeros(n_neurons, dtype=inputs.dtype)
    one = np.ones(1, dtype=inputs.dtype)[0]
    for t in range(n_bins - 1, -1, -1):
        if is_sampled and n_lags + n_filters > 0:
            # through_i = sum_j of weight[j, i] times the adjoint of the current in the bins that a spike of bin t reaches
            through[:] = 0.0
            for l in range(n_lags):
                if t + n_delay + l < n_bins:
                    through += np.dot(to_current[t + n_delay + l], lag_weight_t[l])
            if t + n_delay < n_bins:
                for c in range(n_filters):
                    through += np.dot(ring[(t + n_delay) % n_delay, c], trace_weight_t[c])
        for k in range(n_trials):
            last, input_row, g_current, g_z = spikes[n_known + t - 1, k], inputs[t, k], to_current[t, k], to_z[k]
            for i in range(n_neurons):
                g_drive[i] = to_drive[t, k, i]
                if not is_clamped[i]:
                    g_drive[i] += slope[t, k, i] * (to_spikes[t, k, i] + g_z[i] + through[k, i])
                if is_refractory and drives[t, k, i] == never_drive:
                    g_drive[i] = 0.0
                to_bias[i] += g_drive[i]
                g_current[i] = 0.0
                g_z[i] = 0.0
            for d in range(n_components):
                before, state, g = states[t, k, d], states[t + 1, k, d], adjoint[k, d]
                _reset(before, last, reset_value[d], reset if is_reset[d] else 0, one, kept)
                for i in range(n_neurons):
                    to_readout[d, i] += g_drive[i] * state[i]
                    g[i] += readout[d, i] * g_drive[i]
                    g_current[i] += gain[d, i] * g[i]
                    g_z[i] += jump[d, i] * g[i]
                    to_gain[d, i] += g[i] * input_row[i]
                    to_jump[d, i] += g[i] * last[i]
                    to_decay[d, i] += g[i] * kept[i]
                    g[i] *= decay[d, i]
                if is_reset[d] and reset == 1:
                    for i in range(n_neurons):
                        to_reset_value[d, i] -= g[i] * last[i]
                        g_z[i] -= g[i] * reset_value[d, i]
                elif is_reset[d] and reset == 2:
                    for i in range(n_neurons):
                        part = min(last[i], one)
                        to_reset_value[d, i] += g[i] * part
                        if last[i] <= one:
                            g_z[i] += g[i] * (reset_value[d, i] - before[i])
                        g[i] *= one - part
        if n_filters > 0:
            for c in range(n_filters):
                for k in range(n_trials):
                    for j in range(n_neurons):
                        filtered[c, k, j] = trace_decay[c] * filtered[c, k, j] + to_current[t, k, j]
            ring[t % n_delay] = filtered[:n_filters]
            _gather(spikes[n_known + t - n_delay], filtered, to_trace)
    for row in range(n_known + n_bins):
        for l in range(n_lags):
            at = row - n_known + n_delay + l
            if 0 <= at < n_bins:
                _gather(spikes[row], to_current[at : at + 1], to_lag[l : l + 1])
    for c in range(n_filters):
        for k in range(n_trials):
            for i in range(n_neurons):
                weight = initial_trace[k, i, c] * trace_decay[c]
                if weight != 0.0:
                    for j in range(n_neurons):
                        to_trace[c, i, j] += weight * filtered[c, k, j]


@cached(numba.njit, nogil=True)
def _gather(spikes, adjoint, to_weight):
    """Add spikes (n_trials, n_pre) times adjoint (n, n_trials, n_post) to the gradients of weights (n, n_pre, n_post)."""
    for k in range(spikes.shape[0]):
        for i in range(spikes.shape[1]):
            z = spikes[k, i]
            if z != 0.0:
                for c in range(to_weight.shape[0]):
                    row = adjoint[c, k]
                    target = to_weight[c, i]
                    for j in range(target.shape[0]):
                        target[j] += z * row[j]
