"""Compiled forward pass: a spike adds its row of coupling weights to the currents of the bins it reaches, bins without spikes cost none.

A trial is run from its first bin to its last by one thread, so that spikes depend on nothing but its own inputs.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np
from numba import types
from numba.extending import overload

from fitspike.kernels.compiling import cached
from fitspike.kernels.linear_rollout.sampling import SEQUENTIAL_LIMIT

NO_RESET, SUBTRACT, TO_VALUE = range(3)
THRESHOLD, LOGISTIC, HAZARD, POISSON = range(4)


class Neuron(NamedTuple):
    """`LinearNeuron` as arrays; decay, gain, jump, readout, reset_value (n_components, n_neurons), bias (n_neurons,)."""

    decay: np.ndarray
    gain: np.ndarray
    jump: np.ndarray
    readout: np.ndarray
    bias: np.ndarray
    reset_value: np.ndarray
    resets: np.ndarray  # (n_components,), NO_RESET, SUBTRACT or TO_VALUE
    n_refractory: int
    never_drive: float


class Coupling(NamedTuple):
    """`LinearCoupling` as arrays: all that one presynaptic neuron does lies in one row."""

    by_lag: np.ndarray  # (n_pre, n_lags * n_post)
    by_trace: np.ndarray  # (n_pre, n_filters * n_post)
    trace_decay: np.ndarray  # (n_filters,)
    n_delay: int
    n_lags: int


class Draw(NamedTuple):
    """Where spikes come from: `values` as in `Sampling`, `observed` for the neurons that are clamped; a dummy where not needed."""

    kind: int
    values: np.ndarray
    log_ceiling: float
    log_bin_s: float
    is_clamped: np.ndarray  # (n_neurons,)
    observed: np.ndarray


class Events(NamedTuple):
    """Spikes of a block of trials in order of trial, bin and neuron; the first n_known rows of bins are those before bin 0."""

    neuron: np.ndarray  # (n_events,)
    count: np.ndarray  # (n_events,)
    pointer: np.ndarray  # (n_trials, n_known + n_bins + 1)


def exponential(x: float) -> float:
    """Return exp(x); in single precision to 1e-7 for |x| < 87, where it saturates, in arithmetic that runs on many neurons at once."""
    raise NotImplementedError


@overload(exponential)
def _exponential(x):
    if x != types.float32:
        return lambda x: np.exp(x)

    def single(x):
        # exp(x) = 2^n exp(r), |r| <= log(2) / 2; log(2) in two parts, so that n log(2) is exact; the minimax polynomial is Cephes' expf.
        x = min(max(x, np.float32(-87.0)), np.float32(87.0))
        n = np.floor(x * np.float32(1.44269504) + np.float32(0.5))
        r = x - n * np.float32(0.693359375) + n * np.float32(2.12194440e-4)
        y = np.float32(1.9875691500e-4)
        y = y * r + np.float32(1.3981999507e-3)
        y = y * r + np.float32(8.3334519073e-3)
        y = y * r + np.float32(4.1665795894e-2)
        y = y * r + np.float32(1.6666665459e-1)
        y = y * r + np.float32(5.0000001201e-1)
        y = y * r * r + r + np.float32(1.0)
        return y * np.int32((np.int32(n) + np.int32(127)) << np.int32(23)).view(np.float32)

    return single


@cached(numba.njit, nogil=True, error_model="numpy")
def add_scaled(target, z, source):
    """Add z times source to target."""
    for i in range(target.shape[0]):
        target[i] += z * source[i]


@cached(numba.njit, nogil=True, error_model="numpy")
def spread(neurons, counts, weights, target):
    """Add the rows of weights of some spikes, times their counts, to the flat target."""
    for e in range(neurons.shape[0]):
        add_scaled(target, counts[e], weights[neurons[e]])


@cached(numba.njit, nogil=True, error_model="numpy")
def reset_where_spiked(neuron, neurons, counts, state):
    """Reset the components (n_components, n_neurons) of neurons that have just spiked."""
    for d in range(state.shape[0]):
        if neuron.resets[d] == SUBTRACT:
            for e in range(neurons.shape[0]):
                state[d, neurons[e]] -= neuron.reset_value[d, neurons[e]] * counts[e]
        elif neuron.resets[d] == TO_VALUE:
            for e in range(neurons.shape[0]):
                at = state[d, neurons[e]]
                state[d, neurons[e]] = at + (neuron.reset_value[d, neurons[e]] - at) * min(counts[e], counts.dtype.type(1))


@cached(numba.njit, nogil=True, error_model="numpy")
def advance(neuron, neurons, counts, inputs, state, drive):
    """Advance one trial's state by a bin, given its input and the spikes of the bin before, and fill the drive."""
    reset_where_spiked(neuron, neurons, counts, state)
    drive[:] = neuron.bias
    for d in range(state.shape[0]):
        s, decay, gain, readout = state[d], neuron.decay[d], neuron.gain[d], neuron.readout[d]
        for i in range(s.shape[0]):
            s[i] = decay[i] * s[i] + gain[i] * inputs[i]
        for e in range(neurons.shape[0]):
            s[neurons[e]] += neuron.jump[d, neurons[e]] * counts[e]
        for i in range(s.shape[0]):
            drive[i] += readout[i] * s[i]


