"""The ceiling and the slow gain: by hand on five bins, fused against the plain loop, replay, chunks, gradient."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fitspike.kernels.coupled_drive import DriveFilters, Regulation, coupled_drive
from fitspike.models.base import SolverContext
from fitspike.models.coupled_glm import CoupledGLM
from fitspike.params import initial_params
from fitspike.recording.recording import Recording
from fitspike.rng import Stream

DECAY = np.exp(-1.0 / np.array([2.0, 9.0]))


def filters_of(n: int, form: str) -> DriveFilters:
    random = Stream(0, "filters").numpy()
    n_lags = 2 if form == "exponential" else 6
    own, pair = 0.2 * random.standard_normal((n, n_lags)), 0.2 * random.standard_normal((n, n_lags, n))
    return DriveFilters(own, pair, None, DECAY if form == "exponential" else None)


def start(n_trials: int, n: int, form: str) -> dict[str, np.ndarray]:
    return {"past": np.zeros((n_trials, 6 if form == "finite" else 0, n)), "state": np.zeros((n_trials, 2 * (form == "exponential"), n))}


def test_five_bins_by_hand() -> None:
    counts = np.array([0.0, 2.0, 0.0, 1.0, 0.0])
    regulation = Regulation(np.array([-1.0]), fade=0.5, prior=2.0, limit=0.3)
    run = coupled_drive(
        np.array([-2.0, 0.5, -2.0, -2.0, -2.0])[None, :, None],
        DriveFilters(),
        past=np.zeros((1, 0, 1)),
        state=np.zeros((1, 0, 1)),
        spikes=counts[None, :, None],
        regulation=regulation,
    )
    e2, e1 = np.exp(-2.0), np.exp(-1.0)
    counted = [0.0, 0.0, 1.0, 0.5, 0.75]
    expected = [0.0, 0.5 * e2, 0.25 * e2 + 0.5 * e1, 0.625 * e2 + 0.25 * e1, 0.8125 * e2 + 0.125 * e1]
    low = [-2.0, -1.0, -2.0, -2.0, -2.0]
    gain = [np.clip(np.log((2.0 + y) / (2.0 + e)), -0.3, 0.3) for y, e in zip(counted, expected, strict=True)]
    assert gain[2] == 0.3 and 0.0 < gain[3] < 0.3  # one at its limit, one within
    np.testing.assert_allclose(run.drive[0, :, 0], np.add(low, gain), rtol=0, atol=1e-14)


@pytest.mark.parametrize("emission", ["poisson", "bernoulli"])
@pytest.mark.parametrize("form", ["finite", "exponential"])
@pytest.mark.parametrize("fade", [0.0, 0.97])
def test_fused_equals_plain_loop(form: str, emission: str, fade: float) -> None:
    n = 4
    regulation = Regulation(np.linspace(-1.5, 0.0, n), fade, 2.0, 1.0)
    options = {"uniforms": Stream(1, "draws").uniforms(2, range(120), n), "emission": emission, "regulation": regulation}
    base = np.full((2, 120, n), -1.2)
    fused, plain = (
        coupled_drive(base, filters_of(n, form), **start(2, n, form), **options, backend=backend) for backend in ("numba", "reference")
    )
    assert fused.spikes.sum() > 50
    assert np.array_equal(fused.spikes, plain.spikes)
    np.testing.assert_allclose(fused.drive, plain.drive, rtol=0, atol=1e-12)


@pytest.mark.parametrize("form", ["finite", "exponential"])
@pytest.mark.parametrize("chunk", [1, 7, 100])
def test_free_run_does_not_depend_on_chunks_and_replays_bit_for_bit(form: str, chunk: int) -> None:
    n, n_bins = 5, 100
    filters, regulation = filters_of(n, form), Regulation(np.full(n, -0.5), 0.95, 3.0, 1.0)
    base, draws = np.full((2, n_bins, n), -1.2), Stream(2, "draws").uniforms(2, range(n_bins), n)
    whole = coupled_drive(base, filters, uniforms=draws, regulation=regulation, **start(2, n, form))
    carry, drives = {**start(2, n, form), "sums": None}, []
    for first in range(0, n_bins, chunk):
        bins = slice(first, first + chunk)
        part = coupled_drive(base[:, bins], filters, uniforms=draws[:, bins], regulation=regulation, **carry)
        past = np.concatenate([carry["past"], part.spikes], axis=1)
        carry = {"past": past[:, past.shape[1] - filters.n_lags :], "state": part.state, "sums": part.sums}
        drives.append(part.drive)
    assert np.array_equal(np.concatenate(drives, axis=1), whole.drive)
    replay = coupled_drive(base, filters, spikes=whole.spikes, regulation=regulation, **start(2, n, form))
    assert np.array_equal(replay.drive, whole.drive)


def fitted(**settings) -> tuple[CoupledGLM, dict[str, torch.Tensor], Recording]:
    random = np.random.default_rng(3)
    rate = 0.15 * np.where(np.arange(1500) < 700, 1.0, 3.0)[:, None] * np.ones(3)
    recording = Recording.from_counts(random.poisson(rate), dt_ms=10.0)
    model = CoupledGLM(history_ms=50.0, coupling_ms=50.0, n_history=2, n_coupling=2, **settings)
    binned = recording.bin()
    init = initial_params(model.param_specs(binned.info()), Stream(0, "init"))
    params, _ = model.solve(binned, SolverContext(init=init, stream=Stream(0, "solve")))
    return model, {name: torch.as_tensor(value) for name, value in params.items()}, recording


def test_fit_keeps_the_quantile_of_the_drives_it_was_trained_on() -> None:
    plain, free, recording = fitted()
    model, params, _ = fitted(ceiling=0.9)
    chunk = next(iter(recording.bin().chunks(10_000)))
    unbounded = plain.intensity(free, chunk)[0].log()[0].detach().numpy()
    np.testing.assert_allclose(params["drive_ceiling"], np.quantile(unbounded, 0.9, axis=0), rtol=1e-5)  # drives come in float32
    bounded = model.intensity(params, chunk)[0].log()[0].detach().numpy()
    np.testing.assert_allclose(bounded, np.minimum(unbounded, params["drive_ceiling"].numpy()), atol=1e-6)


def test_slow_gain_predicts_a_rate_that_stepped_up() -> None:
    plain, free, recording = fitted()
    model, params, _ = fitted(gain_s=1.0)
    chunk = next(iter(recording.bin().chunks(10_000)))
    gained = (model.log_likelihood(params, chunk)[0] - plain.log_likelihood(free, chunk)[0]).sum()
    assert gained > 20.0  # nats, of about 1200 spikes whose rate triples half way


@pytest.mark.parametrize("emission", ["poisson", "bernoulli"])
def test_gradient_equals_finite_differences(emission: str) -> None:
    model = CoupledGLM(history_ms=50.0, coupling_ms=50.0, n_history=2, n_coupling=2, gain_s=0.3, gain_spikes=2.0, emission=emission)
    binned = Recording.from_counts(np.random.default_rng(5).binomial(1, 0.2, (60, 3)), dt_ms=10.0).bin()
    chunk = next(iter(binned.chunks(60)))
    specs = model.param_specs(binned.info())
    params = {name: torch.as_tensor(np.asarray(value, float)) for name, value in initial_params(specs, Stream(0, "init")).items()}
    params["coupling"] = torch.as_tensor(0.5 * Stream(1, "w").numpy().standard_normal(params["coupling"].shape))
    params["drive_ceiling"] = torch.full((3,), -1.3, dtype=torch.float64)
    leaf = params["bias"].clone().requires_grad_(True)
    model.log_likelihood({**params, "bias": leaf}, chunk)[0].sum().backward()
    step = 1e-6
    for i in range(3):
        moved = [model.log_likelihood({**params, "bias": params["bias"] + s * torch.eye(3)[i]}, chunk)[0].sum() for s in (step, -step)]
        assert abs(float(moved[0] - moved[1]) / (2 * step) - float(leaf.grad[i])) < 1e-6 * max(1.0, abs(float(leaf.grad[i])))


@pytest.mark.parametrize("n_bins", [100, 1000])
def test_log_likelihood_does_not_depend_on_chunk_size_nor_on_the_carry(n_bins: int) -> None:
    model, params, recording = fitted(gain_s=0.5, ceiling=0.95)
    binned = recording.bin()
    whole = model.log_likelihood(params, next(iter(binned.chunks(1500))))[0]
    carry, handed, alone = None, 0.0, 0.0
    for chunk in binned.chunks(n_bins, carry=True):
        nats, carry = model.log_likelihood(params, chunk, carry)
        handed = handed + nats
        alone = alone + model.log_likelihood(params, chunk)[0]
    torch.testing.assert_close(handed, whole, rtol=1e-9, atol=0)
    torch.testing.assert_close(alone, whole, rtol=1e-9, atol=0)


def test_a_ceiling_holds_a_runaway_network() -> None:
    n = 3
    filters = DriveFilters(np.full((n, 5), 1.0), np.full((n, 5, n), 1.0))
    options = {"past": np.zeros((4, 5, n)), "state": np.zeros((4, 0, n)), "uniforms": Stream(4, "draws").uniforms(4, range(500), n)}
    away = coupled_drive(np.full((4, 500, n), -2.0), filters, **options)
    held = coupled_drive(np.full((4, 500, n), -2.0), filters, **options, regulation=Regulation(np.full(n, -1.5)))
    assert away.spikes[:, -100:].mean() > 50.0  # positive control
    assert held.spikes[:, -100:].mean() < 0.3
