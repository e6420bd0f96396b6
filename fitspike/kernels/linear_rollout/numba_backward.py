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
from fitspike.kernels.linear_rollout.numba_forward import SUBTRACT, TO_VALUE, exponential, move, run_piece, seed
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


@cached(numba.njit, nogil=True, error_model="numpy")
def _flush(n_components, sums, found):
    """Move the sums of a piece, in the precision of the run, to those of all bins."""
    for d in range(n_components):
        for i in range(sums.bias.shape[0]):
            found.decay[d, i] += sums.decay[d, i]
            found.gain[d, i] += sums.gain[d, i]
            found.jump[d, i] += sums.jump[d, i]
            found.readout[d, i] += sums.readout[d, i]
            found.reset_value[d, i] += sums.reset_value[d, i]
            sums.decay[d, i] = sums.gain[d, i] = sums.jump[d, i] = sums.readout[d, i] = sums.reset_value[d, i] = 0.0
    for i in range(sums.bias.shape[0]):
        found.bias[i] += sums.bias[i]
        sums.bias[i] = 0.0


@cached(numba.njit, nogil=True, error_model="numpy")
def _no_sums(coupling, n_components, n_neurons, like, single):
    """Return zeros for all gradients that are summed over trials, or in single precision for those of the neuron."""
    each = (n_components, n_neurons)
    return Found(
        np.zeros(coupling.by_lag.shape, like), np.zeros(coupling.by_trace.shape, like), np.zeros(each, single), np.zeros(each, single),
        np.zeros(each, single), np.zeros(each, single), np.zeros(each, single), np.zeros(n_neurons, single),
    )  # fmt: skip


