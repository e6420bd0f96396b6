"""A fit killed anywhere and resumed ends with the parameters of one never interrupted, bit for bit."""

import json
import os
import signal

import numpy as np
import pytest

import fitspike
from fitspike.errors import FitInterrupted, RunFolderError
from fitspike.models.coupled_glm import CoupledGLM
from fitspike.recording.recording import Recording
from fitspike.results.run_dir import RunFolder

QUIET = {
    "progress": "off",
    "threads": 1,
    "report": False,
    "score": {"co_smoothing_bins": 0, "n_bootstrap": 20},
    "simulation": {"max_seconds": 1.0},
}


def fit(recording, model, out, **options):
    return fitspike.fit(recording, model, out=out, **{**QUIET, "stop": {"checkpoint_s": 0}, **options})


def kill_after(n_points, error):
    """Return a callback that ends the process, as far as the package can tell, at the n-th log point."""
    heard = []

    def callback(step, metrics):
        heard.append(step)
        if len(heard) == n_points:
            raise error

    return callback


def same(a, b):
    return set(a.params) == set(b.params) and all(np.array_equal(a.params[name], b.params[name]) for name in a.params)


@pytest.mark.parametrize("n_points", [2, 4, 9])  # in the selection, at the first step of the solver, in the middle of it
def test_killed_and_resumed_is_uninterrupted(counts_recording, steady_rate, killed, tmp_path, n_points):
    whole = fit(counts_recording, steady_rate(), tmp_path / "whole")
    with pytest.raises(killed):
        fit(counts_recording, steady_rate(), tmp_path / "run", callbacks=[kill_after(n_points, killed())])
    assert RunFolder.open(tmp_path / "run").status["state"] == "running"
    resumed = fit(counts_recording, steady_rate(), tmp_path / "run", resume=True)
    assert same(whole, resumed) and resumed.scores == whole.scores

    def points(result):
        return [(row["stage"], row["step"]) for row in result.history]

    assert points(resumed) == points(whole)
    assert len(list((tmp_path / "run" / "checkpoints").iterdir())) == 0


def test_a_resumed_selection_is_not_made_again(counts_recording, steady_rate, killed, tmp_path):
    with pytest.raises(killed):
        fit(counts_recording, steady_rate(), tmp_path / "run", callbacks=[kill_after(5, killed())])

    class NeverAgain(steady_rate):
        def select(self, binned, context):
            raise AssertionError("selected twice")

    assert fit(counts_recording, NeverAgain(), tmp_path / "run", resume=True).model.settings["shift"] == 0.0


def test_killed_while_scoring_the_fit_is_not_made_again(counts_recording, steady_rate, killed, tmp_path, monkeypatch):
    from fitspike.fitting import pipeline

    def die(*arguments):
        raise killed

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "judge", die)
        with pytest.raises(killed):
            fit(counts_recording, steady_rate(shift=0.0), tmp_path / "run")
    before = (tmp_path / "run" / "params.npz").stat().st_mtime_ns
    resumed = fit(counts_recording, steady_rate(shift=0.0), tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "params.npz").stat().st_mtime_ns == before
    assert resumed.scores["n_bins"] == 600


def test_a_step_limit_can_be_raised(counts_recording, steady_rate, tmp_path):
    whole = fit(counts_recording, steady_rate(shift=0.0), tmp_path / "whole")
    short = fit(counts_recording, steady_rate(shift=0.0), tmp_path / "run", stop={"max_steps": 4, "checkpoint_s": 1e6})
    assert short.status.name == "STEP_LIMIT"
    assert same(fit(counts_recording, steady_rate(shift=0.0), tmp_path / "run", resume=True), whole)


def test_a_finished_run_resumes_to_itself(counts_recording, steady_rate, tmp_path):
    first = fit(counts_recording, steady_rate(shift=0.0), tmp_path / "run")
    assert same(fit(counts_recording, steady_rate(shift=0.0), tmp_path / "run", resume=True), first)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stores_the_state_and_stops(counts_recording, steady_rate, tmp_path, number):
    def send(step, metrics):
        if step == 4:
            os.kill(os.getpid(), number)

    handler = signal.getsignal(number)
    with pytest.raises(FitInterrupted):
        fit(counts_recording, steady_rate(shift=0.0), tmp_path / "run", callbacks=[send], stop={"checkpoint_s": 1e6})
    assert signal.getsignal(number) is handler
    status = json.loads((tmp_path / "run" / "status.json").read_text())
    assert status["state"] == "interrupted" and "--resume" in status["message"]
    whole = fit(counts_recording, steady_rate(shift=0.0), tmp_path / "whole")
    assert same(fit(counts_recording, steady_rate(shift=0.0), tmp_path / "run", resume=True), whole)


def test_a_signal_while_scoring_stops_at_once(counts_recording, steady_rate, tmp_path, monkeypatch):
    """Scoring has no state to store: there is nothing to wait for."""
    from fitspike.fitting import pipeline

    def long_scoring(*arguments):
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("went on after the signal")

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "judge", long_scoring)
        with pytest.raises(FitInterrupted, match="in stage 'score'"):
            fit(counts_recording, steady_rate(shift=0.0), tmp_path / "run")
    resumed = fit(counts_recording, steady_rate(shift=0.0), tmp_path / "run", resume=True)
    assert resumed.scores["n_bins"] == 600


def test_other_settings_or_data_are_not_resumed(counts_recording, steady_rate, killed, tmp_path):
    with pytest.raises(killed):
        fit(counts_recording, steady_rate(shift=0.0), tmp_path / "run", callbacks=[kill_after(3, killed())])
    with pytest.raises(RunFolderError, match="seed was 0, now 5"):
        fit(counts_recording, steady_rate(shift=0.0), tmp_path / "run", resume=True, seed=5)
    other = Recording.from_counts(np.ones((3000, 3), int), dt_ms=10.0, ids=["a", "b", "c"])
    with pytest.raises(RunFolderError, match="started on other data"):
        fit(other, steady_rate(shift=0.0), tmp_path / "run", resume=True)


def coupled_counts(n_bins=3000, n_neurons=3):
    draw = np.random.default_rng(5)
    counts = draw.poisson(0.15, size=(n_bins, n_neurons))
    counts[1:, 1] += (draw.random(n_bins - 1) < 0.3 * np.minimum(counts[:-1, 0], 1)).astype(int)
    return Recording.from_counts(counts, dt_ms=10.0)


def test_coupled_glm_killed_and_resumed(killed, tmp_path):
    recording, model = coupled_counts(), CoupledGLM(history_ms=50.0, coupling_ms=50.0, solver="lbfgs", stabilise="warn")
    whole = fit(recording, model, tmp_path / "whole", selection=False)
    with pytest.raises(killed):
        fit(recording, model, tmp_path / "run", selection=False, callbacks=[kill_after(3, killed())])
    assert same(fit(recording, model, tmp_path / "run", selection=False, resume=True), whole)


def test_training_by_steps_killed_and_resumed(killed, tmp_path):
    options = {
        "settings": {"coupling_ms": 20.0},
        "batch": {"n_bins": 20, "n_trials": 4},
        "stop": {"max_steps": 6, "log_every": 2, "checkpoint_s": 0},
        "split": "none",
    }
    recording = coupled_counts(400)
    whole = fit(recording, "spiking-network", tmp_path / "whole", **options)
    with pytest.raises(killed):
        fit(recording, "spiking-network", tmp_path / "run", callbacks=[kill_after(2, killed())], **options)
    assert same(fit(recording, "spiking-network", tmp_path / "run", resume=True, **options), whole)
    assert whole.status.name == "STEP_LIMIT"
