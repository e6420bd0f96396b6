"""Compiled adjoint of the rollout. For bins t from the last to the first, with G the adjoint of a quantity:

    G_drive = given G_drive + slope(drive) G_z          (the second where z was sampled; both 0 where the neuron was refractory)
    G_s    += readout G_drive;   G_I = gain . G_s;   G_s~ = decay G_s
    G_z(t-1) = given G_z + jump . G_s + reset terms + sum over lags of weight^T G_I of the bins that the spike reaches
    G_s(t-1) = G_s~ (times 1 - min(z, 1) where the reset is to a value)

The product with weight^T is one product per bin for all trials of a block, left out when nothing is sampled; the gradient of the weights
is summed over spikes. States and inputs, where a gradient asks for them, are computed anew from the spikes, piece by piece.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np

from fitspike.kernels.compiling import cached
from fitspike.kernels.linear_rollout.numba_forward import (
    NO_RESET,
    SUBTRACT,
    add_scaled,
    exponential,
    replay,
    reset_where_spiked,
)
from fitspike.kernels.linear_rollout.numba_product import product

GIVEN_SLOPE, LOGISTIC_SLOPE, TRIANGLE_SLOPE, EXPONENTIAL_SLOPE, HAZARD_SLOPE = range(5)


class SlopeOf(NamedTuple):
    """The pseudo-derivative: a closed form, or an array (n_trials, n_bins, n_neurons) of its values."""

    form: int
    scale: float
    ceiling: float
    log_bin_s: float
    values: np.ndarray


class Given(NamedTuple):
    """The adjoints of what came out; an array with no trials is 0."""

    spikes: np.ndarray  # (n_trials, n_bins, n_neurons)
    drive: np.ndarray  # (n_trials, n_bins, n_neurons)
    state: np.ndarray  # (n_trials, n_components, n_neurons), of the last bin
    trace: np.ndarray  # (n_trials, n_neurons, n_filters), of the last bin


class Wanted(NamedTuple):
    """Which gradients are asked for."""

    weights: bool
    known: bool
    trace: bool
    decay: bool
    gain: bool
    jump: bool
    readout: bool
    reset_value: bool
    states: bool  # whether states and inputs have to be computed anew


class Packed(NamedTuple):
    """Coupling weights for products over post-synaptic neurons, by `numba_product.packed`."""

    lag: np.ndarray  # of (n_lags * n_post, n_pre)
    trace: np.ndarray  # of (n_filters * n_post, n_pre)


class Found(NamedTuple):
    """Gradients summed over the trials of a block; those of the neuron in float64."""

    by_lag: np.ndarray
    by_trace: np.ndarray
    decay: np.ndarray
    gain: np.ndarray
    jump: np.ndarray
    readout: np.ndarray
    reset_value: np.ndarray
    bias: np.ndarray


@cached(numba.njit, nogil=True, error_model="numpy", fastmath={"contract"})
def _times_slope(slope, k, t, drive, g):
    """Multiply g by the pseudo-derivative at the drive."""
    number = drive.dtype.type
    n, one, zero, scale = drive.shape[0], number(1), number(0), number(slope.scale)
    if slope.form == GIVEN_SLOPE:
        values = slope.values[k, t]
        for i in range(n):
            g[i] *= values[i]
    elif slope.form == LOGISTIC_SLOPE:
        for i in range(n):
            p = one / (one + exponential(-drive[i]))
            g[i] *= scale * p * (one - p)
    elif slope.form == TRIANGLE_SLOPE:
        ceiling = number(slope.ceiling)
        for i in range(n):
            g[i] *= scale * max(one - abs(drive[i]), zero) if drive[i] <= ceiling else zero
    elif slope.form == EXPONENTIAL_SLOPE:
        ceiling = number(slope.ceiling)
        for i in range(n):
            g[i] *= scale * exponential(min(drive[i], ceiling)) if drive[i] <= ceiling else zero
    else:
        shift, ceiling = number(slope.log_bin_s), number(slope.ceiling)
        for i in range(n):
            log_hazard = min(drive[i] + shift, ceiling)
            g[i] *= scale * exponential(log_hazard - exponential(log_hazard))


@cached(numba.njit, nogil=True, error_model="numpy", fastmath={"contract"})
def _neuron_adjoint(neuron, wanted, wants_spikes, neurons, counts, g_drive, state, before, inputs, adjoint, g_input, g_spikes, kept, sums):
    """Go back one bin in one trial: fill g_input and g_spikes (of the bin before), advance the adjoint of the state, add to the sums.

    neurons, counts : spikes of the bin before. state, before : after this bin and after the one before (n_components, n_neurons).
    """
    n = g_drive.shape[0]
    one = g_drive.dtype.type(1)
    g_input[:] = 0.0
    g_spikes[:] = 0.0
    add_scaled(sums.bias, one, g_drive)
    if wanted.decay:
        kept[:] = before
        reset_where_spiked(neuron, neurons, counts, kept)
    for d in range(adjoint.shape[0]):
        g, readout, gain, decay, jump = adjoint[d], neuron.readout[d], neuron.gain[d], neuron.decay[d], neuron.jump[d]
        for i in range(n):
            g[i] += readout[i] * g_drive[i]
            g_input[i] += gain[i] * g[i]
        if wants_spikes:
            for i in range(n):
                g_spikes[i] += jump[i] * g[i]
        if wanted.readout:
            for i in range(n):
                sums.readout[d, i] += g_drive[i] * state[d, i]
        if wanted.gain:
            for i in range(n):
                sums.gain[d, i] += g[i] * inputs[i]
        if wanted.decay:
            for i in range(n):
                sums.decay[d, i] += g[i] * kept[d, i]
        if wanted.jump:
            for e in range(neurons.shape[0]):
                sums.jump[d, neurons[e]] += g[neurons[e]] * counts[e]
        for i in range(n):
            g[i] *= decay[i]
        if neuron.resets[d] == NO_RESET:
            continue
        value = neuron.reset_value[d]
        if neuron.resets[d] == SUBTRACT:
            if wants_spikes:
                for i in range(n):
                    g_spikes[i] -= g[i] * value[i]
            if wanted.reset_value:
                for e in range(neurons.shape[0]):
                    sums.reset_value[d, neurons[e]] -= g[neurons[e]] * counts[e]
            continue
        if wants_spikes:
            for i in range(n):
                g_spikes[i] += g[i] * (value[i] - before[d, i])
            for e in range(neurons.shape[0]):
                if counts[e] > one:  # min(z, 1) does not change
                    i = neurons[e]
                    g_spikes[i] -= g[i] * (value[i] - before[d, i])
        for e in range(neurons.shape[0]):
            i, part = neurons[e], min(counts[e], one)
            if wanted.reset_value:
                sums.reset_value[d, i] += g[i] * part
            g[i] *= one - part


@cached(numba.njit, nogil=True, error_model="numpy")
def _flush(sums, found):
    """Move the sums of a piece, in the precision of the run, to those of all."""
    for d in range(sums.decay.shape[0]):
        for total, part in (
            (found.decay[d], sums.decay[d]),
            (found.gain[d], sums.gain[d]),
            (found.jump[d], sums.jump[d]),
            (found.readout[d], sums.readout[d]),
            (found.reset_value[d], sums.reset_value[d]),
        ):
            total += part
            part[:] = 0.0
    bias, part_of_bias = found.bias, sums.bias
    bias += part_of_bias
    part_of_bias[:] = 0.0


@cached(numba.njit, nogil=True, error_model="numpy", fastmath={"contract"})
def backward(
    first, last, neuron, coupling, packed, slope, is_clamped, wanted, given, current, drives, events, n_known, states, traces, trace0,
    border, to_current, to_known, to_state, to_trace,
):  # fmt: skip
    """Fill the gradients of the trials first .. last - 1 and return those that are summed over trials.

    states, traces : at every `border`-th bin, see `forward`. trace0 : (n_trials, n_neurons, n_filters) before the first bin, of which
    to_trace is the gradient; to_known : (n_trials, n_known, n_neurons); to_state : (n_trials, n_components, n_neurons).
    """
    n_trials, (n_bins, n_neurons) = last - first, drives.shape[1:]
    n_components, n_filters, n_delay, n_lags = neuron.decay.shape[0], coupling.trace_decay.shape[0], coupling.n_delay, coupling.n_lags
    number = drives.dtype.type
    each = (n_components, n_neurons)
    found = Found(
        np.zeros(coupling.by_lag.shape, drives.dtype), np.zeros(coupling.by_trace.shape, drives.dtype),
        np.zeros(each), np.zeros(each), np.zeros(each), np.zeros(each), np.zeros(each), np.zeros(n_neurons),
    )  # fmt: skip
    none = np.zeros((0, 0), drives.dtype)
    sums = Found(
        none, none, np.zeros(each, drives.dtype), np.zeros(each, drives.dtype), np.zeros(each, drives.dtype),
        np.zeros(each, drives.dtype), np.zeros(each, drives.dtype), np.zeros(n_neurons, drives.dtype),
    )  # fmt: skip
    is_sampled, is_any_clamped = not is_clamped.all(), is_clamped.any()
    has_lags, has_filters, has_given_trace = n_lags > 0, n_filters > 0, given.trace.shape[0] > 0
    adjoint = np.zeros((n_trials, n_components, n_neurons), drives.dtype)
    if given.state.shape[0] > 0:
        adjoint[:] = given.state[first:last]
    g_spikes = np.zeros((n_trials, n_neurons), drives.dtype)  # of the bin's spikes, through the neuron's own state
    width = n_filters * n_neurons
    filtered = np.zeros((n_trials, width), drives.dtype)  # adjoint of the post-synaptic traces
    ring = np.zeros((n_delay, n_trials, width), drives.dtype)  # and what it was up to n_delay bins later
    by_lag = np.zeros((n_trials, packed.lag.shape[0] * packed.lag.shape[2]), drives.dtype)
    by_trace = np.zeros((n_trials, packed.trace.shape[0] * packed.trace.shape[2]), drives.dtype)
    g_drive, kept = np.zeros(n_neurons, drives.dtype), np.zeros(each, drives.dtype)
    n_kept = (border if wanted.states else 0, n_trials)
    piece_states = np.zeros((n_trials, n_kept[0] + 1, n_components, n_neurons), drives.dtype)
    piece_inputs = np.zeros((n_trials, n_kept[0], n_neurons), drives.dtype)
    ahead = np.zeros((border + n_delay + n_lags) * n_neurons if wanted.states else 0, drives.dtype)
    work_drive = np.zeros(n_neurons, drives.dtype)
    flat_current, flat_ring = to_current.reshape(to_current.size), ring.reshape(ring.size)
    no_state, no_input = np.zeros((n_components, 0), drives.dtype), np.zeros(0, drives.dtype)
    for t in range(n_bins - 1, -1, -1):
        if wanted.states and (t == n_bins - 1 or (t + 1) % border == 0):
            t0 = t // border * border
            for k in range(first, last):
                piece_states[k - first, 0] = states[t // border, k]
                replay(
                    neuron, coupling, events, events.pointer[k - first], t0, t + 1, n_known, current[k], traces[t // border, k].copy(),
                    piece_states[k - first], piece_inputs[k - first], work_drive, ahead,
                )  # fmt: skip
        reaches = t + n_delay < n_bins
        if is_sampled and reaches:
            if has_lags:
                depth = (min(t + n_delay + n_lags, n_bins) - t - n_delay) * n_neurons
                at = (first * n_bins + t + n_delay) * n_neurons
                product(flat_current, at, n_bins * n_neurons, n_trials, depth, packed.lag, 0, by_lag)
            if has_filters:
                product(flat_ring, (t + n_delay) % n_delay * n_trials * width, width, n_trials, width, packed.trace, 0, by_trace)
        for k in range(first, last):
            row, g_z, drive = k - first, g_spikes[k - first], drives[k, t]
            if is_sampled:
                if given.spikes.shape[0] > 0:
                    outer = given.spikes[k, t]
                    for i in range(n_neurons):
                        g_z[i] += outer[i]
                if reaches and has_lags:
                    add_scaled(g_z, number(1), by_lag[row, :n_neurons])
                if reaches and has_filters:
                    add_scaled(g_z, number(1), by_trace[row, :n_neurons])
                if reaches and has_given_trace:
                    _add_given_trace(coupling, given.trace[k], n_bins - 1 - t - n_delay, g_z)
                _times_slope(slope, k, t, drive, g_z)
                if is_any_clamped:
                    for i in range(n_neurons):
                        g_z[i] = number(0) if is_clamped[i] else g_z[i]
                g_drive[:] = g_z
                if given.drive.shape[0] > 0:
                    add_scaled(g_drive, number(1), given.drive[k, t])
            elif given.drive.shape[0] > 0:
                g_drive[:] = given.drive[k, t]
            else:
                g_drive[:] = 0.0
            if neuron.n_refractory > 0:
                for i in range(n_neurons):
                    g_drive[i] = number(0) if drive[i] == number(neuron.never_drive) else g_drive[i]
            a, b = events.pointer[row, n_known + t - 1], events.pointer[row, n_known + t]
            wants_spikes = is_sampled if t > 0 else wanted.known
            if wanted.states:
                r = t % border
                _neuron_adjoint(
                    neuron, wanted, wants_spikes, events.neuron[a:b], events.count[a:b], g_drive, piece_states[row, r + 1],
                    piece_states[row, r], piece_inputs[row, r], adjoint[row], to_current[k, t], g_z, kept, sums,
                )  # fmt: skip
            else:
                _neuron_adjoint(
                    neuron, wanted, wants_spikes, events.neuron[a:b], events.count[a:b], g_drive, no_state, no_state, no_input,
                    adjoint[row], to_current[k, t], g_z, kept, sums,
                )  # fmt: skip
            if has_filters:
                for c in range(n_filters):
                    decay, part = coupling.trace_decay[c], filtered[row, c * n_neurons : (c + 1) * n_neurons]
                    for i in range(n_neurons):
                        part[i] = decay * part[i] + to_current[k, t, i]
                ring[t % n_delay, row] = filtered[row]
            if wanted.weights:
                # Of the spikes that arrive in bin t, all bins they reach are now known.
                a, b = events.pointer[row, n_known + t - n_delay], events.pointer[row, n_known + t - n_delay + 1]
                stop = min(t + n_lags, n_bins)
                reached = flat_current[(k * n_bins + t) * n_neurons : (k * n_bins + stop) * n_neurons]
                for e in range(a, b):
                    if has_lags:
                        add_scaled(found.by_lag[events.neuron[e], : reached.shape[0]], events.count[e], reached)
                    if has_filters:
                        add_scaled(found.by_trace[events.neuron[e]], events.count[e], filtered[row])
        if t % border == 0:
            _flush(sums, found)
    for k in range(first, last):
        to_state[k] = adjoint[k - first]
    if wanted.weights or wanted.known:
        _before_first_bin(
            first, last, coupling, packed, wanted, given, events, n_known, n_bins, trace0, to_current, filtered, ring, g_spikes, by_lag,
            by_trace, found, to_known,
        )  # fmt: skip
    if wanted.trace:
        _trace_gradient(first, last, coupling, given, n_bins, filtered, to_trace)
    return found


@cached(numba.njit, nogil=True, error_model="numpy")
def _add_given_trace(coupling, given, n_after, g_z):
    """Add what the traces after the last bin, n_after bins after a spike has arrived, give to the adjoint of the spike."""
    for c in range(coupling.trace_decay.shape[0]):
        share = coupling.trace_decay[c] ** n_after
        for i in range(g_z.shape[0]):
            g_z[i] += share * given[i, c]


@cached(numba.njit, nogil=True, error_model="numpy")
def _before_first_bin(
    first, last, coupling, packed, wanted, given, events, n_known, n_bins, trace0, to_current, filtered, ring, g_spikes, by_lag, by_trace,
    found, to_known,
):  # fmt: skip
    """Go on with the spikes before bin 0 and with the traces they have left."""
    n_trials, n_neurons = last - first, to_current.shape[2]
    n_filters, n_delay, n_lags = coupling.trace_decay.shape[0], coupling.n_delay, coupling.n_lags
    flat_current, flat_ring, width = to_current.reshape(to_current.size), ring.reshape(ring.size), n_filters * n_neurons
    for row in range(n_known):
        at = row - n_known + n_delay  # bin that its spikes reach first
        skip, stop = max(-at, 0), min(n_lags, n_bins - at)
        if wanted.weights and at < 0:
            for k in range(first, last):
                for e in range(events.pointer[k - first, row], events.pointer[k - first, row + 1]):
                    if skip < stop:
                        target = found.by_lag[events.neuron[e], skip * n_neurons : stop * n_neurons]
                        add_scaled(target, events.count[e], to_current[k, : at + stop].reshape((at + stop) * n_neurons))
        if not wanted.known:
            continue
        if skip < stop:
            depth, begin = (stop - skip) * n_neurons, (first * n_bins + max(at, 0)) * n_neurons
            product(flat_current, begin, n_bins * n_neurons, n_trials, depth, packed.lag, skip * n_neurons, by_lag)
        arrives = n_filters > 0 and 0 <= at < n_bins
        if arrives:
            product(flat_ring, at % n_delay * n_trials * width, width, n_trials, width, packed.trace, 0, by_trace)
        for k in range(first, last):
            target = to_known[k, row]
            target[:] = 0.0
            if row == n_known - 1:
                target[:] = g_spikes[k - first]
            if skip < stop:
                for i in range(n_neurons):
                    target[i] += by_lag[k - first, i]
            if arrives:
                for i in range(n_neurons):
                    target[i] += by_trace[k - first, i]
                if given.trace.shape[0] > 0:
                    _add_given_trace(coupling, given.trace[k], n_bins - 1 - at, target)
    if wanted.weights:
        for k in range(first, last):
            for c in range(n_filters):
                for i in range(n_neurons):
                    weight = trace0[k, i, c] * coupling.trace_decay[c]
                    if weight != 0.0:
                        part = slice(c * n_neurons, (c + 1) * n_neurons)
                        add_scaled(found.by_trace[i, part], weight, filtered[k - first, part])


@cached(numba.njit, nogil=True, error_model="numpy")
def _trace_gradient(first, last, coupling, given, n_bins, filtered, to_trace):
    """Fill the gradient of the traces before the first bin."""
    n_neurons = to_trace.shape[1]
    for k in range(first, last):
        for c in range(coupling.trace_decay.shape[0]):
            decay, part = coupling.trace_decay[c], slice(c * n_neurons, (c + 1) * n_neurons)
            for i in range(n_neurons):
                total = decay * (coupling.by_trace[i, part] * filtered[k - first, part]).sum()
                if given.trace.shape[0] > 0:
                    total += decay**n_bins * given.trace[k, i, c]
                to_trace[k, i, c] = total
