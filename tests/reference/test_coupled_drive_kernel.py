"""Drives of coupled neurons and their derivatives: fused against the plain loop, replay, chunks."""

from __future__ import annotations

import numpy as np
import pytest

from fitspike.kernels.coupled_drive import MAX_EXPECTED, DriveFilters, coupled_drive, coupled_drive_adjoint
from fitspike.kernels.filtered_counts import filtered_counts
from fitspike.kernels.point_process import Events
from fitspike.rng import Stream

DECAY = np.exp(-1.0 / np.array([2.0, 9.0]))


def make_filters(n: int, form: str) -> DriveFilters:
    random = Stream(0, "filters").numpy()
    lags = (7, 4, 5) if form == "finite" else (2, 2, 2)
    own, pair, shared = (0.3 * random.standard_normal(s) for s in ((n, lags[0]), (n, lags[1], n), (lags[2], n)))
    return DriveFilters(own - 0.5, pair, 0.1 * shared, DECAY if form == "exponential" else None)


def start(n_trials: int, n: int, filters: DriveFilters) -> dict[str, np.ndarray]:
    n_filters = 0 if filters.decay is None else len(filters.decay)
    past = Stream(3, "past").numpy().poisson(0.3, (n_trials, filters.n_lags, n))
    return {"past": past, "state": 0.1 * Stream(3, "state").numpy().standard_normal((n_trials, n_filters, n))}


@pytest.mark.parametrize("emission", ["poisson", "bernoulli"])
@pytest.mark.parametrize("form", ["finite", "exponential"])
@pytest.mark.parametrize(("n_trials", "n_bins", "n"), [(2, 63, 7), (1, 1, 1), (3, 20, 3)])
def test_fused_equals_plain_loop(n_trials: int, n_bins: int, n: int, form: str, emission: str) -> None:
    filters = make_filters(n, form)
    base = -1.5 + 0.2 * Stream(1, "base").numpy().standard_normal((n_trials, n_bins, n))
    draws = Stream(2, "draws").uniforms(n_trials, range(n_bins), n)
    observed = Stream(2, "observed").numpy().poisson(0.2, base.shape).clip(0, 1)
    clamped = np.arange(n) % 2 == 1
    for given, mask in ((None, None), (observed, clamped), (observed, np.ones(n, bool))):
        options = {"spikes": given, "clamped": mask, "uniforms": draws, "emission": emission, **start(n_trials, n, filters)}
        fused, plain = (coupled_drive(base, filters, backend=backend, **options) for backend in ("numba", "reference"))
        assert np.array_equal(fused.spikes, plain.spikes)
        # The order of summation differs. A free run that saturates has terms of thousands, and rounding goes with the largest.
        for one, other in ((fused.drive, plain.drive), (fused.state, plain.state)):
            assert np.allclose(one, other, rtol=0, atol=1e-12 * np.abs(other).max(initial=1.0))


@pytest.mark.parametrize("form", ["finite", "exponential"])
def test_adjoint_equals_autograd(form: str) -> None:
    filters = make_filters(5, form)
    random = Stream(4, "residual").numpy()
    residual, spikes = random.standard_normal((2, 30, 5)), random.poisson(0.4, (2, 30, 5))
    past = start(2, 5, filters)["past"]
    (fused, fused_state), (plain, plain_state) = (
        coupled_drive_adjoint(residual, filters, past=past, spikes=spikes, backend=backend) for backend in ("numba", "reference")
    )
    for name in ("own", "pair", "shared"):
        assert np.allclose(getattr(fused, name), getattr(plain, name), rtol=0, atol=1e-12)
    assert np.allclose(fused_state, plain_state, rtol=0, atol=1e-12)


