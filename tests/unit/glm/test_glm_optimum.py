"""The fitted optimum against scikit-learn, statsmodels and scipy on a design matrix built by hand."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import minimize

from fitspike.models.base import SolverContext
from fitspike.models.coupled_glm import CoupledGLM
from fitspike.params import initial_params
from fitspike.rng import Stream

sys.path.insert(0, str(Path(__file__).parent))
from glm_data import dense_design, recording, simulated_counts, solve  # noqa: E402

MODEL = CoupledGLM(
    emission="poisson",
    history_ms=50.0,
    n_history=3,
    coupling_ms=30.0,
    n_coupling=2,
    trial_time=False,
    condition_time=False,
    tolerance=1e-14,
)


def row(params, target: int) -> np.ndarray:
    """Return a target's weights in the order of `dense_design`."""
    others = np.arange(len(params["bias"])) != target
    return np.concatenate([params["history"][target], params["coupling"][target, others].ravel()])


@pytest.fixture(scope="module")
def data():
    counts = simulated_counts(2, 600, 4)
    binned = recording(counts).bin()
    layout = MODEL.layout(binned.info())
    designs = [
        np.concatenate([dense_design(trial, n, layout.history.values, layout.coupling.values) for trial in counts]) for n in range(4)
    ]
    return binned, counts.reshape(-1, 4), designs


@pytest.mark.parametrize("solver", ["newton", "lbfgs", "proximal"])
def test_poisson_ridge_optimum_equals_scikit_learn(data, solver: str) -> None:
    from sklearn.linear_model import PoissonRegressor

    binned, counts, designs = data
    ridge = 2.5
    model = replace(MODEL, solver=solver, precision="float64", ridge_history=ridge, ridge_coupling=ridge)
    params, report = solve(model, binned)
    assert report.status == "CONVERGED"
    for n, design in enumerate(designs):
        # scikit-learn minimises the mean of rate - count * log(rate), plus alpha / 2 times the squared weights
        other = PoissonRegressor(alpha=ridge / len(design), tol=1e-12, max_iter=10000, solver="newton-cholesky").fit(design, counts[:, n])
        assert params["bias"][n] == pytest.approx(other.intercept_, abs=1e-6)
        assert np.abs(row(params, n) - other.coef_).max() < 1e-6


@pytest.mark.parametrize(
    ("solver", "precision"), [("newton", "float64"), ("lbfgs", "float64"), ("lbfgs", "float32"), ("proximal", "float64")]
)
def test_a_tolerance_below_rounding_ends(data, solver: str, precision: str) -> None:
    binned, _, _ = data
    model = replace(MODEL, solver=solver, precision=precision, ridge_history=1.0, ridge_coupling=1.0)
    exact, _ = solve(replace(model, solver="newton", precision="float64"), binned)
    params, report = solve(replace(model, tolerance=0.0), binned, max_steps=500)
    assert report.status == "CONVERGED"
    tolerance = 1e-6 if precision == "float64" else 1e-4  # the exact one is good to 1e-7
    assert np.abs(params["coupling"] - exact["coupling"]).max() < tolerance


def test_a_newton_step_whose_hessian_overflows_is_shortened() -> None:
    """From far too low a rate the full step goes where exp(drive) times squared counts is beyond double precision."""
    random = np.random.Generator(np.random.Philox(4))
    counts = random.poisson(0.1, (1, 3000, 2))
    counts[0, 1000:1100, 0] = random.poisson(100, 100)
    binned = recording(counts).bin()
    model = replace(MODEL, ridge_history=1.0, ridge_coupling=1.0, solver="newton", stabilise="off")
    params, _ = solve(model, binned)
    init = {**initial_params(model.param_specs(binned.info()), Stream(0, "init")), "bias": np.full(2, -12.0)}
    far, report = model.solve(binned, SolverContext(init=init, stream=Stream(0, "solver")))
    assert report.status == "CONVERGED"
    for name in ("bias", "history", "coupling"):
        assert np.allclose(far[name], params[name], atol=1e-6)


@pytest.mark.parametrize("solver", ["newton", "lbfgs", "proximal"])
def test_a_start_from_which_no_step_is_finite_is_no_convergence(data, solver: str, recwarn: pytest.WarningsRecorder) -> None:
    binned, _, _ = data
    model = replace(MODEL, ridge_history=1.0, ridge_coupling=1.0, solver=solver, stabilise="off", standard_errors=False)
    init = {**initial_params(model.param_specs(binned.info()), Stream(0, "init")), "bias": np.array([800.0, -2.0, -2.0, -2.0])}
    _, report = model.solve(binned, SolverContext(init=init, stream=Stream(0, "solver")))
    assert report.status == "PLATEAU" and report.message.startswith("1 target neurons stopped")
    assert not [str(warning.message) for warning in recwarn]


