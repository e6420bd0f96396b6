"""Run folders: written whole, refused twice, read by numpy and json alone; components remembered by name and version."""

import dataclasses
import json
import os
import shutil
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import fitspike
from fitspike.datasets.loading import load
from fitspike.errors import InvalidInputError, PluginError, ReadError, RunFolderError
from fitspike.models.spiking_network import SpikingNetwork
from fitspike.neurons.lif import EscapeLIF
from fitspike.recording.recording import Recording
from fitspike.recording.tables import Signal
from fitspike.results.components import ComponentRef, reference_to
from fitspike.results.files import plain, read_arrays, write_arrays, write_bytes
from fitspike.results.result import FitResult
from fitspike.results.run_dir import RunFolder, next_folder
from fitspike.results.simulation import FreeTrials, simulate_events
from fitspike.results.training_data import TrainingData
from fitspike.rng import Stream


def test_a_folder_with_anything_in_it_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RunFolderError, match="is not empty.*--out"):
        RunFolder.create(tmp_path)
    with pytest.raises(RunFolderError, match="is no run folder"):
        RunFolder.open(tmp_path)
    with pytest.raises(RunFolderError, match="does not exist"):
        RunFolder.open(tmp_path / "none")


def test_names_of_folders_count_up(tmp_path):
    assert next_folder(tmp_path, "my data", "coupled-glm").name == "my_data-coupled-glm-1"
    (tmp_path / "my_data-coupled-glm-1").mkdir()
    assert next_folder(tmp_path, "my data", "coupled-glm").name == "my_data-coupled-glm-2"


def test_a_newer_format_is_refused(tmp_path):
    folder = RunFolder.create(tmp_path / "run")
    folder.set_status("finished", stage="done")
    status = json.loads((tmp_path / "run" / "status.json").read_text())
    (tmp_path / "run" / "status.json").write_text(json.dumps({**status, "format_version": 99}))
    with pytest.raises(RunFolderError, match="format version 99; this fitspike reads up to 1"):
        RunFolder.open(tmp_path / "run")


def test_a_run_of_a_live_process_is_left_alone(tmp_path):
    RunFolder.create(tmp_path / "run").set_status("running", stage="fit")
    path = tmp_path / "run" / "status.json"
    status = json.loads(path.read_text())
    path.write_text(json.dumps({**status, "pid": os.getppid()}))
    with pytest.raises(RunFolderError, match=f"process {os.getppid()}"):
        RunFolder.open(tmp_path / "run").check_not_running()
    path.write_text(json.dumps({**status, "pid": 2**22 + 1}))  # beyond the largest process number of Linux
    RunFolder.open(tmp_path / "run").check_not_running()
    path.write_text(json.dumps({**status, "host": "elsewhere"}))
    with pytest.raises(RunFolderError, match="on elsewhere"):
        RunFolder.open(tmp_path / "run").check_not_running()


def test_the_last_two_checkpoints_are_kept(tmp_path):
    folder = RunFolder.create(tmp_path / "run")
    assert folder.load_checkpoint() is None
    for step in (9, 10, 100):
        folder.save_checkpoint(step, {"a/b": np.arange(step)})
    assert sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir()) == ["step_00000010.npz", "step_00000100.npz"]
    step, arrays = folder.load_checkpoint()
    assert step == 100 and arrays["a/b"].tolist() == list(range(100))


def test_a_history_cut_off_by_a_crash_is_read_up_to_there(tmp_path):
    folder = RunFolder.create(tmp_path / "run")
    for step in (1, 2, 3):
        folder.add_history({"stage": "fit", "step": step, "nll": 1 / step})
    with (tmp_path / "run" / "history.jsonl").open("a") as file:
        file.write('{"stage": "fit", "st')
    assert [row["step"] for row in folder.history()] == [1, 2, 3]
    folder.cut_history("fit", 2)
    assert [row["nll"] for row in folder.history()] == [1.0, 0.5]


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "params.npz"
    write_bytes(path, b"old")

    def fail(source, target):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail)
        with pytest.raises(RunFolderError, match="No space left on device"):
            write_bytes(path, b"new")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_arrays_need_no_pickle(tmp_path):
    write_arrays(tmp_path / "a.npz", {"recorded/rate_hz": np.ones(3), "names": np.array(["x", "yy"])})
    with np.load(tmp_path / "a.npz", allow_pickle=False) as file:
        assert sorted(file.files) == ["names", "recorded/rate_hz"]
    with pytest.raises(RunFolderError, match="cannot store bad"):
        write_arrays(tmp_path / "b.npz", {"bad": np.array([None, {}], dtype=object)})
    (tmp_path / "a.npz").write_bytes(b"no zip")
    with pytest.raises(RunFolderError, match="damaged"):
        read_arrays(tmp_path / "a.npz")


def test_plain_values_hold_no_nan():
    assert plain({"a": np.float64("nan"), "b": (1, np.int8(2)), "c": np.array([1.0, np.inf])}) == {"a": None, "b": [1, 2], "c": [1.0, None]}