@cached(numba.njit, nogil=True, error_model="numpy")
def _poisson_quantile(mean, uniform):
    """Return the smallest count whose cumulative probability reaches the uniform; as in `sampling.poisson_quantile`."""
    probability = np.exp(-mean)
    cumulative, count = probability, 0.0
    limit = mean + 50.0 * np.sqrt(mean) + 50.0
    while cumulative < uniform and count < limit:
        count += 1.0
        probability = probability * mean / count
        cumulative += probability
    return count


@cached(numba.njit, nogil=True, error_model="numpy")
def _flag(draw, k, t, drive, may_spike):
    """Mark the neurons that may spike: all that do, and with closed forms a few more.

    The probability of a spike is below exp(drive) (times the bin width for a hazard), which is far cheaper than the threshold of a
    uniform; the factor covers the rounding of `exponential`.
    """
    n_neurons, one = drive.shape[0], drive.dtype.type(1)
    if draw.kind == THRESHOLD:
        values = draw.values[k, t]
        for i in range(n_neurons):
            may_spike[i] = drive[i] > values[i]
    else:
        values = draw.values[k, t]
        shift, above, margin = drive.dtype.type(draw.log_bin_s), drive.dtype.type(draw.log_ceiling), drive.dtype.type(1.0001)
        if draw.kind == POISSON:
            for i in range(n_neurons):
                may_spike[i] = one - values[i] < margin * exponential(min(drive[i], above))
        else:
            for i in range(n_neurons):
                may_spike[i] = values[i] < margin * exponential(min(drive[i] + shift, above))


@cached(numba.njit, nogil=True, error_model="numpy")
def _spike_count(draw, drive, value):
    """Return the count at a threshold or uniform, -1 where the rate is out of range."""
    u, x = np.float64(drive), np.float64(value)
    if draw.kind == THRESHOLD:
        return 1.0
    if draw.kind == LOGISTIC:
        return 1.0 if u > np.log(x / (1.0 - x)) else 0.0
    if draw.kind == HAZARD:
        return 1.0 if u > np.log(-np.log1p(-x)) - draw.log_bin_s else 0.0
    mean = np.exp(min(u, draw.log_ceiling))
    return -1.0 if mean > SEQUENTIAL_LIMIT else _poisson_quantile(mean, x)


@cached(numba.njit, nogil=True, error_model="numpy")
def _known_events(known, neurons, counts, pointer):
    """Note the spikes of the bins before the first and return how many there are."""
    n = 0
    for row in range(known.shape[0]):
        for i in range(known.shape[1]):
            if known[row, i] != 0.0:
                neurons[n], counts[n] = i, known[row, i]
                n += 1
        pointer[row + 1] = n
    return n


@cached(numba.njit, nogil=True, error_model="numpy")
def _longer(array, n):
    """Return a copy with room for at least n entries."""
    new = np.empty(max(n, 2 * array.shape[0]), dtype=array.dtype)
    new[: array.shape[0]] = array
    return new


