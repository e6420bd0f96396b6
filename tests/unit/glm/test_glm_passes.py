"""How passes over the data are spent: threads, and when the metric of slow targets is renewed."""

from __future__ import annotations

import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from fitspike.models import glm_descent
from fitspike.models.coupled_glm import CoupledGLM
from fitspike.models.glm_descent import QuasiNewton, start_state
from fitspike.models.glm_metric import Metric
from fitspike.models.glm_parallel import in_threads
from fitspike.rng import Stream

sys.path.insert(0, str(Path(__file__).parent))
from glm_data import recording, simulated_counts, solve  # noqa: E402

MODEL = CoupledGLM(history_ms=50.0, n_history=3, coupling_ms=30.0, n_coupling=2, trial_time=False, condition_time=False, tolerance=1e-12)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_keep_the_order_and_give_each_item_one_core(threads: int) -> None:
    before = [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]

    def work(i: int) -> tuple[int, int, list[int]]:
        cores = [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]
        return i**2, threading.get_ident(), cores

    found = in_threads(work, range(7), threads)
    assert [value for value, _, _ in found] == [0, 1, 4, 9, 16, 25, 36]
    assert 1 <= len({thread for _, thread, _ in found}) <= threads
    assert {cores for _, _, libraries in found for cores in libraries} == {1}
    assert [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"] == before


@pytest.mark.parametrize("threads", [1, 2])
def test_an_error_in_a_thread_is_raised(threads: int) -> None:
    with pytest.raises(ZeroDivisionError):
        in_threads(lambda i: 1 / i, range(2), threads)


@pytest.mark.parametrize("solver", ["newton", "lbfgs"])
def test_optimum_does_not_depend_on_threads(solver: str) -> None:
    binned = recording(simulated_counts(3, 400, 5)).bin()
    one, three = (solve(replace(MODEL, solver=solver, precision="float64"), binned, threads=threads)[0] for threads in (1, 3))
    for name in ("bias", "history", "coupling"):
        assert np.abs(one[name] - three[name]).max() < 1e-6  # both are within the tolerance of the same optimum


class _Problem:
    threads = 1


def test_only_targets_that_would_need_more_passes_than_a_renewal_costs_get_one(monkeypatch) -> None:
    renewed_targets = []
    monkeypatch.setattr(
        glm_descent, "renewed", lambda problem, metric, rows, targets, at, stream: renewed_targets.append(targets[at].tolist())
    )
    metric = Metric(np.zeros((3, 1, 1)), None, None, slice(0, 0), np.ones(3), np.ones((3, 1), bool))
    # Decrements shrink by 10, 2 and not at all per pass, from 1 after the first one. After seven they are 1e-6, 2^-6 and 1; down to 1e-9
    # it takes 3, log2(1e9 / 64) = 23.9 and infinitely many passes more.
    for cost, wanted in ((2.0, [[10, 11, 12]]), (10.0, [[11, 12]]), (25.0, [[12]])):
        renewed_targets.clear()
        method = QuasiNewton(
            _Problem(), np.array([10, 11, 12]), metric, Stream(0, "renewal"), tolerance=np.full(3, 1e-9), renewal_passes=cost
        )
        state = start_state(np.zeros((3, 1)), 1)
        for n_passes in range(8):
            state["n_passes"][0] = n_passes
            if n_passes:
                state["decrement"] = np.array([10.0, 2.0, 1.0]) ** -(n_passes - 1.0)
            method.prepare(state)
        assert renewed_targets == wanted
        assert state["renewed_at"].tolist() == [7 if target in wanted[0] else 0 for target in (10, 11, 12)]


def test_no_target_is_renewed_twice_within_seven_passes(monkeypatch) -> None:
    at_pass = []
    monkeypatch.setattr(glm_descent, "renewed", lambda *arguments: at_pass.append(int(state["n_passes"][0])))
    metric = Metric(np.zeros((1, 1, 1)), None, None, slice(0, 0), np.ones(1), np.ones((1, 1), bool))
    method = QuasiNewton(_Problem(), np.array([0]), metric, Stream(0, "renewal"), tolerance=np.full(1, 1e-9), renewal_passes=0.0)
    state = start_state(np.zeros((1, 1)), 1)
    for n_passes in range(20):
        state["n_passes"][0] = n_passes
        state["decrement"] = np.array([1.0 if n_passes else np.inf])
        method.prepare(state)
    assert at_pass == [7, 14]