@pytest.mark.parametrize("form", ["finite", "exponential"])
@pytest.mark.parametrize("chunk", [1, 7, 100])
def test_free_run_does_not_depend_on_chunks_and_replays_bit_for_bit(form: str, chunk: int) -> None:
    n_bins, n = 100, 6
    filters = make_filters(n, form)
    base = np.full((2, n_bins, n), -1.5)
    draws = Stream(5, "draws").uniforms(2, range(n_bins), n)
    whole = coupled_drive(base, filters, uniforms=draws, **start(2, n, filters))
    carry = start(2, n, filters)
    drives, spikes = [], []
    for first in range(0, n_bins, chunk):
        bins = slice(first, first + chunk)
        part = coupled_drive(base[:, bins], filters, uniforms=draws[:, bins], **carry)
        past = np.concatenate([carry["past"], part.spikes], axis=1)
        carry = {"past": past[:, past.shape[1] - filters.n_lags :], "state": part.state}
        drives.append(part.drive)
        spikes.append(part.spikes)
    assert whole.spikes.sum() > 50
    assert np.array_equal(np.concatenate(spikes, axis=1), whole.spikes)
    assert np.array_equal(np.concatenate(drives, axis=1), whole.drive)
    replay = coupled_drive(base, filters, spikes=whole.spikes, uniforms=draws, **start(2, n, filters))
    assert np.array_equal(replay.drive, whole.drive)


@pytest.mark.parametrize("form", ["finite", "exponential"])
def test_filtered_counts_equal_the_sum_over_lags(form: str) -> None:
    random = Stream(6, "counts").numpy()
    counts = random.poisson(0.3, (90, 4))
    bins, neuron = np.nonzero(counts)
    pointer = np.concatenate([[0], np.cumsum(np.bincount(bins, minlength=90))]).astype(np.int64)
    edge = np.array([0, 50, 50, 90])
    events = Events(pointer, neuron.astype(np.uint16), counts[bins, neuron].astype(np.uint16), edge, edge[:-1], 4)
    basis = random.random((3, 6)) if form == "finite" else random.random(2)
    decay = None if form == "finite" else np.array([0.5, 0.95])
    for span in (range(90), range(41, 70), np.array([89, 0, 50, 49, 60])):
        fused, plain = (filtered_counts(events, span, basis, decay=decay, backend=b) for b in ("numba", "reference"))
        assert np.allclose(fused, plain, rtol=0, atol=1e-13)


def test_fading_filtered_counts_end_in_zeros_not_in_denormal_numbers() -> None:
    pointer = np.concatenate([[0], np.ones(4000)]).astype(np.int64)  # one spike in the first of 4000 bins
    events = Events(pointer, np.zeros(1, np.uint16), None, np.array([0, 4000]), np.array([0]), 1)
    gain, decay = np.array([0.1, 0.05]), np.array([0.9, 0.95])
    traces = filtered_counts(events, range(4000), gain, decay=decay, dtype="float32", backend="numba")[:, 0]
    assert np.abs(traces[traces != 0]).min() > 1e-20 > np.finfo(np.float32).tiny
    exact = np.concatenate([np.zeros((1, 2)), gain * decay ** np.arange(3999)[:, None]])
    assert np.abs(traces - exact).max() < 1e-8  # single precision
    assert (traces[-1] == 0).all()


@pytest.mark.parametrize("backend", ["numba", "reference"])
def test_large_counts_of_wide_bins_are_sampled_as_asked(backend: str) -> None:
    base = np.log(np.full((1, 400, 2), 150.0))
    options = {"past": np.zeros((1, 1, 2)), "state": np.zeros((1, 0, 2)), "emission": "poisson", "backend": backend}
    filters = DriveFilters(own=np.zeros((2, 1)))
    free = coupled_drive(base, filters, uniforms=Stream(5, "draws").uniforms(1, range(400), 2), **options)
    # five standard errors of a mean of 400 counts of variance 150
    assert (np.abs(free.spikes.mean(axis=(0, 1)) - 150.0) < 5 * np.sqrt(150 / 400)).all()
    replay = coupled_drive(base, filters, spikes=free.spikes, **options)
    np.testing.assert_array_equal(replay.drive, free.drive)


@pytest.mark.parametrize("backend", ["numba", "reference"])
def test_a_replay_with_uniforms_saturates_as_the_free_run_did(backend: str) -> None:
    base = np.full((1, 3, 2), np.log(MAX_EXPECTED) + 2.0)
    options = {"past": np.zeros((1, 0, 2)), "state": np.zeros((1, 0, 2)), "backend": backend}
    draws = Stream(6, "draws").uniforms(1, range(3), 2)
    free = coupled_drive(base, DriveFilters(), uniforms=draws, **options)
    replay = coupled_drive(base, DriveFilters(), spikes=free.spikes, uniforms=draws, **options)
    assert np.array_equal(replay.drive, free.drive) and (free.drive == np.log(MAX_EXPECTED)).all()