@cached(numba.njit, nogil=True, error_model="numpy")
def forward(first, last, neuron, coupling, draw, current, known, post_trace, bins_left, state, spikes, drives, border, states, traces):
    """Run the trials first .. last - 1; return whether all rates were in range, and the events.

    current, spikes, drives : (n_trials, n_bins, n_neurons). known : (n_trials, n_known, n_neurons), the past in order of time.
    post_trace : (n_trials, n_filters * n_neurons), bins_left and state are advanced. states and traces, if they have room, keep what state
    and post_trace are before every `border`-th bin: (n_borders, n_trials, ...).
    """
    n_bins, n_neurons = current.shape[1:]
    n_known, n_filters, n_delay, n_lags = known.shape[1], coupling.trace_decay.shape[0], coupling.n_delay, coupling.n_lags
    reach = n_delay + n_lags - 1 if n_lags > 0 else 0
    ahead = np.zeros((border + reach) * n_neurons, dtype=current.dtype)  # currents of the bins to come
    inputs = np.zeros(n_neurons, dtype=current.dtype)
    n_padded = (n_neurons + 7) // 8 * 8
    may_spike = np.zeros(n_padded, dtype=np.bool_)
    eights = may_spike.view(np.uint64)
    is_any_clamped, is_sampled = draw.is_clamped.any(), not draw.is_clamped.all()
    keeps_borders = states.shape[0] > 0
    pointer = np.zeros((last - first, n_known + n_bins + 1), dtype=np.int64)
    neurons = np.empty(n_known * n_neurons + n_neurons + n_bins * n_neurons // 50, dtype=np.int32)
    counts = np.empty(neurons.shape[0], dtype=current.dtype)
    n = 0
    for k in range(first, last):
        rows = pointer[k - first]
        if neurons.shape[0] < n + (n_known + 1) * n_neurons:
            neurons, counts = _longer(neurons, n + (n_known + 1) * n_neurons), _longer(counts, n + (n_known + 1) * n_neurons)
        rows[0] = n
        n += _known_events(known[k], neurons[n:], counts[n:], rows)
        rows[1 : n_known + 1] += rows[0]
        ahead[:] = 0.0
        for row in range(n_known):
            at = (row - n_known + n_delay) * n_neurons
            skip = max(-at, 0)
            if n_lags > 0 and skip < n_lags * n_neurons:
                for e in range(rows[row], rows[row + 1]):
                    width = n_lags * n_neurons - skip
                    add_scaled(ahead[at + skip : at + skip + width], counts[e], coupling.by_lag[neurons[e], skip:])
        for t in range(n_bins):
            r = t % border
            if r == 0:
                if t > 0:
                    ahead[: reach * n_neurons] = ahead[border * n_neurons :].copy()
                    ahead[reach * n_neurons :] = 0.0
                if keeps_borders:
                    states[t // border, k] = state[k]
                    traces[t // border, k] = post_trace[k]
            if neurons.shape[0] < n + n_neurons:
                neurons, counts = _longer(neurons, n + n_neurons), _longer(counts, n + n_neurons)
            here, arriving = current[k, t], ahead[r * n_neurons : (r + 1) * n_neurons]
            for i in range(n_neurons):
                inputs[i] = here[i] + arriving[i]
            if n_filters > 0:
                a, b = rows[n_known + t - n_delay], rows[n_known + t - n_delay + 1]
                advance_trace(coupling, neurons[a:b], counts[a:b], post_trace[k], inputs)
            a, b = rows[n_known + t - 1], rows[n_known + t]
            drive = drives[k, t]
            advance(neuron, neurons[a:b], counts[a:b], inputs, state[k], drive)
            if neuron.n_refractory > 0:
                left = bins_left[k]
                for i in range(n_neurons):
                    left[i] = max(left[i] - left.dtype.type(1), left.dtype.type(0))
                for e in range(a, b):
                    left[neurons[e]] = neuron.n_refractory
                for i in range(n_neurons):
                    drive[i] = neuron.never_drive if left[i] > 0.0 else drive[i]
            if is_sampled:
                _flag(draw, k, t, drive, may_spike)
            if is_any_clamped:
                seen = draw.observed[k, t]
                for i in range(n_neurons):
                    may_spike[i] = seen[i] != 0.0 if draw.is_clamped[i] else may_spike[i]
            out = spikes[k, t]
            out[:] = 0.0
            for word in range(eights.shape[0]):
                if eights[word] == 0:
                    continue
                for i in range(8 * word, min(8 * word + 8, n_neurons)):
                    if may_spike[i]:
                        z = np.float64(draw.observed[k, t, i]) if draw.is_clamped[i] else _spike_count(draw, drive[i], draw.values[k, t, i])
                        if z < 0.0:
                            return False, Events(neurons[:0], counts[:0], pointer)
                        if z > 0.0:
                            out[i], neurons[n], counts[n] = z, i, z
                            n += 1
            rows[n_known + t + 1] = n
            if n_lags > 0:
                at = (r + n_delay) * n_neurons
                spread(neurons[b:n], counts[b:n], coupling.by_lag, ahead[at : at + n_lags * n_neurons])
    return True, Events(neurons[:n].copy(), counts[:n].copy(), pointer)


@cached(numba.njit, nogil=True, error_model="numpy")
def advance_trace(coupling, neurons, counts, post_trace, inputs):
    """Advance the filtered currents (n_filters * n_neurons) of one trial by a bin, given the spikes that arrive, and add them to inputs."""
    n_neurons = inputs.shape[0]
    for c in range(coupling.trace_decay.shape[0]):
        filtered = post_trace[c * n_neurons : (c + 1) * n_neurons]
        for i in range(n_neurons):
            filtered[i] *= coupling.trace_decay[c]
    spread(neurons, counts, coupling.by_trace, post_trace)
    for c in range(coupling.trace_decay.shape[0]):
        for i in range(n_neurons):
            inputs[i] += post_trace[c * n_neurons + i]


@cached(numba.njit, nogil=True, error_model="numpy")
def trace_after(first, last, events, n_known, n_delay, powers, trace):
    """Advance the traces (n_trials, n_neurons, n_filters) by all bins; powers (n_filters, n_bins + 1) are those of the decays.

    r(T - 1) = decay^T r(-1) + sum over bins s of decay^(T - 1 - n_delay - s) z(s)
    """
    n_bins = powers.shape[1] - 1
    for k in range(first, last):
        for c in range(powers.shape[0]):
            trace[k, :, c] *= powers[c, n_bins]
        for row in range(n_known - n_delay, n_known + n_bins - n_delay):
            for e in range(events.pointer[k - first, row], events.pointer[k - first, row + 1]):
                for c in range(powers.shape[0]):
                    trace[k, events.neuron[e], c] += powers[c, n_known + n_bins - 1 - n_delay - row] * events.count[e]


@cached(numba.njit, nogil=True, error_model="numpy")
def replay(neuron, coupling, events, rows, t0, t1, n_known, current, post_trace, states, inputs, drive, ahead):
    """Fill the inputs (n_bins, n_neurons) of bins t0 .. t1 - 1 of one trial and the states after each, states[0] being that before.

    `rows` are the trial's event pointers, current (n_bins, n_neurons) its currents; post_trace, drive and ahead are work space.
    """
    n_neurons, n_delay, n_lags = current.shape[1], coupling.n_delay, coupling.n_lags
    if n_lags > 0:
        ahead[:] = 0.0
        for row in range(max(n_known + t0 - n_delay - n_lags + 1, 0), n_known + t1 - n_delay):
            at = (row - n_known + n_delay - t0) * n_neurons
            skip = max(-at, 0)
            width = n_lags * n_neurons - skip
            for e in range(rows[row], rows[row + 1]):
                add_scaled(ahead[at + skip : at + skip + width], events.count[e], coupling.by_lag[events.neuron[e], skip:])
    for t in range(t0, t1):
        r = t - t0
        for i in range(n_neurons):
            inputs[r, i] = current[t, i] + (ahead[r * n_neurons + i] if n_lags > 0 else current.dtype.type(0))
        if coupling.trace_decay.shape[0] > 0:
            a, b = rows[n_known + t - n_delay], rows[n_known + t - n_delay + 1]
            advance_trace(coupling, events.neuron[a:b], events.count[a:b], post_trace, inputs[r])
        a, b = rows[n_known + t - 1], rows[n_known + t]
        states[r + 1] = states[r]
        advance(neuron, events.neuron[a:b], events.count[a:b], inputs[r], states[r + 1], drive)