@cached(numba.njit, nogil=True, error_model="numpy", fastmath={"contract"})
def backward(
    first, last, neuron, coupling, packed, slope, draw, wanted, given, current, drives, events, states, traces, trace0, border, to_current,
    to_known, to_state, to_trace,
):  # fmt: skip
    """Fill the gradients of the trials first .. last - 1 and return those that are summed over trials.

    states, traces : at every `border`-th bin, see `forward`. trace0 : (n_trials, n_neurons, n_filters) before the first bin, of which
    to_trace is the gradient; to_known : (n_trials, n_known, n_neurons); to_state : (n_trials, n_components, n_neurons). draw : of which
    spikes are clamped is all that counts.
    """
    n_trials, (n_bins, n_neurons), like = last - first, drives.shape[1:], drives.dtype
    decay, gain, jump, readout, never = neuron.decay, neuron.gain, neuron.jump, neuron.readout, like.type(neuron.never_drive)
    resets, reset_value, n_refractory = neuron.resets, neuron.reset_value, neuron.n_refractory
    n_components, n_filters, n_delay, n_lags = decay.shape[0], coupling.trace_decay.shape[0], coupling.n_delay, coupling.n_lags
    neurons, counts, pointer, n_known = events.neuron, events.count, events.pointer, events.n_known
    outer_spikes, outer_drive, outer_trace, trace_decay = given.spikes, given.drive, given.trace, coupling.trace_decay
    form, slopes, is_clamped = slope.form, slope.values, draw.is_clamped
    one, zero, scale, ceiling, log_bin_s = (
        like.type(1),
        like.type(0),
        like.type(slope.scale),
        like.type(slope.ceiling),
        like.type(slope.log_bin_s),
    )
    is_sampled, is_any_clamped, width = not is_clamped.all(), is_clamped.any(), n_filters * n_neurons
    found = _no_sums(coupling, n_components, n_neurons, like, np.float64)
    g_lag, g_trace = found.by_lag, found.by_trace
    s_decay, s_gain, s_jump, s_readout, s_reset_value, s_bias = (
        np.zeros((n_components, n_neurons), like), np.zeros((n_components, n_neurons), like), np.zeros((n_components, n_neurons), like),
        np.zeros((n_components, n_neurons), like), np.zeros((n_components, n_neurons), like), np.zeros(n_neurons, like),
    )  # fmt: skip
    sums = Found(g_lag, g_trace, s_decay, s_gain, s_jump, s_readout, s_reset_value, s_bias)
    adjoint = np.zeros((n_trials, n_components, n_neurons), like)
    if given.state.shape[0] > 0:
        for k in range(first, last):
            move(given.state[k], adjoint[k - first])
    g_spikes = np.zeros((n_trials, n_neurons), like)  # adjoint of a bin's spikes through the neuron's own state
    filtered = np.zeros((n_trials, n_filters, n_neurons), like)  # adjoint of the post-synaptic traces
    ring = np.zeros((n_delay, n_trials, n_filters, n_neurons), like)  # and what it was up to n_delay bins later
    by_lag = np.zeros((n_trials, packed.lag.shape[0] * packed.lag.shape[2]), like)
    by_trace = np.zeros((n_trials, packed.trace.shape[0] * packed.trace.shape[2]), like)
    g_drive, work_trace = np.zeros(n_neurons, like), np.zeros((1, n_filters, n_neurons), like)
    n_kept = border if wanted.states else 0
    path, inputs = np.zeros((n_trials, n_kept + 1, n_components, n_neurons), like), np.zeros((n_trials, n_kept, n_neurons), like)
    ahead, no_spikes = np.zeros((n_kept + n_delay + n_lags) * n_neurons, like), np.zeros(8, np.bool_)
    flat_current, flat_ring = to_current.reshape(to_current.size), ring.reshape(ring.size)
    for t in range(n_bins - 1, -1, -1):
        r = t % border
        if wanted.states and (t == n_bins - 1 or r == border - 1):
            for k in range(first, last):
                b = k - first
                move(states[t // border, k], path[b, 0])
                move(traces[t // border, k], work_trace[0])
                seed(coupling, events, b, t - r, ahead)
                run_piece(
                    True, k, b, t - r, t + 1, neuron, coupling, draw, current, work_trace, 0, to_state[0], path[b], inputs[b],
                    ahead, to_current, to_current, events, no_spikes,
                )  # fmt: skip
        reaches = t + n_delay < n_bins
        if is_sampled and reaches:
            if n_lags > 0:
                depth = (min(t + n_delay + n_lags, n_bins) - t - n_delay) * n_neurons
                at = (first * n_bins + t + n_delay) * n_neurons
                product(flat_current, at, n_bins * n_neurons, n_trials, depth, packed.lag, 0, by_lag)
            if n_filters > 0:
                product(flat_ring, (t + n_delay) % n_delay * n_trials * width, width, n_trials, width, packed.trace, 0, by_trace)
        wants_spikes = is_sampled if t > 0 else wanted.known
        for k in range(first, last):
            b = k - first
            if is_sampled:
                # The adjoint of the bin's spikes, then times the slope that of the drive.
                for i in range(n_neurons):
                    g_drive[i] = g_spikes[b, i]
                if n_lags > 0:
                    for i in range(n_neurons):
                        g_drive[i] += by_lag[b, i]
                if n_filters > 0:
                    for i in range(n_neurons):
                        g_drive[i] += by_trace[b, i]
                    if reaches and outer_trace.shape[0] > 0:
                        _add_given_trace(coupling, outer_trace[k], n_bins - 1 - t - n_delay, g_drive)
                if outer_spikes.shape[0] > 0:
                    for i in range(n_neurons):
                        g_drive[i] += outer_spikes[k, t, i]
                if form == GIVEN_SLOPE:
                    for i in range(n_neurons):
                        g_drive[i] *= slopes[k, t, i]
                elif form == LOGISTIC_SLOPE:
                    for i in range(n_neurons):
                        p = one / (one + exponential(-drives[k, t, i]))
                        g_drive[i] *= scale * p * (one - p)
                elif form == TRIANGLE_SLOPE:
                    for i in range(n_neurons):
                        u = drives[k, t, i]
                        height = one - abs(u)
                        g_drive[i] *= scale * (height if height > zero and u <= ceiling else zero)
                elif form == EXPONENTIAL_SLOPE:
                    for i in range(n_neurons):
                        u = drives[k, t, i]
                        g_drive[i] *= scale * (exponential(min(u, ceiling)) if u <= ceiling else zero)
                else:
                    for i in range(n_neurons):
                        log_hazard = min(drives[k, t, i] + log_bin_s, ceiling)
                        g_drive[i] *= scale * exponential(log_hazard - exponential(log_hazard))
                if is_any_clamped:
                    for i in range(n_neurons):
                        g_drive[i] = zero if is_clamped[i] else g_drive[i]
                if outer_drive.shape[0] > 0:
                    for i in range(n_neurons):
                        g_drive[i] += outer_drive[k, t, i]
            elif outer_drive.shape[0] > 0:
                for i in range(n_neurons):
                    g_drive[i] = outer_drive[k, t, i]
            if n_refractory > 0:
                for i in range(n_neurons):
                    g_drive[i] = zero if drives[k, t, i] == never else g_drive[i]
            for i in range(n_neurons):
                s_bias[i] += g_drive[i]
                g_spikes[b, i] = zero
            # From here on g_spikes is that of the bin before, whose spikes are the events begin .. end - 1.
            begin, end = pointer[b, n_known + t - 1], pointer[b, n_known + t]
            for d in range(n_components):
                for i in range(n_neurons):
                    adjoint[b, d, i] += readout[d, i] * g_drive[i]
                if d == 0:
                    for i in range(n_neurons):
                        to_current[k, t, i] = gain[d, i] * adjoint[b, d, i]
                else:
                    for i in range(n_neurons):
                        to_current[k, t, i] += gain[d, i] * adjoint[b, d, i]
                if wants_spikes:
                    for i in range(n_neurons):
                        g_spikes[b, i] += jump[d, i] * adjoint[b, d, i]
                if wanted.readout:
                    for i in range(n_neurons):
                        s_readout[d, i] += g_drive[i] * path[b, r + 1, d, i]
                if wanted.gain:
                    for i in range(n_neurons):
                        s_gain[d, i] += adjoint[b, d, i] * inputs[b, r, i]
                if wanted.decay:
                    for i in range(n_neurons):
                        s_decay[d, i] += adjoint[b, d, i] * path[b, r, d, i]
                    for e in range(begin, end):  # of neurons that have spiked, what counts is the state after the reset
                        i = neurons[e]
                        s_decay[d, i] += adjoint[b, d, i] * _by_reset(resets[d], path[b, r, d, i], reset_value[d, i], counts[e])
                if wanted.jump:
                    for e in range(begin, end):
                        s_jump[d, neurons[e]] += adjoint[b, d, neurons[e]] * counts[e]
                for i in range(n_neurons):
                    adjoint[b, d, i] *= decay[d, i]
                if resets[d] == SUBTRACT:
                    if wants_spikes:
                        for i in range(n_neurons):
                            g_spikes[b, i] -= adjoint[b, d, i] * reset_value[d, i]
                    if wanted.reset_value:
                        for e in range(begin, end):
                            s_reset_value[d, neurons[e]] -= adjoint[b, d, neurons[e]] * counts[e]
                elif resets[d] == TO_VALUE:
                    if wants_spikes:
                        for i in range(n_neurons):
                            g_spikes[b, i] += adjoint[b, d, i] * (reset_value[d, i] - path[b, r, d, i])
                    for e in range(begin, end):
                        i, part = neurons[e], min(counts[e], one)
                        if wants_spikes and counts[e] > one:  # min(z, 1) does not change
                            g_spikes[b, i] -= adjoint[b, d, i] * (reset_value[d, i] - path[b, r, d, i])
                        if wanted.reset_value:
                            s_reset_value[d, i] += adjoint[b, d, i] * part
                        adjoint[b, d, i] *= one - part
            if n_filters > 0:
                for c in range(n_filters):
                    for i in range(n_neurons):
                        filtered[b, c, i] = trace_decay[c] * filtered[b, c, i] + to_current[k, t, i]
                move(filtered[b], ring[t % n_delay, b])
            if wanted.weights:
                # All that the spikes which arrive in this bin do is now known.
                reached = flat_current[(k * n_bins + t) * n_neurons : (k * n_bins + min(t + n_lags, n_bins)) * n_neurons]
                for e in range(pointer[b, n_known + t - n_delay], pointer[b, n_known + t - n_delay + 1]):
                    source, z = neurons[e], counts[e]
                    for m in range(reached.shape[0]):
                        g_lag[source, m] += z * reached[m]
                    for c in range(n_filters):
                        for i in range(n_neurons):
                            g_trace[source, c, i] += z * filtered[b, c, i]
        if r == 0:
            _flush(n_components, sums, found)
    for k in range(first, last):
        move(adjoint[k - first], to_state[k])
    if wanted.weights or wanted.known:
        _before_first_bin(
            first, last, coupling, packed, wanted, given, events, n_bins, trace0, to_current, filtered, ring, g_spikes, by_lag, by_trace,
            found, to_known,
        )  # fmt: skip
    if wanted.trace:
        _trace_gradient(first, last, coupling, given, n_bins, filtered, to_trace)
    return found


@cached(numba.njit, nogil=True, error_model="numpy")
def _by_reset(reset, state, value, count):
    """Return by how much a spike count changes a state."""
    if reset == SUBTRACT:
        return -value * count
    return (value - state) * min(count, 1.0) if reset == TO_VALUE else 0.0


@cached(numba.njit, nogil=True, error_model="numpy")
def _add_given_trace(coupling, given, n_after, g_z):
    """Add what the traces after the last bin, n_after bins after a spike has arrived, give to the adjoint of the spike."""
    for c in range(coupling.trace_decay.shape[0]):
        share = coupling.trace_decay[c] ** n_after
        for i in range(g_z.shape[0]):
            g_z[i] += share * given[i, c]


@cached(numba.njit, nogil=True, error_model="numpy")
def _before_first_bin(
    first, last, coupling, packed, wanted, given, events, n_bins, trace0, to_current, filtered, ring, g_spikes, by_lag, by_trace, found,
    to_known,
):  # fmt: skip
    """Go on with the spikes before bin 0 and with the traces they have left."""
    n_trials, n_neurons = last - first, to_current.shape[2]
    n_filters, n_delay, n_lags, n_known = coupling.trace_decay.shape[0], coupling.n_delay, coupling.n_lags, events.n_known
    flat_current, flat_ring, width = to_current.reshape(to_current.size), ring.reshape(ring.size), n_filters * n_neurons
    for row in range(n_known):
        at = row - n_known + n_delay  # bin that its spikes reach first
        skip, stop = max(-at, 0), min(n_lags, n_bins - at)
        if wanted.weights and at < 0:
            for k in range(first, last):
                reached = flat_current[k * n_bins * n_neurons : (k * n_bins + max(stop - skip, 0)) * n_neurons]
                for e in range(events.pointer[k - first, row], events.pointer[k - first, row + 1]):
                    for m in range(reached.shape[0]):
                        found.by_lag[events.neuron[e], skip * n_neurons + m] += events.count[e] * reached[m]
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
            is_last = row == n_known - 1
            for i in range(n_neurons):
                target[i] = g_spikes[k - first, i] if is_last else 0.0
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
                        for j in range(n_neurons):
                            found.by_trace[i, c, j] += weight * filtered[k - first, c, j]


@cached(numba.njit, nogil=True, error_model="numpy")
def _trace_gradient(first, last, coupling, given, n_bins, filtered, to_trace):
    """Fill the gradient of the traces before the first bin."""
    n_neurons = to_trace.shape[1]
    for k in range(first, last):
        for c in range(coupling.trace_decay.shape[0]):
            decay = coupling.trace_decay[c]
            for i in range(n_neurons):
                total = decay * 0.0
                for j in range(n_neurons):
                    total += decay * coupling.by_trace[i, c, j] * filtered[k - first, c, j]
                if given.trace.shape[0] > 0:
                    total += decay**n_bins * given.trace[k, i, c]
                to_trace[k, i, c] = total