def test_unpenalised_optimum_and_standard_errors_equal_statsmodels(data) -> None:
    import statsmodels.api as sm

    binned, counts, designs = data
    model = replace(MODEL, ridge_history=0.0, ridge_coupling=0.0, standard_errors=True)
    params, report = solve(model, binned)
    errors = {name.removeprefix("standard_error_"): value for name, value in report.extras.items() if name.startswith("standard_error_")}
    for n, design in enumerate(designs):
        other = sm.GLM(counts[:, n], sm.add_constant(design), family=sm.families.Poisson()).fit(tol=1e-14, maxiter=100)
        assert np.abs(np.append(params["bias"][n], row(params, n)) - other.params).max() < 1e-6
        ours = np.append(errors["bias"][n], row(errors, n))
        assert np.abs(ours / other.bse - 1.0).max() < 1e-6
        block = report.extras["coupling_covariance"][n, (n + 1) % 4]
        at = 1 + 3 + 2 * [pre for pre in range(4) if pre != n].index((n + 1) % 4)
        assert np.allclose(block, other.cov_params()[at : at + 2, at : at + 2], rtol=1e-5)
    assert np.isnan(report.extras["coupling_covariance"][1, 1]).all()
    assert (params["coupling"][np.arange(4), np.arange(4)] == 0).all()


def test_bernoulli_optimum_equals_scikit_learn() -> None:
    from sklearn.linear_model import LogisticRegression

    counts = simulated_counts(1, 800, 3, binary=True)
    binned = recording(counts).bin()
    model = replace(MODEL, emission="bernoulli", ridge_history=1.5, ridge_coupling=1.5)
    layout = model.layout(binned.info())
    params, _ = solve(model, binned)
    for n in range(3):
        design = dense_design(counts[0], n, layout.history.values, layout.coupling.values)
        other = LogisticRegression(C=1 / 1.5, tol=1e-10, max_iter=1000, solver="newton-cholesky").fit(design, counts[0, :, n])
        assert params["bias"][n] == pytest.approx(other.intercept_[0], abs=1e-6)
        assert np.abs(row(params, n) - other.coef_[0]).max() < 1e-6


