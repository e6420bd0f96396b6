"""The coupled GLM as a model: likelihood on chunks, gradients, runs, covariates, settings, resumed fits."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fitspike.errors import InvalidInputError
from fitspike.models import base
from fitspike.models.bases import lag_basis, raised_cosine_linear
from fitspike.models.coupled_glm import CoupledGLM
from fitspike.models.glm_covariates import bin_covariates, fixed_numbers
from fitspike.models.glm_problem import Problem
from fitspike.params import to_tensors
from fitspike.recording.tables import Signal
from fitspike.rng import Stream

sys.path.insert(0, str(Path(__file__).parent))
from glm_data import DT_MS, dense_design, recording, simulated_counts, solve  # noqa: E402

FULL = CoupledGLM(
    history_ms=40.0,
    n_history=3,
    coupling_ms=30.0,
    n_coupling=2,
    population_ms=50.0,
    n_population=2,
    condition_time=True,
    trial_time=True,
    n_time_bumps=4,
    drift_bumps=3,
    signal_before_ms=30.0,
    signal_after_ms=20.0,
    n_signal=3,
)
EXPONENTIAL = replace(FULL, basis="exponential", history_ms=40.0, coupling_ms=40.0, population_ms=40.0, n_history=2)


def make_problem(model: CoupledGLM, *, binary: bool = False):
    counts = simulated_counts(6, 70, 4, binary=binary)
    binned = recording(counts, with_signal=True, conditions=list("abaabb")).bin()
    layout = model.layout(binned.info())
    fixed = fixed_numbers(layout, binned)
    rows = 0.2 * Stream(1, "rows").numpy().standard_normal((4, layout.n_weights)) * layout.free
    rows[:, 0] = -2.0
    return binned, layout, fixed, rows


@pytest.mark.parametrize("emission", ["poisson", "bernoulli"])
@pytest.mark.parametrize("model", [FULL, EXPONENTIAL], ids=["raised-cosine", "exponential"])
def test_event_driven_gradient_equals_autograd_through_the_likelihood(model: CoupledGLM, emission: str) -> None:
    model = replace(model, emission=emission)
    binned, layout, fixed, rows = make_problem(model, binary=emission == "bernoulli")
    problem = Problem(layout, fixed, binned)
    objective, gradient = problem.evaluate(rows, np.arange(4))
    parts_objective, parts_gradient, _ = problem.newton_parts(rows, np.arange(4))
    params = to_tensors({**layout.unpack(rows), **fixed})
    for name in layout.terms:
        params[name].requires_grad_(True)
    total = torch.zeros(4, dtype=torch.float64)
    for chunk in binned.chunks(1000, batch_trials=6):
        total = total + model.log_likelihood(params, chunk)[0].sum(0)
    slopes = torch.autograd.grad(total.sum(), [params[name] for name in layout.terms])
    autograd = layout.pack({name: slope.numpy() for name, slope in zip(layout.terms, slopes, strict=True)})
    penalty = problem.ridge * rows
    assert np.abs((gradient - penalty) * layout.free + autograd * layout.free).max() < 1e-10 * np.abs(autograd).max()
    assert np.abs((gradient - parts_gradient) * layout.free).max() < 1e-10 * np.abs(gradient).max()
    value = objective - 0.5 * (penalty * rows).sum(1) + problem.log_factorials
    assert np.abs(value + total.detach().numpy()).max() < 1e-9
    assert np.abs(objective - parts_objective).max() < 1e-9


def test_many_trials_look_their_time_bumps_up_in_a_table() -> None:
    """With many trials per condition the passes use a table of bumps; the design used for Hessians and autograd must agree with it."""
    binned = recording(simulated_counts(16, 40, 2), with_signal=True, conditions=["a", "b", "", "a"] * 4).bin()
    layout = FULL.layout(binned.info())
    fixed = fixed_numbers(layout, binned)
    problem = Problem(layout, fixed, binned)
    assert problem.shared.n_dense < layout.n_covariates
    rows = 0.2 * Stream(1, "rows").numpy().standard_normal((2, layout.n_weights)) * layout.free
    by_pass, by_design = problem.evaluate(rows, np.arange(2)), problem.newton_parts(rows, np.arange(2))
    assert np.allclose(by_pass[0], by_design[0], rtol=1e-12)
    assert np.abs((by_pass[1] - by_design[1]) * layout.free).max() < 1e-10 * np.abs(by_design[1]).max()
    value, _ = FULL.log_likelihood(to_tensors({**layout.unpack(rows), **fixed}), binned.chunk(np.arange(16), 0, 40))
    penalty = 0.5 * (problem.ridge * rows**2).sum(1)
    assert np.allclose(problem.log_factorials + by_pass[0] - penalty, -value.sum(0).numpy(), rtol=1e-10)


@pytest.mark.parametrize("model", [FULL, EXPONENTIAL], ids=["raised-cosine", "exponential"])
def test_log_likelihood_does_not_depend_on_chunks(model: CoupledGLM) -> None:
    """Signals reach back and ahead over chunk borders; without carry, the spikes before a chunk are read from the recording."""
    binned, layout, fixed, rows = make_problem(model)
    params = to_tensors({**layout.unpack(rows), **fixed})
    totals = []
    for n_bins, batch, with_carry in ((1000, 6, True), (7, 4, True), (1, 6, True), (13, 1, False)):
        total, carry = 0.0, None
        for chunk in binned.chunks(n_bins, batch_trials=batch, carry=True):
            value, carry = model.log_likelihood(params, chunk, None if chunk.is_first or not with_carry else carry)
            total = total + value.sum(0)
        totals.append(total.numpy())
    for other in totals[1:]:
        assert np.abs(other / totals[0] - 1.0).max() < 1e-11


def test_likelihood_equals_a_design_matrix_built_by_loops() -> None:
    counts = simulated_counts(1, 120, 3)
    binned = recording(counts).bin()
    model = CoupledGLM(history_ms=40.0, n_history=3, coupling_ms=30.0, n_coupling=2)
    layout = model.layout(binned.info())
    rows = 0.3 * Stream(0, "rows").numpy().standard_normal((3, layout.n_weights)) * layout.free
    params = layout.unpack(rows)
    chunk = binned.chunk([0], 0, 120)
    value, _ = model.log_likelihood(to_tensors({**params, "dt_ms": np.array([DT_MS])}), chunk)
    for n in range(3):
        design = dense_design(counts[0], n, layout.history.values, layout.coupling.values)
        weights = np.concatenate([params["history"][n], params["coupling"][n, np.arange(3) != n].ravel()])
        drive = params["bias"][n] + design @ weights
        by_hand = (counts[0, :, n] * drive - np.exp(drive)).sum() - np.log(np.maximum(counts[0, :, n], 1)).sum()
        assert counts.max() <= 2  # so log(count!) = log(max(count, 1))
        assert value[0, n].item() == pytest.approx(by_hand, rel=1e-12)


def test_population_covariate_leaves_out_the_target() -> None:
    counts = np.zeros((1, 30, 3), dtype=int)
    counts[0, 5, 0] = counts[0, 10, 1] = 1
    binned = recording(counts).bin()
    model = CoupledGLM(history_ms=0.0, coupling_ms=0.0, population_ms=50.0, n_population=1, trial_time=False)
    layout = model.layout(binned.info())
    params = {"bias": np.zeros(3), "population": np.ones((3, 1)), "population_scale": np.ones(1), "dt_ms": np.array([DT_MS])}
    rate, _ = model.intensity(to_tensors(params), binned.chunk([0], 0, 30))
    drive = np.log(rate[0].numpy())
    basis = layout.population.values[0]
    after = np.zeros((30, 2))  # what the spikes at bins 5 and 10 leave
    after[6:16, 0], after[11:21, 1] = basis, basis
    assert np.allclose(drive[:, 0], after[:, 1], atol=1e-12)
    assert np.allclose(drive[:, 1], after[:, 0], atol=1e-12)
    assert np.allclose(drive[:, 2], after.sum(1), atol=1e-12)


def test_signal_filter_looks_back_and_ahead() -> None:
    counts = simulated_counts(1, 50, 1)
    rec = recording(counts, with_signal=True)
    binned = rec.bin()
    model = CoupledGLM(history_ms=0.0, trial_time=False, signal_before_ms=10.0, signal_after_ms=5.0, n_signal=4, standardise_signals=False)
    layout = model.layout(binned.info())
    columns = bin_covariates(layout, fixed_numbers(layout, binned), binned, 0, 50).reshape(50, 2, 4)
    basis = raised_cosine_linear(4, np.linspace(0, 1, 4))
    basis /= basis.sum(axis=1, keepdims=True)
    signal = np.asarray(binned.signals["light"], dtype=np.float64)
    for t in (0, 1, 20, 49):
        for c in range(2):
            by_hand = sum(basis[:, i] * signal[np.clip(t - lag, 0, 49), c] for i, lag in enumerate((-1, 0, 1, 2)))
            assert np.allclose(columns[t, c], by_hand, rtol=1e-6)


@pytest.mark.parametrize("value", [0.0, 0.1, 7.7, 1e6 + 0.1, -3.3e-5])
def test_a_constant_signal_is_not_divided_by_its_rounding_error(value: float) -> None:
    """The standard deviation of 7.7 a thousand times over is 9e-16, and 8 would then be 3e14 standard deviations away."""
    binned = recording(simulated_counts(1, 1999, 2)).attach(signals={"lamp": Signal(np.full((1999, 1), value), 200.0)}).bin()
    layout = CoupledGLM(history_ms=0.0, coupling_ms=0.0).layout(binned.info())
    fixed = fixed_numbers(layout, binned)
    assert fixed["signal_scale"].tolist() == [1.0]
    assert fixed["signal_offset"][0] == pytest.approx(value, rel=1e-12)


def test_condition_bumps_are_found_by_name() -> None:
    """A test set that holds only condition b numbers it 0; its bins must still get the weights of b."""
    counts = simulated_counts(4, 40, 1)
    binned = recording(counts, conditions=list("abab")).bin()
    model = CoupledGLM(history_ms=0.0, trial_time=False, condition_time=True, n_time_bumps=2)
    layout = model.layout(binned.info())
    params = {
        "bias": np.zeros(1),
        "condition_time": np.array([[[0.0, 0.0], [1.0, 2.0]]]),
        **fixed_numbers(layout, binned),
    }
    only_b = recording(counts[[1, 3]], conditions=["b", "b"]).bin()
    assert only_b.conditions.tolist() == [0, 0]
    rate, _ = model.intensity(to_tensors(params), only_b.chunk([0], 0, 40))
    whole, _ = model.intensity(to_tensors(params), binned.chunk([1], 0, 40))
    assert torch.equal(rate, whole)
    assert 1.0 < rate[0, 0, 0].log() < 1.1 and 1.9 < rate[0, -1, 0].log() < 2.0
    unseen = recording(counts[:1], conditions=["c"]).bin()
    assert np.allclose(model.intensity(to_tensors(params), unseen.chunk([0], 0, 40))[0], 1.0)


@pytest.mark.parametrize("model", [FULL, EXPONENTIAL], ids=["raised-cosine", "exponential"])
def test_free_run_replays_and_does_not_depend_on_chunks(model: CoupledGLM) -> None:
    binned, layout, fixed, rows = make_problem(model)
    params = to_tensors({**layout.unpack(rows), **fixed})
    draws = torch.as_tensor(Stream(4, "draws").uniforms(6, range(70), 4))
    whole = model.rollout(params, binned.chunk(np.arange(6), 0, 70), uniforms=draws)
    replay = model.rollout(params, binned.chunk(np.arange(6), 0, 70), uniforms=draws, observed=whole.spikes)
    assert (replay.log_prob - whole.log_prob).abs().max() == 0
    carry, parts = None, []
    for chunk in binned.chunks(9, batch_trials=6, carry=True):
        part = model.rollout(params, chunk, uniforms=draws[:, chunk.first_bin : chunk.first_bin + chunk.n_bins], carry=carry)
        carry = part.carry
        parts.append(part.spikes)
    assert torch.equal(torch.cat(parts, dim=1), whole.spikes)
    mask = torch.tensor([True, False, True, False])
    mixed = model.rollout(params, binned.chunk(np.arange(6), 0, 70), uniforms=draws, observed=whole.spikes, observed_mask=mask)
    assert torch.equal(mixed.spikes, whole.spikes)


def test_clamped_run_has_the_likelihood_of_the_data() -> None:
    binned, layout, fixed, rows = make_problem(FULL)
    params = to_tensors({**layout.unpack(rows), **fixed})
    chunk = binned.chunk(np.arange(6), 0, 70)
    draws = torch.as_tensor(Stream(4, "draws").uniforms(6, range(70), 4))
    run = FULL.rollout(params, chunk, uniforms=draws, observed=chunk.dense("float64"))
    value, _ = FULL.log_likelihood(params, chunk)
    assert torch.allclose(run.log_prob, value, rtol=1e-12)


@pytest.mark.parametrize("solver", ["lbfgs", "newton", "proximal"])
def test_resumed_fit_is_bit_for_bit_the_uninterrupted_one(solver: str) -> None:
    binned = recording(simulated_counts(1, 500, 3)).bin()
    model = CoupledGLM(
        solver=solver, history_ms=40.0, n_history=3, coupling_ms=30.0, n_coupling=2, penalty="l1" if solver == "proximal" else "l2"
    )
    model = replace(model, sparsity_coupling=2.0)
    stored: dict[int, dict] = {}

    def checkpoint(step: int, arrays: dict) -> None:
        stored[step] = {name: np.array(value) for name, value in arrays.items()}

    whole, report = solve(model, binned, checkpoint=checkpoint)
    assert report.status == "CONVERGED" and report.n_steps >= 3
    for step in (1, report.n_steps - 1, report.n_steps):
        resumed, again = solve(model, binned, resume=stored[step])
        assert again.n_steps == report.n_steps
        for name in whole:
            assert np.array_equal(whole[name], resumed[name]), name
    stopped, early = solve(model, binned, max_steps=2)
    assert early.status == "STEP_LIMIT" and early.n_steps == 2
    assert not np.array_equal(stopped["bias"], whole["bias"])


def test_interrupt_and_deadline_return_what_there_is() -> None:
    binned = recording(simulated_counts(1, 500, 3)).bin()
    model = CoupledGLM(history_ms=40.0, n_history=3, coupling_ms=0.0)

    def interrupt(step: int, metrics: dict) -> None:
        if step == 2:
            raise KeyboardInterrupt

    assert solve(model, binned, report=interrupt)[1].status == "INTERRUPTED"
    assert solve(model, binned, deadline_s=0.0)[1].status == "TIME_LIMIT"


def test_solver_stands_for_the_protocols() -> None:
    assert isinstance(CoupledGLM(), base.Model)
    assert isinstance(CoupledGLM(), base.HasSolver)
    assert isinstance(CoupledGLM(), base.HasIntensity)
    assert isinstance(CoupledGLM(), base.HasStability)


def test_wrong_settings_are_reported_together() -> None:
    with pytest.raises(InvalidInputError, match="2 problems") as caught:
        CoupledGLM(basis="raised-cosin", ridge_history=-1.0)
    assert "did you mean 'raised-cosine'" in str(caught.value)
    binned = recording(simulated_counts(1, 50, 2)).bin()
    with pytest.raises(InvalidInputError, match="one number or one per neuron"):
        CoupledGLM(ridge_history=(1.0, 2.0, 3.0)).param_specs(binned.info())
    with pytest.raises(InvalidInputError, match="population label"):
        CoupledGLM(dale=True).param_specs(binned.info())
    with pytest.raises(InvalidInputError, match="functions in a window of 2 bins"):
        CoupledGLM(history_ms=10.0).param_specs(binned.info())


def test_other_bins_or_signals_than_fitted_are_refused() -> None:
    binned, layout, fixed, rows = make_problem(FULL)
    params = to_tensors({**layout.unpack(rows), **fixed})
    rec = recording(simulated_counts(6, 70, 4), with_signal=True, conditions=list("abaabb"))
    with pytest.raises(InvalidInputError, match="fitted to bins of 5 ms"):
        FULL.log_likelihood(params, rec.bin(10.0).chunk([0], 0, 10))
    with pytest.raises(InvalidInputError, match="Attach the same signals"):
        FULL.log_likelihood(params, recording(simulated_counts(6, 70, 4)).bin().chunk([0], 0, 10))


@pytest.mark.parametrize("kind", ["raised-cosine", "raised-cosine-linear", "boxes"])
@pytest.mark.parametrize(("n_basis", "window_ms"), [(1, 1.0), (5, 5.0), (5, 200.0), (8, 50.0)])
def test_lag_bases_sum_to_one_and_are_independent(kind: str, n_basis: int, window_ms: float) -> None:
    values = lag_basis(kind, n_basis, window_ms, 1.0).values
    assert values.shape == (n_basis, round(window_ms))
    assert np.allclose(values.sum(axis=1), 1.0)
    assert np.linalg.matrix_rank(values) == n_basis
    assert (values >= 0).all()


def test_exponential_basis_has_its_time_constants() -> None:
    basis = lag_basis("exponential", 2, 60.0, 1.0)
    assert np.allclose(-1.0 / np.log(basis.decay), [5.0, 20.0])
    assert np.allclose(basis.at_lags(2000).sum(axis=1), 1.0)


def test_log_raised_cosine_is_the_formula() -> None:
    values = lag_basis("raised-cosine", 2, 4.0, 1.0).values
    x = np.log(np.arange(1, 5) + 1.0)
    spacing = (np.log(6.0) - np.log(2.0)) / 3
    by_hand = np.array(
        [[0.5 + 0.5 * np.cos(np.clip(np.pi * (v - np.log(2.0) - j * spacing) / (2 * spacing), -np.pi, np.pi)) for v in x] for j in (0, 1)]
    )
    assert np.allclose(values, by_hand / by_hand.sum(axis=1, keepdims=True))
