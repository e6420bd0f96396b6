"""Log-likelihood and gradient by adding filters at spikes, and residuals back onto filters, for blocks of target neurons.

A block holds neighbouring targets in its last axis, so that what one spike adds to all of them over all lags is one contiguous
multiply-add. Blocks are independent: threads share nothing, and the result is the same for any number of them.
"""

from __future__ import annotations

import math

import numba
import numpy as np

from fitspike.kernels.compiling import cached
from fitspike.kernels.numba_exponential import exp_in_place
from fitspike.kernels.point_process import EMISSION_CODES, Events, FilterState, LikelihoodGradient, SpikeFilters

_ROWS = 512  # bins driven at once: with a block's filters they stay in the second-level cache
_ROWS_EXPONENTIAL = 2048  # each such stretch costs one outer product of all traces
_FLUSH_BINS = 65536  # bins after which float32 gradient sums are added up in float64
_WIDTH = 32  # targets in a block
_WIDEST, _LEAST_BLOCKS = 128, 16  # exponential filters gain from wider blocks as long as there are enough of them for all cores


def likelihood_gradient(
    events: Events,
    span: range,
    targets: np.ndarray,
    bias: np.ndarray,
    filters: SpikeFilters,
    base: np.ndarray | None,
    emission: str,
    dtype: str,
    state: FilterState,
    threads: int,
) -> LikelihoodGradient:
    """Return log-likelihood and gradient; see `fitspike.kernels.point_process.likelihood_gradient`."""
    n_targets = len(targets)
    width = _WIDTH if filters.decay is None else min(_WIDEST, _WIDTH * max(1, -(-n_targets // (_WIDTH * _LEAST_BLOCKS))))
    width = min(width, max(8, -(-n_targets // 8) * 8))
    n_blocks = -(-n_targets // width)
    lane_of = np.full((n_blocks, events.n_neurons), -1, dtype=np.int32)
    lane_of[np.arange(n_targets) // width, targets] = np.arange(n_targets) % width

    def blocked(array: np.ndarray | None, empty: tuple[int, ...]) -> np.ndarray:
        """Return an array whose last axis is the target as (n_blocks, ..., width), zeros in the lanes past the last target."""
        if array is None:
            return np.zeros((n_blocks, *empty), dtype=dtype)
        padded = np.zeros((*array.shape[:-1], n_blocks * width), dtype=dtype)
        padded[..., :n_targets] = array
        return np.ascontiguousarray(np.moveaxis(padded.reshape(*array.shape[:-1], n_blocks, width), -2, 0))

    def joined(array: np.ndarray) -> np.ndarray:
        """Undo `blocked`."""
        return np.moveaxis(array, 0, -2).reshape(*array.shape[1:-1], -1)[..., :n_targets]

    own = blocked(None if filters.own is None else np.asarray(filters.own).T, (0, width))
    pair = blocked(filters.pair, (0, 0, width))
    further = blocked(base, (0, width))
    out = [np.zeros((n_blocks, *shape)) for shape in ((width,), (width,), own.shape[1:], pair.shape[1:])]
    count = np.zeros(0, dtype=np.uint16) if events.event_count is None else events.event_count
    common = (events.row_pointer, events.event_neuron, count, events.trial_edge, events.scored_from, span.start, span.stop)
    before = numba.get_num_threads()
    numba.set_num_threads(max(1, min(threads, numba.config.NUMBA_NUM_THREADS)))
    try:
        if filters.decay is None:
            _finite(*common, lane_of, blocked(np.asarray(bias), ()), further, own, pair, EMISSION_CODES[emission], *out)
        else:
            decay = np.asarray(filters.decay, dtype=np.float64)
            shape = (n_blocks, len(decay), width)
            drive = np.zeros(shape, dtype=dtype) if state.drive is None else state.drive
            trace = np.zeros((events.n_neurons, len(decay))) if state.trace is None else state.trace
            traces = np.repeat(trace[None], n_blocks, axis=0)
            parts = (blocked(np.asarray(bias), ()), further, own, pair, decay, EMISSION_CODES[emission])
            _exponential(*common, lane_of, *parts, drive, traces, *out)
            state.drive, state.trace = drive, traces[0]
    finally:
        numba.set_num_threads(before)
    log_likelihood, d_bias, d_own, d_pair = out
    return LikelihoodGradient(
        joined(log_likelihood),
        joined(d_bias),
        None if filters.own is None else joined(d_own).T,
        None if filters.pair is None else joined(d_pair),
        None if base is None else joined(further).astype(np.float64),
    )


@cached(numba.njit, nogil=True, fastmath={"contract"})
def _score_rows(drive, resid, log_likelihood, emission):
    """Put minus the expected counts of the rows of `drive` into `resid` and their part of the log-likelihood into its sum.

    drive, resid (n_rows, width). What events add, count * drive, is the caller's.
    """
    n_rows, width = drive.shape
    flat_drive, flat = drive.reshape(-1), resid.reshape(-1)
    if emission == 0:
        for i in range(flat.size):
            flat[i] = flat_drive[i]
        exp_in_place(flat, np.empty_like(flat))
        for t in range(n_rows):
            for i in range(width):
                log_likelihood[i] -= resid[t, i]
        for i in range(flat.size):
            flat[i] = -flat[i]
        return
    # log(1 + e^x) = max(x, 0) + log(1 + e^-|x|); the second parts are multiplied up, at most 512 factors of 2 at a time.
    for i in range(flat.size):
        flat[i] = -abs(flat_drive[i])
    exp_in_place(flat, np.empty_like(flat))
    product = np.ones(width)
    for t in range(n_rows):
        for i in range(width):
            product[i] *= 1.0 + resid[t, i]
            log_likelihood[i] -= max(drive[t, i], 0.0)
        if t % 512 == 511 or t == n_rows - 1:
            for i in range(width):
                log_likelihood[i] -= math.log(product[i])
                product[i] = 1.0
    one = drive.dtype.type(1)
    for i in range(flat.size):
        e = flat[i]
        flat[i] = -(one if flat_drive[i] >= 0 else e) / (one + e)


@cached(numba.njit, nogil=True, fastmath={"contract"})
def _axpy(out, scale, x):
    for i in range(x.size):
        out[i] += scale * x[i]


@cached(numba.njit, nogil=True)
def _first_trial(trial_edge, first):
    """Return the trial that holds bin `first`."""
    return max(0, np.searchsorted(trial_edge, first, side="right") - 1)


@cached(numba.njit, parallel=True, nogil=True, fastmath={"contract"})
def _finite(
    row_pointer, event_neuron, event_count, trial_edge, scored_from, first, stop, lane_of, bias, base, own, pair, emission,
    log_likelihood, d_bias, d_own, d_pair,
):  # fmt: skip
    for block in numba.prange(bias.shape[0]):
        _finite_block(
            row_pointer, event_neuron, event_count, trial_edge, scored_from, first, stop, lane_of[block], bias[block], base[block],
            own[block], pair[block], emission, log_likelihood[block], d_bias[block], d_own[block], d_pair[block],
        )  # fmt: skip


@cached(numba.njit, nogil=True, fastmath={"contract"})
def _finite_block(
    row_pointer, event_neuron, event_count, trial_edge, scored_from, first, stop, lane_of, bias, base, own, pair, emission,
    log_likelihood, d_bias, d_own, d_pair,
):  # fmt: skip
    """own (n_own_lags, width); pair (n_pre, n_lags, width); base (n_bins, width), overwritten by the residual."""
    width, n_own, n_lags = bias.size, own.shape[0], pair.shape[1]
    longest = max(n_own, n_lags)
    one = bias.dtype.type(1)
    drive = np.empty((_ROWS, width), dtype=bias.dtype)
    resid = np.empty((_ROWS, width), dtype=bias.dtype)
    flat_drive, flat_resid = drive.reshape(-1), resid.reshape(-1)
    flat_pair = pair.reshape(pair.shape[0], n_lags * width)
    sum_own = np.zeros(own.shape, dtype=bias.dtype)
    sum_pair = np.zeros(flat_pair.shape, dtype=bias.dtype)
    flat_out = d_pair.reshape(pair.shape[0], n_lags * width)
    trial = _first_trial(trial_edge, first)
    since_flush = 0
    low = first
    while low < stop:
        while trial_edge[trial + 1] <= low:
            trial += 1
        high = min(stop, low + _ROWS, trial_edge[trial + 1])
        n_rows = high - low
        for t in range(n_rows):
            for i in range(width):
                drive[t, i] = bias[i]
        if base.shape[0]:
            for t in range(n_rows):
                for i in range(width):
                    drive[t, i] += base[low - first + t, i]
        earliest = max(trial_edge[trial], low - longest)
        for s in range(earliest, high - 1):
            for event in range(row_pointer[s], row_pointer[s + 1]):
                pre = event_neuron[event]
                count = bias.dtype.type(event_count[event]) if event_count.size else one
                if n_lags:
                    begin, end = max(s + 1, low), min(s + 1 + n_lags, high)
                    if begin < end:
                        _axpy(
                            flat_drive[(begin - low) * width : (end - low) * width],
                            count,
                            flat_pair[pre, (begin - s - 1) * width : (end - s - 1) * width],
                        )
                lane = lane_of[pre]
                if n_own and lane >= 0:
                    for t in range(max(s + 1, low), min(s + 1 + n_own, high)):
                        drive[t - low, lane] += count * own[t - s - 1, lane]
        quiet = min(max(0, scored_from[trial] - low), n_rows)
        resid[:quiet] = 0
        if quiet < n_rows:
            _score_rows(drive[quiet:n_rows], resid[quiet:n_rows], log_likelihood, emission)
        for s in range(low + quiet, high):
            for event in range(row_pointer[s], row_pointer[s + 1]):
                lane = lane_of[event_neuron[event]]
                if lane >= 0:
                    count = bias.dtype.type(event_count[event]) if event_count.size else one
                    resid[s - low, lane] += count
                    log_likelihood[lane] += count * drive[s - low, lane]
        for t in range(quiet, n_rows):
            for i in range(width):
                d_bias[i] += resid[t, i]
        if base.shape[0]:
            for t in range(n_rows):
                for i in range(width):
                    base[low - first + t, i] = resid[t, i]
        for s in range(earliest, high - 1):
            for event in range(row_pointer[s], row_pointer[s + 1]):
                pre = event_neuron[event]
                count = bias.dtype.type(event_count[event]) if event_count.size else one
                if n_lags:
                    begin, end = max(s + 1, low), min(s + 1 + n_lags, high)
                    if begin < end:
                        _axpy(
                            sum_pair[pre, (begin - s - 1) * width : (end - s - 1) * width],
                            count,
                            flat_resid[(begin - low) * width : (end - low) * width],
                        )
                lane = lane_of[pre]
                if n_own and lane >= 0:
                    for t in range(max(s + 1, low), min(s + 1 + n_own, high)):
                        sum_own[t - s - 1, lane] += count * resid[t - low, lane]
        since_flush += n_rows
        if since_flush >= _FLUSH_BINS or high == stop:
            flat_out += sum_pair
            d_own += sum_own
            sum_pair[:] = 0
            sum_own[:] = 0
            since_flush = 0
        low = high


@cached(numba.njit, parallel=True, nogil=True, fastmath={"contract"})
def _exponential(
    row_pointer, event_neuron, event_count, trial_edge, scored_from, first, stop, lane_of, bias, base, own, pair, decay, emission,
    state, traces, log_likelihood, d_bias, d_own, d_pair,
):  # fmt: skip
    for block in numba.prange(bias.shape[0]):
        _exponential_block(
            row_pointer, event_neuron, event_count, trial_edge, scored_from, first, stop, lane_of[block], bias[block], base[block],
            own[block], pair[block], decay, emission, state[block], traces[block], log_likelihood[block], d_bias[block], d_own[block],
            d_pair[block],
        )  # fmt: skip


@cached(numba.njit, nogil=True, fastmath={"contract"})
def _exponential_block(
    row_pointer, event_neuron, event_count, trial_edge, scored_from, first, stop, lane_of, bias, base, own, pair, decay, emission,
    state, trace, log_likelihood, d_bias, d_own, d_pair,
):  # fmt: skip
    """own (n_filters, width); pair (n_pre, n_filters, width); state (n_filters, width) and trace (n_neurons, n_filters) at `first`.

    Forward, state_f(t + 1) = decay_f state_f(t) + what the spikes at t add. Backward within a stretch of bins, the derivative of a unit
    of state is back_f(t - 1) = resid(t) + decay_f back_f(t). Spikes before the stretch reach it as decay_f ** lag, so all of them
    together add trace_f(pre) * back_f, one outer product.
    """
    width, n_filters = bias.size, decay.size
    size = n_filters * width
    has_pair, has_own = pair.shape[0] > 0, own.shape[0] > 0
    one = bias.dtype.type(1)
    drive = np.empty((_ROWS_EXPONENTIAL, width), dtype=bias.dtype)
    resid = np.empty((_ROWS_EXPONENTIAL, width), dtype=bias.dtype)
    fade = np.empty(size, dtype=bias.dtype)
    for f in range(n_filters):
        fade[f * width : (f + 1) * width] = decay[f]
    now = state.reshape(-1)
    back = np.empty(size, dtype=bias.dtype)
    flat_pair = pair.reshape(pair.shape[0], pair.shape[1] * width)
    sum_pair = np.zeros(flat_pair.shape, dtype=bias.dtype)
    sum_own = np.zeros(own.shape, dtype=bias.dtype)
    flat_out = d_pair.reshape(pair.shape[0], pair.shape[1] * width)
    trial = _first_trial(trial_edge, first)
    since_flush = 0
    low = first
    while low < stop:
        while trial_edge[trial + 1] <= low:
            trial += 1
        if low == trial_edge[trial]:
            now[:] = 0
            trace[:] = 0
        high = min(stop, low + _ROWS_EXPONENTIAL, trial_edge[trial + 1])
        n_rows = high - low
        for t in range(n_rows):
            for i in range(width):
                drive[t, i] = bias[i]
            for f in range(n_filters):
                for i in range(width):
                    drive[t, i] += now[f * width + i]
            for x in range(size):
                now[x] *= fade[x]
            for event in range(row_pointer[low + t], row_pointer[low + t + 1]):
                pre = event_neuron[event]
                count = bias.dtype.type(event_count[event]) if event_count.size else one
                if has_pair:
                    _axpy(now, count, flat_pair[pre])
                lane = lane_of[pre]
                if has_own and lane >= 0:
                    for f in range(n_filters):
                        now[f * width + lane] += count * own[f, lane]
        if base.shape[0]:
            for t in range(n_rows):
                for i in range(width):
                    drive[t, i] += base[low - first + t, i]
        quiet = min(max(0, scored_from[trial] - low), n_rows)
        resid[:quiet] = 0
        if quiet < n_rows:
            _score_rows(drive[quiet:n_rows], resid[quiet:n_rows], log_likelihood, emission)
        back[:] = 0
        for t in range(n_rows - 1, -1, -1):
            for event in range(row_pointer[low + t], row_pointer[low + t + 1]):
                pre = event_neuron[event]
                count = bias.dtype.type(event_count[event]) if event_count.size else one
                lane = lane_of[pre]
                if has_pair:
                    _axpy(sum_pair[pre], count, back)
                if lane >= 0:
                    if has_own:
                        for f in range(n_filters):
                            sum_own[f, lane] += count * back[f * width + lane]
                    if t >= quiet:
                        resid[t, lane] += count
                        log_likelihood[lane] += count * drive[t, lane]
            for f in range(n_filters):
                for i in range(width):
                    back[f * width + i] = back[f * width + i] * fade[f * width + i] + resid[t, i]
            for i in range(width):
                d_bias[i] += resid[t, i]
        for pre in range(trace.shape[0]):
            lane = lane_of[pre]
            for f in range(n_filters):
                weight = bias.dtype.type(trace[pre, f])
                if weight == 0:
                    continue
                if has_pair:
                    _axpy(sum_pair[pre, f * width : (f + 1) * width], weight, back[f * width : (f + 1) * width])
                if has_own and lane >= 0:
                    sum_own[f, lane] += weight * back[f * width + lane]
        if base.shape[0]:
            for t in range(n_rows):
                for i in range(width):
                    base[low - first + t, i] = resid[t, i]
        _advance_traces(row_pointer, event_neuron, event_count, low, high, decay, trace)
        since_flush += n_rows
        if since_flush >= _FLUSH_BINS or high == stop:
            flat_out += sum_pair
            d_own += sum_own
            sum_pair[:] = 0
            sum_own[:] = 0
            since_flush = 0
        low = high


@cached(numba.njit, nogil=True)
def _advance_traces(row_pointer, event_neuron, event_count, low, high, decay, trace):
    """Carry trace[pre, f], the sum over past spikes of decay_f ** (lag - 1) at bin `low`, on to bin `high`."""
    for f in range(decay.size):
        past = decay[f] ** (high - low)
        for pre in range(trace.shape[0]):
            trace[pre, f] *= past
        gain = 1.0
        for t in range(high - 1, low - 1, -1):
            for event in range(row_pointer[t], row_pointer[t + 1]):
                trace[event_neuron[event], f] += gain * (event_count[event] if event_count.size else 1)
            gain *= decay[f]
