"""Runaway activity: found by free runs, measured by the linear gain, and refitted."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fitspike.errors import InvalidInputError
from fitspike.kernels.coupled_drive import DriveFilters
from fitspike.models.base import DataInfo
from fitspike.models.coupled_glm import CoupledGLM
from fitspike.models.stability import linear_gain, mean_base
from fitspike.params import to_tensors
from fitspike.recording.recording import Recording
from fitspike.rng import Stream

sys.path.insert(0, str(Path(__file__).parent))
from glm_data import solve  # noqa: E402


def make_params(model: CoupledGLM, rate_hz: float, history: np.ndarray) -> dict[str, np.ndarray]:
    return {"bias": np.log([rate_hz * 1e-3]), "history": history[None], "dt_ms": np.ones(1)}


def test_exciting_history_is_unstable_and_inhibiting_is_not() -> None:
    model = CoupledGLM(history_ms=100.0, n_history=3)
    unstable = model.stability(make_params(model, 20.0, np.array([-2.0, 10.0, 60.0])))
    assert not unstable["is_stable"] and "runs away" in unstable["message"]
    assert unstable["runaway"].tolist() == [True]
    stable = model.stability(make_params(model, 20.0, np.array([-5.0, -1.0, 0.3])))
    assert stable["is_stable"] and stable["highest_rate_hz"] < 100


@pytest.mark.parametrize("value", [-np.inf, np.nan])
def test_infinite_filters_are_refused_by_free_runs(value: float) -> None:
    """Published filters have -inf at refractory lags. 0 times -inf is NaN at every lag, and no draw is below a drive of NaN."""
    model = CoupledGLM(history_ms=50.0, n_history=50, basis="boxes")
    history = np.zeros(50)
    history[:2] = value
    with pytest.raises(InvalidInputError, match="history of the coupled GLM.*-30"):
        model.stability(make_params(model, 100.0, history))
    trial = Recording.from_counts(np.zeros((1, 1000, 1), dtype=int), dt_ms=1.0).bin().chunk([0], 0, 1000)
    draws = torch.as_tensor(Stream(0, "draws").uniforms(1, range(1000), 1))
    with pytest.raises(InvalidInputError, match="history of the coupled GLM.*-30"):
        model.rollout(to_tensors(make_params(model, 100.0, history)), trial, uniforms=draws)
    history[:2] = -30.0
    run = model.rollout(to_tensors(make_params(model, 100.0, history)), trial, uniforms=draws)
    assert np.diff(np.flatnonzero(run.spikes[0, :, 0].numpy())).min() > 2


def test_linear_gain_is_the_spectral_radius_at_equilibrium() -> None:
    """One neuron: y = exp(b + w y) solved by hand; gain w y. Two neurons with one-way coupling: no loop, gain 0."""
    weight, equilibrium = 2.0, 0.3
    base = np.log([equilibrium]) - weight * equilibrium
    own = np.array([[0.5, 1.5]])
    assert linear_gain(base, DriveFilters(own=own), "poisson") == pytest.approx(weight * equilibrium, rel=1e-6)
    assert linear_gain(np.log([0.5]), DriveFilters(own=own), "poisson") == np.inf
    pair = np.zeros((2, 1, 2))
    pair[0, 0, 1] = 3.0
    assert linear_gain(np.log([0.1, 0.1]), DriveFilters(pair=pair), "poisson") == pytest.approx(0.0, abs=1e-9)


def test_time_bumps_count_by_the_mean_of_their_factors() -> None:
    """A neuron that fires only in one bump of one condition: against a mean over every bump and condition by plain loops."""
    model = CoupledGLM(history_ms=50.0, n_history=2, condition_time=True, trial_time=True, n_time_bumps=4, drift_bumps=3)
    random = np.random.Generator(np.random.Philox(2))
    info = DataInfo(2, 6, 5.0, np.full(6, 100), n_conditions=3)
    layout = model.layout(info)
    rows = 2.0 * random.standard_normal((2, layout.n_weights)) * layout.free
    params = layout.unpack(rows)
    for n in range(2):
        factors = [np.exp(params["trial_time"][n, i] + params["condition_time"][n, c, i]) for c in range(3) for i in range(4)]
        expected = params["bias"][n] + np.log(np.mean(factors)) + np.log(np.mean(np.exp(params["drift"][n])))
        assert mean_base(layout, rows)[n] == pytest.approx(expected, rel=1e-12)


def test_signals_that_are_not_standardised_do_not_hide_a_runaway() -> None:
    """A constant signal of 10 with weight 0.5 makes 20 Hz of a bias of -5 - log 50; without it the neuron would be silent and stable."""
    model = CoupledGLM(history_ms=100.0, n_history=3, standardise_signals=False, n_signal=1)
    params = make_params(model, 20.0 * np.exp(-5.0), np.array([-2.0, 10.0, 60.0]))
    params |= {"signal": np.full((1, 1, 1), 0.5), "signal_offset": np.zeros(1), "signal_scale": np.ones(1)}
    assert not model.stability(params, rates_hz=np.array([20.0]))["is_stable"]


@pytest.fixture(scope="module")
def bursts() -> Recording:
    """Quiet stretches and short dense bursts: the unpenalised history filter feeds on itself."""
    random = np.random.Generator(np.random.Philox(11))
    counts = np.zeros((1, 20000, 1), dtype=int)
    counts[0, :, 0] = random.random(20000) < 0.001
    for start in random.integers(0, 19900, 40):
        counts[0, start : start + 60, 0] |= random.random(60) < 0.5
    return Recording.from_counts(counts, dt_ms=1.0)


def test_runaway_fit_is_refitted_with_stronger_ridges(bursts: Recording) -> None:
    binned = bursts.bin()
    model = CoupledGLM(history_ms=100.0, n_history=5, ridge_history=0.0, trial_time=False)
    plain, warned = solve(replace(model, stabilise="warn"), binned)
    assert not warned.extras["is_stable"] and "runs away" in warned.message
    assert not model.stability(plain)["is_stable"]
    fitted, report = solve(model, binned)
    assert report.extras["is_stable"] and report.status == "CONVERGED"
    assert report.extras["n_refits"].tolist()[0] >= 1 and "stronger ridges" in report.message
    assert model.stability(fitted)["is_stable"]


def test_refitted_fit_resumes_bit_for_bit(bursts: Recording) -> None:
    binned = bursts.bin()
    model = CoupledGLM(history_ms=100.0, n_history=5, ridge_history=0.0, trial_time=False, standard_errors=False)
    stored: dict[int, dict] = {}

    def checkpoint(step: int, arrays: dict) -> None:
        stored[step] = {name: np.array(value) for name, value in arrays.items()}

    whole, report = solve(model, binned, checkpoint=checkpoint)
    for step in (3, report.n_steps - 2):
        resumed, again = solve(model, binned, resume=stored[step])
        assert again.n_steps == report.n_steps
        assert np.array_equal(resumed["history"], whole["history"])
