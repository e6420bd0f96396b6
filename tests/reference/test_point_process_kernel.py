"""The event-driven likelihood and gradient against the dense one differentiated by autograd, at awkward sizes."""

from __future__ import annotations

import numpy as np
import pytest

from fitspike.kernels.point_process import Events, FilterState, SpikeFilters, likelihood_gradient
from fitspike.rng import Stream


def make_events(lengths: list[int], n_neurons: int, rate: float, *, warmup: int = 0, counts: bool = False, name: str = "events") -> Events:
    random = Stream(0, name).numpy()
    n_bins = sum(lengths)
    dense = random.poisson(rate, (n_bins, n_neurons)) if counts else (random.random((n_bins, n_neurons)) < rate).astype(int)
    bins, neuron = np.nonzero(dense)
    pointer = np.concatenate([[0], np.cumsum(np.bincount(bins, minlength=n_bins))]).astype(np.int64)
    edge = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    scored = np.minimum(edge[:-1] + warmup, edge[1:])
    count = dense[bins, neuron].astype(np.uint16) if counts else None
    return Events(pointer, neuron.astype(np.uint16), count, edge, scored, n_neurons)


def make_filters(
    n_neurons: int, n_targets: int, n_own: int, n_lags: int, decay: np.ndarray | None, *, own: bool, pair: bool
) -> SpikeFilters:
    random = Stream(1, "filters").numpy()
    if decay is not None:
        n_own = n_lags = len(decay)
    return SpikeFilters(
        0.3 * random.standard_normal((n_targets, n_own)) if own else None,
        0.2 * random.standard_normal((n_neurons, n_lags, n_targets)) if pair else None,
        decay,
    )


def assert_close(one, other, tolerance: float) -> None:
    for name in ("log_likelihood", "bias", "own", "pair", "residual"):
        a, b = getattr(one, name), getattr(other, name)
        assert (a is None) == (b is None), name
        if a is not None and a.size:
            assert np.abs(a - b).max() <= tolerance * max(1.0, np.abs(b).max()), name


SIZES = {
    "one bin, one neuron": ([1], 1, 0.5, {}),
    "63 bins, 7 neurons, warm-up": ([63], 7, 0.2, {"warmup": 9}),
    "empty trials, trials shorter than the filters": ([5, 0, 40, 1, 0, 3], 7, 0.3, {}),
    "no spikes": ([50], 3, 0.0, {}),
    "every bin a spike": ([70], 3, 1.0, {}),
    "counts, two blocks of targets": ([60, 150], 40, 0.2, {"counts": True, "warmup": 30}),
    "several stretches of rows": ([1100], 2, 0.05, {}),
    "wide blocks of many targets": ([30], 600, 0.05, {}),
}


@pytest.mark.parametrize("emission", ["poisson", "bernoulli"])
@pytest.mark.parametrize("form", ["own", "pair", "own and pair", "exponential own", "exponential pair", "exponential own and pair"])
@pytest.mark.parametrize("size", SIZES)
def test_equals_autograd_of_the_dense_likelihood(size: str, form: str, emission: str) -> None:
    lengths, n_neurons, rate, options = SIZES[size]
    if emission == "bernoulli" and options.get("counts"):
        options = {**options, "counts": False}
    events = make_events(lengths, n_neurons, rate, **options)
    random = Stream(2, "targets").numpy()
    targets = random.permutation(n_neurons)[: max(1, n_neurons - 2)]
    decay = np.exp(-1.0 / np.array([3.0, 12.0])) if "exponential" in form else None
    filters = make_filters(n_neurons, len(targets), 11, 6, decay, own="own" in form, pair="pair" in form)
    bias = -2.0 + 0.1 * random.standard_normal(len(targets))
    base = 0.3 * random.standard_normal((events.n_bins, len(targets))) if "and" in form else None
    span = range(events.n_bins)
    results = [
        likelihood_gradient(
            events, span, targets, bias, filters, base=None if base is None else base.copy(), emission=emission, backend=backend
        )
        for backend in ("numba", "reference")
    ]
    assert_close(*results, 1e-10)


@pytest.mark.parametrize("decay", [None, np.exp(-1.0 / np.array([3.0, 40.0]))], ids=["finite", "exponential"])
def test_spans_add_up_to_the_whole(decay: np.ndarray | None) -> None:
    events = make_events([700, 20, 600], 5, 0.1, warmup=25)
    targets = np.arange(5)
    filters = make_filters(5, 5, 30, 12, decay, own=True, pair=True)
    bias = np.full(5, -2.0)
    whole = likelihood_gradient(events, range(events.n_bins), targets, bias, filters)
    state = FilterState()
    edges = [0, 1, 333, 690, 705, 800, events.n_bins]
    parts = [
        likelihood_gradient(events, range(a, b), targets, bias, filters, state=state) for a, b in zip(edges[:-1], edges[1:], strict=True)
    ]
    for name in ("log_likelihood", "bias", "own", "pair"):
        total = sum(getattr(part, name) for part in parts)
        assert np.abs(total - getattr(whole, name)).max() < 1e-10 * np.abs(getattr(whole, name)).max(), name


def test_gradient_equals_finite_differences() -> None:
    events = make_events([300], 3, 0.2)
    targets = np.arange(3)
    filters = make_filters(3, 3, 8, 5, None, own=True, pair=True)
    bias = np.full(3, -1.5)
    gradient = likelihood_gradient(events, range(300), targets, bias, filters)
    step = 1e-5
    for pre, lag, post in [(0, 0, 1), (2, 4, 0), (1, 3, 1)]:
        values = []
        for side in (1, -1):
            pair = filters.pair.copy()
            pair[pre, lag, post] += side * step
            values.append(likelihood_gradient(events, range(300), targets, bias, SpikeFilters(filters.own, pair)).log_likelihood.sum())
        # central differences: error of order step^2 times the third derivative (about 1e2), plus rounding 1e-13 / step
        assert (values[0] - values[1]) / (2 * step) == pytest.approx(gradient.pair[pre, lag, post], abs=1e-6)


def test_threads_do_not_change_a_bit() -> None:
    events = make_events([2000], 70, 0.05)
    filters = make_filters(70, 70, 8, 5, None, own=True, pair=True)
    one, two = (likelihood_gradient(events, range(2000), np.arange(70), np.full(70, -3.0), filters, threads=n) for n in (1, 2))
    for name in ("log_likelihood", "bias", "own", "pair"):
        assert np.array_equal(getattr(one, name), getattr(two, name))


@pytest.mark.parametrize("emission", ["poisson", "bernoulli"])
def test_single_precision_stays_near_double(emission: str) -> None:
    events = make_events([20000], 10, 0.02)
    filters = make_filters(10, 10, 30, 20, None, own=True, pair=True)
    single, double = (
        likelihood_gradient(events, range(20000), np.arange(10), np.full(10, -4.0), filters, emission=emission, dtype=dtype)
        for dtype in ("float32", "float64")
    )
    # rounding of a float32 drive is 6e-8 of its size; sums of thousands of terms of one sign keep that relative error
    assert_close(single, double, 3e-6)