def test_a_nested_component_is_made_again():
    model = SpikingNetwork(neuron=EscapeLIF(), coupling_ms=12.5, connect=("E->*", "I->I"), dale=(1, -1))
    stored = json.loads(json.dumps(reference_to(model, "models").to_json()))
    assert stored["qualified_name"] == "fitspike:spiking-network" and stored["distribution"] == "fitspike"
    assert ComponentRef.from_json(stored).build() == model


def test_a_missing_plugin_is_named_with_its_version():
    reference = ComponentRef("models", "far-away:thing", {}, "fitspike-far-away", "2.5")
    with pytest.raises(PluginError, match=r"'far-away:thing' of fitspike-far-away 2\.5.*pip install 'fitspike-far-away==2\.5'"):
        reference.build()


@dataclass(frozen=True)
class Unregistered:
    """An object that no plugin registers."""

    size: int = 3


def test_an_object_that_nothing_registers_cannot_be_made_again():
    reference = reference_to(Unregistered(4), "models")
    assert reference.distribution == "" and reference.settings == {"size": 4}
    with pytest.raises(PluginError, match=r"FitResult\.load\(folder, model=\.\.\.\)"):
        reference.build()


@pytest.fixture(scope="module")
def stored_run(tmp_path_factory):
    """Return a recording of 10 trials in 2 conditions, the result of a fit to it, and its folder."""
    counts = np.random.default_rng(6).poisson(0.2, size=(10, 60, 3))
    recording = Recording.from_counts(counts, dt_ms=10.0, ids=["a", "b", "c"], conditions=["left", "right"] * 5)
    out = tmp_path_factory.mktemp("runs") / "run"
    result = fitspike.fit(
        recording,
        "spiking-network",
        settings={"coupling_ms": 20.0},
        batch={"n_bins": 60},
        stop={"max_steps": 3, "log_every": 1},
        score={"co_smoothing_bins": 60, "n_bootstrap": 20},
        threads=1,
        report=False,
        out=out,
        progress="off",
    )
    return recording, result, out


def test_a_loaded_result_is_the_one_saved(stored_run):
    _, result, out = stored_run
    loaded = FitResult.load(out)
    assert loaded.params.keys() == result.params.keys()
    assert all(np.array_equal(loaded.params[name], result.params[name]) for name in result.params)
    assert loaded.scores == result.scores and loaded.status is result.status and loaded.notes == result.notes
    assert loaded.build_model() == result.live_model
    assert loaded.data.to_json() == result.data.to_json()
    assert [c.text for c in loaded.citations()] == [c.text for c in result.citations()] and loaded.citations()
    for name, spec in result.specs.items():
        assert (loaded.specs[name].shape, loaded.specs[name].unit, loaded.specs[name].axes) == (tuple(spec.shape), spec.unit, spec.axes)
    np.testing.assert_array_equal(loaded.blocks.model, result.blocks.model)
    assert len(loaded.history) == 3


def test_a_result_is_read_without_its_plugin(stored_run, tmp_path):
    import shutil

    _, result, out = stored_run
    shutil.copytree(out, tmp_path / "run")
    specs = json.loads((tmp_path / "run" / "specs.json").read_text())
    specs["model"] |= {"qualified_name": "elsewhere:spiking-network", "distribution": "fitspike-elsewhere", "version": "1.2.3"}
    (tmp_path / "run" / "specs.json").write_text(json.dumps(specs))
    loaded = FitResult.load(tmp_path / "run")
    assert loaded.scores == result.scores and loaded.statistics.keys() == result.statistics.keys()
    with pytest.raises(PluginError, match=r"fitspike-elsewhere 1\.2\.3"):
        loaded.simulate()


def test_a_saved_copy_loads(stored_run, tmp_path):
    _, result, _ = stored_run
    loaded = FitResult.load(result.save(tmp_path / "copy"))
    assert loaded.scores == result.scores and loaded.config == result.config
    with pytest.raises(RunFolderError, match="already holds a run"):
        result.save(tmp_path / "copy")


def test_simulations_follow_seed_conditions_and_duration(stored_run):
    _, result, _ = stored_run
    one, again, other = (result.simulate(seed=seed) for seed in (1, 1, 2))
    assert one.fingerprint() == again.fingerprint() != other.fingerprint()
    assert one.trials.conditions.tolist() == ["left", "right"] and one.neurons.ids.tolist() == ["a", "b", "c"]
    long = result.simulate(n_trials=3, duration_s=0.2, conditions=["right"])
    assert long.trials.conditions.tolist() == ["right"] * 3 and long.duration_s == pytest.approx(0.6)
    with pytest.raises(ValueError, match="conditions up were not fitted. Known: left, right"):
        result.simulate(conditions=["up"])
    with pytest.raises(ValueError, match="must be positive"):
        result.simulate(duration_s=-1)