@pytest.mark.parametrize("is_exact", [True, False])
def test_l1_and_dale_optimum_equals_split_variables_with_bounds(data, is_exact: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    binned, counts, designs = data
    strength, ridge, signs = 6.0, 0.5, (1, -1, 0, 1)
    model = replace(MODEL, penalty="l1", sparsity_coupling=strength, ridge_history=ridge, ridge_coupling=ridge, dale=signs, tolerance=1e-13)
    # the cheaper of exact Hessians and the shared metric is taken; the optimum must be the same
    monkeypatch.setattr("fitspike.models.glm_solver.method_costs", lambda layout, problem: (0.0, 1.0) if is_exact else (1.0, 0.0))
    params, report = solve(model, binned)
    assert report.status == "CONVERGED"
    for n in (0, 2):
        design, y = designs[n], counts[:, n]
        n_weights = design.shape[1]
        is_coupling = np.arange(n_weights) >= 3
        sign_of = np.repeat([signs[pre] for pre in range(4) if pre != n], 2)

        def objective(split, design=design, y=y, n_weights=n_weights, is_coupling=is_coupling):
            bias, up, down = split[0], split[1 : 1 + n_weights], split[1 + n_weights :]
            weight = up - down
            rate = np.exp(bias + design @ weight)
            value = (rate - y * np.log(rate)).sum() + 0.5 * ridge * weight @ weight + strength * (up + down)[is_coupling].sum()
            slope = design.T @ (rate - y) + ridge * weight
            return value, np.concatenate([[(rate - y).sum()], slope + strength * is_coupling, -slope + strength * is_coupling])

        up_high = np.where(is_coupling, np.append(np.zeros(3), np.where(sign_of < 0, 0.0, np.inf)), np.inf)
        down_high = np.where(is_coupling, np.append(np.zeros(3), np.where(sign_of > 0, 0.0, np.inf)), np.inf)
        bounds = [(None, None), *((0, None if np.isinf(h) else h) for h in np.concatenate([up_high, down_high]))]
        start = np.zeros(1 + 2 * n_weights)
        start[0] = -2.0
        best = minimize(
            objective, start, jac=True, bounds=bounds, method="L-BFGS-B", options={"maxiter": 5000, "ftol": 1e-16, "gtol": 1e-9}
        )
        weight = best.x[1 : 1 + n_weights] - best.x[1 + n_weights :]
        assert np.abs(row(params, n) - weight).max() < 1e-5  # L-BFGS-B ends at gradients of about 1e-7
        assert ((row(params, n) == 0) == (np.abs(weight) < 1e-6))[is_coupling].all()
    assert (params["coupling"][:, 0] >= 0).all()
    assert (params["coupling"][:, 1] <= 0).all()


def test_group_l1_optimum_satisfies_its_kkt_conditions(data) -> None:
    binned, counts, designs = data
    strength = 5.0
    model = replace(MODEL, penalty="group-l1", sparsity_coupling=strength, ridge_history=0.0, ridge_coupling=0.0, tolerance=1e-14)
    params, _ = solve(model, binned)
    n_zero = 0
    for n, design in enumerate(designs):
        weights = row(params, n)
        slope = design.T @ (np.exp(params["bias"][n] + design @ weights) - counts[:, n])
        assert np.abs(slope[:3]).max() < 1e-4
        for group in range(3):
            at = slice(3 + 2 * group, 5 + 2 * group)
            norm, limit = np.linalg.norm(weights[at]), strength * np.sqrt(2)
            if norm == 0:
                n_zero += 1
                assert np.linalg.norm(slope[at]) <= limit * (1 + 1e-6)
            else:
                assert np.abs(slope[at] + limit * weights[at] / norm).max() < 1e-4
    assert 0 < n_zero < 12


def test_group_l1_keeps_the_signs_of_dale(data) -> None:
    """Neuron 3 excites neuron 0, so that its sign -1 has to bind; the fit is then as if that pair did not exist."""
    binned, counts, designs = data
    strength, signs = 5.0, (1, 0, 0, -1)
    plain = replace(MODEL, penalty="group-l1", sparsity_coupling=strength, ridge_history=0.0, ridge_coupling=0.0, tolerance=1e-13)
    assert solve(plain, binned)[0]["coupling"][0, 3].max() > 0.1
    params, report = solve(replace(plain, dale=signs), binned)
    assert report.status == "CONVERGED"
    assert (params["coupling"][:, 0] >= 0).all() and (params["coupling"][:, 3] <= 0).all()
    limit = strength * np.sqrt(2)

    def objective(weights: np.ndarray) -> float:
        drive = weights[0] + designs[0] @ weights[1:]
        groups = np.linalg.norm(weights[4:].reshape(3, 2), axis=1)
        return float((np.exp(drive) - counts[:, 0] * drive).sum() + limit * groups.sum())

    found = np.append(params["bias"][0], row(params, 0))
    bounds = [(None, None)] * 8 + [(None, 0.0)] * 2
    for start in (found, found + 0.1 * np.append(np.ones(8), -np.ones(2))):
        other = minimize(objective, start, method="L-BFGS-B", bounds=bounds)
        assert objective(found) <= other.fun + 1e-6


def test_weights_are_post_by_pre(data) -> None:
    """Neuron n is driven by its left neighbour n - 1, which a transposed matrix would show as n + 1."""
    binned, _, _ = data
    params, _ = solve(replace(MODEL, ridge_history=1.0, ridge_coupling=1.0), binned)
    total = params["coupling"].sum(axis=2)
    assert (total.argmax(axis=1) == (np.arange(4) - 1) % 4).all()
    assert not (total.T.argmax(axis=1) == (np.arange(4) - 1) % 4).all()


def test_single_precision_reaches_the_same_objective(data) -> None:
    binned, _, _ = data
    values = {}
    for precision in ("float32", "float64"):
        _, report = solve(
            replace(MODEL, solver="lbfgs", precision=precision, tolerance=1e-9, ridge_history=1.0, ridge_coupling=1.0), binned
        )
        assert report.status == "CONVERGED"
        values[precision] = report.history[-1]["objective"]
    assert values["float32"] == pytest.approx(values["float64"], rel=1e-6)


def test_silent_neuron_gets_a_finite_floor() -> None:
    counts = simulated_counts(1, 400, 3)
    counts[:, :, 1] = 0
    params, report = solve(MODEL, recording(counts).bin())
    assert params["bias"][1] == pytest.approx(np.log(0.5 / 400))
    assert (params["history"][1] == 0).all() and (params["coupling"][1] == 0).all()
    assert "without training spikes" in report.message and report.status == "CONVERGED"


def test_absolute_refractoriness_converges_to_finite_weights() -> None:
    """No spike ever follows another within two bins, so that unpenalised weights would go to minus infinity."""
    random = np.random.Generator(np.random.Philox(3))
    counts = np.zeros((1, 3000, 1), dtype=int)
    last = -10
    for t in range(3000):
        if t - last > 2 and random.random() < 0.2:
            counts[0, t, 0], last = 1, t
    model = replace(MODEL, basis="boxes", history_ms=20.0, n_history=4, ridge_history=0.0, tolerance=1e-10)
    params, report = solve(model, recording(counts).bin())
    assert report.status == "CONVERGED"
    assert np.isfinite(params["history"]).all()
    assert (params["history"][0, :2] < -10).all()
    design = dense_design(counts[0], 0, model.layout(recording(counts).bin().info()).history.values, None)
    expected = np.exp(params["bias"][0] + design @ params["history"][0])
    # at the unpenalised optimum the expected counts add up to the count (the bias' score equation)
    assert expected.sum() == pytest.approx(counts.sum(), rel=1e-6)
