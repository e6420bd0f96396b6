"""Standard errors where the data determine only part of the weights."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from fitspike.models import glm_errors, glm_metric
from fitspike.models.coupled_glm import CoupledGLM
from fitspike.recording.tables import Signal
from fitspike.rng import Stream

sys.path.insert(0, str(Path(__file__).parent))
from glm_data import dense_design, recording, simulated_counts, solve  # noqa: E402

N_BINS, N_STATES = 6000, 4


@pytest.fixture(scope="module")
def states() -> np.ndarray:
    """Which of four states each bin is in, as one indicator per state: together they are the constant."""
    return np.eye(N_STATES)[np.repeat(Stream(3, "states").numpy().integers(0, N_STATES, N_BINS // 50), 50)]


@pytest.mark.parametrize("in_float32", [False, True])
def test_indicators_of_every_state_leave_the_other_errors_those_of_statsmodels(states, in_float32: bool, monkeypatch) -> None:
    import statsmodels.api as sm

    if in_float32:  # as for data of which exact sums would take long
        monkeypatch.setattr(glm_errors, "_S_PRODUCT", 1e-8)
    counts = simulated_counts(1, N_BINS, 3, seed=5)
    binned = recording(counts).attach(signals={"state": Signal(states, 200.0)}).bin()
    model = CoupledGLM(
        emission="poisson",
        history_ms=50.0,
        n_history=3,
        coupling_ms=30.0,
        n_coupling=2,
        trial_time=False,
        condition_time=False,
        ridge_history=0.0,
        ridge_coupling=0.0,
        ridge_signal=0.0,
        signal_before_ms=0.0,
        signal_after_ms=0.0,
        standard_errors=True,
        stabilise="off",
        solver="lbfgs",
    )
    layout = model.resolved(binned.info()).layout(binned.info())
    _, report = solve(model, binned)
    assert report.status == "CONVERGED"
    assert np.isinf(report.extras["standard_error_signal"]).all()
    assert np.isfinite(report.extras["standard_error_bias"]).all()  # signals are centred: the bias is the drive at their mean
    for n in range(3):
        design = np.column_stack([states, dense_design(counts[0], n, layout.history.values, layout.coupling.values)])
        other = sm.GLM(counts[0, :, n], design, family=sm.families.Poisson()).fit(tol=1e-12)
        assert report.extras["standard_error_history"][n] == pytest.approx(other.bse[N_STATES : N_STATES + 3], rel=1e-3)
        others = [pre for pre in range(3) if pre != n]
        assert report.extras["standard_error_coupling"][n, others].ravel() == pytest.approx(other.bse[N_STATES + 3 :], rel=1e-3)


def test_matrices_that_rounding_makes_indefinite_are_factorised() -> None:
    mixing = Stream(0, "mixing").numpy().standard_normal((6, 5))
    matrix = mixing @ mixing.T - 1e-4 * np.eye(6)  # rank 5, and pushed below 0
    assert np.linalg.eigvalsh(matrix)[0] < 0
    factor, _ = glm_metric.positive_factor(matrix, 1e-13)
    lower = np.tril(factor)
    assert np.abs(lower @ lower.T - matrix).max() < 1e-2
