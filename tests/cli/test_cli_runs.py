"""fit, score, compare and simulate from the command line, from a file to numbers."""

import json
import subprocess
import sys
import tomllib

import numpy as np
import pytest

from fitspike.cli.main import run
from fitspike.datasets.loading import load
from fitspike.recording.recording import Recording
from fitspike.results.result import FitResult

COMMON = ["--progress", "off", "--threads", "1", "--no-report", "--set", "score.n_bootstrap=20", "--set", "score.co_smoothing_bins=0"]
FIXED = ["--no-selection", "--set", "history_ms=60", "--set", "coupling_ms=60", "--set", "stabilise=warn"]
GLM = ["--model", "coupled-glm", *FIXED, *COMMON]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Return a folder with a recording of 3 neurons in 20 trials, and one of other neurons."""
    folder = tmp_path_factory.mktemp("cli")
    draw = np.random.default_rng(7)
    counts = draw.poisson(0.2, size=(20, 100, 3))
    counts[:, 1:, 1] += (draw.random((20, 99)) < 0.9 * np.minimum(counts[:, :-1, 0], 1)).astype(int)
    Recording.from_counts(counts, dt_ms=10.0, ids=["a", "b", "c"], conditions=["left", "right"] * 10).save(folder / "session.fitspike")
    Recording.from_counts(counts, dt_ms=10.0, ids=["x", "y", "z"]).save(folder / "other.fitspike")
    return folder


@pytest.fixture(scope="module")
def fitted(files):
    """Return the folder of a coupled GLM fitted to the recording, and what the command printed."""
    status = run(["fit", str(files / "session.fitspike"), *GLM, "--out", str(files / "glm")])
    assert status == 0
    return files / "glm"


def printed_json(capsys, arguments):
    """Run a command, check that it went well, and return the one JSON object it printed."""
    capsys.readouterr()
    assert run(arguments) == 0
    return json.loads(capsys.readouterr().out)


def test_fit_prints_one_json_object(files, capsys):
    found = printed_json(capsys, ["fit", str(files / "session.fitspike"), *GLM, "--out", str(files / "json"), "--json"])
    assert {"bits_per_spike", "log_likelihood", "pseudo_r2", "n_spikes", "n_neurons", "status", "run", "notes"} <= set(found)
    assert found["status"] == "CONVERGED" and found["n_neurons"] == 3
    assert found["model"]["name"] == "fitspike:coupled-glm" and found["model"]["settings"]["history_ms"] == 60


def test_fit_prints_scores_and_draws_a_report(files, capsys):
    capsys.readouterr()
    drawn = [word for word in GLM if word != "--no-report"]
    assert run(["fit", str(files / "session.fitspike"), *drawn, "--out", str(files / "text")]) == 0
    captured = capsys.readouterr()
    report = files / "text" / "report.html"
    assert "bits per spike" in captured.out and "CONVERGED" in captured.out and f"report {report}" in captured.out
    assert "spikes" not in captured.err
    names = {path.name for path in (files / "text" / "figures").iterdir()}
    assert {"raster.svg", "coupling.svg", "rescaling.svg", "psth.svg", "simulation.svg"} <= names
    assert "data:image/svg+xml" in report.read_text(encoding="utf-8")


def test_default_folder_is_numbered(files, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number in (1, 2):
        found = printed_json(capsys, ["fit", str(files / "session.fitspike"), *GLM, "--json"])
        assert found["run"] == f"runs/session-coupled-glm-{number}"


def test_a_stored_configuration_gives_the_same_numbers(files, fitted, capsys):
    found = printed_json(
        capsys, ["fit", "--config", str(fitted / "run.toml"), "--out", str(files / "again"), "--json", "--progress", "off"]
    )
    first = FitResult.load(fitted)
    again = FitResult.load(files / "again")
    assert found["log_likelihood"] == first.scores["log_likelihood"]
    assert all(np.array_equal(first.params[name], again.params[name]) for name in first.params)
    assert tomllib.loads((fitted / "run.toml").read_text()) == tomllib.loads((files / "again" / "run.toml").read_text())


def test_score_of_the_fitted_file_is_that_of_its_held_out_part(files, fitted, capsys):
    stored = FitResult.load(fitted).scores
    for recording in ([], [str(files / "session.fitspike")]):
        found = printed_json(capsys, ["score", str(fitted), *recording, "--json"])
        assert found["scored"] == "the held-out part of the recording"
        assert found["log_likelihood"] == pytest.approx(stored["log_likelihood"], rel=1e-12)
    whole = printed_json(capsys, ["score", str(fitted), str(files / "session.fitspike"), "--all", "--json", "--per-neuron"])
    assert whole["n_bins"] == 2000 and stored["n_bins"] == 400
    assert len(whole["per_neuron"]["bits_per_spike"]) == 3 and whole["neuron_ids"] == ["a", "b", "c"]


def test_score_on_other_neurons_is_refused(files, fitted, capsys):
    assert run(["score", str(fitted), str(files / "other.fitspike")]) == 1
    assert "3 of the 3 fitted neurons are missing: a, b, c" in capsys.readouterr().err


def test_compare_pairs_runs_on_the_same_data(files, fitted, capsys):
    rate_only = ["--model", "coupled-glm", "--no-selection", *COMMON]
    for name in ("history_ms", "coupling_ms"):
        rate_only += ["--set", f"{name}=0"]
    assert run(["fit", str(files / "session.fitspike"), *rate_only, "--out", str(files / "rate")]) == 0
    found = printed_json(capsys, ["compare", str(files / "rate"), str(fitted), "--json"])
    reference, other = found["runs"]
    assert reference["difference"] is None
    assert other["difference"]["bits_per_spike"] == pytest.approx(other["bits_per_spike"] - reference["bits_per_spike"], abs=1e-12)
    assert other["difference"]["interval"][0] > 0
    assert run(["fit", str(files / "session.fitspike"), *GLM, "--split", "trial:test=3", "--out", str(files / "elsewhere")]) == 0
    capsys.readouterr()
    assert run(["compare", str(fitted), str(files / "elsewhere")]) == 0
    assert "scored on different data" in capsys.readouterr().out


def test_simulate_writes_a_recording(files, fitted, capsys):
    options = ["--n-trials", "4", "--duration", "0.5", "--seed", "3", "--condition", "right", "--json"]
    found = printed_json(capsys, ["simulate", str(fitted), "--out", str(files / "free"), *options])
    recording = load(found["path"])
    assert recording.n_spikes == found["n_spikes"] and recording.neurons.ids.tolist() == ["a", "b", "c"]
    assert recording.trials.conditions.tolist() == ["right"] * 4 and recording.duration_s == pytest.approx(2.0)
    rates = np.array([0.2, 0.36, 0.2]) / 0.01
    # 2 s at about 20 Hz: 40 spikes, five standard deviations allowed.
    assert (abs(recording.rates_hz - rates) < 5 * np.sqrt(rates * 2) / 2).all()


def test_problems_are_one_message_without_traceback(files, capsys):
    assert run(["fit", str(files / "none.nwb"), "--model", "coupled-gml", "--out", str(files / "never")]) == 1
    error = capsys.readouterr().err
    assert "coupled-gml" in error and "none.nwb" in error and "Traceback" not in error
    assert not (files / "never").exists()
    assert run(["fit", str(files / "session.fitspike"), "--set", "histroy_ms=3", "--progress", "off"]) == 1
    assert "did you mean 'history_ms'" in capsys.readouterr().err
    assert run(["fit"]) == 2 and run(["fit", "--resume", str(files / "session.fitspike")]) == 2
    assert run(["score", str(files / "session.fitspike")]) == 1


def test_wrong_keys_and_names_stand_in_one_message(files, capsys):
    words = [
        "fit",
        str(files / "session.fitspike"),
        "--model",
        "coupled-gml",
        "--set",
        "stop.max_stepz=3",
        "--rule",
        "bptx",
        "--split",
        "tme:0.2",
    ]
    assert run([*words, "--threads", "0", "--out", str(files / "never")]) == 1
    message = capsys.readouterr().err
    for part in ("5 problems", "'max_steps'", "threads = 0", "'coupled-glm'", "no learning rule 'bptx'", "tme"):
        assert part in message, part
    assert not (files / "never").exists()


def test_resume_without_a_run_begins_one_and_says_so(files, capsys):
    out = files / "begun"
    assert run(["fit", "--resume", "--out", str(out)]) == 1
    assert "holds no run to go on with" in capsys.readouterr().err and not out.exists()
    words = [*GLM, "--progress", "lines"]  # the later option counts
    assert run(["fit", str(files / "session.fitspike"), *words, "--resume", "--out", str(out)]) == 0
    assert "holds no run yet" in capsys.readouterr().err


def test_a_path_that_cannot_be_written_is_named(files, fitted, capsys):
    below_a_file = files / "session.fitspike" / "recording.json" / "figures"
    assert run(["plot", str(fitted), "--out", str(below_a_file)]) == 1
    message = capsys.readouterr().err
    assert str(below_a_file) in message and "Check the path" in message and "Errno" not in message and "Traceback" not in message


def test_a_numbered_configuration_is_taken_by_index(files, fitted, capsys):
    plan = files / "plan"
    plan.mkdir()
    for number in (1, 2):
        (plan / f"{number:04d}.toml").write_text((fitted / "run.toml").read_text().replace("seed = 0", f"seed = {number}"))
    found = printed_json(
        capsys, ["fit", "--config", str(plan), "--index", "2", "--out", str(files / "planned"), "--json", "--progress", "off"]
    )
    assert FitResult.load(found["run"]).provenance.seed == 2
    assert run(["fit", "--config", str(plan), "--index", "3"]) == 1
    assert "has no" not in capsys.readouterr().out


def test_kill_9_and_resume_give_the_parameters_of_an_uninterrupted_fit(files, fitted):
    """The command itself, killed by the system in the middle of the solver, then resumed."""
    out = files / "killed"
    code = (
        "import os, signal, sys\n"
        "from fitspike.fitting.session import Session\n"
        "plain = Session.report\n"
        "def report(self, step, metrics):\n"
        "    plain(self, step, metrics)\n"
        "    if step == 2: os.kill(os.getpid(), signal.SIGKILL)\n"
        "Session.report = report\n"
        "from fitspike.cli.main import main\n"
        "main()\n"
    )
    arguments = ["fit", str(files / "session.fitspike"), *GLM, "--set", "stop.checkpoint_s=0", "--out", str(out)]
    killed = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=300, check=False)
    assert killed.returncode == -9, killed.stderr
    assert not (out / "params.npz").exists() and list((out / "checkpoints").iterdir())
    assert run(["fit", "--resume", "--out", str(out), "--progress", "off"]) == 0
    whole, resumed = FitResult.load(fitted), FitResult.load(out)
    assert all(np.array_equal(whole.params[name], resumed.params[name]) for name in whole.params)


def test_a_run_with_attached_files_is_scored_from_another_folder(files, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(files)
    np.savez("cues.npz", cue=np.arange(0.0, 19.9, 0.5))
    (files / "sides.csv").write_text("condition\n" + "left\nright\n" * 20)
    cut = ["--attach-events", "cues.npz", "--align", "cue", "--window", "0,0.5", "--attach-conditions", "sides.csv"]
    fitted = printed_json(capsys, ["fit", "session.fitspike", *GLM, *cut, "--out", "aligned", "--json"])
    monkeypatch.chdir(tmp_path)
    for recording in ([], [str(files / "session.fitspike")]):
        found = printed_json(capsys, ["score", str(files / "aligned"), *recording, "--json"])
        assert found["scored"] == "the held-out part of the recording"
        assert found["log_likelihood"] == fitted["log_likelihood"]
    (files / "sides.csv").unlink()
    assert run(["score", str(files / "aligned"), str(files / "session.fitspike")]) == 1  # not: all of it, training trials too
    assert "sides.csv" in capsys.readouterr().err
    whole = printed_json(capsys, ["score", str(files / "aligned"), str(files / "session.fitspike"), "--all", "--json"])
    assert whole["scored"].startswith("all of the recording")