def test_simulations_over_a_recording_are_as_long_as_asked_and_never_longer_than_its_trials(stored_run):
    recording, result, _ = stored_run
    trial_s = recording.duration_s / recording.n_trials
    whole = result.simulate(signals_from=recording, n_trials=2, seed=1)
    half = result.simulate(signals_from=recording, n_trials=2, duration_s=trial_s / 2, seed=1)
    assert whole.duration_s == pytest.approx(2 * trial_s) and half.duration_s == pytest.approx(trial_s)
    assert np.array_equal(half.bin().dense_numpy(), whole.bin().dense_numpy()[:, : half.bin().bins_per_trial[0]])
    with pytest.raises(ValueError, match="trials of signals_from last up to"):
        result.simulate(signals_from=recording, duration_s=2 * trial_s)
    with pytest.raises(ValueError, match="conditions are those of signals_from"):
        result.simulate(signals_from=recording, conditions=["left"])


def test_scores_need_the_neurons_of_the_fit(stored_run):
    recording, result, _ = stored_run
    test_part = recording.select(trials=[8, 9])
    assert result.score(test_part).to_json()["log_likelihood"] == pytest.approx(result.scores["log_likelihood"], rel=1e-9)
    shuffled = recording.select(trials=[8, 9], neurons=["c", "a", "b"])
    assert result.score(shuffled)["log_likelihood"] == pytest.approx(result.scores["log_likelihood"], rel=1e-9)
    with pytest.raises(ValueError, match="1 of the 3 fitted neurons are missing: b"):
        result.score(recording.select(neurons=["a", "c"]))


def test_what_a_model_may_know_of_the_training_data_survives_storing():
    """Statistics centred by condition of repeats would else be centred by trial when a stored fit is measured."""
    counts = np.random.default_rng(0).integers(0, 2, (4, 30, 2))
    binned = Recording.from_counts(counts, dt_ms=2.0, conditions=["a", "b"] * 2).bin().pieces([(k, k // 2, 30, 1) for k in range(4)])
    stored = TrainingData.from_json(json.loads(json.dumps(TrainingData.of(binned, split="none").to_json())))
    before, after = (dataclasses.asdict(info) for info in (binned.info(), stored.info()))
    assert before["has_repeats"] is False and before["start_bins"] == (0, 1)
    for name, value in before.items():
        np.testing.assert_array_equal(after[name], value, err_msg=name)
    whole = Recording.from_counts(counts, dt_ms=2.0, conditions=["a", "b"] * 2).bin()
    assert TrainingData.of(whole, split="none").info().has_repeats


def test_signals_that_the_fit_did_not_have_do_not_matter():
    random = np.random.Generator(np.random.Philox(6))
    light, noise = (Signal(random.standard_normal((400, 1)), 100.0) for _ in range(2))
    bare = Recording.from_counts(random.poisson(np.exp(-2.0 + 0.5 * light.values[None])), dt_ms=10.0)
    seen, more = bare.attach(signals={"light": light}), bare.attach(signals={"light": light, "noise": noise})
    quiet = {"selection": False, "report": False, "progress": "off", "simulation": {"max_seconds": 0}}
    result = fitspike.fit(seen, **quiet)
    assert result.score(more)["log_likelihood"] == result.score(seen)["log_likelihood"]
    assert fitspike.fit(bare, **quiet).score(more)["log_likelihood"] == pytest.approx(
        fitspike.fit(bare, **quiet).score(bare)["log_likelihood"]
    )


def test_an_unfinished_run_says_how_to_go_on(tmp_path):
    RunFolder.create(tmp_path / "run").set_status("interrupted", stage="fit")
    with pytest.raises(RunFolderError, match="no parameters yet: the fit is interrupted in stage 'fit'.*--resume"):
        FitResult.load(tmp_path / "run")


@pytest.mark.parametrize(
    ("count", "message"), [(1e30, "by bin 10 a neuron fires more than 1e.06 times"), (50, "by bin 10 a neuron fires at 50,000 Hz")]
)
def test_simulation_that_runs_away_is_refused_in_words(count, message):
    """Counts of 1e30 are finite, and no integer: sums of them would overflow to nonsense. 50 in each ms would fill the memory."""

    class Explosive:
        def rollout(self, params, chunk, *, uniforms, carry=None):
            return SimpleNamespace(spikes=torch.full((1, chunk.n_bins, 1), count, dtype=torch.float64), carry=None)

    trials = FreeTrials(1, 10, 1.0, 1, np.array([-1]))
    with pytest.raises(InvalidInputError, match=f"runs away: {message}"):
        list(simulate_events(Explosive(), {}, trials, Stream(0, "simulation")))


def test_damaged_or_lost_files_are_named(stored_run, tmp_path):
    _, _, path = stored_run
    for name, content, message in (
        ("run.toml", "dt_ms = ", "run.toml is damaged"),
        ("fit.json", '{"stat', "fit.json is damaged"),
        ("params.npz", "PK", "params.npz is damaged"),
        ("params.npz", None, "has lost its parameters"),
        ("specs.json", None, "cannot read .*specs.json"),
    ):
        broken = tmp_path / f"{name}-{content is None}"
        shutil.copytree(path, broken)
        (broken / name).unlink()
        if content is not None:
            (broken / name).write_text(content)
        with pytest.raises(RunFolderError, match=message):
            FitResult.load(broken)


def test_a_run_folder_is_not_taken_for_a_recording(stored_run):
    with pytest.raises(ReadError, match="is the folder of a run, not a recording"):
        load(stored_run[2])
