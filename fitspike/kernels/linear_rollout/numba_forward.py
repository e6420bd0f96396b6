"""Compiled forward pass: a spike adds its row of coupling weights to the currents of the bins it reaches, bins without spikes cost none.

A trial is run from its first bin to its last by one thread, so that spikes depend on nothing but its own inputs. Inner loops index whole
arrays: a slice taken once per bin, with its counted reference, costs as much as the work on it.
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
    by_trace: np.ndarray  # (n_pre, n_filters, n_post)
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
    n_known: int


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
def move(source, target):
    """Copy rows (n, n_neurons); an assignment to a slice compiles ten times as long, for the sake of its error message."""
    for d in range(source.shape[0]):
        for i in range(source.shape[1]):
            target[d, i] = source[d, i]


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
def _spike_count(kind, log_ceiling, log_bin_s, drive, value):
    """Return the count at a threshold or uniform, -1 where the rate is out of range."""
    if kind == THRESHOLD:
        return 1.0 if drive > value else 0.0
    if kind == LOGISTIC:
        return 1.0 if drive > np.log(value / (1.0 - value)) else 0.0
    if kind == HAZARD:
        return 1.0 if drive > np.log(-np.log1p(-value)) - log_bin_s else 0.0
    mean = np.exp(min(drive, log_ceiling))
    return -1.0 if mean > SEQUENTIAL_LIMIT else _poisson_quantile(mean, value)


@cached(numba.njit, nogil=True, error_model="numpy")
def seed(coupling, events, b, t0, ahead):
    """Fill the flat currents of the bins from t0 on with what the spikes of the bins before t0 send there."""
    n_lags, by_lag, neurons, counts, pointer = coupling.n_lags, coupling.by_lag, events.neuron, events.count, events.pointer
    ahead[:] = 0.0
    if n_lags == 0:
        return
    n_neurons, before = by_lag.shape[1] // n_lags, events.n_known + t0
    for row in range(max(before - coupling.n_delay - n_lags + 1, 0), before):
        at = (row - before + coupling.n_delay) * n_neurons
        skip = max(-at, 0)
        reached, weights = ahead[at + skip : at + n_lags * n_neurons], by_lag[:, skip:]
        for e in range(pointer[b, row], pointer[b, row + 1]):
            i, z = neurons[e], counts[e]
            for m in range(reached.shape[0]):
                reached[m] += z * weights[i, m]


@cached(numba.njit, nogil=True, error_model="numpy")
def run_piece(
    is_replay, k, b, t0, t1, neuron, coupling, draw, current, post_trace, at_trace, bins_left, path, inputs, ahead, spikes, drives, events,
    may_spike,
):  # fmt: skip
    """Run trial k, row b of the events' pointers, over the bins t0 .. t1 - 1; return the number of events, -1 if a rate is out of range.

    A replay takes the spikes from the events, fills path (n_bins + 1, n_components, n_neurons) with the states before, after and between
    the bins and inputs (n_bins, n_neurons). A run draws the spikes and adds to the events, path[0] being the state before and after.
    """
    decay, gain, jump, readout, bias = neuron.decay, neuron.gain, neuron.jump, neuron.readout, neuron.bias
    resets, reset_value, n_refractory, never_drive = neuron.resets, neuron.reset_value, neuron.n_refractory, neuron.never_drive
    by_lag, by_trace, trace_decay, n_delay, n_lags = (
        coupling.by_lag,
        coupling.by_trace,
        coupling.trace_decay,
        coupling.n_delay,
        coupling.n_lags,
    )
    kind, values, is_clamped, observed = draw.kind, draw.values, draw.is_clamped, draw.observed
    neurons, counts, pointer, n_known = events.neuron, events.count, events.pointer, events.n_known
    n_components, n_neurons = decay.shape
    n_filters = trace_decay.shape[0]
    number = decay.dtype.type
    one, zero, refractory = number(1), number(0), number(n_refractory)
    log_ceiling, log_bin_s, never = number(draw.log_ceiling), number(draw.log_bin_s), number(never_drive)
    margin, rounding = number(1.0001), number(1e-7)
    drawn = np.empty(n_neurons, dtype=decay.dtype)
    is_any_clamped, is_sampled = is_clamped.any(), not is_clamped.all()
    eights = may_spike.view(np.uint64)
    n = pointer[b, n_known + t0]
    for t in range(t0, t1):
        r = t - t0
        before, after, into = (r, r + 1, r) if is_replay else (r % 2, 1 - r % 2, 0)
        for i in range(n_neurons):
            inputs[into, i] = current[k, t, i]
        if n_lags > 0:
            arriving = ahead[r * n_neurons : (r + 1) * n_neurons]
            for i in range(n_neurons):
                inputs[into, i] += arriving[i]
        if n_filters > 0:
            for c in range(n_filters):
                for i in range(n_neurons):
                    post_trace[at_trace, c, i] *= trace_decay[c]
            for e in range(pointer[b, n_known + t - n_delay], pointer[b, n_known + t - n_delay + 1]):
                source, z = neurons[e], counts[e]
                for c in range(n_filters):
                    for i in range(n_neurons):
                        post_trace[at_trace, c, i] += z * by_trace[source, c, i]
            for c in range(n_filters):
                for i in range(n_neurons):
                    inputs[into, i] += post_trace[at_trace, c, i]
        begin, end = pointer[b, n_known + t - 1], pointer[b, n_known + t]
        for d in range(n_components):
            for i in range(n_neurons):
                path[after, d, i] = decay[d, i] * path[before, d, i] + gain[d, i] * inputs[into, i]
            for e in range(begin, end):
                i, z, s = neurons[e], counts[e], path[before, d, neurons[e]]
                if resets[d] == SUBTRACT:
                    s -= reset_value[d, i] * z
                elif resets[d] == TO_VALUE:
                    s += (reset_value[d, i] - s) * min(z, one)
                path[after, d, i] = decay[d, i] * s + gain[d, i] * inputs[into, i] + jump[d, i] * z
        if not is_replay:
            for i in range(n_neurons):
                drives[k, t, i] = readout[0, i] * path[after, 0, i]
            for d in range(1, n_components):
                for i in range(n_neurons):
                    drives[k, t, i] += readout[d, i] * path[after, d, i]
            for i in range(n_neurons):
                drives[k, t, i] += bias[i]
            if n_refractory > 0:
                for i in range(n_neurons):
                    bins_left[k, i] = max(bins_left[k, i] - one, zero)
                for e in range(begin, end):
                    bins_left[k, neurons[e]] = refractory
                for i in range(n_neurons):
                    drives[k, t, i] = never if bins_left[k, i] > zero else drives[k, t, i]
            # Mark the neurons that may spike. The probability of a spike is below exp(drive), times the bin width for a hazard, which is
            # far cheaper than the threshold of a uniform; the margin covers all rounding. Rounding to the precision of the run keeps order.
            if is_sampled:
                for i in range(n_neurons):
                    drawn[i] = values[k, t, i]
                if kind == THRESHOLD:
                    for i in range(n_neurons):
                        may_spike[i] = drives[k, t, i] >= drawn[i]
                elif kind == POISSON:
                    for i in range(n_neurons):
                        may_spike[i] = one - drawn[i] <= margin * exponential(min(drives[k, t, i], log_ceiling)) + rounding
                else:
                    for i in range(n_neurons):
                        may_spike[i] = drawn[i] <= margin * exponential(min(drives[k, t, i] + log_bin_s, log_ceiling))
            else:
                may_spike[:n_neurons] = False
            if is_any_clamped:
                for i in range(n_neurons):
                    may_spike[i] = observed[k, t, i] != zero if is_clamped[i] else may_spike[i]
            for i in range(n_neurons):
                spikes[k, t, i] = zero
            for word in range(eights.shape[0]):
                if eights[word] == 0:
                    continue
                for i in range(8 * word, min(8 * word + 8, n_neurons)):
                    if may_spike[i]:
                        if is_clamped[i]:
                            z = np.float64(observed[k, t, i])
                        else:
                            z = _spike_count(
                                kind, draw.log_ceiling, draw.log_bin_s, np.float64(drives[k, t, i]), np.float64(values[k, t, i])
                            )
                        if z < 0.0:
                            return -1
                        if z > 0.0:
                            spikes[k, t, i], neurons[n], counts[n] = z, i, z
                            n += 1
            pointer[b, n_known + t + 1] = n
        if n_lags > 0:
            reached = ahead[(r + n_delay) * n_neurons : (r + n_delay + n_lags) * n_neurons]
            for e in range(pointer[b, n_known + t], pointer[b, n_known + t + 1]):
                i, z = neurons[e], counts[e]
                for m in range(reached.shape[0]):
                    reached[m] += z * by_lag[i, m]
    if not is_replay and (t1 - t0) % 2 == 1:
        move(path[1], path[0])
    return n


@cached(numba.njit, nogil=True, error_model="numpy")
def _longer(array, n):
    """Return the array, or a copy of it, with room for at least n entries."""
    if array.shape[0] >= n:
        return array
    new = np.empty(max(n, 2 * array.shape[0]), dtype=array.dtype)
    for at in range(array.shape[0]):
        new[at] = array[at]
    return new


@cached(numba.njit, nogil=True, error_model="numpy")
def forward(first, last, neuron, coupling, draw, current, known, post_trace, bins_left, state, spikes, drives, border, states, traces):
    """Run the trials first .. last - 1; return whether all rates were in range, and the events.

    current, spikes, drives : (n_trials, n_bins, n_neurons). known : (n_trials, n_known, n_neurons), the past in order of time.
    post_trace : (n_trials, n_filters, n_neurons), bins_left and state are advanced. states and traces, if they have room, keep what state
    and post_trace are before every `border`-th bin: (n_borders, n_trials, ...).
    """
    n_bins, n_neurons = current.shape[1:]
    n_known, n_lags = known.shape[1], coupling.n_lags
    reach = coupling.n_delay + n_lags - 1 if n_lags > 0 else 0
    ahead = np.zeros((border + reach) * n_neurons, dtype=current.dtype)  # currents of the bins to come
    inputs, path = np.zeros((1, n_neurons), dtype=current.dtype), np.zeros((2, *neuron.decay.shape), dtype=current.dtype)
    may_spike = np.zeros((n_neurons + 7) // 8 * 8, dtype=np.bool_)
    pointer = np.zeros((last - first, n_known + n_bins + 1), dtype=np.int64)
    events = Events(np.empty(n_bins * n_neurons // 50 + 1, dtype=np.int32), np.empty(1, dtype=current.dtype), pointer, n_known)
    n = 0
    for k in range(first, last):
        b = k - first
        events = _with_room(events, n + n_known * n_neurons)
        pointer[b, 0] = n
        for row in range(n_known):
            for i in range(n_neurons):
                if known[k, row, i] != 0.0:
                    events.neuron[n], events.count[n] = i, known[k, row, i]
                    n += 1
            pointer[b, row + 1] = n
        move(state[k], path[0])
        seed(coupling, events, b, 0, ahead)
        for t0 in range(0, n_bins, border):
            t1 = min(t0 + border, n_bins)
            events = _with_room(events, n + (t1 - t0) * n_neurons)
            if states.shape[0] > 0:
                move(path[0], states[t0 // border, k])
                move(post_trace[k], traces[t0 // border, k])
            n = run_piece(
                False, k, b, t0, t1, neuron, coupling, draw, current, post_trace, k, bins_left, path, inputs, ahead, spikes, drives, events,
                may_spike,
            )  # fmt: skip
            if n < 0:
                return False, events
            for m in range(reach * n_neurons):  # what has been sent beyond the piece; the two may overlap
                ahead[m] = ahead[border * n_neurons + m]
            ahead[reach * n_neurons :] = 0.0
        move(path[0], state[k])
    return True, Events(events.neuron[:n].copy(), events.count[:n].copy(), pointer, n_known)


@cached(numba.njit, nogil=True, error_model="numpy")
def _with_room(events, n):
    """Return the events with room for n of them."""
    return Events(_longer(events.neuron, n), _longer(events.count, n), events.pointer, events.n_known)


@cached(numba.njit, nogil=True, error_model="numpy")
def trace_after(first, last, events, n_delay, powers, trace):
    """Advance the traces (n_trials, n_neurons, n_filters) by all bins; powers (n_filters, n_bins + 1) are those of the decays.

    r(T - 1) = decay^T r(-1) + sum over bins s of decay^(T - 1 - n_delay - s) z(s)
    """
    n_bins = powers.shape[1] - 1
    begin, end = events.n_known - n_delay, events.n_known + n_bins - n_delay
    for k in range(first, last):
        for c in range(powers.shape[0]):
            trace[k, :, c] *= powers[c, n_bins]
        for row in range(begin, end):
            for e in range(events.pointer[k - first, row], events.pointer[k - first, row + 1]):
                for c in range(powers.shape[0]):
                    trace[k, events.neuron[e], c] += powers[c, end - 1 - row] * events.count[e]
